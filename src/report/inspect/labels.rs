//! Labels of a manifest: co-occurrence, imbalance, class weights and resampling.

use crate::manifest::imbalance::{
    self, Resampled, Weighting, class_weights, effective_classes, imbalance_ratio, mean_imbalance_ratio,
};
use crate::manifest::{Clip, Manifest, Split};
use crate::report::svg::{Anchor, Drawing, text_width, truncate, viridis};
use crate::report::table::Table;

/// Minimum and maximum frequency of a label set after resampling, for the preview.
const RESAMPLED_FREQUENCIES: (f64, f64) = (0.01, 0.04);

/// Label sets of clips.
pub(super) struct LabelSets {
    /// Label indices of each labeled clip.
    pub sets: Vec<Vec<usize>>,
    /// Number of clips of each label.
    pub counts: Vec<usize>,
}

impl LabelSets {
    /// Returns the label sets of the labeled clips that satisfy `predicate`.
    pub fn of(manifest: &Manifest, classes: &[String], predicate: impl Fn(&Clip) -> bool) -> LabelSets {
        let index =
            |label: &String| classes.iter().position(|class| class == label).expect("classes contain every label");
        let labeled = manifest.clips.iter().filter(|clip| !clip.labels.is_empty() && predicate(clip));
        let sets: Vec<Vec<usize>> = labeled.map(|clip| clip.labels.iter().map(index).collect()).collect();
        let mut counts = vec![0; classes.len()];
        sets.iter().flatten().for_each(|&label| counts[label] += 1);
        LabelSets { sets, counts }
    }

    /// Returns a table row: labeled clips, labels per clip, distinct label sets and measures of imbalance.
    fn row(&self, name: &str) -> Vec<String> {
        let clips = self.sets.len();
        let labels: usize = self.counts.iter().sum();
        let mut distinct: Vec<Vec<usize>> = self.sets.clone();
        distinct.iter_mut().for_each(|set| set.sort_unstable());
        distinct.sort();
        distinct.dedup();
        vec![
            name.to_string(),
            clips.to_string(),
            format!("{:.2}", labels as f64 / clips.max(1) as f64),
            distinct.len().to_string(),
            format!("{:.1}", imbalance_ratio(&self.counts)),
            if labels == 0 { "–".into() } else { format!("{:.2}", mean_imbalance_ratio(&self.counts)) },
            format!("{:.1}", effective_classes(&self.counts)),
        ]
    }
}

/// Returns labeled clips, labels per clip, label sets and imbalance of each split and of all clips.
pub(super) fn balance(manifest: &Manifest, classes: &[String], splits: &[Option<Split>]) -> Table {
    let header = ["split", "labeled", "labels/clip", "label sets", "max/min", "mean max/n", "effective labels"];
    let mut table = Table::new(&header, 1);
    for &split in splits.iter().filter(|_| splits.len() > 1) {
        let sets = LabelSets::of(manifest, classes, |clip| clip.split == split);
        table.rows.push(sets.row(split.map_or("no split", Split::name)));
    }
    table.rows.push(LabelSets::of(manifest, classes, |_| true).row("all"));
    table
}

/// Returns the weights of each class by the formulas of [`Weighting`].
pub(super) fn weights(classes: &[String], training: &LabelSets) -> Table {
    let formulas = [
        ("balanced", Weighting::Balanced),
        ("square_root", Weighting::SquareRoot),
        ("negative_to_positive", Weighting::NegativeToPositive),
        ("effective_number_0.999", Weighting::EffectiveNumber { beta: 0.999 }),
    ];
    let mut header = vec!["class", "clips", "share"];
    header.extend(formulas.map(|(name, _)| name));
    let mut table = Table::new(&header, 1);
    let clips = training.sets.len();
    let columns = formulas.map(|(_, weighting)| class_weights(&training.counts, clips, weighting));
    for (i, class) in classes.iter().enumerate() {
        let count = training.counts[i];
        let mut row = vec![class.clone(), count.to_string(), format!("{:.4}", count as f64 / clips.max(1) as f64)];
        row.extend(columns.iter().map(|weights| format!("{:.4}", weights[i])));
        table.rows.push(row);
    }
    table
}

/// Returns the number of clips with each pair of labels, shape (classes, classes), symmetric; the diagonal contains the number
/// of clips of each label.
pub(super) fn cooccurrence(sets: &LabelSets) -> Vec<Vec<usize>> {
    let classes = sets.counts.len();
    let mut counts = vec![vec![0; classes]; classes];
    for set in &sets.sets {
        for &a in set {
            set.iter().for_each(|&b| counts[a][b] += 1);
        }
    }
    counts
}

/// Returns the co-occurrence matrix as a table.
pub(super) fn cooccurrence_table(classes: &[String], counts: &[Vec<usize>]) -> Table {
    let mut header = vec!["class"];
    header.extend(classes.iter().map(String::as_str));
    let mut table = Table::new(&header, 1);
    table.rows = classes
        .iter()
        .zip(counts)
        .map(|(class, row)| std::iter::once(class.clone()).chain(row.iter().map(usize::to_string)).collect())
        .collect();
    table
}

/// Returns lines with the most frequent pairs of labels and the ratio of their frequency to that of independent labels.
pub(super) fn most_frequent_pairs(
    classes: &[String],
    counts: &[Vec<usize>],
    clips: usize,
    limit: usize,
) -> Vec<String> {
    let mut pairs: Vec<(usize, usize)> = (0..classes.len()).flat_map(|a| (0..a).map(move |b| (b, a))).collect();
    pairs.retain(|&(a, b)| counts[a][b] > 0);
    pairs.sort_by_key(|&(a, b)| std::cmp::Reverse(counts[a][b]));
    pairs.truncate(limit);
    let format_pair = |&(a, b): &(usize, usize)| {
        let expected = counts[a][a] as f64 * counts[b][b] as f64 / clips as f64;
        let both = counts[a][b];
        format!("{} + {}: {both} clips, {:.2} × expected", classes[a], classes[b], both as f64 / expected)
    };
    pairs.iter().map(format_pair).collect()
}

/// Resamples the training clips by label set.
pub(super) fn resampling_preview(training: &LabelSets) -> Resampled {
    imbalance::resample_by_label_set(&training.sets, RESAMPLED_FREQUENCIES.0, RESAMPLED_FREQUENCIES.1, 0)
}

/// Returns the number of clips of each label set before and after resampling, the most frequent first.
pub fn label_set_table(resampled: &Resampled, classes: &[String]) -> Table {
    let all = |of: fn(&imbalance::LabelSetSize) -> usize| resampled.label_sets.iter().map(of).sum::<usize>();
    let (before, after) = (all(|class| class.before), all(|class| class.after));
    let share = |count: usize, total: usize| format!("{:.2} %", 100.0 * count as f64 / total.max(1) as f64);
    let mut table = Table::new(&["labels", "before", "share", "after", "share"], 1);
    for class in &resampled.label_sets {
        let names: Vec<&str> = class.labels.iter().map(|&label| classes[label].as_str()).collect();
        table.rows.push(vec![
            names.join("|"),
            class.before.to_string(),
            share(class.before, before),
            class.after.to_string(),
            share(class.after, after),
        ]);
    }
    table
}

/// Plots label co-occurrence as a heat map: the number of clips with both labels, colored by the fraction of the row's clips that
/// have the column's label.
pub(super) fn cooccurrence_plot(title: &str, labels: &[String], counts: &[Vec<usize>]) -> String {
    let names: Vec<String> = labels.iter().map(|label| truncate(label, 22)).collect();
    let cell = (900.0 / labels.len().max(1) as f64).clamp(6.0, 40.0);
    let (size, show_text) = (f64::clamp(cell * 0.42, 5.0, 12.0), cell >= 14.0);
    let longest = names.iter().map(|name| text_width(name, size)).fold(0.0, f64::max);
    let (left, top, side) = (longest + 24.0, 64.0, cell * labels.len() as f64);
    let total_width = (left + side + 90.0).max(text_width(title, 14.0) + 24.0).max(430.0);
    let mut drawing = Drawing::new(total_width, top + side + longest * 0.72 + 30.0, title);
    drawing.text(12.0, 20.0, 14.0, "ink", Anchor::Start, 0.0, title);
    let legend = "numbers: clips with both labels; color: fraction of the row's clips with the column's label";
    drawing.text(12.0, 40.0, 11.0, "dim", Anchor::Start, 0.0, legend);
    for (a, row) in counts.iter().enumerate() {
        let y = top + a as f64 * cell;
        if show_text {
            drawing.text(left - 6.0, y + cell / 2.0, size, "ink", Anchor::End, 0.0, &names[a]);
        }
        for (b, &both) in row.iter().enumerate() {
            let (fill, ink) = viridis(both as f64 / row[a].max(1) as f64);
            let x = left + b as f64 * cell;
            let tooltip = format!("{} and {}: {both} of {}", labels[a], labels[b], row[a]);
            drawing.rectangle(x, y, cell - 0.6, cell - 0.6, &fill, &tooltip);
            if show_text && both > 0 {
                let text = both.to_string();
                let fits = f64::min(size, (cell - 2.0) / (0.62 * text.len() as f64));
                drawing.label(x + cell / 2.0 - 0.3, y + cell / 2.0, (fits * 10.0).round() / 10.0, ink, &text);
            }
        }
    }
    for (b, name) in names.iter().enumerate().filter(|_| show_text) {
        let x = left + (b as f64 + 0.5) * cell;
        drawing.text(x + 2.0, top + side + 8.0, size, "ink", Anchor::End, -45.0, name);
    }
    drawing.finish()
}

/// Returns a histogram of frames per clip: names of the bins and number of clips in each.
pub(super) fn frame_bins(frames: &[usize]) -> (Vec<String>, Vec<Vec<usize>>) {
    let (Some(&least), Some(&most)) = (frames.iter().min(), frames.iter().max()) else { return Default::default() };
    let width = (most - least + 1).div_ceil(20).max(1);
    let bins = (most - least) / width + 1;
    let mut counts = vec![vec![0]; bins];
    frames.iter().for_each(|frames| counts[(frames - least) / width][0] += 1);
    let name = |bin: usize| match (least + bin * width, width) {
        (from, 1) => from.to_string(),
        (from, _) => format!("{from}–{}", from + width - 1),
    };
    ((0..bins).map(name).collect(), counts)
}
