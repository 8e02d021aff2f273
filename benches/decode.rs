//! Benchmark of decoding: `decode VIDEO [--windows N] [--threads N]` decodes the windows of a video, makes the input of R(2+1)D-18
//! and prints one line of JSON with the CPU and wall seconds. Run by benches/bench.py.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Parser;
use kinoprobe::manifest::Clip;
use kinoprobe::media::{self, ItemSink, Sampling, Wanted};
use kinoprobe::models::card::Card;

mod common;
use common::cpu_seconds;

#[derive(Parser)]
struct Arguments {
    video: PathBuf,
    #[arg(long, default_value_t = 5)]
    windows: usize,
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// `cargo bench` passes this flag.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let Arguments { video, windows, threads, bench: _ } = Arguments::parse();
    let card = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let input = Card::load(&card, "r2plus1d_18").expect("the repository contains this card").input;
    let clip = Clip { id: "video".into(), file: video, ..Clip::default() };
    let sampling = Sampling::Windows { length: 16, rate: 15.0, count: windows };
    let started = Instant::now();
    let mut sink = ItemSink::new(&input);
    let wanted = Wanted { threads, ..Wanted::from(&sampling) };
    let decoded = media::decode(&clip, wanted, &mut sink).expect("the video can be decoded");
    let wall = started.elapsed().as_secs_f64();
    let floats = sink.take().len();
    let full = decoded.full.map_or("null".into(), |reason| format!("{reason:?}"));
    println!(
        "{{\"cpu\": {:.3}, \"wall\": {wall:.3}, \"windows\": {}, \"floats\": {floats}, \"full\": {full}}}",
        cpu_seconds().expect("Linux"),
        decoded.windows.len()
    );
}
