//! Writes REPORT.md, the human-readable report of a run.

use std::fmt::Write;

use super::escape::escape_markdown;
use super::metrics::Metrics;
use super::table::Table;
use super::{Block, EvaluatedPart, PartContent};
use crate::evaluate::SplitMetrics;
use crate::evaluate::bootstrap::{LEVEL, METHOD};
use crate::evaluate::intervals::{Interval, ResamplingUnit};
use crate::evaluate::split_metrics::{MetricFormat, MetricValue};
use crate::manifest::Split;

/// Banner of every report on untrained features.
pub const UNTRAINED: &str = "UNTRAINED: these features come from a network with seeded random weights. \
    The results only show that the pipeline works; they do not measure the network.";

/// Formats a fraction as a percentage with one decimal.
pub fn percent(fraction: f64) -> String {
    format!("{:.1} %", 100.0 * fraction)
}

/// Formats a metric with its interval for a table cell.
pub fn cell(metric: &MetricValue) -> String {
    match (metric.value, metric.format) {
        (None, _) => "–".into(),
        (Some(value), MetricFormat::Percentage) => with_interval(value, metric.interval),
        (Some(value), MetricFormat::Decimal) => format!("{value:.3}"),
    }
}

/// Formats a fraction and its interval as percentages.
pub fn with_interval(fraction: f64, interval: Option<Interval>) -> String {
    match interval {
        Some([low, high]) => format!("{} [{:.1}, {:.1}]", percent(fraction), 100.0 * low, 100.0 * high),
        None => percent(fraction),
    }
}

/// Returns notable findings about the metrics of a part: a collapsed model, a result at or below the constant baseline, a
/// missing interval.
pub fn remarks(metrics: &SplitMetrics, constant: Option<&SplitMetrics>) -> Vec<String> {
    let mut remarks: Vec<String> = metrics.collapsed().into_iter().collect();
    let (headline, value) = metrics.primary();
    if let Some(constant) = constant.and_then(|constant| constant.value(&headline.key)) {
        if value < constant {
            remarks.push(format!("worse than the constant baseline ({})", percent(constant)));
        } else if headline.interval.is_some_and(|[low, _]| low <= constant) {
            remarks.push(format!(
                "the interval of the {} includes the constant baseline ({}): not significantly better than chance",
                headline.name,
                percent(constant)
            ));
        }
    }
    if metrics.intervals().is_none() {
        remarks.push("no interval: the bootstrap needs at least two clips, or two groups".into());
    } else if headline.interval.is_none() {
        remarks.push(format!("no interval of the {}: no resample is below it, or none is above it", headline.name));
    }
    remarks
}

/// Formats REPORT.md. `search` is the section on the search; `files` are the names of the files that were written.
pub(super) fn report(
    title: &str,
    metrics: &Metrics,
    search: Option<&str>,
    parts: &[EvaluatedPart<'_>],
    contents: &[PartContent],
    files: &[&str],
) -> String {
    let mut text = String::new();
    let mut line = |args: std::fmt::Arguments<'_>| {
        text.write_fmt(args).expect("writing to a string cannot fail");
        text.push('\n');
    };
    line(format_args!("# {}\n", escape_markdown(title)));
    if metrics.identity.untrained {
        line(format_args!("> **⚠ {UNTRAINED}**\n"));
    }
    line(format_args!("{}", identity_table(metrics).markdown()));
    for warning in &metrics.warnings {
        line(format_args!("- warning: {}", escape_markdown(warning)));
    }
    if !metrics.warnings.is_empty() {
        line(format_args!(""));
    }
    if let Some(unlabeled) = unlabeled_clips(metrics) {
        line(format_args!("{unlabeled}\n"));
    }
    if !parts.is_empty() {
        line(format_args!("## Results\n\n{}", results_table(metrics, parts).markdown()));
        if let Some(note) = interval_note(parts) {
            line(format_args!("{note}\n"));
        }
        if let Some((caption, table)) = seeds_table(metrics, parts) {
            line(format_args!("{caption}\n\n{}", table.markdown()));
        }
    }
    if let Some(search) = search {
        line(format_args!("## Search\n\n{search}"));
    }
    if files.contains(&"curves.svg") {
        line(format_args!("## Training\n\n![learning curves](curves.svg)\n"));
    }
    for (part, content) in parts.iter().zip(contents) {
        write_part(&mut line, part, content);
    }
    line(format_args!("## Files\n"));
    let description = |file: &str| match file {
        "predictions.csv" => "prediction and scores of each clip",
        "submission.csv" => "predictions for the unlabeled clips, as `Id,Category`",
        "curves.csv" => "loss, score and learning rate of each epoch",
        "per_class.csv" => "metrics of each class",
        "classification_report.txt" => "precision, recall, F1 and support of each class, and their averages",
        "recipe.toml" => "the recipe; run it again with `--recipe`",
        "best.toml" => "the recipe with the selected values and without the search",
        "search.csv" => "values, scores and duration of each trial of the search",
        "metrics.json" => "all results, machine-readable",
        _ => "",
    };
    for file in files.iter().filter(|file| !description(file).is_empty()) {
        line(format_args!("- [{file}]({file}): {}", description(file)));
    }
    text
}

/// Returns the identity and the inputs of a run as pairs of name and value.
pub(super) fn identity_table(metrics: &Metrics) -> Table {
    let (identity, inputs) = (&metrics.identity, &metrics.inputs);
    let mut table = Table::new(&["", ""], 2);
    let mut row = |name: &str, value: String| {
        if !value.is_empty() {
            table.rows.push(vec![name.into(), value]);
        }
    };
    row("method", identity.method.clone());
    row("classifier", identity.classifier.clone());
    row("network or algorithm", identity.model.clone());
    let untrained = if identity.untrained { " — UNTRAINED" } else { "" };
    row(
        "weights",
        if identity.weights.is_empty() { String::new() } else { format!("{}{untrained}", identity.weights) },
    );
    row("model SHA-256", identity.model_sha256.clone());
    row("execution provider", identity.provider.clone());
    row("features", inputs.features.display().to_string());
    row("manifest", inputs.manifest.display().to_string());
    row("extraction time", metrics.extract_seconds.map(|s| format!("{s:.1} s")).unwrap_or_default());
    row("training time", metrics.training_seconds.map(|s| format!("{s:.2} s")).unwrap_or_default());
    let calibration = metrics.calibration.as_ref().map(|run| format!("{}, fitted to val", run.method));
    row("calibration", calibration.unwrap_or_default());
    row("best epoch", metrics.best_epoch.map(|epoch| epoch.to_string()).unwrap_or_default());
    row("kinoprobe", metrics.tool_version.clone());
    table
}

/// Returns the metrics of each part, and of the constant baseline on it.
pub(super) fn results_table(metrics: &Metrics, parts: &[EvaluatedPart<'_>]) -> Table {
    let metrics_of_first = parts.first().map(|part| part.metrics.values()).unwrap_or_default();
    let names = metrics_of_first.iter().map(|metric| metric.name.clone());
    let header = ["split", "classifier", "clips"].map(String::from).into_iter().chain(names).collect();
    let mut table = Table { header, left: 2, rows: Vec::new(), best: None };
    let mut row = |split: &str, name: &str, metrics: &SplitMetrics| {
        let mut row = vec![split.to_string(), name.to_string(), metrics.n().to_string()];
        row.extend(metrics.values().iter().map(cell));
        table.rows.push(row);
    };
    let name = if metrics.identity.classifier.is_empty() { "predictions" } else { &metrics.identity.classifier };
    for part in parts {
        row(&part.name, name, part.metrics);
        if let Some(constant) = part.constant {
            row(&part.name, "constant", constant);
        }
    }
    table.without_empty_columns()
}

/// Explains the brackets of the results; `None` without intervals.
pub(super) fn interval_note(parts: &[EvaluatedPart<'_>]) -> Option<String> {
    let interval = parts.iter().find_map(|part| part.metrics.intervals())?;
    let unit = match interval.unit {
        ResamplingUnit::Clips => "clips",
        ResamplingUnit::Groups => "groups",
    };
    let (level, resamples) = (100.0 * interval.level, interval.resamples);
    Some(format!("Brackets: {level:.0} % {METHOD} intervals, {resamples} resamples of {unit}."))
}

/// Returns the spread of the headline metrics over the seeds, with a caption; `None` for a single seed.
pub(super) fn seeds_table(metrics: &Metrics, parts: &[EvaluatedPart<'_>]) -> Option<(String, Table)> {
    let seeds = metrics.seeds.as_ref().filter(|seeds| seeds.results.len() > 1)?;
    let caption = format!(
        "Mean ± sample standard deviation over {} seeds (the tables show the first seed):",
        seeds.results.len()
    );
    let spread = |s: &super::metrics::Spread| format!("{:.1} ± {:.1} %", 100.0 * s.mean, 100.0 * s.std);
    let headlines = parts.first().map(|part| part.metrics.headlines()).unwrap_or_default();
    let header = std::iter::once("split".to_string()).chain(headlines.iter().map(|metric| metric.name.clone()));
    let mut table = Table { header: header.collect(), left: 1, rows: Vec::new(), best: None };
    for (split, summary) in &seeds.summary {
        let cells = headlines.iter().map(|metric| summary.get(&metric.key).map_or("–".into(), spread));
        table.rows.push(std::iter::once(split.name().to_string()).chain(cells).collect());
    }
    Some((caption, table))
}

fn write_part(line: &mut impl FnMut(std::fmt::Arguments<'_>), part: &EvaluatedPart<'_>, content: &PartContent) {
    line(format_args!("## {}\n", heading(&part.name)));
    for remark in remarks(part.metrics, part.constant) {
        line(format_args!("- **{}**", escape_markdown(&remark)));
    }
    for finding in &content.findings {
        line(format_args!("- {}", escape_markdown(finding)));
    }
    for block in &content.blocks {
        match block {
            Block::Table(caption, table) => line(format_args!("\n{caption}\n\n{}", table.markdown())),
            Block::Figure(figure) => line(format_args!("\n![{}]({})\n", escape_markdown(&figure.caption), figure.file)),
        }
    }
}

/// Returns the heading of a part.
pub(super) fn heading(part: &str) -> &str {
    match part {
        "train" => "Training",
        "val" => "Validation",
        "test" => "Test",
        _ => "All clips",
    }
}

/// Summarizes the results for the terminal: headline metrics and remarks of each part, and warnings.
pub fn summary(metrics: &Metrics) -> String {
    let mut text = String::new();
    if metrics.identity.untrained {
        text.push_str(&format!("{UNTRAINED}\n"));
    }
    let parts = [
        ("train", &metrics.train, metrics.constant.get(&Split::Train)),
        ("val", &metrics.val, metrics.constant.get(&Split::Val)),
        ("test", &metrics.test, metrics.constant.get(&Split::Test)),
        ("all", &metrics.all, None),
    ];
    for (name, part, constant) in parts {
        let Some(part) = part else { continue };
        let headlines = part.headlines();
        let values = headlines.iter().map(|metric| format!("  {} {}", metric.name, cell(metric)));
        let baseline = constant.and_then(|constant| constant.value(&headlines[0].key));
        let baseline = baseline.map(|value| format!("  constant {}", percent(value))).unwrap_or_default();
        text.push_str(&format!("{name:<5} {} clips{}{baseline}\n", part.n(), values.collect::<String>()));
        for remark in remarks(part, constant) {
            text.push_str(&format!("      {remark}\n"));
        }
    }
    if parts.iter().any(|(_, part, _)| part.as_ref().is_some_and(|part| part.intervals().is_some())) {
        text.push_str(&format!("brackets: {:.0} % {METHOD} intervals\n", 100.0 * LEVEL));
    }
    if let Some(unlabeled) = unlabeled_clips(metrics) {
        text.push_str(&format!("{unlabeled}\n"));
    }
    for warning in &metrics.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text
}

/// Describes the clips without a label, if there are any.
pub(super) fn unlabeled_clips(metrics: &Metrics) -> Option<String> {
    let count = metrics.unlabeled?;
    let evaluated = [&metrics.train, &metrics.val, &metrics.test, &metrics.all];
    Some(if evaluated.iter().all(|part| part.is_none()) {
        format!("{count} predicted, none labeled: submission.csv has the predictions")
    } else {
        format!("{count} without a label predicted: submission.csv has the predictions")
    })
}
