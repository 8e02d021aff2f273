//! Benchmark of k-means for `benches/bench.py`: reads raw bytes (rows of 128 columns) and prints one line of JSON.
//!
//! `kmeans FILE [--words 128] [--seed 0] [--max-iterations 300] [--tolerance 1e-4]`

use std::time::Instant;

use anyhow::Context;
use clap::Parser;
use kinoprobe::extract::kmeans::KMeans;
use ndarray::Array2;

#[derive(Parser)]
struct Arguments {
    /// Descriptors of one byte per element, row-major.
    file: std::path::PathBuf,
    #[arg(long, default_value_t = 128)]
    columns: usize,
    #[arg(long, default_value_t = 128)]
    words: usize,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[arg(long, default_value_t = 300)]
    max_iterations: usize,
    #[arg(long, default_value_t = 1e-4)]
    tolerance: f64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let bytes = std::fs::read(&arguments.file).context(arguments.file.display().to_string())?;
    let data = Array2::from_shape_vec((bytes.len() / arguments.columns, arguments.columns), bytes)?;
    let kmeans = KMeans {
        clusters: arguments.words,
        max_iterations: arguments.max_iterations,
        tolerance: arguments.tolerance,
        seed: arguments.seed,
    };
    let start = Instant::now();
    let clustering = kmeans.fit(data.view())?;
    println!(
        "{}",
        serde_json::json!({
            "seconds": start.elapsed().as_secs_f64(),
            "inertia": clustering.inertia,
            "iterations": clustering.iterations,
            "rows": data.nrows(),
        })
    );
    Ok(())
}
