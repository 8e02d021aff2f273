//! Recipes: one TOML file per method (`pipelines/METHOD.toml`). Unknown keys are errors.

mod classify;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use classify::*;

use crate::error::{Error, Result};
use crate::extract::{CodebookSettings, ExtractionSettings, Extractor};
use crate::media::Sampling;

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
    pub codebook: Option<CodebookSettings>,
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

fn positive(name: &str, value: usize) -> Result<(), String> {
    (value > 0).then_some(()).ok_or(format!("{name} must be at least 1"))
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
            .and_then(|()| self.validate())
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
        recipe.validate().map_err(wrong)?;
        Ok(recipe)
    }

    /// Checks the ranges of the values.
    ///
    /// # Errors
    /// Returns a message that names the recipe key if a value is out of range.
    pub fn validate(&self) -> Result<(), String> {
        self.extraction().validate()?;
        self.classify.validate()
    }

    /// Returns the settings that determine the features.
    pub fn extraction(&self) -> ExtractionSettings {
        let Self { sampling, extractor, codebook, .. } = self.clone();
        ExtractionSettings { sampling, extractor, codebook }
    }
}
