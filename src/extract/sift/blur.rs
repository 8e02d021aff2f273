//! A Gaussian blur that takes its picture row by row, so that several can follow each other while rows are in the cache.
//!
//! Sums are taken in the order of OpenCV's filters, and fused where the processor fuses, so that the images are OpenCV's
//! to the last bit.

use pulp::{Arch, NullaryFnOnce};

use super::scale_space::Plane;

/// Outputs computed side by side along a row: four registers of eight.
const BLOCK: usize = 32;

/// One blur on its way down a picture.
#[derive(Debug)]
pub struct Blur {
    arch: Arch,
    fused: bool,
    kernel: Vec<f32>,
    /// A row with its mirrored borders, and room for the last block to run over.
    padded: Vec<f32>,
    /// As many rows, blurred along, as the kernel is long; row `y` lies in slot `y % len`.
    ring: Vec<f32>,
    /// Rows that went into the ring.
    taken: usize,
    /// Rows that came out.
    done: usize,
}

impl Blur {
    /// A blur by `sigma` pixels, the kernel four of them to each side.
    pub fn new(sigma: f64) -> Self {
        let len = (sigma * 8.0 + 1.0).round_ties_even() as usize | 1;
        let centre = (len / 2) as f64;
        let weight = |i: usize| (-(i as f64 - centre).powi(2) / (2.0 * sigma * sigma)).exp();
        let sum: f64 = (0..len).map(weight).sum();
        Self {
            arch: Arch::new(),
            fused: fuses(),
            kernel: (0..len).map(|i| (weight(i) / sum) as f32).collect(),
            padded: Vec::new(),
            ring: Vec::new(),
            taken: 0,
            done: 0,
        }
    }

    /// Begins a new picture.
    pub fn restart(&mut self) {
        (self.taken, self.done) = (0, 0);
    }

    /// Writes all rows of `to` for which the first `available` rows of `from` suffice; returns how many `to` has now.
    pub fn advance(&mut self, from: &Plane, available: usize, to: &mut Plane) -> usize {
        let arch = self.arch;
        if self.fused {
            arch.dispatch(Advance::<true> { blur: self, from, available, to })
        } else {
            arch.dispatch(Advance::<false> { blur: self, from, available, to })
        }
    }
}

/// The call that is compiled for each kind of processor; a closure might not be inlined into it.
struct Advance<'a, const FUSED: bool> {
    blur: &'a mut Blur,
    from: &'a Plane,
    available: usize,
    to: &'a mut Plane,
}

impl<const FUSED: bool> NullaryFnOnce for Advance<'_, FUSED> {
    type Output = usize;

    #[inline(always)]
    fn call(self) -> usize {
        let Self { blur: Blur { kernel, padded, ring, taken, done, .. }, from, available, to } = self;
        let (height, width, len, reach) = (from.height, from.width, kernel.len(), kernel.len() / 2);
        let stride = width.next_multiple_of(BLOCK);
        padded.resize(stride + 2 * reach, 0.0);
        ring.resize(len * stride, 0.0);
        while *done < height && available >= height.min(*done + reach + 1) {
            let y = *done;
            while *taken < height.min(y + reach + 1) {
                let row = from.row(*taken);
                padded[reach..reach + width].copy_from_slice(row);
                for k in 1..=reach {
                    padded[reach - k] = row[mirror(-(k as isize), width)];
                    padded[reach + width - 1 + k] = row[mirror((width - 1 + k) as isize, width)];
                }
                along_row::<FUSED>(kernel, padded, &mut ring[*taken % len * stride..][..stride]);
                *taken += 1;
            }
            let row = |at: isize| &ring[mirror(y as isize + at, height) % len * stride..][..stride];
            down_columns::<FUSED>(&kernel[reach..], row, &mut to.data[y * width..][..width]);
            *done += 1;
        }
        *done
    }
}

/// Whether products and sums are rounded once, as OpenCV's filters do where the processor can.
fn fuses() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::is_x86_feature_detected!("fma") && std::is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    return cfg!(target_arch = "aarch64");
}

#[inline(always)]
fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

#[inline(always)]
fn along_row<const FUSED: bool>(kernel: &[f32], padded: &[f32], out: &mut [f32]) {
    let (blocks, _) = out.as_chunks_mut::<BLOCK>();
    for (b, out) in blocks.iter_mut().enumerate() {
        let mut sum = [0.0f32; BLOCK];
        for (k, &weight) in kernel.iter().enumerate() {
            let values: &[f32; BLOCK] = padded[b * BLOCK + k..][..BLOCK].try_into().expect("a block");
            for (sum, value) in sum.iter_mut().zip(values) {
                *sum = multiply_add::<FUSED>(*value, weight, *sum);
            }
        }
        *out = sum;
    }
}

/// `half` is the kernel from its centre on. The row is gone over once for every four pairs of rows, which costs less
/// than once for each, and is what the compiler makes vectors of.
#[inline(always)]
fn down_columns<'a, const FUSED: bool>(half: &[f32], row: impl Fn(isize) -> &'a [f32], out: &mut [f32]) {
    let width = out.len();
    let pair = |k: usize| (&row(k as isize)[..width], &row(-(k as isize))[..width]);
    for (out, value) in out.iter_mut().zip(row(0)) {
        *out = value * half[0];
    }
    let mut k = 1;
    while k + 4 <= half.len() {
        let weights: [f32; 4] = half[k..][..4].try_into().expect("four");
        let [(a, b), (c, d), (e, f), (g, h)] = [pair(k), pair(k + 1), pair(k + 2), pair(k + 3)];
        for x in 0..width {
            let sum = multiply_add::<FUSED>(a[x] + b[x], weights[0], out[x]);
            let sum = multiply_add::<FUSED>(c[x] + d[x], weights[1], sum);
            let sum = multiply_add::<FUSED>(e[x] + f[x], weights[2], sum);
            out[x] = multiply_add::<FUSED>(g[x] + h[x], weights[3], sum);
        }
        k += 4;
    }
    for (k, &weight) in half.iter().enumerate().skip(k) {
        let (a, b) = pair(k);
        for (out, (a, b)) in out.iter_mut().zip(a.iter().zip(b)) {
            *out = multiply_add::<FUSED>(a + b, weight, *out);
        }
    }
}

/// The pixel that stands for one beyond the border: … 2 1 0 1 2 … n-2 n-1 n-2 …
fn mirror(mut at: isize, len: usize) -> usize {
    let last = len as isize - 1;
    if last == 0 {
        return 0;
    }
    while at < 0 || at > last {
        at = if at < 0 { -at } else { 2 * last - at };
    }
    at as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_mirror() {
        let seen: Vec<usize> = (-4..7).map(|i| mirror(i, 3)).collect();
        assert_eq!(seen, [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]);
        assert_eq!(mirror(-5, 1), 0);
    }

    #[test]
    fn a_blur_by_rows_is_a_blur_at_once() {
        let plane = Plane { height: 40, width: 33, data: (0..40 * 33).map(|i| (i * 37 % 101) as f32).collect() };
        let mut blur = Blur::new(1.6);
        let mut whole = Plane { height: 40, width: 33, data: vec![0.0; 40 * 33] };
        assert_eq!(blur.advance(&plane, 40, &mut whole), 40);
        let mut by_rows = Plane { data: vec![0.0; 40 * 33], ..whole.clone() };
        blur.restart();
        let done: Vec<usize> = (0..=40).map(|rows| blur.advance(&plane, rows, &mut by_rows)).collect();
        assert_eq!(done[..9], [0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(done[40], 40);
        assert_eq!(whole.data, by_rows.data);
    }
}
