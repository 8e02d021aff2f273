//! Training of networks end to end through libtorch.

pub mod losses;
pub mod optimizer;
