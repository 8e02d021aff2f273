//! kinoprobe-serve: the page and the API for posters and trailers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use kinoprobe::cli::{self, EXIT_CODES};
use kinoprobe::models::WeightsChoice;
use kinoprobe::models::runtime::Device;
use kinoprobe::serve::{self, Limits, Options};

/// Serve a page where anyone drops a poster or a trailer and sees its genres, and the API behind it.
///
/// The first line printed is the page's address. The API is described at /api/openapi.json. There is no login: put a
/// proxy in front before you listen at an address that others reach.
#[derive(Debug, Parser)]
#[command(name = "kinoprobe-serve", version, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
struct Arguments {
    /// Folder of the trained poster models (it holds posters.json)
    #[arg(long, default_value = "runs/posters")]
    models: PathBuf,
    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8080")]
    addr: SocketAddr,
    /// What runs the network: auto, native, cpu, openvino, cuda or tensorrt; auto takes the fastest that works
    #[arg(long, default_value = "auto")]
    device: Device,
    /// Where the network's weights come from: published, registry, seeded or a file [default: as in training]
    #[arg(long)]
    weights: Option<WeightsChoice>,
    /// Folder of the model cards
    #[arg(long, default_value = "models")]
    cards: PathBuf,
    /// Pictures that the network runs at once [default: 1 on a processor, 8 on a GPU]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    batch: Option<u16>,
    /// Milliseconds that a picture waits for others, where some are on their way and the device gains by several at once
    #[arg(long, default_value_t = 3)]
    delay: u64,
    /// Write a static site into this folder, and serve nothing: the page with the models to run in visitors' browsers
    #[arg(long, value_name = "FOLDER")]
    export: Option<PathBuf>,
    #[command(flatten)]
    limits: Limits,
}

const EXAMPLES: &str = "\
Examples:
  kinoprobe-serve --models runs/posters
  kinoprobe-serve --models runs/posters --export site
  kinoprobe-serve --models runs/posters --addr 127.0.0.1:9000 --device cpu --queue 32
  curl --form file=@poster.jpg http://127.0.0.1:8080/api/predict";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    kinoprobe::memory::keep_small();
    cli::run("serve", || {
        let options = Options {
            models: arguments.models,
            address: arguments.addr,
            device: arguments.device,
            weights: arguments.weights,
            cards: arguments.cards,
            batch: arguments.batch.map(usize::from),
            delay: arguments.delay,
            limits: arguments.limits,
        };
        Ok(match &arguments.export {
            Some(folder) => serve::export(&options, folder)?,
            None => serve::run(&options)?,
        })
    })
}
