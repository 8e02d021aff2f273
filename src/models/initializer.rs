//! Initialization of seeded weights, by role and name of a parameter.
//!
//! The rules keep the variance of activations roughly constant through each network, so that untrained features depend
//! on the input and rounding errors are not amplified. They apply to seeded weights only.

use super::graph::Role;
use super::nets::Architecture;

/// Gain of a layer whose input is a rectified standard normal variable: 1 / sqrt(1/2 − 1/(2π)), so that the output of a
/// zero-mean layer has unit variance.
const AFTER_RELU: f64 = 1.713_1;
/// Gain of a layer whose input was not rectified.
const AFTER_LINEAR: f64 = 1.0;
/// Gain of a 3×3 convolution of [`AVERAGING`] filters after a ReLU. Such a filter amplifies inputs that are constant over
/// its window by √6 relative to its norm; this is [`AFTER_RELU`] / √6.
const AVERAGING_3X3: f64 = 0.7;
/// The same for a convolution of three taps: [`AFTER_RELU`] / √(8/3).
const AVERAGING_3: f64 = 1.05;

/// Factor of filters that respond only to changes within their window: the taps of each channel sum to zero. For the first
/// layer along space or time, so that color and brightness do not dominate.
const DIFFERENCE: i64 = 0;
/// Factor of filters with independent taps.
const INDEPENDENT: i64 = 1;
/// Factor of filters that mostly average each channel over their window. For deeper layers, so that the features of the
/// first layers persist.
const AVERAGING: i64 = 4;

/// Distribution of the values of a parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Distribution {
    /// Filters with zero mean and norm `gain`; see [`super::seeded`].
    Filters {
        /// Norm of each filter.
        gain: f64,
        /// Factor on the mean of each channel's taps.
        mean_factor: i64,
    },
    /// Uniform between two limits.
    Uniform(f64, f64),
}

/// Returns the distribution of a parameter.
pub fn distribution(architecture: Architecture, role: Role, name: &str) -> Distribution {
    match role {
        Role::Weight => {
            let (gain, mean_factor) = match architecture {
                Architecture::ConvNextBase => convnext(name),
                Architecture::R2Plus1D18 | Architecture::R2Plus1DTiny => r2plus1d(name),
                Architecture::ResNet18 => resnet18(name),
                Architecture::ResNet50 => resnet50(name),
                Architecture::EfficientNetLite2 => efficientnet_lite(name),
                Architecture::ClipVitB32 => clip(name),
                Architecture::TransNetV2 => transnet(name),
            };
            Distribution::Filters { gain, mean_factor }
        }
        Role::Bias => Distribution::Uniform(-0.1, 0.1),
        Role::NormScale => Distribution::Uniform(0.8, 1.2),
        Role::NormShift | Role::RunningMean => Distribution::Uniform(-0.3, 0.3),
        Role::RunningVariance => Distribution::Uniform(0.5, 1.5),
        Role::LayerScale => Distribution::Uniform(0.1, 0.4),
        Role::Embedding => Distribution::Uniform(-0.5, 0.5),
    }
}

fn convnext(name: &str) -> (f64, i64) {
    let gain = if name.ends_with("block.5.weight") { AFTER_RELU } else { AFTER_LINEAR };
    let mean_factor = match name {
        "features.0.0.weight" => DIFFERENCE,
        "features.2.1.weight" | "features.4.1.weight" | "features.6.1.weight" => AVERAGING,
        _ => INDEPENDENT,
    };
    (gain, mean_factor)
}

fn r2plus1d(name: &str) -> (f64, i64) {
    match name {
        "stem.0.weight" => (AFTER_LINEAR, DIFFERENCE),
        "stem.3.weight" => (AFTER_RELU, DIFFERENCE),
        name if name.contains("downsample") => (AFTER_LINEAR, INDEPENDENT),
        // The residual branch is weaker than the shortcut: otherwise the variance grows over the eight blocks.
        name if name.ends_with("conv2.0.3.weight") => (0.49, AVERAGING),
        name if name.ends_with(".0.0.weight") => (AVERAGING_3X3, AVERAGING),
        _ => (AVERAGING_3, AVERAGING),
    }
}

fn resnet18(name: &str) -> (f64, i64) {
    match name {
        "conv1.weight" => (AFTER_LINEAR, DIFFERENCE),
        name if name.contains("downsample") => (AFTER_LINEAR, INDEPENDENT),
        // The end of a residual branch, as in R(2+1)D-18.
        name if name.ends_with("conv2.weight") => (0.49, AVERAGING),
        _ => (AVERAGING_3X3, AVERAGING),
    }
}

fn resnet50(name: &str) -> (f64, i64) {
    match name {
        "conv1.weight" => (AFTER_LINEAR, DIFFERENCE),
        name if name.contains("downsample") => (AFTER_LINEAR, INDEPENDENT),
        name if name.ends_with("conv2.weight") => (AVERAGING_3X3, AVERAGING),
        // The end of a residual branch, as above.
        name if name.ends_with("conv3.weight") => (0.8, INDEPENDENT),
        _ => (AFTER_RELU, INDEPENDENT),
    }
}

fn efficientnet_lite(name: &str) -> (f64, i64) {
    let gain = if name.contains("_project_conv") {
        // A larger gain makes the network chaotic: it amplifies rounding errors a thousandfold. With a smaller gain the
        // output hardly depends on the input.
        1.15
    } else if name.contains("_depthwise_conv") {
        AFTER_RELU
    } else {
        AFTER_LINEAR
    };
    (gain, INDEPENDENT)
}

fn clip(name: &str) -> (f64, i64) {
    (if name.ends_with("mlp.fc2.weight") { AFTER_RELU } else { AFTER_LINEAR }, INDEPENDENT)
}

fn transnet(name: &str) -> (f64, i64) {
    let after_linear = name.ends_with("layers.1.weight") || name.ends_with("_layer.fc.weight");
    (if after_linear { AFTER_LINEAR } else { AFTER_RELU }, INDEPENDENT)
}
