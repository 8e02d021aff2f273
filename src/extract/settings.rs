//! Extraction settings: the part of a recipe that determines the features.

use serde::{Deserialize, Serialize};

use crate::media::{Deinterlace, Sampling};
use crate::models::Precision;

/// Maximum batch size. Larger batches only need memory.
pub const MAX_BATCH: usize = 1024;

/// Computes feature rows from frames; the table `[extractor]` of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Extractor {
    /// A neural network.
    Network {
        /// Name of the network's card in `models/`.
        card: String,
        /// Batch size, in items (frames or windows).
        batch: usize,
        /// Arithmetic precision. The default is omitted from the record in stores.
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
    /// Maximum number of Lloyd iterations.
    pub max_iterations: usize,
    /// Convergence threshold on the squared movement of the centers, relative to the mean variance of the features
    /// (scikit-learn's `tol`).
    pub tolerance: f64,
    /// Seed of k-means++.
    pub seed: u64,
    /// Normalization of a frame's histogram.
    pub normalize: Normalize,
}

/// Normalization of a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Normalize {
    /// Counts.
    None,
    /// Divide by the sum.
    L1,
    /// Divide by the Euclidean norm.
    L2,
    /// Signed square root, then L2.
    Power,
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
            Extractor::Network { batch, .. } if *batch > MAX_BATCH => {
                return Err(format!("extractor.batch must be at most {MAX_BATCH}"));
            }
            Extractor::Network { batch, .. } => positive("extractor.batch", *batch)?,
            Extractor::Sift { keypoints, max_side } => {
                positive("extractor.keypoints", *keypoints)?;
                if !MAX_SIDES.contains(max_side) {
                    let (least, most) = (MAX_SIDES.start(), MAX_SIDES.end());
                    return Err(format!("extractor.max_side must be from {least} to {most} pixels"));
                }
            }
        }
        match (&self.extractor, &self.codebook) {
            (Extractor::Sift { .. }, None) => Err("extractor kind sift needs a [codebook]".into()),
            (Extractor::Network { .. }, Some(_)) => Err("[codebook] applies to extractor kind sift only".into()),
            (_, Some(codebook)) => codebook.validate(),
            (_, None) => Ok(()),
        }
    }

    /// Serializes the settings as JSON: the `recipe` attribute of a store. `shots` is the SHA-256 of the shot list, if
    /// the sampling uses one.
    pub fn to_json(&self, shots: Option<&str>) -> String {
        #[derive(Serialize)]
        struct Record<'a> {
            #[serde(flatten)]
            settings: &'a ExtractionSettings,
            #[serde(skip_serializing_if = "Option::is_none")]
            shots: Option<&'a str>,
        }
        serde_json::to_string(&Record { settings: self, shots }).expect("settings serialize to JSON")
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
            extractor: Extractor::Network { card: "tiny".into(), batch: 2, precision: Precision::F32 },
            codebook: None,
        };
        let sampling = r#""sampling":{"kind":"even","frames":3}"#;
        let extractor = r#""extractor":{"kind":"network","card":"tiny","batch":2}"#;
        assert_eq!(settings.to_json(None), format!("{{{sampling},{extractor}}}"));
        assert_eq!(settings.to_json(Some("ab")), format!("{{{sampling},{extractor},\"shots\":\"ab\"}}"));
        assert_eq!(serde_json::from_str::<ExtractionSettings>(&settings.to_json(Some("ab"))).unwrap(), settings);
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
