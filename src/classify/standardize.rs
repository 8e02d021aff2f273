//! Standardization by the statistics of the training split, around any classifier.

use ndarray::{Array1, Array2, ArrayView2, Axis};

use super::{Classifier, Exporter, Fitted, Fitting, Model, Tensor, Tensors};
use crate::dataset::Dataset;
use crate::error::{Error, Result};

/// `(x − mean) / deviation` per feature, as scikit-learn's `StandardScaler`: the population deviation over the rows of the
/// training split, and 1 for a constant feature.
#[derive(Debug, Clone, PartialEq)]
pub struct Standardizer {
    /// (D).
    pub mean: Array1<f32>,
    /// (D), positive.
    pub deviation: Array1<f32>,
}

impl Standardizer {
    /// The statistics of `rows`, (N ≥ 1, D).
    pub fn fit(rows: ArrayView2<'_, f32>) -> Self {
        // In double precision, and relative to the first row: the deviation of a constant feature is then exactly 0.
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

    /// Standardized rows, (N, D).
    ///
    /// # Errors
    /// The rows have another number of features.
    pub fn apply(&self, rows: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        check_dim(rows.ncols(), self.mean.len())?;
        let mut out = rows.to_owned();
        for mut row in out.axis_iter_mut(Axis(0)) {
            row -= &self.mean;
            row /= &self.deviation;
        }
        Ok(out)
    }

    /// The standardizer of a file, if it has one.
    ///
    /// # Errors
    /// One of its two tensors is missing or misshapen.
    pub fn restore(tensors: &Tensors) -> Result<Option<Self>> {
        if !tensors.has(MEAN) && !tensors.has(DEVIATION) {
            return Ok(None);
        }
        let mean = tensors.vector(MEAN)?;
        let deviation = tensors.vector_of(DEVIATION, mean.len())?;
        Ok(Some(Self { mean, deviation }))
    }
}

const MEAN: &str = "standardize.mean";
const DEVIATION: &str = "standardize.deviation";

/// Fails where features are not of the number a model was fitted to.
pub(super) fn check_dim(found: usize, fitted: usize) -> Result<()> {
    if found == fitted {
        return Ok(());
    }
    Err(Error::Data(format!(
        "the features have {found} dimensions where the model was fitted to {fitted}; use a store of the same method"
    )))
}

/// A classifier that sees standardized features.
pub struct Standardize(pub Box<dyn Classifier>);

impl Classifier for Standardize {
    fn fit(&self, train: &Dataset, valid: &Dataset, fitting: &mut Fitting<'_>) -> Result<Fitted> {
        if train.is_empty() {
            return Err(Error::Data("there is no training clip".into()));
        }
        let standardizer = Standardizer::fit(train.rows.view());
        let train = train.with_rows(standardizer.apply(train.rows.view())?);
        let valid =
            if valid.is_empty() { valid.clone() } else { valid.with_rows(standardizer.apply(valid.rows.view())?) };
        let fitted = self.0.fit(&train, &valid, fitting)?;
        Ok(Fitted { model: Box::new(Standardized { standardizer, model: fitted.model }), ..fitted })
    }
}

/// A model that sees standardized features.
pub struct Standardized {
    /// What it does to them first.
    pub standardizer: Standardizer,
    /// The model itself.
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
    fn a_constant_feature_becomes_zero_and_others_have_unit_deviation() {
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
