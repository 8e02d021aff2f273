//! Multinomial logistic regression.

use linfa::DatasetBase;
use linfa::traits::Fit;
use linfa_logistic::MultiLogisticRegression;
use ndarray::{Array1, Array2, ArrayView2, Axis};

use super::loss::Loss;
use super::standardise::check_dim;
use super::{Classifier, Exporter, Fitted, Fitting, Model, Tensor, Tensors};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::recipe;

/// p(class | x) = softmax(W·x + b), with W and b at the least of the summed cross-entropy + α/2·‖W‖² (scikit-learn's
/// `LogisticRegression` with C = 1/α). linfa fits it, by L-BFGS, in double precision.
pub struct LogisticRegression(pub recipe::Logistic);

/// The mean gradient, largest component, from which on a fit counts as converged (scikit-learn's `tol`).
const CONVERGED: f64 = 1e-4;

impl Classifier for LogisticRegression {
    fn fit(&self, train: &Dataset, _: &Dataset, _: &mut Fitting<'_>) -> Result<Fitted> {
        let labels = Array1::from_vec(train.single_labels()?);
        let vectors = train.vectors()?.mapv(f64::from);
        let wrong = |why: String| Error::Data(format!("logistic regression cannot be fitted: {why}"));
        let fitted = MultiLogisticRegression::default()
            .alpha(self.0.alpha)
            .max_iterations(self.0.max_iterations)
            .gradient_tolerance(0.1 * CONVERGED * train.len() as f64)
            .fit(&DatasetBase::new(vectors.view(), labels))
            .map_err(|error| wrong(error.to_string()))?;
        let (weight, bias) = (fitted.params().t().to_owned(), fitted.intercept().to_owned());
        if weight.nrows() != train.classes.len() {
            return Err(wrong(format!(
                "{} of {} classes have no training clip",
                train.classes.len() - weight.nrows(),
                train.classes.len()
            )));
        }
        if !weight.iter().chain(&bias).all(|value| value.is_finite()) {
            return Err(wrong("the weights grew beyond all bounds; raise classify.logistic.alpha".into()));
        }
        let slope = steepest(vectors.view(), train.targets.view(), weight.view(), &bias, self.0.alpha);
        let notes = if slope > CONVERGED {
            vec![format!(
                "logistic regression had not converged after {} iterations (mean gradient {slope:.1e} > {CONVERGED:.0e}); \
                 raise classify.logistic.max_iterations",
                self.0.max_iterations
            )]
        } else {
            vec![]
        };
        let model = LogisticModel { weight: weight.mapv(|w| w as f32), bias: bias.mapv(|b| b as f32) };
        Ok(Fitted { model: Box::new(model), curves: vec![], kept_epoch: None, notes })
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
    Loss::CrossEntropy.gradient(residual.view_mut(), targets);
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
}

impl LogisticModel {
    /// The model of saved tensors.
    ///
    /// # Errors
    /// A tensor is missing or misshapen.
    pub fn restore(tensors: &Tensors) -> Result<Self> {
        let weight = tensors.matrix("0.weight")?;
        Ok(Self { bias: tensors.vector_of("0.bias", weight.nrows())?, weight })
    }
}

impl Model for LogisticModel {
    fn scores(&self, data: &Dataset) -> Result<Array2<f32>> {
        check_dim(data.dim(), self.weight.ncols())?;
        let mut scores = data.vectors()?.dot(&self.weight.t()) + &self.bias;
        Loss::CrossEntropy.scores(scores.view_mut());
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
        graph.softmax(&logits)
    }
}
