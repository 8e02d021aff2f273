//! The metrics of a part of the data, whatever the task: what tables, plots and comparisons read.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::multi_label::{self, MultiLabel, Thresholds};
use super::significance::{self, Interval, Intervals};
use super::single_label::{self, SingleLabel};
use super::{Predictions, Score};
use crate::dataset::Task;

/// The metrics of one part; in JSON, the object of its task.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Measured {
    /// One label a clip.
    Single(Box<SingleLabel>),
    /// Any number of labels a clip.
    Multi(Box<MultiLabel>),
}

/// How a number is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// In [0, 1], shown as a percentage.
    Share,
    /// Shown as it is.
    Plain,
}

/// One number of a part, with its names.
#[derive(Debug, Clone, PartialEq)]
pub struct Number {
    /// Its name in CSV files and intervals.
    pub key: String,
    /// Its name in tables.
    pub name: String,
    /// How it is to be read.
    pub scale: Scale,
    /// The number; absent where it has no meaning, such as a ranking without scores.
    pub value: Option<f64>,
    /// Its bootstrap interval, where it has one.
    pub interval: Option<Interval>,
}

/// One class of a part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassScores<'a> {
    /// Its name.
    pub label: &'a str,
    /// Precision, where it has a meaning.
    pub precision: Option<f64>,
    /// Recall, likewise.
    pub recall: Option<f64>,
    /// F1, likewise.
    pub f1: Option<f64>,
    /// Average precision, where there are scores to rank by.
    pub average_precision: Option<f64>,
    /// Clips of the class.
    pub support: u64,
}

/// Measures one part of the data.
pub fn measure(predictions: &Predictions) -> Measured {
    match predictions.task {
        Task::SingleLabel => Measured::Single(Box::new(single_label::measure(predictions))),
        Task::MultiLabel => Measured::Multi(Box::new(multi_label::measure(predictions))),
    }
}

/// Measures all parts, with intervals. The thresholds of multi-label predictions are tuned on the part `val` and then
/// applied to every other part; without it, there are none.
pub fn measure_parts<P: Ord + Copy>(parts: &BTreeMap<P, Predictions>, val: P) -> BTreeMap<P, Measured> {
    let tuned = parts.get(&val).and_then(Thresholds::tune);
    let measure_part = |(&part, predictions): (&P, &Predictions)| {
        let mut measured = measure(predictions);
        let interval = significance::intervals(predictions);
        match &mut measured {
            Measured::Single(metrics) => metrics.interval = interval,
            Measured::Multi(metrics) => {
                metrics.interval = interval;
                let others = tuned.as_ref().filter(|_| part != val);
                metrics.thresholds = others.and_then(|tuned| tuned.apply(predictions));
            }
        }
        (part, measured)
    };
    parts.iter().map(measure_part).collect()
}

impl Measured {
    /// Labeled clips.
    pub fn n(&self) -> usize {
        match self {
            Self::Single(metrics) => metrics.n,
            Self::Multi(metrics) => metrics.n,
        }
    }

    /// Class names, C of them.
    pub fn labels(&self) -> Vec<&str> {
        self.classes().iter().map(|class| class.label).collect()
    }

    /// The bootstrap intervals, and how they were drawn, where there are any.
    pub fn intervals(&self) -> Option<&Intervals> {
        match self {
            Self::Single(metrics) => metrics.interval.as_ref(),
            Self::Multi(metrics) => metrics.interval.as_ref(),
        }
    }

    /// The numbers of a row, those that stand for the rest first (see [`Measured::headlines`]).
    pub fn numbers(&self) -> Vec<Number> {
        let number = |(key, name, scale, value): (&str, &str, Scale, Option<f64>)| Number {
            key: key.into(),
            name: name.into(),
            scale,
            value,
            interval: self.intervals().and_then(|intervals| intervals.of.get(key)).copied(),
        };
        use Scale::{Plain, Share};
        match self {
            Self::Single(m) => [
                ("accuracy", "accuracy", Share, Some(m.accuracy)),
                ("macro_f1", "macro F1", Share, Some(m.macro_.f1)),
                ("macro_precision", "macro precision", Share, Some(m.macro_.precision)),
                ("macro_recall", "macro recall", Share, Some(m.macro_.recall)),
                ("weighted_f1", "weighted F1", Share, Some(m.weighted.f1)),
                ("top_3", "top-3", Share, m.top_k.get(&3).copied()),
                ("top_5", "top-5", Share, m.top_k.get(&5).copied()),
                ("expected_calibration_error", "calibration error", Plain, m.expected_calibration_error),
            ]
            .map(number)
            .to_vec(),
            Self::Multi(m) => [
                ("map", "mAP", Share, m.map.macro_),
                ("micro_f1", "micro F1", Share, Some(m.averages.micro.f1)),
                ("macro_f1", "macro F1", Share, Some(m.averages.macro_.f1)),
                ("weighted_f1", "weighted F1", Share, Some(m.averages.weighted.f1)),
                ("samples_f1", "samples F1", Share, Some(m.averages.samples.f1)),
                ("map_micro", "mAP micro", Share, m.map.micro),
                ("map_weighted", "mAP weighted", Share, m.map.weighted),
                ("map_samples", "mAP samples", Share, m.map.samples),
                ("r_precision", "R-precision", Share, m.r_precision),
                ("top_1", "top-1", Share, m.top_k.get(&1).copied()),
                ("top_3", "top-3", Share, m.top_k.get(&3).copied()),
                ("top_5", "top-5", Share, m.top_k.get(&5).copied()),
                ("exact_match", "exact match", Share, Some(m.exact_match)),
                ("binary_accuracy", "binary accuracy", Share, Some(m.binary_accuracy)),
                ("hamming_loss", "Hamming loss", Plain, Some(m.hamming_loss)),
                ("ranking_loss", "ranking loss", Plain, m.ranking_loss),
                ("coverage_error", "coverage error", Plain, m.coverage_error),
                ("label_ranking_average_precision", "label-ranking AP", Share, m.label_ranking_average_precision),
            ]
            .map(number)
            .to_vec(),
        }
    }

    /// The number called `key`, where it has a value.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.numbers().into_iter().find(|number| number.key == key)?.value
    }

    /// The two numbers that stand for the rest: accuracy and macro F1, or mAP (where there are scores) and micro F1.
    pub fn headlines(&self) -> Vec<Number> {
        self.numbers().into_iter().take(2).filter(|number| number.value.is_some()).collect()
    }

    /// The number that runs are ranked by, and its value.
    pub fn headline(&self) -> (Number, f64) {
        let first = self.headlines().remove(0);
        let value = first.value.expect("headlines have values");
        (first, value)
    }

    /// The headlines by their keys.
    pub fn score(&self) -> Score {
        self.headlines().into_iter().filter_map(|number| Some((number.key, number.value?))).collect()
    }

    /// Every class.
    pub fn classes(&self) -> Vec<ClassScores<'_>> {
        match self {
            Self::Single(metrics) => metrics
                .per_class
                .iter()
                .map(|class| ClassScores {
                    label: &class.label,
                    precision: Some(class.precision),
                    recall: Some(class.recall),
                    f1: Some(class.f1),
                    average_precision: None,
                    support: class.support,
                })
                .collect(),
            Self::Multi(metrics) => metrics
                .per_label
                .iter()
                .map(|label| ClassScores {
                    label: &label.label,
                    precision: label.precision,
                    recall: label.recall,
                    f1: label.f1,
                    average_precision: label.average_precision,
                    support: label.support,
                })
                .collect(),
        }
    }

    /// The class that is told worst: by average precision where there is one, else by F1.
    pub fn hardest(&self) -> Option<&str> {
        match self {
            Self::Single(metrics) => metrics.hardest.as_deref(),
            Self::Multi(metrics) => metrics.hardest.as_deref(),
        }
    }

    /// In words, where every clip gets the same answer.
    pub fn collapsed(&self) -> Option<String> {
        match self {
            Self::Single(metrics) => metrics.collapsed(),
            Self::Multi(metrics) => metrics.collapsed.clone(),
        }
    }

    /// In words, classes that no clip of the part has and what becomes of them.
    pub fn absent(&self) -> Option<String> {
        let classes = self.classes();
        let absent: Vec<&str> = classes.iter().filter(|class| class.support == 0).map(|class| class.label).collect();
        let what = match self {
            Self::Single(_) => "have no clip here and count as 0 in the macro averages, as scikit-learn has it",
            Self::Multi(_) => "have no clip here: they show n/a and are left out of the macro averages",
        };
        let noun = match self {
            Self::Single(_) => "classes",
            Self::Multi(_) => "labels",
        };
        (!absent.is_empty()).then(|| format!("{} of {} {noun} {what}", absent.len(), classes.len()))
    }
}

impl<'de> Deserialize<'de> for Measured {
    /// Not serde's `untagged`, which cannot read the numbers that are keys in JSON.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        match value.get("map") {
            Some(_) => serde_json::from_value(value).map(|metrics| Self::Multi(Box::new(metrics))),
            None => serde_json::from_value(value).map(|metrics| Self::Single(Box::new(metrics))),
        }
        .map_err(D::Error::custom)
    }
}
