//! The metrics of a split, independent of the task: the input of tables, plots and comparisons.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::intervals::{Interval, Intervals};
use super::multi_label::{self, MultiLabelMetrics, Thresholds};
use super::predictions::Predictions;
use super::significance::Resampled;
use super::single_label::{self, SingleLabelMetrics};
use crate::dataset::Task;

/// Headline metrics of a split by key: `accuracy` and `macro_f1`, or `map` and `micro_f1`.
pub type HeadlineMetrics = BTreeMap<String, f64>;

/// The metrics of a split. Serialized without a tag: the keys depend on the task.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum SplitMetrics {
    /// One label per clip.
    SingleLabel(Box<SingleLabelMetrics>),
    /// Any number of labels per clip.
    MultiLabel(Box<MultiLabelMetrics>),
}

/// Display format of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricFormat {
    /// A fraction in [0, 1], shown as a percentage.
    Percentage,
    /// A decimal number.
    Decimal,
}

/// A metric of a split.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricValue {
    /// Key in CSV files and intervals.
    pub key: String,
    /// Name in tables.
    pub name: String,
    /// Display format.
    pub format: MetricFormat,
    /// The value; `None` if it is undefined, such as a ranking metric without scores.
    pub value: Option<f64>,
    /// Bootstrap interval, if one was computed.
    pub interval: Option<Interval>,
}

/// The metrics of a class in a split.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassMetrics<'a> {
    /// Name of the class.
    pub label: &'a str,
    /// Precision in [0, 1]; `None` if it is undefined.
    pub precision: Option<f64>,
    /// Recall in [0, 1]; `None` if it is undefined.
    pub recall: Option<f64>,
    /// F1 in [0, 1]; `None` if it is undefined.
    pub f1: Option<f64>,
    /// Average precision in [0, 1]; `None` without scores.
    pub average_precision: Option<f64>,
    /// Number of clips of the class.
    pub support: u64,
}

/// Computes the metrics of a split, without intervals and thresholds.
pub fn compute_metrics(predictions: &Predictions) -> SplitMetrics {
    match predictions.task {
        Task::SingleLabel => SplitMetrics::SingleLabel(Box::new(single_label::compute_metrics(predictions))),
        Task::MultiLabel => SplitMetrics::MultiLabel(Box::new(multi_label::compute_metrics(predictions))),
    }
}

/// Computes the metrics of all splits, with intervals. The thresholds of multi-label predictions are tuned on the split
/// `val` and applied to the other splits; no thresholds are set if the split is absent.
pub fn evaluate_splits<S: Ord + Copy>(splits: &BTreeMap<S, Predictions>, val: S) -> BTreeMap<S, SplitMetrics> {
    let resampled = Resampled::of_all(&splits.values().collect::<Vec<_>>());
    evaluate_resampled(&splits.keys().copied().zip(resampled).collect(), val)
}

/// Does the same for predictions that have been resampled.
pub fn evaluate_resampled<S: Ord + Copy>(splits: &BTreeMap<S, Resampled<'_>>, val: S) -> BTreeMap<S, SplitMetrics> {
    let tuned = splits.get(&val).and_then(|resampled| Thresholds::tune(resampled.predictions));
    let evaluate = |(&split, resampled): (&S, &Resampled<'_>)| {
        let predictions = resampled.predictions;
        let mut metrics = compute_metrics(predictions);
        let intervals = resampled.intervals();
        match &mut metrics {
            SplitMetrics::SingleLabel(metrics) => metrics.interval = intervals,
            SplitMetrics::MultiLabel(metrics) => {
                metrics.interval = intervals;
                let thresholds = tuned.as_ref().filter(|_| split != val);
                metrics.thresholds = thresholds.and_then(|tuned| tuned.apply(predictions));
            }
        }
        (split, metrics)
    };
    splits.iter().map(evaluate).collect()
}

impl SplitMetrics {
    /// Returns the number of labeled clips.
    pub fn n(&self) -> usize {
        match self {
            Self::SingleLabel(metrics) => metrics.n,
            Self::MultiLabel(metrics) => metrics.n,
        }
    }

    /// Returns the class names, C of them.
    pub fn labels(&self) -> Vec<&str> {
        self.classes().iter().map(|class| class.label).collect()
    }

    /// Returns the bootstrap intervals, if they were computed.
    pub fn intervals(&self) -> Option<&Intervals> {
        match self {
            Self::SingleLabel(metrics) => metrics.interval.as_ref(),
            Self::MultiLabel(metrics) => metrics.interval.as_ref(),
        }
    }

    /// Returns the metrics in the order of tables, the headline metrics first (see [`SplitMetrics::headlines`]).
    pub fn values(&self) -> Vec<MetricValue> {
        let value = |(key, name, format, value): (&str, &str, MetricFormat, Option<f64>)| MetricValue {
            key: key.into(),
            name: name.into(),
            format,
            value,
            interval: self.intervals().and_then(|intervals| intervals.by_metric.get(key)).copied(),
        };
        use MetricFormat::{Decimal, Percentage};
        match self {
            Self::SingleLabel(m) => [
                ("accuracy", "accuracy", Percentage, Some(m.accuracy)),
                ("macro_f1", "macro F1", Percentage, Some(m.macro_.f1)),
                ("macro_precision", "macro precision", Percentage, Some(m.macro_.precision)),
                ("macro_recall", "macro recall", Percentage, Some(m.macro_.recall)),
                ("weighted_f1", "weighted F1", Percentage, Some(m.weighted.f1)),
                ("top_3", "top-3", Percentage, m.top_k.get(&3).copied()),
                ("top_5", "top-5", Percentage, m.top_k.get(&5).copied()),
                ("expected_calibration_error", "calibration error", Decimal, m.expected_calibration_error),
            ]
            .map(value)
            .to_vec(),
            Self::MultiLabel(m) => [
                ("map", "mAP", Percentage, m.map.macro_),
                ("micro_f1", "micro F1", Percentage, Some(m.averages.micro.f1)),
                ("macro_f1", "macro F1", Percentage, Some(m.averages.macro_.f1)),
                ("weighted_f1", "weighted F1", Percentage, Some(m.averages.weighted.f1)),
                ("samples_f1", "samples F1", Percentage, Some(m.averages.samples.f1)),
                ("map_micro", "mAP micro", Percentage, m.map.micro),
                ("map_weighted", "mAP weighted", Percentage, m.map.weighted),
                ("map_samples", "mAP samples", Percentage, m.map.samples),
                ("r_precision", "R-precision", Percentage, m.r_precision),
                ("top_1", "top-1", Percentage, m.top_k.get(&1).copied()),
                ("top_3", "top-3", Percentage, m.top_k.get(&3).copied()),
                ("top_5", "top-5", Percentage, m.top_k.get(&5).copied()),
                ("exact_match", "exact match", Percentage, Some(m.exact_match)),
                ("binary_accuracy", "binary accuracy", Percentage, Some(m.binary_accuracy)),
                ("hamming_loss", "Hamming loss", Decimal, Some(m.hamming_loss)),
                ("ranking_loss", "ranking loss", Decimal, m.ranking_loss),
                ("coverage_error", "coverage error", Decimal, m.coverage_error),
                ("label_ranking_average_precision", "label-ranking AP", Percentage, m.label_ranking_average_precision),
                ("expected_calibration_error", "calibration error", Decimal, m.expected_calibration_error),
            ]
            .map(value)
            .to_vec(),
        }
    }

    /// Returns the value of the metric `key`, if it is defined.
    pub fn value(&self, key: &str) -> Option<f64> {
        self.values().into_iter().find(|metric| metric.key == key)?.value
    }

    /// Returns the headline metrics: accuracy and macro F1, or mAP (if there are scores) and micro F1.
    pub fn headlines(&self) -> Vec<MetricValue> {
        self.values().into_iter().take(2).filter(|metric| metric.value.is_some()).collect()
    }

    /// Returns the metric by which runs are ranked (the first headline metric), and its value.
    pub fn primary(&self) -> (MetricValue, f64) {
        let first = self.headlines().remove(0);
        let value = first.value.expect("headline metrics have values");
        (first, value)
    }

    /// Returns the headline metrics by key.
    pub fn headline_map(&self) -> HeadlineMetrics {
        self.headlines().into_iter().filter_map(|metric| Some((metric.key, metric.value?))).collect()
    }

    /// Returns the metrics of every class.
    pub fn classes(&self) -> Vec<ClassMetrics<'_>> {
        match self {
            Self::SingleLabel(metrics) => metrics
                .per_class
                .iter()
                .map(|class| ClassMetrics {
                    label: &class.label,
                    precision: Some(class.precision),
                    recall: Some(class.recall),
                    f1: Some(class.f1),
                    average_precision: None,
                    support: class.support,
                })
                .collect(),
            Self::MultiLabel(metrics) => metrics
                .per_label
                .iter()
                .map(|label| ClassMetrics {
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

    /// Returns the class with the lowest average precision, or the lowest F1 if there is no average precision.
    pub fn hardest(&self) -> Option<&str> {
        match self {
            Self::SingleLabel(metrics) => metrics.hardest.as_deref(),
            Self::MultiLabel(metrics) => metrics.hardest.as_deref(),
        }
    }

    /// Returns a description if every clip has the same prediction.
    pub fn collapsed(&self) -> Option<String> {
        match self {
            Self::SingleLabel(metrics) => metrics.collapsed(),
            Self::MultiLabel(metrics) => metrics.collapsed.clone(),
        }
    }

    /// Describes the classes without clips in this split and how averages treat them; `None` if there are none.
    pub fn absent(&self) -> Option<String> {
        let classes = self.classes();
        let absent = classes.iter().filter(|class| class.support == 0).count();
        let (noun, treatment) = match self {
            Self::SingleLabel(_) => ("classes", "they count as 0 in macro averages, as in scikit-learn"),
            Self::MultiLabel(_) => ("labels", "they are n/a and excluded from macro averages"),
        };
        (absent > 0).then(|| format!("{absent} of {} {noun} have no clips in this split: {treatment}", classes.len()))
    }
}

impl<'de> Deserialize<'de> for SplitMetrics {
    /// Distinguishes the tasks by the key `map`. Serde's `untagged` cannot read the integer keys of `top_k`.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        match value.get("map") {
            Some(_) => serde_json::from_value(value).map(|metrics| Self::MultiLabel(Box::new(metrics))),
            None => serde_json::from_value(value).map(|metrics| Self::SingleLabel(Box::new(metrics))),
        }
        .map_err(D::Error::custom)
    }
}
