//! Activations and normalization.

use proptest::prelude::*;
use pulp::{Simd, WithSimd};

use super::super::activation::{Activation, AddActivate, ApplyActivation, exp_nonpositive};
use super::super::normalization::{ChannelAffine, LayerNorm};
use super::*;

/// Normalizes each position of `values` in f64.
fn reference_layer_norm(layer: &LayerNorm, values: &[f32], channels: usize) -> Vec<f64> {
    let stride = layer.weight.len();
    let mut expected = Vec::with_capacity(values.len());
    for position in values.chunks_exact(stride) {
        let x = to_f64(&position[..channels]);
        let mean = x.iter().sum::<f64>() / channels as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / channels as f64;
        let normalized = x.iter().map(|x| (x - mean) / (variance + f64::from(layer.epsilon)).sqrt());
        let parameters = layer.weight.iter().zip(&layer.bias);
        expected.extend(normalized.zip(parameters).map(|(x, (w, b))| x * f64::from(*w) + f64::from(*b)));
        expected.extend(std::iter::repeat_n(0.0, stride - channels));
    }
    expected
}

#[test]
fn activations_match_their_formulas() {
    let values: Vec<f32> = noise(1600, 9).into_iter().map(|x| 6.0 * x).collect();
    for (isa, activation) in instruction_sets().into_iter().flat_map(|isa| ACTIVATIONS.map(move |a| (isa, a))) {
        let mut found = values.clone();
        isa.dispatch(ApplyActivation { values: &mut found, activation });
        let expected: Vec<f64> = values.iter().map(|&x| activate(f64::from(x), activation)).collect();
        assert_close(&found, &expected, 1e-6, &format!("{activation:?}, {isa:?}"));
    }
}

#[test]
fn exponentials_match_the_reference() {
    struct Exp<'a>(&'a mut [f32]);
    impl WithSimd for Exp<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            S::as_mut_simd_f32s(self.0).0.iter_mut().for_each(|x| *x = exp_nonpositive(simd, *x));
        }
    }
    let values: Vec<f32> = (0..160_000).map(|i| i as f32 * -87.0 / 160_000.0).collect();
    for isa in instruction_sets() {
        let mut found = values.clone();
        isa.dispatch(Exp(&mut found));
        for (x, found) in values.iter().zip(&found) {
            assert!((f64::from(*found) / f64::from(*x).exp() - 1.0).abs() < 3e-7, "exp({x}) = {found}, {isa:?}");
        }
        // Smaller arguments are clamped.
        let mut extreme = [0.0, -87.0, -1e9, f32::NEG_INFINITY, f32::NAN, -0.0, -88.0, -1e38].repeat(2);
        isa.dispatch(Exp(&mut extreme));
        assert_eq!((extreme[0], extreme[5]), (1.0, 1.0), "{isa:?}");
        assert!([2, 3, 6, 7].into_iter().all(|i| extreme[i] == extreme[1] && extreme[1] < 2e-38), "{isa:?}");
        assert!(extreme[4].is_nan(), "{isa:?}");
    }
}

#[test]
fn layer_norm_is_accurate_far_from_zero() {
    let from = shape(3, [1, 4, 5], 37);
    // E[x²] − E[x]² would lose the variance.
    let mut values = random_activation(from, 2);
    values.chunks_exact_mut(from.channel_stride).for_each(|p| p[..37].iter_mut().for_each(|x| *x += 5.0));
    let layer = LayerNorm { weight: random_channels(37, 3), bias: random_channels(37, 4), epsilon: 1e-6 };
    let expected = reference_layer_norm(&layer, &values, 37);
    for isa in instruction_sets() {
        let mut found = values.clone();
        layer.run(isa, &mut found, 37);
        assert_close(&found, &expected, 1e-5, &format!("{isa:?}"));
    }
}

#[test]
fn layer_norm_is_accurate_with_any_share_of_padding() {
    for channels in 1..=33 {
        let from = shape(2, [1, 2, 3], channels);
        let mut values = random_activation(from, 4);
        values.chunks_exact_mut(from.channel_stride).for_each(|p| p[..channels].iter_mut().for_each(|x| *x += 3.0));
        let (weight, bias) = (random_channels(channels, 3), random_channels(channels, 4));
        let layer = LayerNorm { weight, bias, epsilon: 1e-3 };
        let expected = reference_layer_norm(&layer, &values, channels);
        for isa in instruction_sets() {
            let mut found = values.clone();
            layer.run(isa, &mut found, channels);
            // The rounding error of the mean (4 · 2⁻²⁴) is divided by a standard deviation of at least √epsilon.
            assert_within(&found, &expected, 2e-5, &format!("{channels} channels, {isa:?}"));
        }
    }
}

#[test]
fn nan_propagates_through_activations() {
    for (isa, activation) in instruction_sets().into_iter().flat_map(|isa| ACTIVATIONS.map(move |a| (isa, a))) {
        let check = |values: &[f32]| {
            let is_nan: Vec<_> = values.iter().map(|x| x.is_nan()).collect();
            let expected: Vec<_> = (0..values.len()).map(|i| i == 21).collect();
            assert_eq!(is_nan, expected, "{activation:?}, {isa:?}");
        };
        let mut input = noise(48, 1);
        input[21] = f32::NAN;

        let mut values = input.clone();
        isa.dispatch(ApplyActivation { values: &mut values, activation });
        check(&values);

        let mut values = input.clone();
        isa.dispatch(AddActivate { sum: &mut values, other: &noise(48, 2), activation });
        check(&values);

        let mut values = noise(48, 2);
        isa.dispatch(AddActivate { sum: &mut values, other: &input, activation });
        check(&values);

        let mut values = input.clone();
        ChannelAffine { scale: noise(16, 3), offset: noise(16, 4) }.run(isa, &mut values, activation);
        check(&values);
    }
}

#[test]
fn nan_propagates_through_layer_norm() {
    let from = shape(2, [1, 1, 2], 20);
    let mut input = random_activation(from, 1);
    input[32 + 5] = f32::NAN;
    let layer = LayerNorm { weight: random_channels(20, 3), bias: random_channels(20, 4), epsilon: 1e-6 };
    for isa in instruction_sets() {
        let mut values = input.clone();
        layer.run(isa, &mut values, 20);
        for (i, position) in values.chunks_exact(32).enumerate() {
            assert!(position[..20].iter().all(|x| x.is_nan() == (i == 1)), "{isa:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn elementwise_layers_match_the_reference_for_random_sizes(
        size in [1..4usize, 1..5usize, 1..5usize],
        channels in 1..70usize,
        activation in prop::sample::select(&ACTIVATIONS[..]),
    ) {
        let from = shape(2, size, channels);
        let (input, other) = (random_activation(from, 1), random_activation(from, 2));
        let (scale, offset) = (random_channels(channels, 3), random_channels(channels, 4));
        let per_channel = |i: usize| (f64::from(scale[i % scale.len()]), f64::from(offset[i % scale.len()]));
        let affine: Vec<f64> = input.iter().enumerate().map(|(i, &x)| {
            let (scale, offset) = per_channel(i);
            activate(f64::from(x) * scale + offset, activation)
        }).collect();
        let sum: Vec<f64> =
            input.iter().zip(&other).map(|(&x, &y)| activate(f64::from(x) + f64::from(y), activation)).collect();
        let norm = LayerNorm { weight: scale.clone(), bias: offset.clone(), epsilon: 1e-3 };
        let normalized = reference_layer_norm(&norm, &input, channels);
        for isa in instruction_sets() {
            let mut found = input.clone();
            ChannelAffine { scale: scale.clone(), offset: offset.clone() }.run(isa, &mut found, activation);
            assert_within(&found, &affine, 1e-6, &format!("affine, {isa:?}"));

            let mut found = input.clone();
            isa.dispatch(AddActivate { sum: &mut found, other: &other, activation });
            assert_within(&found, &sum, 1e-6, &format!("add, {isa:?}"));

            let mut found = input.clone();
            norm.run(isa, &mut found, channels);
            assert_within(&found, &normalized, 2e-5, &format!("layer norm, {isa:?}"));
        }
    }

    #[test]
    fn activations_clamp_infinities(activation in prop::sample::select(&[Activation::Relu, Activation::Relu6][..])) {
        for isa in instruction_sets() {
            let mut values = [f32::INFINITY, f32::NEG_INFINITY].repeat(8);
            isa.dispatch(ApplyActivation { values: &mut values, activation });
            let high = if activation == Activation::Relu6 { 6.0 } else { f32::INFINITY };
            prop_assert_eq!(values, [high, 0.0].repeat(8));
        }
    }
}
