//! Report content of single-label parts: confusions and one-vs-rest metrics of each class.

use super::markdown::percent;
use super::table::Table;
use super::{Block, EvaluatedPart, Figure, PartContent, plots};
use crate::evaluate::SingleLabelMetrics;

/// Returns the content of the report on one part.
pub(super) fn content(title: &str, part: &EvaluatedPart<'_>, metrics: &SingleLabelMetrics) -> PartContent {
    let name = &part.name;
    let caption = format!("{title}, {name}: accuracy {}", percent(metrics.accuracy));
    let matrix = Figure {
        file: format!("confusion_{name}.svg"),
        svg: plots::confusion(&caption, &metrics.labels, &metrics.confusion),
        caption,
    };
    let mut blocks = Vec::new();
    if !metrics.largest_confusions.is_empty() {
        blocks.push(Block::Table("Largest confusions:".into(), confusions(metrics)));
    }
    blocks
        .extend([Block::Figure(matrix), Block::Table("Metrics of each class (one-vs-rest):".into(), classes(metrics))]);
    PartContent {
        findings: extremes(metrics),
        blocks,
        csv_files: vec![(format!("confusion_{name}.csv"), matrix_records(metrics))],
        class_records: class_records(name, metrics),
    }
}

fn extremes(metrics: &SingleLabelMetrics) -> Vec<String> {
    [("hardest", &metrics.hardest), ("easiest", &metrics.easiest)]
        .into_iter()
        .filter_map(|(extreme, label)| {
            let class = metrics.per_class.iter().find(|class| Some(&class.label) == label.as_ref())?;
            Some(format!(
                "{extreme} class: {} (F1 {}, recall {} of {} clips)",
                class.label,
                percent(class.f1),
                percent(class.recall),
                class.support
            ))
        })
        .collect()
}

fn confusions(metrics: &SingleLabelMetrics) -> Table {
    let mut table = Table::new(&["true class", "predicted class", "clips", "share of true class"], 2);
    table.rows = metrics
        .largest_confusions
        .iter()
        .map(|cell| vec![cell.label.clone(), cell.predicted.clone(), cell.count.to_string(), percent(cell.share)])
        .collect();
    table
}

fn classes(metrics: &SingleLabelMetrics) -> Table {
    let header = ["class", "TP", "FP", "FN", "TN", "accuracy", "precision", "recall", "F1", "clips"];
    let mut table = Table::new(&header, 1);
    let four = |value: f64| format!("{value:.4}");
    for class in &metrics.per_class {
        let mut row = vec![class.label.clone()];
        row.extend([class.tp, class.fp, class.fn_, class.tn].map(|count| count.to_string()));
        row.extend([class.accuracy, class.precision, class.recall, class.f1].map(four));
        row.push(class.support.to_string());
        table.rows.push(row);
    }
    for (name, average) in [("macro", metrics.macro_), ("micro", metrics.micro), ("weighted", metrics.weighted)] {
        let mut row = vec![format!("{name} average")];
        row.extend([const { String::new() }; 5]);
        row.extend([average.precision, average.recall, average.f1].map(four));
        row.push(metrics.n.to_string());
        table.rows.push(row);
    }
    table
}

/// Returns the confusion matrix with class names as header and first column.
fn matrix_records(metrics: &SingleLabelMetrics) -> Vec<Vec<String>> {
    let header = std::iter::once("true \\ predicted".to_string()).chain(metrics.labels.iter().cloned()).collect();
    let rows = metrics.labels.iter().zip(&metrics.confusion).map(|(label, counts)| {
        std::iter::once(label.clone()).chain(counts.iter().map(u64::to_string)).collect::<Vec<_>>()
    });
    std::iter::once(header).chain(rows).collect()
}

fn class_records(name: &str, metrics: &SingleLabelMetrics) -> Vec<Vec<String>> {
    let header = ["split", "label", "tp", "fp", "fn", "tn", "accuracy", "precision", "recall", "f1", "support"];
    let rows = metrics.per_class.iter().map(|class| {
        let mut record = vec![name.to_string(), class.label.clone()];
        record.extend([class.tp, class.fp, class.fn_, class.tn].map(|count| count.to_string()));
        record.extend([class.accuracy, class.precision, class.recall, class.f1].map(|value| value.to_string()));
        record.push(class.support.to_string());
        record
    });
    std::iter::once(header.map(String::from).to_vec()).chain(rows).collect()
}
