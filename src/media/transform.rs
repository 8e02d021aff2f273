//! The transform from an image to a network's input: resize, center crop, `(value / scale - mean) / std`, in one pass.
//!
//! Only pixels inside the crop are computed. Each source row is resized horizontally once, into a ring buffer with as many
//! rows as the vertical kernel has taps. Each output row is a weighted sum of the rows in the ring buffer, rounded to
//! integers as in the reference, normalized and written to the planes of the input tensor.

use pulp::{Arch, NullaryFnOnce};

use super::pixels::BgrImage;
use crate::models::input::{Color, InputSpec, Interpolation, Normalization, Resize};

/// Resize and crop for images of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Geometry {
    /// The part of the image that is resized: top, left, height, width.
    source: [usize; 4],
    /// Height and width after the resize.
    resized: [usize; 2],
    /// Top and left of the crop in the resized image.
    offset: [usize; 2],
}

impl Geometry {
    fn new(resize: Resize, size: [usize; 2], height: usize, width: usize) -> Self {
        let full = [0, 0, height, width];
        let (source, resized) = match resize {
            Resize::Short(short) if width <= height => (full, [short * height / width, short]),
            Resize::Short(short) => (full, [short, short * width / height]),
            Resize::Size(resized) => (full, resized),
            Resize::CropFraction([part, of]) => {
                let side = (height.min(width) * part / of).max(1);
                ([(height - side).div_ceil(2), (width - side).div_ceil(2), side, side], size)
            }
        };
        Self { source, resized, offset: [half_even(resized[0] - size[0]), half_even(resized[1] - size[1])] }
    }
}

/// Returns `n / 2` rounded half to even, as Python's `round`.
fn half_even(n: usize) -> usize {
    n / 2 + usize::from(n % 4 == 3)
}

/// The interpolation kernel of one axis: output `i` is `Σ weights[i * taps + k] * source[first[i] + k]`.
#[derive(Debug)]
struct AxisKernel {
    first: Vec<u32>,
    weights: Vec<f32>,
    taps: usize,
}

impl AxisKernel {
    /// Computes the kernel for outputs `offset..offset + len` of a resize from `from` pixels (the first at `origin`) to `to`
    /// pixels.
    ///
    /// # Source
    /// ATen `UpSampleKernel.cpp` in 32-bit floats: `upsample_bilinear2d`, `upsample_bicubic2d` and their `_aa` variants.
    fn new(input: &InputSpec, origin: usize, from: usize, to: usize, offset: usize, len: usize) -> Self {
        let scale = from as f32 / to as f32;
        let kernels: Vec<(usize, Vec<f32>)> = (offset..offset + len)
            .map(|i| match (input.antialias, input.interpolation) {
                _ if from == to => (i, vec![1.0]),
                (true, interpolation) => antialiased(interpolation, scale, i, from),
                (false, Interpolation::Bilinear) => {
                    let position = (scale * (i as f32 + 0.5) - 0.5).max(0.0);
                    let first = (position as usize).min(from - 1);
                    let t = (position - first as f32).clamp(0.0, 1.0);
                    if first + 1 < from { (first, vec![1.0 - t, t]) } else { (first, vec![1.0]) }
                }
                (false, Interpolation::Bicubic) => {
                    let position = scale * (i as f32 + 0.5) - 0.5;
                    let floor = position.floor();
                    let t = position - floor;
                    let last = from as isize - 1;
                    let tap = |k: isize| (floor as isize + k).clamp(0, last) as usize;
                    let mut weights = vec![0.0; tap(2) - tap(-1) + 1];
                    for (k, distance) in (-1..=2).zip([t + 1.0, t, 1.0 - t, 2.0 - t]) {
                        // Pixels beyond the edge equal the edge pixel.
                        weights[tap(k) - tap(-1)] += cubic(distance, -0.75);
                    }
                    (tap(-1), weights)
                }
            })
            .map(|(first, mut weights)| {
                let zeros = weights.iter().take_while(|w| **w == 0.0).count().min(weights.len() - 1);
                weights.drain(..zeros);
                while weights.len() > 1 && weights.last() == Some(&0.0) {
                    weights.pop();
                }
                (first + zeros, weights)
            })
            .collect();
        let taps = kernels.iter().map(|(_, weights)| weights.len()).max().expect("a crop has at least one pixel");
        let mut axis = Self { first: Vec::with_capacity(len), weights: vec![0.0; len * taps], taps };
        for ((first, weights), padded) in kernels.iter().zip(axis.weights.chunks_exact_mut(taps)) {
            // Kernels with fewer taps are padded with zero weights.
            let start = (*first).min(from - taps);
            padded[first - start..][..weights.len()].copy_from_slice(weights);
            axis.first.push((origin + start) as u32);
        }
        axis
    }

    /// Returns the range of source pixels that are used.
    fn range(&self) -> std::ops::Range<usize> {
        let first = self.first.iter().min().map_or(0, |&f| f as usize);
        first..self.first.iter().max().map_or(0, |&f| f as usize) + self.taps
    }
}

/// Returns the first source pixel and the weights of output `i` for a kernel that widens with the scale. The weights sum to
/// 1.
fn antialiased(interpolation: Interpolation, scale: f32, i: usize, from: usize) -> (usize, Vec<f32>) {
    let radius = match interpolation {
        Interpolation::Bilinear => 1.0,
        Interpolation::Bicubic => 2.0,
    };
    let stretch = scale.max(1.0);
    let support = radius * stretch;
    let center = scale * (i as f32 + 0.5);
    let first = ((center - support + 0.5) as isize).max(0) as usize;
    let end = ((center + support + 0.5) as usize).min(from);
    let mut weights: Vec<f32> = (first..end)
        .map(|j| {
            let distance = ((j as f32 - center + 0.5) * (1.0 / stretch)).abs();
            match interpolation {
                Interpolation::Bilinear => (1.0 - distance).max(0.0),
                Interpolation::Bicubic => cubic(distance, -0.5),
            }
        })
        .collect();
    let sum: f32 = weights.iter().sum();
    weights.iter_mut().for_each(|w| *w /= sum);
    (first, weights)
}

/// Cubic convolution at a distance of at least 0 (Keys 1981, equation 4, with its free parameter `a`).
fn cubic(distance: f32, a: f32) -> f32 {
    let x = distance;
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * a
    } else {
        0.0
    }
}

/// The kernels for images of one size.
#[derive(Debug)]
struct ResizePlan {
    height: usize,
    width: usize,
    rows: AxisKernel,
    columns: AxisKernel,
}

/// Converts images to the planes of a network's input. It caches the kernels of the last image size and its buffers, so each
/// thread has its own.
#[derive(Debug)]
pub struct Transform {
    input: InputSpec,
    plan: Option<ResizePlan>,
    arch: Arch,
    /// The used part of one source row as floats: blue, green, red, padding.
    source: Vec<[f32; 4]>,
    /// Ring buffer of `taps` resized rows; source row `y` is in slot `y % taps`.
    ring: Vec<[f32; 4]>,
    /// The source row in each slot.
    slot_rows: Vec<usize>,
    /// One output row, interleaved.
    line: Vec<[f32; 4]>,
}

impl Transform {
    /// Creates the transform of a card's input section.
    ///
    /// # Source
    /// torchvision `transforms/_presets.py` on eight-bit tensors (resize in 32-bit floats, then round half to even).
    pub fn new(input: &InputSpec) -> Self {
        Self {
            input: input.clone(),
            plan: None,
            arch: Arch::new(),
            source: Vec::new(),
            ring: Vec::new(),
            slot_rows: Vec::new(),
            line: Vec::new(),
        }
    }

    /// Returns height and width of the output.
    pub fn size(&self) -> [usize; 2] {
        self.input.size
    }

    /// Writes the three planes of one image, in the card's channel order: channel `c` at `out[c * plane_stride..]`, with
    /// `height * width` floats. `plane_stride` is `height * width` for frames, (3, H, W), and `frames * height * width` for
    /// clips, (3, T, H, W).
    ///
    /// # Panics
    /// Panics if the image is empty or `out` is shorter than `2 * plane_stride + height * width`.
    pub fn write(&mut self, image: BgrImage<'_>, out: &mut [f32], plane_stride: usize) {
        let output = NormalizedPlanes {
            channels: self.channels(),
            plane_stride,
            normalization: self.input.normalization(),
            out,
        };
        self.run(image, output);
    }

    /// Writes the three planes of one image as [`Self::write`] does, but without normalizing them.
    ///
    /// # Panics
    /// Panics under the conditions of [`Self::write`].
    pub fn write_planes(&mut self, image: BgrImage<'_>, out: &mut [u8], plane_stride: usize) {
        let output = BytePlanes { channels: self.channels(), plane_stride, out };
        self.run(image, output);
    }

    /// Resizes and crops one image without normalizing it: writes (height, width, 3) bytes in the card's channel order.
    ///
    /// # Panics
    /// Panics if the image is empty or `out` is shorter than `3 * height * width`.
    pub fn write_bytes(&mut self, image: BgrImage<'_>, out: &mut [u8]) {
        let output = OutputBytes { channels: self.channels(), out };
        self.run(image, output);
    }

    fn run(&mut self, image: BgrImage<'_>, output: impl OutputRows) {
        assert!(image.height > 0 && image.width > 0, "an image has at least one pixel");
        if self.plan.as_ref().is_none_or(|p| (p.height, p.width) != (image.height, image.width)) {
            self.plan = Some(self.plan(image.height, image.width));
        }
        let plan = self.plan.as_ref().expect("the plan is set above");
        let [height, width] = self.input.size;
        self.ring.resize(plan.rows.taps * width, [0.0; 4]);
        self.slot_rows.clear();
        self.slot_rows.resize(plan.rows.taps, usize::MAX);
        self.line.resize(width, [0.0; 4]);
        self.source.resize(plan.columns.range().len(), [0.0; 4]);
        self.arch.dispatch(TransformPass {
            image,
            plan,
            height,
            width,
            bicubic: self.input.interpolation == Interpolation::Bicubic,
            source: &mut self.source,
            ring: &mut self.ring,
            slot_rows: &mut self.slot_rows,
            line: &mut self.line,
            output,
        });
    }

    /// Returns the channel of the output for blue, green and red.
    fn channels(&self) -> [usize; 3] {
        match self.input.color {
            Color::Rgb => [2, 1, 0],
            Color::Bgr => [0, 1, 2],
        }
    }

    fn plan(&self, height: usize, width: usize) -> ResizePlan {
        let size = self.input.size;
        let geometry = Geometry::new(self.input.resize, size, height, width);
        let [top, left, source_height, source_width] = geometry.source;
        let axis = |origin, from, to, offset, len| AxisKernel::new(&self.input, origin, from, to, offset, len);
        ResizePlan {
            height,
            width,
            rows: axis(top, source_height, geometry.resized[0], geometry.offset[0], size[0]),
            columns: axis(left, source_width, geometry.resized[1], geometry.offset[1], size[1]),
        }
    }
}

/// The transform of one image, compiled for each instruction set.
struct TransformPass<'a, O> {
    image: BgrImage<'a>,
    plan: &'a ResizePlan,
    height: usize,
    width: usize,
    bicubic: bool,
    source: &'a mut [[f32; 4]],
    ring: &'a mut [[f32; 4]],
    slot_rows: &'a mut [usize],
    line: &'a mut [[f32; 4]],
    output: O,
}

impl<O: OutputRows> NullaryFnOnce for TransformPass<'_, O> {
    type Output = ();

    #[inline(always)]
    fn call(mut self) {
        let (rows, columns, width) = (&self.plan.rows, &self.plan.columns, self.width);
        let used = columns.range();
        for y in 0..self.height {
            let first = rows.first[y] as usize;
            for row in first..first + rows.taps {
                let slot = row % rows.taps;
                if self.slot_rows[slot] != row {
                    self.slot_rows[slot] = row;
                    widen(&self.image.row(row)[3 * used.start..3 * used.end], self.source);
                    resize_row(columns, used.start, self.source, &mut self.ring[slot * width..][..width]);
                }
            }
            resize_column(rows, y, self.ring, self.line);
            if self.bicubic {
                clamp(self.line);
            }
            self.output.write(y, self.line);
        }
    }
}

/// Converts bytes to floats, with one float of padding per pixel.
#[inline(always)]
fn widen(bytes: &[u8], pixels: &mut [[f32; 4]]) {
    for (pixel, bytes) in pixels.iter_mut().zip(bytes.chunks_exact(3)) {
        *pixel = [f32::from(bytes[0]), f32::from(bytes[1]), f32::from(bytes[2]), 0.0];
    }
}

#[inline(always)]
fn resize_row(axis: &AxisKernel, origin: usize, source: &[[f32; 4]], out: &mut [[f32; 4]]) {
    match axis.taps {
        1 => resize_row_with_taps::<1>(axis, origin, source, out),
        2 => resize_row_with_taps::<2>(axis, origin, source, out),
        3 => resize_row_with_taps::<3>(axis, origin, source, out),
        4 => resize_row_with_taps::<4>(axis, origin, source, out),
        taps => {
            for ((pixel, &first), weights) in out.iter_mut().zip(&axis.first).zip(axis.weights.chunks_exact(taps)) {
                *pixel = weighted_sum(&source[first as usize - origin..][..taps], weights);
            }
        }
    }
}

#[inline(always)]
fn resize_row_with_taps<const TAPS: usize>(
    axis: &AxisKernel,
    origin: usize,
    source: &[[f32; 4]],
    out: &mut [[f32; 4]],
) {
    let (weights, _) = axis.weights.as_chunks::<TAPS>();
    for ((pixel, &first), weights) in out.iter_mut().zip(&axis.first).zip(weights) {
        *pixel = weighted_sum(&source[first as usize - origin..][..TAPS], weights);
    }
}

#[inline(always)]
fn weighted_sum(pixels: &[[f32; 4]], weights: &[f32]) -> [f32; 4] {
    let mut sum = [0.0f32; 4];
    for (pixel, weight) in pixels.iter().zip(weights) {
        for (sum, value) in sum.iter_mut().zip(pixel) {
            *sum += value * weight;
        }
    }
    sum
}

/// Computes output row `y` from the ring buffer, without rounding.
#[inline(always)]
fn resize_column(axis: &AxisKernel, y: usize, ring: &[[f32; 4]], line: &mut [[f32; 4]]) {
    let (taps, width, first) = (axis.taps, line.len(), axis.first[y] as usize);
    let row = |k: usize| &ring[(first + k) % taps * width..][..width];
    let weights = &axis.weights[y * taps..][..taps];
    let line = line.as_flattened_mut();
    match *weights {
        [a] => {
            for (out, p) in line.iter_mut().zip(row(0).as_flattened()) {
                *out = p * a;
            }
        }
        [a, b] => {
            let rows = row(0).as_flattened().iter().zip(row(1).as_flattened());
            for (out, (p, q)) in line.iter_mut().zip(rows) {
                *out = p * a + q * b;
            }
        }
        [a, b, c] => {
            let rows = row(0).as_flattened().iter().zip(row(1).as_flattened()).zip(row(2).as_flattened());
            for (out, ((p, q), r)) in line.iter_mut().zip(rows) {
                *out = p * a + q * b + r * c;
            }
        }
        _ => {
            // Four rows at a time, in the order of summation of the reference.
            line.fill(0.0);
            let (fours, rest) = weights.as_chunks::<4>();
            for (i, &[a, b, c, d]) in fours.iter().enumerate() {
                let [p, q, r, s] = [0, 1, 2, 3].map(|k| row(4 * i + k).as_flattened());
                for (out, (((p, q), r), s)) in line.iter_mut().zip(p.iter().zip(q).zip(r).zip(s)) {
                    *out = *out + p * a + q * b + r * c + s * d;
                }
            }
            for (k, weight) in rest.iter().enumerate() {
                for (out, p) in line.iter_mut().zip(row(4 * fours.len() + k).as_flattened()) {
                    *out += p * weight;
                }
            }
        }
    }
}

#[inline(always)]
fn clamp(line: &mut [[f32; 4]]) {
    line.as_flattened_mut().iter_mut().for_each(|v| *v = v.clamp(0.0, 255.0));
}

/// Adding and subtracting this number rounds a float below 2²² half to even, without SSE4.1.
const ROUND: f32 = 12_582_912.0;

/// Receives the resized and cropped image row by row.
trait OutputRows {
    /// Writes row `y`, the interleaved channels blue, green and red in [0, 255], which are not rounded.
    fn write(&mut self, y: usize, line: &[[f32; 4]]);
}

/// Normalized planes.
struct NormalizedPlanes<'a> {
    /// Channel of the output for blue, green and red.
    channels: [usize; 3],
    plane_stride: usize,
    normalization: Normalization,
    out: &'a mut [f32],
}

impl OutputRows for NormalizedPlanes<'_> {
    #[inline(always)]
    fn write(&mut self, y: usize, line: &[[f32; 4]]) {
        for (source, channel) in self.channels.into_iter().enumerate() {
            let plane = &mut self.out[channel * self.plane_stride + y * line.len()..][..line.len()];
            for (out, pixel) in plane.iter_mut().zip(line) {
                *out = self.normalization.apply(channel, (pixel[source] + ROUND) - ROUND);
            }
        }
    }
}

/// Planes of bytes.
struct BytePlanes<'a> {
    /// Channel of the output for blue, green and red.
    channels: [usize; 3],
    plane_stride: usize,
    out: &'a mut [u8],
}

impl OutputRows for BytePlanes<'_> {
    #[inline(always)]
    fn write(&mut self, y: usize, line: &[[f32; 4]]) {
        for (source, channel) in self.channels.into_iter().enumerate() {
            let plane = &mut self.out[channel * self.plane_stride + y * line.len()..][..line.len()];
            for (out, pixel) in plane.iter_mut().zip(line) {
                *out = ((pixel[source] + ROUND) - ROUND) as u8;
            }
        }
    }
}

/// Interleaved bytes.
struct OutputBytes<'a> {
    /// Channel of the output for blue, green and red.
    channels: [usize; 3],
    out: &'a mut [u8],
}

impl OutputRows for OutputBytes<'_> {
    #[inline(always)]
    fn write(&mut self, y: usize, line: &[[f32; 4]]) {
        let (row, []) = self.out[3 * y * line.len()..][..3 * line.len()].as_chunks_mut::<3>() else {
            unreachable!("the length is a multiple of 3")
        };
        for (out, pixel) in row.iter_mut().zip(line) {
            for (channel, value) in self.channels.into_iter().zip(pixel) {
                out[channel] = ((value + ROUND) - ROUND) as u8;
            }
        }
    }
}
