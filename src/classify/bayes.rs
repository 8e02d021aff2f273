//! Gaussian naive Bayes.

use std::collections::HashMap;

use linfa::DatasetBase;
use linfa::traits::Fit;
use linfa_bayes::GaussianNb;
use ndarray::{Array1, Array2, Axis};
use serde::Deserialize;

use super::standardise::check_dim;
use super::{Classifier, Exporter, Fitted, Fitting, Model, Tensor, Tensors};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::recipe::{self, Task};

/// p(class | x) ∝ p(class) · ∏ N(x_d; θ_d, σ²_d): one normal distribution per class and feature, its variance enlarged by a
/// share of the largest variance of any feature, as scikit-learn's `GaussianNB`.
///
/// linfa fits it. Its own probabilities exponentiate before they normalise, which gives 0/0 from some hundred features on,
/// so they are computed here from the fitted parameters, which linfa gives out by serialisation only.
pub struct GaussianBayes(pub recipe::Bayes);

/// The serialised form of linfa's model.
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
    fn fit(&self, train: &Dataset, _: &Dataset, fitting: &mut Fitting<'_>) -> Result<Fitted> {
        if fitting.task == Task::MultiLabel {
            return Err(Error::Data(
                "naive Bayes takes one label a clip; take logistic, knn or mlp for several".into(),
            ));
        }
        let labels = Array1::from_vec(train.single_labels()?);
        let vectors = train.vectors()?.mapv(f64::from);
        let wrong = |why: String| Error::Data(format!("naive Bayes cannot be fitted: {why}"));
        let fitted = GaussianNb::<f64, usize>::params()
            .var_smoothing(self.0.smoothing)
            .fit(&DatasetBase::new(vectors, labels))
            .map_err(|error| wrong(error.to_string()))?;
        let fitted: FittedBayes = serde_json::to_value(&fitted)
            .and_then(serde_json::from_value)
            .map_err(|error| wrong(format!("linfa's model is not what it was: {error}")))?;
        let (classes, dim) = (train.classes.len(), train.dim());
        let mut model = BayesModel {
            log_prior: Array1::from_elem(classes, f32::NEG_INFINITY),
            mean: Array2::zeros((classes, dim)),
            variance: Array2::ones((classes, dim)),
        };
        for (class, info) in fitted.class_info {
            model.log_prior[class] = info.prior.ln() as f32;
            model.mean.row_mut(class).assign(&info.theta.mapv(|v| v as f32));
            // Only where every feature is constant is a variance 0.
            model.variance.row_mut(class).assign(&info.sigma.mapv(|v| (v as f32).max(f32::MIN_POSITIVE)));
        }
        Ok(Fitted::at_once(model, vec![]))
    }
}

/// See [`GaussianBayes`]. Scores are computed in double precision.
#[derive(Debug, Clone, PartialEq)]
pub struct BayesModel {
    /// ln p(class), (C).
    log_prior: Array1<f32>,
    /// θ, (C, D).
    mean: Array2<f32>,
    /// σ², (C, D).
    variance: Array2<f32>,
}

impl BayesModel {
    /// The model of saved tensors.
    ///
    /// # Errors
    /// A tensor is missing or misshapen.
    pub fn restore(tensors: &Tensors) -> Result<Self> {
        let mean = tensors.matrix("bayes.mean")?;
        let variance = tensors.matrix_of("bayes.variance", mean.ncols())?;
        let log_prior = tensors.vector_of("bayes.log_prior", mean.nrows())?;
        if variance.nrows() != mean.nrows() {
            return Err(tensors.wrong("bayes.mean and bayes.variance differ in shape".into()));
        }
        Ok(Self { log_prior, mean, variance })
    }

    /// −½ Σ ln(2πσ²) + ln p(class), (C).
    fn offsets(&self) -> Array1<f64> {
        let logs = self.variance.mapv(|v| (2.0 * std::f64::consts::PI * f64::from(v)).ln()).sum_axis(Axis(1));
        logs * -0.5 + self.log_prior.mapv(f64::from)
    }
}

impl Model for BayesModel {
    fn scores(&self, data: &Dataset) -> Result<Array2<f32>> {
        check_dim(data.dim(), self.mean.ncols())?;
        let offsets = self.offsets();
        let precision = self.variance.mapv(|v| 1.0 / f64::from(v));
        let mut scores = Array2::zeros((data.len(), self.mean.nrows()));
        for (x, mut scores) in data.vectors()?.rows().into_iter().zip(scores.rows_mut()) {
            let logs: Vec<f64> = (0..self.mean.nrows())
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
            let top = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = logs.iter().map(|log| (log - top).exp()).sum();
            scores.iter_mut().zip(&logs).for_each(|(score, log)| *score = ((log - top).exp() / sum) as f32);
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

    /// −½ x²·(1/σ²) + x·(θ/σ²) + (offset − ½ Σ θ²/σ²), in double precision.
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
        let probabilities = graph.softmax(&logs);
        graph.single(&probabilities)
    }
}
