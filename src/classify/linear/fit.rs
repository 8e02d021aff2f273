//! The fit of linear classifiers.

use ndarray::{Array1, Array2, ArrayView2, Axis};
use serde::{Deserialize, Serialize};

use super::{LinearModel, Link, Objective, Weights, minimize};
use crate::classify::{FitContext, FitOutput};
use crate::dataset::{Dataset, Task};
use crate::error::{Error, Result};

/// Largest component of the mean gradient below which a fit is reported as converged (scikit-learn's `tol`).
const CONVERGENCE_TOLERANCE: f64 = 1e-4;
/// Distance of the mean loss from its minimum at which the search ends. At this value probabilities agree with the optimum to 1e-4.
const LOSS_TOLERANCE: f64 = 1e-12;

/// Class weights, as scikit-learn's `class_weight`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ClassWeight {
    /// All 1.
    #[default]
    None,
    /// N/(C·n_c) for class c with n_c of N clips and C classes. For several labels per clip, positives and negatives of each label
    /// are two classes.
    Balanced,
}

/// Settings of a fit.
#[derive(Debug, Clone)]
pub struct LinearFit {
    /// Name of the classifier in recipes.
    pub classifier: &'static str,
    /// Loss of a single-label task; instead of [`Link::Softmax`], a multi-label task has [`Link::Sigmoid`].
    pub link: Link,
    /// L2 penalty α on the summed loss.
    pub alpha: f64,
    /// Class weights.
    pub class_weight: ClassWeight,
    /// Maximum number of L-BFGS iterations.
    pub max_iterations: u64,
}

impl LinearFit {
    /// Fits a model to `train`.
    ///
    /// # Errors
    /// Returns an error if the clips are sequences, a class of a single-label task has no clip, or the parameters are not finite.
    pub fn fit(&self, train: &Dataset, context: &FitContext<'_>) -> Result<FitOutput> {
        let (vectors, targets) = (train.vectors()?, train.targets.view());
        // Labels of all or no clips get a constant score.
        let fitted = match context.task {
            Task::SingleLabel => {
                let labels = train.single_labels()?;
                if let Some(class) = (0..train.classes.len()).find(|class| !labels.contains(class)) {
                    return Err(self.error(&format!("class {} has no training clip", train.classes[class])));
                }
                (0..train.classes.len()).collect()
            }
            Task::MultiLabel => varying_labels(targets),
        };
        let link = match (self.link, context.task) {
            (Link::Softmax, Task::MultiLabel) => Link::Sigmoid,
            (link, _) => link,
        };
        let mut parameters = start(link, targets, vectors.ncols());
        let mut gradient = 0.0;
        if !fitted.is_empty() {
            let targets = targets.select(Axis(1), &fitted);
            let weights = match self.class_weight {
                ClassWeight::None => Weights::ones(fitted.len()),
                ClassWeight::Balanced => balanced(context.task, targets.view()),
            };
            let start = parameters.select(Axis(0), &fitted);
            let mut objective =
                Objective::new(link, vectors.view(), targets.view(), weights, self.alpha, context.threads);
            let minimum = minimize(&mut objective, start, LOSS_TOLERANCE, self.max_iterations);
            for (row, class) in minimum.parameters.rows().into_iter().zip(fitted) {
                parameters.row_mut(class).assign(&row);
            }
            gradient = minimum.gradient;
        }
        if !parameters.iter().all(|value| value.is_finite()) {
            return Err(self.error(&format!("the weights diverged; raise classify.{}.alpha", self.classifier)));
        }
        let notes = if gradient > CONVERGENCE_TOLERANCE {
            vec![format!(
                "{0} did not converge in {1} iterations (mean gradient {gradient:.1e} > {CONVERGENCE_TOLERANCE:.0e}); \
                 raise classify.{0}.max_iterations",
                self.classifier, self.max_iterations
            )]
        } else {
            vec![]
        };
        let parameters = parameters.mapv(|value| value as f32);
        let (weight, bias) = parameters.view().split_at(Axis(1), vectors.ncols());
        let model = LinearModel { weight: weight.to_owned(), bias: bias.column(0).to_owned(), task: context.task };
        Ok(FitOutput::without_epochs(model, notes))
    }

    fn error(&self, reason: &str) -> Error {
        Error::Data(format!("cannot fit {}: {reason}", self.classifier))
    }
}

/// Returns the labels that some, but not all clips have.
fn varying_labels(targets: ArrayView2<'_, f32>) -> Vec<usize> {
    let varies = |label: &usize| {
        let column = targets.column(*label);
        column.iter().any(|t| *t > 0.0) && column.iter().any(|t| *t <= 0.0)
    };
    (0..targets.ncols()).filter(varies).collect()
}

/// Returns the number of clips of each class, (C).
fn positives(targets: ArrayView2<'_, f32>) -> Array1<f64> {
    targets.columns().into_iter().map(|column| column.iter().map(|&t| f64::from(t)).sum()).collect()
}

/// Returns balanced weights. Each class has clips and lacks others, or is the only one of a single-label task.
fn balanced(task: Task, targets: ArrayView2<'_, f32>) -> Weights {
    let (count, classes) = (targets.nrows() as f64, targets.ncols());
    let positives = positives(targets);
    match task {
        Task::SingleLabel => Weights {
            positive: positives.mapv(|n| (count / (classes as f64 * n)) as f32),
            negative: Array1::ones(classes),
        },
        Task::MultiLabel => Weights {
            positive: positives.mapv(|n| (count / (2.0 * n)) as f32),
            negative: positives.mapv(|n| (count / (2.0 * (count - n))) as f32),
        },
    }
}

/// Returns the parameters (C, D + 1) of W = 0 and the bias that is optimal for it without class weights: the logarithm of the frequency
/// of a class, for labels the log odds of (positives + ½)/(N + 1), and 2·frequency − 1 for the squared hinge loss.
fn start(link: Link, targets: ArrayView2<'_, f32>, dim: usize) -> Array2<f64> {
    let count = targets.nrows() as f64;
    let mut parameters = Array2::zeros((targets.ncols(), dim + 1));
    parameters.column_mut(dim).assign(&positives(targets).mapv(|positives| match link {
        Link::Softmax => (positives / count).ln(),
        Link::Sigmoid => ((positives + 0.5) / (count - positives + 0.5)).ln(),
        Link::SquaredHinge => 2.0 * positives / count - 1.0,
    }));
    parameters
}
