//! Gaussian naive Bayes.

use std::collections::HashMap;

use linfa::DatasetBase;
use linfa::traits::Fit;
use linfa_bayes::GaussianNb;
use ndarray::{Array1, Array2, Axis};
use serde::{Deserialize, Serialize};

use super::definition::non_negative;
use super::standardize::check_dim;
use super::{
    Capabilities, ClassWeights, Classifier, ClassifierDefinition, Exporter, FitContext, FitOutput, Model, Tensor,
    Tensors, Trainer,
};
use crate::dataset::{Dataset, Task};
use crate::error::{Error, Result};
use crate::value_parsers;

/// Settings of Gaussian naive Bayes; the table `[classify.bayes]` of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct BayesSettings {
    /// Share of the largest feature variance that is added to every variance (scikit-learn's `var_smoothing`).
    #[arg(long, value_name = "X", value_parser = value_parsers::non_negative)]
    pub smoothing: f64,
    /// Class weights.
    #[arg(id = "class_weight", long = "class-weight", value_name = "RULE")]
    pub class_weight: ClassWeights,
}

impl Default for BayesSettings {
    fn default() -> Self {
        Self { smoothing: 1e-9, class_weight: ClassWeights::None }
    }
}

impl ClassifierDefinition for BayesSettings {
    const CAPABILITIES: Capabilities = Capabilities { sequences: false, trained: false };
    const SEARCH: &'static [(&'static str, &'static str)] = &[("smoothing", "log:1e-9..1")];

    fn validate(&self) -> std::result::Result<(), String> {
        non_negative("classify.bayes.smoothing", self.smoothing)
    }

    fn build(&self, _: &Trainer) -> Box<dyn Classifier> {
        Box::new(GaussianBayes(self.clone()))
    }

    fn restore(tensors: &Tensors, task: Task) -> Result<Box<dyn Model>> {
        Ok(Box::new(BayesModel::restore(tensors, task)?))
    }
}

/// p(class | x) ∝ p(class) · ∏ N(x_d; θ_d, σ²_d): one normal distribution per class and feature. A share of the largest
/// variance of any feature is added to every variance, as in scikit-learn's `GaussianNB`. For several labels per clip, one
/// binary model per label (scikit-learn's `OneVsRestClassifier`). Balanced class weights (scikit-learn: as `sample_weight`) make the priors
/// of all classes with training clips equal.
///
/// The model is fitted by linfa. linfa's own probabilities exponentiate before they normalize, which underflows to 0/0 for
/// more than a few hundred features. They are therefore computed here from the fitted parameters, which linfa exposes only
/// through serialization.
pub struct GaussianBayes(pub BayesSettings);

/// The serialized form of linfa's model.
#[derive(Deserialize)]
struct FittedBayes {
    class_info: HashMap<usize, FittedClass>,
}

#[derive(Deserialize)]
struct FittedClass {
    prior: f64,
    theta: Array1<f64>,
    sigma: Array1<f64>,
}

impl Classifier for GaussianBayes {
    fn fit(&self, train: &Dataset, _: &Dataset, context: &mut FitContext<'_>) -> Result<FitOutput> {
        let (vectors, labels) = (train.vectors()?.mapv(f64::from), train.classes.len());
        let mut model = BayesModel::empty(context.task, labels, train.dim());
        match context.task {
            Task::SingleLabel => {
                for (class, info) in self.fit_classes(&vectors, train.single_labels()?)? {
                    model.set(class, info);
                }
            }
            Task::MultiLabel => {
                for (label, column) in train.targets.columns().into_iter().enumerate() {
                    let absent: Vec<usize> = column.iter().map(|&target| usize::from(target == 0.0)).collect();
                    for (absent, info) in self.fit_classes(&vectors, absent)? {
                        model.set(absent * labels + label, info);
                    }
                }
            }
        }
        Ok(FitOutput::without_epochs(model, vec![]))
    }
}

impl GaussianBayes {
    /// Fits one Gaussian model per class to `vectors` (N, D); `classes` holds the class of each vector.
    fn fit_classes(&self, vectors: &Array2<f64>, classes: Vec<usize>) -> Result<HashMap<usize, FittedClass>> {
        let failed = |reason: String| Error::Data(format!("cannot fit naive Bayes: {reason}"));
        let fitted = GaussianNb::<f64, usize>::params()
            .var_smoothing(self.0.smoothing)
            .fit(&DatasetBase::new(vectors.view(), Array1::from_vec(classes)))
            .map_err(|error| failed(error.to_string()))?;
        let fitted: FittedBayes = serde_json::to_value(&fitted)
            .and_then(serde_json::from_value)
            .map_err(|error| failed(format!("unexpected serialization of linfa's model: {error}")))?;
        let mut classes = fitted.class_info;
        if self.0.class_weight == ClassWeights::Balanced {
            // Equal weights within a class change neither its mean nor its variance.
            let prior = 1.0 / classes.len() as f64;
            classes.values_mut().for_each(|class| class.prior = prior);
        }
        Ok(classes)
    }
}

/// The fitted model of [`GaussianBayes`]. Scores are computed in double precision. For one label per clip there is one row
/// per class (R = C); for several, the C rows of "has the label" are followed by those of "does not have it" (R = 2C).
#[derive(Debug, Clone, PartialEq)]
pub struct BayesModel {
    /// ln p(class), (R).
    log_prior: Array1<f32>,
    /// θ, (R, D).
    mean: Array2<f32>,
    /// σ², (R, D).
    variance: Array2<f32>,
    task: Task,
}

impl BayesModel {
    /// Creates a model without fitted rows.
    fn empty(task: Task, classes: usize, dim: usize) -> Self {
        let rows = if task == Task::MultiLabel { 2 * classes } else { classes };
        let log_prior = Array1::from_elem(rows, f32::NEG_INFINITY);
        Self { log_prior, mean: Array2::zeros((rows, dim)), variance: Array2::ones((rows, dim)), task }
    }

    /// Sets the parameters of one row.
    fn set(&mut self, row: usize, class: FittedClass) {
        self.log_prior[row] = class.prior.ln() as f32;
        self.mean.row_mut(row).assign(&class.theta.mapv(|v| v as f32));
        // A variance is 0 only if all features are constant.
        self.variance.row_mut(row).assign(&class.sigma.mapv(|v| (v as f32).max(f32::MIN_POSITIVE)));
    }

    /// Restores the model from its saved tensors; `task` is the task it was fitted to.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing or has a wrong shape.
    pub fn restore(tensors: &Tensors, task: Task) -> Result<Self> {
        let mean = tensors.matrix("bayes.mean")?;
        let variance = tensors.matrix_of("bayes.variance", mean.ncols())?;
        let log_prior = tensors.vector_of("bayes.log_prior", mean.nrows())?;
        if variance.nrows() != mean.nrows() || task == Task::MultiLabel && mean.nrows() % 2 != 0 {
            return Err(
                tensors.error("bayes.mean and bayes.variance have different numbers of rows, or an odd one".into())
            );
        }
        Ok(Self { log_prior, mean, variance, task })
    }

    /// Computes ln p(class) − ½ Σ ln(2πσ²), (R).
    fn offsets(&self) -> Array1<f64> {
        let logs = self.variance.mapv(|v| (2.0 * std::f64::consts::PI * f64::from(v)).ln()).sum_axis(Axis(1));
        logs * -0.5 + self.log_prior.mapv(f64::from)
    }
}

impl Model for BayesModel {
    fn scores(&self, data: &Dataset) -> Result<Array2<f32>> {
        check_dim(data.dim(), self.mean.ncols())?;
        let (rows, offsets) = (self.mean.nrows(), self.offsets());
        let precision = self.variance.mapv(|v| 1.0 / f64::from(v));
        let classes = if self.task == Task::MultiLabel { rows / 2 } else { rows };
        let mut scores = Array2::zeros((data.len(), classes));
        for (x, mut scores) in data.vectors()?.rows().into_iter().zip(scores.rows_mut()) {
            let logs: Vec<f64> = (0..rows)
                .map(|class| {
                    let distance: f64 = x
                        .iter()
                        .zip(self.mean.row(class))
                        .zip(precision.row(class))
                        .map(|((&x, &mean), &precision)| (f64::from(x) - f64::from(mean)).powi(2) * precision)
                        .sum();
                    offsets[class] - 0.5 * distance
                })
                .collect();
            match self.task {
                Task::SingleLabel => {
                    let top = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let sum: f64 = logs.iter().map(|log| (log - top).exp()).sum();
                    scores.iter_mut().zip(&logs).for_each(|(score, log)| *score = ((log - top).exp() / sum) as f32);
                }
                Task::MultiLabel => {
                    let (present, absent) = logs.split_at(classes);
                    for ((score, present), absent) in scores.iter_mut().zip(present).zip(absent) {
                        *score = (1.0 / (1.0 + (absent - present).exp())) as f32;
                    }
                }
            }
        }
        Ok(scores)
    }

    fn tensors(&self) -> Vec<Tensor> {
        vec![
            Tensor::vector("bayes.log_prior", self.log_prior.view()),
            Tensor::matrix("bayes.mean", self.mean.view()),
            Tensor::matrix("bayes.variance", self.variance.view()),
        ]
    }

    /// Expands the log likelihood to −½ x²·(1/σ²) + x·(θ/σ²) + (offset − ½ Σ θ²/σ²), in double precision.
    fn export(&self, graph: &mut Exporter, features: &str) -> String {
        let x = graph.double(features);
        let [mean, variance] = ["bayes.mean", "bayes.variance"].map(|name| {
            let values = if name == "bayes.mean" { &self.mean } else { &self.variance };
            let constant = graph.constant(Tensor::matrix(name, values.view()));
            graph.double(&constant)
        });
        let slope = graph.node("Div", &[&mean, &variance]);
        let quadratic = graph.node("Mul", &[&mean, &slope]);
        let quadratic = graph.reduce("ReduceSum", &quadratic, 1);
        let half = graph.scalar(0.5);
        let half = graph.double(&half);
        let quadratic = graph.node("Mul", &[&quadratic, &half]);
        let offsets = graph.constant_f64("bayes.offsets", &self.offsets().to_vec());
        let offsets = graph.node("Sub", &[&offsets, &quadratic]);
        let linear = graph.linear(&x, &slope, &offsets);
        let precision = graph.node("Reciprocal", &[&variance]);
        let squares = graph.node("Mul", &[&x, &x]);
        let logs = graph.scaled_linear(&squares, &precision, &linear, -0.5);
        let logits = match self.task {
            Task::SingleLabel => logs,
            Task::MultiLabel => {
                let classes = self.mean.nrows() / 2;
                let present = graph.columns(&logs, 0..classes);
                let absent = graph.columns(&logs, classes..2 * classes);
                graph.node("Sub", &[&present, &absent])
            }
        };
        let probabilities = graph.scores(&logits, self.task);
        graph.single(&probabilities)
    }
}
