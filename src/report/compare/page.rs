//! Writes a comparison as a self-contained HTML page, Markdown, CSV, JSON and figures, and summarizes it for the terminal.

use std::path::Path;

use maud::{Markup, html};

use super::tables::{PAIRS, class_names, class_rows, display_name, heading, pairs, results, rows_with, times};
use super::{ComparedRun, Comparison, Part, RunKind, SkippedDirectory, parts_of, tables};
use crate::dataset::Task;
use crate::error::Result;
use crate::evaluate::bootstrap::{LEVEL, METHOD, RESAMPLES};
use crate::evaluate::split_metrics::{MetricValue, SplitMetrics};
use crate::report::clips::{self, ClipSources};
use crate::report::escape::escape_markdown;
use crate::report::markdown::{UNTRAINED, percent};
use crate::report::plots::{self, Bar};
use crate::report::table::Table;
use crate::report::{Figure, html, label_plots, write as write_text, write_records};

/// Title of the HTML page.
const TITLE: &str = "kinoprobe: comparison";

/// Maximum number of metrics in terminal tables; the report contains the rest.
const MAX_TERMINAL_METRICS: usize = 3;

/// Maximum number of pairwise comparisons that the page shows without a click.
const MAX_OPEN_PAIRS: usize = 10;

/// Writes report.html, compare.md, compare.csv, compare.json and the figures of compare.md. The page shows up to `thumbnails` clips of
/// each confusion of the best run, or of the first. `runs` are those of the comparison.
///
/// # Errors
/// Returns an error if the directory cannot be created or a file cannot be written.
pub fn write(dir: &Path, comparison: &Comparison, runs: &[ComparedRun], thumbnails: usize) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(crate::Error::io(dir))?;
    let figures = Figures::new(comparison);
    for figure in figures.of_parts.iter().chain(&figures.of_classes) {
        write_text(&dir.join(&figure.file), &figure.svg)?;
    }
    write_records(&dir.join("compare.csv"), records(comparison))?;
    write_text(&dir.join("compare.md"), &markdown(comparison, &figures))?;
    write_text(
        &dir.join("report.html"),
        &html_page(comparison, &figures, clips_of_best(comparison, runs, thumbnails).transpose()?),
    )?;
    let json = serde_json::to_string_pretty(comparison).expect("a comparison is plain data with string keys");
    write_text(&dir.join("compare.json"), &(json + "\n"))
}

struct Figures {
    /// Headline metrics of each part, in the order of [`parts_of`].
    of_parts: Vec<Figure>,
    /// Confusion matrices, or average precision of each label, on the first part.
    of_classes: Vec<Figure>,
}

impl Figures {
    fn new(comparison: &Comparison) -> Self {
        let parts = parts_of(&comparison.rows);
        Self {
            of_parts: parts.iter().map(|&part| part_figure(comparison, part)).collect(),
            of_classes: parts.first().map(|&part| class_figures(comparison, part)).unwrap_or_default(),
        }
    }
}

/// Returns a bar plot of the headline metrics of all rows.
fn part_figure(comparison: &Comparison, part: Part) -> Figure {
    let rows = rows_with(comparison, part);
    let headlines = rows[0].1.headlines();
    let bars: Vec<Bar> =
        rows.iter().map(|(row, measured)| Bar { name: display_name(row), values: measured.headlines() }).collect();
    let constant = rows.iter().find_map(|(row, _)| row.constant.get(&part)).copied();
    let names: Vec<&str> = headlines.iter().map(|metric| metric.name.as_str()).collect();
    let mut caption = format!("{}, {}, with 95 % {METHOD} intervals", names.join(" and "), part.name());
    caption[..1].make_ascii_uppercase();
    let svg = plots::bars(&caption, &bars, constant);
    Figure { file: format!("bars_{}.svg", part.name()), caption, svg }
}

/// Returns the confusion matrix of each row, or a plot of the average precision of each label.
fn class_figures(comparison: &Comparison, part: Part) -> Vec<Figure> {
    let rows = class_rows(comparison, part);
    let labels: Vec<String> = class_names(&rows).into_iter().map(String::from).collect();
    let mut figures = Vec::new();
    let mut series: Vec<(String, Vec<Option<f64>>)> = Vec::new();
    for (i, (row, measured)) in rows.iter().enumerate() {
        match measured {
            SplitMetrics::SingleLabel(metrics) => {
                let name = display_name(row);
                let caption = format!("{name}, {}: accuracy {}", part.name(), percent(metrics.accuracy));
                let svg = plots::confusion(&caption, &metrics.labels, &metrics.confusion);
                figures.push(Figure { file: format!("confusion_{:02}.svg", i + 1), caption, svg });
            }
            SplitMetrics::MultiLabel(_) => {
                let classes = measured.classes();
                let of = |label: &String| classes.iter().find(|class| class.label == label)?.average_precision;
                series.push((display_name(row), labels.iter().map(of).collect()));
            }
        }
    }
    if !series.is_empty() {
        let caption = format!("Average precision of each label, {}", part.name());
        let svg = label_plots::bars(&caption, &labels, &series);
        figures.push(Figure { file: format!("average_precision_{}.svg", part.name()), caption, svg });
    }
    figures
}

/// Returns the records of compare.csv, one per row and part.
fn records(comparison: &Comparison) -> Vec<Vec<String>> {
    let text = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
    // The headline metrics come first, each followed by the bounds of its interval.
    let cells = |metrics: &[MetricValue], cell: &dyn Fn(&MetricValue) -> [String; 3]| -> Vec<String> {
        let width = |i: usize| if i < 2 { 3 } else { 1 };
        metrics.iter().enumerate().flat_map(|(i, metric)| cell(metric).into_iter().take(width(i))).collect()
    };
    let first = comparison.rows.iter().flat_map(|row| row.parts.values()).next();
    let metrics = first.map(SplitMetrics::values).unwrap_or_default();
    let mut header: Vec<String> =
        "name,kind,method,classifier,untrained,split,clips".split(',').map(String::from).collect();
    header.extend(cells(&metrics, &|metric| ["", "_low", "_high"].map(|suffix| format!("{}{suffix}", metric.key))));
    header.extend(first.map(|first| format!("constant_{}", first.primary().0.key)));
    header.extend(["extract_seconds", "training_seconds"].map(String::from));
    let mut records = vec![header];
    for row in &comparison.rows {
        for (part, measured) in &row.parts {
            let identity = &row.identity;
            let mut record = vec![row.name.clone(), row.kind.name().into()];
            record.extend([identity.method.clone(), identity.classifier.clone(), identity.untrained.to_string()]);
            record.extend([part.name().into(), measured.n().to_string()]);
            record.extend(cells(&measured.values(), &|metric| {
                let [low, high] = [0, 1].map(|bound| text(metric.interval.map(|interval| interval[bound])));
                [text(metric.value), low, high]
            }));
            record.extend([
                text(row.constant.get(part).copied()),
                text(row.extraction.map(|e| e.seconds)),
                text(row.training_seconds),
            ]);
            records.push(record);
        }
    }
    records
}

/// Returns the notes on the marked row and on the brackets.
fn notes_on_tables(comparison: &Comparison) -> Vec<String> {
    let mut notes = vec![format!(
        "Brackets: {:.0} % {METHOD} intervals, {RESAMPLES} resamples of clips, or of groups if the predictions name groups.",
        100.0 * LEVEL
    )];
    let primary = comparison.rows.iter().find_map(|row| Some(row.parts.get(&Part::Val)?.primary().0.name));
    if let (Some(best), Some(metric)) = (&comparison.best, primary) {
        notes.push(format!("Marked as the best (* or bold): {best}, by {metric} on the validation split."));
    }
    notes
}

/// Returns the notes on methods and definitions at the end of the report.
fn notes(comparison: &Comparison) -> Vec<String> {
    let mut notes = notes_on_tables(comparison);
    notes.extend(match comparison.task {
        Task::SingleLabel => [
            "p: McNemar's exact two-sided test on the clips that both runs predict, with Holm's correction for the number \
             of pairs. It assumes independent clips: if there are groups, prefer the interval of the difference, which \
             resamples groups.",
            "Calibration error: expected calibration error of the highest probability, 15 bins of equal width.",
        ],
        Task::MultiLabel => [
            "p: two-sided paired bootstrap (by percentiles) on the clips that both runs predict, at least 0.001; both runs are evaluated on \
             the same resamples of clips, or of groups if there are any. Holm's correction is for the number of pairs.",
            "mAP: mean average precision over the labels; labels without clips show n/a and are excluded. Labels with a \
             score of at least 0.5 are predicted; results with thresholds tuned on val are in the report of each run. Calibration error: mean \
             over the labels of the expected calibration error of their scores, 15 bins of equal width.",
        ],
    }.map(String::from));
    if comparison.rows.iter().any(|row| row.kind == RunKind::LateFusion) {
        notes.push("Late fusion: mean of the runs' probabilities; the best pair is selected on val.".into());
    }
    if comparison.rows.iter().any(|row| row.kind == RunKind::EarlyFusion) {
        notes.push("Early fusion: one classifier on the concatenated standardized features of the methods.".into());
    }
    if comparison.rows.iter().any(|row| row.kind == RunKind::LearnedFusion) {
        notes.push(
            "Learned fusion: logistic regression on the runs' scores, fitted to the validation clips. Its results on val are those of \
             a cross-validation, so that no clip is predicted by a model that was fitted to it."
                .into(),
        );
    }
    notes
}

/// Returns the banner that names the rows with untrained features, if there are any.
fn untrained_banner(comparison: &Comparison) -> Option<String> {
    let untrained = comparison.rows.iter().filter(|row| row.identity.untrained);
    let names: Vec<&str> = untrained.map(|row| row.name.as_str()).collect();
    (!names.is_empty()).then(|| format!("{UNTRAINED} Affected: {}.", names.join("; ")))
}

fn markdown(comparison: &Comparison, figures: &Figures) -> String {
    let mut text = format!("# Comparison\n\n**{}**\n\n", escape_markdown(&comparison.conclusion));
    if let Some(banner) = untrained_banner(comparison) {
        text.push_str(&format!("> **⚠ {}**\n\n", escape_markdown(&banner)));
    }
    for warning in &comparison.warnings {
        text.push_str(&format!("- warning: {}\n", escape_markdown(warning)));
    }
    for (heading, table) in tables(comparison) {
        text.push_str(&format!("\n## {heading}\n\n{}", table.markdown()));
    }
    text.push_str("\n## Figures\n");
    for figure in figures.of_parts.iter().chain(&figures.of_classes) {
        text.push_str(&format!("\n![{}]({})\n", escape_markdown(&figure.caption), figure.file));
    }
    text.push_str("\n## Notes\n\n");
    for note in notes(comparison) {
        text.push_str(&format!("- {note}\n"));
    }
    text
}

/// Returns the clips behind the results of the best row, or of the first, on the first part, with the name of the row.
fn clips_of_best(comparison: &Comparison, runs: &[ComparedRun], thumbnails: usize) -> Option<Result<(String, Markup)>> {
    let row =
        comparison.rows.iter().find(|row| comparison.best.as_ref() == Some(&row.name)).or(comparison.rows.first())?;
    let &part = parts_of(&comparison.rows).first()?;
    let predictions = runs.iter().find(|run| run.name == row.name)?.parts.get(&part)?;
    // A fusion has no manifest of its own.
    let candidates = runs.iter().filter(|run| run.name == row.name).chain(runs);
    let manifest = candidates.filter(|_| thumbnails > 0).find_map(|run| run.manifest().ok());
    let clips = manifest.as_ref().map(|manifest| manifest.clips.as_slice()).unwrap_or_default();
    let sources = ClipSources { clips, data: None, thumbnails };
    let sections = clips::sections(&[(part.name(), predictions)], &sources);
    Some(sections.map(|mut sections| (display_name(row), sections.remove(0))))
}

fn html_page(comparison: &Comparison, figures: &Figures, clips: Option<(String, Markup)>) -> String {
    let body = html! {
        h1 { (TITLE) }
        p.conclusion { (comparison.conclusion) }
        @if let Some(banner) = untrained_banner(comparison) { (html::banner(&banner)) }
        @for warning in &comparison.warnings { div.warning { (warning) } }
        // The tables of the parts come first, in the order of their figures.
        @for (i, (heading, table)) in tables(comparison).iter().enumerate() {
            h2 { (heading) }
            @if heading.starts_with(PAIRS) && table.rows.len() > MAX_OPEN_PAIRS {
                details {
                    summary { (table.rows.len()) " pairs" }
                    (table.html())
                }
            } @else {
                (table.html())
            }
            @if let Some(figure) = figures.of_parts.get(i) { (html::figure(figure)) }
        }
        h2 { "Class figures" }
        div.side {
            @for figure in &figures.of_classes { (html::figure(figure)) }
        }
        @if let Some((name, clips)) = clips {
            h2 { "Clips of " (name) }
            (clips)
        }
        @for duplicates in &comparison.duplicates {
            h2 { "Near-duplicates of " (duplicates.part.name()) " clips in " (duplicates.store.display()) }
            (duplicates.table().html())
        }
        footer {
            h2 { "Notes" }
            ul {
                @for note in notes(comparison) { li { (note) } }
                li { "kinoprobe " (env!("CARGO_PKG_VERSION")) }
            }
        }
    };
    html::page(TITLE, body)
}

/// Summarizes the comparison for the terminal: the conclusion, times, pairwise comparisons with the best row, the first metrics of each part,
/// skipped directories and warnings. The most important tables are last.
pub fn summary(comparison: &Comparison) -> String {
    let mut text = format!("{}\n\n", comparison.conclusion);
    let mut push = |heading: &str, table: Table| {
        if !table.rows.is_empty() {
            text.push_str(&format!("{heading}\n{}\n", table.text()));
        }
    };
    push("Time per stage", times(comparison));
    let parts = parts_of(&comparison.rows);
    if let Some(&part) = parts.first() {
        let of_part: Vec<_> = comparison.pairs.iter().filter(|pair| pair.part == part).collect();
        let (all, part) = (of_part.len(), part.name());
        match &comparison.best {
            Some(best) => {
                let with_best = of_part.into_iter().filter(|pair| pair.first == *best || pair.second == *best);
                push(&format!("{PAIRS}{part}, with the best run (all {all} are in the report)"), pairs(with_best));
            }
            None => push(&format!("{PAIRS}{part}"), pairs(of_part.into_iter())),
        }
    }
    for &part in parts.iter().rev() {
        push(heading(part), results(comparison, part, MAX_TERMINAL_METRICS));
    }
    text.push_str(&notes_on_tables(comparison).iter().map(|note| format!("{note}\n")).collect::<String>());
    for SkippedDirectory { directory, reason } in &comparison.skipped {
        text.push_str(&format!("skipped: {}: {reason}\n", directory.display()));
    }
    for warning in &comparison.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    if let Some(banner) = untrained_banner(comparison) {
        text.push_str(&format!("⚠ {banner}\n"));
    }
    text
}
