//! Isotonic regression.

use ndarray::{Array2, ArrayView2};

use crate::classify::{Exporter, Tensor, Tensors};
use crate::error::Result;

/// A point of a non-decreasing function: x and its value.
pub(super) type Knot = (f64, f64);

/// Returns the knots of the non-decreasing, piecewise linear function with the least squared error to the truth (0 or 1) of N ≥ 1
/// scores, by pool-adjacent-violators. Equal scores share one value. The x of the knots are ascending; their values are those of
/// `IsotonicRegression.y_thresholds_`.
pub(super) fn fit(scores: &[f64], truth: &[bool]) -> Vec<Knot> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    // Blocks of equal values: lowest score, highest score, sum of the truth, number of clips.
    let mut blocks: Vec<(f64, f64, f64, f64)> = Vec::new();
    for i in order {
        let value = f64::from(u8::from(truth[i]));
        match blocks.last_mut() {
            Some(last) if last.0 == scores[i] => (last.2, last.3) = (last.2 + value, last.3 + 1.0),
            _ => blocks.push((scores[i], scores[i], value, 1.0)),
        }
    }
    let mut pooled: Vec<(f64, f64, f64, f64)> = Vec::new();
    for mut block in blocks {
        while let Some(last) = pooled.last().filter(|last| last.2 * block.3 >= block.2 * last.3) {
            block = (last.0, block.1, last.2 + block.2, last.3 + block.3);
            pooled.pop();
        }
        pooled.push(block);
    }
    let mut knots = Vec::new();
    for (low, high, sum, count) in pooled {
        knots.push((low, sum / count));
        if high > low {
            knots.push((high, sum / count));
        }
    }
    knots
}

/// Non-decreasing, piecewise linear functions, one per label: base + Σ over K pieces of rise · min(max((x − start) / width, 0), 1).
/// Labels with fewer pieces have some of rise 0.
#[derive(Debug, Clone, PartialEq)]
pub struct IsotonicCurves {
    /// Value below the first piece, (C).
    base: Vec<f32>,
    /// (C, K).
    start: Array2<f32>,
    /// (C, K), positive.
    width: Array2<f32>,
    /// (C, K), not negative.
    rise: Array2<f32>,
}

const BASE: &str = "calibration.isotonic.base";
const START: &str = "calibration.isotonic.start";
const WIDTH: &str = "calibration.isotonic.width";
const RISE: &str = "calibration.isotonic.rise";

impl IsotonicCurves {
    /// Creates the functions from the knots of each label; `None` is the identity.
    pub(super) fn new(curves: &[Option<Vec<Knot>>]) -> Self {
        let identity = vec![(0.0, 0.0), (1.0, 1.0)];
        let curves: Vec<&Vec<Knot>> = curves.iter().map(|curve| curve.as_ref().unwrap_or(&identity)).collect();
        // The pieces that rise: start, width and rise.
        let pieces = |knots: &Vec<Knot>| -> Vec<[f32; 3]> {
            let pairs = knots.windows(2).map(|pair| (pair[0], pair[1]));
            let rising = pairs.filter(|(from, to)| to.1 > from.1);
            rising.map(|(from, to)| [from.0, to.0 - from.0, to.1 - from.1].map(|value| value as f32)).collect()
        };
        let pieces: Vec<Vec<[f32; 3]>> = curves.iter().map(|knots| pieces(knots)).collect();
        let columns = pieces.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let part = |k: usize, padding: f32| {
            let value = |(label, piece): (usize, usize)| pieces[label].get(piece).map_or(padding, |values| values[k]);
            Array2::from_shape_fn((pieces.len(), columns), value)
        };
        let base = curves.iter().map(|knots| knots[0].1 as f32).collect();
        Self { base, start: part(0, 0.0), width: part(1, 1.0), rise: part(2, 0.0) }
    }

    /// Returns the number of labels, C.
    pub fn labels(&self) -> usize {
        self.base.len()
    }

    /// Returns the values of the functions at scores (N, C).
    pub(super) fn apply(&self, scores: ArrayView2<'_, f32>) -> Array2<f64> {
        Array2::from_shape_fn(scores.dim(), |(i, label)| {
            let x = f64::from(scores[(i, label)]);
            let pieces = self.start.row(label).into_iter().zip(self.width.row(label)).zip(self.rise.row(label));
            // Unlike `max` and `min`, `clamp` preserves NaN.
            let value = |((start, width), rise): ((&f32, &f32), &f32)| {
                f64::from(*rise) * ((x - f64::from(*start)) / f64::from(*width)).clamp(0.0, 1.0)
            };
            // The sum of rounded rises can exceed 1 by a rounding error.
            (f64::from(self.base[label]) + pieces.map(value).sum::<f64>()).clamp(0.0, 1.0)
        })
    }

    pub(super) fn tensors(&self) -> Vec<Tensor> {
        let base = Tensor { name: BASE.into(), shape: vec![self.labels()], values: self.base.clone().into() };
        let matrices = [(START, &self.start), (WIDTH, &self.width), (RISE, &self.rise)];
        std::iter::once(base).chain(matrices.map(|(name, values)| Tensor::matrix(name, values.view()))).collect()
    }

    /// Restores the functions of a saved model; `None` if it has none.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing or has a wrong shape.
    pub(super) fn restore(tensors: &Tensors) -> Result<Option<Self>> {
        if !tensors.contains(BASE) {
            return Ok(None);
        }
        let (base, start) = (tensors.vector(BASE)?.to_vec(), tensors.matrix(START)?);
        let (width, rise) = (tensors.matrix_of(WIDTH, start.ncols())?, tensors.matrix_of(RISE, start.ncols())?);
        if [&start, &width, &rise].iter().any(|matrix| matrix.nrows() != base.len()) {
            return Err(
                tensors.error(format!("tensors of isotonic regression need one row for each of {} labels", base.len()))
            );
        }
        Ok(Some(Self { base, start, width, rise }))
    }

    /// Adds the nodes that compute the functions of `x` (N, C), f64.
    pub(super) fn export(&self, graph: &mut Exporter, x: &str) -> String {
        let (zero, one) =
            (graph.constant_f64("calibration.zero", &[0.0]), graph.constant_f64("calibration.one", &[1.0]));
        let matrices = [(START, &self.start), (WIDTH, &self.width), (RISE, &self.rise)];
        let [start, width, rise] = matrices.map(|(name, values)| {
            let constant = graph.constant(Tensor::matrix(name, values.view()));
            graph.double(&constant)
        });
        let base: Vec<f64> = self.base.iter().map(|&base| f64::from(base)).collect();
        let base = graph.constant_f64(BASE, &base);
        let x = graph.reshape(x, &[0, 0, 1]);
        let x = graph.node("Sub", &[&x, &start]);
        let x = graph.node("Div", &[&x, &width]);
        let x = graph.node("Max", &[&x, &zero]);
        let x = graph.node("Min", &[&x, &one]);
        let x = graph.node("Mul", &[&x, &rise]);
        let sum = graph.reduce("ReduceSum", &x, 2);
        let value = graph.node("Add", &[&base, &sum]);
        let value = graph.node("Max", &[&value, &zero]);
        graph.node("Min", &[&value, &one])
    }
}
