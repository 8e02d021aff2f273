//! Recipes: one TOML file per method (`pipelines/METHOD.toml`). Unknown keys are errors.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

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
}

/// Which frames of a clip are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Sampling {
    /// `frames` frames, each the centre of one of as many equal segments.
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
    /// `frames` frames of each shot, each the centre of one of as many equal segments of it; the shots are those of the
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
    /// Stop when the centres move, squared and summed, less than this times the mean variance of the features (scikit-learn's `tol`).
    pub tolerance: f64,
    /// Seed of k-means++.
    pub seed: u64,
    /// Normalisation of a frame's histogram.
    pub normalise: Normalise,
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

/// Normalisation of a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Normalise {
    /// Counts.
    None,
    /// Divide by the sum.
    L1,
    /// Divide by the Euclidean norm.
    L2,
    /// Signed square root, then L2.
    Power,
}

/// How rows become one vector a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Mean over the rows.
    Mean,
    /// Maximum over the rows.
    Max,
}

/// How many labels a clip has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Exactly one: classes exclude each other.
    #[default]
    SingleLabel,
    /// Any number: each class is a question of its own.
    MultiLabel,
}

/// Which classifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ClassifierKind {
    /// Linear → BatchNorm1d → GELU → Dropout → Linear.
    Mlp,
    /// Multinomial logistic regression.
    Logistic,
    /// Gaussian naive Bayes.
    Bayes,
    /// k nearest neighbours.
    Knn,
    /// Always the class frequencies of the training split.
    Constant,
}

/// What is done with the features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Classify {
    /// Single-label or multi-label; where it is not given, the data decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// Which pooled features are read.
    pub pooling: Pooling,
    /// Standardise by the mean and deviation of the training split.
    pub standardise: bool,
    /// The classifier trained by default.
    pub classifier: ClassifierKind,
    /// Seeds 0, 1, … this many (mean ± deviation over them is reported; the first one's model is kept).
    pub seeds: u64,
    /// Settings of the multi-layer perceptron.
    pub mlp: Mlp,
    /// Settings of logistic regression.
    pub logistic: Logistic,
    /// Settings of k nearest neighbours.
    pub knn: Knn,
    /// Settings of Gaussian naive Bayes.
    pub bayes: Bayes,
}

impl Default for Classify {
    fn default() -> Self {
        Self {
            task: None,
            pooling: Pooling::Mean,
            standardise: true,
            classifier: ClassifierKind::Mlp,
            seeds: 1,
            mlp: Mlp::default(),
            logistic: Logistic::default(),
            knn: Knn::default(),
            bayes: Bayes::default(),
        }
    }
}

/// Settings of the multi-layer perceptron.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mlp {
    /// Hidden units.
    pub hidden: usize,
    /// Probability that a hidden unit is dropped.
    pub dropout: f32,
    /// AdamW's learning rate at the top of each cosine.
    pub learning_rate: f64,
    /// AdamW's decoupled weight decay.
    pub weight_decay: f64,
    /// Clips a step.
    pub batch: usize,
    /// Epochs at the most.
    pub epochs: usize,
    /// Epochs without a better validation accuracy before training stops.
    pub patience: usize,
    /// Epochs of the first cosine (T_0).
    pub restart_every: usize,
    /// Factor by which each cosine is longer than the one before (T_mult).
    pub restart_factor: usize,
}

impl Default for Mlp {
    fn default() -> Self {
        Self {
            hidden: 512,
            dropout: 0.5,
            learning_rate: 0.01,
            weight_decay: 0.01,
            batch: 64,
            epochs: 100,
            patience: 15,
            restart_every: 10,
            restart_factor: 1,
        }
    }
}

/// Settings of logistic regression.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Logistic {
    /// L2 penalty (scikit-learn's 1/C, over the summed loss).
    pub alpha: f64,
    /// L-BFGS iterations at the most.
    pub max_iterations: u64,
}

impl Default for Logistic {
    fn default() -> Self {
        Self { alpha: 1.0, max_iterations: 300 }
    }
}

/// Settings of k nearest neighbours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Knn {
    /// Neighbours that vote.
    pub neighbours: usize,
}

impl Default for Knn {
    fn default() -> Self {
        Self { neighbours: 5 }
    }
}

/// Settings of Gaussian naive Bayes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bayes {
    /// Share of the largest variance added to every variance (scikit-learn's `var_smoothing`).
    pub smoothing: f64,
}

impl Default for Bayes {
    fn default() -> Self {
        Self { smoothing: 1e-9 }
    }
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
        let mlp = &self.classify.mlp;
        for (name, value) in [
            ("classify.mlp.hidden", mlp.hidden),
            ("classify.mlp.epochs", mlp.epochs),
            ("classify.mlp.patience", mlp.patience),
            ("classify.mlp.restart_every", mlp.restart_every),
            ("classify.mlp.restart_factor", mlp.restart_factor),
            ("classify.knn.neighbours", self.classify.knn.neighbours),
            ("classify.seeds", self.classify.seeds as usize),
        ] {
            positive(name, value)?;
        }
        if mlp.batch < 2 {
            return Err("classify.mlp.batch must be at least 2: batch normalisation needs two clips".into());
        }
        if !(0.0..1.0).contains(&mlp.dropout) {
            return Err("classify.mlp.dropout must be at least 0 and below 1".into());
        }
        Ok(())
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
