//! Classifiers, their training and their files.
//!
//! [`build`] creates the classifier of [`FitSettings`], [`Classifier::fit`] returns a model, and [`SavedModel`] reads and
//! writes models. Features are standardized and scores calibrated around the classifiers (see [`Standardize`] and [`Calibrated`]), so that
//! no classifier handles it.
//!
//! To add a classifier, write its file (settings with [`ClassifierDefinition`], a [`Classifier`] and a [`Model`]) and add one
//! line to the list in `registry.rs`.

mod attention;
pub mod attentive;
mod bayes;
pub mod bilstm;
pub mod calibration;
pub mod clip_rows;
mod constant;
pub mod cross_validation;
mod definition;
pub mod early_stopping;
pub mod experiment;
mod export;
pub mod gbdt;
pub mod identity;
mod knn;
pub mod layers;
mod linear;
mod log_scores;
mod logistic;
mod logits;
pub mod loss;
pub mod mlp;
pub use crate::numeric;
pub mod optimizer;
pub mod pooled;
mod registry;
mod saved;
pub mod schedule;
pub mod search;
mod standardize;
mod svm;
mod tensors;
#[cfg(test)]
mod tests;
pub mod training;
pub mod transformer;

use ndarray::Array2;

pub use attentive::{AttentiveModel, AttentiveProbe, AttentiveSettings};
pub use bayes::{BayesModel, BayesSettings, GaussianBayes};
pub use bilstm::{BidirectionalLstm, BilstmModel, BilstmSettings, Compat, SequenceSample};
pub use calibration::{Calibrated, Calibration, CalibrationMethod, RunCalibration};
pub use constant::{Constant, ConstantModel, ConstantSettings};
pub use definition::flags_of;
pub(crate) use definition::positive;
pub use definition::{Capabilities, ClassifierDefinition};
pub use export::Exporter;
pub use gbdt::{GbdtModel, GbdtSettings, GradientBoosting};
pub use identity::{RunIdentity, RunInputs};
pub use knn::{KnnModel, KnnSettings, Metric, NearestNeighbors};
pub use linear::{LinearClassifier, LinearLoss, LinearModel, LinearSettings, WarmStart};
pub use log_scores::LogScores;
pub use logistic::{CrossEntropy, LogisticSettings};
pub use logits::LogitsModel;
pub use loss::{ClassWeights, LossKind, LossSettings};
pub use mlp::{MlpModel, MlpSettings, Perceptron};
pub use optimizer::{OptimizerKind, OptimizerSettings};
pub use pooled::Pooled;
pub(crate) use registry::for_each_classifier;
pub use registry::{ClassifierKind, ClassifierSettings};
pub use saved::{FusedRun, ModelMetadata, SavedModel, predict, predictions};
pub use schedule::{ScheduleKind, ScheduleSettings};
pub use standardize::{Standardize, Standardized};
pub use svm::{SquaredHinge, SvmSettings};
pub use tensors::{Tensor, Tensors};
pub use training::{Trainer, TrainingSettings, ValidationMetric};
pub use transformer::{Readout, Transformer, TransformerModel, TransformerSettings};

pub use crate::dataset::Standardizer;
use crate::dataset::{Dataset, Task};
use crate::error::Result;
use crate::evaluate::Epoch;

/// A classifier that can be fitted.
pub trait Classifier {
    /// Fits a model to `train`. `valid` may be empty; trained classifiers use it for early stopping.
    ///
    /// # Errors
    /// Returns an error if the clips do not suit the classifier: too few clips, several labels per clip for a single-label
    /// classifier, or sequences for a vector classifier.
    fn fit(&self, train: &Dataset, valid: &Dataset, context: &mut FitContext<'_>) -> Result<FitOutput>;
}

/// Inputs of a fit besides the data.
pub struct FitContext<'a> {
    /// Seed of all random numbers.
    pub seed: u64,
    /// The prediction task.
    pub task: Task,
    /// Maximum number of threads. The fitted model does not depend on it.
    pub threads: usize,
    /// Called after each epoch of a trained classifier.
    pub progress: &'a mut dyn FnMut(&Epoch),
    /// The fit to the same clips with another penalty, from which linear classifiers start; replaced by this fit.
    pub warm_start: Option<&'a mut WarmStart>,
    /// Last epoch of trained classifiers, counted from 1; their learning rates are those of all epochs. Number of trees of boosted trees.
    pub last_epoch: Option<usize>,
}

impl<'a> FitContext<'a> {
    /// Creates the context of a fit that starts from the initial parameters and trains for all epochs.
    pub fn new(seed: u64, task: Task, threads: usize, progress: &'a mut dyn FnMut(&Epoch)) -> Self {
        Self { seed, task, threads, progress, warm_start: None, last_epoch: None }
    }
}

/// A fitted model and the record of its training.
pub struct FitOutput {
    /// The model.
    pub model: Box<dyn Model>,
    /// Learning curves; empty for classifiers without epochs.
    pub curves: Vec<Epoch>,
    /// Name of the score in the curves: `accuracy` or `mAP`.
    pub score_name: &'static str,
    /// The epoch (counted from 1) whose parameters were kept, for classifiers with epochs; the number of trees for boosted trees.
    pub kept_epoch: Option<usize>,
    /// Notes for the user, such as that the fit did not converge.
    pub notes: Vec<String>,
}

impl FitOutput {
    /// Creates the output of a classifier without epochs.
    fn without_epochs(model: impl Model + 'static, notes: Vec<String>) -> Self {
        Self { model: Box::new(model), curves: vec![], score_name: "", kept_epoch: None, notes }
    }

    /// Adds a calibration to the model, and its notes.
    fn calibrate(self, calibration: Option<&RunCalibration>) -> Self {
        let Some(RunCalibration { calibration, notes, .. }) = calibration else { return self };
        let model = Box::new(Calibrated { calibration: calibration.clone(), model: self.model });
        Self { model, notes: [self.notes, notes.clone()].concat(), ..self }
    }
}

/// A fitted model that scores clips.
pub trait Model: Send + Sync {
    /// Computes scores (N, C) in [0, 1]. The columns are the classes the model was fitted to.
    ///
    /// # Errors
    /// Returns an error if the features do not have the shape the model was fitted to.
    fn scores(&self, data: &Dataset) -> Result<Array2<f32>>;

    /// Returns the output layer with its inputs (N, H) for the clips of `data`: the scores are those of the layer for its
    /// inputs. `None` for models without a linear output layer.
    ///
    /// # Errors
    /// Returns an error if the features do not have the shape the model was fitted to.
    fn output_layer(&self, _data: &Dataset) -> Result<Option<(Array2<f32>, LinearModel)>> {
        Ok(None)
    }

    /// Returns the model with another output layer, which has the shape of its own; `None` for models without one.
    fn with_output_layer(&self, _layer: LinearModel) -> Option<Box<dyn Model>> {
        None
    }

    /// Returns all parameters of the model; [`restore`] creates the same model from them.
    fn tensors(&self) -> Vec<Tensor>;

    /// `true` if the model reads the rows of a clip as a sequence.
    fn reads_sequences(&self) -> bool {
        false
    }

    /// `true` if the model reads all rows of a clip, instead of one that represents the clip.
    fn reads_all_rows(&self) -> bool {
        self.reads_sequences()
    }

    /// Adds the nodes that compute the scores (N, C) from the value `features`, (N, D) or (N, time, D), to `graph` and
    /// returns the name of their output.
    fn export(&self, graph: &mut Exporter, features: &str) -> String;
}

/// The settings of a fit: the validated part of `[classify]` that one classifier uses.
#[derive(Debug, Clone, PartialEq)]
pub struct FitSettings {
    /// The classifier and its settings.
    pub classifier: ClassifierSettings,
    /// Standardize features by the mean and standard deviation of the training split.
    pub standardize: bool,
    /// Number of seeds (0, 1, …) that a trained classifier is fitted with.
    pub seeds: u64,
    /// Fit the model of a run to the clips of train and val.
    pub refit: bool,
    /// Calibration of the scores on the validation split.
    pub calibrate: CalibrationMethod,
    /// The training loop of trained classifiers.
    pub trainer: Trainer,
}

impl FitSettings {
    /// Returns the settings of one fit of a classifier to standardized features, with the default training loop.
    pub fn new(classifier: ClassifierSettings) -> Self {
        Self {
            classifier,
            standardize: true,
            seeds: 1,
            refit: false,
            calibrate: CalibrationMethod::None,
            trainer: Trainer::default(),
        }
    }
}

/// Creates the classifier of `settings`.
pub fn build(settings: &FitSettings) -> Box<dyn Classifier> {
    let classifier = settings.classifier.build(&settings.trainer);
    if settings.standardize { Box::new(Standardize(classifier)) } else { classifier }
}

/// Restores a model of the classifier `kind`, fitted to `task`, from its saved tensors.
///
/// # Errors
/// Returns an error if a tensor is missing or has a wrong shape.
pub fn restore(kind: ClassifierKind, task: Task, tensors: &Tensors) -> Result<Box<dyn Model>> {
    let model = kind.restore(tensors, task)?;
    let model = match standardize::restore_standardizer(tensors)? {
        Some(standardizer) => Box::new(Standardized { standardizer, model }),
        None => model,
    };
    let model: Box<dyn Model> = match LogScores::restore_margin(tensors)? {
        Some(margin) => Box::new(LogScores { task, margin, model }),
        None => model,
    };
    match Calibration::restore(tensors)? {
        Some(calibration) => Ok(Box::new(Calibrated { calibration, model })),
        None => Ok(model),
    }
}
