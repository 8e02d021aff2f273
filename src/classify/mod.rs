//! Rows → model: classifiers, their training and their files.
//!
//! [`build`] makes the classifier a recipe asks for; [`Classifier::fit`] returns the model; [`SavedModel`] is the model on
//! disk. Features are standardized around any classifier ([`standardize`]), so that none of them knows of it.
//!
//! A new classifier is a file here, a variant of [`ClassifierKind`] with its settings in `recipe.rs`, and an arm in each of
//! [`build`] and [`restore`]: the exhaustive matches find a forgotten one.

mod bayes;
pub mod bilstm;
mod constant;
pub mod early_stopping;
pub mod experiment;
mod export;
mod knn;
pub mod layers;
mod logistic;
pub mod loss;
pub mod mlp;
pub use crate::numeric;
pub mod optimizer;
mod saved;
pub mod schedule;
mod settings;
mod standardize;
mod tensors;
#[cfg(test)]
mod tests;
pub mod training;

use ndarray::Array2;

pub use bayes::{BayesModel, GaussianBayes};
pub use bilstm::{BidirectionalLstm, BilstmModel};
pub use constant::{Constant, ConstantModel};
pub use export::Exporter;
pub use knn::{KnnModel, NearestNeighbors};
pub use logistic::{LogisticModel, LogisticRegression};
pub use mlp::{MlpModel, Perceptron};
pub use saved::{About, SavedModel, predict};
pub use settings::{Overrides, recipe_of};
pub use standardize::{Standardize, Standardized, Standardizer};
pub use tensors::{Tensor, Tensors};
pub use training::Trainer;

use crate::dataset::{Dataset, Task};
use crate::error::Result;
use crate::evaluate::Epoch;
use crate::recipe::{ClassifierKind, Classify};

/// What fits a model to clips.
pub trait Classifier {
    /// Fits to `train`; `valid`, which may be empty, decides when to stop where that is to be decided.
    ///
    /// # Errors
    /// The clips do not suit the classifier: too few, several labels where it takes one, sequences where it takes vectors.
    fn fit(&self, train: &Dataset, valid: &Dataset, fitting: &mut Fitting<'_>) -> Result<Fitted>;
}

/// What a fit may use beside the data.
pub struct Fitting<'a> {
    /// Decides everything that is drawn.
    pub seed: u64,
    /// One label a clip, or any number.
    pub task: Task,
    /// Threads at the most; the fitted model does not depend on it.
    pub threads: usize,
    /// Called after each epoch, where there are epochs.
    pub progress: &'a mut dyn FnMut(&Epoch),
}

/// A fitted model, and how it came about.
pub struct Fitted {
    /// The model.
    pub model: Box<dyn Model>,
    /// Learning curves; empty for classifiers without epochs.
    pub curves: Vec<Epoch>,
    /// What the scores of the curves are: `accuracy` or `mAP`.
    pub measure: &'static str,
    /// The epoch (counted from 1) that was kept, where there are epochs.
    pub kept_epoch: Option<usize>,
    /// What the user should know, such as that the fit did not converge.
    pub notes: Vec<String>,
}

impl Fitted {
    /// A model that was fitted without epochs.
    fn at_once(model: impl Model + 'static, notes: Vec<String>) -> Self {
        Self { model: Box::new(model), curves: vec![], measure: "", kept_epoch: None, notes }
    }
}

/// What scores clips.
pub trait Model: Send + Sync {
    /// Scores (N, C) in [0, 1]; the columns are the classes the model was fitted to.
    ///
    /// # Errors
    /// The features are not of the shape the model was fitted to.
    fn scores(&self, data: &Dataset) -> Result<Array2<f32>>;

    /// Everything the model knows, as named tensors; [`restore`] makes the same model of them.
    fn tensors(&self) -> Vec<Tensor>;

    /// Whether it reads the rows of a clip as a sequence, not as one vector.
    fn reads_sequences(&self) -> bool {
        false
    }

    /// Writes the nodes that compute the scores, (N, C), from `features`, (N, D) or (N, time, D), and gives the name of their output.
    fn export(&self, graph: &mut Exporter, features: &str) -> String;
}

/// The classifier `kind` with the settings of a recipe.
pub fn build(settings: &Classify, kind: ClassifierKind) -> Box<dyn Classifier> {
    let classifier: Box<dyn Classifier> = match kind {
        ClassifierKind::Mlp => Box::new(Perceptron { settings: settings.mlp.clone(), trainer: Trainer::of(settings) }),
        ClassifierKind::Bilstm => {
            Box::new(BidirectionalLstm { settings: settings.bilstm.clone(), trainer: Trainer::of(settings) })
        }
        ClassifierKind::Logistic => Box::new(LogisticRegression(settings.logistic.clone())),
        ClassifierKind::Bayes => Box::new(GaussianBayes(settings.bayes.clone())),
        ClassifierKind::Knn => Box::new(NearestNeighbors(settings.knn.clone())),
        ClassifierKind::Constant => Box::new(Constant),
    };
    if settings.standardize { Box::new(Standardize(classifier)) } else { classifier }
}

/// The model of classifier `kind` with the given tensors, fitted to `task`.
///
/// # Errors
/// A tensor is missing or of another shape.
pub fn restore(kind: ClassifierKind, task: Task, tensors: &Tensors) -> Result<Box<dyn Model>> {
    let model: Box<dyn Model> = match kind {
        ClassifierKind::Mlp => Box::new(MlpModel::restore(tensors, task)?),
        ClassifierKind::Bilstm => Box::new(BilstmModel::restore(tensors, task)?),
        ClassifierKind::Logistic => Box::new(LogisticModel::restore(tensors, task)?),
        ClassifierKind::Bayes => Box::new(BayesModel::restore(tensors, task)?),
        ClassifierKind::Knn => Box::new(KnnModel::restore(tensors)?),
        ClassifierKind::Constant => Box::new(ConstantModel::restore(tensors)?),
    };
    match Standardizer::restore(tensors)? {
        Some(standardizer) => Ok(Box::new(Standardized { standardizer, model })),
        None => Ok(model),
    }
}

/// The word for a classifier: as flags, recipes and files have it.
pub fn name(kind: ClassifierKind) -> &'static str {
    match kind {
        ClassifierKind::Mlp => "mlp",
        ClassifierKind::Bilstm => "bilstm",
        ClassifierKind::Logistic => "logistic",
        ClassifierKind::Bayes => "bayes",
        ClassifierKind::Knn => "knn",
        ClassifierKind::Constant => "constant",
    }
}
