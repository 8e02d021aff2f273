//! Turns pictures upright: as the EXIF orientation of a photograph asks, or the display matrix of a video.

use ::image::metadata::Orientation;

/// Where the pixel of an upright picture stands in the picture as it is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Turn {
    /// Rows of one are columns of the other.
    transposed: bool,
    /// The stored picture is read from its last row.
    from_below: bool,
    /// The stored picture is read from its last column.
    from_right: bool,
}

impl Turn {
    /// The turn that shows a photograph upright.
    pub(super) fn upright(orientation: Orientation) -> Self {
        let exif = orientation.to_exif();
        Self {
            transposed: matches!(exif, 5..=8),
            from_below: matches!(exif, 3 | 4 | 6 | 7),
            from_right: matches!(exif, 2 | 3 | 7 | 8),
        }
    }

    /// By the whole number of quarters of a circle, clockwise.
    pub(super) fn clockwise(degrees: i32) -> Self {
        Self::upright(match degrees.rem_euclid(360) {
            90 => Orientation::Rotate90,
            180 => Orientation::Rotate180,
            270 => Orientation::Rotate270,
            _ => Orientation::NoTransforms,
        })
    }

    /// Whether the picture is upright as it is.
    pub(super) fn is_none(self) -> bool {
        self == Self::default()
    }

    /// Height and width upright, of a picture that is stored with this height and width.
    pub(super) fn size(self, height: usize, width: usize) -> [usize; 2] {
        if self.transposed { [width, height] } else { [height, width] }
    }

    /// Writes upright the pixels that are stored as rows of `width`, three bytes each, without a gap.
    pub(super) fn apply(self, height: usize, width: usize, stored: &[u8], upright: &mut Vec<u8>) {
        let (stored, _) = stored.as_chunks::<3>();
        let [rows, columns] = self.size(height, width);
        upright.clear();
        upright.reserve_exact(3 * rows * columns);
        for y in 0..rows {
            for x in 0..columns {
                let (y, x) = if self.transposed { (x, y) } else { (y, x) };
                let y = if self.from_below { height - 1 - y } else { y };
                let x = if self.from_right { width - 1 - x } else { x };
                upright.extend_from_slice(&stored[y * width + x]);
            }
        }
    }
}

/// Degrees clockwise, from 0 to 359, that a video's display matrix turns its frames by; a mirroring is not looked at. 0
/// where it is no such matrix.
///
/// The matrix is nine numbers of four bytes in the order of this machine, of which the first two rows and columns turn and
/// scale (libavutil's `display.h`).
pub(super) fn of_matrix(matrix: &[u8]) -> i32 {
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

    fn turned(turn: Turn) -> ([usize; 2], Vec<u8>) {
        // One row of 1 2 3, one of 4 5 6.
        let stored: Vec<u8> = (1..=6).flat_map(|value| [value; 3]).collect();
        let mut upright = Vec::new();
        turn.apply(2, 3, &stored, &mut upright);
        (turn.size(2, 3), upright.chunks(3).map(|pixel| pixel[0]).collect())
    }

    #[test]
    fn all_orientations_are_shown_upright() {
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
            let turn = Turn::upright(Orientation::from_exif(exif).unwrap());
            assert_eq!(turned(turn), (size, pixels.to_vec()), "{exif}");
            assert_eq!(turn.is_none(), exif == 1);
        }
    }

    #[test]
    fn a_display_matrix_tells_its_angle() {
        let matrix = |[a, b, c, d]: [i32; 4]| {
            let numbers = [a, b, 0, c, d, 0, 0, 0, 1 << 30];
            numbers.iter().flat_map(|number| number.to_ne_bytes()).collect::<Vec<u8>>()
        };
        let one = 1 << 16;
        assert_eq!(of_matrix(&matrix([one, 0, 0, one])), 0);
        assert_eq!(of_matrix(&matrix([0, one, -one, 0])), 90);
        assert_eq!(of_matrix(&matrix([-one, 0, 0, -one])), 180);
        assert_eq!(of_matrix(&matrix([0, -one, one, 0])), 270);
        assert_eq!(of_matrix(&matrix([0, 0, 0, 0])), 0);
        assert_eq!(of_matrix(b"short"), 0);
    }
}
