//! Recipes: one TOML file per method (`pipelines/METHOD.toml`), which combines the settings of extraction and classification.
//! Unknown keys are errors.

mod classify;
mod flags;
mod search;
mod search_space;
mod unused;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use classify::Classify;
pub use flags::{ClassifyFlags, ExtractionFlags};
pub use search::{SearchFlags, Trial};
pub use search_space::{SearchSettings, Values};

use crate::error::{Error, Result};
use crate::extract::{CodebookSettings, ExtractionSettings, Extractor};
use crate::media::{Deinterlace, Sampling};
use crate::models::{BatchSize, Precision};
use crate::store::FeatureStore;

/// A recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the method; also the name of its file and of its store.
    pub method: String,
    /// Which frames are deinterlaced.
    #[serde(default, skip_serializing_if = "Deinterlace::is_off")]
    pub deinterlace: Deinterlace,
    /// Selects frames.
    pub sampling: Sampling,
    /// Computes feature rows from frames.
    pub extractor: Extractor,
    /// Computes histograms from descriptors; for descriptor extractors only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codebook: Option<CodebookSettings>,
    /// The classifier and its training.
    #[serde(default)]
    pub classify: Classify,
    /// Files of a run; set in the recipe of a run's directory, so that the run can be repeated from this file alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunFiles>,
}

/// The files of a run of kinoprobe-classify; the table `[run]`. Paths in a file are absolute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunFiles {
    /// Feature store.
    pub features: PathBuf,
    /// Manifest.
    pub manifest: PathBuf,
    /// Directory that the paths of the manifest are relative to, if given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// Directory of the results.
    pub out: PathBuf,
    /// Seed of the split, for a manifest without splits.
    pub split_seed: u64,
}

impl RunFiles {
    /// Returns the same files with absolute paths.
    ///
    /// # Errors
    /// Returns an error if the working directory does not exist.
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

impl Recipe {
    /// Returns the path of a method's recipe: `file` if given, else `pipelines/METHOD.toml`.
    ///
    /// # Errors
    /// Returns an error that lists the available recipes if the file does not exist.
    pub fn path(method: &str, file: Option<PathBuf>) -> Result<PathBuf> {
        let path = file.unwrap_or_else(|| PathBuf::from(format!("pipelines/{method}.toml")));
        if path.is_file() {
            return Ok(path);
        }
        let entries = std::fs::read_dir("pipelines").into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".toml")?.to_string()));
        let mut methods: Vec<String> = names.collect();
        methods.sort();
        let message = match methods.is_empty() {
            true => "no such recipe: run kinoprobe in its source directory, or name a file with --recipe".to_string(),
            false => format!("no such recipe: --method is one of {}, or name a file with --recipe", methods.join(", ")),
        };
        Err(Error::Config { path, message })
    }

    /// Reads and validates a recipe.
    ///
    /// # Errors
    /// Returns an error if the file is missing, is not TOML, has an unknown key or one without an effect, or a value is out of
    /// range.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let invalid = |message: String| Error::Config { path: path.to_path_buf(), message };
        let mut recipe: Recipe = toml::from_str(&text).map_err(|error| invalid(error.to_string()))?;
        if recipe.run.is_some() {
            // Earlier versions recorded all settings of a run.
            unused::reset(&mut recipe.classify);
        }
        recipe.validate().map_err(invalid)?;
        Ok(recipe)
    }

    /// Returns the recipe for classifying `store`: `file` if given, else `pipelines/METHOD.toml` if it exists, else the
    /// defaults. Sampling and extractor are those recorded in the store, if any. `flags` and `search` override values. Also returns the
    /// keys of the recipe that do not apply to the settings that the flags choose; they are reset to their defaults.
    ///
    /// # Errors
    /// Returns an error if the file is missing or invalid, a flag does not apply, or a value is out of range.
    pub fn for_store(
        store: &FeatureStore,
        file: Option<&Path>,
        flags: &ClassifyFlags,
        search: &SearchFlags,
    ) -> Result<(Self, Vec<String>)> {
        let provenance = store.provenance();
        let method = match provenance.method.as_str() {
            "" => store.path().file_stem().map_or("features".into(), |stem| stem.to_string_lossy().into_owned()),
            method => method.to_string(),
        };
        let default_path = Path::new("pipelines").join(format!("{method}.toml"));
        let mut recipe = match file {
            Some(file) => Self::load(file)?,
            None if default_path.is_file() => Self::load(&default_path)?,
            None => Self {
                method: method.clone(),
                deinterlace: Deinterlace::Off,
                sampling: Sampling::Even { frames: 1 },
                extractor: Extractor::Network {
                    card: "unknown".into(),
                    batch: BatchSize::Auto,
                    precision: Precision::default(),
                },
                codebook: None,
                classify: Classify::default(),
                run: None,
            },
        };
        recipe.method = method;
        if let Ok(settings) = serde_json::from_str(&provenance.recipe) {
            let ExtractionSettings { sampling, deinterlace, extractor, codebook } = settings;
            (recipe.sampling, recipe.deinterlace) = (sampling, deinterlace);
            (recipe.extractor, recipe.codebook) = (extractor, codebook);
        }
        flags.apply(&mut recipe.classify).map_err(Error::Data)?;
        search.apply(&mut recipe.classify, &|name| flags.given(name)).map_err(Error::Data)?;
        let unused = unused::reset(&mut recipe.classify);
        let path = || file.map_or(default_path, Path::to_path_buf);
        recipe.validate().map_err(|message| Error::Config { path: path(), message })?;
        Ok((recipe, unused))
    }

    /// Overrides values of sampling and extractor by flags. `path` is the recipe's file, for error messages.
    ///
    /// # Errors
    /// Returns an error if a flag does not apply or a value is out of range.
    pub fn apply(&mut self, flags: &ExtractionFlags, path: &Path) -> Result<()> {
        let applied = flags.apply(self).and_then(|()| self.validate());
        applied.map_err(|message| Error::Config { path: path.to_path_buf(), message })
    }

    /// Checks the ranges of the values, and that each has an effect.
    ///
    /// # Errors
    /// Returns a message that names the recipe key if a value is out of range.
    pub fn validate(&self) -> Result<(), String> {
        self.extraction().validate()?;
        self.classify.validate()?;
        match &self.classify.search {
            Some(search) => search.validate(&self.classify),
            None => Ok(()),
        }
    }

    /// Returns the text of the recipe's file.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a recipe serializes to TOML")
    }

    /// Returns the settings that determine the features.
    pub fn extraction(&self) -> ExtractionSettings {
        let Self { sampling, deinterlace, extractor, codebook, .. } = self.clone();
        ExtractionSettings { sampling, deinterlace, extractor, codebook }
    }
}
