//! Plots of models by year: metrics over the years, and the scores of one poster.

use super::svg::{Anchor, Drawing, PALETTE, text_width, ticks, truncate, viridis};

/// Number of panels per row.
const COLUMNS: usize = 3;

/// One metric over the years.
#[derive(Debug, Clone)]
pub struct Panel {
    /// Name of the metric.
    pub name: String,
    /// Values of each line, one per year; `None` if the year has no value.
    pub lines: Vec<Vec<Option<f64>>>,
}

/// Plots metrics over the years, one panel per metric. `lines` contains the names of the lines, which are the same in all panels.
pub fn over_years(title: &str, years: &[i32], lines: &[&str], panels: &[Panel]) -> String {
    let (panel, height, left, top, gap) = (270.0, 170.0, 52.0, 92.0, 62.0);
    let rows = panels.len().div_ceil(COLUMNS);
    let columns = panels.len().min(COLUMNS);
    let step = height + 74.0;
    let total_width = (left + columns as f64 * (panel + gap)).max(text_width(title, 14.0) + 24.0);
    let mut drawing = Drawing::new(total_width, top + rows as f64 * step, title);
    drawing.text(12.0, 20.0, 14.0, "ink", Anchor::Start, 0.0, title);
    let styles = [("", 0), ("6 3", 4), ("2 3", 2)];
    let mut legend = 12.0;
    for (k, name) in lines.iter().enumerate() {
        let (dash, shape) = styles[k % styles.len()];
        drawing.polyline(&[(legend, 44.0), (legend + 26.0, 44.0)], PALETTE[k % PALETTE.len()], dash);
        drawing.marker(legend + 13.0, 44.0, 7.0, shape, PALETTE[k % PALETTE.len()], "");
        drawing.text(legend + 34.0, 44.0, 11.0, "ink", Anchor::Start, 0.0, name);
        legend += 52.0 + text_width(name, 11.0);
    }
    let (first, last) = (years.first().copied().unwrap_or(0), years.last().copied().unwrap_or(0));
    let year_step = ((last - first + 1) as f64 / 6.0).ceil().max(1.0) as i32;
    for (i, Panel { name, lines: values }) in panels.iter().enumerate() {
        let x0 = left + (i % COLUMNS) as f64 * (panel + gap);
        let y0 = top + (i / COLUMNS) as f64 * step;
        let x =
            |year: i32| x0 + panel * if last > first { f64::from(year - first) / f64::from(last - first) } else { 0.5 };
        let y = |share: f64| y0 + height * (1.0 - share);
        drawing.text(x0, y0 - 16.0, 12.0, "ink", Anchor::Start, 0.0, name);
        for mark in ticks(0.0, 1.0, 5) {
            drawing.line((x0, y(mark)), (x0 + panel, y(mark)), "grid", 1.0, "");
            let text = format!("{:.0} %", 100.0 * mark);
            drawing.text(x0 - 7.0, y(mark), 10.0, "dim", Anchor::End, 0.0, &text);
        }
        for year in (first..=last).filter(|year| (year - first) % year_step == 0) {
            drawing.text(x(year), y0 + height + 14.0, 10.0, "dim", Anchor::Middle, 0.0, &year.to_string());
        }
        for (k, values) in values.iter().enumerate().rev() {
            let (dash, shape) = styles[k % styles.len()];
            let color = PALETTE[k % PALETTE.len()];
            // A missing value interrupts the line.
            let mut segment: Vec<(f64, f64)> = Vec::new();
            for (&year, value) in years.iter().zip(values).chain([(&last, &None)]) {
                match value {
                    Some(value) => segment.push((x(year), y(*value))),
                    None if segment.len() > 1 => drawing.polyline(&std::mem::take(&mut segment), color, dash),
                    None => segment.clear(),
                }
            }
            for (&year, value) in years.iter().zip(values) {
                if let Some(value) = value {
                    let tooltip = format!("{year}, {}: {:.1} %", lines[k], 100.0 * value);
                    drawing.marker(x(year), y(*value), 6.0, shape, color, &tooltip);
                }
            }
        }
    }
    drawing.finish()
}

/// Plots the scores of one poster, in [0, 1], as a heat map of models (rows) and labels (columns), and marks its true labels.
pub fn heat_map(title: &str, rows: &[(String, Vec<f32>)], labels: &[String], has_label: &[bool]) -> String {
    let names: Vec<String> = labels
        .iter()
        .zip(has_label)
        .map(|(label, &has_label)| {
            let name = truncate(label, 22);
            if has_label { format!("{name} ●") } else { name }
        })
        .collect();
    let cell = (1000.0 / labels.len().max(1) as f64).clamp(30.0, 56.0);
    let row_height = 24.0;
    let longest = names.iter().map(|name| text_width(name, 11.0)).fold(0.0, f64::max);
    let widest = rows.iter().map(|(name, _)| text_width(name, 11.0)).fold(30.0, f64::max);
    let (left, top) = (widest.max(longest * 0.72 - cell / 2.0) + 24.0, 62.0);
    let legend = "score of each model in percent, from 0 (purple) to 100 (yellow); ● true label of the poster";
    let total_width =
        (left + cell * labels.len() as f64).max(text_width(title, 14.0)).max(text_width(legend, 11.0)) + 24.0;
    let bottom = top + row_height * rows.len() as f64;
    let mut drawing = Drawing::new(total_width, bottom + longest * 0.72 + 30.0, title);
    drawing.text(12.0, 20.0, 14.0, "ink", Anchor::Start, 0.0, title);
    drawing.text(12.0, 40.0, 11.0, "dim", Anchor::Start, 0.0, legend);
    for (r, (name, scores)) in rows.iter().enumerate() {
        let y = top + row_height * r as f64;
        drawing.text(left - 8.0, y + row_height / 2.0, 11.0, "ink", Anchor::End, 0.0, name);
        for (c, &score) in scores.iter().enumerate() {
            let (fill, ink) = viridis(f64::from(score));
            let x = left + cell * c as f64;
            let tooltip = format!("{name}, {}: {:.3}", labels[c], score);
            drawing.rectangle(x, y, cell - 0.8, row_height - 0.8, &fill, &tooltip);
            drawing.label(x + cell / 2.0, y + row_height / 2.0, 11.0, ink, &format!("{:.0}", 100.0 * score));
        }
    }
    for (c, name) in names.iter().enumerate() {
        drawing.text(left + (c as f64 + 0.5) * cell + 2.0, bottom + 10.0, 11.0, "ink", Anchor::End, -45.0, name);
    }
    drawing.finish()
}
