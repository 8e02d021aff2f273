//! What a linear fit leaves to the next one on the same clips.

use ndarray::Array2;

use super::preconditioner::Preconditioner;
use super::reduced::Reduced;

/// The result of a linear fit, from which a fit to the same clips with another penalty starts.
///
/// Both fits end at the minimum of their own loss, so the start affects the duration, and the result by no more than the tolerance.
#[derive(Default)]
pub struct WarmStart {
    /// Coordinates of the clips that the parameters and the preconditioner are for; `None` if they are for the features.
    pub(super) reduced: Option<Reduced>,
    /// Parameters of the fitted classes, (C', D + 1).
    pub(super) parameters: Option<Array2<f64>>,
    /// Second moments of the features.
    pub(super) preconditioner: Option<Preconditioner>,
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::classify::tests::{dataset, noise};
    use crate::classify::{ClassifierKind, ClassifierSettings, FitContext, FitSettings, build};
    use crate::dataset::Task;

    #[test]
    fn fits_from_another_penalty_reach_the_same_minimum() {
        let mut noise = noise(5);
        // More and fewer clips than features.
        let mut clips = |dim: usize| {
            let rows = Array2::from_shape_fn((300, dim), |(i, d)| noise() + if d % 3 == i % 3 { 0.4 } else { 0.0 });
            dataset(rows.view(), Array2::from_shape_fn((300, 3), |(i, c)| f32::from(i % 3 == c)))
        };
        let (more, fewer) = (clips(20), clips(700));
        for (data, kind, task) in [
            (&more, ClassifierKind::Logistic, Task::SingleLabel),
            (&more, ClassifierKind::Logistic, Task::MultiLabel),
            (&more, ClassifierKind::Svm, Task::SingleLabel),
            (&fewer, ClassifierKind::Logistic, Task::SingleLabel),
            (&fewer, ClassifierKind::Svm, Task::MultiLabel),
        ] {
            let mut warm_start = WarmStart::default();
            for alpha in [1000.0, 10.0, 0.1] {
                let mut classifier: ClassifierSettings = kind.default_settings();
                *classifier.penalty_mut().unwrap() = alpha;
                let settings = FitSettings::new(classifier);
                let fit = |warm_start: Option<&mut WarmStart>| {
                    let mut ignore = |_: &_| {};
                    let mut context = FitContext { warm_start, ..FitContext::new(0, task, 1, &mut ignore) };
                    build(&settings).fit(data, data, &mut context).unwrap().model.scores(data).unwrap()
                };
                let [cold, warm] = [fit(None), fit(Some(&mut warm_start))];
                let error = (&cold - &warm).iter().fold(0f32, |most, e| most.max(e.abs()));
                // The squared hinge loss of separable clips with a small penalty determines the weights the least.
                let bound = if kind == ClassifierKind::Svm { 2e-4 } else { 3e-5 };
                assert!(error < bound, "{kind:?} {task:?} {alpha}: {error}");
            }
            assert!(warm_start.parameters.is_some() && warm_start.preconditioner.is_some());
            assert_eq!(warm_start.reduced.is_some(), data.dim() == 700);
        }
    }
}
