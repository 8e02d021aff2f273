//! Octaves of ever blurrier images (Lowe 2004, section 3).

use super::blur::Blur;
use super::extrema::{Candidate, Detector};

/// Layers in which extrema are looked for; an octave has three images more, for the differences before and after.
pub const LAYERS: usize = 3;
/// Images of an octave.
pub const IMAGES: usize = LAYERS + 3;
/// Blur of an octave's first image, in its pixels.
pub const SIGMA: f64 = 1.6;
/// Blur that a photograph is taken to have.
const CAMERA_SIGMA: f64 = 0.5;
/// Pixels at the border in which no extremum is looked for.
pub const BORDER: usize = 5;
/// Rows that go from blur to blur at a time.
const BAND: usize = 16;

/// One channel of floats, row after row.
#[derive(Debug, Default, Clone)]
pub struct Plane {
    pub height: usize,
    pub width: usize,
    pub data: Vec<f32>,
}

impl Plane {
    pub fn row(&self, y: usize) -> &[f32] {
        &self.data[y * self.width..][..self.width]
    }

    fn resize(&mut self, height: usize, width: usize) {
        (self.height, self.width) = (height, width);
        self.data.resize(height * width, 0.0);
    }
}

/// The images of one octave, of growing blur. The difference of layer `i` is image `i + 1` less image `i`.
pub type Octave = [Plane; IMAGES];

/// All octaves of one picture; the first is of twice its size. Buffers are kept from picture to picture.
#[derive(Debug)]
pub struct ScaleSpace {
    octaves: Vec<Octave>,
    used: usize,
    doubled: Plane,
    /// The first octave's first image from the doubled picture.
    first: Blur,
    /// Each image from the one before.
    blurs: Vec<Blur>,
    detector: Detector,
}

impl ScaleSpace {
    pub fn new() -> Self {
        let ratio = 2f64.powf(1.0 / LAYERS as f64);
        let blurs = (1..IMAGES).map(|i| {
            let before = ratio.powi(i as i32 - 1) * SIGMA;
            let after = before * ratio;
            Blur::new((after * after - before * before).sqrt())
        });
        Self {
            octaves: Vec::new(),
            used: 0,
            doubled: Plane::default(),
            first: Blur::new((SIGMA * SIGMA - 4.0 * CAMERA_SIGMA * CAMERA_SIGMA).sqrt()),
            blurs: blurs.collect(),
            detector: Detector::new(),
        }
    }

    /// The octaves of the last picture that are large enough to hold an extremum.
    pub fn octaves(&self) -> &[Octave] {
        &self.octaves[..self.used]
    }

    /// Builds the octaves of a grey picture of `height * width` bytes and appends their extrema to `found`.
    pub fn build(&mut self, grey: &[u8], height: usize, width: usize, found: &mut Vec<Candidate>) {
        double(grey, height, width, &mut self.doubled);
        let (mut height, mut width) = (2 * height, 2 * width);
        let most = ((height.min(width) as f64).log2() - 2.0).round_ties_even() as i64 + 1;
        self.used = 0;
        while (self.used as i64) < most && height.min(width) > 2 * BORDER {
            if self.octaves.len() == self.used {
                self.octaves.push(Octave::default());
            }
            let (before, octave) = self.octaves.split_at_mut(self.used);
            let octave = &mut octave[0];
            octave.iter_mut().for_each(|plane| plane.resize(height, width));
            self.first.restart();
            self.blurs.iter_mut().for_each(Blur::restart);
            self.detector.restart(self.used);
            if let Some(before) = before.last() {
                halve(&before[LAYERS], &mut octave[0]);
            }
            let mut rows = 0;
            while rows < height {
                rows = height.min(rows + BAND);
                let mut available = rows;
                if before.is_empty() {
                    available = self.first.advance(&self.doubled, rows, &mut octave[0]);
                }
                for (i, blur) in self.blurs.iter_mut().enumerate() {
                    let (sharper, blurrier) = octave.split_at_mut(i + 1);
                    available = blur.advance(&sharper[i], available, &mut blurrier[0]);
                }
                self.detector.advance(octave, available, found);
            }
            self.used += 1;
            (height, width) = (height / 2, width / 2);
        }
    }
}

/// Twice the size, bilinear; exact, since every value is a whole number of sixteenths.
fn double(grey: &[u8], height: usize, width: usize, out: &mut Plane) {
    out.resize(2 * height, 2 * width);
    for y in 0..2 * height {
        let near = &grey[y / 2 * width..][..width];
        let other = if y % 2 == 0 { (y / 2).saturating_sub(1) } else { (y / 2 + 1).min(height - 1) };
        let far = &grey[other * width..][..width];
        let mixed = |x: usize| 3.0 * f32::from(near[x]) + f32::from(far[x]);
        for (x, pair) in out.data[2 * y * width..][..2 * width].chunks_exact_mut(2).enumerate() {
            let (left, here, right) = (mixed(x.saturating_sub(1)), mixed(x), mixed((x + 1).min(width - 1)));
            pair[0] = (3.0 * here + left) * 0.0625;
            pair[1] = (3.0 * here + right) * 0.0625;
        }
    }
}

/// Half the size, nearest pixel.
fn halve(from: &Plane, out: &mut Plane) {
    let (down, across) = (from.height as f64 / out.height as f64, from.width as f64 / out.width as f64);
    let columns: Vec<usize> = (0..out.width).map(|x| ((x as f64 * across) as usize).min(from.width - 1)).collect();
    for (y, row) in out.data.chunks_exact_mut(out.width).enumerate() {
        let source = from.row(((y as f64 * down) as usize).min(from.height - 1));
        row.iter_mut().zip(&columns).for_each(|(out, &x)| *out = source[x]);
    }
}

#[cfg(test)]
mod tests {
    use opencv::core::{BORDER_DEFAULT, Mat, MatTraitConst as _, MatTraitConstManual as _, Size};
    use opencv::imgproc;

    use super::*;

    #[test]
    fn images_are_opencvs_to_the_bit() {
        for (height, width) in [(120, 161), (37, 50), (12, 11)] {
            let grey: Vec<u8> =
                (0..height * width).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
            let mut space = ScaleSpace::new();
            space.build(&grey, height, width, &mut Vec::new());
            assert!(!space.octaves().is_empty());
            for (o, octave) in space.octaves().iter().enumerate() {
                for i in 1..LAYERS + 3 {
                    let before = &octave[i - 1];
                    let source = Mat::from_slice(&before.data).unwrap();
                    let source = source.reshape(1, before.height as i32).unwrap();
                    let ratio = 2f64.powf(1.0 / LAYERS as f64);
                    let sigma = (ratio * ratio - 1.0).sqrt() * SIGMA * ratio.powi(i as i32 - 1);
                    let mut expected = Mat::default();
                    imgproc::gaussian_blur(&source, &mut expected, Size::new(0, 0), sigma, sigma, BORDER_DEFAULT)
                        .unwrap();
                    let expected: &[f32] = expected.data_typed().unwrap();
                    assert!(expected == octave[i].data, "{height}x{width} octave {o} image {i}");
                }
            }
        }
    }
}
