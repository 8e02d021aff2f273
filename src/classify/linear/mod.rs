//! Linear models: minimization of a loss of W·x + b with an L2 penalty.

mod fit;
mod lbfgs;
mod model;
mod objective;
mod preconditioner;
mod reduced;
mod warm_start;

pub(super) use fit::balanced;
pub use fit::{LinearClassifier, LinearLoss, LinearSettings};
pub use lbfgs::minimize;
pub use model::LinearModel;
pub use objective::{Link, Objective, Weights};
pub use warm_start::WarmStart;
