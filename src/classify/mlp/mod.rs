//! The multi-layer perceptron: its classifier, its model and its training.

pub mod network;
pub mod train;
