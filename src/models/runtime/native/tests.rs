//! Kernels against sums written out in f64.

use super::convolution::{Axes, Convolution, Geometry, Way};
use super::layers::{Activation, LayerNorm, Shape, apply, filled};
use super::separable::Separable;
use super::team::Team;
use super::tiles::{self, Rows};
use super::weights::{Packed, Unit};
use super::winograd::Scratch;

/// Numbers in [-1, 1) that repeat with their seed.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut draw = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| draw()).collect()
}

/// (positions, stored channels) with zeros where channels only fill up.
fn stored(shape: Shape, seed: u64) -> Vec<f32> {
    let mut values = noise(shape.len(), seed);
    values.chunks_exact_mut(shape.stored).for_each(|position| position[shape.channels..].fill(0.0));
    values
}

fn shape(batch: usize, [depth, height, width]: Axes, channels: usize) -> Shape {
    Shape { batch, depth, height, width, channels, stored: filled(channels) }
}

fn geometry(kernel: Axes, stride: Axes, before: Axes, after: Axes) -> Geometry {
    Geometry { kernel, stride, before, after }
}

/// The convolution by its definition, `weight` (channels out, channels in / groups, taps); values and sums of magnitudes.
fn direct(
    g: &Geometry,
    from: Shape,
    input: &[f32],
    to: Shape,
    weight: &[f32],
    bias: &[f32],
    depthwise: bool,
) -> Vec<f64> {
    let inputs = if depthwise { 1 } else { from.channels };
    let taps: usize = g.kernel.iter().product();
    let mut output = vec![0.0; to.len()];
    for position in 0..to.positions() {
        let (x, rest) = (position % to.width, position / to.width);
        let (y, rest) = (rest % to.height, rest / to.height);
        let (t, item) = (rest % to.depth, rest / to.depth);
        for o in 0..to.channels {
            let mut sum = f64::from(bias[o]);
            for tap in 0..taps {
                let at = |at: usize, axis: usize, tap: usize| (at * g.stride[axis] + tap).checked_sub(g.before[axis]);
                let (dx, rest) = (tap % g.kernel[2], tap / g.kernel[2]);
                let (Some(t), Some(y), Some(x)) =
                    (at(t, 0, rest / g.kernel[1]), at(y, 1, rest % g.kernel[1]), at(x, 2, dx))
                else {
                    continue;
                };
                if t >= from.depth || y >= from.height || x >= from.width {
                    continue;
                }
                let pixel = (((item * from.depth + t) * from.height + y) * from.width + x) * from.stored;
                for i in 0..inputs {
                    let channel = if depthwise { o } else { i };
                    sum += f64::from(input[pixel + channel]) * f64::from(weight[(o * inputs + i) * taps + tap]);
                }
            }
            output[position * to.stored + o] = sum;
        }
    }
    output
}

/// What can multiply here: the vectors always, the tiles where the processor has them.
fn units() -> impl Iterator<Item = Unit> {
    [Unit::Vectors, Unit::Tiles].into_iter().filter(|unit| *unit == Unit::Vectors || tiles::available())
}

fn run(layer: &Convolution, from: Shape, input: &[f32], to: Shape) -> Vec<f32> {
    // What was there before does not matter.
    let mut output = vec![f32::NAN; to.len()];
    let mut scratches: Vec<Scratch> = (0..3).map(|_| Scratch::default()).collect();
    layer.run(from, input, to, &mut output, &mut Team::alone(&mut scratches));
    let shared = output.clone();
    layer.run(from, input, to, &mut output, &mut Team::alone(&mut scratches[..1]));
    assert!(shared.iter().zip(&output).all(|(a, b)| a.to_bits() == b.to_bits()), "it depends on the threads");
    output
}

fn assert_close(found: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len());
    let rms = (expected.iter().map(|x| x * x).sum::<f64>() / expected.len() as f64).sqrt();
    let worst = found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
    assert!(worst <= tolerance * rms, "{what}: {worst} of rms {rms}");
}

fn dense(g: Geometry, from: Shape, outputs: usize, unit: Unit) -> (Convolution, Vec<f32>, Vec<f32>, Shape) {
    let to = g.output(from, outputs).unwrap();
    let weight = noise(outputs * from.channels * g.kernel.iter().product::<usize>(), 3);
    let mut bias = noise(to.stored, 4);
    bias[outputs..].fill(0.0);
    let way = Way::dense(g, &weight, from, to, unit);
    (Convolution { way, bias: bias.clone(), adds: false, activation: Activation::None }, weight, bias, to)
}

#[test]
fn every_way_of_convolving_gives_the_sum() {
    let spatial = geometry([1, 3, 3], [1; 3], [0, 1, 1], [0, 1, 1]);
    let temporal = geometry([3, 1, 1], [1; 3], [1, 0, 0], [1, 0, 0]);
    let point = geometry([1; 3], [1; 3], [0; 3], [0; 3]);
    let cases = [
        ("spatial", spatial, shape(2, [3, 10, 13], 5), 20),
        ("spatial", spatial, shape(1, [2, 56, 9], 45), 64),
        ("spatial, few tiles", spatial, shape(1, [2, 7, 7], 40), 96),
        ("temporal", temporal, shape(2, [16, 5, 7], 20), 33),
        ("temporal", temporal, shape(1, [7, 13, 13], 16), 16),
        ("temporal, two frames", temporal, shape(1, [2, 7, 7], 24), 20),
        ("pointwise", point, shape(1, [1, 9, 11], 70), 130),
        ("pointwise, one position", point, shape(3, [1, 1, 1], 100), 16),
        ("strided", geometry([1, 3, 3], [1, 2, 2], [0, 1, 1], [0, 1, 1]), shape(1, [2, 9, 12], 17), 30),
        ("strided in time", geometry([3, 1, 1], [2, 1, 1], [1, 0, 0], [1, 0, 0]), shape(2, [5, 3, 4], 17), 30),
        ("no padding", geometry([2, 4, 4], [2, 4, 4], [0; 3], [0; 3]), shape(1, [4, 8, 8], 3), 48),
    ];
    for ((what, g, from, outputs), unit) in cases.into_iter().flat_map(|case| units().map(move |unit| (case, unit))) {
        let input = stored(from, 1);
        let (layer, weight, bias, to) = dense(g, from, outputs, unit);
        let expected = direct(&g, from, &input, to, &weight, &bias, false);
        // Largest error in units of the rms; minimal filtering over two axes costs a decimal.
        assert_close(&run(&layer, from, &input, to), &expected, 1e-4, &format!("{what}, {unit:?}"));
    }
    // The first layer reads three channels as they come.
    let from = Shape { stored: 3, ..shape(2, [3, 20, 23], 3) };
    let seven = geometry([1, 7, 7], [1, 2, 2], [0, 3, 3], [0, 3, 3]);
    let three = geometry([1, 3, 3], [1, 2, 2], [0, 0, 1], [0, 1, 4]);
    for (g, unit) in [seven, three].into_iter().flat_map(|g| units().map(move |unit| (g, unit))) {
        let (input, (layer, weight, bias, to)) = (noise(from.len(), 1), dense(g, from, 45, unit));
        let expected = direct(&g, from, &input, to, &weight, &bias, false);
        assert_close(&run(&layer, from, &input, to), &expected, 2e-5, &format!("first, {unit:?}"));
    }
}

#[test]
fn what_is_no_number_stays() {
    for (unit, activation) in units().flat_map(|unit| {
        let all = [Activation::None, Activation::Relu, Activation::Relu6, Activation::Gelu];
        all.map(move |activation| (unit, activation))
    }) {
        let (inputs, outputs) = (64, 16);
        let weight = noise(inputs * outputs, 1);
        let matrix = ndarray::ArrayView3::from_shape((1, inputs, outputs), &weight).unwrap();
        let mut input = noise(2 * inputs, 2);
        input[inputs + 5] = f32::NAN;
        let mut output = vec![0.0; 2 * outputs];
        let packed = Packed::whole(matrix, (inputs, outputs), unit);
        packed.multiply(&input, &mut output, &[0.0; 16], activation, &mut Rows::default());
        let (good, bad) = output.split_at(outputs);
        assert!(good.iter().all(|x| x.is_finite()) && bad.iter().all(|x| x.is_nan()), "{unit:?}, {activation:?}");
    }
}

#[test]
fn products_of_tiles_are_those_of_vectors() {
    let sizes =
        [(1, 1, 16), (15, 31, 48), (16, 32, 32), (17, 33, 80), (33, 64, 16), (64, 45, 48), (79, 96, 112), (128, 7, 16)];
    for ((rows, inputs, outputs), unit) in sizes.into_iter().flat_map(|size| units().map(move |unit| (size, unit))) {
        let (weight, input, bias) = (noise(inputs * outputs, 1), noise(rows * inputs, 2), noise(outputs, 3));
        let matrix = ndarray::ArrayView3::from_shape((1, inputs, outputs), &weight).unwrap();
        let packed = Packed::whole(matrix, (inputs, outputs), unit);
        // What lies behind the rows is not touched.
        let mut output = vec![7.0; (rows + 1) * outputs];
        packed.multiply(&input, &mut output[..rows * outputs], &bias, Activation::Relu, &mut Rows::default());
        let mut expected = vec![7.0; output.len()];
        for (i, sum) in expected[..rows * outputs].iter_mut().enumerate() {
            let (row, o) = (i / outputs, i % outputs);
            let products = (0..inputs).map(|k| f64::from(input[row * inputs + k]) * f64::from(weight[k * outputs + o]));
            *sum = (f64::from(bias[o]) + products.sum::<f64>()).max(0.0);
        }
        assert_close(&output, &expected, 2e-5, &format!("{rows} × {inputs} × {outputs}, {unit:?}"));
    }
}

#[test]
fn a_bottleneck_as_one_is_its_three_convolutions() {
    for (size, kernel, stride, (ends, middle, outputs)) in [
        ([1, 60, 83], 3, 1, (20, 96, 20)),
        ([1, 61, 80], 5, 2, (16, 144, 40)),
        ([1, 7, 9], 5, 1, (24, 30, 24)),
        ([1, 90, 90], 3, 2, (16, 200, 24)),
    ] {
        let (point, from) = (geometry([1; 3], [1; 3], [0; 3], [0; 3]), shape(2, size, ends));
        let side = [0, kernel / 2, kernel / 2];
        let g = geometry([1, kernel, kernel], [1, stride, stride], side, side);
        let between = from.with_channels(middle);
        let filtered = g.output(between, middle).unwrap();
        let to = filtered.with_channels(outputs);
        let (input, shown) = (stored(from, 7), stored(to, 9));
        let (expand, ..) = dense(point, from, middle, Unit::Vectors);
        let (project, ..) = dense(point, filtered, outputs, Unit::Vectors);
        let filter = Convolution {
            way: Way::Separable(Box::new(Separable::new(g, &noise(middle * kernel * kernel, 6), between, filtered))),
            bias: stored(shape(1, [1; 3], middle), 8),
            adds: false,
            activation: Activation::Relu6,
        };
        let expand = Convolution { activation: Activation::Relu6, ..expand };
        let first = run(&expand, from, &input, between);
        let expected = run(&project, filtered, &run(&filter, between, &first, filtered), to);
        assert!(!filter.can_add() && expand.joins(&filter) && filter.joins(&project) && !filter.joins(&filter));
        let layers = expand.join(filter).unwrap();
        let layers = layers.join(project).unwrap();
        let expected: Vec<f64> = expected.into_iter().map(f64::from).collect();
        assert_close(&run(&layers, from, &input, to), &expected, 1e-6, "as one");

        assert!(layers.can_add());
        let layers = Convolution { adds: true, ..layers };
        let mut output = shown.clone();
        layers.run(from, &input, to, &mut output, &mut Team::alone(&mut [Scratch::default()]));
        let expected: Vec<f64> = expected.iter().zip(&shown).map(|(made, shown)| made + f64::from(*shown)).collect();
        assert_close(&output, &expected, 1e-6, "added");
    }
}

#[test]
fn two_convolutions_as_one_are_the_two() {
    for (batch, size, (inputs, middle, outputs)) in
        [(2, [16, 10, 13], (20, 45, 16)), (1, [4, 14, 14], (48, 30, 64)), (1, [2, 16, 9], (16, 16, 16))]
    {
        let from = shape(batch, size, inputs);
        let (first, ..) = dense(geometry([1, 3, 3], [1; 3], [0, 1, 1], [0, 1, 1]), from, middle, Unit::Vectors);
        let between = from.with_channels(middle);
        let (second, ..) = dense(geometry([3, 1, 1], [1; 3], [1, 0, 0], [1, 0, 0]), between, outputs, Unit::Vectors);
        let first = Convolution { activation: Activation::Relu, ..first };
        let second = Convolution { activation: Activation::Relu6, ..second };
        let input = stored(from, 7);
        let to = from.with_channels(outputs);
        let expected = run(&second, between, &run(&first, from, &input, between), to);
        assert!(first.joins(&second) && !second.joins(&first));
        let both = first.join(second).unwrap();
        assert!(matches!(both.way, Way::Factorized(_)));
        let expected: Vec<f64> = expected.into_iter().map(f64::from).collect();
        assert_close(&run(&both, from, &input, to), &expected, 1e-5, "both");
    }
}

#[test]
fn what_is_added_to_an_output_stands_before_its_activation() {
    let spatial = geometry([1, 3, 3], [1; 3], [0, 1, 1], [0, 1, 1]);
    let temporal = geometry([3, 1, 1], [1; 3], [1, 0, 0], [1, 0, 0]);
    for (size, tall) in [([16, 10, 13], "tall"), ([5, 14, 14], "low")] {
        let from = shape(1, size, 20);
        let (between, to) = (from.with_channels(45), from.with_channels(24));
        let (input, shown) = (stored(from, 7), stored(to, 9));
        let (first, ..) = dense(spatial, from, between.channels, Unit::Vectors);
        let (second, ..) = dense(temporal, between, to.channels, Unit::Vectors);
        assert!(!first.can_add() && second.can_add());
        let both = first.join(second).unwrap();
        let expected: Vec<f64> = run(&both, from, &input, to)
            .iter()
            .zip(&shown)
            .map(|(made, shown)| f64::from(made + shown).max(0.0))
            .collect();
        let layer = Convolution { adds: true, activation: Activation::Relu, ..both };
        let mut output = shown;
        layer.run(from, &input, to, &mut output, &mut Team::alone(&mut [Scratch::default()]));
        assert_close(&output, &expected, 1e-6, tall);
    }
}

#[test]
fn depthwise_filters_see_their_channel_alone() {
    let uneven = [
        (geometry([1, 3, 3], [1, 2, 2], [0, 0, 0], [0, 1, 1]), shape(2, [1, 9, 11], 20)),
        (geometry([1, 5, 5], [1, 2, 2], [0, 1, 2], [0, 2, 2]), shape(2, [1, 9, 11], 64)),
        (geometry([1, 4, 2], [1, 1, 3], [0, 1, 1], [0, 2, 0]), shape(1, [1, 7, 9], 33)),
    ];
    let every = [(3, 1), (5, 1), (7, 1), (3, 2), (5, 2), (7, 2), (1, 1)].into_iter().flat_map(|(taps, step)| {
        let (kernel, padding) = ([1, taps, taps], [0, taps / 2, taps / 2]);
        (1..=14).map(move |width| (geometry(kernel, [1, step, step], padding, padding), shape(1, [1, 4, width], 80)))
    });
    for (g, from) in uneven.into_iter().chain(every) {
        let (channels, kernel) = (from.channels, g.kernel);
        let to = g.output(from, channels).unwrap();
        let (input, weight) = (stored(from, 5), noise(channels * kernel[1] * kernel[2], 6));
        let bias = stored(Shape { channels, ..shape(1, [1; 3], channels) }, 8);
        let layer = Convolution {
            way: Way::Separable(Box::new(Separable::new(g, &weight, from, to))),
            bias: bias.clone(),
            adds: false,
            activation: Activation::None,
        };
        let expected = direct(&g, from, &input, to, &weight, &bias, true);
        assert_close(&run(&layer, from, &input, to), &expected, 5e-6, &format!("{g:?} of {from:?}"));
    }
}

#[test]
fn norms_and_activations_are_those_of_their_formulas() {
    use crate::numeric::Real;
    let mut values: Vec<f32> = noise(1600, 9).into_iter().map(|x| 6.0 * x).collect();
    let expected: Vec<f64> = values.iter().map(|&x| f64::from(x)).collect();
    let gelu = |x: &f64| 0.5 * x * (1.0 + Real::erf(x * std::f64::consts::FRAC_1_SQRT_2));
    apply(&mut values, Activation::Gelu);
    assert_close(&values, &expected.iter().map(gelu).collect::<Vec<_>>(), 1e-6, "GELU");

    let from = shape(3, [1, 4, 5], 37);
    // Far from zero, where a variance by E[x²] − E[x]² would be lost.
    let mut values = stored(from, 2);
    values.chunks_exact_mut(from.stored).for_each(|p| p[..37].iter_mut().for_each(|x| *x += 5.0));
    let (scale, shift) = (stored(shape(1, [1; 3], 37), 3), stored(shape(1, [1; 3], 37), 4));
    let mut expected = Vec::new();
    for position in values.chunks_exact(from.stored) {
        let known: Vec<f64> = position[..37].iter().map(|&x| f64::from(x)).collect();
        let mean = known.iter().sum::<f64>() / 37.0;
        let variance = known.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 37.0;
        let normed = known.iter().map(|x| (x - mean) / (variance + 1e-6).sqrt());
        expected.extend(normed.zip(scale.iter().zip(&shift)).map(|(x, (s, b))| x * f64::from(*s) + f64::from(*b)));
        expected.extend(std::iter::repeat_n(0.0, from.stored - 37));
    }
    LayerNorm { scale, shift, epsilon: 1e-6 }.run(&mut values, 37);
    assert_close(&values, &expected, 1e-5, "layer norm");
}
