//! Plots: learning curves, confusion matrices, bars with intervals, projections, counts.

use super::svg::{Anchor, Drawing, PALETTE, format_tick, text_width, ticks, truncate, viridis};
use crate::evaluate::Epoch;
use crate::evaluate::split_metrics::MetricValue;

/// Maximum number of characters of a class name; tables contain the full name.
const MAX_NAME_CHARS: usize = 22;

/// Plots loss, score and learning rate over the epochs, one panel each, and marks the best epoch. `score_name` is `accuracy` or
/// `mAP`.
pub fn curves(score_name: &str, epochs: &[Epoch], best: Option<usize>) -> String {
    let (panel, height, left, top, gap) = (300.0, 210.0, 58.0, 58.0, 74.0);
    let mut drawing = Drawing::new(left + 3.0 * panel + 2.0 * gap + 20.0, top + height + 52.0, "learning curves");
    type EpochValue = fn(&Epoch) -> f64;
    let panels: [(&str, &[(&str, EpochValue)]); 3] = [
        ("loss", &[("training", |e| e.train_loss), ("validation", |e| e.val_loss)]),
        (score_name, &[("training", |e| e.train_score), ("validation", |e| e.val_score)]),
        ("learning rate", &[("learning rate", |e| e.learning_rate)]),
    ];
    let last = epochs.last().map_or(1, |e| e.epoch) as f64;
    for (i, (title, lines)) in panels.into_iter().enumerate() {
        let x0 = left + i as f64 * (panel + gap);
        let finite = |value: &f64| value.is_finite();
        let values: Vec<f64> = lines.iter().flat_map(|(_, value)| epochs.iter().map(value)).filter(finite).collect();
        let max_value = if title == score_name { 1.0 } else { values.iter().copied().fold(1e-9, f64::max) };
        let marks = ticks(0.0, max_value, 5);
        let top_value = *marks.last().expect("ticks are never empty");
        let y = |value: f64| top + height * (1.0 - value / top_value);
        let x = |epoch: f64| x0 + panel * if last > 1.0 { (epoch - 1.0) / (last - 1.0) } else { 0.5 };
        drawing.text(x0, top - 38.0, 14.0, "ink", Anchor::Start, 0.0, title);
        for &mark in &marks {
            drawing.line((x0, y(mark)), (x0 + panel, y(mark)), "grid", 1.0, "");
            drawing.text(x0 - 7.0, y(mark), 11.0, "dim", Anchor::End, 0.0, &format_tick(mark));
        }
        for mark in ticks(1.0, last, 6).into_iter().filter(|m| m.fract() == 0.0 && (1.0..=last).contains(m)) {
            drawing.text(x(mark), top + height + 14.0, 11.0, "dim", Anchor::Middle, 0.0, &format_tick(mark));
        }
        drawing.text(x0 + panel / 2.0, top + height + 34.0, 12.0, "ink", Anchor::Middle, 0.0, "epoch");
        if let Some(best) = best {
            drawing.line((x(best as f64), top), (x(best as f64), top + height), "rule", 1.0, "3 3");
        }
        let mut legend = x0;
        for (k, (name, value)) in lines.iter().enumerate() {
            let points: Vec<(f64, f64)> =
                epochs.iter().filter(|e| finite(&value(e))).map(|e| (x(e.epoch as f64), y(value(e)))).collect();
            let dash = if k == 0 && lines.len() > 1 { "6 3" } else { "" };
            drawing.polyline(&points, PALETTE[k], dash);
            if lines.len() > 1 {
                drawing.polyline(&[(legend, top - 17.0), (legend + 22.0, top - 17.0)], PALETTE[k], dash);
                drawing.text(legend + 28.0, top - 17.0, 11.0, "ink", Anchor::Start, 0.0, name);
                legend += 44.0 + text_width(name, 11.0);
            }
        }
        if let (Some(best), true) = (best, lines.len() > 1) {
            drawing.text(x0 + panel, top - 17.0, 11.0, "dim", Anchor::End, 0.0, &format!("best: epoch {best}"));
        }
    }
    drawing.finish()
}

/// Plots a confusion matrix (C × C counts, rows: true classes) as a heat map. The color of a cell shows its fraction of the row.
pub fn confusion(title: &str, labels: &[String], counts: &[Vec<u64>]) -> String {
    let names: Vec<String> = labels.iter().map(|label| truncate(label, MAX_NAME_CHARS)).collect();
    let classes = labels.len();
    let cell = match classes {
        0..=6 => 52.0,
        7..=12 => 40.0,
        13..=20 => 32.0,
        21..=34 => 25.0,
        35..=60 => 16.0,
        _ => (1000.0 / classes as f64).max(4.0),
    };
    let (size, show_text) = (f64::clamp(cell * 0.42, 6.0, 12.0), cell >= 16.0);
    let longest = names.iter().map(|name| text_width(name, size)).fold(0.0, f64::max);
    let (left, top) = (longest + 52.0, 64.0);
    let side = cell * classes as f64;
    // Column names are rotated by 45°, so their extent is their length divided by √2.
    let (total_width, total_height) =
        ((left + side + 110.0).max(text_width(title, 14.0) + 24.0), top + side + longest * 0.72 + 48.0);
    let mut drawing = Drawing::new(total_width, total_height, title);
    drawing.text(12.0, 20.0, 14.0, "ink", Anchor::Start, 0.0, title);
    drawing.text(12.0, 40.0, 11.0, "dim", Anchor::Start, 0.0, "numbers: clips; color: fraction of the true class");
    for (row, counts) in counts.iter().enumerate() {
        let support: u64 = counts.iter().sum();
        let y = top + row as f64 * cell;
        if show_text {
            drawing.text(left - 6.0, y + cell / 2.0, size, "ink", Anchor::End, 0.0, &names[row]);
        }
        for (column, &count) in counts.iter().enumerate() {
            let share = if support == 0 { 0.0 } else { count as f64 / support as f64 };
            let (fill, ink) = viridis(share);
            let x = left + column as f64 * cell;
            let tooltip = format!("{} → {}: {count} of {support}", labels[row], labels[column]);
            drawing.rectangle(x, y, cell - 0.6, cell - 0.6, &fill, &tooltip);
            if show_text && count > 0 {
                let text = count.to_string();
                let fits = f64::min(size, (cell - 2.0) / (0.62 * text.len() as f64));
                drawing.label(x + cell / 2.0 - 0.3, y + cell / 2.0, (fits * 10.0).round() / 10.0, ink, &text);
            }
        }
    }
    for (column, name) in names.iter().enumerate().filter(|_| show_text) {
        let x = left + (column as f64 + 0.5) * cell;
        drawing.text(x + 2.0, top + side + 8.0, size, "ink", Anchor::End, -45.0, name);
    }
    drawing.text(14.0, top + side / 2.0, 12.0, "ink", Anchor::Middle, -90.0, "true class");
    drawing.text(left + side / 2.0, total_height - 14.0, 12.0, "ink", Anchor::Middle, 0.0, "predicted class");
    let (bar_x, bar_height) = (left + side + 26.0, side.min(220.0));
    for step in 0..44 {
        let share = step as f64 / 43.0;
        let y = top + bar_height * (1.0 - (step as f64 + 1.0) / 44.0);
        drawing.rectangle(bar_x, y, 14.0, bar_height / 44.0 + 0.5, &viridis(share).0, "");
    }
    for share in [0.0, 0.5, 1.0] {
        let y = top + bar_height * (1.0 - share);
        drawing.text(bar_x + 20.0, y, 11.0, "dim", Anchor::Start, 0.0, &format!("{:.0} %", 100.0 * share));
    }
    drawing.finish()
}

/// One row of a bar plot.
#[derive(Debug, Clone)]
pub struct Bar {
    /// Name to the left of the bars.
    pub name: String,
    /// Metrics with intervals; the same metrics in every row.
    pub values: Vec<MetricValue>,
}

/// Plots metrics with intervals as horizontal bars, and the constant baseline of the first metric as a dashed line.
pub fn bars(title: &str, rows: &[Bar], constant: Option<f64>) -> String {
    let names: Vec<String> = rows.iter().map(|row| truncate(&row.name, 64)).collect();
    let longest = names.iter().map(|name| text_width(name, 12.0)).fold(60.0, f64::max);
    let (left, top, span, row_height) = (longest + 24.0, 74.0, 420.0, 46.0);
    let bottom = top + row_height * rows.len() as f64;
    let mut drawing = Drawing::new(left + span + 170.0, bottom + 52.0, title);
    drawing.text(12.0, 20.0, 14.0, "ink", Anchor::Start, 0.0, title);
    let x = |value: f64| left + span * value;
    let mut legend = 12.0;
    let values = rows.first().map(|row| row.values.as_slice()).unwrap_or_default();
    for (k, name) in values.iter().map(|metric| metric.name.as_str()).enumerate() {
        drawing.rectangle(legend, 40.0, 12.0, 12.0, PALETTE[k], "");
        drawing.text(legend + 18.0, 46.0, 12.0, "ink", Anchor::Start, 0.0, name);
        legend += 36.0 + text_width(name, 12.0);
    }
    if let Some(constant) = constant {
        drawing.line((legend, 46.0), (legend + 22.0, 46.0), "rule", 1.5, "5 3");
        let metric = values.first().map_or("", |metric| metric.name.as_str());
        let text = format!("{metric} of the constant baseline, {:.1} %", 100.0 * constant);
        drawing.text(legend + 28.0, 46.0, 12.0, "ink", Anchor::Start, 0.0, &text);
    }
    for mark in ticks(0.0, 1.0, 5) {
        drawing.line((x(mark), top - 4.0), (x(mark), bottom), "grid", 1.0, "");
        drawing.text(x(mark), bottom + 16.0, 11.0, "dim", Anchor::Middle, 0.0, &format!("{:.0} %", 100.0 * mark));
    }
    for (i, row) in rows.iter().enumerate() {
        let y = top + i as f64 * row_height;
        drawing.text(left - 10.0, y + 19.0, 12.0, "ink", Anchor::End, 0.0, &names[i]);
        for (k, metric) in row.values.iter().enumerate() {
            let (value, interval) = (metric.value.unwrap_or(0.0), metric.interval);
            let y = y + 2.0 + 18.0 * k as f64;
            drawing.rectangle(x(0.0), y, (x(value) - x(0.0)).max(1.0), 15.0, PALETTE[k], "");
            let mut text = format!("{:.1} %", 100.0 * value);
            if let Some([low, high]) = interval {
                let middle = y + 7.5;
                drawing.line((x(low), middle), (x(high), middle), "rule", 1.4, "");
                for edge in [low, high] {
                    drawing.line((x(edge), middle - 4.0), (x(edge), middle + 4.0), "rule", 1.4, "");
                }
                text.push_str(&format!(" [{:.1}, {:.1}]", 100.0 * low, 100.0 * high));
            }
            drawing.text(x(1.0) + 14.0, y + 7.5, 11.0, "ink", Anchor::Start, 0.0, &text);
        }
    }
    if let Some(constant) = constant {
        drawing.line((x(constant), top - 4.0), (x(constant), bottom), "rule", 1.5, "5 3");
    }
    drawing.finish()
}

/// Plots points whose color and shape show the class (`None`: unlabeled). Up to 24 classes are distinguishable.
pub fn scatter(
    title: &str,
    axes: [&str; 2],
    points: &[(f64, f64)],
    class_of: &[Option<usize>],
    classes: &[String],
    ids: &[String],
) -> String {
    let names: Vec<String> = classes.iter().map(|name| truncate(name, MAX_NAME_CHARS)).collect();
    let longest = names.iter().map(|name| text_width(name, 11.0)).fold(text_width("unlabeled", 11.0), f64::max);
    let side = 520.0;
    let (left, top) = (64.0, 44.0);
    let per_column = 28;
    let columns = (classes.len() + 1).div_ceil(per_column);
    let total_width = left + side + 24.0 + columns as f64 * (longest + 30.0);
    let mut drawing = Drawing::new(total_width, top + side + 56.0, title);
    drawing.text(12.0, 20.0, 14.0, "ink", Anchor::Start, 0.0, title);
    let range = |values: &mut dyn Iterator<Item = f64>| {
        let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
        let pad = ((high - low) * 0.04).max(1e-9);
        (low - pad, high + pad)
    };
    let (x_low, x_high) = range(&mut points.iter().map(|p| p.0));
    let (y_low, y_high) = range(&mut points.iter().map(|p| p.1));
    let x = |value: f64| left + side * (value - x_low) / (x_high - x_low);
    let y = |value: f64| top + side * (1.0 - (value - y_low) / (y_high - y_low));
    for mark in ticks(x_low, x_high, 5).into_iter().filter(|m| (x_low..=x_high).contains(m)) {
        drawing.line((x(mark), top), (x(mark), top + side), "grid", 1.0, "");
        drawing.text(x(mark), top + side + 14.0, 11.0, "dim", Anchor::Middle, 0.0, &format_tick(mark));
    }
    for mark in ticks(y_low, y_high, 5).into_iter().filter(|m| (y_low..=y_high).contains(m)) {
        drawing.line((left, y(mark)), (left + side, y(mark)), "grid", 1.0, "");
        drawing.text(left - 6.0, y(mark), 11.0, "dim", Anchor::End, 0.0, &format_tick(mark));
    }
    drawing.text(left + side / 2.0, top + side + 38.0, 12.0, "ink", Anchor::Middle, 0.0, axes[0]);
    drawing.text(14.0, top + side / 2.0, 12.0, "ink", Anchor::Middle, -90.0, axes[1]);
    let marker_style = |class: Option<usize>| match class {
        Some(class) => (class / (PALETTE.len() - 1), PALETTE[class % (PALETTE.len() - 1)]),
        None => (4, PALETTE[PALETTE.len() - 1]),
    };
    for ((point, &class), id) in points.iter().zip(class_of).zip(ids) {
        let (shape, color) = marker_style(class);
        let tooltip = format!("{id}: {}", class.map_or("unlabeled", |class| classes[class].as_str()));
        drawing.marker(x(point.0), y(point.1), 8.0, shape, color, &tooltip);
    }
    let unlabeled = class_of.iter().any(Option::is_none);
    let entries = names.iter().enumerate().map(|(i, name)| (Some(i), name.as_str()));
    let entries = entries.chain(unlabeled.then_some((None, "unlabeled")));
    for (i, (class, name)) in entries.enumerate() {
        let (shape, color) = marker_style(class);
        let x = left + side + 24.0 + (i / per_column) as f64 * (longest + 30.0);
        let y = top + 8.0 + (i % per_column) as f64 * 19.0;
        drawing.marker(x, y, 9.0, shape, color, "");
        drawing.text(x + 12.0, y, 11.0, "ink", Anchor::Start, 0.0, name);
    }
    drawing.finish()
}

/// Plots counts per class as horizontal bars, stacked by `parts`; `counts` has shape (classes, parts).
pub fn counts(title: &str, labels: &[String], parts: &[String], counts: &[Vec<usize>]) -> String {
    let names: Vec<String> = labels.iter().map(|label| truncate(label, 32)).collect();
    let longest = names.iter().map(|name| text_width(name, 11.0)).fold(40.0, f64::max);
    let (left, top, span, row_height) = (longest + 24.0, 66.0, 440.0, 20.0);
    let bottom = top + row_height * labels.len() as f64;
    let max_count = counts.iter().map(|row| row.iter().sum::<usize>()).max().unwrap_or(0).max(1);
    let marks: Vec<f64> = ticks(0.0, max_count as f64, 5).into_iter().filter(|mark| mark.fract() == 0.0).collect();
    let last = marks.last().copied().unwrap_or(1.0).max(max_count as f64);
    let x = |value: f64| left + span * value / last;
    let mut drawing = Drawing::new(left + span + 80.0, bottom + 40.0, title);
    drawing.text(12.0, 20.0, 14.0, "ink", Anchor::Start, 0.0, title);
    let mut legend = 12.0;
    for (k, part) in parts.iter().enumerate().filter(|_| parts.len() > 1) {
        drawing.rectangle(legend, 38.0, 12.0, 12.0, PALETTE[k % PALETTE.len()], "");
        drawing.text(legend + 18.0, 44.0, 11.0, "ink", Anchor::Start, 0.0, part);
        legend += 36.0 + text_width(part, 11.0);
    }
    for mark in marks {
        drawing.line((x(mark), top - 4.0), (x(mark), bottom), "grid", 1.0, "");
        drawing.text(x(mark), bottom + 14.0, 11.0, "dim", Anchor::Middle, 0.0, &format_tick(mark));
    }
    for (i, row) in counts.iter().enumerate() {
        let y = top + i as f64 * row_height;
        drawing.text(left - 8.0, y + 8.0, 11.0, "ink", Anchor::End, 0.0, &names[i]);
        let mut cumulative = 0;
        for (k, &count) in row.iter().enumerate().filter(|&(_, &count)| count > 0) {
            let tooltip = format!("{}, {}: {count}", labels[i], parts[k]);
            let (from, to) = (x(cumulative as f64), x((cumulative + count) as f64));
            drawing.rectangle(from, y, to - from, 15.0, PALETTE[k % PALETTE.len()], &tooltip);
            cumulative += count;
        }
        drawing.text(x(cumulative as f64) + 6.0, y + 8.0, 11.0, "ink", Anchor::Start, 0.0, &cumulative.to_string());
    }
    drawing.finish()
}
