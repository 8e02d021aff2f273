//! L-BFGS for convex functions with a preconditioner (Nocedal & Wright 2006, algorithm 7.5).

use std::collections::VecDeque;

use ndarray::Array2;

/// Number of steps that approximate the curvature.
const MEMORY: usize = 10;
/// δ and σ of the (approximate) Wolfe conditions (Hager & Zhang 2005, equations 2.2 to 2.4).
const DECREASE: f64 = 0.1;
const CURVATURE: f64 = 0.9;
/// Relative rounding error of values in f32 arithmetic. Below it, only the slopes tell whether a step is good.
const ROUNDING: f64 = 1e-7;
/// Evaluations of a line search, at most. After it the function is constant up to rounding errors.
const TRIALS: usize = 30;
/// Steps without progress after which the search ends: it has reached the rounding errors of the gradient.
const PATIENCE: usize = 5;

/// A convex function of a matrix.
pub trait Convex {
    /// Returns the value at `parameters` and writes the gradient.
    fn evaluate(&mut self, parameters: &Array2<f64>, gradient: &mut Array2<f64>) -> f64;

    /// Multiplies by an approximation of the inverse Hessian at the last evaluated point.
    fn precondition(&mut self, gradient: &Array2<f64>) -> Array2<f64>;
}

/// The point where a minimization ended.
pub struct Minimum {
    /// The parameters.
    pub parameters: Array2<f64>,
    /// The largest absolute component of the gradient.
    pub gradient: f64,
}

/// Minimizes `function` from `start`, until the value is at most about `tolerance` above the minimum, the gradient consists of rounding
/// errors, or after `iterations` steps.
///
/// The distance to the minimum is estimated by half the Newton decrement, gᵀ·H⁻¹·g / 2.
pub fn minimize(function: &mut dyn Convex, start: Array2<f64>, tolerance: f64, iterations: u64) -> Minimum {
    let mut parameters = start;
    let mut gradient = Array2::zeros(parameters.dim());
    let mut value = function.evaluate(&parameters, &mut gradient);
    let mut steps: VecDeque<Step> = VecDeque::with_capacity(MEMORY);
    let (mut lowest, mut without_progress) = (f64::INFINITY, 0);
    for _ in 0..iterations {
        let mut direction = descent_direction(function, &steps, &gradient);
        let mut slope = dot(&direction, &gradient);
        if slope >= 0.0 {
            // Rounding errors in the history: start again.
            steps.clear();
            direction = descent_direction(function, &steps, &gradient);
            slope = dot(&direction, &gradient);
        }
        if -0.5 * slope <= tolerance || without_progress == PATIENCE {
            break;
        }
        let Some((length, reached, next)) = search(function, &parameters, value, &direction, slope) else { break };
        let progress = -slope < lowest || reached < value - 0.01 * ROUNDING * value.abs();
        without_progress = if progress { 0 } else { without_progress + 1 };
        lowest = lowest.min(-slope);
        let step = Step::new(direction * length, &next - &gradient);
        parameters += &step.step;
        (value, gradient) = (reached, next);
        if step.curvature > 0.0 {
            if steps.len() == MEMORY {
                steps.pop_front();
            }
            steps.push_back(step);
        }
    }
    Minimum { gradient: gradient.iter().fold(0.0, |most, g| most.max(g.abs())), parameters }
}

/// Searches a step length along a direction. Returns it with the value and the gradient there, or `None` if there is none.
fn search(
    function: &mut dyn Convex,
    parameters: &Array2<f64>,
    value: f64,
    direction: &Array2<f64>,
    slope: f64,
) -> Option<(f64, f64, Array2<f64>)> {
    let (mut length, mut shortest, mut longest) = (1.0, 0.0, f64::INFINITY);
    let mut gradient = Array2::zeros(parameters.dim());
    for _ in 0..TRIALS {
        let reached = function.evaluate(&(parameters + &(direction * length)), &mut gradient);
        let new_slope = dot(direction, &gradient);
        let decreases = reached <= value + DECREASE * length * slope
            || reached <= value + ROUNDING * value.abs() && new_slope <= (2.0 * DECREASE - 1.0) * slope;
        if !(decreases && reached.is_finite()) {
            longest = length;
        } else if new_slope < CURVATURE * slope {
            shortest = length;
        } else {
            return Some((length, reached, gradient));
        }
        // The root of the line through both slopes, if it is between the bounds.
        let secant = length * slope / (slope - new_slope);
        length = if longest.is_infinite() {
            if secant.is_finite() && secant > length { secant.min(10.0 * length) } else { 2.0 * length }
        } else {
            let width = longest - shortest;
            if secant.is_finite() {
                secant.clamp(shortest + 0.1 * width, longest - 0.1 * width)
            } else {
                shortest + 0.1 * width
            }
        };
    }
    None
}

/// A step and the change of the gradient along it.
struct Step {
    step: Array2<f64>,
    change: Array2<f64>,
    /// Their product, positive for a strictly convex function.
    curvature: f64,
}

impl Step {
    fn new(step: Array2<f64>, change: Array2<f64>) -> Self {
        let curvature = dot(&step, &change);
        Self { step, change, curvature }
    }
}

/// Computes −H·g with the two-loop recursion.
fn descent_direction(function: &mut dyn Convex, steps: &VecDeque<Step>, gradient: &Array2<f64>) -> Array2<f64> {
    let mut direction = -gradient;
    let mut factors = Vec::with_capacity(steps.len());
    for Step { step, change, curvature } in steps.iter().rev() {
        let factor = dot(step, &direction) / curvature;
        direction.scaled_add(-factor, change);
        factors.push(factor);
    }
    direction = function.precondition(&direction);
    if let Some(Step { change, curvature, .. }) = steps.back() {
        direction *= curvature / dot(change, &function.precondition(change));
    }
    for (Step { step, change, curvature }, factor) in steps.iter().zip(factors.into_iter().rev()) {
        let correction = factor - dot(change, &direction) / curvature;
        direction.scaled_add(correction, step);
    }
    direction
}

fn dot(a: &Array2<f64>, b: &Array2<f64>) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
