//! Changes of color.
//!
//! # Source
//! torchvision `transforms/v2/functional/_color.py` on eight-bit tensors, in 32-bit floats: results are clamped to [0, 255] and truncated,
//! and gray values are truncated before they are used.

/// A change of color by a factor or a shift, as one of `torchvision.transforms.v2.functional.adjust_*`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Adjustment {
    /// Multiplies all values by a factor.
    Brightness(f32),
    /// Blends with the mean gray value of the image: factor 0 yields a uniform image, 1 the original.
    Contrast(f32),
    /// Blends with the gray image: factor 0 yields gray, 1 the original.
    Saturation(f32),
    /// Shifts the hue by a part of the color circle, in [−0.5, 0.5].
    Hue(f32),
}

impl Adjustment {
    /// Changes an image in place.
    pub fn apply(self, image: &mut [u8]) {
        let (pixels, _) = image.as_chunks_mut::<3>();
        match self {
            Self::Brightness(factor) => map_bytes(pixels, |value| value * factor),
            Self::Contrast(factor) => {
                let sum: u64 = pixels.iter().map(|pixel| u64::from(gray(pixel))).sum();
                let mean = (sum as f64 / pixels.len() as f64) as f32;
                map_bytes(pixels, |value| value * factor + mean * (1.0 - factor));
            }
            Self::Saturation(factor) => {
                for pixel in pixels {
                    let offset = f32::from(gray(pixel)) * (1.0 - factor);
                    *pixel = pixel.map(|value| truncate(f32::from(value) * factor + offset));
                }
            }
            Self::Hue(shift) => pixels.iter_mut().for_each(|pixel| *pixel = shift_hue(*pixel, shift)),
        }
    }
}

/// Converts an image to gray, in place; the three channels become equal.
pub fn grayscale(image: &mut [u8]) {
    let (pixels, _) = image.as_chunks_mut::<3>();
    pixels.iter_mut().for_each(|pixel| *pixel = [gray(pixel); 3]);
}

/// Replaces every value by a function of it, which is computed once per possible value.
fn map_bytes(pixels: &mut [[u8; 3]], function: impl Fn(f32) -> f32) {
    let table: [u8; 256] = std::array::from_fn(|value| truncate(function(value as f32)));
    pixels.as_flattened_mut().iter_mut().for_each(|value| *value = table[usize::from(*value)]);
}

/// Truncates a value and clamps it to [0, 255].
fn truncate(value: f32) -> u8 {
    // A float is converted with saturation.
    value as u8
}

fn gray(&[red, green, blue]: &[u8; 3]) -> u8 {
    truncate(f32::from(red) * 0.2989 + f32::from(green) * 0.587 + f32::from(blue) * 0.114)
}

/// Shifts the hue in the color space HSV.
fn shift_hue(pixel: [u8; 3], shift: f32) -> [u8; 3] {
    let [red, green, blue] = pixel.map(|value| f32::from(value) / 255.0);
    let (low, high) = (red.min(green).min(blue), red.max(green).max(blue));
    if low == high {
        return pixel; // gray has no hue
    }
    let range = high - low;
    let saturation = range / high;
    let [r, g, b] = [red, green, blue].map(|value| (high - value) / range);
    let sixths = if high == red {
        b - g
    } else if high == green {
        r + 2.0 - b
    } else {
        g + 4.0 - r
    };
    // In [−1/6, 5/6], then shifted and wrapped to [0, 1]; an interval of 1 is added or subtracted, since remainders are slow.
    let wrap = |hue: f32| {
        if hue < 0.0 {
            hue + 1.0
        } else if hue >= 1.0 {
            hue - 1.0
        } else {
            hue
        }
    };
    let hue = wrap(wrap(sixths * (1.0 / 6.0)) + shift);
    let sector = (hue * 6.0) as u32;
    let fraction = hue * 6.0 - sector as f32;
    let q = ((1.0 - saturation * fraction) * high).clamp(0.0, 1.0);
    let t = ((saturation * fraction + (1.0 - saturation)) * high).clamp(0.0, 1.0);
    let p = ((1.0 - saturation) * high).clamp(0.0, 1.0);
    let color = match sector % 6 {
        0 => [high, t, p],
        1 => [q, high, p],
        2 => [p, high, t],
        3 => [p, q, high],
        4 => [t, p, high],
        _ => [high, p, q],
    };
    color.map(|value| truncate(value * 255.999))
}
