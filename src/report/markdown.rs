//! REPORT.md: what a run's folder says to people.

use std::fmt::Write;

use super::metrics::Metrics;
use super::table::Table;
use super::{Block, Section, Shown};
use crate::evaluate::SplitMetrics;
use crate::evaluate::intervals::{Interval, ResamplingUnit};
use crate::evaluate::split_metrics::{MetricFormat, MetricValue};
use crate::manifest::Split;

/// What every report of untrained features begins with.
pub const UNTRAINED: &str = "UNTRAINED: these features come from a network with seeded random weights. \
    The numbers show that the pipeline works; they say nothing about what the network can do.";

/// Text as Markdown text, safe in a table cell.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' | '|' | '`' | '*' | '_' | '[' | ']' | '#' | '~' | '$' => escaped.extend(['\\', character]),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A share as a percentage with one decimal.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// A number as tables show it, with its interval.
pub fn cell(number: &MetricValue) -> String {
    match (number.value, number.format) {
        (None, _) => "–".into(),
        (Some(value), MetricFormat::Percentage) => with_interval(value, number.interval),
        (Some(value), MetricFormat::Decimal) => format!("{value:.3}"),
    }
}

/// A share with its interval.
pub fn with_interval(share: f64, interval: Option<Interval>) -> String {
    match interval {
        Some([low, high]) => format!("{} [{:.1}, {:.1}]", percent(share), 100.0 * low, 100.0 * high),
        None => percent(share),
    }
}

/// What stands out of a split's numbers, in words; empty where nothing does.
pub fn remarks(metrics: &SplitMetrics, constant: Option<&SplitMetrics>) -> Vec<String> {
    let mut remarks: Vec<String> = metrics.collapsed().into_iter().collect();
    let (headline, value) = metrics.primary();
    if let Some(constant) = constant.and_then(|constant| constant.value(&headline.key)) {
        if value < constant {
            remarks.push(format!("worse than the constant predictor, which gets {}", percent(constant)));
        } else if headline.interval.is_some_and(|[low, _]| low <= constant) {
            remarks.push(format!(
                "the interval of the {} reaches down to the constant predictor's {}: no better than chance is not excluded",
                headline.name,
                percent(constant)
            ));
        }
    }
    if metrics.intervals().is_none() {
        remarks.push("no interval: it takes at least two clips, or two groups, to draw from".into());
    }
    remarks
}

/// The whole report. `files` says which of the optional files were written.
pub(super) fn report(
    title: &str,
    metrics: &Metrics,
    sections: &[Section<'_>],
    shown: &[Shown],
    files: &[&str],
) -> String {
    let mut text = String::new();
    let mut line = |args: std::fmt::Arguments<'_>| {
        text.write_fmt(args).expect("writing to a string cannot fail");
        text.push('\n');
    };
    line(format_args!("# {}\n", escape(title)));
    if metrics.untrained {
        line(format_args!("> **⚠ {UNTRAINED}**\n"));
    }
    what_was_run(&mut line, metrics);
    for warning in &metrics.warnings {
        line(format_args!("- warning: {}", escape(warning)));
    }
    if !metrics.warnings.is_empty() {
        line(format_args!(""));
    }
    results(&mut line, metrics, sections);
    if files.contains(&"curves.svg") {
        line(format_args!("## Training\n\n![learning curves](curves.svg)\n"));
    }
    for (section, shown) in sections.iter().zip(shown) {
        split(&mut line, section, shown);
    }
    line(format_args!("## Files\n"));
    let about = |file: &str| match file {
        "predictions.csv" => "every clip's prediction and scores",
        "submission.csv" => "the clips without a label, as `Id,Category`",
        "curves.csv" => "loss, accuracy and learning rate of every epoch",
        "per_class.csv" => "the tables by class",
        "classification_report.txt" => "the classic table: precision, recall, F1 and support, by class and averaged",
        "recipe.toml" => "the recipe used; `--recipe` takes it",
        "metrics.json" => "all of this for programs",
        _ => "",
    };
    for file in files.iter().filter(|file| !about(file).is_empty()) {
        line(format_args!("- [{file}]({file}): {}", about(file)));
    }
    text
}

fn what_was_run(line: &mut impl FnMut(std::fmt::Arguments<'_>), metrics: &Metrics) {
    line(format_args!("| | |\n|-|-|"));
    let mut row = |name: &str, value: String| {
        if !value.is_empty() {
            line(format_args!("| {name} | {} |", escape(&value)));
        }
    };
    row("method", metrics.method.clone());
    row("classifier", metrics.classifier.clone());
    row("network or algorithm", metrics.model.clone());
    let untrained = if metrics.untrained { " — UNTRAINED" } else { "" };
    row("weights", if metrics.weights.is_empty() { String::new() } else { format!("{}{untrained}", metrics.weights) });
    row("sha-256 of what ran", metrics.model_sha256.clone());
    row("extracted with", metrics.provider.clone());
    row("features", metrics.features.display().to_string());
    row("manifest", metrics.manifest.display().to_string());
    row("extraction", metrics.extract_seconds.map(|s| format!("{s:.1} s")).unwrap_or_default());
    row("training", metrics.training_seconds.map(|s| format!("{s:.2} s")).unwrap_or_default());
    row("best epoch", metrics.best_epoch.map(|epoch| epoch.to_string()).unwrap_or_default());
    row("kinoprobe", metrics.tool_version.clone());
    line(format_args!(""));
}

fn results(line: &mut impl FnMut(std::fmt::Arguments<'_>), metrics: &Metrics, sections: &[Section<'_>]) {
    line(format_args!("## Results\n"));
    let numbers = sections.first().map(|section| section.metrics.values()).unwrap_or_default();
    let names = numbers.iter().map(|number| number.name.clone());
    let header = ["split", "predictor", "clips"].map(String::from).into_iter().chain(names).collect();
    let mut table = Table { header, left: 2, rows: Vec::new(), best: None };
    let mut row = |split: &str, name: &str, metrics: &SplitMetrics| {
        let mut row = vec![split.to_string(), name.to_string(), metrics.n().to_string()];
        row.extend(metrics.values().iter().map(cell));
        table.rows.push(row);
    };
    let name = if metrics.classifier.is_empty() { "predictions" } else { &metrics.classifier };
    for section in sections {
        row(&section.name, name, section.metrics);
        if let Some(constant) = section.constant {
            row(&section.name, "constant", constant);
        }
    }
    line(format_args!("{}", table.without_empty_columns().markdown()));
    if let Some(interval) = sections.iter().find_map(|section| section.metrics.intervals()) {
        let what = match interval.unit {
            ResamplingUnit::Clips => "single clips",
            ResamplingUnit::Groups => "whole groups",
        };
        line(format_args!(
            "In brackets: {:.0} % percentile bootstrap intervals, {} resamples of {what}.\n",
            100.0 * interval.level,
            interval.resamples
        ));
    }
    if let Some(seeds) = metrics.seeds.as_ref().filter(|seeds| seeds.results.len() > 1) {
        line(format_args!(
            "Over {} seeds (mean ± sample deviation; the tables are of the first):\n",
            seeds.results.len()
        ));
        let spread = |s: &super::metrics::Spread| format!("{:.1} ± {:.1} %", 100.0 * s.mean, 100.0 * s.std);
        let headlines = sections.first().map(|section| section.metrics.headlines()).unwrap_or_default();
        let header = std::iter::once("split".to_string()).chain(headlines.iter().map(|number| number.name.clone()));
        let mut table = Table { header: header.collect(), left: 1, rows: Vec::new(), best: None };
        for (split, summary) in &seeds.summary {
            let cells = headlines.iter().map(|number| summary.get(&number.key).map_or("–".into(), spread));
            table.rows.push(std::iter::once(split.name().to_string()).chain(cells).collect());
        }
        line(format_args!("{}", table.markdown()));
    }
}

fn split(line: &mut impl FnMut(std::fmt::Arguments<'_>), section: &Section<'_>, shown: &Shown) {
    line(format_args!("## {}\n", heading(&section.name)));
    for remark in remarks(section.metrics, section.constant) {
        line(format_args!("- **{}**", escape(&remark)));
    }
    for sentence in &shown.sentences {
        line(format_args!("- {}", escape(sentence)));
    }
    for block in &shown.blocks {
        match block {
            Block::Table(above, table) => line(format_args!("\n{above}\n\n{}", table.markdown())),
            Block::Picture(picture) => line(format_args!("\n![{}]({})\n", escape(&picture.caption), picture.file)),
        }
    }
}

fn heading(split: &str) -> &str {
    match split {
        "train" => "Training",
        "val" => "Validation",
        "test" => "Test",
        _ => "All clips",
    }
}

/// A few lines for the terminal: each measured part with its headline numbers, remarks and warnings.
pub fn summary(metrics: &Metrics) -> String {
    let mut text = String::new();
    if metrics.untrained {
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
        let numbers = headlines.iter().map(|number| format!("  {} {}", number.name, cell(number)));
        let beside = constant.and_then(|constant| constant.value(&headlines[0].key));
        let beside = beside.map(|value| format!("  constant {}", percent(value))).unwrap_or_default();
        text.push_str(&format!("{name:<5} {} clips{}{beside}\n", part.n(), numbers.collect::<String>()));
        for remark in remarks(part, constant) {
            text.push_str(&format!("      {remark}\n"));
        }
    }
    for warning in &metrics.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text
}
