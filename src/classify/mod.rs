//! Rows → model.
pub mod early_stopping;
pub mod layers;
pub mod loss;
pub mod mlp;
pub mod numeric;
pub mod optimiser;
pub mod schedule;
