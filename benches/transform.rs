//! Benchmark of the image transform: milliseconds per frame on one thread. Run it with `cargo bench --bench transform`.

use std::path::Path;
use std::time::Instant;

use kinoprobe::media::{BgrImage, Transform};
use kinoprobe::models::card::Card;

fn main() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    for (height, width) in [(240, 320), (720, 1280)] {
        let image: Vec<u8> =
            (0..3 * height * width).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        for card in ["convnext_base", "r2plus1d_18", "efficientnet_lite2"] {
            let input = Card::load(&models, card).expect("the repository contains this card").input;
            let plane: usize = input.size.iter().product();
            let mut transform = Transform::new(&input);
            let mut out = vec![0; 3 * plane];
            let round = |transform: &mut Transform, out: &mut [u8]| {
                let start = Instant::now();
                for _ in 0..50 {
                    transform.write_planes(BgrImage::new(height, width, &image), out, plane);
                }
                start.elapsed().as_secs_f64() * 1e3 / 50.0
            };
            let best = (0..9).map(|_| round(&mut transform, &mut out)).fold(f64::INFINITY, f64::min);
            println!("{card:20} {width}x{height} -> {}x{}: {best:.3} ms per frame", input.size[1], input.size[0]);
        }
    }
}
