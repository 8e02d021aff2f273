//! REPORT.md: what a run's folder says to people.

use std::fmt::Write;

use super::Section;
use super::metrics::Metrics;
use crate::evaluate::SingleLabel;
use crate::evaluate::significance::{Interval, Unit};
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

/// A share with its interval.
pub fn with_interval(share: f64, interval: Option<Interval>) -> String {
    match interval {
        Some([low, high]) => format!("{} [{:.1}, {:.1}]", percent(share), 100.0 * low, 100.0 * high),
        None => percent(share),
    }
}

/// What stands out of a split's numbers, in words; empty where nothing does.
pub fn remarks(metrics: &SingleLabel, constant: Option<&SingleLabel>) -> Vec<String> {
    let mut remarks = Vec::new();
    let predicted = metrics.per_class.iter().filter(|class| class.tp + class.fp > 0);
    let predicted: Vec<&str> = predicted.map(|class| class.label.as_str()).collect();
    if let ([only], true) = (&predicted[..], metrics.labels.len() > 1) {
        remarks.push(format!("collapsed: every clip is predicted as {only}"));
    }
    if let (Some(constant), Some(interval)) = (constant, &metrics.interval)
        && interval.accuracy[0] <= constant.accuracy
        && metrics.accuracy >= constant.accuracy
    {
        remarks.push(format!(
            "the interval of the accuracy reaches down to the constant predictor's {}: no better than chance is not excluded",
            percent(constant.accuracy)
        ));
    }
    if let Some(constant) = constant.filter(|constant| metrics.accuracy < constant.accuracy) {
        remarks.push(format!("worse than the constant predictor, which gets {}", percent(constant.accuracy)));
    }
    if metrics.interval.is_none() {
        remarks.push("no interval: it takes at least two clips, or two groups, to draw from".into());
    }
    let absent = metrics.per_class.iter().filter(|class| class.support == 0).count();
    if absent > 0 {
        remarks.push(format!(
            "{absent} of {} classes have no clip here and count as 0 in the macro averages, as scikit-learn has it",
            metrics.labels.len()
        ));
    }
    remarks
}

/// The whole report. `files` says which of the optional files were written.
pub(super) fn report(title: &str, metrics: &Metrics, sections: &[Section<'_>], files: &[&str]) -> String {
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
    for section in sections {
        split(&mut line, section);
    }
    line(format_args!("## Files\n"));
    let about = |file: &str| match file {
        "predictions.csv" => "every clip's prediction and scores",
        "submission.csv" => "the clips without a label, as `Id,Category`",
        "curves.csv" => "loss, accuracy and learning rate of every epoch",
        "per_class.csv" => "the tables by class",
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
    line(format_args!(
        "| split | predictor | clips | accuracy | macro F1 | weighted F1 | top-3 | top-5 | calibration error |"
    ));
    line(format_args!("|-|-|-:|-:|-:|-:|-:|-:|-:|"));
    let mut row = |split: &str, name: &str, m: &SingleLabel| {
        let top = |k: usize| m.top_k.get(&k).map_or("–".into(), |&share| percent(share));
        let interval = m.interval.as_ref();
        let ece = m.expected_calibration_error.map_or("–".into(), |error| format!("{error:.3}"));
        line(format_args!(
            "| {split} | {} | {} | {} | {} | {} | {} | {} | {ece} |",
            escape(name),
            m.n,
            with_interval(m.accuracy, interval.map(|i| i.accuracy)),
            with_interval(m.macro_.f1, interval.map(|i| i.macro_f1)),
            percent(m.weighted.f1),
            top(3),
            top(5),
        ));
    };
    for section in sections {
        row(
            &section.name,
            if metrics.classifier.is_empty() { "predictions" } else { &metrics.classifier },
            section.metrics,
        );
        if let Some(constant) = section.constant {
            row(&section.name, "constant", constant);
        }
    }
    line(format_args!(""));
    if let Some(interval) = sections.iter().find_map(|section| section.metrics.interval.as_ref()) {
        let what = match interval.unit {
            Unit::Clips => "single clips",
            Unit::Groups => "whole groups",
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
        line(format_args!("| split | accuracy | macro F1 |\n|-|-:|-:|"));
        for (split, summary) in &seeds.summary {
            let spread = |s: super::metrics::Spread| format!("{:.1} ± {:.1} %", 100.0 * s.mean, 100.0 * s.std);
            line(format_args!("| {} | {} | {} |", split.name(), spread(summary.accuracy), spread(summary.macro_f1)));
        }
        line(format_args!(""));
    }
}

fn split(line: &mut impl FnMut(std::fmt::Arguments<'_>), section: &Section<'_>) {
    let (name, metrics) = (&section.name, section.metrics);
    line(format_args!("## {}\n", heading(name)));
    for remark in remarks(metrics, section.constant) {
        line(format_args!("- **{}**", escape(&remark)));
    }
    for (what, class) in [("hardest", &metrics.hardest), ("easiest", &metrics.easiest)] {
        if let Some(class) = metrics.per_class.iter().find(|c| Some(&c.label) == class.as_ref()) {
            line(format_args!(
                "- {what} class: {} (F1 {}, recall {} of {} clips)",
                escape(&class.label),
                percent(class.f1),
                percent(class.recall),
                class.support
            ));
        }
    }
    if !metrics.largest_confusions.is_empty() {
        line(format_args!(
            "\nLargest confusions:\n\n| true class | predicted as | clips | of the class |\n|-|-|-:|-:|"
        ));
        for cell in &metrics.largest_confusions {
            line(format_args!(
                "| {} | {} | {} | {} |",
                escape(&cell.label),
                escape(&cell.predicted),
                cell.count,
                percent(cell.share)
            ));
        }
    }
    line(format_args!("\n![confusion matrix, {name}](confusion_{name}.svg)\n"));
    line(format_args!(
        "| class | TP | FP | FN | TN | accuracy, one against the rest | precision | recall | F1 | clips |"
    ));
    line(format_args!("|-|-:|-:|-:|-:|-:|-:|-:|-:|-:|"));
    for class in &metrics.per_class {
        line(format_args!(
            "| {} | {} | {} | {} | {} | {:.4} | {:.4} | {:.4} | {:.4} | {} |",
            escape(&class.label),
            class.tp,
            class.fp,
            class.fn_,
            class.tn,
            class.accuracy,
            class.precision,
            class.recall,
            class.f1,
            class.support
        ));
    }
    for (name, average) in [("macro", metrics.macro_), ("micro", metrics.micro), ("weighted", metrics.weighted)] {
        line(format_args!(
            "| **{name} average** | | | | | | {:.4} | {:.4} | {:.4} | {} |",
            average.precision, average.recall, average.f1, metrics.n
        ));
    }
    line(format_args!(""));
}

fn heading(split: &str) -> &str {
    match split {
        "train" => "Training",
        "val" => "Validation",
        "test" => "Test",
        _ => "All clips",
    }
}

/// A few lines for the terminal: each measured part with accuracy and macro F1, remarks and warnings.
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
        let interval = part.interval.as_ref();
        let beside = constant.map(|c| format!("  constant {}", percent(c.accuracy))).unwrap_or_default();
        text.push_str(&format!(
            "{name:<5} {} clips  accuracy {}  macro F1 {}{beside}\n",
            part.n,
            with_interval(part.accuracy, interval.map(|i| i.accuracy)),
            with_interval(part.macro_.f1, interval.map(|i| i.macro_f1)),
        ));
        for remark in remarks(part, constant) {
            text.push_str(&format!("      {remark}\n"));
        }
    }
    for warning in &metrics.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text
}
