//! Extrema refined to a fraction of a pixel, and their orientations (Lowe 2004, sections 4 and 5).

use std::cmp::Ordering;

use super::extrema::Candidate;
use super::gradients::Gradients;
use super::scale_space::{BORDER, LAYERS, Octave, Plane, SIGMA};

/// Least contrast, of values from 0 to 1, shared among the layers.
const CONTRAST: f32 = 0.04;
/// Largest ratio of the principal curvatures.
const EDGE: f32 = 10.0;
/// Steps of a refinement.
const STEPS: usize = 5;
/// Bins of the histogram of orientations.
const BINS: usize = 36;
/// A peak this high, beside the highest, makes a keypoint of its own.
const PEAK: f32 = 0.8;

/// A refined extremum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Extremum {
    pub octave: usize,
    pub layer: usize,
    /// The pixel of the octave's image that it was refined at.
    pub row: usize,
    pub column: usize,
    /// Position in the doubled picture.
    pub x: f32,
    pub y: f32,
    /// Diameter in the doubled picture.
    pub size: f32,
    /// Contrast of the interpolated extremum.
    pub response: f32,
}

impl Extremum {
    /// The scale in pixels of its octave.
    pub fn scale(&self) -> f32 {
        self.size * 0.5 / (1u32 << self.octave) as f32
    }

    /// Strongest first; then by y, x, size, octave and layer.
    pub fn stronger_first(&self, other: &Self) -> Ordering {
        other
            .response
            .total_cmp(&self.response)
            .then(self.y.total_cmp(&other.y))
            .then(self.x.total_cmp(&other.x))
            .then(self.size.total_cmp(&other.size))
            .then((self.octave, self.layer).cmp(&(other.octave, other.layer)))
    }
}

/// Fits a quadratic to the differences around an extremum, moving to the pixel nearest to its peak; `None` where that
/// does not settle, the contrast is low, or it lies on an edge.
pub fn refine(candidate: &Candidate, octave: &Octave) -> Option<Extremum> {
    const SCALE: f32 = 1.0 / 255.0;
    let Candidate { octave: number, mut layer, row: mut y, column: mut x } = *candidate;
    let (height, width) = (octave[0].height, octave[0].width);
    for _ in 0..STEPS {
        let [before, here, after] = [layer - 1, layer, layer + 1].map(|i| Difference(&octave[i], &octave[i + 1]));
        let (first, second, cross) = (SCALE * 0.5, SCALE, SCALE * 0.25);
        let d = [
            (here.at(y, x + 1) - here.at(y, x - 1)) * first,
            (here.at(y + 1, x) - here.at(y - 1, x)) * first,
            (after.at(y, x) - before.at(y, x)) * first,
        ];
        let twice = here.at(y, x) * 2.0;
        let xx = (here.at(y, x + 1) + here.at(y, x - 1) - twice) * second;
        let yy = (here.at(y + 1, x) + here.at(y - 1, x) - twice) * second;
        let ss = (after.at(y, x) + before.at(y, x) - twice) * second;
        let corners =
            |p: &Difference| p.at(y + 1, x + 1) - p.at(y + 1, x - 1) - p.at(y - 1, x + 1) + p.at(y - 1, x - 1);
        let xy = corners(&here) * cross;
        let xs = (after.at(y, x + 1) - after.at(y, x - 1) - before.at(y, x + 1) + before.at(y, x - 1)) * cross;
        let ys = (after.at(y + 1, x) - after.at(y - 1, x) - before.at(y + 1, x) + before.at(y - 1, x)) * cross;
        let [dx, dy, ds] = solve([[xx, xy, xs], [xy, yy, ys], [xs, ys, ss]], d).map(|v| -v);
        if dx.abs() < 0.5 && dy.abs() < 0.5 && ds.abs() < 0.5 {
            let slope = d[0] * dx + d[1] * dy + d[2] * ds;
            let contrast = here.at(y, x) * SCALE + slope * 0.5;
            let (trace, determinant) = (xx + yy, xx * yy - xy * xy);
            let on_edge = determinant <= 0.0 || trace * trace * EDGE >= (EDGE + 1.0) * (EDGE + 1.0) * determinant;
            if contrast.abs() * (LAYERS as f32) < CONTRAST || on_edge {
                return None;
            }
            let factor = (1u32 << number) as f32;
            let level = (layer as f32 + ds) / LAYERS as f32;
            return Some(Extremum {
                octave: number,
                layer,
                row: y,
                column: x,
                x: (x as f32 + dx) * factor,
                y: (y as f32 + dy) * factor,
                size: SIGMA as f32 * 2f32.powf(level) * factor * 2.0,
                response: contrast.abs(),
            });
        }
        if [dx, dy, ds].iter().any(|v| v.abs() > (i32::MAX / 3) as f32) {
            return None;
        }
        let moved = |at: usize, by: f32| at as i64 + by.round_ties_even() as i64;
        let (to_x, to_y, to_layer) = (moved(x, dx), moved(y, dy), moved(layer, ds));
        let inside = |at: i64, len: usize| at >= BORDER as i64 && at < (len - BORDER) as i64;
        if !(1..=LAYERS as i64).contains(&to_layer) || !inside(to_x, width) || !inside(to_y, height) {
            return None;
        }
        (x, y, layer) = (to_x as usize, to_y as usize, to_layer as usize);
    }
    None
}

/// A blurrier image less a sharper one.
struct Difference<'a>(&'a Plane, &'a Plane);

impl Difference<'_> {
    fn at(&self, y: usize, x: usize) -> f32 {
        let at = y * self.0.width + x;
        self.1.data[at] - self.0.data[at]
    }
}

/// Solves `a · x = b` by Cramer's rule; zeros where there is no single solution.
fn solve(a: [[f32; 3]; 3], b: [f32; 3]) -> [f32; 3] {
    let minor = |r: [usize; 2], c: [usize; 2]| a[r[0]][c[0]] * a[r[1]][c[1]] - a[r[0]][c[1]] * a[r[1]][c[0]];
    let determinant =
        a[0][0] * minor([1, 2], [1, 2]) - a[0][1] * minor([1, 2], [0, 2]) + a[0][2] * minor([1, 2], [0, 1]);
    if determinant == 0.0 {
        return [0.0; 3];
    }
    let d = 1.0 / determinant;
    let pair = |i: usize, j: usize| [b[1] * a[2][j] - a[1][j] * b[2], a[1][i] * b[2] - b[1] * a[2][i]];
    [
        d * (b[0] * minor([1, 2], [1, 2]) - a[0][1] * pair(1, 2)[0] + a[0][2] * (b[1] * a[2][1] - a[1][1] * b[2])),
        d * (a[0][0] * pair(0, 2)[0] - b[0] * minor([1, 2], [0, 2]) + a[0][2] * pair(0, 2)[1]),
        d * (a[0][0] * (a[1][1] * b[2] - b[1] * a[2][1]) - a[0][1] * pair(0, 1)[1] + b[0] * minor([1, 2], [0, 1])),
    ]
}

/// The orientations of an extremum in degrees from 0 to 360, counter-clockwise: the peaks of the histogram of gradients
/// around it.
pub fn orientations(extremum: &Extremum, image: &Plane, gradients: &mut Gradients) -> Vec<f32> {
    let scale = extremum.scale();
    let radius = (4.5 * scale).round_ties_even() as isize;
    let sigma = 1.5 * scale;
    let spread = -1.0 / (2.0 * sigma * sigma);
    gradients.clear();
    let (row, column) = (extremum.row as isize, extremum.column as isize);
    for i in -radius..=radius {
        let y = row + i;
        if y <= 0 || y >= image.height as isize - 1 {
            continue;
        }
        let first = (column - radius).max(1);
        let last = (column + radius).min(image.width as isize - 2);
        for x in first..=last {
            let j = x - column;
            gradients.push(image, y as usize, x as usize, (i * i + j * j) as f32 * spread);
        }
    }
    gradients.compute();
    let mut raw = [0.0f32; BINS];
    for (angle, weight) in gradients.angles().iter().zip(gradients.magnitudes()) {
        let bin = (BINS as f32 / 360.0 * angle).round_ties_even() as usize;
        raw[bin % BINS] += weight;
    }
    let at = |i: isize| raw[i.rem_euclid(BINS as isize) as usize];
    let smooth: [f32; BINS] = std::array::from_fn(|i| {
        let i = i as isize;
        (at(i - 2) + at(i + 2)) * (1.0 / 16.0) + ((at(i - 1) + at(i + 1)) * (4.0 / 16.0) + at(i) * (6.0 / 16.0))
    });
    let highest = smooth.iter().copied().fold(0.0, f32::max);
    let mut found = Vec::new();
    for i in 0..BINS {
        let (left, here, right) = (smooth[(i + BINS - 1) % BINS], smooth[i], smooth[(i + 1) % BINS]);
        if here > left && here > right && here >= highest * PEAK {
            let bin = i as f32 + 0.5 * (left - right) / (left - 2.0 * here + right);
            let bin = if bin < 0.0 { bin + BINS as f32 } else { bin };
            let bin = if bin >= BINS as f32 { bin - BINS as f32 } else { bin };
            let angle = 360.0 - 360.0 / BINS as f32 * bin;
            found.push(if (angle - 360.0).abs() < f32::EPSILON { 0.0 } else { angle });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_equations_are_solved() {
        let a = [[4.0, 1.0, 2.0], [1.0, 3.0, 0.5], [2.0, 0.5, 5.0]];
        let x = [1.0, -2.0, 3.0];
        let b: [f32; 3] = std::array::from_fn(|i| (0..3).map(|j| a[i][j] * x[j]).sum());
        for (got, want) in solve(a, b).iter().zip(x) {
            assert!((got - want).abs() < 1e-5, "{got}, not {want}");
        }
        assert_eq!(solve([[1.0; 3]; 3], b), [0.0; 3]);
    }
}
