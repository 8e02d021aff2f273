//! `kinoprobe-models`: list, fetch, convert and verify the networks' weights.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use kinoprobe::cli::{self, Outcome};
use kinoprobe::models::{self, Card, WeightsChoice, inventory};

const EXAMPLES: &str = "Examples:
  kinoprobe-models list
  kinoprobe-models fetch efficientnet_lite2
  kinoprobe-models fetch r2plus1d_18 --weights seeded
  kinoprobe-models convert my_finetuned.pth --card r2plus1d_18 --out my_finetuned.onnx
  kinoprobe-models verify convnext_base

http_proxy, https_proxy, all_proxy, no_proxy and SSL_CERT_FILE are honored.
";

/// List, fetch, convert and verify the networks' weights.
#[derive(Parser)]
#[command(name = "kinoprobe-models", version, after_help = format!("{EXAMPLES}\n{}", cli::EXIT_CODES))]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Folder of the model cards; downloads and converted files go there too
    #[arg(long, global = true, default_value = "models", value_name = "DIR")]
    models: PathBuf,
    /// Show no progress
    #[arg(long, global = true)]
    quiet: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Print a table of the networks and of what is here of each
    List,
    /// Get a network ready: fetch its weights, check their hash, convert them to ONNX
    Fetch {
        /// The card's name
        name: String,
        /// default (the card's first trained origin), published, registry, seeded, or a checkpoint or ONNX file
        #[arg(long, default_value = "default")]
        weights: WeightsChoice,
    },
    /// Convert a checkpoint (.pth in both of torch's formats, .safetensors) to ONNX
    Convert {
        /// The checkpoint
        checkpoint: PathBuf,
        /// The card whose architecture it is of
        #[arg(long, value_name = "NAME")]
        card: String,
        /// The ONNX file to write
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Check the hashes of what is here of a network, and its converted files against their weights
    Verify {
        /// The card's name
        name: String,
    },
}

fn main() -> ExitCode {
    let Arguments { command, models: folder, quiet } = Arguments::parse();
    cli::catch_interrupts();
    cli::run("models", || {
        match command {
            Command::List => print!("{}", inventory::table(&folder)?),
            Command::Fetch { name, weights } => {
                let model = models::prepare(&Card::load(&folder, &name)?, &weights, quiet)?;
                let warning = if model.untrained { ", UNTRAINED" } else { "" };
                println!("{}  {} ({} weights{warning})", model.sha256, model.onnx.display(), model.weights);
            }
            Command::Convert { checkpoint, card, out } => {
                models::weights::convert(&Card::load(&folder, &card)?, &checkpoint, &out)?;
                println!("{}", out.display());
            }
            Command::Verify { name } => {
                let checks = inventory::verify(&Card::load(&folder, &name)?)?;
                checks.iter().for_each(|check| println!("{check}"));
                let failed = checks.iter().filter(|check| check.fault.is_some()).count();
                anyhow::ensure!(failed == 0, "{failed} of {} files of {name} failed", checks.len());
            }
        }
        Ok(Outcome::Done)
    })
}
