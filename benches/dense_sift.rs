//! Benchmark of dense SIFT for `benches/bench.py`: computes the descriptors of the images of a directory, one image per thread, and
//! prints one line of JSON. Without RootSIFT, so that they equal those of OpenCV.
//!
//! `dense_sift DIRECTORY --threads 2 --out FILE [--step 8] [--bin-widths 4,6,8,10]`

mod common;

use std::time::Instant;

use anyhow::Context;
use clap::Parser;
use kinoprobe::extract::DenseSiftSettings;
use kinoprobe::extract::dense_sift::DenseSift;
use kinoprobe::extract::descriptors::Describer as _;
use kinoprobe::media::BgrImage;
use rayon::prelude::*;

#[derive(Parser)]
struct Arguments {
    /// Directory of images.
    directory: std::path::PathBuf,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// File for the descriptors: bytes, in the order of the images' names.
    #[arg(long)]
    out: std::path::PathBuf,
    #[arg(long, default_value_t = 8)]
    step: usize,
    #[arg(long, value_delimiter = ',', default_values_t = [4, 6, 8, 10])]
    bin_widths: Vec<usize>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let entries = std::fs::read_dir(&arguments.directory).context(arguments.directory.display().to_string())?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    files.sort();
    let images = files.iter().map(image::open).collect::<Result<Vec<_>, _>>()?;
    // Gray images have the same order of channels in RGB and BGR.
    let images: Vec<image::RgbImage> = images.into_iter().map(|image| image.to_luma8()).map(gray_to_rgb).collect();
    let settings = DenseSiftSettings {
        step: arguments.step,
        bin_widths: arguments.bin_widths,
        sigma: 1.6,
        root_sift: false,
        max_side: 16384,
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(arguments.threads).build()?;
    let cpu = common::cpu_seconds();
    let start = Instant::now();
    let describe = |dense: &mut DenseSift, image: &image::RgbImage| {
        let (height, width) = (image.height() as usize, image.width() as usize);
        let mut out = Vec::new();
        dense.describe(BgrImage::new(height, width, image.as_raw()), &mut out)?;
        kinoprobe::Result::Ok(out)
    };
    let described = pool.install(|| {
        images.par_iter().map_init(|| DenseSift::new(settings.clone()), describe).collect::<kinoprobe::Result<Vec<_>>>()
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let cpu = common::cpu_seconds().zip(cpu).map(|(end, start)| end - start);
    let dim = DenseSift::new(settings).dim();
    let descriptors: Vec<u8> = described.iter().flatten().copied().collect();
    std::fs::write(&arguments.out, &descriptors)?;
    let rows = descriptors.len() / dim;
    println!("{}", serde_json::json!({ "seconds": seconds, "cpu": cpu, "images": images.len(), "rows": rows }));
    Ok(())
}

fn gray_to_rgb(image: image::GrayImage) -> image::RgbImage {
    image::DynamicImage::ImageLuma8(image).to_rgb8()
}
