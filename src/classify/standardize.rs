//! Standardization of features around any classifier.

use ndarray::{Array1, Array2, ArrayView2, Axis};

use super::{Classifier, Exporter, FitContext, FitOutput, Model, Tensor, Tensors};
use crate::dataset::Dataset;
use crate::error::{Error, Result};

/// Computes `(x − mean) / deviation` per feature, as scikit-learn's `StandardScaler`: the population standard deviation over
/// the rows of the training split, and 1 for a constant feature.
#[derive(Debug, Clone, PartialEq)]
pub struct Standardizer {
    /// Means, (D).
    pub mean: Array1<f32>,
    /// Standard deviations, (D), positive.
    pub deviation: Array1<f32>,
}

impl Standardizer {
    /// Computes the statistics of `rows`, (N ≥ 1, D).
    pub fn fit(rows: ArrayView2<'_, f32>) -> Self {
        // Relative to the first row, so that the deviation of a constant feature is exactly 0.
        let count = rows.nrows() as f64;
        let origin = rows.row(0).mapv(f64::from);
        let mut mean = Array1::<f64>::zeros(rows.ncols());
        for row in rows.rows() {
            mean += &(row.mapv(f64::from) - &origin);
        }
        mean /= count;
        let mut variance = Array1::<f64>::zeros(rows.ncols());
        for row in rows.rows() {
            let centered = row.mapv(f64::from) - &origin - &mean;
            variance += &(&centered * &centered);
        }
        variance /= count;
        let deviation = variance.mapv(|v| match v.sqrt() as f32 {
            0.0 => 1.0,
            deviation => deviation,
        });
        Self { mean: (mean + origin).mapv(|m| m as f32), deviation }
    }

    /// Returns the standardized rows, (N, D).
    ///
    /// # Errors
    /// Returns an error if the rows do not have D features.
    pub fn apply(&self, rows: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        check_dim(rows.ncols(), self.mean.len())?;
        let mut out = rows.to_owned();
        for mut row in out.axis_iter_mut(Axis(0)) {
            row -= &self.mean;
            row /= &self.deviation;
        }
        Ok(out)
    }

    /// Restores the standardizer of a saved model; `None` if the model has none.
    ///
    /// # Errors
    /// Returns an error if only one of the two tensors exists, or a shape is wrong.
    pub fn restore(tensors: &Tensors) -> Result<Option<Self>> {
        if !tensors.contains(MEAN) && !tensors.contains(DEVIATION) {
            return Ok(None);
        }
        let mean = tensors.vector(MEAN)?;
        let deviation = tensors.vector_of(DEVIATION, mean.len())?;
        Ok(Some(Self { mean, deviation }))
    }
}

const MEAN: &str = "standardize.mean";
const DEVIATION: &str = "standardize.deviation";

/// Checks that the number of features is the one a model was fitted to.
pub(super) fn check_dim(found: usize, fitted: usize) -> Result<()> {
    if found == fitted {
        return Ok(());
    }
    Err(Error::Data(format!(
        "the features have {found} dimensions, but the model was fitted to {fitted}; use a store of the same method"
    )))
}

/// A classifier that is fitted to standardized features.
pub struct Standardize(pub Box<dyn Classifier>);

impl Classifier for Standardize {
    fn fit(&self, train: &Dataset, valid: &Dataset, context: &mut FitContext<'_>) -> Result<FitOutput> {
        if train.is_empty() {
            return Err(Error::Data("there is no training clip".into()));
        }
        let standardizer = Standardizer::fit(train.rows.view());
        let train = train.with_rows(standardizer.apply(train.rows.view())?);
        let valid =
            if valid.is_empty() { valid.clone() } else { valid.with_rows(standardizer.apply(valid.rows.view())?) };
        let fitted = self.0.fit(&train, &valid, context)?;
        Ok(FitOutput { model: Box::new(Standardized { standardizer, model: fitted.model }), ..fitted })
    }
}

/// A model that reads standardized features.
pub struct Standardized {
    /// Applied to the features first.
    pub standardizer: Standardizer,
    /// The model that was fitted to standardized features.
    pub model: Box<dyn Model>,
}

impl Model for Standardized {
    fn scores(&self, data: &Dataset) -> Result<Array2<f32>> {
        self.model.scores(&data.with_rows(self.standardizer.apply(data.rows.view())?))
    }

    fn tensors(&self) -> Vec<Tensor> {
        let mut tensors = self.model.tensors();
        tensors.push(Tensor::vector(MEAN, self.standardizer.mean.view()));
        tensors.push(Tensor::vector(DEVIATION, self.standardizer.deviation.view()));
        tensors
    }

    fn reads_sequences(&self) -> bool {
        self.model.reads_sequences()
    }

    fn export(&self, graph: &mut Exporter, features: &str) -> String {
        let mean = graph.constant(Tensor::vector(MEAN, self.standardizer.mean.view()));
        let deviation = graph.constant(Tensor::vector(DEVIATION, self.standardizer.deviation.view()));
        let centered = graph.node("Sub", &[features, &mean]);
        let standardized = graph.node("Div", &[&centered, &deviation]);
        self.model.export(graph, &standardized)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn constant_features_become_zero_and_others_have_unit_variance() {
        let rows = array![[0.1f32, 1.0, 1e8], [0.1, 3.0, 1e8 + 8.0], [0.1, 5.0, 1e8 + 16.0]];
        let standardizer = Standardizer::fit(rows.view());
        assert_eq!(standardizer.mean, array![0.1f32, 3.0, 1e8 + 8.0]);
        assert_eq!(standardizer.deviation[0], 1.0);
        let out = standardizer.apply(rows.view()).unwrap();
        assert_eq!(out.column(0), array![0.0f32, 0.0, 0.0]);
        for column in [1, 2] {
            assert!((out.column(column).mapv(|v| v * v).mean().unwrap() - 1.0).abs() < 1e-6);
        }
        assert!(standardizer.apply(array![[1.0f32]].view()).is_err());
    }
}
