//! Linear support vector machine.

use super::linear::{LinearLoss, LinearSettings, Link};

/// Squared hinge loss. One binary SVM per class or label, z = w·x + b, minimizes Σ max(0, 1 − y·z)² + α/2·(‖w‖² + b²) with y = ±1
/// (scikit-learn's `LinearSVC` with C = 1/α; several labels per clip: in a `OneVsRestClassifier`). The scores, softmax(z) or σ(z), have the
/// order of the decision values; they are not calibrated probabilities.
#[derive(Debug, Clone, PartialEq)]
pub struct SquaredHinge;

impl LinearLoss for SquaredHinge {
    const CLASSIFIER: &'static str = "svm";
    const LINK: Link = Link::SquaredHinge;
    const MAX_ITERATIONS: u64 = 2000;
    const ALPHAS: &'static str = "log:1e-3..1e6";
}

/// Settings of the linear SVM; the table `[classify.svm]` of a recipe.
pub type SvmSettings = LinearSettings<SquaredHinge>;
