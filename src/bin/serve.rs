//! kinoprobe-serve: a web page and an HTTP API that predict the genres of posters and trailers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use kinoprobe::cli::progress::{ProgressMode, TerminalProgress};
use kinoprobe::cli::{self, EXIT_CODES, Outcome, output};
use kinoprobe::models::WeightsChoice;
use kinoprobe::models::runtime::Device;
use kinoprobe::serve::{self, Limits, Options, Server};
use kinoprobe::value_parsers;
use tokio::signal::unix::{SignalKind, signal};

/// Serve a web page that predicts the genres of posters and trailers, or the classes of a run, and its HTTP API.
///
/// The first line printed is the page's address. The API is described at /api/openapi.json. There is no authentication:
/// put a reverse proxy in front before listening on an address that others can reach.
#[derive(Debug, Parser)]
#[command(name = "kinoprobe-serve", version, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
struct Arguments {
    /// Directory of the trained poster models (contains posters.json), or of a run on features of images
    #[arg(long, default_value = "runs/posters")]
    models: PathBuf,
    /// Address to listen on; port 0 selects a free port
    #[arg(long, default_value = "127.0.0.1:8080")]
    addr: SocketAddr,
    /// Device that runs the network: auto, native, cpu, openvino, cuda or tensorrt, or several GPUs as in cuda:0,1 or cuda:all; auto selects
    /// the fastest available
    #[arg(long, default_value = "auto")]
    device: Device,
    /// Origin of the network's weights: published, registry, seeded or a file [default: as in training]
    #[arg(long)]
    weights: Option<WeightsChoice>,
    /// Directory of the model cards
    #[arg(long, default_value = "models")]
    cards: PathBuf,
    /// Batch size of the network [default: 1 on a CPU, 8 on a GPU]
    #[arg(long, value_parser = value_parsers::between(1, 1024_u16))]
    batch: Option<u16>,
    /// Milliseconds an image waits for a batch to fill up, on devices on which batches save time [default: 3]
    #[arg(long)]
    delay: Option<u64>,
    /// Write a static site that runs the models in the visitor's browser to this directory, and exit
    #[arg(long, value_name = "DIR", conflicts_with_all = [
        "addr", "device", "batch", "delay", "files", "request_megabytes", "seconds", "frames", "queue",
    ])]
    export: Option<PathBuf>,
    #[command(flatten)]
    limits: Limits,
}

const EXAMPLES: &str = "\
Examples:
  kinoprobe-serve --models runs/posters
  kinoprobe-serve --models runs/effnet-logistic
  kinoprobe-serve --models runs/posters --export site
  kinoprobe-serve --models runs/posters --addr 127.0.0.1:9000 --device cpu --queue 32
  curl --form file=@poster.jpg http://127.0.0.1:8080/api/predict";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    kinoprobe::memory::minimize_resident_memory();
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
        let progress = TerminalProgress::new("serve", ProgressMode::Bar);
        match &arguments.export {
            Some(dir) => {
                output::check_directory(dir)?;
                serve::export(&options, dir, &progress)?;
                cli::print_line(dir.display())?;
            }
            None => {
                let server = Server::bind(&options, Arc::new(progress))?;
                let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
                runtime.block_on(run(server))?;
            }
        }
        Ok(Outcome::Done)
    })
}

async fn run(server: Server) -> anyhow::Result<()> {
    let shutdown = shutdown_signal()?;
    cli::print_line(format_args!("http://{}/", server.address()))?;
    Ok(server.run(shutdown).await?)
}

/// Returns a future that completes on the first SIGINT or SIGTERM. A second signal ends the process.
fn shutdown_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        cli::print_message("serve: finishing the requests in progress (repeat to stop at once)");
        tokio::spawn(async move {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            std::process::exit(130);
        });
    })
}
