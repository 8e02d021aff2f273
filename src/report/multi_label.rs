//! Report content of multi-label parts: metrics of each label, alternative decision rules, precision-recall curves.

use super::markdown::percent;
use super::table::Table;
use super::{Block, EvaluatedPart, Figure, PartContent, label_plots};
use crate::evaluate::multi_label::thresholds::MIN_CLIPS;
use crate::evaluate::multi_label::{Averages, LabelMatrix, Thresholds};
use crate::evaluate::predictions::DEFAULT_THRESHOLD;
use crate::evaluate::ranking::precision_recall_curve;
use crate::evaluate::{MultiLabelMetrics, SplitMetrics};

/// Returns the content of the report on one part.
pub(super) fn content(title: &str, part: &EvaluatedPart<'_>, metrics: &MultiLabelMetrics) -> PartContent {
    let name = &part.name;
    let mut blocks = vec![
        Block::Table("Metrics of each label (threshold 0.5):".into(), labels(metrics)),
        Block::Table("Decision rules:".into(), decision_rules(metrics, part.constant)),
    ];
    if !metrics.largest_confusions.is_empty() {
        blocks.push(Block::Table("Largest confusions:".into(), confusions(metrics)));
    }
    if let Some(map) = metrics.map.macro_ {
        let caption = format!("{title}, {name}: mAP {}", percent(map));
        blocks.push(Block::Figure(Figure {
            file: format!("precision_recall_{name}.svg"),
            svg: label_plots::precision_recall(&caption, &curves(part, metrics)),
            caption,
        }));
        let caption = format!("Average precision of each label, {name}");
        let values = metrics.per_label.iter().map(|label| label.average_precision).collect();
        let mut series = vec![("average precision".to_string(), values)];
        if let Some(SplitMetrics::MultiLabel(constant)) = part.constant {
            let values = constant.per_label.iter().map(|label| label.average_precision).collect();
            series.push(("constant baseline".into(), values));
        }
        blocks.push(Block::Figure(Figure {
            file: format!("average_precision_{name}.svg"),
            svg: label_plots::bars(&caption, &metrics.labels, &series),
            caption,
        }));
    }
    let mut findings = extremes(metrics);
    findings.extend(metrics.thresholds.as_ref().and_then(default_thresholds));
    PartContent { findings, blocks, csv_files: vec![], class_records: label_records(name, metrics) }
}

fn extremes(metrics: &MultiLabelMetrics) -> Vec<String> {
    [("hardest", &metrics.hardest), ("easiest", &metrics.easiest)]
        .into_iter()
        .filter_map(|(extreme, name)| {
            let label = metrics.per_label.iter().find(|label| Some(&label.label) == name.as_ref())?;
            Some(format!(
                "{extreme} label: {} (average precision {}, F1 {}, {} clips)",
                label.label,
                percent_or_na(label.average_precision),
                percent_or_na(label.f1),
                label.support
            ))
        })
        .collect()
}

/// Names the labels whose threshold is not tuned, if there are any.
fn default_thresholds(thresholds: &Thresholds) -> Option<String> {
    let labels = thresholds.not_tuned();
    (!labels.is_empty()).then(|| {
        format!(
            "fewer than {MIN_CLIPS} validation clips, hence the threshold {DEFAULT_THRESHOLD} instead of a tuned one: {}",
            labels.join(", ")
        )
    })
}

fn percent_or_na(value: Option<f64>) -> String {
    value.map_or("n/a".into(), percent)
}

fn labels(metrics: &MultiLabelMetrics) -> Table {
    let header = [
        "label",
        "precision",
        "recall",
        "F1",
        "clips",
        "average precision",
        "PR AUC (trapezoidal)",
        "ROC AUC",
        "threshold tuned on val",
        "F1 with this threshold",
    ];
    let mut table = Table::new(&header, 1);
    let four = |value: Option<f64>| value.map_or("n/a".into(), |value| format!("{value:.4}"));
    for (i, label) in metrics.per_label.iter().enumerate() {
        let tuned = metrics.thresholds.as_ref().map(|tuned| &tuned.per_label[i]);
        let ranked = |value: Option<f64>| if metrics.map.macro_.is_some() { four(value) } else { "–".into() };
        table.rows.push(vec![
            label.label.clone(),
            four(label.precision),
            four(label.recall),
            four(label.f1),
            label.support.to_string(),
            ranked(label.average_precision),
            ranked(label.pr_auc_trapezoid),
            ranked(label.roc_auc),
            tuned.map_or("–".into(), |tuned| format!("{:.4}", tuned.threshold)),
            tuned.map_or("–".into(), |tuned| four(tuned.f1)),
        ]);
    }
    table.without_empty_columns()
}

fn decision_rules(metrics: &MultiLabelMetrics, constant: Option<&SplitMetrics>) -> Table {
    let averages = ["micro", "macro", "weighted", "samples"];
    let columns = averages.iter().flat_map(|name| ["P", "R", "F1"].map(|metric| format!("{name} {metric}")));
    let header: Vec<String> = std::iter::once("predicted labels".into()).chain(columns).collect();
    let mut table = Table { header, left: 1, rows: Vec::new(), best: None };
    let mut row = |rule: String, a: &Averages| {
        let averages = [a.micro, a.macro_, a.weighted, a.samples];
        let cells = averages.iter().flat_map(|a| [a.precision, a.recall, a.f1]).map(|v| format!("{v:.4}"));
        table.rows.push(std::iter::once(rule).chain(cells).collect());
    };
    row("as predicted (by default: score ≥ 0.5)".into(), &metrics.averages);
    if let Some(tuned) = &metrics.thresholds {
        row("score ≥ threshold of each label, tuned on val".into(), &tuned.averages);
    }
    for top in &metrics.top_k_sweep {
        row(format!("top {}", top.k), &top.averages);
    }
    if let Some(SplitMetrics::MultiLabel(constant)) = constant {
        row("constant: the most frequent training labels".into(), &constant.averages);
    }
    table
}

fn confusions(metrics: &MultiLabelMetrics) -> Table {
    let mut table =
        Table::new(&["missed label", "wrongly predicted label", "clips", "share of missed label's clips"], 2);
    table.rows = metrics
        .largest_confusions
        .iter()
        .map(|cell| vec![cell.label.clone(), cell.predicted.clone(), cell.count.to_string(), percent(cell.share)])
        .collect();
    table
}

/// Returns the precision-recall curve of each label with clips, the most frequent label first.
fn curves(part: &EvaluatedPart<'_>, metrics: &MultiLabelMetrics) -> Vec<label_plots::Curve> {
    let Some(scores) = &part.predictions.scores else { return Vec::new() };
    let rows = part.predictions.labeled_rows();
    let truth = LabelMatrix::from_sets(&part.predictions.truth, &rows, metrics.labels.len());
    let mut order: Vec<usize> = (0..metrics.labels.len()).filter(|&i| metrics.per_label[i].support > 0).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(metrics.per_label[i].support));
    let curve = |&i: &usize| {
        let column: Vec<f32> = rows.iter().map(|&row| scores[(row, i)]).collect();
        label_plots::Curve {
            name: format!("{} ({})", metrics.labels[i], percent_or_na(metrics.per_label[i].average_precision)),
            points: precision_recall_curve(&truth.label(i), &column),
        }
    };
    order.iter().map(curve).collect()
}

fn label_records(name: &str, metrics: &MultiLabelMetrics) -> Vec<Vec<String>> {
    let header =
        "split,label,precision,recall,f1,support,average_precision,pr_auc_trapezoid,roc_auc,threshold,f1_tuned";
    let text = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
    let rows = metrics.per_label.iter().enumerate().map(|(i, label)| {
        let tuned = metrics.thresholds.as_ref().map(|tuned| &tuned.per_label[i]);
        let mut record = vec![name.to_string(), label.label.clone()];
        record.extend([label.precision, label.recall, label.f1].map(text));
        record.push(label.support.to_string());
        record.extend([label.average_precision, label.pr_auc_trapezoid, label.roc_auc].map(text));
        record.extend([tuned.map(|tuned| tuned.threshold.into()), tuned.and_then(|tuned| tuned.f1)].map(text));
        record
    });
    std::iter::once(header.split(',').map(String::from).collect()).chain(rows).collect()
}
