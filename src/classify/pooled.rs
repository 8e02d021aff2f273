//! Partial pooling: the output layer of a common model, corrected for a part of the clips.

use ndarray::{Array2, ArrayView2, s};

use super::linear::{Link, Objective, Weights, minimize};
use super::loss::Loss;
use super::{Classifier, FitContext, FitOutput, LinearModel, Model};
use crate::dataset::{Dataset, Task};
use crate::error::{Error, Result};

/// The strengths λ among which the validation clips choose, in ascending order; ∞ is the common model.
pub const STRENGTHS: [f64; 8] = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, f64::INFINITY];
/// Distance of the mean loss from its minimum at which the search ends.
const LOSS_TOLERANCE: f64 = 1e-10;
/// Maximum number of L-BFGS iterations. The penalty makes the problem well-conditioned, so that far fewer suffice.
const MAX_ITERATIONS: u64 = 300;

/// Fits the output layer (W, b) of a common model to the training clips: minimizes Σ ℓ + λ/2·‖(W, b) − (W₀, b₀)‖², where (W₀, b₀) is the
/// output layer of the common model, ℓ the cross-entropy of a clip (of all its labels), and λ the strength. The other parameters are
/// those of the common model. The penalty includes b, so that labels that no clip or every clip has keep a finite one.
///
/// The maximum a posteriori estimate of a hierarchical model with normally distributed deviations of variance 1/λ (Gelman & Hill 2007,
/// *Data Analysis Using Regression and Multilevel/Hierarchical Models*, section 12.2).
pub struct Pooled<'a> {
    /// The common model.
    pub common: &'a dyn Model,
    /// λ > 0; infinity for the common model itself.
    pub strength: f64,
}

impl Classifier for Pooled<'_> {
    fn fit(&self, train: &Dataset, _: &Dataset, context: &mut FitContext<'_>) -> Result<FitOutput> {
        let (inputs, layer) = output_layer(self.common, train)?;
        let layer = correct(&inputs, train, &layer, &layer, self.strength, context.threads);
        if !layer.weight.iter().chain(&layer.bias).all(|value| value.is_finite()) {
            return Err(Error::Data("cannot correct the common model: its weights are not finite".into()));
        }
        let model = self.common.with_output_layer(layer).expect("a model with an output layer");
        Ok(FitOutput { model, curves: vec![], score_name: "", kept_epoch: None, notes: vec![] })
    }
}

/// Returns the sum of the cross-entropies of all clips and labels of `valid` for each of [`STRENGTHS`], by the corrections fitted to `train`.
///
/// # Errors
/// Returns an error if the common model has no output layer, or if the features do not match it.
pub fn validation_losses(
    common: &dyn Model,
    train: &Dataset,
    valid: &Dataset,
    threads: usize,
) -> Result<[f64; STRENGTHS.len()]> {
    let (inputs, layer) = output_layer(common, train)?;
    let (valid_inputs, _) = output_layer(common, valid)?;
    let mut losses = [0.0; STRENGTHS.len()];
    let mut last = layer.clone();
    // The correction with a strength is a good start for the next lower one.
    for (loss, &strength) in losses.iter_mut().zip(&STRENGTHS).rev() {
        last = correct(&inputs, train, &layer, &last, strength, threads);
        *loss = cross_entropy(last.task, last.logits(valid_inputs.view()), valid.targets.view());
    }
    Ok(losses)
}

/// The strengths that the validation clips of several parts choose.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The strength of all parts with the lowest sum of the losses (ties: the highest).
    pub strength: f64,
    /// The strength of each part: that of all parts, or infinity if the loss on its own clips is not lower than that of the common model.
    pub of_part: Vec<f64>,
    /// Sum of the losses of all parts for each of [`STRENGTHS`].
    pub losses: [f64; STRENGTHS.len()],
}

/// Chooses the strengths of parts with these [`validation_losses`]. A part has few validation clips, so that the best of many strengths
/// would fit their noise: all parts have a common strength, and a part only decides between it and the common model. So neither
/// the sum of the losses nor that of a part is higher than that of the common model.
pub fn choose(losses: &[[f64; STRENGTHS.len()]]) -> Choice {
    let sums: [f64; STRENGTHS.len()] = std::array::from_fn(|k| losses.iter().map(|losses| losses[k]).sum());
    let mut best = STRENGTHS.len() - 1;
    for k in (0..STRENGTHS.len()).rev() {
        if sums[k] < sums[best] {
            best = k;
        }
    }
    let of_part = |losses: &[f64; STRENGTHS.len()]| {
        if losses[best] < losses[STRENGTHS.len() - 1] { STRENGTHS[best] } else { f64::INFINITY }
    };
    Choice { strength: STRENGTHS[best], of_part: losses.iter().map(of_part).collect(), losses: sums }
}

fn output_layer(common: &dyn Model, data: &Dataset) -> Result<(Array2<f32>, LinearModel)> {
    let layer = common.output_layer(data)?;
    layer.ok_or_else(|| Error::Data("cannot correct the common model: it has no linear output layer".into()))
}

/// Returns the output layer `common`, corrected with the strength for the inputs (N, H) of the clips of `train`. The search starts at `start`.
fn correct(
    inputs: &Array2<f32>,
    train: &Dataset,
    common: &LinearModel,
    start: &LinearModel,
    strength: f64,
    threads: usize,
) -> LinearModel {
    if strength.is_infinite() || train.is_empty() {
        return common.clone();
    }
    let link = match common.task {
        Task::SingleLabel => Link::Softmax,
        Task::MultiLabel => Link::Sigmoid,
    };
    let weights = Weights::ones(common.bias.len());
    let objective = Objective::new(link, inputs.view(), train.targets.view(), weights, strength, threads);
    let mut objective = objective.with_center(parameters(common)).with_preconditioner(None);
    let minimum = minimize(&mut objective, parameters(start), LOSS_TOLERANCE, MAX_ITERATIONS).parameters;
    let minimum = minimum.mapv(|value| value as f32);
    let dim = inputs.ncols();
    LinearModel {
        weight: minimum.slice(s![.., ..dim]).to_owned(),
        bias: minimum.column(dim).to_owned(),
        task: common.task,
    }
}

/// Returns (W, b), (C, H + 1).
fn parameters(layer: &LinearModel) -> Array2<f64> {
    let (classes, dim) = layer.weight.dim();
    let mut parameters = Array2::zeros((classes, dim + 1));
    parameters.slice_mut(s![.., ..dim]).assign(&layer.weight.mapv(f64::from));
    parameters.column_mut(dim).assign(&layer.bias.mapv(f64::from));
    parameters
}

/// Returns the sum of the cross-entropies of logits (N, C).
fn cross_entropy(task: Task, logits: Array2<f32>, targets: ArrayView2<'_, f32>) -> f64 {
    let (loss, terms) = match task {
        Task::SingleLabel => (Loss::CrossEntropy { weights: None }, logits.nrows()),
        Task::MultiLabel => (Loss::BinaryCrossEntropy { positive: None }, logits.len()),
    };
    if terms == 0 { 0.0 } else { terms as f64 * loss.value(logits.view(), targets) }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Axis, concatenate};

    use super::*;
    use crate::classify::tests::{dataset, noise};
    use crate::classify::{ClassifierKind, FitSettings, build};

    /// Clips of two labels whose weights for four features are those of `angle`.
    fn clips(count: usize, seed: u64, angle: f32) -> Dataset {
        let mut noise = noise(seed);
        let rows = Array2::from_shape_fn((count, 4), |_| noise());
        let has =
            |x: ndarray::ArrayView1<'_, f32>, angle: f32| f32::from(x[0] * angle.cos() + x[1] * angle.sin() > 0.0);
        let targets = Array2::from_shape_fn((count, 2), |(i, c)| has(rows.row(i), angle + c as f32));
        dataset(rows.view(), targets)
    }

    fn fit(classifier: &dyn Classifier, train: &Dataset) -> Box<dyn Model> {
        let mut ignore = |_: &_| {};
        let mut context = FitContext::new(0, Task::MultiLabel, 1, &mut ignore);
        classifier.fit(train, &train.select(&[]), &mut context).unwrap().model
    }

    fn common(kind: ClassifierKind) -> Box<dyn Model> {
        let classifier = kind.default_settings();
        let settings = FitSettings::new(classifier);
        fit(build(&settings).as_ref(), &clips(200, 1, 0.0))
    }

    #[test]
    fn corrections_minimize_their_objective() {
        let year = clips(30, 2, 0.8);
        for kind in [ClassifierKind::Logistic, ClassifierKind::Mlp] {
            let common = common(kind);
            let (inputs, layer) = output_layer(common.as_ref(), &year).unwrap();
            for strength in [0.5, 20.0] {
                let model = fit(&Pooled { common: common.as_ref(), strength }, &year);
                let (unchanged, corrected) = output_layer(model.as_ref(), &year).unwrap();
                assert_eq!(unchanged, inputs);
                // ∂/∂W = (σ(z) − t)ᵀ·x + λ·(W − W₀), and the same for b with x = 1.
                let x = concatenate![Axis(1), inputs.mapv(f64::from), Array2::ones((year.len(), 1))];
                let scores = model.scores(&year).unwrap().mapv(f64::from);
                let slope = (scores - year.targets.mapv(f64::from)).t().dot(&x);
                let gradient = &slope + &((parameters(&corrected) - parameters(&layer)) * strength);
                let [error, size] = [&gradient, &slope].map(|m| m.iter().fold(0f64, |most, g| most.max(g.abs())));
                assert!(error < 1e-3 * size.max(1.0), "{} {strength}: {error} of {size}", kind.name());
            }
        }
    }

    #[test]
    fn an_infinite_strength_is_the_common_model() {
        let year = clips(30, 2, 0.8);
        for kind in [ClassifierKind::Logistic, ClassifierKind::Mlp] {
            let common = common(kind);
            let model = fit(&Pooled { common: common.as_ref(), strength: f64::INFINITY }, &year);
            assert_eq!(model.tensors(), common.tensors(), "{}", kind.name());
            let nearly = fit(&Pooled { common: common.as_ref(), strength: 1e9 }, &year).scores(&year).unwrap();
            let distance = (nearly - common.scores(&year).unwrap()).iter().fold(0f32, |most, d| most.max(d.abs()));
            assert!(distance < 1e-5, "{}: {distance}", kind.name());
        }
        assert!(validation_losses(common(ClassifierKind::Bayes).as_ref(), &year, &year, 1).is_err());
    }

    #[test]
    fn validation_losses_are_the_cross_entropies_of_the_corrections() {
        let (train, valid) = (clips(30, 2, 0.8), clips(40, 3, 0.8));
        let common = common(ClassifierKind::Logistic);
        let losses = validation_losses(common.as_ref(), &train, &valid, 1).unwrap();
        for (strength, loss) in STRENGTHS.into_iter().zip(losses) {
            let scores = fit(&Pooled { common: common.as_ref(), strength }, &train).scores(&valid).unwrap();
            let of = |(p, t): (&f32, &f32)| -f64::from(if *t > 0.0 { *p } else { 1.0 - p }).ln();
            let expected: f64 = scores.iter().zip(&valid.targets).map(of).sum();
            assert!((loss - expected).abs() < 1e-2 * expected, "{strength}: {loss} {expected}");
        }
        assert!(losses[2] < losses[STRENGTHS.len() - 1], "{losses:?}");
        let logits = Array2::from_shape_vec((1, 3), vec![1.0, 2.0, 3.0]).unwrap();
        let loss =
            cross_entropy(Task::SingleLabel, logits, Array1::from(vec![0.0, 1.0, 0.0]).insert_axis(Axis(0)).view());
        // -scipy.special.log_softmax([1, 2, 3])[1]
        assert!((loss - 1.4076059644443804).abs() < 1e-6, "{loss}");
    }

    #[test]
    fn no_part_is_worse_than_the_common_model_on_its_validation_clips() {
        let losses = |best: usize, gain: f64| std::array::from_fn(|k| if k == best { 5.0 - gain } else { 5.0 });
        let choice = choose(&[losses(2, 1.0), losses(2, -0.5), losses(4, 0.9), losses(0, 0.0)]);
        assert_eq!((choice.strength, choice.losses[2]), (STRENGTHS[4], 19.5));
        assert_eq!(choice.of_part, [f64::INFINITY, f64::INFINITY, STRENGTHS[4], f64::INFINITY]);
        let choice = choose(&[losses(2, 0.0), losses(1, -1.0)]);
        assert_eq!((choice.strength, choice.of_part), (f64::INFINITY, vec![f64::INFINITY; 2]));
        assert_eq!(choose(&[]).strength, f64::INFINITY);
    }
}
