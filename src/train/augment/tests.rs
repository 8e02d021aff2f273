use proptest::prelude::*;

use super::*;
use crate::train::random::{Purpose, generator};
use crate::train::recipe::settings::{BlurSettings, CropSettings, JitterSettings};

/// The image of tests/goldens/augment.py.
fn image(height: usize, width: usize) -> Vec<u8> {
    let value = |y: usize, x: usize, c: usize| {
        if (x / 8 + y / 8).is_multiple_of(3) {
            let seed = (x * 73_856_093) ^ (y * 19_349_663) ^ (c * 83_492_791);
            return ((seed as u32).wrapping_mul(2_654_435_761) >> 24) as u8;
        }
        let smooth = (3 * x + 2 * y + 80 * c) % 512;
        smooth.min(511 - smooth) as u8
    };
    let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (y, x)));
    pixels.flat_map(|(y, x)| [0, 1, 2].map(|c| value(y, x, c))).collect()
}

fn input(size: [usize; 2], resize: Resize) -> InputSettings {
    InputSettings { size, resize, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] }
}

/// Resizes an image as the frame cache does.
fn resize(pixels: &[u8], [height, width]: [usize; 2], input: &InputSettings) -> Vec<u8> {
    let spec = InputSpec { color: Color::Bgr, ..input.spec(None) };
    let mut out = vec![0; 3 * input.size[0] * input.size[1]];
    Transform::new(&spec).write_bytes(BgrImage::new(height, width, pixels), &mut out);
    out
}

/// Augments an image and returns its bytes, which are recovered from the normalized planes.
fn augment(pixels: &[u8], size: [usize; 2], parameters: &Parameters) -> Vec<u8> {
    let settings = input(size, Resize::Size(size));
    let len = size[0] * size[1];
    let mut planes = vec![f32::NAN; 3 * len];
    Augmenter::new(&settings).write(&mut pixels.to_vec(), parameters, &mut planes, len);
    let value = |i: usize, c: usize| {
        let value = (f64::from(planes[c * len + i]) * settings.std[c] + settings.mean[c]) * 255.0;
        assert!((value - value.round()).abs() < 1e-3, "{value}");
        value.round() as u8
    };
    (0..len).flat_map(|i| [0, 1, 2].map(|c| value(i, c))).collect()
}

#[test]
fn transforms_match_torchvision() {
    let golden = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/train/augment.json"));
    let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
    let expected = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/train/augment.bin"));
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() > 40);
    for case in cases {
        let numbers = |key: &str| -> Vec<usize> { serde_json::from_value(case[key].clone()).unwrap() };
        let parameter = |i: usize| case["parameters"][i].as_f64().unwrap();
        let (size, shape) = (numbers("size"), numbers("shape"));
        let size = [size[0], size[1]];
        let pixels = image(size[0], size[1]);
        let adjusted = |adjustment| Parameters { adjustments: vec![adjustment], ..Parameters::default() };
        let factor = || parameter(0) as f32;
        let augmented = |parameters: Parameters| augment(&pixels, size, &parameters);
        let actual = match case["operation"].as_str().unwrap() {
            "rotate" => augmented(Parameters { rotation: factor(), ..Parameters::default() }),
            "flip" => augmented(Parameters { flip: true, ..Parameters::default() }),
            "crop" => {
                let [top, left, height, width] = [0, 1, 2, 3].map(|i| parameter(i) as usize);
                let crop = Some(CropArea { top, left, height, width });
                let direct = augmented(Parameters { crop, ..Parameters::default() });
                // Through bytes, if a change of color follows.
                let adjustments = vec![Adjustment::Brightness(1.0)];
                assert_eq!(augmented(Parameters { crop, adjustments, ..Parameters::default() }), direct);
                direct
            }
            "brightness" => augmented(adjusted(Adjustment::Brightness(factor()))),
            "contrast" => augmented(adjusted(Adjustment::Contrast(factor()))),
            "saturation" => augmented(adjusted(Adjustment::Saturation(factor()))),
            "hue" => augmented(adjusted(Adjustment::Hue(factor()))),
            "grayscale" => augmented(Parameters { grayscale: true, ..Parameters::default() }),
            "blur" => {
                let blur = Some((parameter(0) as usize, parameter(1) as f32));
                augmented(Parameters { blur, ..Parameters::default() })
            }
            "orient" => {
                let pixels = pixels.as_chunks::<3>().0;
                let mut out = vec![[0; 3]; pixels.len()];
                orient(pixels, size[0], parameter(0) as usize, &mut out);
                out.concat()
            }
            "resize" => {
                let target = [0, 1].map(|i| parameter(i) as usize);
                resize(&pixels, size, &input(target, Resize::Size(target)))
            }
            "short" => {
                let [short, crop] = [0, 1].map(|i| parameter(i) as usize);
                resize(&pixels, size, &input([crop; 2], Resize::Short(short)))
            }
            other => panic!("unknown operation {other}"),
        };
        let offset = case["offset"].as_u64().unwrap() as usize;
        let expected = &expected[offset..][..shape.iter().product()];
        assert_eq!(actual.len(), expected.len());
        let differences: Vec<u8> = actual.iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).collect();
        let most = differences.iter().max().unwrap();
        let share = differences.iter().filter(|d| **d > 0).count() as f64 / differences.len() as f64;
        println!("{case}: at most {most}, {:.2} % differ", 100.0 * share);
        assert!(*most <= 1, "{case}");
        assert!(share < 0.02, "{case}: {share}");
    }
}

#[test]
fn transforms_are_applied_in_the_documented_order() {
    let size = [24, 32];
    let pixels = image(24, 32);
    let crop = CropArea { top: 2, left: 3, height: 15, width: 20 };
    let only = |parameters: Parameters, pixels: &[u8]| augment(pixels, size, &parameters);
    let all = Parameters {
        rotation: 20.0,
        flip: true,
        crop: Some(crop),
        adjustments: vec![Adjustment::Contrast(1.5), Adjustment::Hue(0.2)],
        grayscale: true,
        blur: Some((5, 1.0)),
    };
    let mut expected = only(Parameters { rotation: 20.0, ..Parameters::default() }, &pixels);
    expected = only(Parameters { flip: true, ..Parameters::default() }, &expected);
    expected = only(Parameters { crop: Some(crop), ..Parameters::default() }, &expected);
    for adjustment in [Adjustment::Contrast(1.5), Adjustment::Hue(0.2)] {
        expected = only(Parameters { adjustments: vec![adjustment], ..Parameters::default() }, &expected);
    }
    expected = only(Parameters { grayscale: true, ..Parameters::default() }, &expected);
    expected = only(Parameters { blur: Some((5, 1.0)), ..Parameters::default() }, &expected);
    assert_eq!(augment(&pixels, size, &all), expected);
    assert_eq!(augment(&pixels, size, &Parameters::default()), pixels);
    assert_eq!(all.clone().upright(), Parameters { rotation: 0.0, flip: false, ..all });
}

#[test]
fn planes_of_a_window_are_written_with_a_stride() {
    let (settings, pixels) = (input([4, 6], Resize::Size([4, 6])), image(4, 6));
    let mut augmenter = Augmenter::new(&settings);
    let mut single = vec![0.0; 3 * 24];
    augmenter.write(&mut pixels.clone(), &Parameters::default(), &mut single, 24);
    for crop in [None, Some(CropArea { top: 0, left: 0, height: 3, width: 3 })] {
        let parameters = Parameters { crop, ..Parameters::default() };
        augmenter.write(&mut pixels.clone(), &parameters, &mut single, 24);
        // The second of three frames.
        let mut clip = vec![7.0; 3 * 3 * 24];
        augmenter.write(&mut pixels.clone(), &parameters, &mut clip[24..], 3 * 24);
        for (channel, plane) in single.chunks_exact(24).enumerate() {
            let frames: Vec<&[f32]> = clip[channel * 3 * 24..][..3 * 24].chunks_exact(24).collect();
            assert_eq!(frames[1], plane);
            assert!(frames[0].iter().chain(frames[2]).all(|value| *value == 7.0));
        }
    }
}

fn everything() -> AugmentSettings {
    AugmentSettings {
        rotation: 15.0,
        flip: 0.5,
        crop: Some(CropSettings { scale: [0.08, 1.0], ratio: [0.75, 4.0 / 3.0] }),
        jitter: Some(JitterSettings { probability: 0.8, brightness: 0.8, contrast: 1.8, saturation: 0.8, hue: 0.2 }),
        grayscale: 0.2,
        blur: Some(BlurSettings { probability: 0.5, kernel: 5, sigma: [0.1, 2.0] }),
        mixup: 0.0,
    }
}

#[test]
fn parameters_have_the_distribution_of_the_settings() {
    let n = 4000;
    let draws: Vec<Parameters> = (0..n)
        .map(|clip| Parameters::draw(&everything(), [32, 48], &mut generator(1, Purpose::Augmentation, &[0, clip])))
        .collect();
    let share = |hit: &dyn Fn(&Parameters) -> bool| draws.iter().filter(|p| hit(p)).count() as f64 / n as f64;
    // Tolerance of about five standard errors.
    for (actual, expected) in [
        (share(&|p| p.flip), 0.5),
        (share(&|p| p.grayscale), 0.2),
        (share(&|p| p.blur.is_some()), 0.5),
        (share(&|p| !p.adjustments.is_empty()), 0.8),
        (share(&|p| p.rotation > 0.0), 0.5),
        (share(&|p| matches!(p.adjustments.first(), Some(Adjustment::Hue(_)))), 0.2),
    ] {
        assert!((actual - expected).abs() < 0.04, "{actual}, not {expected}");
    }
    assert!(draws.iter().all(|p| p.rotation.abs() <= 15.0));
    for adjustment in draws.iter().flat_map(|p| &p.adjustments) {
        let valid = match *adjustment {
            Adjustment::Brightness(f) | Adjustment::Saturation(f) => (0.2..=1.8).contains(&f),
            Adjustment::Contrast(f) => (0.0..=2.8).contains(&f),
            Adjustment::Hue(shift) => shift.abs() <= 0.2,
        };
        assert!(valid, "{adjustment:?}");
    }
    assert_eq!(
        Parameters::draw(&AugmentSettings::default(), [3, 4], &mut generator(1, Purpose::Order, &[])),
        Parameters::default()
    );
}

proptest! {
    #[test]
    fn crops_lie_in_the_image(
        height in 1usize..300, width in 1usize..300, low in 0.01f64..1.0, ratio in 0.05f64..1.0, seed in any::<u64>(),
    ) {
        let settings = CropSettings { scale: [low, 1.0], ratio: [ratio, 1.0 / ratio] };
        let crop = CropArea::draw(&settings, [height, width], &mut generator(seed, Purpose::Augmentation, &[]));
        prop_assert!(crop.height >= 1 && crop.top + crop.height <= height);
        prop_assert!(crop.width >= 1 && crop.left + crop.width <= width);
    }

    #[test]
    fn any_parameters_apply_to_any_size(height in 3usize..40, width in 3usize..40, seed in any::<u64>()) {
        let parameters = Parameters::draw(&everything(), [height, width], &mut generator(seed, Purpose::Augmentation, &[]));
        let pixels = image(height, width);
        prop_assert_eq!(augment(&pixels, [height, width], &parameters).len(), pixels.len());
    }

    #[test]
    fn orientations_form_the_group_of_rotations_and_flips(side in 1usize..12) {
        let plane: Vec<usize> = (0..side * side).collect();
        let apply = |plane: &[usize], label| {
            let mut out = vec![0; plane.len()];
            orient(plane, side, label, &mut out);
            out
        };
        let twice = |label| apply(&apply(&plane, label), label);
        prop_assert_eq!(&twice(4), &plane);
        prop_assert_eq!(&twice(5), &plane);
        prop_assert_eq!(&apply(&apply(&plane, 1), 3), &plane);
        prop_assert_eq!(&twice(1), &apply(&plane, 2));
        prop_assert_eq!(&apply(&apply(&plane, 4), 5), &apply(&plane, 2));
    }
}
