//! Recipes: one TOML file per method (`pipelines/METHOD.toml`). Unknown keys are errors.

mod classify;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use classify::*;

use crate::error::{Error, Result};

/// A whole recipe: how features are made and how they are classified.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The name of the method, that of its file and of its store.
    pub method: String,
    /// Which frames are looked at.
    pub sampling: Sampling,
    /// What turns frames into feature rows.
    pub extractor: Extractor,
    /// How local descriptors become histograms; for descriptor extractors only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codebook: Option<Codebook>,
    /// What is done with the features.
    #[serde(default)]
    pub classify: Classify,
    /// What a run read and wrote; in the recipe beside its results, so that it can be run again from that file alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunFiles>,
}

/// The files of a run of kinoprobe-classify: `[run]`. Paths are absolute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunFiles {
    /// The feature store.
    pub features: PathBuf,
    /// The manifest.
    pub manifest: PathBuf,
    /// The folder below which the manifest's paths lie, where one was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// The folder of the results.
    pub out: PathBuf,
    /// The seed of the split, where the manifest has none.
    pub split_seed: u64,
}

impl RunFiles {
    /// The same files, wherever the program is run from.
    ///
    /// # Errors
    /// There is no working directory.
    pub fn absolute(&self) -> std::io::Result<Self> {
        use std::path::absolute;
        Ok(Self {
            features: absolute(&self.features)?,
            manifest: absolute(&self.manifest)?,
            root: self.root.as_deref().map(absolute).transpose()?,
            out: absolute(&self.out)?,
            split_seed: self.split_seed,
        })
    }
}

/// Which frames of a clip are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Sampling {
    /// `frames` frames, each the center of one of as many equal segments.
    Even {
        /// How many; a shorter clip gives each of its frames once.
        frames: usize,
    },
    /// Up to `count` windows of `length` frames at `rate` frames a second, evenly placed.
    Windows {
        /// Frames in a window.
        length: usize,
        /// Frames a second of the resampled sequence.
        rate: f64,
        /// Windows at the most.
        count: usize,
    },
    /// Every frame, or every n-th: a sequence.
    All {
        /// Frames from one taken to the next.
        #[serde(default = "one")]
        every: usize,
        /// Where more would be taken, this many of them, evenly spread.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        most: Option<usize>,
    },
    /// `frames` frames of each shot, each the center of one of as many equal segments of it; the shots are those of the
    /// list that `kinoprobe-shots` writes.
    Shots {
        /// How many; a shorter shot gives each of its frames once.
        frames: usize,
    },
}

fn one() -> usize {
    1
}

/// What turns frames into feature rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Extractor {
    /// A network run through ONNX Runtime.
    Network {
        /// The card in models/.
        card: String,
        /// Items (frames or windows) a run of the network.
        batch: usize,
    },
    /// SIFT keypoints and their descriptors.
    Sift {
        /// The strongest this many keypoints of a frame.
        keypoints: usize,
    },
}

/// How local descriptors become one histogram a frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Codebook {
    /// Visual words (k of k-means).
    pub words: usize,
    /// Lloyd iterations at the most.
    pub max_iterations: usize,
    /// Stop when the centers move, squared and summed, less than this times the mean variance of the features (scikit-learn's `tol`).
    pub tolerance: f64,
    /// Seed of k-means++.
    pub seed: u64,
    /// Normalization of a frame's histogram.
    pub normalize: Normalize,
}

impl Codebook {
    /// Checks ranges that the types do not.
    pub fn check(&self) -> Result<(), String> {
        positive("codebook.words", self.words)?;
        positive("codebook.max_iterations", self.max_iterations)?;
        if !(self.tolerance.is_finite() && self.tolerance >= 0.0) {
            return Err("codebook.tolerance must be a number from 0".into());
        }
        Ok(())
    }
}

fn positive(name: &str, value: usize) -> Result<(), String> {
    (value > 0).then_some(()).ok_or(format!("{name} must be at least 1"))
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

/// The part of a recipe that decides the features: what a store records and is compared by.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Extraction<'a> {
    /// Which frames.
    pub sampling: &'a Sampling,
    /// What turns them into rows.
    pub extractor: &'a Extractor,
    /// How descriptors become histograms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codebook: Option<&'a Codebook>,
    /// SHA-256 of the list of shots; for sampling kind shots only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shots: Option<&'a str>,
}

/// Single values of `[sampling]` and `[extractor]`, as flags of the same names.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Values of the recipe")]
pub struct Overrides {
    /// Evenly spaced frames a clip, or a shot (sampling kinds even, shots)
    #[arg(long)]
    pub frames: Option<usize>,
    /// Frames in a window (sampling kind windows)
    #[arg(long)]
    pub length: Option<usize>,
    /// Frames a second of the resampled clip (sampling kind windows)
    #[arg(long)]
    pub rate: Option<f64>,
    /// Windows at the most (sampling kind windows)
    #[arg(long)]
    pub count: Option<usize>,
    /// Frames from one taken to the next (sampling kind all)
    #[arg(long)]
    pub every: Option<usize>,
    /// Frames a clip at the most, evenly spread (sampling kind all)
    #[arg(long)]
    pub most: Option<usize>,
    /// Strongest keypoints a frame (extractor kind sift)
    #[arg(long)]
    pub keypoints: Option<usize>,
    /// Items a run of the network (extractor kind network)
    #[arg(long)]
    pub batch: Option<usize>,
    /// Card of the network (extractor kind network)
    #[arg(long)]
    pub card: Option<String>,
}

/// Puts `value` into `target`, or says that this recipe has no such key.
fn set<T: Clone>(name: &str, value: &Option<T>, target: Option<&mut T>) -> Result<(), String> {
    match (value, target) {
        (None, _) => Ok(()),
        (Some(value), Some(target)) => {
            *target = value.clone();
            Ok(())
        }
        (Some(_), None) => Err(format!("--{name} does not apply: the recipe has no value of that name")),
    }
}

impl Recipe {
    /// Overrides single values of sampling and extractor.
    ///
    /// # Errors
    /// The recipe has no such value, or it is out of range; `path` is the recipe's file.
    pub fn apply(&mut self, values: &Overrides, path: &Path) -> Result<()> {
        let (mut frames, mut length, mut rate, mut count) = (None, None, None, None);
        let (mut every, mut most) = (None, None);
        match &mut self.sampling {
            Sampling::Even { frames: value } | Sampling::Shots { frames: value } => frames = Some(value),
            Sampling::All { every: e, most: m } => (every, most) = (Some(e), Some(m)),
            Sampling::Windows { length: l, rate: r, count: c } => (length, rate, count) = (Some(l), Some(r), Some(c)),
        }
        let (mut keypoints, mut batch, mut card) = (None, None, None);
        match &mut self.extractor {
            Extractor::Network { card: c, batch: b } => (card, batch) = (Some(c), Some(b)),
            Extractor::Sift { keypoints: value } => keypoints = Some(value),
        }
        set("frames", &values.frames, frames)
            .and_then(|()| set("length", &values.length, length))
            .and_then(|()| set("rate", &values.rate, rate))
            .and_then(|()| set("count", &values.count, count))
            .and_then(|()| set("every", &values.every, every))
            .and_then(|()| set("most", &values.most.map(Some), most))
            .and_then(|()| set("keypoints", &values.keypoints, keypoints))
            .and_then(|()| set("batch", &values.batch, batch))
            .and_then(|()| set("card", &values.card, card))
            .and_then(|()| self.check())
            .map_err(|message| Error::Config { path: path.to_path_buf(), message })
    }

    /// The file of a method's recipe: `file` where it is given, else `pipelines/METHOD.toml`.
    ///
    /// # Errors
    /// There is no such recipe; the error names those that there are.
    pub fn file_of(method: &str, file: Option<PathBuf>) -> Result<PathBuf> {
        let path = file.unwrap_or_else(|| PathBuf::from(format!("pipelines/{method}.toml")));
        if path.is_file() {
            return Ok(path);
        }
        let entries = std::fs::read_dir("pipelines").into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".toml")?.to_string()));
        let mut known: Vec<String> = names.collect();
        known.sort();
        let message = match known.is_empty() {
            true => "no such recipe: run from kinoprobe's folder, or name a file with --recipe".to_string(),
            false => format!("no such recipe: --method is one of {}, or name a file with --recipe", known.join(", ")),
        };
        Err(Error::Config { path, message })
    }

    /// Reads and checks a recipe.
    ///
    /// # Errors
    /// The file is missing, is not TOML, has an unknown key or a value out of range.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let wrong = |message: String| Error::Config { path: path.to_path_buf(), message };
        let recipe: Recipe = toml::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        recipe.check().map_err(wrong)?;
        Ok(recipe)
    }

    /// Checks ranges that the types do not.
    pub fn check(&self) -> Result<(), String> {
        match self.sampling {
            Sampling::Even { frames } | Sampling::Shots { frames } => positive("sampling.frames", frames)?,
            Sampling::All { every, most } => {
                positive("sampling.every", every)?;
                positive("sampling.most", most.unwrap_or(1))?;
            }
            Sampling::Windows { length, rate, count } => {
                positive("sampling.length", length)?;
                positive("sampling.count", count)?;
                if !(rate.is_finite() && rate > 0.0) {
                    return Err("sampling.rate must be a positive number of frames a second".into());
                }
            }
        }
        match &self.extractor {
            Extractor::Network { batch, .. } => positive("extractor.batch", *batch)?,
            Extractor::Sift { keypoints } => positive("extractor.keypoints", *keypoints)?,
        }
        match (&self.extractor, &self.codebook) {
            (Extractor::Sift { .. }, None) => return Err("an extractor of kind sift needs a [codebook]".into()),
            (Extractor::Network { .. }, Some(_)) => {
                return Err("[codebook] serves an extractor of kind sift only".into());
            }
            (_, Some(codebook)) => codebook.check()?,
            _ => {}
        }
        self.classify.check()
    }

    /// The part that decides the features; `shots` is the SHA-256 of the list of shots, where one is read.
    pub fn extraction<'a>(&'a self, shots: Option<&'a str>) -> Extraction<'a> {
        let Recipe { sampling, extractor, codebook, .. } = self;
        Extraction { sampling, extractor, codebook: codebook.as_ref(), shots }
    }

    /// What [`Recipe::extraction`] is as JSON: the `recipe` attribute of a store.
    pub fn extraction_json(&self, shots: Option<&str>) -> String {
        serde_json::to_string(&self.extraction(shots)).expect("a recipe is plain data")
    }
}
