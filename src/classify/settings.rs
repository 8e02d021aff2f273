//! The recipe a store is classified by: a file, what the store says of itself, and flags.

use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::recipe::{self, ClassifierKind, Classify, Extractor, Pooling, Recipe, Sampling};
use crate::store::FeatureStore;

/// What of a recipe a store records: [`Recipe::extraction_json`], read back.
#[derive(Deserialize)]
struct Extraction {
    sampling: Sampling,
    extractor: Extractor,
    #[serde(default)]
    codebook: Option<recipe::Codebook>,
}

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
        },
    };
    recipe.method = method;
    if let Ok(Extraction { sampling, extractor, codebook }) = serde_json::from_str(&provenance.recipe) {
        (recipe.sampling, recipe.extractor, recipe.codebook) = (sampling, extractor, codebook);
    }
    values.apply(&mut recipe.classify);
    recipe.check().map_err(|message| Error::Config { path: file.map_or(usual, Path::to_path_buf), message })?;
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
    /// Standardise features by the training split.
    #[arg(long, value_name = "BOOL")]
    pub standardise: Option<bool>,
    /// mlp: hidden units.
    #[arg(long, value_name = "N")]
    pub hidden: Option<usize>,
    /// mlp: probability of dropout.
    #[arg(long, value_name = "P")]
    pub dropout: Option<f32>,
    /// mlp: AdamW's learning rate.
    #[arg(long, value_name = "X")]
    pub learning_rate: Option<f64>,
    /// mlp: AdamW's weight decay.
    #[arg(long, value_name = "X")]
    pub weight_decay: Option<f64>,
    /// mlp: clips a step.
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,
    /// mlp: epochs at the most.
    #[arg(long, value_name = "N")]
    pub epochs: Option<usize>,
    /// mlp: epochs without a better validation accuracy before training stops.
    #[arg(long, value_name = "N")]
    pub patience: Option<usize>,
    /// mlp: epochs of the first cosine (T_0).
    #[arg(long, value_name = "N")]
    pub restart_every: Option<usize>,
    /// mlp: how many times longer each cosine is (T_mult).
    #[arg(long, value_name = "N")]
    pub restart_factor: Option<usize>,
    /// logistic: L2 penalty.
    #[arg(long, value_name = "X")]
    pub alpha: Option<f64>,
    /// logistic: L-BFGS iterations at the most.
    #[arg(long, value_name = "N")]
    pub max_iterations: Option<u64>,
    /// knn: neighbours that vote.
    #[arg(long, value_name = "K")]
    pub neighbours: Option<usize>,
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
        set(&mut classify.standardise, self.standardise);
        set(&mut classify.mlp.hidden, self.hidden);
        set(&mut classify.mlp.dropout, self.dropout);
        set(&mut classify.mlp.learning_rate, self.learning_rate);
        set(&mut classify.mlp.weight_decay, self.weight_decay);
        set(&mut classify.mlp.batch, self.batch);
        set(&mut classify.mlp.epochs, self.epochs);
        set(&mut classify.mlp.patience, self.patience);
        set(&mut classify.mlp.restart_every, self.restart_every);
        set(&mut classify.mlp.restart_factor, self.restart_factor);
        set(&mut classify.logistic.alpha, self.alpha);
        set(&mut classify.logistic.max_iterations, self.max_iterations);
        set(&mut classify.knn.neighbours, self.neighbours);
        set(&mut classify.bayes.smoothing, self.smoothing);
    }
}
