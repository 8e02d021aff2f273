//! Pooling layers.

use proptest::prelude::*;

use super::super::pooling::{MaxPool, global_average_pool};
use super::*;

/// Runs a max pooling; the previous content of the output must not matter.
fn run_max_pool(isa: Isa, g: ConvGeometry, from: TensorShape, input: &[f32]) -> Vec<f32> {
    let (to, layer) = (g.output_shape(from, from.channels).unwrap(), MaxPool { geometry: g });
    run_with_workers(&vec![f32::NAN; to.len()], |output, workers| layer.run(isa, (from, input), (to, output), workers))
}

/// Computes max pooling by its definition. NaN propagates.
fn reference_max_pool(g: &ConvGeometry, from: TensorShape, input: &[f32]) -> Vec<f32> {
    let to = g.output_shape(from, from.channels).unwrap();
    let mut output = Vec::with_capacity(to.len());
    for i in 0..to.len() {
        let (channel, position) = (i % to.channel_stride, i / to.channel_stride);
        let (x, rest) = (position % to.width, position / to.width);
        let (y, rest) = (rest % to.height, rest / to.height);
        let (t, item) = (rest % to.depth, rest / to.depth);
        let mut max = f32::NEG_INFINITY;
        for tap in 0..g.taps() {
            let offsets = [tap / g.kernel[2] / g.kernel[1], tap / g.kernel[2] % g.kernel[1], tap % g.kernel[2]];
            let index = |axis: usize, at: usize, length: usize| {
                (at * g.stride[axis] + offsets[axis]).checked_sub(g.pad_before[axis]).filter(|&i| i < length)
            };
            let (Some(t), Some(y), Some(x)) =
                (index(0, t, from.depth), index(1, y, from.height), index(2, x, from.width))
            else {
                continue;
            };
            let position = ((item * from.depth + t) * from.height + y) * from.width + x;
            let value = input[position * from.channel_stride + channel];
            max = if max.is_nan() || value.is_nan() { f32::NAN } else { max.max(value) };
        }
        output.push(max);
    }
    output
}

#[test]
fn nan_propagates_through_global_average_pooling() {
    let from = shape(2, [1, 1, 2], 20);
    let mut input = random_activation(from, 1);
    input[32 + 5] = f32::NAN;
    let mut mean = vec![0.0; 64];
    global_average_pool(from, &input, &mut mean);
    assert!((0..64).all(|i| mean[i].is_nan() == (i == 5)));
}

#[test]
fn nan_propagates_through_max_pooling_from_every_position() {
    let (from, g) = (shape(1, [1, 3, 3], 20), geometry([1, 3, 3], [1, 2, 2], [0, 1, 1], [0, 1, 1]));
    for isa in instruction_sets() {
        for position in 0..9 {
            let mut input = random_activation(from, 1);
            input[position * 32 + 5] = f32::NAN;
            let (found, expected) = (run_max_pool(isa, g, from, &input), reference_max_pool(&g, from, &input));
            assert!(expected.iter().any(|x| x.is_nan()));
            for (found, expected) in found.iter().zip(&expected) {
                assert!(found == expected || (found.is_nan() && expected.is_nan()), "{isa:?}, position {position}");
            }
        }
    }
}

#[test]
fn max_pooling_pads_with_negative_infinity() {
    let (from, g) = (shape(1, [1, 2, 2], 16), geometry([1, 3, 3], [1, 2, 2], [0, 1, 1], [0, 1, 1]));
    for isa in instruction_sets() {
        assert_eq!(run_max_pool(isa, g, from, &vec![-5.0; from.len()]), [-5.0; 16], "{isa:?}");
        let input = vec![f32::NEG_INFINITY; from.len()];
        assert_eq!(run_max_pool(isa, g, from, &input), [f32::NEG_INFINITY; 16], "{isa:?}");
    }
}

/// A geometry whose padding is smaller than the kernel.
fn any_geometry() -> impl Strategy<Value = ConvGeometry> {
    let axis = |max: usize| {
        (1..=max, 1..4usize).prop_flat_map(|(kernel, stride)| (Just(kernel), Just(stride), 0..kernel, 0..kernel))
    };
    [axis(2), axis(4), axis(4)].prop_map(|axes| {
        let [kernel, stride] = [axes.map(|axis| axis.0), axes.map(|axis| axis.1)];
        geometry(kernel, stride, axes.map(|axis| axis.2), axes.map(|axis| axis.3))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn global_average_pooling_matches_the_reference(size in [1..4usize, 1..8usize, 1..8usize], channels in 1..40usize) {
        let from = shape(2, size, channels);
        let input = random_activation(from, 1);
        let mut found = vec![f32::NAN; 2 * from.channel_stride];
        global_average_pool(from, &input, &mut found);
        let positions = from.positions() / 2;
        let expected: Vec<f64> = (0..found.len()).map(|i| {
            let (item, channel) = (i / from.channel_stride, i % from.channel_stride);
            let values = (0..positions).map(|p| f64::from(input[(item * positions + p) * from.channel_stride + channel]));
            values.sum::<f64>() / positions as f64
        }).collect();
        assert_within(&found, &expected, 1e-6, "mean");
    }

    #[test]
    fn max_pooling_matches_the_reference(
        size in [1..4usize, 1..10usize, 1..10usize],
        channels in 1..40usize,
        g in any_geometry(),
    ) {
        let from = shape(2, size, channels);
        prop_assume!(g.output_shape(from, channels).is_some());
        let input = random_activation(from, 1);
        let expected = reference_max_pool(&g, from, &input);
        for isa in instruction_sets() {
            prop_assert_eq!(&run_max_pool(isa, g, from, &input), &expected, "{:?}", isa);
        }
    }
}
