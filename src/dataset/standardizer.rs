//! Statistics of features, by which they are standardized.

use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, Axis, Zip};

use super::Dataset;
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
    /// Computes the statistics of all rows of `data` in one pass, in f64.
    ///
    /// # Errors
    /// Returns an error if the rows cannot be read, or there are none.
    pub fn fit(data: &Dataset) -> Result<Self> {
        let dim = data.dim();
        let mut origin: Option<Array1<f64>> = None;
        let (mut sum, mut squares) = (Array1::<f64>::zeros(dim), Array1::<f64>::zeros(dim));
        let mut count = 0.0;
        for clip in 0..data.len() {
            for row in data.clip(clip)?.rows() {
                // Relative to the first row, so that the deviation of a constant feature is exactly 0, and that of features
                // with a large mean is accurate.
                let origin = origin.get_or_insert_with(|| row.mapv(f64::from));
                Zip::from(&mut sum).and(&mut squares).and(row).and(&*origin).for_each(
                    |sum, squares, &value, origin| {
                        let shifted = f64::from(value) - origin;
                        *sum += shifted;
                        *squares += shifted * shifted;
                    },
                );
                count += 1.0;
            }
        }
        let origin = origin.ok_or_else(|| Error::Data("there is no training clip".into()))?;
        let mean = sum / count;
        let deviation = Zip::from(&squares).and(&mean).map_collect(|squares, mean| {
            match (squares / count - mean * mean).max(0.0).sqrt() as f32 {
                0.0 => 1.0,
                deviation => deviation,
            }
        });
        Ok(Self { mean: (mean + origin).mapv(|mean| mean as f32), deviation })
    }

    /// Returns the standardized rows, (N, D).
    ///
    /// # Errors
    /// Returns an error if the rows do not have D features.
    pub fn apply(&self, rows: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        self.check_dim(rows.ncols())?;
        let mut out = rows.to_owned();
        self.apply_in_place(out.view_mut());
        Ok(out)
    }

    /// Standardizes rows with D features.
    pub(super) fn apply_in_place(&self, mut rows: ArrayViewMut2<'_, f32>) {
        for mut row in rows.axis_iter_mut(Axis(0)) {
            row -= &self.mean;
            row /= &self.deviation;
        }
    }

    /// Checks the number of features.
    pub(super) fn check_dim(&self, found: usize) -> Result<()> {
        let fitted = self.mean.len();
        if found == fitted {
            return Ok(());
        }
        Err(Error::Data(format!(
            "the features have {found} dimensions, but the model was fitted to {fitted}; use a store of the same method"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn constant_features_become_zero_and_others_have_unit_variance() {
        let rows = array![[0.1f32, 1.0, 1e8], [0.1, 3.0, 1e8 + 8.0], [0.1, 5.0, 1e8 + 16.0]];
        let data = Dataset {
            ids: vec!["a".into(), "b".into()],
            groups: vec![None; 2],
            rows: rows.clone().into(),
            offsets: vec![0, 2, 3],
            targets: Array2::zeros((2, 0)),
            classes: vec![],
        };
        let standardizer = Standardizer::fit(&data).unwrap();
        assert_eq!(standardizer.mean, array![0.1f32, 3.0, 1e8 + 8.0]);
        assert_eq!(standardizer.deviation[0], 1.0);
        let out = standardizer.apply(rows.view()).unwrap();
        assert_eq!(out.column(0), array![0.0f32, 0.0, 0.0]);
        for column in [1, 2] {
            assert!((out.column(column).mapv(|v| v * v).mean().unwrap() - 1.0).abs() < 1e-6);
        }
        assert!(standardizer.apply(array![[1.0f32]].view()).is_err());
        assert!(Standardizer::fit(&data.select(&[])).is_err());
    }
}
