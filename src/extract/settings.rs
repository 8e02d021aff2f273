//! Extraction settings: the part of a recipe that determines the features.

use serde::{Deserialize, Serialize};

use crate::media::{Deinterlace, Sampling};
use crate::models::{BatchSize, Precision};

/// Length of a SIFT descriptor in bytes: 4×4 bins with 8 orientations each.
pub const DESCRIPTOR_LEN: usize = 128;
/// Length of the position that follows a descriptor of a dense grid, in bytes: row and column in 256ths of the frame.
pub const POSITION_LEN: usize = 2;

/// Computes feature rows from frames; the table `[extractor]` of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Extractor {
    /// A neural network.
    Network {
        /// Name of the network's card in `models/`.
        card: String,
        /// Batch size. Stores record the size that was used; features do not depend on it, up to rounding on a GPU.
        #[serde(default)]
        batch: BatchSize,
        /// Arithmetic precision. Stores record the precision in which the network ran instead.
        #[serde(default, skip_serializing_if = "Precision::is_default")]
        precision: Precision,
    },
    /// SIFT keypoints and their descriptors.
    Sift {
        /// Maximum number of keypoints per frame, in descending order of response.
        keypoints: usize,
        /// Length in pixels of the longer side that larger frames are scaled down to.
        #[serde(default = "default_max_side")]
        max_side: usize,
    },
    /// SIFT descriptors of a dense grid.
    #[serde(rename = "dense-sift")]
    DenseSift(DenseSiftSettings),
}

impl Extractor {
    /// Returns the value of the key `kind`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Network { .. } => "network",
            Self::Sift { .. } => "sift",
            Self::DenseSift(_) => "dense-sift",
        }
    }
}

/// Settings of SIFT descriptors of a dense grid.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenseSiftSettings {
    /// Distance of the grid points in pixels.
    pub step: usize,
    /// Widths of the 4×4 bins in pixels. Each grid point has one descriptor for each width.
    pub bin_widths: Vec<usize>,
    /// Standard deviation of the smoothed frame in pixels. That of an unsmoothed one is taken to be 0.5.
    pub sigma: f64,
    /// Take the square root of the descriptors after division by their sum (RootSIFT).
    pub root_sift: bool,
    /// Length in pixels of the longer side that larger frames are scaled down to.
    pub max_side: usize,
}

/// Range of the bin width of dense SIFT, in pixels.
pub const BIN_WIDTHS: std::ops::RangeInclusive<usize> = 1..=256;
/// Maximum smoothing of dense SIFT, in pixels.
pub const MAX_SIGMA: f64 = 64.0;
/// Maximum number of cells along an axis of a spatial pyramid. Positions have 256 values.
pub const MAX_CELLS: usize = 16;

impl DenseSiftSettings {
    fn validate(&self) -> Result<(), String> {
        positive("extractor.step", self.step)?;
        let (least, most) = (BIN_WIDTHS.start(), BIN_WIDTHS.end());
        if self.bin_widths.is_empty() || self.bin_widths.iter().any(|width| !BIN_WIDTHS.contains(width)) {
            return Err(format!("extractor.bin_widths must be a list of widths from {least} to {most} pixels"));
        }
        if !(0.0..=MAX_SIGMA).contains(&self.sigma) {
            return Err(format!("extractor.sigma must be from 0 to {MAX_SIGMA} pixels"));
        }
        validate_max_side(self.max_side)
    }
}

/// Returns the longer side of 1080p videos.
fn default_max_side() -> usize {
    1920
}

/// Range of `max_side`: SIFT needs a few pixels, and OpenCV about 235 bytes of memory per pixel.
pub const MAX_SIDES: std::ops::RangeInclusive<usize> = 16..=16384;

/// Settings of the bag of visual words; the table `[codebook]` of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodebookSettings {
    /// Number of visual words (the k of k-means).
    pub words: usize,
    /// Maximum number of Lloyd iterations, and of those of expectation maximization for Fisher vectors.
    pub max_iterations: usize,
    /// Convergence threshold on the squared movement of the centers, relative to the mean variance of the features
    /// (scikit-learn's `tol`).
    pub tolerance: f64,
    /// Seed of k-means++.
    pub seed: u64,
    /// Maximum number of training descriptors that are clustered, which bounds the memory of the training. They are drawn at
    /// random with `seed`. By default, all are clustered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<usize>,
    /// Number of principal components that descriptors are projected onto before they are clustered. By default, descriptors are not
    /// projected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub components: Option<usize>,
    /// Spatial pyramid: a frame is divided into g × g cells with a histogram each, for each g in this list. Needs descriptors
    /// with positions, those of a dense grid.
    #[serde(default = "whole_frame", skip_serializing_if = "is_whole_frame")]
    pub pyramid: Vec<usize>,
    /// What the descriptors of each word and cell become. The default is omitted from the record in stores.
    #[serde(default, skip_serializing_if = "Encoding::is_histogram")]
    pub encoding: Encoding,
    /// Normalization of a frame's features.
    pub normalize: Normalize,
}

/// What the descriptors of a word and cell become.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Their number.
    #[default]
    Histogram,
    /// A Fisher vector: the first and second moments of their differences from the Gaussian of the word.
    Fisher,
}

impl Encoding {
    fn is_histogram(&self) -> bool {
        *self == Self::Histogram
    }
}

/// Returns the pyramid with one histogram for the whole frame.
fn whole_frame() -> Vec<usize> {
    vec![1]
}

fn is_whole_frame(pyramid: &[usize]) -> bool {
    pyramid == [1]
}

/// Normalization of the features of a frame. Those of a frame without descriptors remain zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Normalize {
    /// Counts, or the sums of a Fisher vector.
    None,
    /// Divide by the sum.
    L1,
    /// Divide by the Euclidean norm.
    L2,
    /// Signed square root, then L2. Dot products are the Hellinger kernel of the histograms.
    Power,
    /// Divide by the sum, then map each value to three, whose dot products approximate the χ² kernel.
    Chi2,
}

/// The settings that determine the features of a store. A store records them and is compared by them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExtractionSettings {
    /// Selects frames.
    pub sampling: Sampling,
    /// Which frames are deinterlaced. The default is omitted from the record in stores.
    #[serde(default, skip_serializing_if = "Deinterlace::is_off")]
    pub deinterlace: Deinterlace,
    /// Computes feature rows from frames.
    pub extractor: Extractor,
    /// Computes histograms from descriptors; `Some` for descriptor extractors only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codebook: Option<CodebookSettings>,
}

fn positive(key: &str, value: usize) -> Result<(), String> {
    if value == 0 { Err(format!("{key} must be at least 1")) } else { Ok(()) }
}

fn validate_max_side(max_side: usize) -> Result<(), String> {
    if MAX_SIDES.contains(&max_side) {
        return Ok(());
    }
    Err(format!("extractor.max_side must be from {} to {} pixels", MAX_SIDES.start(), MAX_SIDES.end()))
}

impl CodebookSettings {
    /// Checks the ranges of the values.
    ///
    /// # Errors
    /// Returns a message that names the recipe key if a value is out of range.
    pub fn validate(&self) -> Result<(), String> {
        positive("codebook.words", self.words)?;
        positive("codebook.max_iterations", self.max_iterations)?;
        if !(self.tolerance.is_finite() && self.tolerance >= 0.0) {
            return Err("codebook.tolerance must be a finite number ≥ 0".into());
        }
        if self.samples.is_some_and(|samples| samples < self.words) {
            return Err("codebook.samples must be at least codebook.words".into());
        }
        if self.components.is_some_and(|components| !(1..=DESCRIPTOR_LEN).contains(&components)) {
            return Err(format!("codebook.components must be from 1 to {DESCRIPTOR_LEN}"));
        }
        if self.pyramid.is_empty() || self.pyramid.iter().any(|cells| !(1..=MAX_CELLS).contains(cells)) {
            return Err(format!("codebook.pyramid must be a list of numbers of cells from 1 to {MAX_CELLS}"));
        }
        if self.encoding == Encoding::Fisher && matches!(self.normalize, Normalize::L1 | Normalize::Chi2) {
            return Err("codebook.normalize must be none, l2 or power for codebook.encoding = \"fisher\"".into());
        }
        Ok(())
    }
}

impl ExtractionSettings {
    /// Checks the ranges of the values, and that the extractor and the codebook match.
    ///
    /// # Errors
    /// Returns a message that names the recipe key if a value is out of range.
    pub fn validate(&self) -> Result<(), String> {
        self.sampling.validate()?;
        match &self.extractor {
            Extractor::Network { .. } => {}
            Extractor::Sift { keypoints, max_side } => {
                positive("extractor.keypoints", *keypoints)?;
                validate_max_side(*max_side)?;
            }
            Extractor::DenseSift(settings) => settings.validate()?,
        }
        match (&self.extractor, &self.codebook) {
            (Extractor::Network { .. }, None) => Ok(()),
            (Extractor::Network { .. }, Some(_)) => {
                Err("[codebook] applies to extractor kinds sift and dense-sift only".into())
            }
            (extractor, None) => Err(format!("extractor kind {} needs a [codebook]", extractor.kind())),
            (Extractor::Sift { .. }, Some(codebook)) if !is_whole_frame(&codebook.pyramid) => {
                Err("codebook.pyramid applies to extractor kind dense-sift only".into())
            }
            (_, Some(codebook)) => codebook.validate(),
        }
    }

    /// Returns the settings with the batch size that is used.
    pub fn with_batch(&self, items: usize) -> Self {
        let mut settings = self.clone();
        if let Extractor::Network { batch, .. } = &mut settings.extractor {
            *batch = BatchSize::Items(items);
        }
        settings
    }

    /// Serializes the settings as JSON, without the precision: the `recipe` attribute of a store. `shots` is the SHA-256 of the shot list, if
    /// the sampling uses one.
    pub fn to_json(&self, shots: Option<&str>) -> String {
        #[derive(Serialize)]
        struct Record<'a> {
            #[serde(flatten)]
            settings: &'a ExtractionSettings,
            #[serde(skip_serializing_if = "Option::is_none")]
            shots: Option<&'a str>,
        }
        let mut settings = self.clone();
        if let Extractor::Network { precision, .. } = &mut settings.extractor {
            *precision = Precision::default();
        }
        serde_json::to_string(&Record { settings: &settings, shots }).expect("settings serialize to JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_a_fixed_key_order() {
        let mut settings = ExtractionSettings {
            sampling: Sampling::Even { frames: 3 },
            deinterlace: Deinterlace::Off,
            extractor: Extractor::Network {
                card: "tiny".into(),
                batch: BatchSize::Items(2),
                precision: Precision::Auto,
            },
            codebook: None,
        };
        let sampling = r#""sampling":{"kind":"even","frames":3}"#;
        let extractor = r#""extractor":{"kind":"network","card":"tiny","batch":2}"#;
        assert_eq!(settings.to_json(None), format!("{{{sampling},{extractor}}}"));
        assert_eq!(settings.to_json(Some("ab")), format!("{{{sampling},{extractor},\"shots\":\"ab\"}}"));
        assert_eq!(serde_json::from_str::<ExtractionSettings>(&settings.to_json(Some("ab"))).unwrap(), settings);
        // The precision is an attribute of its own.
        let json = settings.to_json(None);
        settings.extractor =
            Extractor::Network { card: "tiny".into(), batch: BatchSize::Items(2), precision: Precision::F32 };
        assert_eq!(settings.to_json(None), json);
        settings.deinterlace = Deinterlace::Auto;
        assert_eq!(settings.to_json(None), format!("{{{sampling},\"deinterlace\":\"auto\",{extractor}}}"));
        settings.extractor = Extractor::Sift { keypoints: 32, max_side: 1920 };
        assert!(settings.validate().unwrap_err().contains("[codebook]"));
        let sift = r#"{"kind":"sift","keypoints":32}"#;
        assert_eq!(serde_json::from_str::<Extractor>(sift).unwrap(), settings.extractor);
        settings.extractor = Extractor::Sift { keypoints: 32, max_side: 8 };
        assert_eq!(settings.validate().unwrap_err(), "extractor.max_side must be from 16 to 16384 pixels");
    }
}
