//! What a manifest holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use super::Findings;
use super::labels::{self, LabelSets, label_set_table};
use crate::error::{Error, Result};
use crate::manifest::{Manifest, Split};
use crate::report::plots;
use crate::report::table::Table;
use crate::report::{write, write_records};

/// Missing files that are named.
const NAMED: usize = 10;

/// Says what a manifest holds: clips, labels, splits, groups, labels a clip, frames a clip, imbalance, missing files,
/// pictures that are no posters.
///
/// With `out`, writes
/// - classes.csv, classes.svg: clips of each class and split;
/// - balance.csv: labels a clip and imbalance of each split; weights.csv: class weights by several formulas;
/// - where clips have several labels, labels_per_clip.svg, cooccurrence.csv and .svg, and compose.csv: what resampling by
///   label set to between 1 % and 4 % would make of the training clips;
/// - where clips are folders of frames, frames.csv and frames.svg; where they are pictures, pictures.csv.
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
    let frames: Vec<(&str, usize)> =
        clips.iter().filter_map(|clip| clip.frames().map(|frames| (clip.id.as_str(), frames))).collect();
    if !frames.is_empty() {
        let mut sorted: Vec<usize> = frames.iter().map(|(_, frames)| *frames).collect();
        sorted.sort_unstable();
        let (least, most, median) = (sorted[0], sorted[sorted.len() - 1], sorted[sorted.len() / 2]);
        say(format_args!("folders of frames: {}, of {least} to {most} frames, median {median}", sorted.len()));
    }
    #[cfg(feature = "media")]
    let pictures = super::pictures::look(manifest);
    #[cfg(feature = "media")]
    pictures.iter().flat_map(|pictures| pictures.lines()).for_each(|line| say(format_args!("{line}")));
    let training = if columns.contains(&Some(Split::Train)) {
        LabelSets::of(manifest, &classes, |clip| clip.split == Some(Split::Train))
    } else {
        LabelSets::of(manifest, &classes, |_| true)
    };
    let together = labels::cooccurrence(&LabelSets::of(manifest, &classes, |_| true));
    if !classes.is_empty() {
        say(format_args!("\n{}", labels::balance(manifest, &classes, &columns).text()));
        say(format_args!(
            "max/min: the commonest label over the rarest; mean max/n: the mean of that over the labels;\n\
             effective labels: as many equally common ones"
        ));
    }
    if manifest.is_multi_label() {
        let labeled = clips.iter().filter(|clip| !clip.labels.is_empty()).count();
        say(format_args!("\nlabels that come together most:"));
        for pair in labels::commonest_pairs(&classes, &together, labeled, NAMED) {
            say(format_args!("  {pair}"));
        }
    }
    let Some(out) = out else { return Ok(findings) };
    std::fs::create_dir_all(out).map_err(Error::io(out))?;
    let mut put = |name: &str, content: Content| -> Result<()> {
        let path = out.join(name);
        match content {
            Content::Table(table) => write_records(&path, table.records())?,
            Content::Picture(picture) => write(&path, &picture)?,
        }
        findings.files.push(path);
        Ok(())
    };
    put("classes.csv", Content::Table(table))?;
    if !classes.is_empty() {
        let title = format!("Clips per class: {} clips, {} classes", clips.len(), classes.len());
        put("classes.svg", Content::Picture(plots::counts(&title, &classes, &names, &counts)))?;
        put("balance.csv", Content::Table(labels::balance(manifest, &classes, &columns)))?;
        put("weights.csv", Content::Table(labels::weights(&classes, &training)))?;
    }
    if manifest.is_multi_label() {
        let numbers: Vec<usize> = labels_a_clip.keys().copied().collect();
        let per_split = |number: usize| {
            let of = |split: Option<Split>| {
                clips.iter().filter(|clip| clip.split == split && clip.labels.len() == number).count()
            };
            columns.iter().map(|&split| of(split)).collect::<Vec<_>>()
        };
        let stacked: Vec<Vec<usize>> = numbers.iter().map(|&number| per_split(number)).collect();
        let texts: Vec<String> = numbers.iter().map(usize::to_string).collect();
        put("labels_per_clip.svg", Content::Picture(plots::counts("Labels per clip", &texts, &names, &stacked)))?;
        put("cooccurrence.csv", Content::Table(labels::cooccurrence_table(&classes, &together)))?;
        let title = format!("Labels that come together: {} clips", clips.len());
        put("cooccurrence.svg", Content::Picture(labels::cooccurrence_plot(&title, &classes, &together)))?;
        put("compose.csv", Content::Table(label_set_table(&labels::compose_preview(&training), &classes)))?;
    }
    #[cfg(feature = "media")]
    if let Some(pictures) = pictures {
        put("pictures.csv", Content::Table(pictures.table))?;
    }
    if !frames.is_empty() {
        let mut table = Table::new(&["id", "frames"], 1);
        table.rows = frames.iter().map(|(id, frames)| vec![id.to_string(), frames.to_string()]).collect();
        put("frames.csv", Content::Table(table))?;
        let (bins, counts) = labels::frame_bins(&frames.iter().map(|(_, frames)| *frames).collect::<Vec<_>>());
        let title = format!("Frames per clip: {} folders", frames.len());
        put("frames.svg", Content::Picture(plots::counts(&title, &bins, &["clips".to_string()], &counts)))?;
    }
    Ok(findings)
}

/// What a file holds.
enum Content {
    Table(Table),
    Picture(String),
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
