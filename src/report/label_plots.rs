//! Plots with one element per label: precision-recall curves, and bars of one metric.

use super::svg::{Anchor, Drawing, PALETTE, format_tick, text_width, ticks, truncate};

/// Maximum number of characters of a label.
const MAX_LABEL_CHARS: usize = 28;
/// Number of curves with a color and a legend entry; further curves are gray.
const MAX_COLORED: usize = 6;

/// A precision-recall curve.
#[derive(Debug, Clone)]
pub struct Curve {
    /// Name in the legend.
    pub name: String,
    /// Recall and precision of each point, by increasing recall.
    pub points: Vec<(f64, f64)>,
}

/// Plots precision against recall: the first [`MAX_COLORED`] curves in color with a legend, the others gray behind them.
pub fn precision_recall(title: &str, curves: &[Curve]) -> String {
    let (left, top, side) = (58.0, 48.0, 400.0);
    let names: Vec<String> =
        curves.iter().take(MAX_COLORED).map(|curve| truncate(&curve.name, MAX_LABEL_CHARS + 12)).collect();
    let longest = names.iter().map(|name| text_width(name, 11.0)).fold(90.0, f64::max);
    let total_width = (left + side + 60.0 + longest).max(text_width(title, 14.0) + 24.0);
    let mut drawing = Drawing::new(total_width, top + side + 52.0, title);
    drawing.text(12.0, 20.0, 14.0, "ink", Anchor::Start, 0.0, title);
    let at = |(recall, precision): (f64, f64)| (left + side * recall, top + side * (1.0 - precision));
    for mark in ticks(0.0, 1.0, 5) {
        drawing.line(at((0.0, mark)), at((1.0, mark)), "grid", 1.0, "");
        drawing.line(at((mark, 0.0)), at((mark, 1.0)), "grid", 1.0, "");
        drawing.text(left - 7.0, at((0.0, mark)).1, 11.0, "dim", Anchor::End, 0.0, &format_tick(mark));
        drawing.text(at((mark, 0.0)).0, top + side + 14.0, 11.0, "dim", Anchor::Middle, 0.0, &format_tick(mark));
    }
    drawing.text(left + side / 2.0, top + side + 36.0, 12.0, "ink", Anchor::Middle, 0.0, "recall");
    drawing.text(14.0, top + side / 2.0, 12.0, "ink", Anchor::Middle, -90.0, "precision");
    // In reverse order, so that gray curves are below colored ones.
    for (i, curve) in curves.iter().enumerate().rev() {
        let color = if i < MAX_COLORED { PALETTE[i] } else { PALETTE[PALETTE.len() - 1] };
        let dash = if i < MAX_COLORED { "" } else { "2 3" };
        let points: Vec<(f64, f64)> = simplify(&curve.points).into_iter().map(at).collect();
        drawing.polyline(&points, color, dash);
    }
    for (i, name) in names.iter().enumerate() {
        let y = top + 8.0 + 19.0 * i as f64;
        drawing.polyline(&[(left + side + 16.0, y), (left + side + 38.0, y)], PALETTE[i], "");
        drawing.text(left + side + 46.0, y, 11.0, "ink", Anchor::Start, 0.0, name);
    }
    if curves.len() > MAX_COLORED {
        let y = top + 8.0 + 19.0 * MAX_COLORED as f64;
        let others = format!("{} others", curves.len() - MAX_COLORED);
        drawing.polyline(&[(left + side + 16.0, y), (left + side + 38.0, y)], PALETTE[PALETTE.len() - 1], "2 3");
        drawing.text(left + side + 46.0, y, 11.0, "ink", Anchor::Start, 0.0, &others);
    }
    drawing.finish()
}

/// Removes points that are visually indistinguishable from their predecessor.
fn simplify(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut kept: Vec<(f64, f64)> = Vec::new();
    for (i, &point) in points.iter().enumerate() {
        let far = |last: &(f64, f64)| (point.0 - last.0).abs() + (point.1 - last.1).abs() > 0.002;
        if i + 1 == points.len() || kept.last().is_none_or(far) {
            kept.push(point);
        }
    }
    kept
}

/// Plots fractions by label as horizontal bars. Each series has a name and one value per label; `None` is shown as n/a.
pub fn bars(title: &str, labels: &[String], series: &[(String, Vec<Option<f64>>)]) -> String {
    let names: Vec<String> = labels.iter().map(|label| truncate(label, MAX_LABEL_CHARS)).collect();
    let longest = names.iter().map(|name| text_width(name, 11.0)).fold(60.0, f64::max);
    let keys: Vec<String> = series.iter().map(|(name, _)| truncate(name, 64)).collect();
    let widest_key = keys.iter().map(|name| text_width(name, 11.0)).fold(0.0, f64::max);
    let bar = if series.len() > 3 { 7.0 } else { 10.0 };
    let row = bar * series.len() as f64 + 8.0;
    let (left, top, span) = (longest + 24.0, 44.0 + 18.0 * series.len() as f64, 400.0);
    let bottom = top + row * labels.len() as f64;
    let total_width = (left + span + 70.0).max(text_width(title, 14.0) + 24.0).max(60.0 + widest_key);
    let mut drawing = Drawing::new(total_width, bottom + 34.0, title);
    drawing.text(12.0, 20.0, 14.0, "ink", Anchor::Start, 0.0, title);
    for (k, key) in keys.iter().enumerate() {
        let y = 34.0 + 18.0 * k as f64;
        drawing.rectangle(12.0, y, 12.0, 12.0, PALETTE[k % PALETTE.len()], "");
        drawing.text(30.0, y + 6.0, 11.0, "ink", Anchor::Start, 0.0, key);
    }
    let x = |value: f64| left + span * value;
    for mark in ticks(0.0, 1.0, 5) {
        drawing.line((x(mark), top - 4.0), (x(mark), bottom), "grid", 1.0, "");
        drawing.text(x(mark), bottom + 14.0, 11.0, "dim", Anchor::Middle, 0.0, &format!("{:.0} %", 100.0 * mark));
    }
    for (i, name) in names.iter().enumerate() {
        let y = top + row * i as f64;
        drawing.text(left - 8.0, y + (row - 8.0) / 2.0, 11.0, "ink", Anchor::End, 0.0, name);
        for (k, (key, values)) in series.iter().enumerate() {
            let y = y + bar * k as f64;
            match values[i] {
                Some(value) => {
                    let tooltip = format!("{}, {key}: {:.1} %", labels[i], 100.0 * value);
                    drawing.rectangle(
                        x(0.0),
                        y,
                        (span * value).max(1.0),
                        bar - 1.0,
                        PALETTE[k % PALETTE.len()],
                        &tooltip,
                    );
                    if k == 0 {
                        let text = format!("{:.1}", 100.0 * value);
                        drawing.text(x(1.0) + 10.0, y + bar / 2.0, 10.0, "dim", Anchor::Start, 0.0, &text);
                    }
                }
                None => drawing.text(x(0.0) + 4.0, y + bar / 2.0, 9.0, "dim", Anchor::Start, 0.0, "n/a"),
            }
        }
    }
    drawing.finish()
}
