//! The descriptor: 4×4 histograms of 8 orientations around a keypoint (Lowe 2004, section 6).

use super::gradients::Gradients;
use super::keypoints::Extremum;
use super::scale_space::Plane;

/// Histograms along a side.
const SIDE: usize = 4;
/// Orientations in each.
const BINS: usize = 8;
/// Values in a descriptor.
pub const DESCRIPTOR_LEN: usize = SIDE * SIDE * BINS;
/// Side of a histogram in units of the keypoint's scale.
const CELL: f32 = 3.0;
/// No value is more than this share of the whole.
const MOST: f32 = 0.2;
/// What makes whole numbers of shares.
const WHOLE: f32 = 512.0;

/// One row and column of histograms more on every side, one orientation more than there are (and one to spare).
const ROW: usize = (SIDE + 2) * (BINS + 2);

/// Describes keypoints; keeps its buffers.
#[derive(Debug)]
pub struct Describer {
    /// Each pixel's row and column in units of histograms.
    places: Vec<[f32; 2]>,
}

impl Describer {
    pub fn new() -> Self {
        Self { places: Vec::new() }
    }

    /// The descriptor of an extremum seen at one of its orientations. `image` is the blurred image of its octave and
    /// layer.
    pub fn describe(
        &mut self,
        extremum: &Extremum,
        orientation: f32,
        image: &Plane,
        gradients: &mut Gradients,
    ) -> [u8; DESCRIPTOR_LEN] {
        // The histograms turn clockwise.
        let orientation = 360.0 - orientation;
        let orientation = if (orientation - 360.0).abs() < f32::EPSILON { 0.0 } else { orientation };
        let factor = 1.0 / (1u32 << extremum.octave) as f32;
        let (row, column) = (extremum.y * factor, extremum.x * factor);
        let (row, column) = (row.round_ties_even() as isize, column.round_ties_even() as isize);
        let cell = CELL * extremum.scale();
        let (sine, cosine) = (orientation * (std::f32::consts::PI / 180.0)).sin_cos();
        let (sine, cosine) = (sine / cell, cosine / cell);
        let reach = (cell * std::f32::consts::SQRT_2 * (SIDE + 1) as f32 * 0.5).round_ties_even() as isize;
        let diagonal = ((image.width * image.width + image.height * image.height) as f64).sqrt() as isize;
        let reach = reach.min(diagonal);
        const SPREAD: f32 = -1.0 / ((SIDE * SIDE) as f32 * 0.5);
        const CENTRE: f32 = (SIDE / 2) as f32;

        gradients.clear();
        self.places.clear();
        let (top, bottom) = ((row - reach).max(1), (row + reach).min(image.height as isize - 2));
        let (left, right) = ((column - reach).max(1), (column + reach).min(image.width as isize - 2));
        for y in top..=bottom {
            let i = (y - row) as f32;
            for x in left..=right {
                let j = (x - column) as f32;
                let across = j * cosine - i * sine;
                let down = j * sine + i * cosine;
                let (at_row, at_column) = (down + CENTRE - 0.5, across + CENTRE - 0.5);
                let inside = |at: f32| at > -1.0 && at < SIDE as f32;
                if inside(at_row) && inside(at_column) {
                    self.places.push([at_row, at_column]);
                    gradients.push(image, y as usize, x as usize, (across * across + down * down) * SPREAD);
                }
            }
        }
        gradients.compute();

        let mut histograms = [0.0f32; (SIDE + 2) * ROW];
        let pixels = self.places.iter().zip(gradients.angles()).zip(gradients.magnitudes());
        for ((&[at_row, at_column], angle), &magnitude) in pixels {
            let at_bin = (angle - orientation) * (BINS as f32 / 360.0);
            let [row, column, bin] = [at_row, at_column, at_bin].map(floor);
            let in_row = at_row - row as f32;
            let in_column = at_column - column as f32;
            let in_bin = at_bin - bin as f32;
            // Shared among eight neighbouring bins by nearness.
            let lower = magnitude * in_row;
            let upper = magnitude - lower;
            let (lower_right, upper_right) = (lower * in_column, upper * in_column);
            let (lower_left, upper_left) = (lower - lower_right, upper - upper_right);
            let bin = bin.rem_euclid(BINS as i32) as usize;
            let first = (row + 1) as usize * ROW + (column + 1) as usize * (BINS + 2) + bin;
            for (at, share) in [
                (first, upper_left),
                (first + BINS + 2, upper_right),
                (first + ROW, lower_left),
                (first + ROW + BINS + 2, lower_right),
            ] {
                let next = share * in_bin;
                histograms[at] += share - next;
                histograms[at + 1] += next;
            }
        }

        let mut raw = [0.0f32; DESCRIPTOR_LEN];
        for (cell, out) in raw.chunks_exact_mut(BINS).enumerate() {
            let histogram = &mut histograms[(cell / SIDE + 1) * ROW + (cell % SIDE + 1) * (BINS + 2)..][..BINS + 2];
            // Orientations are a circle.
            histogram[0] += histogram[BINS];
            histogram[1] += histogram[BINS + 1];
            out.copy_from_slice(&histogram[..BINS]);
        }
        let length = raw.iter().map(|v| v * v).sum::<f32>().sqrt();
        raw.iter_mut().for_each(|v| *v = v.min(length * MOST));
        let length = raw.iter().map(|v| v * v).sum::<f32>().sqrt();
        let factor = WHOLE / length.max(f32::EPSILON);
        raw.map(|v| (v * factor).round_ties_even().min(255.0) as u8)
    }
}

/// `f32::floor` of a small number, which is a call where the processor is not known to have it.
fn floor(value: f32) -> i32 {
    let whole = value as i32;
    whole - i32::from(whole as f32 > value)
}
