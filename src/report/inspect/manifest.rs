//! What a manifest holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use super::Findings;
use crate::error::{Error, Result};
use crate::manifest::{Manifest, Split};
use crate::report::plots;
use crate::report::table::Table;
use crate::report::{write, write_records};

/// Missing files that are named.
const NAMED: usize = 10;

/// Says what a manifest holds: clips, labels, splits, groups, labels a clip, missing files; with `out`, writes classes.csv
/// and classes.svg.
///
/// # Errors
/// A file cannot be written.
pub fn inspect_manifest(manifest: &Manifest, out: Option<&Path>) -> Result<Findings> {
    let mut findings = Findings::default();
    let mut say = |line: std::fmt::Arguments<'_>| {
        findings.text.write_fmt(line).expect("writing to a string cannot fail");
        findings.text.push('\n');
    };
    let clips = &manifest.clips;
    say(format_args!("{}: {} clips", manifest.source.display(), clips.len()));
    for warning in &manifest.warnings {
        say(format_args!("warning: {warning}"));
    }
    let missing: Vec<_> = clips.iter().filter(|clip| !clip.file.exists()).collect();
    if !missing.is_empty() {
        say(format_args!("files missing: {} of {}", missing.len(), clips.len()));
        for clip in missing.iter().take(NAMED) {
            say(format_args!("  {}: {}", clip.id, clip.file.display()));
        }
    }
    let mut labels_a_clip: BTreeMap<usize, usize> = BTreeMap::new();
    for clip in clips {
        *labels_a_clip.entry(clip.labels.len()).or_default() += 1;
    }
    let counts: Vec<String> =
        labels_a_clip.iter().map(|(labels, clips)| format!("{labels} in {clips} clips")).collect();
    say(format_args!("labels a clip: {}", counts.join(", ")));
    let groups: BTreeSet<&str> = clips.iter().filter_map(|clip| clip.group.as_deref()).collect();
    if !groups.is_empty() {
        let without = clips.iter().filter(|clip| clip.group.is_none()).count();
        say(format_args!("groups: {}, clips without one: {without}", groups.len()));
    }
    let classes = manifest.classes();
    let columns = columns(manifest);
    let names: Vec<String> = columns.iter().map(|split| name(*split).to_string()).collect();
    let counts: Vec<Vec<usize>> = classes
        .iter()
        .map(|class| {
            let has = |split: Option<Split>| {
                clips.iter().filter(|clip| clip.split == split && clip.labels.contains(class)).count()
            };
            columns.iter().map(|&split| has(split)).collect()
        })
        .collect();
    let mut header = vec!["class"];
    header.extend(names.iter().map(String::as_str));
    header.push("all");
    let mut table = Table::new(&header, 1);
    let with_sum = |name: &str, counts: &[usize]| {
        let all = counts.iter().sum::<usize>();
        std::iter::once(name.to_string()).chain(counts.iter().chain([&all]).map(usize::to_string)).collect::<Vec<_>>()
    };
    table.rows = classes.iter().zip(&counts).map(|(class, counts)| with_sum(class, counts)).collect();
    let clips_in: Vec<usize> =
        columns.iter().map(|&split| clips.iter().filter(|clip| clip.split == split).count()).collect();
    table.rows.push(with_sum("(clips)", &clips_in));
    say(format_args!("\n{}", table.text()));
    for class in
        classes.iter().zip(&counts).filter_map(|(class, counts)| lacks_training(&columns, counts).then_some(class))
    {
        say(format_args!("warning: class `{class}` has no training clip"));
    }
    let sizes: Vec<usize> = counts.iter().map(|counts| counts.iter().sum()).collect();
    if let (Some(&least), Some(&most)) = (sizes.iter().min(), sizes.iter().max()) {
        say(format_args!("classes: {}, of {least} to {most} clips", classes.len()));
    }
    if let Some(out) = out {
        std::fs::create_dir_all(out).map_err(Error::io(out))?;
        write_records(&out.join("classes.csv"), table.records())?;
        findings.files.push(out.join("classes.csv"));
        if !classes.is_empty() {
            let title = format!("Clips per class: {} clips, {} classes", clips.len(), classes.len());
            write(&out.join("classes.svg"), &plots::counts(&title, &classes, &names, &counts))?;
            findings.files.push(out.join("classes.svg"));
        }
    }
    Ok(findings)
}

/// The splits that occur, clips without one last.
fn columns(manifest: &Manifest) -> Vec<Option<Split>> {
    let present: BTreeSet<Option<Split>> = manifest.clips.iter().map(|clip| clip.split).collect();
    let (without, with): (Vec<_>, Vec<_>) = present.into_iter().partition(Option::is_none);
    with.into_iter().chain(without).collect()
}

fn name(split: Option<Split>) -> &'static str {
    split.map_or("no split", Split::name)
}

fn lacks_training(columns: &[Option<Split>], counts: &[usize]) -> bool {
    columns.iter().position(|&split| split == Some(Split::Train)).is_some_and(|train| counts[train] == 0)
}
