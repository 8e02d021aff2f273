//! Attention, class token and position embedding.

use proptest::prelude::*;

use super::super::attention::Attention;
use super::super::tokens::{TokenEmbedding, first_token};
use super::*;

fn sequence(batch: usize, tokens: usize, channels: usize) -> TensorShape {
    shape(batch, [1, 1, tokens], channels)
}

/// Runs an attention; the previous content of the output must not matter.
fn run_attention(isa: Isa, from: TensorShape, heads: usize, scale: f32, qkv: &[Vec<f32>; 3]) -> Vec<f32> {
    let layer = Attention::new(from.width, heads, from.channels / heads, scale);
    run_with_workers(&vec![f32::NAN; from.len()], |output, workers| {
        layer.run(isa, from, qkv.each_ref().map(Vec::as_slice), output, workers);
    })
}

/// Computes softmax(scale · q·kᵀ)·v per head in f64.
fn reference_attention(from: TensorShape, heads: usize, scale: f32, qkv: &[Vec<f32>; 3]) -> Vec<f64> {
    let [q, k, v] = qkv.each_ref().map(|x| to_f64(x));
    let (head_channels, stride) = (from.channels / heads, from.channel_stride);
    let mut output = vec![0.0; from.len()];
    for (position, head) in (0..from.positions()).flat_map(|p| (0..heads).map(move |head| (p, head))) {
        let item = position / from.width * from.width;
        let channels = |position: usize| position * stride + head * head_channels..;
        let dot = |token: usize| -> f64 {
            let pairs = q[channels(position)].iter().zip(&k[channels(item + token)]).take(head_channels);
            pairs.map(|(q, k)| q * k).sum::<f64>() * f64::from(scale)
        };
        let scores: Vec<f64> = (0..from.width).map(dot).collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
        let sum: f64 = weights.iter().sum();
        for (token, weight) in weights.iter().enumerate() {
            let values = &v[channels(item + token)];
            for (x, value) in output[channels(position)].iter_mut().zip(values).take(head_channels) {
                *x += weight / sum * value;
            }
        }
    }
    output
}

fn random_qkv(from: TensorShape) -> [Vec<f32>; 3] {
    [1, 2, 3].map(|seed| random_activation(from, seed))
}

#[test]
fn attention_of_the_shipped_network_matches_the_reference() {
    let from = sequence(2, 50, 768);
    let qkv = random_qkv(from);
    let expected = reference_attention(from, 12, 0.125, &qkv);
    for isa in instruction_sets() {
        let found = run_attention(isa, from, 12, 0.125, &qkv);
        assert_within(&found, &expected, 1e-6, &format!("{isa:?}"));
    }
}

#[test]
fn long_sequences_match_the_reference() {
    // More than one block of queries, of the minimum size.
    let from = sequence(1, 1030, 16);
    let qkv = random_qkv(from);
    let expected = reference_attention(from, 1, 1.0, &qkv);
    for isa in instruction_sets() {
        let found = run_attention(isa, from, 1, 1.0, &qkv);
        assert_within(&found, &expected, 1e-6, &format!("{isa:?}"));
    }
}

#[test]
fn softmax_of_large_scores_is_finite() {
    let from = sequence(1, 20, 32);
    let mut qkv = random_qkv(from);
    qkv[..2].iter_mut().for_each(|x| x.iter_mut().for_each(|x| *x *= 1000.0));
    let expected = reference_attention(from, 2, 1.0, &qkv);
    for isa in instruction_sets() {
        // Scores of about 1e6 are rounded to 0.1.
        let found = run_attention(isa, from, 2, 1.0, &qkv);
        assert!(found.iter().all(|x| x.is_finite()), "{isa:?}");
        let winners = found.iter().zip(&expected).filter(|(x, y)| (f64::from(**x) - **y).abs() < 1e-3).count();
        assert!(winners > found.len() * 9 / 10, "{isa:?}");
    }
}

#[test]
fn nan_propagates_through_attention() {
    let from = sequence(2, 21, 40);
    // The second token of the second item, in the second of two heads.
    let (position, channel) = (22, 25);
    for (isa, operand) in instruction_sets().into_iter().flat_map(|isa| (0..3).map(move |i| (isa, i))) {
        let mut qkv = random_qkv(from);
        qkv[operand][position * from.channel_stride + channel] = f32::NAN;
        let found = run_attention(isa, from, 2, 0.2, &qkv);
        for (i, x) in found.iter().enumerate() {
            let (p, c) = (i / from.channel_stride, i % from.channel_stride);
            let (same_item, same_head) = (p >= 21, (20..40).contains(&c));
            let expected = match operand {
                0 => p == position && same_head,
                1 => same_item && same_head,
                _ => same_item && c == channel,
            };
            assert_eq!(x.is_nan(), expected, "operand {operand}, position {p}, channel {c}, {isa:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn attention_matches_the_reference_for_random_sizes(
        batch in 1..3usize,
        tokens in 1..90usize,
        heads in 1..4usize,
        head_channels in 1..70usize,
        scale in 0.05..2.0f32,
    ) {
        let from = sequence(batch, tokens, heads * head_channels);
        let qkv = random_qkv(from);
        let expected = reference_attention(from, heads, scale, &qkv);
        for isa in instruction_sets() {
            let found = run_attention(isa, from, heads, scale, &qkv);
            assert_within(&found, &expected, 2e-5, &format!("{isa:?}"));
        }
    }

    #[test]
    fn token_embedding_prepends_a_token(batch in 1..3usize, tokens in 2..10usize, channels in 1..40usize) {
        let (from, to) = (sequence(batch, tokens - 1, channels), sequence(batch, tokens, channels));
        let (input, table) = (random_activation(from, 1), random_activation(sequence(1, tokens, channels), 2));
        let mut found = vec![f32::NAN; to.len()];
        TokenEmbedding { table: table.clone() }.run(from, &input, &mut found);
        for (i, &x) in found.iter().enumerate() {
            let (item, offset) = (i / table.len(), i % table.len());
            let token = offset.checked_sub(to.channel_stride).map(|offset| input[item * (from.len() / batch) + offset]);
            prop_assert_eq!(x, table[offset] + token.unwrap_or(0.0));
        }
        let mut first = vec![f32::NAN; batch * to.channel_stride];
        first_token(to, &found, &mut first);
        for item in first.chunks(to.channel_stride) {
            prop_assert_eq!(item, &table[..to.channel_stride]);
        }
    }
}
