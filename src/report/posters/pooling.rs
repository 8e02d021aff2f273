//! The section on models of years that are corrections of the model of all years.

use std::collections::BTreeMap;

use crate::evaluate::significance::{compare_paired, holm};
use crate::evaluate::{Predictions, compute_metrics};
use crate::manifest::Split;
use crate::report::markdown::{cell, with_interval};
use crate::report::table::Table;

/// The choice of pooled models, and the models that they are compared with.
#[derive(Debug, Clone)]
pub struct Pooling {
    /// Strengths λ in ascending order (∞: the model of all years), with the mean cross-entropy of a validation clip and a label.
    pub losses: Vec<(f64, f64)>,
    /// The chosen strength.
    pub strength: f64,
    /// Years whose validation clips do not prefer a correction with this strength.
    pub uncorrected: Vec<i32>,
    /// Years with too few clips for a correction, with the reason.
    pub few: Vec<(i32, String)>,
    /// Ways of training on the years; the first is the pooled one. All predict the same clips.
    pub variants: Vec<Variant>,
}

/// One way of training on the years.
#[derive(Debug, Clone)]
pub struct Variant {
    /// Display name.
    pub name: String,
    /// Predictions of the held-out clips of all years with enough clips.
    pub predictions: BTreeMap<Split, Predictions>,
    /// Seconds that training took, if it was trained for the comparison only.
    pub seconds: Option<f64>,
}

impl Pooling {
    /// Returns the text of the section. `part` is the name of the reported split.
    pub(super) fn paragraphs(&self, part: &str) -> Vec<String> {
        let list = |years: &[i32]| years.iter().map(i32::to_string).collect::<Vec<_>>().join(", ");
        let mut paragraphs = vec![format!(
            "The model of a year is the model of all years with another output layer (W, b), which minimizes the summed cross-entropy of \
             the year's training clips + λ/2 · ‖(W, b) − (W, b of all years)‖². The strength λ is the same for all years: {}, with the \
             lowest cross-entropy on their validation clips (ties: the highest). It is not chosen for each year, because a year has \
             few validation clips; but a year keeps the model of all years unless the correction lowers the cross-entropy on its own \
             validation clips. So on validation clips, the models of the years are at least as good as the model of all years by \
             this measure.",
            strength(self.strength)
        )];
        if self.strength.is_infinite() {
            paragraphs.push("No correction lowers it: all years have the model of all years.".into());
        } else if !self.uncorrected.is_empty() {
            paragraphs.push(format!("Years that keep the model of all years: {}.", list(&self.uncorrected)));
        }
        if !self.few.is_empty() {
            let years: Vec<String> = self.few.iter().map(|(year, reason)| format!("{year} ({reason})")).collect();
            paragraphs.push(format!(
                "Years with the model of all years, because they have too few clips: {}. Their training clips are those of all years.",
                years.join("; ")
            ));
        }
        let clips = self.variants[0].predictions.values().map(Predictions::len).max().unwrap_or(0);
        paragraphs.push(format!(
            "The second table compares ways of training on the {part} clips of the years with enough clips (at most {clips} per split), with \
             95 % intervals; the differences are paired, p-values are those of the bootstrap, corrected by Holm's method. The models of \
             the last two rows were trained for this comparison and are not saved. Metrics over all these clips rank the clips of \
             different years together."
        ));
        paragraphs
    }

    /// Returns the tables of the section with their captions.
    pub(super) fn tables(&self, part: &str) -> Vec<(String, Table)> {
        let mut losses = Table::new(&["λ", "cross-entropy"], 0);
        losses.rows = self.losses.iter().map(|(s, loss)| vec![strength(*s), format!("{loss:.4}")]).collect();
        losses.best = self.losses.iter().position(|(s, _)| *s == self.strength);
        let split = [Split::Train, Split::Val, Split::Test].into_iter().find(|split| split.name() == part);
        let comparison = split.and_then(|split| self.comparison(split));
        [("Mean cross-entropy of a validation clip and a label:", Some(losses)), ("Ways of training:", comparison)]
            .into_iter()
            .filter_map(|(caption, table)| Some((caption.into(), table?)))
            .collect()
    }

    /// Compares the pooled models with the other variants; `None` without predictions of the split.
    fn comparison(&self, split: Split) -> Option<Table> {
        let pooled = self.variants[0].predictions.get(&split)?;
        let paired: Vec<_> = self
            .variants
            .iter()
            .skip(1)
            .map(|variant| {
                let compared = compare_paired(pooled, variant.predictions.get(&split)?).ok()?;
                compared.into_iter().find(|compared| compared.measure == "map")
            })
            .collect();
        let mut adjusted = holm(&paired.iter().flatten().map(|pair| pair.p).collect::<Vec<_>>()).into_iter();
        let mut table = Table::new(&["training", "mAP", "pooled minus it", "p (Holm)", "micro F1", "seconds"], 1);
        for (variant, paired) in self.variants.iter().zip(std::iter::once(None).chain(paired)) {
            let metrics =
                variant.predictions.get(&split).map(|part| compute_metrics(part).values()).unwrap_or_default();
            let metric = |key: &str| metrics.iter().find(|metric| metric.key == key).map_or("–".into(), cell);
            let (difference, p) = match paired {
                Some(pair) => (
                    with_interval(pair.difference, pair.difference_interval),
                    adjusted.next().map_or("–".into(), |p| format!("{p:.4}")),
                ),
                None => ("–".into(), "–".into()),
            };
            let seconds = variant.seconds.map_or("–".into(), |seconds| format!("{seconds:.1}"));
            table.rows.push(vec![variant.name.clone(), metric("map"), difference, p, metric("micro_f1"), seconds]);
        }
        Some(table.without_empty_columns())
    }
}

fn strength(strength: f64) -> String {
    if strength.is_infinite() { "∞ (model of all years)".into() } else { strength.to_string() }
}
