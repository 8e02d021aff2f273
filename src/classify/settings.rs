//! The recipe a store is classified by: a file, what the store says of itself, and flags.

use std::path::Path;

use crate::dataset::Task;
use crate::error::{Error, Result};
use crate::extract::{ExtractionSettings, Extractor};
use crate::media::Sampling;
use crate::posters::By;
use crate::recipe::{
    self, ClassifierKind, Classify, Compat, LossKind, OptimizerKind, Recipe, ScheduleKind, SequenceSample,
};
use crate::store::{FeatureStore, Pooling};

/// The recipe for `store`: `file`, or else pipelines/METHOD.toml where that exists, or else the defaults; its sampling and
/// extractor are those the store was really made with, where it says so; `values` go before all.
///
/// # Errors
/// The file is missing or wrong, or a value is out of range.
pub fn recipe_of(store: &FeatureStore, file: Option<&Path>, values: &Overrides) -> Result<Recipe> {
    let provenance = store.provenance();
    let method = match provenance.method.as_str() {
        "" => store.path().file_stem().map_or("features".into(), |stem| stem.to_string_lossy().into_owned()),
        method => method.to_string(),
    };
    let usual = Path::new("pipelines").join(format!("{method}.toml"));
    let mut recipe = match file {
        Some(file) => Recipe::load(file)?,
        None if usual.is_file() => Recipe::load(&usual)?,
        None => Recipe {
            method: method.clone(),
            sampling: Sampling::Even { frames: 1 },
            extractor: Extractor::Network { card: "unknown".into(), batch: 1 },
            codebook: None,
            classify: Classify::default(),
            run: None,
        },
    };
    recipe.method = method;
    if let Ok(ExtractionSettings { sampling, extractor, codebook }) = serde_json::from_str(&provenance.recipe) {
        (recipe.sampling, recipe.extractor, recipe.codebook) = (sampling, extractor, codebook);
    }
    values.apply(&mut recipe.classify);
    recipe.classify.pooling = recipe.classify.classifier.pooling(recipe.classify.pooling);
    recipe.validate().map_err(|message| Error::Config { path: file.map_or(usual, Path::to_path_buf), message })?;
    Ok(recipe)
}

/// Single values of `[classify]`, as flags of the same names.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Values of the recipe")]
pub struct Overrides {
    /// Which classifier.
    #[arg(long)]
    pub classifier: Option<ClassifierKind>,
    /// Fit with this many seeds, 0, 1, …; the first one's model is kept.
    #[arg(long, value_name = "N")]
    pub seeds: Option<u64>,
    /// Which pooled features.
    #[arg(long)]
    pub pooling: Option<Pooling>,
    /// Standardize features by the training split.
    #[arg(long, value_name = "BOOL")]
    pub standardize: Option<bool>,
    /// One label a clip or several; where neither is given, the data decide.
    #[arg(long)]
    pub task: Option<Task>,
    /// mlp, bilstm: hidden units (of each direction).
    #[arg(long, value_name = "N")]
    pub hidden: Option<usize>,
    /// mlp, bilstm: probability of dropout.
    #[arg(long, value_name = "P")]
    pub dropout: Option<f32>,
    /// bilstm: rows of a clip at the most.
    #[arg(long, value_name = "N")]
    pub length: Option<usize>,
    /// bilstm: which rows of a longer clip.
    #[arg(long)]
    pub sample: Option<SequenceSample>,
    /// bilstm: a network as others published it.
    #[arg(long)]
    pub compat: Option<Compat>,
    /// What training minimizes.
    #[arg(long)]
    pub loss: Option<LossKind>,
    /// Weights against imbalance, in the loss.
    #[arg(long, value_name = "RULE")]
    pub loss_weights: Option<recipe::ClassWeights>,
    /// How gradients become steps.
    #[arg(long)]
    pub optimizer: Option<OptimizerKind>,
    /// The learning rate at its highest.
    #[arg(long, value_name = "X")]
    pub learning_rate: Option<f64>,
    /// The optimizer's weight decay.
    #[arg(long, value_name = "X")]
    pub weight_decay: Option<f64>,
    /// Which curve the learning rate follows.
    #[arg(long)]
    pub schedule: Option<ScheduleKind>,
    /// Epochs of linear warm-up in front of it.
    #[arg(long, value_name = "N")]
    pub warm_up: Option<usize>,
    /// Clips a step.
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,
    /// Epochs at the most.
    #[arg(long, value_name = "N")]
    pub epochs: Option<usize>,
    /// Epochs without a better one before training stops.
    #[arg(long, value_name = "N")]
    pub patience: Option<usize>,
    /// What makes an epoch better, on the validation split.
    #[arg(long)]
    pub watch: Option<recipe::Watch>,
    /// What makes an epoch the one that is kept, on the validation split [default: as --watch].
    #[arg(long)]
    pub keep: Option<recipe::Watch>,
    /// One model a year of the manifest (and one for all), or one for all; writes a folder of models, not of one run.
    #[arg(long)]
    pub by: Option<By>,
    /// by year: train on this many years, as many before as after; 10 for the decade from 5 years before to 4 after.
    #[arg(long, value_name = "YEARS")]
    pub window: Option<i32>,
    /// Schedule restarts: epochs of the first cosine (T_0).
    #[arg(long, value_name = "N")]
    pub restart_every: Option<usize>,
    /// Schedule restarts: how many times longer each cosine is (T_mult).
    #[arg(long, value_name = "N")]
    pub restart_factor: Option<usize>,
    /// logistic: L2 penalty.
    #[arg(long, value_name = "X")]
    pub alpha: Option<f64>,
    /// logistic: L-BFGS iterations at the most.
    #[arg(long, value_name = "N")]
    pub max_iterations: Option<u64>,
    /// knn: neighbors that vote.
    #[arg(long, value_name = "K")]
    pub neighbors: Option<usize>,
    /// bayes: share of the largest variance added to every variance.
    #[arg(long, value_name = "X")]
    pub smoothing: Option<f64>,
}

impl Overrides {
    fn apply(&self, classify: &mut Classify) {
        fn set<T: Copy>(to: &mut T, value: Option<T>) {
            *to = value.unwrap_or(*to);
        }
        set(&mut classify.classifier, self.classifier);
        set(&mut classify.seeds, self.seeds);
        set(&mut classify.pooling, self.pooling);
        set(&mut classify.standardize, self.standardize);
        classify.task = self.task.or(classify.task);
        classify.loss.kind = self.loss.or(classify.loss.kind);
        classify.bilstm.compat = self.compat.or(classify.bilstm.compat);
        let (hidden, dropout) = match classify.classifier {
            ClassifierKind::Bilstm => (&mut classify.bilstm.hidden, &mut classify.bilstm.dropout),
            _ => (&mut classify.mlp.hidden, &mut classify.mlp.dropout),
        };
        set(hidden, self.hidden);
        set(dropout, self.dropout);
        set(&mut classify.bilstm.length, self.length);
        set(&mut classify.bilstm.sample, self.sample);
        set(&mut classify.loss.weights, self.loss_weights);
        set(&mut classify.optimizer.kind, self.optimizer);
        set(&mut classify.optimizer.learning_rate, self.learning_rate);
        set(&mut classify.optimizer.weight_decay, self.weight_decay);
        set(&mut classify.schedule.kind, self.schedule);
        set(&mut classify.schedule.warm_up, self.warm_up);
        set(&mut classify.schedule.restart_every, self.restart_every);
        set(&mut classify.schedule.restart_factor, self.restart_factor);
        set(&mut classify.training.batch, self.batch);
        set(&mut classify.training.epochs, self.epochs);
        set(&mut classify.training.patience, self.patience);
        set(&mut classify.training.watch, self.watch);
        classify.training.keep = self.keep.or(classify.training.keep);
        classify.by = self.by.or(classify.by);
        classify.window = self.window.or(classify.window.filter(|_| classify.by == Some(By::Year)));
        set(&mut classify.logistic.alpha, self.alpha);
        set(&mut classify.logistic.max_iterations, self.max_iterations);
        set(&mut classify.knn.neighbors, self.neighbors);
        set(&mut classify.bayes.smoothing, self.smoothing);
    }
}
