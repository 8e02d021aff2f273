//! Rotations, flips and crops.

use rand::Rng;

use super::super::recipe::settings::CropSettings;

/// Rotates an image of `size` (height, width) about its center by `degrees`, counterclockwise, with bilinear interpolation. Pixels outside
/// of the image are black.
///
/// # Source
/// torchvision `transforms/v2/functional/_geometry.py`, `rotate_image` with `InterpolationMode.BILINEAR` and `fill=0`: the weights of the
/// pixels inside of the image are applied twice at its edges, once by `grid_sample` and once by the mask of the fill color.
pub fn rotate(image: &[u8], size: [usize; 2], degrees: f32, out: &mut [u8]) {
    let [height, width] = size;
    let (sin, cos) = f64::from(degrees).to_radians().sin_cos();
    let (sin, cos) = (sin as f32, cos as f32);
    let (center_y, center_x) = ((height as f32 - 1.0) / 2.0, (width as f32 - 1.0) / 2.0);
    for (y, row) in out.chunks_exact_mut(3 * width).enumerate() {
        let dy = y as f32 - center_y;
        let (start_x, start_y) = (center_x - sin * dy, center_y + cos * dy);
        let (pixels, _) = row.as_chunks_mut::<3>();
        for (x, pixel) in pixels.iter_mut().enumerate() {
            let dx = x as f32 - center_x;
            let (source_x, source_y) = (start_x + cos * dx, start_y + sin * dx);
            let (left, top) = (floor(source_x), floor(source_y));
            let (tx, ty) = (source_x - left as f32, source_y - top as f32);
            let weights = [(1.0 - ty) * (1.0 - tx), (1.0 - ty) * tx, ty * (1.0 - tx), ty * tx];
            if left >= 0 && top >= 0 && left + 1 < width as isize && top + 1 < height as isize {
                let first = 3 * (top as usize * width + left as usize);
                let (above, below) = (&image[first..first + 6], &image[first + 3 * width..first + 3 * width + 6]);
                for (c, value) in pixel.iter_mut().enumerate() {
                    let sum = f32::from(above[c]) * weights[0]
                        + f32::from(above[c + 3]) * weights[1]
                        + f32::from(below[c]) * weights[2]
                        + f32::from(below[c + 3]) * weights[3];
                    *value = (sum + 0.5) as u8;
                }
                continue;
            }
            let (mut sums, mut covered) = ([0.0_f32; 3], 0.0_f32);
            for (k, weight) in weights.into_iter().enumerate() {
                let (x, y) = (left + (k % 2) as isize, top + (k / 2) as isize);
                if x >= 0 && y >= 0 && x < width as isize && y < height as isize {
                    covered += weight;
                    let first = 3 * (y as usize * width + x as usize);
                    for (sum, &value) in sums.iter_mut().zip(&image[first..first + 3]) {
                        *sum += f32::from(value) * weight;
                    }
                }
            }
            *pixel = sums.map(|sum| (sum * covered + 0.5) as u8);
        }
    }
}

/// Rounds down. Without SSE4.1, [`f32::floor`] is a function call.
fn floor(value: f32) -> isize {
    let truncated = value as isize;
    truncated - isize::from(value < truncated as f32)
}

/// Mirrors an image of `width` pixels left to right, in place.
pub fn flip_horizontally(image: &mut [u8], width: usize) {
    for row in image.chunks_exact_mut(3 * width) {
        let (pixels, _) = row.as_chunks_mut::<3>();
        pixels.reverse();
    }
}

/// Number of transforms of [`orient`].
pub const ORIENTATIONS: usize = 6;

/// Applies transform `label` of SESEMI to a square of `side` · `side` elements: rotation by 0°, 90°, 180° or 270° counterclockwise (labels
/// 0 to 3), horizontal flip (4), vertical flip (5).
///
/// # Source
/// Tran 2019, `geometric_transform` of its reference implementation: `numpy.rot90`, `fliplr` and `flipud`.
///
/// # Panics
/// Panics if `label` is not below [`ORIENTATIONS`], or a slice does not have `side` · `side` elements.
pub fn orient<T: Copy>(plane: &[T], side: usize, label: usize, out: &mut [T]) {
    assert_eq!((plane.len(), out.len()), (side * side, side * side), "a square of {side}x{side}");
    let last = side.wrapping_sub(1);
    for (y, row) in out.chunks_exact_mut(side.max(1)).enumerate() {
        let source = |y: usize| &plane[y * side..][..side];
        match label {
            0 => row.copy_from_slice(source(y)),
            1 => row.iter_mut().enumerate().for_each(|(x, out)| *out = plane[x * side + last - y]),
            2 => row.iter_mut().zip(source(last - y).iter().rev()).for_each(|(out, value)| *out = *value),
            3 => row.iter_mut().enumerate().for_each(|(x, out)| *out = plane[(last - x) * side + y]),
            4 => row.iter_mut().zip(source(y).iter().rev()).for_each(|(out, value)| *out = *value),
            5 => row.copy_from_slice(source(last - y)),
            _ => panic!("transform {label} of {ORIENTATIONS}"),
        }
    }
}

/// A part of an image, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CropArea {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Number of rows.
    pub height: usize,
    /// Number of columns.
    pub width: usize,
}

impl CropArea {
    /// Returns the whole image of `size`, height and width.
    pub fn whole([height, width]: [usize; 2]) -> Self {
        Self { top: 0, left: 0, height, width }
    }

    /// Draws an area of an image of `size`.
    ///
    /// # Source
    /// torchvision's `RandomResizedCrop`: ten attempts to draw the share of the area uniformly and the aspect ratio log-uniformly, then the
    /// largest centered area whose aspect ratio is in the range.
    pub fn draw(settings: &CropSettings, [height, width]: [usize; 2], rng: &mut impl Rng) -> Self {
        let ([low, high], area) = (settings.ratio, (height * width) as f64);
        for _ in 0..10 {
            let area = area * rng.gen_range(settings.scale[0]..=settings.scale[1]);
            let ratio = rng.gen_range(low.ln()..=high.ln()).exp();
            let crop_width = (area * ratio).sqrt().round_ties_even() as usize;
            let crop_height = (area / ratio).sqrt().round_ties_even() as usize;
            if (1..=width).contains(&crop_width) && (1..=height).contains(&crop_height) {
                let top = rng.gen_range(0..=height - crop_height);
                let left = rng.gen_range(0..=width - crop_width);
                return Self { top, left, height: crop_height, width: crop_width };
            }
        }
        let ratio = (width as f64 / height as f64).clamp(low, high);
        let crop_width = ((height as f64 * ratio).round_ties_even() as usize).clamp(1, width);
        let crop_height = ((width as f64 / ratio).round_ties_even() as usize).clamp(1, height);
        let (top, left) = ((height - crop_height) / 2, (width - crop_width) / 2);
        Self { top, left, height: crop_height, width: crop_width }
    }
}
