//! Image orientation, from the EXIF metadata of images and the display matrix of videos.

use ::image::metadata::Orientation as ExifOrientation;

/// A mirroring and rotation by multiples of 90°, as a map from output pixels to stored pixels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Orientation {
    /// Rows of the output are columns of the stored image.
    transposed: bool,
    /// The stored image is read from its last row.
    flip_rows: bool,
    /// The stored image is read from its last column.
    flip_columns: bool,
}

impl Orientation {
    /// Returns the transformation that an EXIF orientation requires.
    pub(super) fn from_exif(orientation: ExifOrientation) -> Self {
        let exif = orientation.to_exif();
        Self {
            transposed: matches!(exif, 5..=8),
            flip_rows: matches!(exif, 3 | 4 | 6 | 7),
            flip_columns: matches!(exif, 2 | 3 | 7 | 8),
        }
    }

    /// Returns a clockwise rotation. Angles other than multiples of 90° are ignored.
    pub(super) fn clockwise(degrees: i32) -> Self {
        Self::from_exif(match degrees.rem_euclid(360) {
            90 => ExifOrientation::Rotate90,
            180 => ExifOrientation::Rotate180,
            270 => ExifOrientation::Rotate270,
            _ => ExifOrientation::NoTransforms,
        })
    }

    /// Returns `true` if the stored image is the output.
    pub(super) fn is_identity(self) -> bool {
        self == Self::default()
    }

    /// Returns height and width of the output for an image stored with this height and width.
    pub(super) fn output_size(self, height: usize, width: usize) -> [usize; 2] {
        if self.transposed { [width, height] } else { [height, width] }
    }

    /// Writes the transformed image to `out`. Pixels have three bytes, rows have no padding.
    pub(super) fn apply(self, height: usize, width: usize, stored: &[u8], out: &mut Vec<u8>) {
        let (stored, _) = stored.as_chunks::<3>();
        let [rows, columns] = self.output_size(height, width);
        out.clear();
        out.reserve_exact(3 * rows * columns);
        for y in 0..rows {
            for x in 0..columns {
                let (y, x) = if self.transposed { (x, y) } else { (y, x) };
                let y = if self.flip_rows { height - 1 - y } else { y };
                let x = if self.flip_columns { width - 1 - x } else { x };
                out.extend_from_slice(&stored[y * width + x]);
            }
        }
    }
}

/// Returns the clockwise rotation of a display matrix in degrees, from 0 to 359. Mirroring is ignored. Returns 0 if the
/// matrix is invalid.
///
/// The matrix consists of nine 32-bit integers in native byte order; the upper left 2×2 part rotates and scales (libavutil's
/// `display.h`).
pub(super) fn display_matrix_rotation(matrix: &[u8]) -> i32 {
    let (numbers, rest) = matrix.as_chunks::<4>();
    if numbers.len() != 9 || !rest.is_empty() {
        return 0;
    }
    let number = |i: usize| f64::from(i32::from_ne_bytes(numbers[i]));
    let scale = [number(0).hypot(number(3)), number(1).hypot(number(4))];
    if scale.contains(&0.0) {
        return 0;
    }
    let angle = (number(1) / scale[1]).atan2(number(0) / scale[0]);
    (angle.to_degrees().round() as i32).rem_euclid(360)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transform(orientation: Orientation) -> ([usize; 2], Vec<u8>) {
        // Rows 1 2 3 and 4 5 6.
        let stored: Vec<u8> = (1..=6).flat_map(|value| [value; 3]).collect();
        let mut out = Vec::new();
        orientation.apply(2, 3, &stored, &mut out);
        (orientation.output_size(2, 3), out.chunks(3).map(|pixel| pixel[0]).collect())
    }

    #[test]
    fn applies_all_exif_orientations() {
        let expected: [([usize; 2], [u8; 6]); 8] = [
            ([2, 3], [1, 2, 3, 4, 5, 6]),
            ([2, 3], [3, 2, 1, 6, 5, 4]),
            ([2, 3], [6, 5, 4, 3, 2, 1]),
            ([2, 3], [4, 5, 6, 1, 2, 3]),
            ([3, 2], [1, 4, 2, 5, 3, 6]),
            ([3, 2], [4, 1, 5, 2, 6, 3]),
            ([3, 2], [6, 3, 5, 2, 4, 1]),
            ([3, 2], [3, 6, 2, 5, 1, 4]),
        ];
        for (exif, (size, pixels)) in (1..).zip(expected) {
            let orientation = Orientation::from_exif(ExifOrientation::from_exif(exif).unwrap());
            assert_eq!(transform(orientation), (size, pixels.to_vec()), "{exif}");
            assert_eq!(orientation.is_identity(), exif == 1);
        }
    }

    #[test]
    fn reads_the_rotation_of_a_display_matrix() {
        let matrix = |[a, b, c, d]: [i32; 4]| {
            let numbers = [a, b, 0, c, d, 0, 0, 0, 1 << 30];
            numbers.iter().flat_map(|number| number.to_ne_bytes()).collect::<Vec<u8>>()
        };
        let one = 1 << 16;
        assert_eq!(display_matrix_rotation(&matrix([one, 0, 0, one])), 0);
        assert_eq!(display_matrix_rotation(&matrix([0, one, -one, 0])), 90);
        assert_eq!(display_matrix_rotation(&matrix([-one, 0, 0, -one])), 180);
        assert_eq!(display_matrix_rotation(&matrix([0, -one, one, 0])), 270);
        assert_eq!(display_matrix_rotation(&matrix([0, 0, 0, 0])), 0);
        assert_eq!(display_matrix_rotation(b"short"), 0);
    }
}
