//! The mean loss of a linear model over all clips, computed in one pass over the features.

use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;

use super::lbfgs::Convex;
use super::preconditioner::Preconditioner;
use crate::matrix::thin;
use crate::numeric::Real;

/// Features in a block, so that it stays in the cache between the two products that read it.
const BLOCK: usize = 1 << 16;
/// Largest number of parts of the clips with separate sums. It does not depend on the number of threads, nor do the sums.
const PARTS: usize = 32;
/// Clips in a part, at least.
const MIN_PART: usize = 256;

/// The loss of the logits z = W·x + b.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Cross-entropy of softmax(z): one label per clip.
    Softmax,
    /// Binary cross-entropy of σ(z_c) for each label.
    Sigmoid,
    /// Squared hinge loss max(0, 1 − y·z_c)² of each class, y = ±1. The penalty includes b, as in liblinear.
    SquaredHinge,
}

impl Link {
    /// Returns the number of parameters of a class with a penalty, of D + 1.
    fn penalized(self, dim: usize) -> usize {
        if self == Self::SquaredHinge { dim + 1 } else { dim }
    }
}

/// Weights of the losses.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    /// Weight of a clip in the loss of a class that it has, (C). With [`Link::Softmax`] a clip has one class and this weight.
    pub positive: Array1<f32>,
    /// Weight of a clip in the loss of a class that it does not have, (C).
    pub negative: Array1<f32>,
}

impl Weights {
    /// Returns weights of 1 for C classes.
    pub fn ones(classes: usize) -> Self {
        Self { positive: Array1::ones(classes), negative: Array1::ones(classes) }
    }

    #[inline(always)]
    fn of(&self, class: usize, target: f32) -> f32 {
        if target > 0.0 { self.positive[class] } else { self.negative[class] }
    }
}

/// (1/N)·Σᵢ ℓ(W·xᵢ + b, tᵢ) + α/(2N)·‖W‖² with weighted losses ℓ, a function of (C, D + 1) parameters: the rows of W, each with its b.
/// With a [center](Objective::with_center), the penalty is α/(2N)·‖(W, b) − center‖².
pub struct Objective<'a> {
    link: Link,
    /// x, (N, D).
    vectors: ArrayView2<'a, f32>,
    /// t, (N, C), 0 or 1.
    targets: ArrayView2<'a, f32>,
    weights: Weights,
    /// α/N.
    ridge: f64,
    /// Number of leading parameters of a class with a penalty.
    penalized: usize,
    /// Minimum of the penalty, (C, D + 1); `None` for 0.
    center: Option<Array2<f64>>,
    threads: usize,
    preconditioner: Option<Preconditioner>,
    /// Mean curvature of the loss with respect to a logit at the last point.
    curvature: f64,
}

impl<'a> Objective<'a> {
    /// Creates the objective for N ≥ 1 clips with the penalty α on the summed loss.
    pub fn new(
        link: Link,
        vectors: ArrayView2<'a, f32>,
        targets: ArrayView2<'a, f32>,
        weights: Weights,
        alpha: f64,
        threads: usize,
    ) -> Self {
        let ridge = alpha / vectors.nrows() as f64;
        Self {
            link,
            vectors,
            targets,
            weights,
            ridge,
            penalized: link.penalized(vectors.ncols()),
            center: None,
            threads,
            preconditioner: None,
            curvature: 1.0,
        }
    }

    /// Penalizes the distance of all parameters, W and b, from `center`, (C, D + 1).
    pub fn with_center(self, center: Array2<f64>) -> Self {
        Self { penalized: center.ncols(), center: Some(center), ..self }
    }

    /// Adds a preconditioner, if it saves time: that of an earlier objective for the same features, or a new one.
    pub fn with_preconditioner(self, earlier: Option<Preconditioner>) -> Self {
        let reused = earlier.and_then(|preconditioner| preconditioner.reused(self.penalized));
        let new = || Preconditioner::new(self.vectors, self.targets.ncols(), self.penalized, self.threads);
        Self { preconditioner: reused.or_else(new), ..self }
    }

    /// Returns the preconditioner.
    pub fn into_preconditioner(self) -> Option<Preconditioner> {
        self.preconditioner
    }
}

impl Convex for Objective<'_> {
    fn evaluate(&mut self, parameters: &Array2<f64>, gradient: &mut Array2<f64>) -> f64 {
        let (count, dim) = self.vectors.dim();
        let weight = parameters.slice(s![.., ..dim]);
        let part = count.div_ceil(PARTS).max(MIN_PART);
        let single = weight.mapv(|w| w as f32);
        let bias = parameters.column(dim).mapv(|b| b as f32);
        let sums = |vectors: ArrayView2<'_, f32>, targets: ArrayView2<'_, f32>| {
            let mut sums = Sums::zeros(single.dim());
            let block = (BLOCK / dim.max(1)).max(MIN_PART / 8);
            for (vectors, targets) in
                vectors.axis_chunks_iter(Axis(0), block).zip(targets.axis_chunks_iter(Axis(0), block))
            {
                sums.add(self.link, vectors, targets, &self.weights, single.view(), &bias);
            }
            sums
        };
        let parts: Vec<_> =
            self.vectors.axis_chunks_iter(Axis(0), part).zip(self.targets.axis_chunks_iter(Axis(0), part)).collect();
        let parts: Vec<Sums> = if self.threads > 1 {
            parts.into_par_iter().map(|(vectors, targets)| sums(vectors, targets)).collect()
        } else {
            parts.into_iter().map(|(vectors, targets)| sums(vectors, targets)).collect()
        };
        gradient.fill(0.0);
        let (mut loss, mut curvature) = (0.0, 0.0);
        for part in parts {
            loss += part.loss;
            curvature += part.curvature;
            gradient.slice_mut(s![.., ..dim]).zip_mut_with(&part.weight, |sum, g| *sum += f64::from(*g));
            gradient.column_mut(dim).zip_mut_with(&part.bias, |sum, g| *sum += g);
        }
        *gradient /= count as f64;
        let mut penalized = parameters.slice(s![.., ..self.penalized]).to_owned();
        if let Some(center) = &self.center {
            penalized -= center;
        }
        gradient.slice_mut(s![.., ..self.penalized]).scaled_add(self.ridge, &penalized);
        self.curvature = curvature / (count * self.targets.ncols()) as f64;
        loss / count as f64 + 0.5 * self.ridge * penalized.iter().map(|w| w * w).sum::<f64>()
    }

    fn precondition(&mut self, gradient: &Array2<f64>) -> Array2<f64> {
        match &mut self.preconditioner {
            Some(preconditioner) => preconditioner.apply(gradient, self.curvature, self.ridge, self.threads),
            None => gradient.clone(),
        }
    }
}

/// Sums over the clips of a part.
struct Sums {
    loss: f64,
    curvature: f64,
    /// (C, D).
    weight: Array2<f32>,
    /// (C).
    bias: Array1<f64>,
}

impl Sums {
    fn zeros(shape: (usize, usize)) -> Self {
        Self { loss: 0.0, curvature: 0.0, weight: Array2::zeros(shape), bias: Array1::zeros(shape.0) }
    }

    /// Adds a block of clips.
    fn add(
        &mut self,
        link: Link,
        vectors: ArrayView2<'_, f32>,
        targets: ArrayView2<'_, f32>,
        weights: &Weights,
        weight: ArrayView2<'_, f32>,
        bias: &Array1<f32>,
    ) {
        // (C, rows), so that the loops over the clips of a class are vectorized.
        let mut logits = Array2::zeros((weight.nrows(), vectors.nrows()));
        for (mut row, bias) in logits.rows_mut().into_iter().zip(bias) {
            row.fill(*bias);
        }
        thin::logits(vectors, weight, logits.view_mut());
        let (loss, curvature) = match link {
            Link::Softmax => softmax(logits.view_mut(), targets.t(), weights),
            Link::Sigmoid => sigmoid(logits.view_mut(), targets.t(), weights),
            Link::SquaredHinge => squared_hinge(logits.view_mut(), targets.t(), weights),
        };
        self.loss += loss;
        self.curvature += curvature;
        for (sum, row) in self.bias.iter_mut().zip(logits.rows()) {
            *sum += row.iter().map(|&residual| f64::from(residual)).sum::<f64>();
        }
        thin::weighted_sums(logits.view(), vectors, self.weight.view_mut());
    }
}

/// Replaces logits (C, rows) by w·(softmax(z) − t). Returns the sums of the losses and of w·p·(1 − p).
fn softmax(mut logits: ArrayViewMut2<'_, f32>, targets: ArrayView2<'_, f32>, weights: &Weights) -> (f64, f64) {
    let mut top = Array1::from_elem(logits.ncols(), f32::NEG_INFINITY);
    let (mut chosen, mut weight) = (Array1::<f32>::zeros(logits.ncols()), Array1::<f32>::zeros(logits.ncols()));
    for ((row, targets), positive) in logits.rows().into_iter().zip(targets.rows()).zip(&weights.positive) {
        top.zip_mut_with(&row, |top, z| *top = top.max(*z));
        chosen += &(&row * &targets);
        weight.scaled_add(*positive, &targets);
    }
    let mut sum = Array1::<f32>::zeros(logits.ncols());
    for mut row in logits.rows_mut() {
        row.zip_mut_with(&top, |z, top| *z = (*z - top).exp_nonpositive());
        sum += &row;
    }
    let mut loss = 0.0;
    for (((&top, &sum), &chosen), &weight) in top.iter().zip(&sum).zip(&chosen).zip(&weight) {
        loss += f64::from(weight) * (f64::from(top) - f64::from(chosen) + f64::from(sum).ln());
    }
    let mut curvature = 0.0;
    for (mut row, targets) in logits.rows_mut().into_iter().zip(targets.rows()) {
        row /= &sum;
        curvature += f64::from(row.iter().zip(&weight).map(|(p, w)| w * p * (1.0 - p)).sum::<f32>());
        row -= &targets;
        row *= &weight;
    }
    (loss, curvature)
}

/// Replaces logits (C, rows) by w·(σ(z) − t). Returns the sums of the losses and of w·p·(1 − p).
fn sigmoid(mut logits: ArrayViewMut2<'_, f32>, targets: ArrayView2<'_, f32>, weights: &Weights) -> (f64, f64) {
    let (mut loss, mut curvature) = (0.0, 0.0);
    for (class, (mut row, targets)) in logits.rows_mut().into_iter().zip(targets.rows()).enumerate() {
        row.zip_mut_with(&targets, |z, &t| {
            let (weight, p) = (weights.of(class, t), z.sigmoid());
            let cross_entropy = z.max(0.0) - *z * t + (-z.abs()).exp_nonpositive().ln_1p();
            loss += f64::from(weight * cross_entropy);
            curvature += f64::from(weight * p * (1.0 - p));
            *z = weight * (p - t);
        });
    }
    (loss, curvature)
}

/// Replaces logits (C, rows) by −2·w·y·max(0, 1 − y·z). Returns the sums of the losses and of the curvatures 2·w of the clips within
/// the margin.
fn squared_hinge(mut logits: ArrayViewMut2<'_, f32>, targets: ArrayView2<'_, f32>, weights: &Weights) -> (f64, f64) {
    let (mut loss, mut curvature) = (0.0, 0.0);
    for (class, (mut row, targets)) in logits.rows_mut().into_iter().zip(targets.rows()).enumerate() {
        row.zip_mut_with(&targets, |z, &t| {
            let (weight, y) = (weights.of(class, t), if t > 0.0 { 1.0 } else { -1.0 });
            let hinge = (1.0 - y * *z).max(0.0);
            loss += f64::from(weight * hinge * hinge);
            curvature += f64::from(if hinge > 0.0 { 2.0 * weight } else { 0.0 });
            *z = -2.0 * weight * y * hinge;
        });
    }
    (loss, curvature)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::linear::minimize;
    use crate::classify::tests::noise;
    use ndarray::array;

    const CLASSES: usize = 3;

    /// Features with very different variances that are correlated, and labels: one per clip, or any number.
    fn data(link: Link, count: usize, dim: usize) -> (Array2<f32>, Array2<f32>) {
        let mut noise = noise(9);
        let class = |i: usize| i * 5 % 7 % CLASSES;
        let targets = Array2::from_shape_fn((count, CLASSES), |(i, c)| {
            f32::from(class(i) == c || link != Link::Softmax && i % (c + 4) == 0)
        });
        let vectors = Array2::from_shape_fn((count, dim), |(i, d)| {
            let signal = if d % CLASSES == class(i) { 0.6 } else { 0.0 };
            (noise() + signal) / (1 + d) as f32
        });
        let mixing = Array2::from_shape_fn((dim, dim), |_| noise());
        (vectors.dot(&mixing), targets)
    }

    fn weights() -> Weights {
        Weights { positive: array![0.5, 1.0, 2.5], negative: array![1.0, 0.75, 1.5] }
    }

    /// The value and the gradient by their formulas in f64.
    fn reference(
        link: Link,
        x: &Array2<f32>,
        targets: &Array2<f32>,
        weights: &Weights,
        alpha: f64,
        center: Option<&Array2<f64>>,
        parameters: &Array2<f64>,
    ) -> (f64, Array2<f64>) {
        let (count, dim) = x.dim();
        let x = x.mapv(f64::from);
        let logits = x.dot(&parameters.slice(s![.., ..dim]).t()) + parameters.column(dim);
        let (mut loss, mut residual) = (0.0, Array2::<f64>::zeros(logits.dim()));
        for (i, z) in logits.rows().into_iter().enumerate() {
            let normalizer = z.mapv(f64::exp).sum();
            let class = (0..CLASSES).find(|&c| targets[(i, c)] > 0.0).unwrap_or(0);
            for (c, &z) in z.iter().enumerate() {
                let t = f64::from(targets[(i, c)]);
                let of_clip = f64::from(weights.positive[class]);
                let of_label = f64::from(if t > 0.0 { weights.positive[c] } else { weights.negative[c] });
                let (weight, value, slope) = match link {
                    Link::Softmax => (of_clip, t * (normalizer.ln() - z), z.exp() / normalizer - t),
                    Link::Sigmoid => (of_label, z.exp().ln_1p() - t * z, 1.0 / (1.0 + (-z).exp()) - t),
                    Link::SquaredHinge => {
                        let y = 2.0 * t - 1.0;
                        let hinge = (1.0 - y * z).max(0.0);
                        (of_label, hinge * hinge, -2.0 * y * hinge)
                    }
                };
                loss += weight * value;
                residual[(i, c)] = weight * slope;
            }
        }
        let mut penalized = parameters.clone();
        match center {
            Some(center) => penalized -= center,
            None if link != Link::SquaredHinge => penalized.column_mut(dim).fill(0.0),
            None => {}
        }
        let mut gradient = &penalized * alpha;
        gradient.slice_mut(s![.., ..dim]).scaled_add(1.0, &residual.t().dot(&x));
        gradient.column_mut(dim).scaled_add(1.0, &residual.sum_axis(Axis(0)));
        let penalty = 0.5 * alpha * (&penalized * &penalized).sum();
        ((loss + penalty) / count as f64, gradient / count as f64)
    }

    #[test]
    fn value_and_gradient_match_their_formulas() {
        for link in [Link::Softmax, Link::Sigmoid, Link::SquaredHinge] {
            for (count, dim) in [(1, 1), (40, 5), (3000, 70)] {
                let (x, targets) = data(link, count, dim);
                let parameters =
                    Array2::from_shape_fn((CLASSES, dim + 1), |(c, d)| ((c * 5 + d * 3) % 7) as f64 / 7.0 - 0.4);
                let far = &parameters * -2.0 + 1.0;
                for center in [None, Some(far)] {
                    let gradients = [1, 4].map(|threads| {
                        let mut gradient = Array2::zeros(parameters.dim());
                        let mut objective = Objective::new(link, x.view(), targets.view(), weights(), 2.0, threads);
                        if let Some(center) = &center {
                            objective = objective.with_center(center.clone());
                        }
                        let value = objective.evaluate(&parameters, &mut gradient);
                        let center = center.as_ref();
                        let (expected, slopes) = reference(link, &x, &targets, &weights(), 2.0, center, &parameters);
                        assert!((value - expected).abs() < 1e-5 * expected.abs().max(1.0), "{value} {expected}");
                        let error = (&gradient - &slopes).iter().fold(0f64, |most, e| most.max(e.abs()));
                        assert!(error < 1e-5, "{link:?} {count} {dim}: {error}");
                        gradient
                    });
                    assert_eq!(gradients[0], gradients[1]);
                }
            }
        }
    }

    #[test]
    fn finds_the_minimum_of_ill_conditioned_problems() {
        for link in [Link::Softmax, Link::Sigmoid, Link::SquaredHinge] {
            // With and without the preconditioner.
            for (count, dim) in [(3000, 60), (60, 400)] {
                for alpha in [1e-3, 1.0, 100.0] {
                    let (x, targets) = data(link, count, dim);
                    let objective = Objective::new(link, x.view(), targets.view(), weights(), alpha, 1);
                    let mut objective = objective.with_preconditioner(None);
                    assert_eq!(objective.preconditioner.is_some(), count == 3000);
                    let minimum = minimize(&mut objective, Array2::zeros((CLASSES, dim + 1)), 1e-12, 2000);
                    let (value, gradient) = reference(link, &x, &targets, &weights(), alpha, None, &minimum.parameters);
                    // The penalty makes the function strongly convex in W: f − f* ≤ ‖∂f/∂W‖²·N/(2·α), if b is optimal.
                    let of_weight = gradient.slice(s![.., ..dim]).iter().map(|g| g * g).sum::<f64>();
                    let gap = of_weight * count as f64 / (2.0 * alpha);
                    let largest = gradient.iter().fold(0f64, |most, g| most.max(g.abs()));
                    // The gradient of the squared hinge loss is not smooth: L-BFGS needs more steps, up to the limit that is reported.
                    let most = if link == Link::SquaredHinge { 1e-4 } else { 1e-5 };
                    assert!(largest < most, "{link:?} {dim} {alpha}: {largest}, {value}");
                    assert!(alpha < 1.0 || gap < 1e-7, "{link:?} {dim} {alpha}: {gap}");
                }
            }
        }
    }
}
