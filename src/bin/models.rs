//! `kinoprobe-models`: lists, fetches, converts and verifies the weights of networks.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use kinoprobe::cli::progress::{ProgressMode, TerminalProgress};
use kinoprobe::cli::{self, Outcome};
#[cfg(feature = "onnx")]
use kinoprobe::models::runtime::Device;
#[cfg(feature = "onnx")]
use kinoprobe::models::runtime::doctor::{self, Machine};
use kinoprobe::models::{self, Card, Precision, WeightsChoice, inventory};

const EXAMPLES: &str = "Examples:
  kinoprobe-models list
  kinoprobe-models fetch efficientnet_lite2
  kinoprobe-models fetch r2plus1d_18 --weights seeded
  kinoprobe-models convert my_finetuned.pth --card r2plus1d_18 --out my_finetuned.onnx
  kinoprobe-models verify convnext_base
  kinoprobe-models doctor

KINOPROBE_CACHE is the directory of downloads and converted files, if they are not next to the cards.
The environment variables http_proxy, https_proxy, all_proxy, no_proxy and SSL_CERT_FILE are honored.
";

/// List, fetch, convert and verify the weights of networks
#[derive(Parser)]
#[command(name = "kinoprobe-models", version, after_help = format!("{EXAMPLES}\n{}", cli::EXIT_CODES))]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Directory of the model cards, downloads and converted files
    #[arg(long, global = true, default_value = "models", value_name = "DIR")]
    models: PathBuf,
    /// Do not show progress
    #[arg(long, global = true)]
    quiet: bool,
}

#[derive(Subcommand)]
enum Command {
    /// List the networks and their local files
    List,
    /// Download the weights of a network, check their hash, and convert them to ONNX
    Fetch {
        /// Name of the card
        name: String,
        /// Weights: default (the card's first trained origin), published, registry, seeded, or the path of a checkpoint or ONNX file
        #[arg(long, default_value = "default")]
        weights: WeightsChoice,
    },
    /// Convert a checkpoint (.pth, legacy or zip format; .safetensors) to ONNX
    Convert {
        /// Checkpoint file
        checkpoint: PathBuf,
        /// Name of the card with the checkpoint's architecture
        #[arg(long, value_name = "NAME")]
        card: String,
        /// ONNX file to write
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Check the local files of a network: downloads against their hashes, converted files against their weights
    Verify {
        /// Name of the card
        name: String,
    },
    /// Run a small network on every device, and print the devices, libraries and versions: paste the output into reports of problems
    #[cfg(feature = "onnx")]
    Doctor {
        /// Only this device, which must work: native, cpu, openvino, cuda, tensorrt
        #[arg(long)]
        device: Option<Device>,
        /// Examine the device in this process, and print the finding as JSON
        #[arg(long, hide = true, requires = "device")]
        probe: bool,
    },
}

fn main() -> ExitCode {
    let Arguments { command, models: directory, quiet } = Arguments::parse();
    let progress = TerminalProgress::new("models", ProgressMode::from_quiet(quiet));
    cli::run("models", || {
        let cancel = cli::catch_interrupts()?;
        match command {
            Command::List => cli::print(inventory::table(&directory)?)?,
            Command::Fetch { name, weights } => {
                let card = Card::load(&directory, &name)?;
                let model = models::prepare(&card, &weights, Precision::Auto, &progress, &cancel)?;
                let warning = if model.untrained { ", UNTRAINED" } else { "" };
                let (sha256, onnx, weights) = (&model.sha256, model.onnx.display(), &model.weights);
                cli::print_line(format_args!("{sha256}  {onnx} ({weights} weights{warning})"))?;
            }
            Command::Convert { checkpoint, card, out } => {
                models::convert(&Card::load(&directory, &card)?, &checkpoint, &out)?;
                cli::print_line(out.display())?;
            }
            Command::Verify { name } => {
                let checks = inventory::verify(&Card::load(&directory, &name)?)?;
                for check in &checks {
                    cli::print_line(check)?;
                }
                let failed = checks.iter().filter(|check| check.failure.is_some()).count();
                anyhow::ensure!(failed == 0, "{failed} of {} checks of {name} failed", checks.len());
            }
            #[cfg(feature = "onnx")]
            Command::Doctor { device: Some(device), probe: true } => {
                cli::print_line(serde_json::to_string(&doctor::probe(device))?)?;
            }
            #[cfg(feature = "onnx")]
            Command::Doctor { device, .. } => examine(device)?,
        }
        Ok(Outcome::Done)
    })
}

/// Prints what the machine has and what each device does, or one that is `requested`.
#[cfg(feature = "onnx")]
fn examine(requested: Option<Device>) -> anyhow::Result<()> {
    let machine = Machine::read();
    cli::print(&machine)?;
    let mut failed: Vec<String> = machine.problem.iter().map(|_| "KINOPROBE_RUNTIME".to_string()).collect();
    for device in requested.map_or_else(|| doctor::devices().collect(), |device| vec![device]) {
        let mut program = std::process::Command::new(std::env::current_exe()?);
        program.args(["doctor", "--probe", "--device", &device.to_string()]);
        let finding = doctor::examine(device, requested.is_some(), &mut program)?;
        cli::print_line(&finding)?;
        failed.extend(finding.failed().then(|| device.to_string()));
    }
    anyhow::ensure!(failed.is_empty(), "doctor: failed: {}", failed.join(", "));
    Ok(())
}
