//! kinoprobe-shots: detects the shots of clips.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use kinoprobe::cli::progress::{ProgressMode, TerminalProgress};
use kinoprobe::cli::{self, EXIT_CODES, Outcome, output};
use kinoprobe::extract::shots::{self, Options};
use kinoprobe::manifest::Manifest;
use kinoprobe::models::WeightsChoice;
use kinoprobe::models::runtime::Device;
use kinoprobe::shards::{ShardChoice, load_manifest};
use kinoprobe::value_parsers;

/// Detect the shots of clips with TransNet V2, and write a list with frame numbers and timestamps.
///
/// The list is a CSV with the columns id, shot, start_frame, end_frame, start_seconds, end_seconds and probability (that a
/// shot ends with end_frame). kinoprobe-extract reads it for sampling kind shots (--shots FILE).
#[derive(Debug, Parser)]
#[command(name = "kinoprobe-shots", version, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
struct Arguments {
    /// Videos; the id of each is its path
    #[arg(required_unless_present = "manifest", conflicts_with = "manifest", value_name = "VIDEO")]
    videos: Vec<PathBuf>,
    /// Manifest of the clips, as for kinoprobe-extract
    #[arg(long)]
    manifest: Option<PathBuf>,
    /// Directory that the paths of the manifest are relative to and must not leave [default: the manifest's directory, without this limit]
    #[arg(long, requires = "manifest")]
    root: Option<PathBuf>,
    /// Shot list to write
    #[arg(long)]
    out: PathBuf,
    /// Detect the shots of shard I of N (from 0) only, into the directory NAME.shards of --out, or of the shard of this task: auto or
    /// auto/N; as for kinoprobe-extract
    #[arg(long, value_name = "I/N", requires = "manifest")]
    shard: Option<ShardChoice>,
    /// Wait while another task works on the shard, instead of failing
    #[arg(long, requires = "shard")]
    wait: bool,
    /// Probability above which a frame ends a shot
    #[arg(long, default_value_t = shots::DEFAULT_THRESHOLD, value_parser = value_parsers::probability::<f32>)]
    threshold: f32,
    /// Model card of the network
    #[arg(long, default_value = shots::DEFAULT_CARD)]
    card: String,
    /// Source of the network's weights: published, registry, seeded (untrained!) or a file [default: the card's first trained origin]
    #[arg(long)]
    weights: Option<WeightsChoice>,
    /// Device that runs the network: auto, native, cpu, openvino, cuda or tensorrt, or several GPUs as in cuda:0,1 or cuda:all; auto selects
    /// the fastest available
    #[arg(long, default_value = "auto")]
    device: Device,
    /// Directory of the model cards
    #[arg(long, default_value = "models")]
    models: PathBuf,
    /// Exit with 0 instead of 3 if some clips failed, for schedulers that regard every other exit code as a failure of the task
    #[arg(long)]
    allow_failed_clips: bool,
    /// Print only warnings, failures and the summary
    #[arg(long)]
    quiet: bool,
}

const EXAMPLES: &str = "\
Examples:
  kinoprobe-shots trailer.mp4 --out shots.csv
  kinoprobe-shots --manifest clips.csv --out features/shots.csv
  kinoprobe-shots --manifest clips.csv --out features/shots.csv --shard 3/200
  kinoprobe-merge features/shots.shards --out features/shots.csv   (when kinoprobe-status features/shots.shards shows no others)
  kinoprobe-extract --method keyframes --manifest clips.csv --shots features/shots.csv --out features/keyframes.h5";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::run("shots", || {
        let cancel = cli::catch_interrupts()?;
        let progress = TerminalProgress::new("shots", ProgressMode::from_quiet(arguments.quiet));
        output::check_file(&arguments.out, "shots.csv")?;
        let shard = arguments.shard.map(|choice| choice.resolve(&|name| std::env::var(name).ok())).transpose()?;
        let manifest = match &arguments.manifest {
            Some(manifest) => load_manifest(manifest, arguments.root.as_deref(), &arguments.out, shard)?,
            None => Manifest {
                source: PathBuf::new(),
                clips: arguments.videos.iter().map(|video| shots::unlisted(video)).collect(),
                warnings: Vec::new(),
                sha256: String::new(),
            },
        };
        let options = Options {
            manifest,
            out: arguments.out,
            shard,
            wait: arguments.wait,
            card: arguments.card,
            models: arguments.models,
            weights: arguments.weights.unwrap_or_default(),
            device: arguments.device,
            threshold: arguments.threshold,
        };
        let summary = shots::run(&options, &progress, &cancel)?;
        cli::print_line(&summary)?;
        Ok(Outcome::from_failures(summary.failed).allow_failures(arguments.allow_failed_clips))
    })
}
