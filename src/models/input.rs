//! Input of a network: shape, resizing, cropping and normalization of images.

use serde::{Deserialize, Serialize};

/// How a decoded image becomes the input tensor of a network: resize, crop, then `(value / scale - mean) / std`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSpec {
    /// Name of the input in the ONNX graph.
    #[serde(default = "default_name")]
    pub name: String,
    /// Whether an item of the batch is a single image or a window of frames.
    pub layout: InputLayout,
    /// Number of frames in a window; for layout `clip` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frames: Option<usize>,
    /// Height and width in pixels.
    pub size: [usize; 2],
    /// How an image is resized and cropped to `size`.
    pub resize: Resize,
    /// Interpolation kernel.
    pub interpolation: Interpolation,
    /// `true` if the kernel widens with the scale when downsampling (Pillow, torchvision `antialias=True`).
    pub antialias: bool,
    /// Order of the channels.
    #[serde(default)]
    pub color: Color,
    /// Divisor of the eight-bit values before `mean` and `std` are applied.
    #[serde(default = "default_scale")]
    pub scale: f64,
    /// Mean per channel, in the order of `color`.
    pub mean: [f64; 3],
    /// Standard deviation per channel, in the order of `color`.
    pub std: [f64; 3],
}

/// Axes of the input tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputLayout {
    /// `(batch, channel, height, width)`.
    Frames,
    /// `(batch, channel, frame, height, width)`.
    Clip,
}

/// How an image is resized and cropped to the input size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resize {
    /// Resizes the short side to this many pixels and the long one to `short * long / short side`, truncated; then takes
    /// the center crop. As torchvision's `Resize(n)` and `CenterCrop`: the offset of the crop is `(full - crop) / 2`,
    /// rounded half to even.
    Short(usize),
    /// Resizes to this height and width regardless of the aspect ratio; then takes the center crop as above.
    Size([usize; 2]),
    /// Takes the center square of side `short side * first / second`, truncated, at offset `(full - side + 1) / 2`,
    /// truncated; then resizes it to the input size. As the evaluation of TensorFlow's EfficientNet
    /// (`_decode_and_center_crop`, 260 / (260 + 32) for Lite2).
    CropFraction([usize; 2]),
}

/// Interpolation kernel. Pixel centers are at half-integer coordinates (`align_corners=False`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// Triangle kernel with two taps.
    Bilinear,
    /// Cubic convolution kernel with four taps, a = -0.75 (with antialias: -0.5, as in Pillow).
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

/// Largest height, width, number of frames, or embedding length that a card may specify. Larger values are typing errors,
/// and products of these fit into 64 bits.
pub const MAX_SIZE: usize = 1 << 15;

/// Converts eight-bit values to the numbers that a network reads: per channel, `(value / scale - mean) / std` in f32.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalization {
    /// See [`InputSpec::scale`].
    pub scale: f32,
    /// See [`InputSpec::mean`].
    pub mean: [f32; 3],
    /// See [`InputSpec::std`].
    pub std: [f32; 3],
}

/// The number for each eight-bit value of each channel.
pub type NormalizationTable = [[f32; 256]; 3];

impl Normalization {
    /// Returns the number for an eight-bit value of a channel.
    #[inline(always)]
    pub fn apply(&self, channel: usize, value: f32) -> f32 {
        (value / self.scale - self.mean[channel]) / self.std[channel]
    }

    /// Returns the numbers for all eight-bit values.
    pub fn table(&self) -> NormalizationTable {
        std::array::from_fn(|channel| std::array::from_fn(|value| self.apply(channel, value as f32)))
    }
}

fn default_name() -> String {
    "x".into()
}

fn default_scale() -> f64 {
    255.0
}

impl InputSpec {
    /// Returns the shape of the input tensor for a batch of `batch` items.
    pub fn shape(&self, batch: usize) -> Vec<usize> {
        let [height, width] = self.size;
        match self.layout {
            InputLayout::Frames => vec![batch, 3, height, width],
            InputLayout::Clip => vec![batch, 3, self.frames.unwrap_or(1), height, width],
        }
    }

    /// Returns the normalization, with channels in the order of `color`.
    pub fn normalization(&self) -> Normalization {
        let narrow = |values: [f64; 3]| values.map(|value| value as f32);
        Normalization { scale: self.scale as f32, mean: narrow(self.mean), std: narrow(self.std) }
    }

    /// Returns the number of values in one item of the batch.
    pub fn item_len(&self) -> usize {
        self.shape(1).iter().product()
    }

    /// Normalizes an item of eight-bit values.
    pub fn normalize(&self, item: &[u8]) -> Vec<f32> {
        let table = self.normalization().table();
        let planes = item.chunks_exact(item.len() / table.len()).zip(&table);
        planes.flat_map(|(plane, numbers)| plane.iter().map(|&value| numbers[usize::from(value)])).collect()
    }

    /// Checks ranges and combinations of values.
    ///
    /// # Errors
    /// Returns a message that names the key.
    pub fn check(&self) -> Result<(), String> {
        let in_range = |value: usize| (1..=MAX_SIZE).contains(&value);
        if !self.size.iter().all(|&side| in_range(side)) {
            return Err(format!("input.size: height and width must be in 1..={MAX_SIZE}"));
        }
        match (self.layout, self.frames) {
            (InputLayout::Clip, frames) if !frames.is_some_and(in_range) => {
                return Err(format!("input.frames: layout clip needs the number of frames, in 1..={MAX_SIZE}"));
            }
            (InputLayout::Frames, Some(_)) => return Err("input.frames applies to layout clip only".into()),
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
            Resize::Short(side) if side > MAX_SIZE => return Err(format!("input.resize: {side} exceeds {MAX_SIZE}")),
            Resize::Size([h, w]) if h.max(w) > MAX_SIZE => {
                return Err(format!("input.resize: {h}x{w} exceeds {MAX_SIZE}"));
            }
            Resize::CropFraction([numerator, denominator])
                if numerator == 0 || numerator > denominator || denominator > MAX_SIZE =>
            {
                return Err(format!("input.resize: {numerator}/{denominator} is not a fraction in (0, 1]"));
            }
            _ => {}
        }
        let positive = |value: &f64| value.is_finite() && *value > 0.0;
        if !positive(&self.scale) || !self.std.iter().all(positive) || !self.mean.iter().all(|m| m.is_finite()) {
            return Err("input: scale and std must be positive, mean must be finite".into());
        }
        Ok(())
    }
}
