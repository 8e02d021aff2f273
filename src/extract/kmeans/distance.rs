//! Dot products and distances of rows.

/// A number type that converts to f32 without loss.
pub trait Number: Copy + Send + Sync + Into<f32> + 'static {
    /// Writes the dot products of `row` with each of `others`, which have the same length, to `out`.
    #[doc(hidden)]
    fn dots(row: &[Self], others: &[Vec<Self>], out: &mut [f32]);
}

impl Number for u8 {
    #[inline(always)]
    fn dots(row: &[u8], others: &[Vec<u8>], out: &mut [f32]) {
        for (other, out) in others.iter().zip(out) {
            // Products of 16-bit integers that are summed in pairs compile to one instruction. The result is exact.
            let products = row.iter().zip(other).map(|(&a, &b)| i32::from(i16::from(a)) * i32::from(i16::from(b)));
            *out = products.sum::<i32>() as f32;
        }
    }
}

impl Number for f32 {
    #[inline(always)]
    fn dots(row: &[f32], others: &[Vec<f32>], out: &mut [f32]) {
        for (other, out) in others.iter().zip(out) {
            *out = dot(row, other);
        }
    }
}

/// Computes ‖a − b‖².
#[inline(always)]
pub(super) fn squared_distance<T: Number>(a: &[T], b: &[f32]) -> f32 {
    sum_in_lanes(a.iter().map(|&a| a.into()), b, |a, b| (a - b) * (a - b))
}

/// Computes a·b.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum_in_lanes(a.iter().copied(), b, |a, b| a * b)
}

/// Sums `term` over pairs of elements in sixteen lanes, which vectorizes. The order of summation is the same for all
/// instruction sets.
#[inline(always)]
fn sum_in_lanes(a: impl ExactSizeIterator<Item = f32>, b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0f32; LANES];
    let mut a = a;
    for chunk in b.chunks(LANES) {
        for ((sum, b), a) in sums.iter_mut().zip(chunk).zip(&mut a) {
            *sum += term(a, *b);
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}
