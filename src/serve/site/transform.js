// Transforms an image into a network's input: resize, center crop, `(value / scale - mean) / std`. Repeats the
// arithmetic of the server (src/media/transform.rs) operation by operation in 32-bit floats. A canvas that scales the image
// would yield other values.

const f32 = Math.fround;

/**
 * Returns the network's input (3, H, W).
 * `input` is the `[input]` section of a model card: `{size, resize, interpolation, antialias, color, scale, mean, std}`.
 * `image` has `width`, `height` and `read(left, top, width, height)`, which returns the RGBA pixels of a region in
 * row-major order. Alpha is ignored.
 */
export function transform(input, image) {
  const [height, width] = input.size;
  const { source: [top, left, sourceHeight, sourceWidth], resized, offset } = geometry(input, image);
  const rows = axis(input, top, sourceHeight, resized[0], offset[0], height);
  const columns = axis(input, left, sourceWidth, resized[1], offset[1], width);
  const resizedRows = resizeHorizontally(image, rows, columns, width);
  const line = new Float32Array(3 * width);
  const planes = new Float32Array(3 * height * width);
  const order = input.color === 'bgr' ? [2, 1, 0] : [0, 1, 2];
  for (let y = 0; y < height; y += 1) {
    resizeVertically(resizedRows, rows, y, line);
    for (let c = 0; c < 3; c += 1) {
      const [mean, std, scale] = [f32(input.mean[c]), f32(input.std[c]), f32(input.scale)];
      let offset = (c * height + y) * width;
      for (let i = order[c]; i < line.length; i += 3, offset += 1) {
        let value = line[i];
        if (input.interpolation === 'bicubic') value = Math.min(Math.max(value, 0), 255);
        planes[offset] = f32(f32(f32(round(value) / scale) - mean) / std);
      }
    }
  }
  return planes;
}

/**
 * Returns the source region (top, left, height, width), its size after resizing (height, width), and the offset of the
 * center crop (top, left).
 */
function geometry({ resize, size }, { height, width }) {
  let source = [0, 0, height, width];
  let resized = resize.size;
  if (resize.short) {
    const { short } = resize;
    resized = width <= height ? [Math.trunc((short * height) / width), short] : [short, Math.trunc((short * width) / height)];
  } else if (resize['crop-fraction']) {
    const [numerator, denominator] = resize['crop-fraction'];
    const side = Math.max(Math.trunc((Math.min(height, width) * numerator) / denominator), 1);
    source = [Math.ceil((height - side) / 2), Math.ceil((width - side) / 2), side, side];
    resized = size;
  }
  return { source, resized, offset: [halve(resized[0] - size[0]), halve(resized[1] - size[1])] };
}

/** Returns `n / 2`, rounded half to even. */
const halve = (n) => Math.trunc(n / 2) + (n % 4 === 3 ? 1 : 0);

/** Rounds half to even: adding 1.5 · 2²³ leaves no bits for the fraction. */
const round = (value) => f32(f32(value + 12582912) - 12582912);

/**
 * Returns the resampling weights along one axis for the outputs `offset` to `offset + length` of a resize from `from`
 * pixels, starting at `origin`, to `to` pixels: output `i` is the sum over `k < taps` of `weights[i * taps + k] *
 * source[first[i] + k]`.
 */
function axis(input, origin, from, to, offset, length) {
  const filter = from === to ? (_, i) => [i, [1]] : FILTERS[`${input.antialias ? 'antialiased ' : ''}${input.interpolation}`];
  const scale = f32(from / to);
  const filters = Array.from({ length }, (_, i) => filter(scale, offset + i, from));
  const taps = Math.max(...filters.map(([, values]) => values.length));
  const first = new Int32Array(length);
  const weights = new Float32Array(length * taps);
  filters.forEach(([start, values], i) => {
    first[i] = origin + Math.min(start, from - taps); // all taps are inside the source; unused ones have weight 0
    weights.set(values, i * taps + origin + start - first[i]);
  });
  return { first, weights, taps };
}

/** Functions by interpolation that return the first source pixel of output `i` and the weights of the pixels from there. */
const FILTERS = {
  bilinear(scale, i, from) {
    const position = Math.max(f32(f32(scale * f32(i + 0.5)) - 0.5), 0);
    const first = Math.min(Math.trunc(position), from - 1);
    const fraction = Math.min(Math.max(f32(position - first), 0), 1);
    return first + 1 < from ? [first, [f32(1 - fraction), fraction]] : [first, [1]];
  },

  bicubic(scale, i, from) {
    const position = f32(f32(scale * f32(i + 0.5)) - 0.5);
    const floor = Math.floor(position);
    const fraction = f32(position - floor);
    const tap = (k) => Math.min(Math.max(floor + k, 0), from - 1);
    const weights = new Float32Array(tap(2) - tap(-1) + 1);
    [f32(fraction + 1), fraction, f32(1 - fraction), f32(2 - fraction)].forEach((distance, k) => {
      weights[tap(k - 1) - tap(-1)] += cubic(distance, -0.75); // edge pixels are replicated
    });
    return [tap(-1), weights];
  },

  'antialiased bilinear': (scale, i, from) => antialiased(1, (distance) => Math.max(f32(1 - distance), 0), scale, i, from),

  'antialiased bicubic': (scale, i, from) => antialiased(2, (distance) => cubic(distance, -0.5), scale, i, from),
};

/** A filter whose support grows with the scale. The weights are normalized to sum 1. */
function antialiased(radius, kernel, scale, i, from) {
  const stretch = Math.max(scale, 1);
  const inverse = f32(1 / stretch);
  const support = f32(radius * stretch);
  const center = f32(scale * f32(i + 0.5));
  const first = Math.max(Math.trunc(f32(f32(center - support) + 0.5)), 0);
  const end = Math.min(Math.trunc(f32(f32(center + support) + 0.5)), from);
  const distance = (j) => Math.abs(f32(f32(f32(j - center) + 0.5) * inverse));
  const weights = Float32Array.from({ length: end - first }, (_, k) => kernel(distance(first + k)));
  const sum = weights.reduce((sum, value) => f32(sum + value), 0);
  return [first, weights.map((value) => value / sum)];
}

/** Cubic convolution kernel at distance `x` ≥ 0 with parameter `a` (Keys 1981, equation 4). */
function cubic(x, a) {
  if (x < 1) return f32(f32(f32(f32(f32(f32(a + 2) * x) - f32(a + 3)) * x) * x) + 1);
  if (x < 2) return f32(f32(f32(f32(f32(f32(x - 5) * x) + 8) * x) - 4) * a);
  return 0;
}

/** Maximum number of pixels per read, to bound memory. */
const BAND_PIXELS = 1 << 20;

/** Resizes the source rows that the outputs need to `width`. Returns their RGB values and the index of the first row. */
function resizeHorizontally(image, rows, columns, width) {
  const [top, bottom] = range(rows);
  const [left, right] = range(columns);
  const band = Math.max(Math.trunc(BAND_PIXELS / (right - left)), 1);
  const values = new Float32Array((bottom - top) * width * 3);
  for (let y = top; y < bottom; y += band) {
    const height = Math.min(band, bottom - y);
    const pixels = image.read(left, y, right - left, height);
    for (let row = 0; row < height; row += 1) {
      const from = row * (right - left);
      resizeRow(pixels, from - left, columns, values.subarray((y - top + row) * width * 3, (y - top + row + 1) * width * 3));
    }
  }
  return { start: top, values };
}

/** Returns the range of source pixels used, with an exclusive end. */
function range({ first, taps }) {
  return [first.reduce((a, b) => Math.min(a, b)), first.reduce((a, b) => Math.max(a, b)) + taps];
}

/** Resizes one row. Pixel `x` of the image is pixel `shift + x` of `pixels`. */
function resizeRow(pixels, shift, { first, weights, taps }, out) {
  for (let i = 0, w = 0; i < first.length; i += 1) {
    let [red, green, blue] = [0, 0, 0];
    let offset = 4 * (shift + first[i]);
    for (let k = 0; k < taps; k += 1, offset += 4, w += 1) {
      const weight = weights[w];
      red = f32(red + f32(pixels[offset] * weight));
      green = f32(green + f32(pixels[offset + 1] * weight));
      blue = f32(blue + f32(pixels[offset + 2] * weight));
    }
    out[3 * i] = red;
    out[3 * i + 1] = green;
    out[3 * i + 2] = blue;
  }
}

/** Computes output row `y`, not rounded yet. */
function resizeVertically({ start, values }, { first, weights, taps }, y, line) {
  line.fill(0);
  for (let k = 0; k < taps; k += 1) {
    const weight = weights[y * taps + k];
    const from = (first[y] - start + k) * line.length;
    for (let i = 0; i < line.length; i += 1) line[i] = f32(line[i] + f32(values[from + i] * weight));
  }
}
