//! Logistic regression.

use linfa::DatasetBase;
use linfa::traits::Fit;
use linfa_logistic::MultiLogisticRegression;
use ndarray::{Array1, Array2, ArrayView2, Axis, s};

use super::loss::{self, Loss};
use super::standardize::check_dim;
use super::{Classifier, Exporter, Fitted, Fitting, Model, Tensor, Tensors};
use crate::dataset::{Dataset, Task};
use crate::error::{Error, Result};
use crate::recipe;

/// For one label a clip, p(class | x) = softmax(W·x + b), with W and b at the least of the summed cross-entropy + α/2·‖W‖²
/// (scikit-learn's `LogisticRegression` with C = 1/α). For several, one such regression each, between having the label and
/// not having it: p(label | x) = σ(w·x + b) (scikit-learn's `OneVsRestClassifier` around it). linfa fits them, by L-BFGS, in
/// double precision.
pub struct LogisticRegression(pub recipe::Logistic);

/// The mean gradient, largest component, from which on a fit counts as converged (scikit-learn's `tol`).
const CONVERGED: f64 = 1e-4;
/// The mean gradient at which iterations end: far enough for probabilities to agree with scikit-learn's to 1e-4.
const DONE: f64 = 1e-6;
/// Searches at the most, each from where the one before ended.
const SEARCHES: usize = 20;

impl Classifier for LogisticRegression {
    fn fit(&self, train: &Dataset, _: &Dataset, fitting: &mut Fitting<'_>) -> Result<Fitted> {
        let vectors = train.vectors()?.mapv(f64::from);
        let (weight, bias, slope) = match fitting.task {
            Task::SingleLabel => {
                let labels = train.single_labels()?;
                if let Some(class) = (0..train.classes.len()).find(|class| !labels.contains(class)) {
                    return Err(wrong(&format!("class {} has no training clip", train.classes[class])));
                }
                self.softmax(vectors.view(), labels, train.targets.view(), self.0.alpha)?
            }
            Task::MultiLabel => self.one_versus_rest(vectors.view(), train.targets.view())?,
        };
        let notes = if slope > CONVERGED {
            vec![format!(
                "logistic regression had not converged, with {} iterations a search (mean gradient {slope:.1e} > {CONVERGED:.0e}); \
                 raise classify.logistic.max_iterations",
                self.0.max_iterations
            )]
        } else {
            vec![]
        };
        let (weight, bias) = (weight.mapv(|w| w as f32), bias.mapv(|b| b as f32));
        Ok(Fitted::at_once(LogisticModel { weight, bias, task: fitting.task }, notes))
    }
}

fn wrong(why: &str) -> Error {
    Error::Data(format!("logistic regression cannot be fitted: {why}"))
}

/// W (C, D), b (C), and the largest component of the objective's mean gradient there.
type Solution = (Array2<f64>, Array1<f64>, f64);

impl LogisticRegression {
    /// The multinomial regression of vectors (N, D) with one class each, every class occurring; `targets` says the same as
    /// `labels`.
    fn softmax(
        &self,
        vectors: ArrayView2<'_, f64>,
        labels: Vec<usize>,
        targets: ArrayView2<'_, f32>,
        alpha: f64,
    ) -> Result<Solution> {
        // linfa minimizes the summed loss, from which its line search makes first steps so long that the search gets stuck
        // (its log-sum-exp over all clips at once underflows there). Features scaled by 1/√N, with the penalty scaled to
        // suit, pose the same problem at the scale of the mean loss; the bias begins at its optimum for W = 0.
        let (count, dim) = vectors.dim();
        let scale = 1.0 / (count as f64).sqrt();
        let counts = targets.sum_axis(Axis(0)).mapv(f64::from);
        let mut start = Array2::zeros((dim + 1, targets.ncols()));
        start.row_mut(dim).assign(&counts.mapv(|of_class| (of_class / count as f64).ln()));
        let mut best: Option<Solution> = None;
        // Where features are much alike the search gets stuck all the same; it goes on when it begins anew from there.
        for _ in 0..SEARCHES {
            let fitted = MultiLogisticRegression::default()
                .alpha(alpha * scale * scale)
                .initial_params(start.clone())
                .max_iterations(self.0.max_iterations)
                .gradient_tolerance(DONE / scale)
                .fit(&DatasetBase::new(&vectors * scale, Array1::from_vec(labels.clone())))
                .map_err(|error| wrong(&error.to_string()))?;
            let (weight, bias) = (&fitted.params().t() * scale, fitted.intercept().to_owned());
            if !weight.iter().chain(&bias).all(|value| value.is_finite()) {
                return Err(wrong("the weights grew beyond all bounds; raise classify.logistic.alpha"));
            }
            let slope = steepest(vectors, targets, weight.view(), &bias, alpha);
            if best.as_ref().is_some_and(|(_, _, before)| slope >= *before) {
                break;
            }
            start.slice_mut(s![..dim, ..]).assign(fitted.params());
            start.row_mut(dim).assign(&bias);
            best = Some((weight, bias, slope));
            if slope <= CONVERGED {
                break;
            }
        }
        Ok(best.expect("the first search is the best so far"))
    }

    /// A regression for each label. A softmax over not having (0) and having it (1) depends on w₁ − w₀ only, and at its
    /// optimum w₀ = −w₁: with twice the penalty it is the regression between the two.
    fn one_versus_rest(&self, vectors: ArrayView2<'_, f64>, targets: ArrayView2<'_, f32>) -> Result<Solution> {
        let (count, dim) = vectors.dim();
        let mut weight = Array2::zeros((targets.ncols(), dim));
        let (mut bias, mut slope) = (Array1::zeros(targets.ncols()), 0f64);
        for (label, target) in targets.columns().into_iter().enumerate() {
            let labels: Vec<usize> = target.iter().map(|&t| usize::from(t > 0.0)).collect();
            let having = labels.iter().sum::<usize>();
            if having == 0 || having == count {
                // Nothing to tell apart: the frequency, kept away from 0 and 1 by half a clip.
                bias[label] = ((having as f64 + 0.5) / ((count - having) as f64 + 0.5)).ln();
                continue;
            }
            let both = Array2::from_shape_fn((count, 2), |(i, side)| f32::from(labels[i] == side));
            let (w, b, of_label) = self.softmax(vectors, labels, both.view(), 2.0 * self.0.alpha)?;
            weight.row_mut(label).assign(&(&w.row(1) - &w.row(0)));
            bias[label] = b[1] - b[0];
            slope = slope.max(of_label);
        }
        Ok((weight, bias, slope))
    }
}

/// The largest component of the objective's gradient, divided by the number of clips.
fn steepest(
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

/// See [`LogisticRegression`].
#[derive(Debug, Clone, PartialEq)]
pub struct LogisticModel {
    /// W, (C, D).
    weight: Array2<f32>,
    /// b, (C).
    bias: Array1<f32>,
    task: Task,
}

impl LogisticModel {
    /// The model of saved tensors, for the task it was fitted to.
    ///
    /// # Errors
    /// A tensor is missing or misshapen.
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
    fn converges_where_first_steps_of_the_summed_loss_would_be_too_long() {
        // Lopsided classes, skewed features: with linfa's problem as it stands the line search gets stuck.
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
        // Class 3 never occurs: leave it out.
        let targets = targets.select(Axis(1), &[0, 1, 2, 4, 5]);
        let train = dataset(rows.view(), targets);
        let mut fitting = Fitting { seed: 0, task: Task::SingleLabel, threads: 1, progress: &mut |_| {} };
        let fitted = LogisticRegression(recipe::Logistic { alpha: 1.0, max_iterations: 1000 })
            .fit(&train, &train, &mut fitting)
            .unwrap();
        assert!(fitted.notes.is_empty(), "{:?}", fitted.notes);
    }
}
