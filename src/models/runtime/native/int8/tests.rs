use super::*;

/// Returns pseudo-random values in −1..1.
fn random(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn available_kernels_equal_the_portable_one() {
    for isa in Isa::available() {
        for kernel in Kernel::candidates(isa) {
            if kernel.is_available() {
                assert!(kernel.is_correct(), "{kernel:?}");
            } else {
                eprintln!("{kernel:?} is not available here");
            }
        }
    }
}

#[test]
fn sums_of_the_largest_products_do_not_saturate() {
    for isa in Isa::available() {
        let kernel = Kernel::of(isa);
        for weight in [MAX_WEIGHT, -MAX_WEIGHT] {
            let (rows, panels) = (vec![255; 7 * 1024], vec![weight; 1024 * PANEL]);
            let mut output = vec![0.0; 7 * PANEL];
            let (offsets, scales, bias) = (&[0; PANEL], &[1.0; PANEL], &[0.0; PANEL]);
            let bounds = (f32::NEG_INFINITY, f32::INFINITY);
            let operands = Product {
                rows: &rows,
                inputs: 1024,
                panels: &panels,
                offsets,
                scales,
                bias,
                bounds,
                output: &mut output,
            };
            kernel.multiply(operands);
            assert!(output.iter().all(|&sum| sum == (1024 * 255 * i32::from(weight)) as f32), "{kernel:?}");
        }
    }
}

/// The product of the dequantized operands in f64.
fn expected(
    matrix: (usize, usize, usize),
    weight: &[i8],
    scales: &[f32],
    input: InputQuantization,
    values: &[f32],
    bias: &[f32],
) -> Vec<f64> {
    let (inputs, stride, outputs) = matrix;
    let dequantized = |value: f32| {
        let q = (f64::from(value) / f64::from(input.scale)).round_ties_even() + f64::from(input.zero_point);
        f64::from(input.scale) * (q.clamp(0.0, 255.0) - f64::from(input.zero_point))
    };
    let rows = values.chunks_exact(stride);
    rows.flat_map(|row| {
        (0..outputs).map(move |output| {
            let sum: f64 = (0..inputs).map(|i| dequantized(row[i]) * f64::from(weight[i * outputs + output])).sum();
            sum * f64::from(scales[output]) + f64::from(bias[output])
        })
    })
    .collect()
}

#[test]
fn products_equal_those_of_dequantized_operands() {
    for isa in Isa::available() {
        for (rows, channels, outputs, zero_point) in
            [(1, 16_usize, 16_usize, 0), (50, 24, 40, 131), (7, 3, 9, 255), (131, 96, 144, 17)]
        {
            let (padded_in, padded_out) =
                (if channels == 3 { 3 } else { channels.next_multiple_of(16) }, outputs.next_multiple_of(16));
            let weight: Vec<i8> = random(channels * outputs, 1).iter().map(|x| (x * 64.4).round() as i8).collect();
            let scales: Vec<f32> = random(outputs, 2).iter().map(|x| x.abs() / 30.0).collect();
            let input = InputQuantization { scale: 0.011, zero_point };
            let values: Vec<f32> = random(rows * padded_in, 3).iter().map(|x| 2.5 * x).collect();
            let bias = random(padded_out, 4);
            let view = ArrayView3::from_shape((1, channels, outputs), &weight).unwrap();
            let matrix = QuantizedMatrix::new(view, (padded_in, padded_out), &scales, input, isa).unwrap();
            let expected = expected((channels, padded_in, outputs), &weight, &scales, input, &values, &bias);
            for (activation, (low, high)) in [
                (Activation::None, (f64::NEG_INFINITY, f64::INFINITY)),
                (Activation::Relu, (0.0, f64::INFINITY)),
                (Activation::Relu6, (0.0, 6.0)),
            ] {
                let mut output = vec![f32::NAN; rows * padded_out];
                matrix.matmul(&values, &mut output, &bias, activation, &mut AlignedBuffer::default());
                for (row, expected) in output.chunks_exact(padded_out).zip(expected.chunks_exact(outputs)) {
                    for (value, expected) in row.iter().zip(expected) {
                        let expected = expected.clamp(low, high);
                        assert!((f64::from(*value) - expected).abs() < 1e-4, "{isa:?}: {value} instead of {expected}");
                    }
                }
            }
        }
    }
}

#[test]
fn every_instruction_set_returns_the_same_bits() {
    let (rows, channels, outputs) = (67, 80, 112);
    let weight: Vec<i8> = random(channels * outputs, 1).iter().map(|x| (x * 64.4).round() as i8).collect();
    let (scales, values, bias) = (random(outputs, 2), random(rows * channels, 3), random(outputs, 4));
    let run = |isa: Isa| {
        let view = ArrayView3::from_shape((1, channels, outputs), &weight).unwrap();
        let input = InputQuantization { scale: 0.0071, zero_point: 120 };
        let matrix = QuantizedMatrix::new(view, (channels, outputs), &scales, input, isa).unwrap();
        let mut output = vec![0.0; rows * outputs];
        matrix.matmul(&values, &mut output, &bias, Activation::Relu6, &mut AlignedBuffer::default());
        output.iter().map(|value| value.to_bits()).collect::<Vec<_>>()
    };
    let portable = run(Isa::Scalar);
    for isa in Isa::available() {
        assert_eq!(run(isa), portable, "{isa:?}");
    }
}

#[test]
fn nan_propagates_to_its_row() {
    for isa in Isa::available() {
        for (padded, nan) in [(48, 3), (48, 40), (16, 15)] {
            let weight = vec![1i8; 16 * 16];
            let view = ArrayView3::from_shape((1, 16, 16), &weight).unwrap();
            let input = InputQuantization { scale: 0.1, zero_point: 128 };
            let matrix = QuantizedMatrix::new(view, (padded, 16), &[1.0; 16], input, isa).unwrap();
            let mut values = vec![1.0; 3 * padded];
            values[padded + nan] = f32::NAN;
            let mut output = vec![0.0; 3 * 16];
            matrix.matmul(&values, &mut output, &[0.0; 16], Activation::Relu, &mut AlignedBuffer::default());
            let is_nan: Vec<bool> = output.chunks(16).map(|row| row.iter().all(|value| value.is_nan())).collect();
            // NaN in a padding channel is ignored.
            assert_eq!(is_nan, [false, nan < 16, false], "{isa:?} {padded} {nan}");
            assert!(output[..16].iter().all(|value| (value - 1.6 * 10.0).abs() < 1e-4), "{output:?}");
        }
    }
}
