//! Intervals of the metrics of a split.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Lower and upper bound of an interval.
pub type Interval = [f64; 2];

/// The unit that a bootstrap resamples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResamplingUnit {
    /// Single clips.
    Clips,
    /// Groups of clips, because the clips of a group (a film) are not independent.
    Groups,
}

/// BCa intervals of the headline metrics of a split (percentile intervals in files of earlier versions).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Intervals {
    /// Interval of each headline metric, if it is defined: `accuracy` and `macro_f1`, or `map` and `micro_f1`. The macro average
    /// of a resample excludes classes that occur in the split but not in the resample.
    #[serde(flatten)]
    pub by_metric: BTreeMap<String, Interval>,
    /// Confidence level, 0.95.
    pub level: f64,
    /// Number of resamples.
    pub resamples: usize,
    /// The unit that is resampled.
    pub unit: ResamplingUnit,
    /// Number of units.
    pub units: usize,
}
