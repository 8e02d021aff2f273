//! Gradients of an image as maps of eight orientations.

use super::plane::Plane;

/// Number of orientations: multiples of 45°, counterclockwise from the direction of increasing x.
pub(super) const ORIENTATIONS: usize = 8;
/// Number of pixels per block of a map; rows are padded to a multiple of it.
pub(super) const BLOCK: usize = 4;

/// The gradient magnitudes of an image, distributed to the two nearest orientations of each pixel by linear interpolation.
#[derive(Debug, Default)]
pub(super) struct OrientationMaps {
    pub height: usize,
    pub width: usize,
    /// Pixels per row with padding.
    stride: usize,
    /// The magnitudes, (height, stride, 8).
    values: Vec<f32>,
    /// Buffers of one row: the magnitude along the nearest axis and the nearest diagonal, and the two orientations.
    axis: Vec<f32>,
    diagonal: Vec<f32>,
    orientations: Vec<[u8; 2]>,
}

impl OrientationMaps {
    /// Returns the blocks of row `y`, each with the eight magnitudes of [`BLOCK`] pixels.
    #[inline(always)]
    pub fn row(&self, y: usize) -> &[[f32; BLOCK * ORIENTATIONS]] {
        let length = self.stride * ORIENTATIONS;
        self.values[y * length..][..length].as_chunks().0
    }

    /// Computes the maps of an image: central differences of neighbors, which are 0 at the edges.
    #[inline(always)]
    pub fn set(&mut self, image: &Plane) {
        let (height, width) = (image.height, image.width);
        (self.height, self.width, self.stride) = (height, width, width.next_multiple_of(BLOCK));
        self.values.clear();
        self.values.resize(height * self.stride * ORIENTATIONS, 0.0);
        if height < 3 || width < 3 {
            return;
        }
        let inner = width - 2;
        self.axis.resize(inner, 0.0);
        self.diagonal.resize(inner, 0.0);
        self.orientations.resize(inner, [0; 2]);
        for y in 1..height - 1 {
            let (above, row, below) = (image.row(y - 1), image.row(y), image.row(y + 1));
            let (left, right) = (&row[..inner], &row[2..][..inner]);
            let (above, below) = (&above[1..][..inner], &below[1..][..inner]);
            let magnitudes = self.axis.iter_mut().zip(&mut self.diagonal);
            let out = magnitudes.zip(&mut self.orientations);
            for (((axis, diagonal), orientations), x) in out.zip(0..) {
                let (dx, dy) = (right[x] - left[x], above[x] - below[x]);
                let magnitude = (dx * dx + dy * dy).sqrt();
                let (wide, tall) = (dx.abs(), dy.abs());
                let fraction = octant(wide.min(tall) / (wide.max(tall) + f32::EPSILON));
                *diagonal = magnitude * fraction;
                *axis = magnitude - *diagonal;
                let (west, south) = (u8::from(dx < 0.0), u8::from(dy < 0.0));
                let nearest_axis = if wide >= tall { 4 * west } else { 2 + 4 * south };
                *orientations = [nearest_axis, 1 + 2 * (west ^ south) + 4 * south];
            }
            let start = (y * self.stride + 1) * ORIENTATIONS;
            let pixels = self.values[start..].as_chunks_mut::<ORIENTATIONS>().0;
            let magnitudes = self.axis.iter().zip(&self.diagonal);
            for ((pixel, orientations), (axis, diagonal)) in pixels.iter_mut().zip(&self.orientations).zip(magnitudes) {
                pixel[usize::from(orientations[0] & 7)] = *axis;
                pixel[usize::from(orientations[1] & 7)] = *diagonal;
            }
        }
    }
}

/// Returns the arctangent of `tangent`, in [0, 1], in units of 45°. As OpenCV's `fastAtan2`, with an error of less than 0.01°.
#[inline(always)]
fn octant(tangent: f32) -> f32 {
    const UNIT: f32 = 4.0 / std::f32::consts::PI;
    const COEFFICIENTS: [f32; 4] =
        [0.999_787_87 * UNIT, -0.325_808_4 * UNIT, 0.155_578_65 * UNIT, -0.044_326_555 * UNIT];
    let square = tangent * tangent;
    let [p1, p3, p5, p7] = COEFFICIENTS;
    (((p7 * square + p5) * square + p3) * square + p1) * tangent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_octant_is_the_arctangent() {
        for i in 0..=1000 {
            let tangent = i as f32 / 1000.0;
            let degrees = 45.0 * octant(tangent);
            assert!((degrees - tangent.atan().to_degrees()).abs() < 0.012, "{tangent}");
        }
    }

    #[test]
    fn gradients_have_the_two_nearest_orientations() {
        // A plane with the gradient (dx, −dy) has central differences of twice that.
        for step in 0..72 {
            let angle = (5.0 * step as f32).to_radians();
            let (dx, dy) = (angle.cos(), angle.sin());
            let values = (0..25).map(|i| dx * (i % 5) as f32 - dy * (i / 5) as f32).collect();
            let mut maps = OrientationMaps::default();
            maps.set(&Plane { height: 5, width: 5, values });
            let pixel = &maps.row(2)[0].as_chunks::<ORIENTATIONS>().0[2];
            for (orientation, value) in pixel.iter().enumerate() {
                let distance = (angle.to_degrees() / 45.0 - orientation as f32).rem_euclid(8.0);
                let expected = 2.0 * (1.0 - distance.min(8.0 - distance)).max(0.0);
                assert!((value - expected).abs() < 1e-3, "{angle}: {pixel:?}");
            }
            let edge = maps.row(0).iter().chain(maps.row(4)).flatten();
            assert!(edge.chain(&maps.row(2)[0][..8]).chain(&maps.row(2)[1]).all(|value| *value == 0.0));
        }
    }
}
