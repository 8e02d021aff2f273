//! Plots of scores over time.

use super::svg::{Anchor, Drawing, PALETTE, format_tick, text_width, ticks, truncate};

/// Maximum number of clips in a plot.
pub const MAX_CLIPS: usize = 40;
/// Maximum number of classes in a plot: those with the highest mean score.
const MAX_CLASSES: usize = PALETTE.len() - 1;

/// The scores of a clip over time.
#[derive(Debug, Clone, PartialEq)]
pub struct Track {
    /// Name of the clip.
    pub name: String,
    /// Start and end of each row in seconds.
    pub periods: Vec<(f64, f64)>,
    /// Scores of the classes of each row, in [0, 1].
    pub scores: Vec<Vec<f32>>,
}

/// Plots the scores of the first [`MAX_CLIPS`] clips over time, one panel per clip, for the classes with the highest mean score.
pub fn plot(title: &str, tracks: &[Track], classes: &[String]) -> String {
    let shown = &tracks[..tracks.len().min(MAX_CLIPS)];
    let chosen = highest_classes(shown, classes.len());
    let (left, top, width, height, step) = (56.0_f64, 84.0, 760.0, 110.0, 168.0);
    let names: Vec<String> = chosen.iter().map(|&class| truncate(&classes[class], 22)).collect();
    let legend_width: f64 = names.iter().map(|name| 52.0 + text_width(name, 11.0)).sum();
    let total_width = (left + width + 24.0).max(legend_width + 24.0);
    let mut drawing = Drawing::new(total_width, top + step * shown.len().max(1) as f64, title);
    drawing.text(12.0, 20.0, 14.0, "ink", Anchor::Start, 0.0, title);
    let mut note = match chosen.len() < classes.len() {
        true => format!("the {} of {} classes with the highest mean score", chosen.len(), classes.len()),
        false => "score of each class".into(),
    };
    if shown.len() < tracks.len() {
        note += &format!("; the first {} of {} clips", shown.len(), tracks.len());
    }
    drawing.text(text_width(title, 14.0) + 28.0, 20.0, 11.0, "dim", Anchor::Start, 0.0, &note);
    let mut legend = 12.0;
    for (k, name) in names.iter().enumerate() {
        drawing.polyline(&[(legend, 46.0), (legend + 26.0, 46.0)], PALETTE[k], "");
        drawing.text(legend + 34.0, 46.0, 11.0, "ink", Anchor::Start, 0.0, name);
        legend += 52.0 + text_width(name, 11.0);
    }
    for (i, track) in shown.iter().enumerate() {
        let y0 = top + step * i as f64;
        let end = track.periods.iter().map(|period| period.1).fold(0.0, f64::max).max(1e-3);
        let x = |seconds: f64| left + width * seconds / end;
        let y = |score: f64| y0 + height * (1.0 - score);
        drawing.text(left, y0 - 14.0, 12.0, "ink", Anchor::Start, 0.0, &truncate(&track.name, 100));
        for mark in ticks(0.0, 1.0, 2) {
            drawing.line((left, y(mark)), (left + width, y(mark)), "grid", 1.0, "");
            drawing.text(left - 7.0, y(mark), 10.0, "dim", Anchor::End, 0.0, &format_tick(mark));
        }
        for mark in ticks(0.0, end, 8).into_iter().filter(|mark| *mark <= end) {
            drawing.text(
                x(mark),
                y0 + height + 12.0,
                10.0,
                "dim",
                Anchor::Middle,
                0.0,
                &format!("{} s", format_tick(mark)),
            );
        }
        for (k, &class) in chosen.iter().enumerate() {
            let middle = |&(start, end): &(f64, f64)| (start + end) / 2.0;
            let points = track.periods.iter().zip(&track.scores);
            let points: Vec<(f64, f64)> =
                points.map(|(period, scores)| (x(middle(period)), y(f64::from(scores[class])))).collect();
            drawing.polyline(&points, PALETTE[k], "");
            for ((point, (start, end)), scores) in points.iter().zip(&track.periods).zip(&track.scores) {
                let tooltip = format!("{}, {start:.2} to {end:.2} s: {:.3}", classes[class], scores[class]);
                drawing.marker(point.0, point.1, 6.0, 0, PALETTE[k], &tooltip);
            }
        }
    }
    drawing.finish()
}

/// Returns the classes with the highest mean score, in their order.
fn highest_classes(tracks: &[Track], classes: usize) -> Vec<usize> {
    let mut means = vec![0.0; classes];
    for scores in tracks.iter().flat_map(|track| &track.scores) {
        means.iter_mut().zip(scores).for_each(|(sum, &score)| *sum += f64::from(score));
    }
    let mut order: Vec<usize> = (0..classes).collect();
    order.sort_by(|&a, &b| means[b].total_cmp(&means[a]).then(a.cmp(&b)));
    order.truncate(MAX_CLASSES);
    order.sort_unstable();
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_with_the_highest_scores_are_plotted() {
        let scores = |_| (0..9).map(|class| class as f32 / 10.0).collect();
        let track = Track {
            name: "a <b>".into(),
            periods: (0..3).map(|row| (f64::from(row), f64::from(row) + 0.5)).collect(),
            scores: (0..3).map(scores).collect(),
        };
        assert_eq!(highest_classes(std::slice::from_ref(&track), 9), [3, 4, 5, 6, 7, 8]);
        let classes: Vec<String> = (0..9).map(|class| format!("class{class}")).collect();
        let svg = plot("Scores", &vec![track; MAX_CLIPS + 1], &classes);
        for part in ["a &lt;b&gt;", "class3, 0.00 to 0.50 s: 0.300", "the 6 of 9 classes", "the first 40 of 41 clips"] {
            assert!(svg.contains(part), "{part}");
        }
        assert!(!svg.contains("class2") && svg.matches("<circle").count() == MAX_CLIPS * 3 * 6);
        assert!(plot("Scores", &[], &classes).starts_with("<svg"));
    }
}
