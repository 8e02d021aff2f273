//! Comparison of the transform with torchvision's presets.

use std::path::Path;

use kinoprobe::media::{BgrImage, Transform};
use kinoprobe::models::card::Card;

/// The image of tests/goldens/transform.py as blue, green, red.
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
    pixels.flat_map(|(y, x)| [2, 1, 0].map(|c| value(y, x, c))).collect()
}

#[test]
fn transformed_images_match_torchvision() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let golden = std::fs::read_to_string(root.join("fixtures/media/transform.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_str(&golden).unwrap();
    let pixels = std::fs::read(root.join("fixtures/media/transform.bin")).unwrap();
    for case in golden["cases"].as_array().unwrap() {
        let number = |key: &str| case[key].as_u64().unwrap() as usize;
        let (card, height, width) = (case["card"].as_str().unwrap(), number("height"), number("width"));
        let input = Card::load(&root.join("models"), card).unwrap().input;
        let [rows, columns] = input.size;
        let mut out = vec![f32::NAN; 3 * rows * columns];
        Transform::new(&input).write(BgrImage::new(height, width, &image(height, width)), &mut out, rows * columns);

        let shape: Vec<usize> = serde_json::from_value(case["shape"].clone()).unwrap();
        let expected = &pixels[number("offset")..][..shape.iter().product()];
        let mut different = 0;
        for (i, expected) in expected.iter().enumerate() {
            let (c, y, x) = (i / (shape[1] * shape[2]), i / shape[2] % shape[1] * 5, i % shape[2] * 5);
            let value = f64::from(out[(c * rows + y) * columns + x]);
            let value = (value * input.std[c] + input.mean[c]) * input.scale;
            let step = (value - f64::from(*expected)).abs();
            assert!(step < 1.001, "{card} {height}x{width}: channel {c}, row {y}, column {x}: {value}, not {expected}");
            different += usize::from(step > 0.001);
        }
        println!("{card} {height}x{width}: {different} of {} values differ", expected.len());
        assert!(different * 1000 <= expected.len(), "{card} {height}x{width}: {different} of {}", expected.len());

        // Floats are equal if the eight-bit values are.
        let row: Vec<f32> = serde_json::from_value(case["row"].clone()).unwrap();
        let actual = &out[(rows + 30) * columns..][..row.len()];
        let step = (1.001 / (input.scale * input.std[1])) as f32;
        assert!(actual.iter().zip(&row).all(|(a, b)| (a - b).abs() <= step), "{card}: {actual:?}, not {row:?}");
        assert!(
            actual.iter().zip(&row).filter(|(a, b)| a == b).count() >= row.len() - 1,
            "{card}: {actual:?}, not {row:?}"
        );
    }
}

#[test]
fn bytes_are_the_values_before_normalization() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for card in ["convnext_base", "r2plus1d_18", "clip_vit_b32", "efficientnet_lite2"] {
        let input = Card::load(&root.join("models"), card).unwrap().input;
        let [rows, columns] = input.size;
        let (plane, table) = (rows * columns, input.normalization().table());
        for (height, width) in [(240, 320), (300, 2), (5, 7)] {
            let pixels = image(height, width);
            let (mut floats, mut planes, mut bytes) =
                (vec![f32::NAN; 3 * plane], vec![0; 3 * plane], vec![0; 3 * plane]);
            let mut transform = Transform::new(&input);
            transform.write(BgrImage::new(height, width, &pixels), &mut floats, plane);
            transform.write_planes(BgrImage::new(height, width, &pixels), &mut planes, plane);
            transform.write_bytes(BgrImage::new(height, width, &pixels), &mut bytes);
            let normalize = |value: u8, c: usize| {
                (f32::from(value) / input.scale as f32 - input.mean[c] as f32) / input.std[c] as f32
            };
            for (i, &value) in bytes.iter().enumerate() {
                let (channel, position) = (i % 3, i / 3);
                let float = floats[channel * plane + position];
                assert_eq!(float, normalize(value, channel), "{card} {height}x{width}: {i}");
                assert_eq!(float, table[channel][usize::from(planes[channel * plane + position])]);
            }
        }
    }
}
