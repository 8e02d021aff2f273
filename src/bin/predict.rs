//! kinoprobe-predict: predicts the classes of new clips.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{bail, ensure};
use clap::Parser;
use kinoprobe::cli::decoding::DecodingFlags;
use kinoprobe::cli::progress::{ProgressFlags, ProgressMode, TerminalProgress};
use kinoprobe::cli::{self, EXIT_CODES, Outcome, output};
use kinoprobe::manifest::Manifest;
use kinoprobe::memory;
use kinoprobe::models::WeightsChoice;
use kinoprobe::models::runtime::Device;
use kinoprobe::runs::TrainedRun;
use kinoprobe::runs::predict::{self, Format, Options, Predicted};
use kinoprobe::value_parsers;

/// Predict the classes of new clips with a trained model.
///
/// The features of the clips are extracted as those that the model was trained on: the run records the sampling, the network and
/// the hash of its weights. With several models, their scores are averaged (late fusion). The tuned thresholds of a multi-label
/// model decide which labels are predicted.
///
/// With --features, an interrupted run continues if the same command is run again, and clips that are already in the store are not
/// extracted again. Clips that fail have an error instead of scores.
#[derive(Debug, Parser)]
#[command(name = "kinoprobe-predict", version, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
struct Arguments {
    /// Directory of a run of kinoprobe-classify or kinoprobe-train, or of an early or learned fusion; repeat it for a late fusion
    #[arg(long, required = true, value_name = "RUN")]
    model: Vec<PathBuf>,
    /// Videos, images, directories of them (with subdirectories), and manifests
    #[arg(required = true, value_name = "CLIPS")]
    clips: Vec<PathBuf>,
    /// File to write: .csv or .jsonl
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Format of the file [default: by its extension]
    #[arg(long, requires = "out")]
    format: Option<Format>,
    /// CSV file for the scores of each frame, window or shot; their plot is written beside it as .svg
    #[arg(long, value_name = "FILE.csv")]
    timeline: Option<PathBuf>,
    /// Number of classes per clip on the terminal
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = value_parsers::at_least(1_usize))]
    top: usize,
    /// Store that keeps the features, so that an interrupted run can be continued
    #[arg(long, value_name = "FILE.h5")]
    features: Option<PathBuf>,
    /// Directory that the paths of manifests are relative to and must not leave [default: the manifest's directory, without this limit]
    #[arg(long)]
    root: Option<PathBuf>,
    /// Treat subdirectories that contain only images as clips, whose frames are the images
    #[arg(long)]
    frame_directories: bool,
    /// Shot list by kinoprobe-shots, for models of sampling kind shots [default: the shots are detected]
    #[arg(long, value_name = "FILE")]
    shots: Option<PathBuf>,
    /// Feature store with the codebook, for SIFT features [default: that of the run]
    #[arg(long, value_name = "FILE.h5")]
    codebook: Option<PathBuf>,
    /// Source of the network's weights: published, registry, seeded or a file [default: as in training]
    #[arg(long)]
    weights: Option<WeightsChoice>,
    /// Device that runs the network: auto, native, cpu, openvino, cuda or tensorrt, or several GPUs as in cuda:0,1 or cuda:all; auto selects
    /// the fastest available
    #[arg(long, default_value = "auto")]
    device: Device,
    /// Directory of the model cards
    #[arg(long, default_value = "models")]
    cards: PathBuf,
    #[command(flatten)]
    decoding: DecodingFlags,
    /// Retry clips that failed in an earlier run with the same --features
    #[arg(long)]
    retry_failed: bool,
    /// Print what would be done, without doing it
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    progress: ProgressFlags,
}

const EXAMPLES: &str = "\
Examples:
  kinoprobe-predict --model runs/effnet clip.mp4
  kinoprobe-predict --model runs/cnn3d new-clips/ --out predictions.csv --features features/new.h5
  kinoprobe-predict --model runs/effnet --model runs/cnn3d new-clips/ --out predictions.jsonl
      averages the scores of both models
  kinoprobe-predict --model runs/comparison/learned-fusion new-clips/ --out predictions.csv
      applies the learned fusion of kinoprobe-compare, or early-fusion
  kinoprobe-predict --model runs/effnet test.csv --root videos --out submission.csv --format category
  kinoprobe-predict --model runs/effnet trailer.mp4 --timeline trailer.csv
      scores over time, with the plot trailer.svg

CSV files have the columns id, path, predicted (several labels are separated by |), error, and score:CLASS for each class.";

/// Maximum number of clips on the terminal if the predictions are written to a file.
const MAX_CLIPS_SHOWN: usize = 20;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::run("predict", || run(arguments))
}

fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let cancel = cli::catch_interrupts()?;
    let mode = arguments.progress.mode();
    let progress = TerminalProgress::new("predict", mode);
    for path in [&arguments.out, &arguments.timeline].into_iter().flatten() {
        check_output(path, &arguments)?;
    }
    let format = arguments.out.as_deref().map(|out| check_format(out, arguments.format)).transpose()?;
    if let Some(path) = &arguments.timeline {
        ensure!(path.extension().is_some_and(|extension| extension == "csv"), "{}: name a .csv file", path.display());
        ensure!(
            arguments.out.as_ref() != Some(path),
            "{}: named by --out and --timeline: choose two files",
            path.display()
        );
        predict::check_timeline(path)?;
    }
    if let Some(path) = &arguments.features {
        output::check_file(path, "features.h5")?;
    }
    let models = arguments.model.iter().map(|run| TrainedRun::load(run)).collect::<kinoprobe::Result<Vec<_>>>()?;
    if models.iter().any(TrainedRun::uses_sift) {
        memory::limit_malloc_arenas();
    }
    let options = Options {
        models,
        manifest: Manifest::from_inputs(&arguments.clips, arguments.root.as_deref(), arguments.frame_directories)?,
        features: arguments.features,
        shots: arguments.shots,
        codebook: arguments.codebook,
        cards: arguments.cards,
        weights: arguments.weights,
        device: arguments.device,
        workers: arguments.decoding.workers,
        memory: arguments.decoding.memory,
        retry_failed: arguments.retry_failed,
        dry_run: arguments.dry_run,
        timeline: arguments.timeline.is_some(),
    };
    let Some(predicted) = predict::run(&options, &progress, &cancel)? else { return Ok(Outcome::Done) };
    if let (Some(out), Some(format)) = (&arguments.out, format) {
        predicted.write(out, format)?;
    }
    if let Some(path) = &arguments.timeline {
        predicted.write_timeline(path)?;
    }
    if mode == ProgressMode::Bar || arguments.out.is_none() {
        let most = if arguments.out.is_some() { MAX_CLIPS_SHOWN } else { usize::MAX };
        cli::print(predicted.summary(arguments.top, most))?;
    }
    if mode == ProgressMode::Bar {
        report_files(&predicted, [&arguments.out, &arguments.timeline]);
    }
    Ok(Outcome::from_failures(predicted.failed()))
}

/// Checks that a file can be written and is not an input.
fn check_output(path: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    output::check_file(path, "predictions.csv")?;
    let same = |input: &&PathBuf| matches!((input.canonicalize(), path.canonicalize()), (Ok(a), Ok(b)) if a == b);
    match arguments.clips.iter().find(same) {
        Some(input) => bail!("{}: an input, which the predictions would replace: choose another file", input.display()),
        None => Ok(()),
    }
}

/// Returns the format of the file of the predictions, and checks that it may be replaced.
fn check_format(out: &Path, format: Option<Format>) -> anyhow::Result<Format> {
    let format = format.map_or_else(|| Format::of_file(out), Ok)?;
    format.check_replaceable(out)?;
    Ok(format)
}

fn report_files(predicted: &Predicted, files: [&Option<PathBuf>; 2]) {
    let clips = predicted.clips.len();
    for path in files.into_iter().flatten() {
        cli::print_message(format_args!("predict: wrote {} ({clips} clips)", path.display()));
    }
}
