//! Extrema of the differences of an octave's images, to the pixel (Lowe 2004, section 3.1).

use pulp::{Arch, NullaryFnOnce};

use super::scale_space::{BORDER, IMAGES, LAYERS, Octave};

/// Least difference that is looked at, of values from 0 to 255: half of what a keypoint must have (0.5 · 0.04 / 3 · 255),
/// truncated as OpenCV does.
const THRESHOLD: f32 = 1.0;
/// Differences of an octave.
const DIFFERENCES: usize = IMAGES - 1;

/// A pixel that is no less extreme than its 26 neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    pub octave: usize,
    pub layer: usize,
    pub row: usize,
    pub column: usize,
}

/// Follows the blurs down an octave. Only three rows of differences are kept.
#[derive(Debug)]
pub struct Detector {
    arch: Arch,
    octave: usize,
    /// Rows of differences made.
    made: usize,
    /// Row `y` of difference `i` lies in slot `3 * i + y % 3`.
    ring: Vec<f32>,
    mask: Vec<u8>,
}

impl Detector {
    pub fn new() -> Self {
        Self { arch: Arch::new(), octave: 0, made: 0, ring: Vec::new(), mask: Vec::new() }
    }

    /// Begins a new octave.
    pub fn restart(&mut self, octave: usize) {
        (self.octave, self.made) = (octave, 0);
    }

    /// Looks at all rows that the first `available` rows of the octave's last image allow.
    pub fn advance(&mut self, octave: &Octave, available: usize, found: &mut Vec<Candidate>) {
        let (height, width) = (octave[0].height, octave[0].width);
        self.ring.resize(3 * DIFFERENCES * width, 0.0);
        self.mask.resize(width, 0);
        while self.made < available {
            for (i, out) in self.ring.chunks_exact_mut(3 * width).enumerate() {
                let out = &mut out[self.made % 3 * width..][..width];
                let rows = octave[i + 1].row(self.made).iter().zip(octave[i].row(self.made));
                out.iter_mut().zip(rows).for_each(|(out, (blurrier, sharper))| *out = blurrier - sharper);
            }
            self.made += 1;
            // Row y can be looked at when row y + 1 is made.
            let Some(y) = self.made.checked_sub(2).filter(|y| (BORDER..height - BORDER).contains(y)) else { continue };
            for layer in 1..=LAYERS {
                let rows = Rows { ring: &self.ring, width, layer, y };
                self.arch.dispatch(Mark { rows, mask: &mut self.mask });
                for column in (BORDER..width - BORDER).filter(|&x| self.mask[x] != 0) {
                    if rows.is_extremum(column) {
                        found.push(Candidate { octave: self.octave, layer, row: y, column });
                    }
                }
            }
        }
    }
}

/// The three rows of three differences around a row.
#[derive(Clone, Copy)]
struct Rows<'a> {
    ring: &'a [f32],
    width: usize,
    layer: usize,
    y: usize,
}

impl<'a> Rows<'a> {
    #[inline(always)]
    fn row(&self, layer: usize, y: usize) -> &'a [f32] {
        &self.ring[(3 * layer + y % 3) * self.width..][..self.width]
    }

    fn is_extremum(&self, x: usize) -> bool {
        let value = self.row(self.layer, self.y)[x];
        [self.layer, self.layer + 1, self.layer - 1].into_iter().all(|layer| {
            (self.y - 1..=self.y + 1).all(|y| {
                let row = &self.row(layer, y)[x - 1..=x + 1];
                if value > 0.0 { row.iter().all(|v| value >= *v) } else { row.iter().all(|v| value <= *v) }
            })
        })
    }
}

/// Marks the pixels of a row that are far enough from 0 and no less extreme than their six nearest neighbours.
struct Mark<'a> {
    rows: Rows<'a>,
    mask: &'a mut [u8],
}

impl NullaryFnOnce for Mark<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        // One instruction each, which `f32::max` is not: no value is a NaN here.
        let max = |a: f32, b: f32| if a > b { a } else { b };
        let min = |a: f32, b: f32| if a < b { a } else { b };
        let Self { rows, mask } = self;
        let Rows { width, layer, y, .. } = rows;
        let row = rows.row(layer, y);
        let (left, here, right) = (&row[..width - 2], &row[1..width - 1], &row[2..]);
        let inner = |layer, y| &rows.row(layer, y)[1..width - 1];
        let (above, below) = (inner(layer, y - 1), inner(layer, y + 1));
        let (before, after) = (inner(layer - 1, y), inner(layer + 1, y));
        let beside = left.iter().zip(right).zip(above.iter().zip(below)).zip(before.iter().zip(after));
        for ((mask, &value), (((&a, &b), (&c, &d)), (&e, &f))) in mask[1..width - 1].iter_mut().zip(here).zip(beside) {
            let highest = max(max(max(a, b), max(c, d)), max(e, f));
            let lowest = min(min(min(a, b), min(c, d)), min(e, f));
            let high = (value > THRESHOLD) & (value >= highest);
            let low = (value < -THRESHOLD) & (value <= lowest);
            *mask = u8::from(high | low);
        }
    }
}
