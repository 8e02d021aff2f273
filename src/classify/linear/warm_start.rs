//! What a linear fit leaves to the next one on the same clips.

use ndarray::Array2;

use super::preconditioner::Preconditioner;

/// The result of a linear fit, from which a fit to the same clips with another penalty starts.
///
/// Both fits end at the minimum of their own loss, so the start affects the duration, and the result by no more than the tolerance.
#[derive(Default)]
pub struct WarmStart {
    /// Parameters of the fitted classes, (C', D + 1).
    pub(super) parameters: Option<Array2<f64>>,
    /// Second moments of the features.
    pub(super) preconditioner: Option<Preconditioner>,
}
