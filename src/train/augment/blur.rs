//! Gaussian blur.

/// Blurs an image of `size` (height, width) in place by a Gaussian kernel of `kernel` · `kernel` pixels (odd) with standard deviation
/// `sigma`. Images are reflected at their edges, without repeating the edge. `buffer` is scratch memory.
///
/// # Source
/// torchvision `transforms/v2/functional/_misc.py`, `gaussian_blur_image`. The kernel is separable, so rows and columns are filtered one
/// after the other.
///
/// # Panics
/// Panics if half a kernel is not smaller than height and width.
pub fn gaussian_blur(image: &mut [u8], size: [usize; 2], kernel: usize, sigma: f32, buffer: &mut Vec<f32>) {
    let [height, width] = size;
    let radius = kernel / 2;
    assert!(radius < height && radius < width, "a kernel of {kernel} pixels for an image of {height}x{width}");
    let weights = weights(radius, sigma);
    let (row_len, padded_len) = (3 * width, 3 * (width + 2 * radius));
    buffer.clear();
    buffer.resize(height * row_len + padded_len + row_len, 0.0);
    let (rows, rest) = buffer.split_at_mut(height * row_len);
    let (padded, sums) = rest.split_at_mut(padded_len);
    for (source, out) in image.chunks_exact(row_len).zip(rows.chunks_exact_mut(row_len)) {
        let (pixels, _) = padded.as_chunks_mut::<3>();
        for (x, pixel) in pixels.iter_mut().enumerate() {
            let from = 3 * reflect(x as isize - radius as isize, width);
            *pixel = std::array::from_fn(|c| f32::from(source[from + c]));
        }
        for (k, weight) in weights.iter().enumerate() {
            add_scaled(out, &padded[3 * k..][..row_len], *weight);
        }
    }
    for (y, out) in image.chunks_exact_mut(row_len).enumerate() {
        sums.fill(0.0);
        for (k, weight) in weights.iter().enumerate() {
            let row = reflect((y + k) as isize - radius as isize, height);
            add_scaled(sums, &rows[row * row_len..][..row_len], *weight);
        }
        out.iter_mut().zip(sums.iter()).for_each(|(out, sum)| *out = (sum + 0.5) as u8);
    }
}

fn add_scaled(sums: &mut [f32], values: &[f32], weight: f32) {
    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value * weight);
}

/// Returns the weights of a Gaussian at −radius..=radius, which sum to 1.
fn weights(radius: usize, sigma: f32) -> Vec<f32> {
    let distance = |k: usize| k as f32 - radius as f32;
    let mut weights: Vec<f32> = (0..=2 * radius).map(|k| (-0.5 * (distance(k) / sigma).powi(2)).exp()).collect();
    let sum: f32 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= sum);
    weights
}

/// Reflects an index at the ends of `0..len`, at most once.
fn reflect(index: isize, len: usize) -> usize {
    let last = len as isize - 1;
    let index = index.abs();
    (if index > last { 2 * last - index } else { index }) as usize
}
