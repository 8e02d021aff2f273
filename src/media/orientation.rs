//! Image orientation, from the EXIF metadata of images and the display matrix of videos.

use ::image::metadata::Orientation as ExifOrientation;

/// Tangent of the largest angle (0.5°) by which a display matrix may differ from a multiple of 90°.
const MAX_SKEW: f64 = 0.0087;

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

    /// Returns the orientation in an EXIF chunk (a TIFF header with its first directory); the identity if there is none.
    ///
    /// The tag 0x0112 is a SHORT by the standard, but some programs write a LONG.
    pub(super) fn from_exif_chunk(chunk: &[u8]) -> Self {
        let chunk = chunk.strip_prefix(b"Exif\0\0").unwrap_or(chunk);
        exif_orientation(chunk).and_then(ExifOrientation::from_exif).map(Self::from_exif).unwrap_or_default()
    }

    /// Returns the transformation of a display matrix. The identity if the matrix is invalid, or is not a rotation by a
    /// multiple of 90° with or without mirroring.
    ///
    /// The matrix consists of nine 32-bit integers in native byte order. The upper left 2×2 part (a b, c d) maps the pixel at
    /// column x, row y to column a·x + c·y, row b·x + d·y (libavutil's `display.h`).
    pub(super) fn from_display_matrix(matrix: &[u8]) -> Self {
        let (numbers, rest) = matrix.as_chunks::<4>();
        if numbers.len() != 9 || !rest.is_empty() {
            return Self::default();
        }
        let number = |i: usize| f64::from(i32::from_ne_bytes(numbers[i]));
        let [a, b, c, d] = [number(0), number(1), number(3), number(4)];
        let small = |value: f64, large: f64| value.abs() <= MAX_SKEW * large.abs();
        if a != 0.0 && d != 0.0 && small(b, a) && small(c, d) {
            Self { transposed: false, flip_rows: d < 0.0, flip_columns: a < 0.0 }
        } else if b != 0.0 && c != 0.0 && small(a, b) && small(d, c) {
            Self { transposed: true, flip_rows: c < 0.0, flip_columns: b < 0.0 }
        } else {
            Self::default()
        }
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

/// Returns the value of the orientation tag in the first directory of a TIFF header.
fn exif_orientation(chunk: &[u8]) -> Option<u8> {
    const ORIENTATION: u32 = 0x0112;
    let big_endian = match chunk.first_chunk::<4>()? {
        b"MM\0*" => true,
        b"II*\0" => false,
        _ => return None,
    };
    let short = |at: usize| {
        let bytes = *chunk.get(at..)?.first_chunk::<2>()?;
        Some(u32::from(if big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }))
    };
    let long = |at: usize| {
        let bytes = *chunk.get(at..)?.first_chunk::<4>()?;
        Some(if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    };
    let directory = long(4)? as usize;
    for entry in 0..short(directory)? as usize {
        let at = directory.checked_add(2 + 12 * entry)?;
        if (short(at)?, long(at + 4)?) == (ORIENTATION, 1) {
            let value = match short(at + 2)? {
                3 => short(at + 8)?,
                4 => long(at + 8)?,
                _ => return None,
            };
            return u8::try_from(value).ok();
        }
    }
    None
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
    fn applies_all_display_matrices() {
        let matrix = |[a, b, c, d]: [i32; 4]| {
            let numbers = [a, b, 0, c, d, 0, 0, 0, 1 << 30];
            numbers.iter().flat_map(|number| number.to_ne_bytes()).collect::<Vec<u8>>()
        };
        let orientation = |numbers| Orientation::from_display_matrix(&matrix(numbers));
        let one = 1 << 16;
        // In the order of the EXIF orientations: identity, mirrored, rotated by 180°, flipped, transposed, rotated by 90°
        // clockwise, transposed along the other diagonal, rotated by 270°.
        let matrices = [
            [one, 0, 0, one],
            [-one, 0, 0, one],
            [-one, 0, 0, -one],
            [one, 0, 0, -one],
            [0, one, one, 0],
            [0, one, -one, 0],
            [0, -one, -one, 0],
            [0, -one, one, 0],
        ];
        for (exif, numbers) in (1..).zip(matrices) {
            let expected = Orientation::from_exif(ExifOrientation::from_exif(exif).unwrap());
            assert_eq!(orientation(numbers), expected, "{exif}");
            assert_eq!(orientation(numbers.map(|number| number / 3)), expected, "scaled {exif}");
        }
        assert!(orientation([0; 4]).is_identity());
        assert!(orientation([46341, 46341, -46341, 46341]).is_identity(), "rotated by 45°");
        assert!(Orientation::from_display_matrix(b"short").is_identity());
    }

    #[test]
    fn reads_the_exif_orientation_as_short_or_long() {
        for big_endian in [false, true] {
            let short = |value: u16| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
            let long = |value: u32| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
            let chunk = |format: u16, value: &[u8]| {
                let header: &[u8] = if big_endian { b"MM\0*" } else { b"II*\0" };
                // Another tag precedes the orientation.
                let other = [&short(0x010f)[..], &short(2), &long(1), b"A\0\0\0"].concat();
                let entry = [&short(0x0112)[..], &short(format), &long(1), value].concat();
                [header, &long(8), &short(2), &other, &entry, &long(0)].concat()
            };
            for exif in 1..=8 {
                let expected = Orientation::from_exif(ExifOrientation::from_exif(exif).unwrap());
                let value = [&short(exif.into())[..], &[0, 0]].concat();
                assert_eq!(Orientation::from_exif_chunk(&chunk(3, &value)), expected);
                assert_eq!(Orientation::from_exif_chunk(&chunk(4, &long(exif.into()))), expected);
            }
            assert!(Orientation::from_exif_chunk(&chunk(4, &long(262))).is_identity());
            assert!(Orientation::from_exif_chunk(&chunk(2, &long(6))).is_identity());
            let valid = chunk(4, &long(6));
            for len in 0..valid.len() {
                assert!(len >= 22 || Orientation::from_exif_chunk(&valid[..len]).is_identity());
            }
        }
    }
}
