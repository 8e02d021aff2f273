//! Reliability diagrams: how often predictions of a score are true.

use super::svg::{Anchor, Drawing, PALETTE, format_tick, text_width, ticks};
use super::{Block, EvaluatedPart, Figure, PartContent};
use crate::dataset::Task;
use crate::evaluate::predictions::Predictions;
use crate::evaluate::reliability::{Reliability, calibration_error, of_predictions, pool};
use crate::manifest::Split;

/// Name and bins of a curve of a diagram.
type Curve = (String, Reliability);

/// Adds the reliability diagram of a part, unless its scores are missing or not in [0, 1]. If the scores are calibrated, it also shows those
/// before calibration.
pub(super) fn add(title: &str, part: &EvaluatedPart<'_>, content: &mut PartContent) {
    let name = &part.name;
    if let (Some(before), Some(after)) = (part.error_before, calibration_error(part.predictions)) {
        let in_sample = match name == Split::Val.name() {
            true => {
                "; the calibration was fitted to these clips, so that their metrics of calibrated scores are optimistic"
            }
            false => "",
        };
        content.findings.push(format!("calibration error {after:.3}, before calibration {before:.3}{in_sample}"));
    }
    let curve = |name: &str, predictions: &Predictions| -> Option<Curve> {
        let (parts, error) = (of_predictions(predictions)?, calibration_error(predictions)?);
        Some((format!("{name}: calibration error {error:.3}"), pool(&parts)))
    };
    let after = curve(if part.error_before.is_some() { "calibrated" } else { "scores" }, part.predictions);
    let before = part.uncalibrated.and_then(|predictions| curve("before", predictions));
    let curves: Vec<Curve> = after.into_iter().chain(before).collect();
    if curves.is_empty() || part.metrics.n() == 0 {
        return;
    }
    let scores = match part.predictions.task {
        Task::SingleLabel => "highest scores",
        Task::MultiLabel => "scores of all labels",
    };
    let caption = format!("{title}, {name}: reliability of the {scores}");
    let svg = plot(&caption, &curves);
    content.blocks.push(Block::Figure(Figure { file: format!("reliability_{name}.svg"), svg, caption }));
}

/// Plots the fraction of true predictions against the mean score of each bin; the area of a marker shows the share of its scores. Calibrated
/// scores are on the diagonal.
fn plot(title: &str, curves: &[Curve]) -> String {
    let (left, top, side) = (58.0, 48.0, 400.0);
    let longest = curves.iter().map(|(name, _)| text_width(name, 11.0)).fold(0.0, f64::max);
    let width = (left + side + 60.0 + longest).max(text_width(title, 14.0) + 24.0);
    let mut drawing = Drawing::new(width, top + side + 52.0, title);
    drawing.text(12.0, 20.0, 14.0, "ink", Anchor::Start, 0.0, title);
    let at = |score: f64, fraction: f64| (left + side * score, top + side * (1.0 - fraction));
    for mark in ticks(0.0, 1.0, 5) {
        drawing.line(at(0.0, mark), at(1.0, mark), "grid", 1.0, "");
        drawing.line(at(mark, 0.0), at(mark, 1.0), "grid", 1.0, "");
        drawing.text(left - 7.0, at(0.0, mark).1, 11.0, "dim", Anchor::End, 0.0, &format_tick(mark));
        drawing.text(at(mark, 0.0).0, top + side + 14.0, 11.0, "dim", Anchor::Middle, 0.0, &format_tick(mark));
    }
    drawing.line(at(0.0, 0.0), at(1.0, 1.0), "rule", 1.0, "3 3");
    drawing.text(left + side / 2.0, top + side + 36.0, 12.0, "ink", Anchor::Middle, 0.0, "mean score of the bin");
    drawing.text(14.0, top + side / 2.0, 12.0, "ink", Anchor::Middle, -90.0, "fraction of true predictions");
    for (k, (name, reliability)) in curves.iter().enumerate().rev() {
        let total: u64 = reliability.bins.iter().map(|bin| bin.count).sum();
        let filled = reliability.bins.iter().filter(|bin| bin.count > 0);
        let points: Vec<_> = filled
            .map(|bin| {
                let (x, y) = at(bin.sum / bin.count as f64, bin.hits as f64 / bin.count as f64);
                (x, y, bin)
            })
            .collect();
        let line: Vec<(f64, f64)> = points.iter().map(|&(x, y, _)| (x, y)).collect();
        let dash = if k == 0 { "" } else { "6 3" };
        drawing.polyline(&line, PALETTE[k], dash);
        for (x, y, bin) in points {
            let size = 5.0 + 15.0 * (bin.count as f64 / total as f64).sqrt();
            let tooltip = format!("{}: {} of {} true", name.split(':').next().unwrap_or_default(), bin.hits, bin.count);
            drawing.marker(x, y, size, 0, PALETTE[k], &tooltip);
        }
        let y = top + 8.0 + 19.0 * k as f64;
        drawing.polyline(&[(left + side + 16.0, y), (left + side + 38.0, y)], PALETTE[k], dash);
        drawing.text(left + side + 46.0, y, 11.0, "ink", Anchor::Start, 0.0, name);
    }
    drawing.finish()
}
