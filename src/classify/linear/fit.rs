//! The fit of linear classifiers.

use std::marker::PhantomData;

use ndarray::{Array1, Array2, ArrayView2, Axis};
use serde::{Deserialize, Serialize};

use super::reduced::Reduced;
use super::{LinearModel, Link, Objective, WarmStart, Weights, minimize};
use crate::classify::definition::{non_negative, positive};
use crate::classify::{
    Capabilities, ClassWeights, Classifier, ClassifierDefinition, FitContext, FitOutput, Model, Tensors, Trainer,
};
use crate::dataset::{Dataset, Task};
use crate::error::{Error, Result};
use crate::value_parsers;

/// Largest component of the mean gradient below which a fit is reported as converged (scikit-learn's `tol`).
const CONVERGENCE_TOLERANCE: f64 = 1e-4;
/// Distance of the mean loss from its minimum at which the search ends. At this value probabilities agree with the optimum to 1e-4.
const LOSS_TOLERANCE: f64 = 3e-12;
/// The same for fewer clips than features, whose loss determines the parameters less.
const REDUCED_TOLERANCE: f64 = 1e-15;

/// A loss of linear classifiers, as a type.
pub trait LinearLoss: std::fmt::Debug + Clone + PartialEq + Send + Sync + 'static {
    /// Name of the classifier.
    const CLASSIFIER: &'static str;
    /// Loss of a single-label task; instead of [`Link::Softmax`], a multi-label task has [`Link::Sigmoid`].
    const LINK: Link;
    /// Default of [`LinearSettings::max_iterations`].
    const MAX_ITERATIONS: u64;
    /// Penalties that a search tries by default.
    const ALPHAS: &'static str;
}

/// Settings of a linear classifier; its table in `[classify]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default, bound = "")]
pub struct LinearSettings<L: LinearLoss> {
    /// L2 penalty on the summed loss (scikit-learn's 1/C).
    #[arg(long, value_name = "X", value_parser = value_parsers::non_negative)]
    pub alpha: f64,
    /// Class weights.
    #[arg(id = "class_weight", long = "class-weight", value_name = "RULE")]
    pub class_weight: ClassWeights,
    /// Maximum number of L-BFGS iterations.
    #[arg(long, value_name = "N", value_parser = value_parsers::at_least(1_u64))]
    pub max_iterations: u64,
    #[serde(skip)]
    #[arg(skip)]
    pub(crate) loss: PhantomData<L>,
}

impl<L: LinearLoss> Default for LinearSettings<L> {
    fn default() -> Self {
        Self { alpha: 1.0, class_weight: ClassWeights::None, max_iterations: L::MAX_ITERATIONS, loss: PhantomData }
    }
}

impl<L: LinearLoss> ClassifierDefinition for LinearSettings<L> {
    const CAPABILITIES: Capabilities = Capabilities { sequences: false, trained: false };
    const POOLS: bool = matches!(L::LINK, Link::Softmax);
    const SEARCH: &'static [(&'static str, &'static str)] = &[("alpha", L::ALPHAS)];

    fn penalty_mut(&mut self) -> Option<&mut f64> {
        Some(&mut self.alpha)
    }

    fn validate(&self) -> std::result::Result<(), String> {
        non_negative(&format!("classify.{}.alpha", L::CLASSIFIER), self.alpha)?;
        positive(&format!("classify.{}.max_iterations", L::CLASSIFIER), self.max_iterations as usize)
    }

    fn build(&self, _: &Trainer) -> Box<dyn Classifier> {
        Box::new(LinearClassifier(self.clone()))
    }

    fn restore(tensors: &Tensors, task: Task) -> Result<Box<dyn Model>> {
        Ok(Box::new(LinearModel::restore(tensors, task)?))
    }
}

/// Fits W and b of a [`LinearModel`] to the loss `L` with an L2 penalty.
pub struct LinearClassifier<L: LinearLoss>(pub LinearSettings<L>);

impl<L: LinearLoss> Classifier for LinearClassifier<L> {
    fn fit(&self, train: &Dataset, _: &Dataset, context: &mut FitContext<'_>) -> Result<FitOutput> {
        let LinearSettings { alpha, class_weight, max_iterations, .. } = self.0;
        let (vectors, targets) = (train.vectors()?, train.targets.view());
        // Labels of all or no clips get a constant score.
        let fitted = match context.task {
            Task::SingleLabel => {
                let labels = train.single_labels()?;
                if let Some(class) = (0..train.classes.len()).find(|class| !labels.contains(class)) {
                    return Err(fit_error::<L>(&format!("class {} has no training clip", train.classes[class])));
                }
                (0..train.classes.len()).collect()
            }
            Task::MultiLabel => varying_labels(targets),
        };
        let link = match (L::LINK, context.task) {
            (Link::Softmax, Task::MultiLabel) => Link::Sigmoid,
            (link, _) => link,
        };
        let mut parameters = start(link, targets, vectors.ncols());
        let mut gradient = 0.0;
        if !fitted.is_empty() {
            let targets = targets.select(Axis(1), &fitted);
            let weights = match class_weight {
                ClassWeights::None => Weights::ones(fitted.len()),
                ClassWeights::Balanced => balanced(context.task, targets.view()),
            };
            let earlier = context.warm_start.as_deref_mut().map(std::mem::take).unwrap_or_default();
            let reduced = earlier.reduced.or_else(|| Reduced::new(vectors.view(), fitted.len(), context.threads));
            let features = reduced.as_ref().map_or(vectors.view(), Reduced::coordinates);
            let mut start = start(link, targets.view(), features.ncols());
            if let Some(reached) = earlier.parameters.filter(|reached| reached.dim() == start.dim()) {
                start = reached;
            }
            let objective = Objective::new(link, features, targets.view(), weights, alpha, context.threads);
            let mut objective = objective.with_preconditioner(earlier.preconditioner);
            let tolerance = if reduced.is_some() { REDUCED_TOLERANCE } else { LOSS_TOLERANCE };
            let minimum = minimize(&mut objective, start, tolerance, max_iterations);
            let preconditioner = objective.into_preconditioner();
            let reached = match &reduced {
                Some(reduced) => &reduced.expand(&minimum.parameters, vectors.view(), context.threads),
                None => &minimum.parameters,
            };
            for (row, class) in reached.rows().into_iter().zip(fitted) {
                parameters.row_mut(class).assign(&row);
            }
            gradient = minimum.gradient;
            if let Some(warm_start) = context.warm_start.as_deref_mut() {
                *warm_start = WarmStart { reduced, preconditioner, parameters: Some(minimum.parameters) };
            }
        }
        if !parameters.iter().all(|value| value.is_finite()) {
            return Err(fit_error::<L>(&format!("the weights diverged; raise classify.{}.alpha", L::CLASSIFIER)));
        }
        let notes = if gradient > CONVERGENCE_TOLERANCE {
            vec![format!(
                "{0} did not converge in {1} iterations (mean gradient {gradient:.1e} > {CONVERGENCE_TOLERANCE:.0e}); \
                 raise classify.{0}.max_iterations",
                L::CLASSIFIER,
                max_iterations
            )]
        } else {
            vec![]
        };
        let parameters = parameters.mapv(|value| value as f32);
        let (weight, bias) = parameters.view().split_at(Axis(1), vectors.ncols());
        let model = LinearModel { weight: weight.to_owned(), bias: bias.column(0).to_owned(), task: context.task };
        Ok(FitOutput::without_epochs(model, notes))
    }
}

fn fit_error<L: LinearLoss>(reason: &str) -> Error {
    Error::Data(format!("cannot fit {}: {reason}", L::CLASSIFIER))
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
pub(in crate::classify) fn balanced(task: Task, targets: ArrayView2<'_, f32>) -> Weights {
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
