// From a picture to a network's input: resize, center crop, `(value / scale - mean) / std`, with the very arithmetic of the
// server (src/media/transform.rs), operation by operation in 32-bit floats. A canvas that scales would give other values.

const f32 = Math.fround;

/**
 * The planes (3, H, W) of a network's input.
 * `input` is a card's section: `{size, resize, interpolation, antialias, color, scale, mean, std}`. `picture` has `width`,
 * `height` and `read(left, top, width, height)`, which gives red, green, blue, alpha of a part of it, row by row; alpha is
 * not looked at.
 */
export function transform(input, picture) {
  const [height, width] = input.size;
  const { source: [top, left, sourceHeight, sourceWidth], resized, offset } = geometry(input, picture);
  const rows = axis(input, top, sourceHeight, resized[0], offset[0], height);
  const columns = axis(input, left, sourceWidth, resized[1], offset[1], width);
  const narrow = resizeRows(picture, rows, columns, width);
  const line = new Float32Array(3 * width);
  const planes = new Float32Array(3 * height * width);
  const order = input.color === 'bgr' ? [2, 1, 0] : [0, 1, 2];
  for (let y = 0; y < height; y += 1) {
    mixRows(narrow, rows, y, line);
    for (let c = 0; c < 3; c += 1) {
      const [mean, std, scale] = [f32(input.mean[c]), f32(input.std[c]), f32(input.scale)];
      let at = (c * height + y) * width;
      for (let i = order[c]; i < line.length; i += 3, at += 1) {
        let value = line[i];
        if (input.interpolation === 'bicubic') value = Math.min(Math.max(value, 0), 255);
        planes[at] = f32(f32(f32(rounded(value) / scale) - mean) / std);
      }
    }
  }
  return planes;
}

/** The part of the picture that is resized (top, left, height, width), to what (height, width), and the crop's place. */
function geometry({ resize, size }, { height, width }) {
  let source = [0, 0, height, width];
  let resized = resize.size;
  if (resize.short) {
    const { short } = resize;
    resized = width <= height ? [Math.trunc((short * height) / width), short] : [short, Math.trunc((short * width) / height)];
  } else if (resize['crop-fraction']) {
    const [part, of] = resize['crop-fraction'];
    const side = Math.max(Math.trunc((Math.min(height, width) * part) / of), 1);
    source = [Math.ceil((height - side) / 2), Math.ceil((width - side) / 2), side, side];
    resized = size;
  }
  return { source, resized, offset: [halfEven(resized[0] - size[0]), halfEven(resized[1] - size[1])] };
}

/** `n / 2` rounded half to even. */
const halfEven = (n) => Math.trunc(n / 2) + (n % 4 === 3 ? 1 : 0);

/** A float rounded half to even: what is too small for the sum's last digit is rounded away. */
const rounded = (value) => f32(f32(value + 12582912) - 12582912);

/**
 * The kernel along one axis, outputs `offset` to `offset + length` of a resize of `from` pixels (the first at `origin`) to `to`:
 * output `i` is the sum over `k < taps` of `weights[i * taps + k] * source[first[i] + k]`.
 */
function axis(input, origin, from, to, offset, length) {
  const kernel = from === to ? (_, i) => [i, [1]] : KERNELS[`${input.antialias ? 'antialiased ' : ''}${input.interpolation}`];
  const scale = f32(from / to);
  const runs = Array.from({ length }, (_, i) => kernel(scale, offset + i, from));
  const taps = Math.max(...runs.map(([, run]) => run.length));
  const first = new Int32Array(length);
  const weights = new Float32Array(length * taps);
  runs.forEach(([start, run], i) => {
    first[i] = origin + Math.min(start, from - taps); // room for all taps, the surplus ones of weight 0
    weights.set(run, i * taps + origin + start - first[i]);
  });
  return { first, weights, taps };
}

/** By the kind of interpolation: the first source pixel of output `i`, and the run of weights from there. */
const KERNELS = {
  bilinear(scale, i, from) {
    const at = Math.max(f32(f32(scale * f32(i + 0.5)) - 0.5), 0);
    const first = Math.min(Math.trunc(at), from - 1);
    const share = Math.min(Math.max(f32(at - first), 0), 1);
    return first + 1 < from ? [first, [f32(1 - share), share]] : [first, [1]];
  },

  bicubic(scale, i, from) {
    const at = f32(f32(scale * f32(i + 0.5)) - 0.5);
    const below = Math.floor(at);
    const share = f32(at - below);
    const tap = (k) => Math.min(Math.max(below + k, 0), from - 1);
    const run = new Float32Array(tap(2) - tap(-1) + 1);
    [f32(share + 1), share, f32(1 - share), f32(2 - share)].forEach((distance, k) => {
      run[tap(k - 1) - tap(-1)] += cubic(distance, -0.75); // the edge pixel stands for those beyond it
    });
    return [tap(-1), run];
  },

  'antialiased bilinear': (scale, i, from) => antialiased(1, (distance) => Math.max(f32(1 - distance), 0), scale, i, from),

  'antialiased bicubic': (scale, i, from) => antialiased(2, (distance) => cubic(distance, -0.5), scale, i, from),
};

/** A kernel that widens with the scale, its weights normalized to sum 1. */
function antialiased(radius, weight, scale, i, from) {
  const stretch = Math.max(scale, 1);
  const inverse = f32(1 / stretch);
  const support = f32(radius * stretch);
  const center = f32(scale * f32(i + 0.5));
  const first = Math.max(Math.trunc(f32(f32(center - support) + 0.5)), 0);
  const end = Math.min(Math.trunc(f32(f32(center + support) + 0.5)), from);
  const distance = (j) => Math.abs(f32(f32(f32(j - center) + 0.5) * inverse));
  const run = Float32Array.from({ length: end - first }, (_, k) => weight(distance(first + k)));
  const sum = run.reduce((sum, value) => f32(sum + value), 0);
  return [first, run.map((value) => value / sum)];
}

/** Cubic convolution at a distance of at least 0 (Keys 1981, equation 4, with its free parameter `a`). */
function cubic(x, a) {
  if (x < 1) return f32(f32(f32(f32(f32(f32(a + 2) * x) - f32(a + 3)) * x) * x) + 1);
  if (x < 2) return f32(f32(f32(f32(f32(f32(x - 5) * x) + 8) * x) - 4) * a);
  return 0;
}

/** Pixels that are read at once. */
const BAND = 1 << 20;

/** Every source row that an output needs, resized to `width`: red, green, blue. `start` is the first one's place. */
function resizeRows(picture, rows, columns, width) {
  const [top, bottom] = range(rows);
  const [left, right] = range(columns);
  const band = Math.max(Math.trunc(BAND / (right - left)), 1);
  const values = new Float32Array((bottom - top) * width * 3);
  for (let y = top; y < bottom; y += band) {
    const height = Math.min(band, bottom - y);
    const pixels = picture.read(left, y, right - left, height);
    for (let row = 0; row < height; row += 1) {
      const from = row * (right - left);
      resizeRow(pixels, from - left, columns, values.subarray((y - top + row) * width * 3, (y - top + row + 1) * width * 3));
    }
  }
  return { start: top, values };
}

/** The source pixels touched, to one beyond the last. */
function range({ first, taps }) {
  return [first.reduce((a, b) => Math.min(a, b)), first.reduce((a, b) => Math.max(a, b)) + taps];
}

/** One row; pixel `x` of the picture is pixel `shift + x` of `pixels`. */
function resizeRow(pixels, shift, { first, weights, taps }, out) {
  for (let i = 0, w = 0; i < first.length; i += 1) {
    let [red, green, blue] = [0, 0, 0];
    let at = 4 * (shift + first[i]);
    for (let k = 0; k < taps; k += 1, at += 4, w += 1) {
      const weight = weights[w];
      red = f32(red + f32(pixels[at] * weight));
      green = f32(green + f32(pixels[at + 1] * weight));
      blue = f32(blue + f32(pixels[at + 2] * weight));
    }
    out[3 * i] = red;
    out[3 * i + 1] = green;
    out[3 * i + 2] = blue;
  }
}

/** Output row `y`, before rounding. */
function mixRows({ start, values }, { first, weights, taps }, y, line) {
  line.fill(0);
  for (let k = 0; k < taps; k += 1) {
    const weight = weights[y * taps + k];
    const from = (first[y] - start + k) * line.length;
    for (let i = 0; i < line.length; i += 1) line[i] = f32(line[i] + f32(values[from + i] * weight));
  }
}
