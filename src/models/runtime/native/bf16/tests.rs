use half::bf16;
use ndarray::ArrayView3;

use super::super::packed::{PackedWeights, Target};
use super::super::tests::{ACTIVATIONS, activate, instruction_sets, noise};
use super::*;

#[test]
fn values_are_rounded_like_the_half_crate_rounds_them() {
    let special = [0.0, -0.0, 1.0, f32::MAX, f32::MIN_POSITIVE, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN];
    let ties = (0..8u32).map(|i| f32::from_bits(0x3f80_0000 + (i << 13)));
    let patterns = (0..1 << 16).map(|i: u32| f32::from_bits(i.wrapping_mul(0x9e37_79b9)));
    for value in special.into_iter().chain(ties).chain(patterns) {
        let (found, expected) = (round(value), bf16::from_f32(value).to_f32());
        assert!(found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()), "{value}");
    }
}

#[test]
fn available_kernels_are_correct() {
    assert!(Kernel::Portable.is_correct());
    for kernel in instruction_sets().into_iter().flat_map(Kernel::candidates) {
        if kernel.is_available() {
            assert!(kernel.is_correct(), "{kernel:?}");
        } else {
            eprintln!("{kernel:?} is not available here");
        }
    }
}

/// The product of rounded values in f64.
fn reference((rows, inputs, outputs): (usize, usize, usize), input: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f64> {
    let round = |value: f32| bf16::from_f32(value).to_f64();
    let element = |row: usize, output: usize| -> f64 {
        let products = (0..inputs).map(|i| round(input[row * inputs + i]) * round(weight[i * outputs + output]));
        products.sum::<f64>() + f64::from(bias[output])
    };
    (0..rows * outputs).map(|index| element(index / outputs, index % outputs)).collect()
}

#[test]
fn products_equal_those_of_the_rounded_values() {
    for (rows, inputs, outputs) in [(1, 16, 16), (3, 27, 16), (2, 48, 32), (19, 80, 48), (37, 112, 16), (210, 576, 80)]
    {
        let (input, bias) = (noise(rows * inputs, 1), noise(outputs, 2));
        let weight = noise(inputs * outputs, 3);
        let view = ArrayView3::from_shape((1, inputs, outputs), &weight).unwrap();
        let expected = reference((rows, inputs, outputs), &input, &weight, &bias);
        for isa in instruction_sets() {
            let packed = PackedWeights::concatenate(view, (inputs, outputs), Target { isa, bf16: true });
            for activation in ACTIVATIONS {
                let mut output = vec![0.0; rows * outputs];
                packed.matmul(&input, &mut output, &bias, activation, &mut Default::default());
                for (found, expected) in output.iter().zip(&expected) {
                    let error = (f64::from(*found) - activate(*expected, activation)).abs();
                    assert!(error < 1e-4, "{} {rows} {inputs} {outputs} {activation:?}: {error}", isa.name());
                }
            }
        }
    }
}

#[test]
fn several_matrices_are_multiplied_one_by_one() {
    let (rows, inputs, outputs) = (5, 32, 48);
    let (input, weight) = (noise(2 * rows * inputs, 1), noise(inputs * outputs, 3));
    let view = ArrayView3::from_shape((1, inputs, outputs), &weight).unwrap();
    let doubled: Vec<f32> = weight.iter().map(|value| 2.0 * value).collect();
    let zeros = vec![0.0; outputs];
    for isa in instruction_sets() {
        let packed = PackedWeights::combine(view, (inputs, outputs), &[[1.0], [2.0]], Target { isa, bf16: true });
        let mut output = vec![0.0; 2 * rows * outputs];
        packed.batched_matmul(rows, &input, &mut output, &zeros, &mut Default::default());
        let parts = input.chunks(rows * inputs).zip(output.chunks(rows * outputs)).zip([&weight, &doubled]);
        for ((input, output), weight) in parts {
            let expected = reference((rows, inputs, outputs), input, weight, &zeros);
            let close =
                output.iter().zip(&expected).all(|(found, expected)| (f64::from(*found) - expected).abs() < 1e-4);
            assert!(close, "{}", isa.name());
        }
    }
}

#[test]
fn nan_stays_in_its_row() {
    let (inputs, outputs) = (48, 16);
    let weight = noise(inputs * outputs, 1);
    let view = ArrayView3::from_shape((1, inputs, outputs), &weight).unwrap();
    let mut input = noise(3 * inputs, 2);
    input[inputs + 7] = f32::NAN;
    for isa in instruction_sets() {
        let packed = PackedWeights::concatenate(view, (inputs, outputs), Target { isa, bf16: true });
        let mut output = vec![0.0; 3 * outputs];
        packed.matmul(&input, &mut output, &vec![0.0; outputs], Activation::Relu6, &mut Default::default());
        let nan: Vec<bool> = output.chunks(outputs).map(|row| row.iter().all(|value| value.is_nan())).collect();
        assert_eq!(nan, [false, true, false], "{}", isa.name());
    }
}
