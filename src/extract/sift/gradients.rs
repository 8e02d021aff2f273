//! Gradients of a patch: angle and weighted magnitude of each pixel.

use pulp::{Arch, NullaryFnOnce};

use super::scale_space::Plane;

/// Collects pixels, then computes all of them at once. Keeps its buffers.
#[derive(Debug)]
pub struct Gradients {
    arch: Arch,
    x: Vec<f32>,
    y: Vec<f32>,
    /// The logarithm of each pixel's weight.
    logarithm: Vec<f32>,
    angle: Vec<f32>,
    magnitude: Vec<f32>,
}

impl Gradients {
    pub fn new() -> Self {
        let empty = Vec::new;
        let (x, y, logarithm, angle, magnitude) = (empty(), empty(), empty(), empty(), empty());
        Self { arch: Arch::new(), x, y, logarithm, angle, magnitude }
    }

    pub fn clear(&mut self) {
        self.x.clear();
        self.y.clear();
        self.logarithm.clear();
    }

    /// Adds a pixel that is not on the border, with the logarithm of its weight.
    #[inline(always)]
    pub fn push(&mut self, image: &Plane, y: usize, x: usize, logarithm: f32) {
        let at = y * image.width + x;
        self.x.push(image.data[at + 1] - image.data[at - 1]);
        self.y.push(image.data[at - image.width] - image.data[at + image.width]);
        self.logarithm.push(logarithm);
    }

    /// Fills [`Gradients::angles`] and [`Gradients::magnitudes`].
    pub fn compute(&mut self) {
        let len = self.x.len();
        self.angle.resize(len, 0.0);
        self.magnitude.resize(len, 0.0);
        self.arch.dispatch(Compute {
            x: &self.x,
            y: &self.y,
            logarithm: &self.logarithm,
            angle: &mut self.angle,
            magnitude: &mut self.magnitude,
        });
    }

    /// Degrees from 0 to 360.
    pub fn angles(&self) -> &[f32] {
        &self.angle
    }

    /// Length times weight.
    pub fn magnitudes(&self) -> &[f32] {
        &self.magnitude
    }
}

struct Compute<'a> {
    x: &'a [f32],
    y: &'a [f32],
    logarithm: &'a [f32],
    angle: &'a mut [f32],
    magnitude: &'a mut [f32],
}

impl NullaryFnOnce for Compute<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for ((angle, y), x) in self.angle.iter_mut().zip(self.y).zip(self.x) {
            *angle = degrees(*y, *x);
        }
        for (((magnitude, x), y), logarithm) in self.magnitude.iter_mut().zip(self.x).zip(self.y).zip(self.logarithm) {
            *magnitude = (x * x + y * y).sqrt() * exponential(*logarithm);
        }
    }
}

/// The angle of a vector in degrees from 0 to 360: OpenCV's polynomial, off by up to 0.01°.
#[inline(always)]
fn degrees(y: f32, x: f32) -> f32 {
    const P: [f32; 4] = [57.283_627, -18.667_446, 8.914_000_5, -2.539_724_6];
    let (width, height) = (x.abs(), y.abs());
    let ratio = width.min(height) / (width.max(height) + f64::EPSILON as f32);
    let square = ratio * ratio;
    let angle = (((P[3] * square + P[2]) * square + P[1]) * square + P[0]) * ratio;
    let angle = if width >= height { angle } else { 90.0 - angle };
    let angle = if x < 0.0 { 180.0 - angle } else { angle };
    if y < 0.0 { 360.0 - angle } else { angle }
}

/// `e^x` for `x` from -80 to 0, to two units in the last place: `2^n` times a polynomial on half a unit around 0.
#[inline(always)]
fn exponential(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let rest = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let p = 1.987_569_2e-4 * rest + 1.398_199_9e-3;
    let p = p * rest + 8.333_452e-3;
    let p = p * rest + 4.166_579_6e-2;
    let p = p * rest + 1.666_666_5e-1;
    let p = p * rest + 0.5;
    let value = p * rest * rest + rest + 1.0;
    value * f32::from_bits((n as i32 + 127).cast_unsigned() << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_exponentials() {
        for i in 0..2000 {
            let x = -f64::from(i) * 0.02;
            let error = (f64::from(exponential(x as f32)) / x.exp() - 1.0).abs();
            assert!(error < 2.0e-6, "{x}: {error}");
        }
    }

    #[test]
    fn angles_are_counter_clockwise_degrees() {
        for i in 0..360 {
            let angle = f32::from(i as u16).to_radians();
            let got = degrees(angle.sin(), angle.cos());
            let off = (got - i as f32).abs();
            assert!(off.min(360.0 - off) < 0.02, "{i}: {got}");
        }
        assert_eq!(degrees(0.0, 0.0), 0.0);
    }
}
