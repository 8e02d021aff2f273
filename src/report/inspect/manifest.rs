//! Describes manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use super::Inspection;
use super::labels::{self, LabelSets, label_set_table};
use crate::error::{Error, Result};
use crate::manifest::{Clip, Manifest, Split, duplicate_warning};
use crate::report::plots;
use crate::report::table::Table;
use crate::report::{write, write_records};

/// Maximum number of listed files or label pairs.
const MAX_LISTED: usize = 10;

/// Describes a manifest: clips, labels, splits, groups, labels per clip, frames per clip, imbalance, missing files, images that
/// are probably not posters, clips with the same content.
///
/// With `out`, writes
/// - classes.csv, classes.svg: clips of each class and split;
/// - balance.csv: labels per clip and imbalance of each split; weights.csv: class weights by several formulas;
/// - for multi-label manifests, labels_per_clip.svg, cooccurrence.csv and .svg, and compose.csv: the training clips before and
///   after resampling each label set to 1 % to 4 %;
/// - for directories of frames, frames.csv and frames.svg; for images, images.csv;
/// - duplicates.csv if clips have the same content.
///
/// # Errors
/// Returns an error if a file cannot be written.
pub fn inspect_manifest(manifest: &Manifest, out: Option<&Path>) -> Result<Inspection> {
    let mut inspection = Inspection::default();
    let mut print = |line: std::fmt::Arguments<'_>| {
        inspection.text.write_fmt(line).expect("writing to a string cannot fail");
        inspection.text.push('\n');
    };
    let clips = &manifest.clips;
    print(format_args!("{}: {} clips", manifest.source.display(), clips.len()));
    let duplicates = manifest.duplicates();
    for warning in manifest.warnings.iter().chain(&duplicate_warning(&duplicates)) {
        print(format_args!("warning: {warning}"));
    }
    let missing: Vec<_> = clips.iter().filter(|clip| !clip.file.exists()).collect();
    if !missing.is_empty() {
        print(format_args!("files missing: {} of {}", missing.len(), clips.len()));
        for clip in missing.iter().take(MAX_LISTED) {
            print(format_args!("  {}: {}", clip.id, clip.file.display()));
        }
    }
    let mut labels_per_clip: BTreeMap<usize, usize> = BTreeMap::new();
    for clip in clips {
        *labels_per_clip.entry(clip.labels.len()).or_default() += 1;
    }
    let counts: Vec<String> =
        labels_per_clip.iter().map(|(labels, clips)| format!("{labels} ({clips} clips)")).collect();
    print(format_args!("labels per clip: {}", counts.join(", ")));
    let groups: BTreeSet<&str> = clips.iter().filter_map(|clip| clip.group.as_deref()).collect();
    if !groups.is_empty() {
        let without = clips.iter().filter(|clip| clip.group.is_none()).count();
        print(format_args!("groups: {}, clips without a group: {without}", groups.len()));
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
    print(format_args!("\n{}", table.text()));
    for class in
        classes.iter().zip(&counts).filter_map(|(class, counts)| lacks_training(&columns, counts).then_some(class))
    {
        print(format_args!("warning: class `{class}` has no training clips"));
    }
    let sizes: Vec<usize> = counts.iter().map(|counts| counts.iter().sum()).collect();
    if let (Some(&least), Some(&most)) = (sizes.iter().min(), sizes.iter().max()) {
        print(format_args!("classes: {}, with {least} to {most} clips", classes.len()));
    }
    let frames: Vec<(&str, usize)> =
        clips.iter().filter_map(|clip| clip.frames().map(|frames| (clip.id.as_str(), frames))).collect();
    if !frames.is_empty() {
        let mut sorted: Vec<usize> = frames.iter().map(|(_, frames)| *frames).collect();
        sorted.sort_unstable();
        let (least, most, median) = (sorted[0], sorted[sorted.len() - 1], sorted[sorted.len() / 2]);
        print(format_args!("frame directories: {}, with {least} to {most} frames, median {median}", sorted.len()));
    }
    #[cfg(feature = "media")]
    super::videos::lines(manifest).iter().for_each(|line| print(format_args!("{line}")));
    #[cfg(feature = "media")]
    let images = super::images::check(manifest);
    #[cfg(feature = "media")]
    images.iter().flat_map(|images| images.lines()).for_each(|line| print(format_args!("{line}")));
    let training = if columns.contains(&Some(Split::Train)) {
        LabelSets::of(manifest, &classes, |clip| clip.split == Some(Split::Train))
    } else {
        LabelSets::of(manifest, &classes, |_| true)
    };
    let cooccurrence = labels::cooccurrence(&LabelSets::of(manifest, &classes, |_| true));
    if !classes.is_empty() {
        print(format_args!("\n{}", labels::balance(manifest, &classes, &columns).text()));
        print(format_args!(
            "max/min: ratio of the most to the least frequent label; mean max/n: mean ratio over the labels;\n\
             effective labels: number of equally frequent labels with the same entropy"
        ));
    }
    if manifest.is_multi_label() {
        let labeled = clips.iter().filter(|clip| !clip.labels.is_empty()).count();
        print(format_args!("\nmost frequent label pairs:"));
        for pair in labels::most_frequent_pairs(&classes, &cooccurrence, labeled, MAX_LISTED) {
            print(format_args!("  {pair}"));
        }
    }
    let Some(out) = out else { return Ok(inspection) };
    std::fs::create_dir_all(out).map_err(Error::io(out))?;
    let mut put = |name: &str, content: Content| -> Result<()> {
        let path = out.join(name);
        match content {
            Content::Table(table) => write_records(&path, table.records())?,
            Content::Figure(svg) => write(&path, &svg)?,
        }
        inspection.files.push(path);
        Ok(())
    };
    put("classes.csv", Content::Table(table))?;
    if !classes.is_empty() {
        let title = format!("Clips per class: {} clips, {} classes", clips.len(), classes.len());
        put("classes.svg", Content::Figure(plots::counts(&title, &classes, &names, &counts)))?;
        put("balance.csv", Content::Table(labels::balance(manifest, &classes, &columns)))?;
        put("weights.csv", Content::Table(labels::weights(&classes, &training)))?;
    }
    if manifest.is_multi_label() {
        let numbers: Vec<usize> = labels_per_clip.keys().copied().collect();
        let per_split = |number: usize| {
            let of = |split: Option<Split>| {
                clips.iter().filter(|clip| clip.split == split && clip.labels.len() == number).count()
            };
            columns.iter().map(|&split| of(split)).collect::<Vec<_>>()
        };
        let stacked: Vec<Vec<usize>> = numbers.iter().map(|&number| per_split(number)).collect();
        let texts: Vec<String> = numbers.iter().map(usize::to_string).collect();
        put("labels_per_clip.svg", Content::Figure(plots::counts("Labels per clip", &texts, &names, &stacked)))?;
        put("cooccurrence.csv", Content::Table(labels::cooccurrence_table(&classes, &cooccurrence)))?;
        let title = format!("Label co-occurrence: {} clips", clips.len());
        put("cooccurrence.svg", Content::Figure(labels::cooccurrence_plot(&title, &classes, &cooccurrence)))?;
        put("compose.csv", Content::Table(label_set_table(&labels::resampling_preview(&training), &classes)))?;
    }
    #[cfg(feature = "media")]
    if let Some(images) = images {
        put("images.csv", Content::Table(images.table))?;
    }
    if !duplicates.is_empty() {
        put("duplicates.csv", Content::Table(duplicate_table(&duplicates)))?;
    }
    if !frames.is_empty() {
        let mut table = Table::new(&["id", "frames"], 1);
        table.rows = frames.iter().map(|(id, frames)| vec![id.to_string(), frames.to_string()]).collect();
        put("frames.csv", Content::Table(table))?;
        let (bins, counts) = labels::frame_bins(&frames.iter().map(|(_, frames)| *frames).collect::<Vec<_>>());
        let title = format!("Frames per clip: {} directories", frames.len());
        put("frames.svg", Content::Figure(plots::counts(&title, &bins, &["clips".to_string()], &counts)))?;
    }
    Ok(inspection)
}

/// Content of a file.
enum Content {
    Table(Table),
    Figure(String),
}

/// Returns the clips of groups with the same content.
fn duplicate_table(groups: &[Vec<&Clip>]) -> Table {
    let mut table = Table::new(&["group", "id", "split", "path"], 1);
    for (group, clips) in (1..).zip(groups) {
        let row = |clip: &&Clip| {
            vec![group.to_string(), clip.id.clone(), clip.split.map_or("", Split::name).into(), clip.path.clone()]
        };
        table.rows.extend(clips.iter().map(row));
    }
    table
}

/// Returns the splits that occur; `None` (clips without a split) is last.
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
