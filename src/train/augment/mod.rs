//! Augmentation of images of (height, width, 3) bytes in the order red, green, blue, as torchvision augments eight-bit tensors.
//!
//! [`Parameters::draw`] draws the parameters of the transforms, which are applied in the order rotation, flip, crop, changes of color,
//! gray, blur. All transforms are pure functions of the image and the parameters.

mod blur;
mod color;
mod geometry;

use kinoprobe::media::{BgrImage, Transform};
use kinoprobe::models::input::{Color, InputSpec, Resize};
use rand::Rng;
use rand::seq::SliceRandom;

pub use blur::gaussian_blur;
pub use color::{Adjustment, grayscale};
pub use geometry::{CropArea, ORIENTATIONS, flip_horizontally, orient, rotate};

use super::recipe::{AugmentSettings, InputSettings};

/// The parameters of the transforms of one image, or of all frames of a window. The default changes nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parameters {
    /// Rotation in degrees, counterclockwise; 0: none.
    pub rotation: f32,
    /// Flip horizontally.
    pub flip: bool,
    /// The part of the image that is resized to the input size.
    pub crop: Option<CropArea>,
    /// Changes of color, in the order in which they are applied.
    pub adjustments: Vec<Adjustment>,
    /// Convert to gray.
    pub grayscale: bool,
    /// Side of the kernel and standard deviation of a Gaussian blur, in pixels.
    pub blur: Option<(usize, f32)>,
}

impl Parameters {
    /// Draws parameters for images of `size`, height and width. Numbers are drawn for every transform, whether it is applied or not.
    pub fn draw(settings: &AugmentSettings, size: [usize; 2], rng: &mut impl Rng) -> Self {
        let rotation = settings.rotation * rng.gen_range(-1.0..=1.0);
        let flip = rng.r#gen::<f64>() < settings.flip;
        let crop = settings.crop.map(|crop| CropArea::draw(&crop, size, rng));
        let mut adjustments = Vec::new();
        if let Some(jitter) = settings.jitter {
            let apply = rng.r#gen::<f64>() < jitter.probability;
            let mut factor = |strength: f64| rng.gen_range((1.0 - strength).max(0.0)..=1.0 + strength) as f32;
            let factors = [jitter.brightness, jitter.contrast, jitter.saturation].map(&mut factor);
            let hue = rng.gen_range(-jitter.hue..=jitter.hue) as f32;
            let [brightness, contrast, saturation] = factors;
            let mut all = [
                (jitter.brightness, Adjustment::Brightness(brightness)),
                (jitter.contrast, Adjustment::Contrast(contrast)),
                (jitter.saturation, Adjustment::Saturation(saturation)),
                (jitter.hue, Adjustment::Hue(hue)),
            ];
            all.shuffle(rng);
            adjustments
                .extend(all.iter().filter(|(strength, _)| apply && *strength > 0.0).map(|(_, adjustment)| *adjustment));
        }
        let grayscale = rng.r#gen::<f64>() < settings.grayscale;
        let blur = settings.blur.and_then(|blur| {
            let apply = rng.r#gen::<f64>() < blur.probability;
            let sigma = rng.gen_range(blur.sigma[0]..=blur.sigma[1]) as f32;
            apply.then_some((blur.kernel, sigma))
        });
        Self { rotation: rotation as f32, flip, crop, adjustments, grayscale, blur }
    }

    /// Returns the parameters without rotation and flip, for images whose orientation is to be told.
    pub fn upright(self) -> Self {
        Self { rotation: 0.0, flip: false, ..self }
    }

    /// `true` if bytes change after the crop.
    fn changes_colors(&self) -> bool {
        !self.adjustments.is_empty() || self.grayscale || self.blur.is_some()
    }
}

/// Augments and normalizes images of one size. Each worker thread has its own, since it keeps buffers.
#[derive(Debug)]
pub struct Augmenter {
    size: [usize; 2],
    /// Resizes a crop to the input size and normalizes it.
    transform: Transform,
    /// The normalized value of each byte, per channel.
    normalized: [[f32; 256]; 3],
    buffer: Vec<u8>,
    floats: Vec<f32>,
}

impl Augmenter {
    /// Creates an augmenter for images of `input.size`.
    pub fn new(input: &InputSettings) -> Self {
        // The pixels are red, green, blue, and stay in this order.
        let spec = InputSpec { resize: Resize::Size(input.size), color: Color::Bgr, ..input.spec(None) };
        let normalized = std::array::from_fn(|c| {
            let (scale, mean, std) = (spec.scale as f32, spec.mean[c] as f32, spec.std[c] as f32);
            std::array::from_fn(|value| (value as f32 / scale - mean) / std)
        });
        Self { size: input.size, transform: Transform::new(&spec), normalized, buffer: Vec::new(), floats: Vec::new() }
    }

    /// Augments `image`, whose pixels change, and writes its normalized planes: channel `c` at `out[c * plane_stride..]`, with
    /// height · width values.
    ///
    /// # Panics
    /// Panics if `image` does not have the size of the input, or `out` is too short.
    pub fn write(&mut self, image: &mut [u8], parameters: &Parameters, out: &mut [f32], plane_stride: usize) {
        let [height, width] = self.size;
        assert_eq!(image.len(), 3 * height * width, "size of the image");
        self.buffer.resize(image.len(), 0);
        let mut image = image;
        let mut buffer = &mut self.buffer[..];
        if parameters.rotation != 0.0 {
            rotate(image, self.size, parameters.rotation, buffer);
            std::mem::swap(&mut image, &mut buffer);
        }
        if parameters.flip {
            flip_horizontally(image, width);
        }
        if let Some(crop) = parameters.crop.filter(|crop| *crop != CropArea::whole(self.size)) {
            let view = BgrImage {
                height: crop.height,
                width: crop.width,
                stride: 3 * width,
                data: &image[3 * (crop.top * width + crop.left)..],
            };
            if !parameters.changes_colors() {
                return self.transform.write(view, out, plane_stride);
            }
            self.transform.write_bytes(view, buffer);
            std::mem::swap(&mut image, &mut buffer);
        }
        for adjustment in &parameters.adjustments {
            adjustment.apply(image);
        }
        if parameters.grayscale {
            grayscale(image);
        }
        if let Some((kernel, sigma)) = parameters.blur {
            gaussian_blur(image, self.size, kernel, sigma, &mut self.floats);
        }
        normalize(&self.normalized, image, out, plane_stride);
    }
}

/// Writes the planes of an image, with the values of `normalized`.
fn normalize(normalized: &[[f32; 256]; 3], image: &[u8], out: &mut [f32], plane_stride: usize) {
    let len = image.len() / 3;
    let (red, rest) = out.split_at_mut(plane_stride);
    let (green, blue) = rest.split_at_mut(plane_stride);
    let planes = red[..len].iter_mut().zip(&mut green[..len]).zip(&mut blue[..len]);
    let (pixels, _) = image.as_chunks::<3>();
    for (((red, green), blue), pixel) in planes.zip(pixels) {
        *red = normalized[0][usize::from(pixel[0])];
        *green = normalized[1][usize::from(pixel[1])];
        *blue = normalized[2][usize::from(pixel[2])];
    }
}

#[cfg(test)]
mod tests;
