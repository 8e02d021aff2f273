//! From a decoded picture to a network's input in one pass: resize, center crop, `(value / scale - mean) / std`.
//!
//! Only what the crop keeps is computed. Every source row is resized once (horizontally, into a ring of as many rows
//! as the vertical kernel is tall), and each output row is mixed from the ring, rounded to whole eight-bit values as
//! the reference does, normalized and written straight into the planes of the input tensor.

use pulp::{Arch, NullaryFnOnce};

use crate::models::card::{Color, Input, Interpolation, Resize};

/// A borrowed eight-bit picture, three interleaved channels blue, green, red: OpenCV's layout.
#[derive(Debug, Clone, Copy)]
pub struct BgrImage<'a> {
    /// Rows.
    pub height: usize,
    /// Pixels in a row.
    pub width: usize,
    /// Bytes from one row to the next, at least `3 * width`.
    pub stride: usize,
    /// The rows; the last one may end after its pixels.
    pub data: &'a [u8],
}

impl<'a> BgrImage<'a> {
    /// A picture whose rows follow each other without a gap; `data` holds `3 * height * width` bytes.
    pub fn new(height: usize, width: usize, data: &'a [u8]) -> Self {
        assert_eq!(data.len(), 3 * height * width, "a picture of {height}x{width} has 3 bytes a pixel");
        Self { height, width, stride: 3 * width, data }
    }

    fn row(&self, y: usize) -> &'a [u8] {
        &self.data[y * self.stride..][..3 * self.width]
    }
}

/// Where a network's input comes from in a picture of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Geometry {
    /// The part of the picture that is resized: top, left, height, width.
    source: [usize; 4],
    /// Height and width after the resize.
    resized: [usize; 2],
    /// Top and left of the crop in the resized picture.
    offset: [usize; 2],
}

impl Geometry {
    fn new(resize: Resize, size: [usize; 2], height: usize, width: usize) -> Self {
        let whole = [0, 0, height, width];
        let (source, resized) = match resize {
            Resize::Short(short) if width <= height => (whole, [short * height / width, short]),
            Resize::Short(short) => (whole, [short, short * width / height]),
            Resize::Size(resized) => (whole, resized),
            Resize::CropFraction([part, of]) => {
                let side = (height.min(width) * part / of).max(1);
                ([(height - side).div_ceil(2), (width - side).div_ceil(2), side, side], size)
            }
        };
        Self { source, resized, offset: [half_even(resized[0] - size[0]), half_even(resized[1] - size[1])] }
    }
}

/// `n / 2` rounded half to even, as Python's `round`.
fn half_even(n: usize) -> usize {
    n / 2 + usize::from(n % 4 == 3)
}

/// The kernel along one axis: output `i` is `Σ weights[i * taps + k] * source[first[i] + k]`.
#[derive(Debug)]
struct Axis {
    first: Vec<u32>,
    weights: Vec<f32>,
    taps: usize,
}

impl Axis {
    /// Outputs `offset..offset + len` of a resize of `from` pixels (the first at `origin`) to `to` pixels.
    ///
    /// # Source
    /// ATen `UpSampleKernel.cpp`, in its 32-bit floats: `upsample_bilinear2d`, `upsample_bicubic2d` and their `_aa`.
    fn new(input: &Input, origin: usize, from: usize, to: usize, offset: usize, len: usize) -> Self {
        let scale = from as f32 / to as f32;
        let runs: Vec<(usize, Vec<f32>)> = (offset..offset + len)
            .map(|i| match (input.antialias, input.interpolation) {
                _ if from == to => (i, vec![1.0]),
                (true, interpolation) => antialiased(interpolation, scale, i, from),
                (false, Interpolation::Bilinear) => {
                    let at = (scale * (i as f32 + 0.5) - 0.5).max(0.0);
                    let first = (at as usize).min(from - 1);
                    let share = (at - first as f32).clamp(0.0, 1.0);
                    if first + 1 < from { (first, vec![1.0 - share, share]) } else { (first, vec![1.0]) }
                }
                (false, Interpolation::Bicubic) => {
                    let at = scale * (i as f32 + 0.5) - 0.5;
                    let below = at.floor();
                    let share = at - below;
                    let last = from as isize - 1;
                    let tap = |k: isize| (below as isize + k).clamp(0, last) as usize;
                    let mut run = vec![0.0; tap(2) - tap(-1) + 1];
                    for (k, distance) in (-1..=2).zip([share + 1.0, share, 1.0 - share, 2.0 - share]) {
                        run[tap(k) - tap(-1)] += cubic(distance, -0.75); // the edge pixel stands for those beyond it
                    }
                    (tap(-1), run)
                }
            })
            .map(|(first, mut run)| {
                let zeros = run.iter().take_while(|w| **w == 0.0).count().min(run.len() - 1);
                run.drain(..zeros);
                while run.len() > 1 && run.last() == Some(&0.0) {
                    run.pop();
                }
                (first + zeros, run)
            })
            .collect();
        let taps = runs.iter().map(|(_, run)| run.len()).max().expect("a crop has at least one pixel");
        let mut axis = Self { first: Vec::with_capacity(len), weights: vec![0.0; len * taps], taps };
        for ((first, run), weights) in runs.iter().zip(axis.weights.chunks_exact_mut(taps)) {
            let start = (*first).min(from - taps); // room for all taps, the surplus ones of weight 0
            weights[first - start..][..run.len()].copy_from_slice(run);
            axis.first.push((origin + start) as u32);
        }
        axis
    }

    /// The source pixels touched.
    fn range(&self) -> std::ops::Range<usize> {
        let first = self.first.iter().min().map_or(0, |&f| f as usize);
        first..self.first.iter().max().map_or(0, |&f| f as usize) + self.taps
    }
}

/// The run of weights of output `i` for a kernel that widens with the scale; normalized to sum 1.
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
    let mut run: Vec<f32> = (first..end)
        .map(|j| {
            let distance = ((j as f32 - center + 0.5) * (1.0 / stretch)).abs();
            match interpolation {
                Interpolation::Bilinear => (1.0 - distance).max(0.0),
                Interpolation::Bicubic => cubic(distance, -0.5),
            }
        })
        .collect();
    let sum: f32 = run.iter().sum();
    run.iter_mut().for_each(|w| *w /= sum);
    (first, run)
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

/// What one size of picture needs.
#[derive(Debug)]
struct Plan {
    height: usize,
    width: usize,
    rows: Axis,
    columns: Axis,
}

/// Turns pictures into the planes of a network's input. Keeps the plan of the last picture's size, so one `Transform`
/// serves one thread.
#[derive(Debug)]
pub struct Transform {
    input: Input,
    plan: Option<Plan>,
    arch: Arch,
    /// The touched part of one source row as floats, blue, green, red and one of padding.
    source: Vec<[f32; 4]>,
    /// `taps` resized rows; source row `y` lies in slot `y % taps`.
    ring: Vec<[f32; 4]>,
    /// Which source row each slot holds.
    held: Vec<usize>,
    /// One output row before it goes into its planes.
    line: Vec<[f32; 4]>,
}

impl Transform {
    /// A transform as a card's input section says.
    ///
    /// # Source
    /// torchvision `transforms/_presets.py` on eight-bit tensors (resize in 32-bit floats, then rounded half to even).
    pub fn new(input: &Input) -> Self {
        Self {
            input: input.clone(),
            plan: None,
            arch: Arch::new(),
            source: Vec::new(),
            ring: Vec::new(),
            held: Vec::new(),
            line: Vec::new(),
        }
    }

    /// Height and width of what [`Transform::write`] writes.
    pub fn size(&self) -> [usize; 2] {
        self.input.size
    }

    /// Writes the three planes of one picture: channel `c` of the card's order at `out[c * plane_stride..]`,
    /// `height * width` floats each. `plane_stride` is `height * width` for frames `(3, H, W)` and
    /// `frames * height * width` for clips `(3, T, H, W)`.
    ///
    /// # Panics
    /// The picture is empty or `out` is shorter than `2 * plane_stride + height * width`.
    pub fn write(&mut self, image: BgrImage<'_>, out: &mut [f32], plane_stride: usize) {
        assert!(image.height > 0 && image.width > 0, "a picture has at least one pixel");
        if self.plan.as_ref().is_none_or(|p| (p.height, p.width) != (image.height, image.width)) {
            self.plan = Some(self.plan(image.height, image.width));
        }
        let plan = self.plan.as_ref().expect("made above");
        let [height, width] = self.input.size;
        self.ring.resize(plan.rows.taps * width, [0.0; 4]);
        self.held.clear();
        self.held.resize(plan.rows.taps, usize::MAX);
        self.line.resize(width, [0.0; 4]);
        let [blue, green, red] = match self.input.color {
            Color::Rgb => [2, 1, 0],
            Color::Bgr => [0, 1, 2],
        };
        let planes = Planes {
            start: [blue * plane_stride, green * plane_stride, red * plane_stride],
            scale: self.input.scale as f32,
            mean: [blue, green, red].map(|c| self.input.mean[c] as f32),
            std: [blue, green, red].map(|c| self.input.std[c] as f32),
        };
        self.source.resize(plan.columns.range().len(), [0.0; 4]);
        self.arch.dispatch(Pass {
            image,
            plan,
            height,
            width,
            bicubic: self.input.interpolation == Interpolation::Bicubic,
            source: &mut self.source,
            ring: &mut self.ring,
            held: &mut self.held,
            line: &mut self.line,
            planes,
            out,
        });
    }

    fn plan(&self, height: usize, width: usize) -> Plan {
        let size = self.input.size;
        let geometry = Geometry::new(self.input.resize, size, height, width);
        let [top, left, source_height, source_width] = geometry.source;
        let axis = |origin, from, to, offset, len| Axis::new(&self.input, origin, from, to, offset, len);
        Plan {
            height,
            width,
            rows: axis(top, source_height, geometry.resized[0], geometry.offset[0], size[0]),
            columns: axis(left, source_width, geometry.resized[1], geometry.offset[1], size[1]),
        }
    }
}

/// One picture's way through; compiled for each kind of processor.
struct Pass<'a> {
    image: BgrImage<'a>,
    plan: &'a Plan,
    height: usize,
    width: usize,
    bicubic: bool,
    source: &'a mut [[f32; 4]],
    ring: &'a mut [[f32; 4]],
    held: &'a mut [usize],
    line: &'a mut [[f32; 4]],
    planes: Planes,
    out: &'a mut [f32],
}

impl NullaryFnOnce for Pass<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let (rows, columns, width) = (&self.plan.rows, &self.plan.columns, self.width);
        let band = columns.range();
        for y in 0..self.height {
            let first = rows.first[y] as usize;
            for row in first..first + rows.taps {
                let slot = row % rows.taps;
                if self.held[slot] != row {
                    self.held[slot] = row;
                    widen(&self.image.row(row)[3 * band.start..3 * band.end], self.source);
                    resize_row(columns, band.start, self.source, &mut self.ring[slot * width..][..width]);
                }
            }
            mix_rows(rows, y, self.ring, self.line);
            if self.bicubic {
                clamp(self.line);
            }
            self.planes.write(self.line, &mut self.out[y * width..]);
        }
    }
}

/// Bytes to floats, one padding float a pixel.
#[inline(always)]
fn widen(bytes: &[u8], pixels: &mut [[f32; 4]]) {
    for (pixel, bytes) in pixels.iter_mut().zip(bytes.chunks_exact(3)) {
        *pixel = [f32::from(bytes[0]), f32::from(bytes[1]), f32::from(bytes[2]), 0.0];
    }
}

#[inline(always)]
fn resize_row(axis: &Axis, origin: usize, source: &[[f32; 4]], out: &mut [[f32; 4]]) {
    match axis.taps {
        1 => resize_row_by::<1>(axis, origin, source, out),
        2 => resize_row_by::<2>(axis, origin, source, out),
        3 => resize_row_by::<3>(axis, origin, source, out),
        4 => resize_row_by::<4>(axis, origin, source, out),
        taps => {
            for ((pixel, &first), weights) in out.iter_mut().zip(&axis.first).zip(axis.weights.chunks_exact(taps)) {
                *pixel = weigh(&source[first as usize - origin..][..taps], weights);
            }
        }
    }
}

#[inline(always)]
fn resize_row_by<const TAPS: usize>(axis: &Axis, origin: usize, source: &[[f32; 4]], out: &mut [[f32; 4]]) {
    let (weights, _) = axis.weights.as_chunks::<TAPS>();
    for ((pixel, &first), weights) in out.iter_mut().zip(&axis.first).zip(weights) {
        *pixel = weigh(&source[first as usize - origin..][..TAPS], weights);
    }
}

#[inline(always)]
fn weigh(pixels: &[[f32; 4]], weights: &[f32]) -> [f32; 4] {
    let mut sum = [0.0f32; 4];
    for (pixel, weight) in pixels.iter().zip(weights) {
        for (sum, value) in sum.iter_mut().zip(pixel) {
            *sum += value * weight;
        }
    }
    sum
}

/// Output row `y` from the ring, before rounding.
#[inline(always)]
fn mix_rows(axis: &Axis, y: usize, ring: &[[f32; 4]], line: &mut [[f32; 4]]) {
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
            // Four rows at a time, summed in their order.
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

/// Where blue, green and red go, and how they are normalized.
struct Planes {
    start: [usize; 3],
    scale: f32,
    mean: [f32; 3],
    std: [f32; 3],
}

impl Planes {
    #[inline(always)]
    fn write(&self, line: &[[f32; 4]], out: &mut [f32]) {
        /// Added and taken away again, this rounds a float below 2²² half to even, without SSE4.1.
        const ROUND: f32 = 12_582_912.0;
        for channel in 0..3 {
            let (mean, std) = (self.mean[channel], self.std[channel]);
            let plane = &mut out[self.start[channel]..][..line.len()];
            for (out, pixel) in plane.iter_mut().zip(line) {
                let value = (pixel[channel] + ROUND) - ROUND;
                *out = (value / self.scale - mean) / std;
            }
        }
    }
}
