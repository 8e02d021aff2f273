//! Tables of a comparison.

use super::{Comparison, ComparisonRow, PairedRuns, Part, parts_of};
use crate::evaluate::SplitMetrics;
use crate::report::markdown::{cell, percent};
use crate::report::table::Table;

/// Maximum number of runs in the tables and figures of classes; the directories of the runs contain the rest.
const MAX_CLASS_RUNS: usize = 12;

/// Start of the headings of pairwise comparisons.
pub(super) const PAIRS: &str = "Pairwise comparisons, ";

/// Returns the tables of a comparison with their headings: results of each part (test first), times, pairwise comparisons,
/// metrics of each class on the first part, and skipped directories.
pub fn tables(comparison: &Comparison) -> Vec<(String, Table)> {
    let parts = parts_of(&comparison.rows);
    let mut tables: Vec<(String, Table)> =
        parts.iter().map(|&part| (heading(part).to_string(), results(comparison, part, usize::MAX))).collect();
    let times = times(comparison);
    if !times.rows.is_empty() {
        tables.push(("Time per stage".into(), times));
    }
    for part in &parts {
        let pairs = pairs(comparison.pairs.iter().filter(|pair| pair.part == *part));
        if !pairs.rows.is_empty() {
            tables.push((format!("{PAIRS}{}", part.name()), pairs));
        }
    }
    if let Some(&part) = parts.first() {
        tables.push((format!("Metrics of each class, {}", part.name()), classes(comparison, part)));
    }
    if !comparison.skipped.is_empty() {
        let mut table = Table::new(&["directory", "reason"], 2);
        table.rows = comparison
            .skipped
            .iter()
            .map(|skipped| vec![skipped.directory.display().to_string(), skipped.reason.clone()])
            .collect();
        tables.push(("Skipped directories".into(), table));
    }
    tables
}

/// Returns the heading of the results of a part.
pub(super) fn heading(part: Part) -> &'static str {
    match part {
        Part::All => "All clips",
        Part::Train => "Training split",
        Part::Val => "Validation split (used for early stopping, hence optimistic)",
        Part::Test => "Test split",
    }
}

/// Returns the name of a row, marked if its features are untrained.
pub(super) fn display_name(row: &ComparisonRow) -> String {
    if row.identity.untrained { format!("{} (UNTRAINED)", row.name) } else { row.name.clone() }
}

/// Returns the rows that have a part, with its metrics.
pub(super) fn rows_with(comparison: &Comparison, part: Part) -> Vec<(&ComparisonRow, &SplitMetrics)> {
    comparison.rows.iter().filter_map(|row| Some((row, row.parts.get(&part)?))).collect()
}

/// Returns the rows of [`rows_with`] that fit into the tables and figures of classes.
pub(super) fn class_rows(comparison: &Comparison, part: Part) -> Vec<(&ComparisonRow, &SplitMetrics)> {
    let mut rows = rows_with(comparison, part);
    rows.truncate(MAX_CLASS_RUNS);
    rows
}

/// Returns the results of one part with at most `max_metrics` metrics.
pub(super) fn results(comparison: &Comparison, part: Part, max_metrics: usize) -> Table {
    let rows = rows_with(comparison, part);
    let metrics = rows.first().map(|(_, measured)| measured.values()).unwrap_or_default();
    let mut header: Vec<String> = vec!["method · classifier".into(), "clips".into()];
    header.extend(metrics.into_iter().take(max_metrics).map(|metric| metric.name));
    header.extend(["hardest class".into(), "constant".into()]);
    let best = rows.iter().position(|(row, _)| comparison.best.as_ref() == Some(&row.name));
    let mut table = Table { header, left: 1, rows: Vec::new(), best };
    for (row, measured) in rows {
        let mut cells = vec![display_name(row), measured.n().to_string()];
        cells.extend(measured.values().iter().take(max_metrics).map(cell));
        cells.push(measured.hardest().unwrap_or("–").into());
        cells.push(row.constant.get(&part).map_or("–".into(), |&value| percent(value)));
        table.rows.push(cells);
    }
    table.without_empty_columns()
}

/// Returns extraction and training times.
pub(super) fn times(comparison: &Comparison) -> Table {
    let header = ["method · classifier", "extraction", "clips extracted", "clips/s", "video s/s", "training"];
    let mut table = Table::new(&header, 1);
    let timed: Vec<&ComparisonRow> =
        comparison.rows.iter().filter(|row| row.extraction.is_some() || row.training_seconds.is_some()).collect();
    table.best = timed.iter().position(|row| comparison.best.as_ref() == Some(&row.name));
    for row in timed {
        let extraction = row.extraction;
        let clips = extraction.and_then(|e| e.clips);
        let rate = |amount: Option<f64>| match (amount, extraction) {
            (Some(amount), Some(extraction)) if extraction.seconds > 0.0 => {
                format!("{:.2}", amount / extraction.seconds)
            }
            _ => "–".into(),
        };
        let seconds = |seconds: Option<f64>| seconds.map_or("–".into(), |s| format!("{s:.2} s"));
        table.rows.push(vec![
            row.name.clone(),
            seconds(extraction.map(|e| e.seconds)),
            clips.map_or("–".into(), |clips| clips.to_string()),
            rate(clips.map(|clips| clips as f64)),
            rate(extraction.and_then(|e| e.video_seconds).filter(|&seconds| seconds > 0.0)),
            seconds(row.training_seconds),
        ]);
    }
    table.without_empty_columns()
}

/// Returns a table of pairwise comparisons.
pub(super) fn pairs<'a>(pairs: impl Iterator<Item = &'a PairedRuns>) -> Table {
    let header = [
        "first",
        "second",
        "metric",
        "clips",
        "only first correct",
        "only second correct",
        "difference",
        "p",
        "p (Holm)",
    ];
    let mut table = Table::new(&header, 3);
    for pair in pairs {
        let paired = &pair.paired;
        let difference = match paired.difference_interval {
            Some([low, high]) => {
                format!("{:+.1} % [{:+.1}, {:+.1}]", 100.0 * paired.difference, 100.0 * low, 100.0 * high)
            }
            None => format!("{:+.1} %", 100.0 * paired.difference),
        };
        table.rows.push(vec![
            pair.first.clone(),
            pair.second.clone(),
            metric_name(&paired.measure).into(),
            paired.n.to_string(),
            count(paired.only_first),
            count(paired.only_second),
            difference,
            p_value(paired.p),
            p_value(pair.p_holm),
        ]);
    }
    table.without_empty_columns()
}

fn count(count: Option<u64>) -> String {
    count.map_or("–".into(), |count| count.to_string())
}

/// Returns the display name of a metric of pairwise comparisons.
fn metric_name(key: &str) -> &str {
    match key {
        "map" => "mAP",
        "micro_f1" => "micro F1",
        other => other,
    }
}

/// Returns precision, recall and average precision (F1 if no row has scores to rank by) of each class and row.
fn classes(comparison: &Comparison, part: Part) -> Table {
    let rows = class_rows(comparison, part);
    let ranked = rows.iter().any(|(_, measured)| measured.classes().iter().any(|c| c.average_precision.is_some()));
    let last = if ranked { "AP" } else { "F1" };
    let columns = rows.iter().flat_map(|(row, _)| ["P", "R", last].map(|metric| format!("{metric}: {}", row.name)));
    let header = ["class", "clips"].map(String::from).into_iter().chain(columns).collect();
    let mut table = Table { header, left: 1, rows: Vec::new(), best: None };
    let text = |value: Option<f64>| value.map_or("n/a".into(), |value| format!("{value:.3}"));
    for name in class_names(&rows) {
        let metrics_of = |measured: &SplitMetrics| {
            measured
                .classes()
                .into_iter()
                .find(|class| class.label == name)
                .map(|c| (c.support, [c.precision, c.recall, if ranked { c.average_precision } else { c.f1 }]))
        };
        let metrics: Vec<Option<(u64, [Option<f64>; 3])>> =
            rows.iter().map(|(_, measured)| metrics_of(measured)).collect();
        let support = metrics.iter().flatten().map(|(support, _)| *support).next().unwrap_or(0);
        let cells = metrics.iter().flat_map(|class| class.map_or([None; 3], |(_, values)| values)).map(text);
        table.rows.push([name.to_string(), support.to_string()].into_iter().chain(cells).collect());
    }
    table
}

/// Returns the distinct classes of all rows in order of first occurrence.
pub(super) fn class_names<'a>(rows: &[(&'a ComparisonRow, &'a SplitMetrics)]) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for name in rows.iter().flat_map(|(_, measured)| measured.labels()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn p_value(p: f64) -> String {
    if p < 1e-4 { format!("{p:.1e}") } else { format!("{p:.4}") }
}
