//! Logistic regression.

use linfa::DatasetBase;
use linfa::traits::Fit;
use linfa_logistic::MultiLogisticRegression;
use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use serde::{Deserialize, Serialize};

use super::definition::{non_negative, positive};
use super::loss::{self, Loss};
use super::standardize::check_dim;
use super::{
    Capabilities, Classifier, ClassifierDefinition, Exporter, FitContext, FitOutput, Model, Tensor, Tensors, Trainer,
};
use crate::dataset::{Dataset, Task};
use crate::error::{Error, Result};
use crate::value_parsers;

/// Settings of logistic regression; the table `[classify.logistic]` of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct LogisticSettings {
    /// L2 penalty on the summed loss (scikit-learn's 1/C).
    #[arg(long, value_name = "X", value_parser = value_parsers::non_negative)]
    pub alpha: f64,
    /// Maximum number of L-BFGS iterations.
    #[arg(long, value_name = "N", value_parser = value_parsers::at_least(1_u64))]
    pub max_iterations: u64,
}

impl Default for LogisticSettings {
    fn default() -> Self {
        Self { alpha: 1.0, max_iterations: 300 }
    }
}

impl ClassifierDefinition for LogisticSettings {
    const CAPABILITIES: Capabilities = Capabilities { sequences: false, trained: false };

    fn validate(&self) -> std::result::Result<(), String> {
        non_negative("classify.logistic.alpha", self.alpha)?;
        positive("classify.logistic.max_iterations", self.max_iterations as usize)
    }

    fn build(&self, _: &Trainer) -> Box<dyn Classifier> {
        Box::new(LogisticRegression(self.clone()))
    }

    fn restore(tensors: &Tensors, task: Task) -> Result<Box<dyn Model>> {
        Ok(Box::new(LogisticModel::restore(tensors, task)?))
    }
}

/// For one label per clip, p(class | x) = softmax(W·x + b), where W and b minimize the summed cross-entropy + α/2·‖W‖²
/// (scikit-learn's `LogisticRegression` with C = 1/α). For several labels per clip, one binary regression per label:
/// p(label | x) = σ(w·x + b) (scikit-learn's `OneVsRestClassifier`). linfa fits them by L-BFGS in double precision.
pub struct LogisticRegression(pub LogisticSettings);

/// Largest component of the mean gradient below which a fit is reported as converged (scikit-learn's `tol`).
const CONVERGENCE_TOLERANCE: f64 = 1e-4;
/// Mean gradient at which iterations stop. At this value probabilities agree with scikit-learn's to 1e-4.
const GRADIENT_TOLERANCE: f64 = 1e-6;
/// Maximum number of L-BFGS restarts.
const MAX_RESTARTS: usize = 20;

impl Classifier for LogisticRegression {
    fn fit(&self, train: &Dataset, _: &Dataset, context: &mut FitContext<'_>) -> Result<FitOutput> {
        let vectors = train.vectors()?.mapv(f64::from);
        let (weight, bias, residual_gradient) = match context.task {
            Task::SingleLabel => {
                let labels = train.single_labels()?;
                if let Some(class) = (0..train.classes.len()).find(|class| !labels.contains(class)) {
                    return Err(fit_error(&format!("class {} has no training clip", train.classes[class])));
                }
                self.softmax(vectors.view(), labels, train.targets.view(), self.0.alpha)?
            }
            Task::MultiLabel => self.one_versus_rest(vectors.view(), train.targets.view())?,
        };
        let notes = if residual_gradient > CONVERGENCE_TOLERANCE {
            vec![format!(
                "logistic regression did not converge in {} iterations (mean gradient {residual_gradient:.1e} > {CONVERGENCE_TOLERANCE:.0e}); \
                 raise classify.logistic.max_iterations",
                self.0.max_iterations
            )]
        } else {
            vec![]
        };
        let (weight, bias) = (weight.mapv(|w| w as f32), bias.mapv(|b| b as f32));
        Ok(FitOutput::without_epochs(LogisticModel { weight, bias, task: context.task }, notes))
    }
}

fn fit_error(reason: &str) -> Error {
    Error::Data(format!("cannot fit logistic regression: {reason}"))
}

/// W (C, D), b (C), and the largest component of the mean gradient at this point.
type Solution = (Array2<f64>, Array1<f64>, f64);

impl LogisticRegression {
    /// Fits multinomial regression to vectors (N, D) with one class each. Every class must occur. `targets` is the one-hot
    /// form of `labels`.
    fn softmax(
        &self,
        vectors: ArrayView2<'_, f64>,
        labels: Vec<usize>,
        targets: ArrayView2<'_, f32>,
        alpha: f64,
    ) -> Result<Solution> {
        // linfa minimizes the summed loss. Its gradient is so large that the first step of the line search overshoots and
        // linfa's log-sum-exp over all clips underflows. Scaling the features by 1/√N, and the penalty accordingly, yields
        // an equivalent problem at the scale of the mean loss. The bias starts at its optimum for W = 0.
        let (count, dim) = vectors.dim();
        let scale = 1.0 / (count as f64).sqrt();
        let counts = targets.sum_axis(Axis(0)).mapv(f64::from);
        let mut start = Array2::zeros((dim + 1, targets.ncols()));
        start.row_mut(dim).assign(&counts.mapv(|of_class| (of_class / count as f64).ln()));
        let mut best: Option<Solution> = None;
        // With highly correlated features the line search may still fail; a restart from the last point continues.
        for _ in 0..MAX_RESTARTS {
            let fitted = MultiLogisticRegression::default()
                .alpha(alpha * scale * scale)
                .initial_params(start.clone())
                .max_iterations(self.0.max_iterations)
                .gradient_tolerance(GRADIENT_TOLERANCE / scale)
                .fit(&DatasetBase::new(&vectors * scale, Array1::from_vec(labels.clone())))
                .map_err(|error| fit_error(&error.to_string()))?;
            let (weight, bias) = (&fitted.params().t() * scale, fitted.intercept().to_owned());
            if !weight.iter().chain(&bias).all(|value| value.is_finite()) {
                return Err(fit_error("the weights diverged; raise classify.logistic.alpha"));
            }
            let residual_gradient = largest_gradient(vectors, targets, weight.view(), &bias, alpha);
            if best.as_ref().is_some_and(|(_, _, previous)| residual_gradient >= *previous) {
                break;
            }
            start.slice_mut(s![..dim, ..]).assign(fitted.params());
            start.row_mut(dim).assign(&bias);
            best = Some((weight, bias, residual_gradient));
            if residual_gradient <= CONVERGENCE_TOLERANCE {
                break;
            }
        }
        Ok(best.expect("there is at least one search"))
    }

    /// Fits one binary regression per label. A softmax over "absent" (0) and "present" (1) depends on w₁ − w₀ only, and
    /// w₀ = −w₁ at the optimum: with twice the penalty it equals binary logistic regression.
    fn one_versus_rest(&self, vectors: ArrayView2<'_, f64>, targets: ArrayView2<'_, f32>) -> Result<Solution> {
        let (count, dim) = vectors.dim();
        let mut weight = Array2::zeros((targets.ncols(), dim));
        let (mut bias, mut residual_gradient) = (Array1::zeros(targets.ncols()), 0f64);
        for (label, target) in targets.columns().into_iter().enumerate() {
            let labels: Vec<usize> = target.iter().map(|&t| usize::from(t > 0.0)).collect();
            let positives = labels.iter().sum::<usize>();
            if positives == 0 || positives == count {
                // Only one class: use the smoothed frequency, (positives + ½)/(N + 1).
                bias[label] = ((positives as f64 + 0.5) / ((count - positives) as f64 + 0.5)).ln();
                continue;
            }
            let one_hot = Array2::from_shape_fn((count, 2), |(i, class)| f32::from(labels[i] == class));
            let (w, b, of_label) = self.softmax(vectors, labels, one_hot.view(), 2.0 * self.0.alpha)?;
            weight.row_mut(label).assign(&(&w.row(1) - &w.row(0)));
            bias[label] = b[1] - b[0];
            residual_gradient = residual_gradient.max(of_label);
        }
        Ok((weight, bias, residual_gradient))
    }
}

/// Computes the largest absolute component of the objective's gradient, divided by the number of clips.
fn largest_gradient(
    x: ArrayView2<'_, f64>,
    targets: ArrayView2<'_, f32>,
    weight: ArrayView2<'_, f64>,
    bias: &Array1<f64>,
    alpha: f64,
) -> f64 {
    let count = x.nrows() as f64;
    let mut residual = x.dot(&weight.t()) + bias;
    Loss::CrossEntropy { weights: None }.gradient(residual.view_mut(), targets);
    let by_weight = residual.t().dot(&x) + &(&weight * (alpha / count));
    let by_bias = residual.sum_axis(Axis(0));
    by_weight.iter().chain(&by_bias).fold(0.0, |most, g| most.max(g.abs()))
}

/// The fitted model of [`LogisticRegression`].
#[derive(Debug, Clone, PartialEq)]
pub struct LogisticModel {
    /// W, (C, D).
    weight: Array2<f32>,
    /// b, (C).
    bias: Array1<f32>,
    task: Task,
}

impl LogisticModel {
    /// Restores the model from its saved tensors; `task` is the task it was fitted to.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing or has a wrong shape.
    pub fn restore(tensors: &Tensors, task: Task) -> Result<Self> {
        let weight = tensors.matrix("0.weight")?;
        Ok(Self { bias: tensors.vector_of("0.bias", weight.nrows())?, weight, task })
    }
}

impl Model for LogisticModel {
    fn scores(&self, data: &Dataset) -> Result<Array2<f32>> {
        check_dim(data.dim(), self.weight.ncols())?;
        let mut scores = data.vectors()?.dot(&self.weight.t()) + &self.bias;
        loss::scores(self.task, scores.view_mut());
        Ok(scores)
    }

    fn tensors(&self) -> Vec<Tensor> {
        vec![Tensor::matrix("0.weight", self.weight.view()), Tensor::vector("0.bias", self.bias.view())]
    }

    fn export(&self, graph: &mut Exporter, features: &str) -> String {
        let [weight, bias] = ["0.weight", "0.bias"];
        graph.constant(Tensor::matrix(weight, self.weight.view()));
        graph.constant(Tensor::vector(bias, self.bias.view()));
        let logits = graph.linear(features, weight, bias);
        graph.scores(&logits, self.task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::tests::dataset;

    #[test]
    fn converges_on_imbalanced_classes_and_skewed_features() {
        // linfa's line search fails on the unscaled problem.
        let mut state = 9u64;
        let mut noise = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 40) as f32) / (1u64 << 23) as f32 - 1.0
        };
        let class = |i: usize| if i.is_multiple_of(3) { 0 } else { i % 6 };
        let rows = Array2::from_shape_fn((3000, 60), |(i, d)| {
            (2.0 * noise() + if d % 6 == class(i) { 0.8 } else { 0.0 }).exp()
        });
        let targets = Array2::from_shape_fn((3000, 6), |(i, c)| f32::from(class(i) == c));
        let rows = crate::classify::Standardizer::fit(rows.view()).apply(rows.view()).unwrap();
        // Class 3 never occurs.
        let targets = targets.select(Axis(1), &[0, 1, 2, 4, 5]);
        let train = dataset(rows.view(), targets);
        let mut context = FitContext { seed: 0, task: Task::SingleLabel, threads: 1, progress: &mut |_| {} };
        let fitted = LogisticRegression(LogisticSettings { alpha: 1.0, max_iterations: 1000 })
            .fit(&train, &train, &mut context)
            .unwrap();
        assert!(fitted.notes.is_empty(), "{:?}", fitted.notes);
    }
}
