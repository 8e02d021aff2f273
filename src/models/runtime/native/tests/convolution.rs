//! Convolutions and matrix products.

use ndarray::ArrayView3;
use proptest::prelude::*;

use super::super::activation::Activation;
use super::super::convolution::{ConvAlgorithm, Convolution};
use super::super::depthwise::DepthwiseConv;
use super::super::inverted_bottleneck::InvertedBottleneck;
use super::super::isa::Isa;
use super::super::kernel::QuantizedRows;
use super::super::packed::PackedWeights;
use super::super::shape::{ConvGeometry, TensorShape};
use super::super::winograd::{SpatialWinograd, TemporalWinograd};
use super::*;

const POINTWISE: ConvGeometry = ConvGeometry { kernel: [1; 3], stride: [1; 3], pad_before: [0; 3], pad_after: [0; 3] };
const SPATIAL: ConvGeometry =
    ConvGeometry { kernel: [1, 3, 3], stride: [1; 3], pad_before: [0, 1, 1], pad_after: [0, 1, 1] };
const TEMPORAL: ConvGeometry =
    ConvGeometry { kernel: [3, 1, 1], stride: [1; 3], pad_before: [1, 0, 0], pad_after: [1, 0, 0] };

/// A convolution and its unpacked weights.
struct Layer {
    layer: Convolution,
    geometry: ConvGeometry,
    weight: Vec<f32>,
    from: TensorShape,
    to: TensorShape,
    depthwise: bool,
}

impl Layer {
    fn new(
        geometry: ConvGeometry,
        from: TensorShape,
        outputs: usize,
        algorithm: impl FnOnce(&[f32], TensorShape) -> ConvAlgorithm,
    ) -> Self {
        let to = geometry.output_shape(from, outputs).unwrap();
        let weight = noise(outputs * from.channels * geometry.taps(), 3);
        let bias = random_channels(outputs, 4);
        let algorithm = algorithm(&weight, to);
        let layer =
            Convolution { algorithm, bias, accumulate: false, activation: Activation::None, multiply_accumulates: 0 };
        Self { layer, geometry, weight, from, to, depthwise: false }
    }

    fn dense(geometry: ConvGeometry, from: TensorShape, outputs: usize, isa: Isa) -> Self {
        Self::new(geometry, from, outputs, |weight, to| ConvAlgorithm::dense(geometry, weight, from, to, isa.into()))
    }

    /// F(4 × 4, 3 × 3) if `large_tiles`, otherwise F(2 × 2, 3 × 3).
    fn spatial(from: TensorShape, outputs: usize, large_tiles: bool, isa: Isa) -> Self {
        Self::new(SPATIAL, from, outputs, |weight, to| {
            let weight = ArrayView3::from_shape((outputs, from.channels, 9), weight).unwrap();
            let tiles = if large_tiles { usize::MAX } else { 0 };
            let padded = (from.channel_stride, to.channel_stride);
            ConvAlgorithm::Spatial(SpatialWinograd::new(weight.permuted_axes([2, 1, 0]), padded, tiles, isa.into()))
        })
    }

    /// F(4, 3) if `large_tiles`, otherwise F(2, 3).
    fn temporal(from: TensorShape, outputs: usize, large_tiles: bool, isa: Isa) -> Self {
        Self::new(TEMPORAL, from, outputs, |weight, to| {
            let weight = ArrayView3::from_shape((outputs, from.channels, 3), weight).unwrap();
            let depth = if large_tiles { usize::MAX } else { 0 };
            let padded = (from.channel_stride, to.channel_stride);
            ConvAlgorithm::Temporal(TemporalWinograd::new(weight.permuted_axes([2, 1, 0]), padded, depth, isa.into()))
        })
    }

    fn depthwise(geometry: ConvGeometry, from: TensorShape, isa: Isa) -> Self {
        let to = geometry.output_shape(from, from.channels).unwrap();
        let weight = noise(from.channels * geometry.taps(), 6);
        let block = InvertedBottleneck::new(DepthwiseConv::new(geometry, &weight, from, to, isa), isa);
        let layer = Convolution {
            algorithm: ConvAlgorithm::Depthwise(Box::new(block)),
            bias: random_channels(from.channels, 8),
            accumulate: false,
            activation: Activation::None,
            multiply_accumulates: 0,
        };
        Self { layer, geometry, weight, from, to, depthwise: true }
    }

    fn with_activation(self, activation: Activation) -> Self {
        Self { layer: Convolution { activation, ..self.layer }, ..self }
    }

    /// Computes the layer without accumulation in f64.
    fn reference(&self, input: &[f64]) -> Vec<f64> {
        let Self { layer, geometry, weight, from, to, depthwise } = self;
        let mut output = reference_convolution(geometry, *from, input, *to, weight, &layer.bias, *depthwise);
        output.iter_mut().for_each(|x| *x = activate(*x, layer.activation));
        output
    }
}

/// Fuses consecutive layers.
fn fuse(layers: impl IntoIterator<Item = Layer>) -> Convolution {
    let fuse_two = |first: Convolution, second: Convolution| {
        assert!(first.can_fuse(&second));
        first.fuse(second).unwrap()
    };
    layers.into_iter().map(|layer| layer.layer).reduce(fuse_two).unwrap()
}

/// Runs layers, fused into one, with and without a residual connection, and compares with the f64 reference.
fn check_fused(layers: Vec<Layer>, tolerance: f64, what: &str) {
    let (from, to) = (layers[0].from, layers.last().unwrap().to);
    let (input, previous) = (random_activation(from, 7), random_activation(to, 9));
    let expected = layers.iter().fold(to_f64(&input), |input, layer| layer.reference(&input));
    let layer = fuse(layers);
    assert_within(&run(&layer, from, &input, to), &expected, tolerance, what);
    if layer.can_accumulate() {
        let expected: Vec<f64> =
            expected.iter().zip(&previous).map(|(sum, previous)| (sum + f64::from(*previous)).max(0.0)).collect();
        let layer = Convolution { accumulate: true, activation: Activation::Relu, ..layer };
        let found = run_onto(&layer, from, &input, to, &previous);
        assert_within(&found, &expected, tolerance, &format!("{what}, accumulated"));
    }
}

#[test]
fn every_algorithm_matches_the_reference() {
    let cases = [
        ("spatial", SPATIAL, shape(2, [3, 10, 13], 5), 20),
        ("spatial", SPATIAL, shape(1, [2, 56, 9], 45), 64),
        ("spatial, few tiles", SPATIAL, shape(1, [2, 7, 7], 40), 96),
        ("temporal", TEMPORAL, shape(2, [16, 5, 7], 20), 33),
        ("temporal", TEMPORAL, shape(1, [7, 13, 13], 16), 16),
        ("temporal, two frames", TEMPORAL, shape(1, [2, 7, 7], 24), 20),
        ("pointwise", POINTWISE, shape(1, [1, 9, 11], 70), 130),
        ("pointwise, one position", POINTWISE, shape(3, [1, 1, 1], 100), 16),
        ("strided", geometry([1, 3, 3], [1, 2, 2], [0, 1, 1], [0, 1, 1]), shape(1, [2, 9, 12], 17), 30),
        ("strided in time", geometry([3, 1, 1], [2, 1, 1], [1, 0, 0], [1, 0, 0]), shape(2, [5, 3, 4], 17), 30),
        ("no padding", geometry([2, 4, 4], [2, 4, 4], [0; 3], [0; 3]), shape(1, [4, 8, 8], 3), 48),
    ];
    let isas = instruction_sets();
    for ((what, g, from, outputs), isa) in cases.into_iter().flat_map(|case| isas.iter().map(move |&isa| (case, isa))) {
        let input = random_activation(from, 1);
        let layer = Layer::dense(g, from, outputs, isa);
        let expected = layer.reference(&to_f64(&input));
        // Two-dimensional Winograd loses about one decimal digit.
        assert_close(&run(&layer.layer, from, &input, layer.to), &expected, 1e-4, &format!("{what}, {isa:?}"));
    }
    // The first layer reads three channels without padding.
    let from = TensorShape { channel_stride: 3, ..shape(2, [3, 20, 23], 3) };
    let seven = geometry([1, 7, 7], [1, 2, 2], [0, 3, 3], [0, 3, 3]);
    let three = geometry([1, 3, 3], [1, 2, 2], [0, 0, 1], [0, 1, 4]);
    for (g, &isa) in [seven, three].into_iter().flat_map(|g| isas.iter().map(move |isa| (g, isa))) {
        let (input, layer) = (noise(from.len(), 1), Layer::dense(g, from, 45, isa));
        let expected = layer.reference(&to_f64(&input));
        assert_close(&run(&layer.layer, from, &input, layer.to), &expected, 2e-5, &format!("first layer, {isa:?}"));
    }
}

#[test]
fn matrix_products_match_the_reference() {
    let sizes =
        [(1, 1, 16), (15, 31, 48), (16, 32, 32), (17, 33, 80), (33, 64, 16), (64, 45, 48), (79, 96, 112), (128, 7, 16)];
    let isas = instruction_sets();
    for ((rows, inputs, outputs), &isa) in sizes.into_iter().flat_map(|size| isas.iter().map(move |isa| (size, isa))) {
        let (weight, input, bias) = (noise(inputs * outputs, 1), noise(rows * inputs, 2), noise(outputs, 3));
        let matrix = ArrayView3::from_shape((1, inputs, outputs), &weight).unwrap();
        let packed = PackedWeights::concatenate(matrix, (inputs, outputs), isa.into());
        // Values after the last row must not change.
        let mut output = vec![7.0; (rows + 1) * outputs];
        let workspace = &mut QuantizedRows::default();
        packed.matmul(&input, &mut output[..rows * outputs], &bias, Activation::Relu, workspace);
        let mut expected = vec![7.0; output.len()];
        for (i, sum) in expected[..rows * outputs].iter_mut().enumerate() {
            let (row, o) = (i / outputs, i % outputs);
            let products = (0..inputs).map(|k| f64::from(input[row * inputs + k]) * f64::from(weight[k * outputs + o]));
            *sum = (f64::from(bias[o]) + products.sum::<f64>()).max(0.0);
        }
        assert_close(&output, &expected, 2e-5, &format!("{rows} × {inputs} × {outputs}, {isa:?}"));
    }
}

#[test]
fn nan_propagates_through_matrix_products() {
    let (inputs, outputs) = (64, 16);
    for (isa, activation) in instruction_sets().into_iter().flat_map(|isa| ACTIVATIONS.map(move |a| (isa, a))) {
        let weight = noise(inputs * outputs, 1);
        let matrix = ArrayView3::from_shape((1, inputs, outputs), &weight).unwrap();
        let mut input = noise(2 * inputs, 2);
        input[inputs + 5] = f32::NAN;
        let mut output = vec![0.0; 2 * outputs];
        let packed = PackedWeights::concatenate(matrix, (inputs, outputs), isa.into());
        packed.matmul(&input, &mut output, &[0.0; 16], activation, &mut QuantizedRows::default());
        let (finite, nan) = output.split_at(outputs);
        assert!(finite.iter().all(|x| x.is_finite()) && nan.iter().all(|x| x.is_nan()), "{isa:?}, {activation:?}");
    }
}

#[test]
fn nan_propagates_through_convolutions() {
    for (isa, activation) in instruction_sets().into_iter().flat_map(|isa| ACTIVATIONS.map(move |a| (isa, a))) {
        let from = shape(1, [3, 9, 9], 16);
        let strided = geometry([1, 3, 3], [1, 2, 2], [0, 1, 1], [0, 1, 1]);
        let point = || Layer::dense(POINTWISE, from, 16, isa);
        let chains = [
            vec![Layer::dense(strided, from, 16, isa)],
            vec![Layer::spatial(from, 16, true, isa)],
            vec![Layer::spatial(from, 16, false, isa)],
            vec![Layer::temporal(from, 16, true, isa)],
            vec![Layer::temporal(from, 16, false, isa)],
            vec![Layer::spatial(from, 16, true, isa), Layer::temporal(from, 16, true, isa)],
            vec![Layer::depthwise(SPATIAL, from, isa)],
            vec![point(), Layer::depthwise(SPATIAL, from, isa), point()],
        ];
        for layers in chains {
            let layers: Vec<_> = layers.into_iter().map(|layer| layer.with_activation(activation)).collect();
            let to = layers.last().unwrap().to;
            let layer = fuse(layers);
            let mut input = random_activation(from, 1);
            // Channel 5 of the position (1, 4, 4), which the strided output (1, 2, 2) depends on, too.
            input[((9 + 4) * 9 + 4) * 16 + 5] = f32::NAN;
            let output = run(&layer, from, &input, to);
            let center = ((to.height + to.height / 2) * to.width + to.width / 2) * 16;
            assert!(output[center + 5].is_nan(), "{:?}, {isa:?}, {activation:?}", layer.algorithm);
        }
    }
}

#[test]
fn depthwise_convolutions_match_the_reference() {
    let uneven = [
        (geometry([1, 3, 3], [1, 2, 2], [0, 0, 0], [0, 1, 1]), shape(2, [1, 9, 11], 20)),
        (geometry([1, 5, 5], [1, 2, 2], [0, 1, 2], [0, 2, 2]), shape(2, [1, 9, 11], 64)),
        (geometry([1, 4, 2], [1, 1, 3], [0, 1, 1], [0, 2, 0]), shape(1, [1, 7, 9], 33)),
    ];
    let sizes = [(3, 1), (5, 1), (7, 1), (3, 2), (5, 2), (7, 2), (1, 1)];
    let every_width = sizes.into_iter().flat_map(|(taps, stride)| {
        let (kernel, padding) = ([1, taps, taps], [0, taps / 2, taps / 2]);
        (1..=14)
            .map(move |width| (geometry(kernel, [1, stride, stride], padding, padding), shape(1, [1, 4, width], 80)))
    });
    let cases: Vec<_> = uneven.into_iter().chain(every_width).collect();
    for isa in instruction_sets() {
        for &(g, from) in &cases {
            let input = random_activation(from, 5);
            let layer = Layer::depthwise(g, from, isa);
            let expected = layer.reference(&to_f64(&input));
            let found = run(&layer.layer, from, &input, layer.to);
            assert_close(&found, &expected, 5e-6, &format!("{g:?} of {from:?}, {isa:?}"));
        }
    }
}

#[test]
fn fused_inverted_bottleneck_matches_separate_layers() {
    let cases = [
        ([1, 60, 83], 3, 1, (20, 96, 20)),
        ([1, 61, 80], 5, 2, (16, 144, 40)),
        ([1, 7, 9], 5, 1, (24, 30, 24)),
        ([1, 90, 90], 3, 2, (16, 200, 24)),
    ];
    let isa = Isa::available().last().unwrap();
    for (size, kernel, stride, (inputs, expanded, outputs)) in cases {
        let from = shape(2, size, inputs);
        let padding = [0, kernel / 2, kernel / 2];
        let g = geometry([1, kernel, kernel], [1, stride, stride], padding, padding);
        let expand = Layer::dense(POINTWISE, from, expanded, isa).with_activation(Activation::Relu6);
        let filter = Layer::depthwise(g, expand.to, isa).with_activation(Activation::Relu6);
        let project = Layer::dense(POINTWISE, filter.to, outputs, isa);
        let (input, to) = (random_activation(from, 7), project.to);
        let previous = random_activation(to, 9);
        let intermediate = run(&expand.layer, from, &input, expand.to);
        let intermediate = run(&filter.layer, expand.to, &intermediate, filter.to);
        let expected = to_f64(&run(&project.layer, filter.to, &intermediate, to));
        assert!(!filter.layer.can_accumulate() && !filter.layer.can_fuse(&filter.layer));
        let block = fuse([expand, filter, project]);
        assert_close(&run(&block, from, &input, to), &expected, 1e-6, "fused");

        assert!(block.can_accumulate());
        let block = Convolution { accumulate: true, ..block };
        let expected: Vec<f64> = expected.iter().zip(&previous).map(|(x, y)| x + f64::from(*y)).collect();
        assert_close(&run_onto(&block, from, &input, to, &previous), &expected, 1e-6, "accumulated");
    }
}

#[test]
fn fused_factorized_convolution_matches_separate_layers() {
    let isa = Isa::available().last().unwrap();
    for (batch, size, (inputs, intermediate, outputs)) in
        [(2, [16, 10, 13], (20, 45, 16)), (1, [4, 14, 14], (48, 30, 64)), (1, [2, 16, 9], (16, 16, 16))]
    {
        let from = shape(batch, size, inputs);
        let first = Layer::dense(SPATIAL, from, intermediate, isa).with_activation(Activation::Relu);
        let second = Layer::dense(TEMPORAL, first.to, outputs, isa).with_activation(Activation::Relu6);
        let (input, to) = (random_activation(from, 7), second.to);
        let expected = run(&first.layer, from, &input, first.to);
        let expected = to_f64(&run(&second.layer, first.to, &expected, to));
        assert!(!second.layer.can_fuse(&first.layer));
        let both = fuse([first, second]);
        assert!(matches!(both.algorithm, ConvAlgorithm::Factorized(_)));
        assert_close(&run(&both, from, &input, to), &expected, 1e-5, "fused");
    }
}

#[test]
fn residual_is_added_before_the_activation() {
    let isa = Isa::available().last().unwrap();
    for size in [[16, 10, 13], [5, 14, 14]] {
        let first = Layer::dense(SPATIAL, shape(1, size, 20), 45, isa);
        let second = Layer::dense(TEMPORAL, first.to, 24, isa);
        assert!(!first.layer.can_accumulate() && second.layer.can_accumulate());
        let (from, to) = (first.from, second.to);
        let (input, previous) = (random_activation(from, 7), random_activation(to, 9));
        let both = fuse([first, second]);
        let expected: Vec<f64> = run(&both, from, &input, to)
            .iter()
            .zip(&previous)
            .map(|(sum, previous)| f64::from(sum + previous).max(0.0))
            .collect();
        let layer = Convolution { accumulate: true, activation: Activation::Relu, ..both };
        assert_close(&run_onto(&layer, from, &input, to, &previous), &expected, 1e-6, &format!("{size:?}"));
    }
}

fn any_activation() -> impl Strategy<Value = Activation> {
    prop::sample::select(&ACTIVATIONS[..])
}

/// A convolution with kernels, strides and padding along the axes in `axes`, on an input it fits into.
fn any_geometry(axes: [bool; 3]) -> impl Strategy<Value = (ConvGeometry, [usize; 3])> {
    let axis = |used: bool| {
        let used = usize::from(used);
        (1..=1 + 3 * used, 1..=1 + 2 * used, 1..=1 + 10 * used).prop_flat_map(|(kernel, stride, extra)| {
            let padding = 0..kernel;
            (Just(kernel), Just(stride), padding.clone(), padding, Just(kernel + extra - 1))
        })
    };
    axes.map(axis).prop_map(|axes| {
        let of = |f: fn(&(usize, usize, usize, usize, usize)) -> usize| [f(&axes[0]), f(&axes[1]), f(&axes[2])];
        (geometry(of(|a| a.0), of(|a| a.1), of(|a| a.2), of(|a| a.3)), of(|a| a.4))
    })
}

/// Absolute tolerances for outputs of magnitude 1 to 10. A wrong index or weight gives errors above 1e-2.
const DIRECT: f64 = 1e-4;
/// The transforms of F(4×4, 3×3) amplify rounding errors by about an order of magnitude (Lavin & Gray 2016).
const WINOGRAD: f64 = 1e-3;

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn dense_convolutions_match_the_reference_for_random_geometries(
        (g, size) in any_geometry([true; 3]),
        batch in 1..3usize,
        (inputs, outputs) in (1..40usize, 1..40usize),
        padded: bool,
        activation in any_activation(),
    ) {
        let from = shape(batch, size, inputs);
        let from = if padded { from } else { TensorShape { channel_stride: inputs, ..from } };
        for isa in instruction_sets() {
            let layer = Layer::dense(g, from, outputs, isa).with_activation(activation);
            let input = random_activation(from, 1);
            let expected = layer.reference(&to_f64(&input));
            assert_within(&run(&layer.layer, from, &input, layer.to), &expected, WINOGRAD, &format!("{isa:?}"));
        }
    }

    #[test]
    fn pointwise_convolutions_match_the_reference_for_random_sizes(
        size in [1..4usize, 1..9usize, 1..9usize],
        (inputs, outputs) in (1..100usize, 1..100usize),
        activation in any_activation(),
    ) {
        for isa in instruction_sets() {
            let layer = Layer::dense(POINTWISE, shape(1, size, inputs), outputs, isa).with_activation(activation);
            check_fused(vec![layer], DIRECT, &format!("{isa:?}"));
        }
    }

    #[test]
    fn spatial_winograd_matches_the_reference_for_random_sizes(
        size in [1..4usize, 1..15usize, 1..15usize],
        (inputs, outputs) in (1..40usize, 1..40usize),
        large_tiles: bool,
        activation in any_activation(),
    ) {
        for isa in instruction_sets() {
            let layer = Layer::spatial(shape(1, size, inputs), outputs, large_tiles, isa).with_activation(activation);
            check_fused(vec![layer], WINOGRAD, &format!("{isa:?}"));
        }
    }

    #[test]
    fn temporal_winograd_matches_the_reference_for_random_sizes(
        size in [1..12usize, 1..6usize, 1..6usize],
        (inputs, outputs) in (1..40usize, 1..40usize),
        large_tiles: bool,
        activation in any_activation(),
    ) {
        for isa in instruction_sets() {
            let layer = Layer::temporal(shape(2, size, inputs), outputs, large_tiles, isa).with_activation(activation);
            check_fused(vec![layer], WINOGRAD, &format!("{isa:?}"));
        }
    }

    #[test]
    fn factorized_convolutions_match_the_reference_for_random_sizes(
        size in [1..9usize, 1..12usize, 1..12usize],
        (inputs, intermediate, outputs) in (1..20usize, 1..20usize, 1..20usize),
        (spatial_tiles, temporal_tiles) in any::<(bool, bool)>(),
        (first, second) in (any_activation(), any_activation()),
    ) {
        for isa in instruction_sets() {
            let spatial = Layer::spatial(shape(1, size, inputs), intermediate, spatial_tiles, isa);
            let temporal = Layer::temporal(spatial.to, outputs, temporal_tiles, isa);
            let layers = vec![spatial.with_activation(first), temporal.with_activation(second)];
            check_fused(layers, 3.0 * WINOGRAD, &format!("{isa:?}"));
        }
    }

    #[test]
    fn depthwise_convolutions_match_the_reference_for_random_geometries(
        (g, size) in any_geometry([false, true, true]),
        depth in 1..3usize,
        channels in 1..80usize,
        activation in any_activation(),
    ) {
        for isa in instruction_sets() {
            let from = shape(1, [depth, size[1], size[2]], channels);
            check_fused(vec![Layer::depthwise(g, from, isa).with_activation(activation)], DIRECT, &format!("{isa:?}"));
        }
    }

    #[test]
    fn inverted_bottlenecks_match_the_reference_for_random_geometries(
        (g, size) in any_geometry([false, true, true]),
        (inputs, expanded, outputs) in (1..40usize, 1..80usize, 1..40usize),
        (has_expansion, has_projection) in any::<(bool, bool)>(),
        activations in [any_activation(), any_activation(), any_activation()],
    ) {
        for isa in instruction_sets() {
            let mut layers = Vec::new();
            let mut from = shape(2, size, inputs);
            if has_expansion {
                layers.push(Layer::dense(POINTWISE, from, expanded, isa).with_activation(activations[0]));
                from = from.with_channels(expanded);
            }
            layers.push(Layer::depthwise(g, from, isa).with_activation(activations[1]));
            if has_projection {
                let from = layers.last().unwrap().to;
                layers.push(Layer::dense(POINTWISE, from, outputs, isa).with_activation(activations[2]));
            }
            check_fused(layers, 3.0 * DIRECT, &format!("{isa:?}"));
        }
    }

    #[test]
    fn matrix_products_match_the_reference_for_random_sizes(
        (rows, inputs, outputs) in (1..70usize, 1..140usize, 1..8usize),
        activation in any_activation(),
    ) {
        let outputs = 16 * outputs;
        let (weight, input, bias) = (noise(inputs * outputs, 1), noise(rows * inputs, 2), noise(outputs, 3));
        let matrix = ArrayView3::from_shape((1, inputs, outputs), &weight).unwrap();
        let expected: Vec<f64> = (0..rows * outputs).map(|i| {
            let (row, o) = (i / outputs, i % outputs);
            let products = (0..inputs).map(|k| f64::from(input[row * inputs + k]) * f64::from(weight[k * outputs + o]));
            activate(f64::from(bias[o]) + products.sum::<f64>(), activation)
        }).collect();
        for isa in instruction_sets() {
            let packed = PackedWeights::concatenate(matrix, (inputs, outputs), isa.into());
            let mut output = vec![0.0; rows * outputs];
            packed.matmul(&input, &mut output, &bias, activation, &mut QuantizedRows::default());
            assert_within(&output, &expected, DIRECT, &format!("{isa:?}"));
        }
    }
}
