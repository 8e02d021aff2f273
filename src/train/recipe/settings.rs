//! The tables of a training recipe that classification does not have.

use std::collections::BTreeMap;

use kinoprobe::classify::OptimizerSettings;
use kinoprobe::manifest::imbalance::Resample;
use kinoprobe::models::WeightsChoice;
use kinoprobe::models::input::{Color, InputLayout, InputSpec, Interpolation, Resize};
use kinoprobe::models::nets::head::Head;
use kinoprobe::value_parsers;
use serde::{Deserialize, Serialize};

use crate::train::torch::is_below;

/// Checks that a value is in a range of numbers, both ends inclusive.
fn in_range(key: &str, value: f64, low: f64, high: f64) -> Result<(), String> {
    if (low..=high).contains(&value) { Ok(()) } else { Err(format!("{key} must be in [{low}, {high}], not {value}")) }
}

/// Checks that two numbers are the ends of a range within [`low`, `high`].
fn is_range(key: &str, [start, end]: [f64; 2], low: f64, high: f64) -> Result<(), String> {
    if low <= start && start <= end && end <= high {
        return Ok(());
    }
    Err(format!("{key} must be a range [a, b] with {low} ≤ a ≤ b ≤ {high}, not [{start}, {end}]"))
}

/// Checks that a value is at least 1.
fn at_least_one(key: &str, value: usize) -> Result<(), String> {
    if value == 0 { Err(format!("{key} must be at least 1")) } else { Ok(()) }
}

/// The network and which of its parameters are trained; the table `[network]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct NetworkSettings {
    /// Name of the card (`models/NAME.toml`), which has the architecture and the origins of published weights.
    #[arg(skip)]
    pub card: String,
    /// Initial weights: `none` (PyTorch's default initialization from the seed), `default`, `published`, `registry` or `seeded`
    /// (origins of the card), or a checkpoint (.pth, .safetensors).
    #[arg(long, value_name = "WEIGHTS")]
    pub weights: String,
    /// Prefixes of the parameters that are trained, such as `layer4.2`; empty: all. The head is always trained.
    #[serde(default)]
    #[arg(skip)]
    pub trainable: Vec<String>,
    /// Prefixes of the parameters that are not trained. Batch norms with frozen parameters keep their statistics.
    #[serde(default)]
    #[arg(skip)]
    pub frozen: Vec<String>,
    /// Factors of the learning rate by prefix; the longest prefix counts. Parameters without one have factor 1.
    #[serde(default)]
    #[arg(skip)]
    pub rates: BTreeMap<String, f64>,
    /// The classifier on the embedding.
    #[serde(default)]
    #[arg(skip)]
    pub head: HeadSettings,
}

/// The layers from an embedding to logits; the table `[network.head]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeadSettings {
    /// Units h of the hidden layer of Linear(d, h), ReLU, Dropout, Linear(h, C); 0: Dropout, Linear(d, C).
    pub hidden: usize,
    /// Dropout probability.
    pub dropout: f64,
}

impl HeadSettings {
    /// Returns the layers on embeddings of length `inputs`, with the name of their module.
    pub fn layers(&self, name: &str, inputs: usize, outputs: usize) -> Head {
        let hidden = (self.hidden > 0).then_some(self.hidden);
        Head { name: name.into(), inputs, hidden, dropout: self.dropout, outputs }
    }

    fn validate(&self, key: &str) -> Result<(), String> {
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(format!("{key}.dropout must be in [0, 1), not {}", self.dropout));
        }
        Ok(())
    }
}

impl NetworkSettings {
    /// Returns the origin of the initial weights; `None` for PyTorch's default initialization.
    pub fn initial_weights(&self) -> Option<WeightsChoice> {
        (self.weights != "none").then(|| self.weights.parse().unwrap_or_else(|error| match error {}))
    }

    /// Returns `true` if the parameter `name` of the network is trained.
    pub fn is_trainable(&self, name: &str) -> bool {
        let any = |prefixes: &[String]| prefixes.iter().any(|prefix| is_below(name, prefix));
        (self.trainable.is_empty() || any(&self.trainable)) && !any(&self.frozen)
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        if self.weights.is_empty() {
            return Err("network.weights must be none, default, published, registry, seeded or a file".into());
        }
        if !self.trainable.is_empty() && !self.frozen.is_empty() {
            return Err("network.trainable and network.frozen exclude each other: list the prefixes of one kind".into());
        }
        for (prefix, &factor) in &self.rates {
            if !(factor.is_finite() && factor >= 0.0) {
                return Err(format!("network.rates.{prefix:?} must be a finite number ≥ 0, not {factor}"));
            }
        }
        self.head.validate("network.head")
    }
}

/// Input of the network; the table `[input]`. Frames are resized once, with an antialiased bilinear kernel as torchvision's `Resize` on
/// eight-bit tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSettings {
    /// Height and width in pixels.
    pub size: [usize; 2],
    /// How a frame is resized and cropped to `size`.
    pub resize: Resize,
    /// Mean of red, green and blue, for values in [0, 1]. Default: that of ImageNet.
    #[serde(default = "imagenet_mean")]
    pub mean: [f64; 3],
    /// Standard deviation of red, green and blue. Default: that of ImageNet.
    #[serde(default = "imagenet_std")]
    pub std: [f64; 3],
}

fn imagenet_mean() -> [f64; 3] {
    [0.485, 0.456, 0.406]
}

fn imagenet_std() -> [f64; 3] {
    [0.229, 0.224, 0.225]
}

impl InputSettings {
    /// Returns the input section of a card for the trained network. `frames` is the number of frames in a window of a 3-D network,
    /// and `None` for 2-D networks.
    pub fn spec(&self, frames: Option<usize>) -> InputSpec {
        InputSpec {
            name: "x".into(),
            layout: if frames.is_some() { InputLayout::Clip } else { InputLayout::Frames },
            frames,
            size: self.size,
            resize: self.resize,
            interpolation: Interpolation::Bilinear,
            antialias: true,
            color: Color::Rgb,
            scale: 255.0,
            mean: self.mean,
            std: self.std,
        }
    }
}

/// The clips and frames of an epoch; the table `[epoch]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct EpochSettings {
    /// Maximum number of windows (frames for 2-D networks) of a clip, drawn at random in each epoch from those that `[sampling]`
    /// selects [default: all].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "N", value_parser = value_parsers::at_least(1_usize))]
    pub draw: Option<usize>,
    /// Draw clips with replacement, so that every class is equally frequent.
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    pub balanced: bool,
    /// Omit the last batch of an epoch if it is not full.
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    pub drop_last: bool,
    /// Resampling of the training clips by label set, before the first epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[arg(skip)]
    pub resample: Option<Resample>,
}

impl EpochSettings {
    pub(super) fn validate(&self) -> Result<(), String> {
        at_least_one("epoch.draw", self.draw.unwrap_or(1))?;
        match self.resample {
            Some(_) if self.balanced => Err("epoch.balanced and epoch.resample exclude each other".into()),
            Some(resample) => resample.validate(),
            None => Ok(()),
        }
    }
}

/// Augmentation of the training frames; the table `[augment]`. The transforms are applied in the order of the keys; all frames of a
/// window have the same parameters. The defaults change nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentSettings {
    /// Maximum rotation in degrees, in either direction.
    pub rotation: f64,
    /// Probability of a horizontal flip.
    pub flip: f64,
    /// Crop that is resized to the input size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop: Option<CropSettings>,
    /// Random changes of color.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<JitterSettings>,
    /// Probability of a conversion to gray.
    pub grayscale: f64,
    /// Gaussian blur.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blur: Option<BlurSettings>,
    /// α of mixup (Zhang et al. 2018): clips are mixed in pairs with weights λ and 1 − λ, λ ~ Beta(α, α); 0: off.
    pub mixup: f64,
}

/// A random crop as in torchvision's `RandomResizedCrop`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CropSettings {
    /// Range of the share of the area.
    pub scale: [f64; 2],
    /// Range of the aspect ratio, width / height. Default: 3/4 to 4/3.
    #[serde(default = "crop_ratio")]
    pub ratio: [f64; 2],
}

fn crop_ratio() -> [f64; 2] {
    [3.0 / 4.0, 4.0 / 3.0]
}

/// Changes of color as in torchvision's `ColorJitter`, in random order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JitterSettings {
    /// Probability that the colors of a window are changed.
    pub probability: f64,
    /// b: the factor of the brightness is in [1 − b, 1 + b] and at least 0.
    pub brightness: f64,
    /// The same for the contrast.
    pub contrast: f64,
    /// The same for the saturation.
    pub saturation: f64,
    /// h: the hue is shifted by an amount in [−h, h], at most 0.5.
    pub hue: f64,
}

/// Blur as in torchvision's `GaussianBlur`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlurSettings {
    /// Probability that a window is blurred.
    pub probability: f64,
    /// Side of the kernel in pixels, odd.
    pub kernel: usize,
    /// Range of the standard deviation in pixels.
    pub sigma: [f64; 2],
}

impl AugmentSettings {
    pub(super) fn validate(&self, size: [usize; 2]) -> Result<(), String> {
        in_range("augment.rotation", self.rotation, 0.0, 180.0)?;
        in_range("augment.flip", self.flip, 0.0, 1.0)?;
        in_range("augment.grayscale", self.grayscale, 0.0, 1.0)?;
        in_range("augment.mixup", self.mixup, 0.0, 100.0)?;
        if let Some(crop) = &self.crop {
            is_range("augment.crop.scale", crop.scale, 0.001, 1.0)?;
            is_range("augment.crop.ratio", crop.ratio, 0.01, 100.0)?;
        }
        if let Some(jitter) = &self.jitter {
            in_range("augment.jitter.probability", jitter.probability, 0.0, 1.0)?;
            in_range("augment.jitter.brightness", jitter.brightness, 0.0, 10.0)?;
            in_range("augment.jitter.contrast", jitter.contrast, 0.0, 10.0)?;
            in_range("augment.jitter.saturation", jitter.saturation, 0.0, 10.0)?;
            in_range("augment.jitter.hue", jitter.hue, 0.0, 0.5)?;
        }
        if let Some(blur) = &self.blur {
            in_range("augment.blur.probability", blur.probability, 0.0, 1.0)?;
            is_range("augment.blur.sigma", blur.sigma, 0.01, 100.0)?;
            // Reflection at the edges needs half a kernel of pixels.
            let most = 2 * size[0].min(size[1]) - 1;
            if blur.kernel.is_multiple_of(2) || blur.kernel > most {
                return Err(format!(
                    "augment.blur.kernel must be an odd number of at most {most}, not {}",
                    blur.kernel
                ));
            }
        }
        Ok(())
    }
}

/// The self-supervised task of SESEMI (Tran 2019): a second head tells which of six transforms (rotations by 0°, 90°, 180° and 270°,
/// horizontal and vertical flip) was applied to labeled and unlabeled frames; the table `[rotations]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RotationSettings {
    /// Weight of the cross-entropy. The paper uses 1 and does not tune it.
    pub weight: f64,
    /// Epochs in which the weight rises linearly from 0. The paper uses 0.
    pub ramp_up: usize,
    /// Number of frames per training step. Each occurs under all six transforms, as in the paper.
    pub frames: usize,
    /// The second head, which has six outputs.
    pub head: HeadSettings,
    /// Its optimizer, which also updates the trained parameters of the network by the gradient of this loss.
    pub optimizer: OptimizerSettings,
}

impl Default for RotationSettings {
    fn default() -> Self {
        Self {
            weight: 1.0,
            ramp_up: 0,
            frames: 8,
            head: HeadSettings::default(),
            optimizer: OptimizerSettings::default(),
        }
    }
}

impl RotationSettings {
    /// Returns the weight of the loss in an epoch, counted from 0.
    pub fn weight_in(&self, epoch: usize) -> f64 {
        if epoch < self.ramp_up { self.weight * epoch as f64 / self.ramp_up as f64 } else { self.weight }
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        in_range("rotations.weight", self.weight, 0.0, 1000.0)?;
        at_least_one("rotations.frames", self.frames)?;
        self.head.validate("rotations.head")?;
        self.optimizer.validate().map_err(|message| message.replace("classify.", "rotations."))
    }
}

/// Contrastive pre-training as in SimCLR (Chen et al. 2020), with the loss NT-Xent on two augmented views of each window; the table
/// `[contrastive]`. Labels are not used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContrastiveSettings {
    /// Temperature τ. The paper uses 0.1 for ImageNet and 0.5 for CIFAR-10.
    pub temperature: f64,
    /// Units of the hidden layer of the projection head Linear, ReLU, Linear; 0: that of the embedding, as in the paper.
    pub hidden: usize,
    /// Length of the projection.
    pub dim: usize,
}

impl Default for ContrastiveSettings {
    fn default() -> Self {
        Self { temperature: 0.1, hidden: 0, dim: 128 }
    }
}

impl ContrastiveSettings {
    pub(super) fn validate(&self) -> Result<(), String> {
        at_least_one("contrastive.dim", self.dim)?;
        in_range("contrastive.temperature", self.temperature, 0.001, 100.0)
    }
}

/// Arithmetic of the forward and backward pass on CUDA; the CPU always computes in f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum MixedPrecision {
    /// f32.
    #[default]
    F32,
    /// bf16 where PyTorch's autocast uses it.
    Bf16,
    /// fp16 where PyTorch's autocast uses it, with loss scaling.
    F16,
}
