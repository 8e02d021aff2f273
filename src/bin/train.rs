//! kinoprobe-train: trains a network end to end on the frames of clips.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use kinoprobe::cli::progress::{ProgressMode, TerminalProgress};
use kinoprobe::cli::{self, Outcome, output};
use kinoprobe::manifest::{Manifest, split};
use kinoprobe::matrix::default_threads;
use kinoprobe::memory;
use kinoprobe::report::clips::PageFlags;
use kinoprobe::report::{self, ClipSources, Metrics, markdown};
use kinoprobe::value_parsers;

use crate::train::checkpoint::EpochRecord;
use crate::train::end_to_end::EndToEndJob;
use crate::train::session::Observer;
use crate::train::torch;
use crate::train::{CacheOptions, TrainFlags, TrainRecipe};

#[path = "../train/mod.rs"]
mod train;

/// Train a network end to end on the frames of clips, and evaluate it on held-out clips
#[derive(Debug, Parser)]
#[command(name = "kinoprobe-train", version, after_help = format!("{EXAMPLES}\n\n{}", cli::EXIT_CODES))]
struct Arguments {
    /// Recipe: a file, or the name of one in pipelines/train (r2plus1d, resnet50, sesemi, simclr, posters, …)
    #[arg(long, value_name = "FILE|NAME")]
    recipe: PathBuf,
    /// Manifest: CSV, one directory per class, or list
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
    /// Directory that the paths of both manifests are relative to and must not leave [default: the directory of each, without this limit]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Manifest of more clips, whose labels are not used, for recipes with a self-supervised task
    #[arg(long, value_name = "FILE")]
    unlabeled: Option<PathBuf>,
    /// Output directory; its name is the method of the trained network
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Device
    #[arg(long, default_value = "cpu", value_parser = ["cpu", "cuda"])]
    device: String,
    /// Continue after the last complete epoch of an interrupted or finished training
    #[arg(long)]
    resume: bool,
    /// Threads that prepare batches; results do not depend on it [default: 1 on the CPU, the number of cores with CUDA]
    #[arg(long, value_name = "N", value_parser = value_parsers::between(1, value_parsers::MAX_THREADS))]
    workers: Option<usize>,
    /// Threads of the network on the CPU
    #[arg(long, value_name = "N", default_value_t = default_threads(), value_parser = value_parsers::between(1, value_parsers::MAX_THREADS))]
    threads: usize,
    /// Directory of the decoded frames, which runs with the same sampling and size share [default: frames beside OUT]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Maximum size of the decoded frames, such as 20G
    #[arg(long, value_name = "SIZE", default_value = "50G", value_parser = value_parsers::bytes)]
    cache_size: u64,
    /// Memory that the decode threads share, such as 4G [default: half of the available memory]
    #[arg(long, value_name = "SIZE", value_parser = value_parsers::bytes)]
    memory: Option<u64>,
    /// Retry clips that could not be decoded in an earlier run
    #[arg(long)]
    retry_failed: bool,
    /// Directory of the model cards
    #[arg(long, value_name = "DIR", default_value = "models")]
    models: PathBuf,
    /// Seed of the split, for a manifest without splits [default: 0]
    #[arg(long)]
    split_seed: Option<u64>,
    /// Print the recipe that would be used, and exit
    #[arg(long)]
    dry_run: bool,
    /// Print neither progress nor tables
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    flags: TrainFlags,
}

const EXAMPLES: &str = "\
Examples:
  kinoprobe-train --recipe r2plus1d --manifest clips.csv --out runs/trained
  kinoprobe-train --recipe sesemi --manifest posters.csv --unlabeled more/ --out runs/sesemi --device cuda
  kinoprobe-train --recipe r2plus1d --manifest clips.csv --out runs/trained --resume --epochs 20
  kinoprobe-extract --method trained --manifest clips.csv --out features/trained.h5
      uses the trained network

Writes network.safetensors (PyTorch's names), network.onnx, checkpoint.safetensors (the state after the last epoch), a card and a recipe \
for the extraction of features, and what kinoprobe-classify writes: metrics.json, predictions.csv, curves, REPORT.md, …";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Before any thread starts.
    memory::keep_freed_memory();
    cli::run("train", || train(arguments))
}

fn train(arguments: Arguments) -> anyhow::Result<Outcome> {
    let cancel = cli::catch_interrupts()?;
    let path = recipe_path(arguments.recipe)?;
    let mut recipe = TrainRecipe::load(&path)?;
    let unused = recipe.apply(&arguments.flags, &path)?;
    let log = |line: &str| {
        if !arguments.quiet {
            cli::print_message(format_args!("train: {line}"))
        }
    };
    if !unused.is_empty() {
        log(&format!("keys of the recipe without an effect on this run: {}", unused.join(", ")));
    }
    let self_supervised = recipe.rotations.is_some() || recipe.contrastive.is_some();
    ensure!(
        arguments.unlabeled.is_none() || self_supervised,
        "--unlabeled does not apply to {}: its recipe has neither [rotations] nor [contrastive]",
        recipe.method
    );
    let mut manifest = Manifest::load(&arguments.manifest, arguments.root.as_deref())?;
    let mut drawn = false;
    if recipe.contrastive.is_none() {
        drawn = split::assign(&mut manifest, split::Fractions::default(), arguments.split_seed.unwrap_or(0))?;
        manifest.check_training()?;
    }
    ensure!(drawn || arguments.split_seed.is_none(), "--split-seed does not apply: the manifest has splits");
    // The paths of a directory of clips are relative to itself.
    let root = |path: &Path| arguments.root.as_deref().filter(|_| path.is_file());
    let unlabeled = arguments.unlabeled.as_deref().map(|path| Manifest::load(path, root(path))).transpose()?;
    if arguments.dry_run {
        cli::print(recipe.to_toml())?;
        return Ok(Outcome::Done);
    }
    output::check_directory(&arguments.out)?;
    let device = torch::device(&arguments.device)?;
    tch::set_num_threads(i32::try_from(arguments.threads).unwrap_or(i32::MAX));
    let beside = || arguments.out.parent().unwrap_or(Path::new("")).join("frames");
    let cores = default_threads();
    let progress = TerminalProgress::new("train", ProgressMode::from_quiet(arguments.quiet));
    let bar = Bar::new(arguments.quiet, recipe.training.epochs);
    let job = EndToEndJob {
        manifest,
        root: arguments.root,
        unlabeled,
        models: arguments.models,
        device,
        workers: arguments.workers.unwrap_or(if device.is_cuda() { cores } else { 1 }),
        cache: CacheOptions {
            directory: arguments.cache.unwrap_or_else(beside),
            limit: arguments.cache_size,
            workers: cores,
            memory: arguments.memory,
            retry_failed: arguments.retry_failed,
        },
        resume: arguments.resume,
        out: arguments.out,
        recipe,
    };
    let summary = job.run(&bar, &progress, &cancel)?;
    bar.finish();
    if drawn {
        job.manifest.write_csv(&job.out.join("manifest.csv"))?;
    }
    if summary.classifies {
        let thumbnails = PageFlags::default().thumbnails();
        report::write_page(&job.out, &ClipSources { clips: &job.manifest.clips, data: None, thumbnails })?;
        report::complete(&job.out)?;
        if !arguments.quiet {
            cli::print(markdown::summary(&Metrics::read(&job.out.join("metrics.json"))?))?;
        }
        log(&format!("wrote {} and report.html", job.out.join("REPORT.md").display()));
    } else {
        log(&format!("wrote {}", job.out.join("network.safetensors").display()));
    }
    Ok(Outcome::from_failures(summary.failed))
}

/// Returns the path of a recipe: a file, or the name of one in pipelines/train.
fn recipe_path(recipe: PathBuf) -> anyhow::Result<PathBuf> {
    let named = Path::new("pipelines/train").join(&recipe).with_extension("toml");
    if recipe.is_file() {
        return Ok(recipe);
    }
    let is_name = recipe.components().count() == 1 && recipe.extension().is_none();
    if is_name && named.is_file() {
        return Ok(named);
    }
    let mut names: Vec<String> = std::fs::read_dir("pipelines/train")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".toml")?.to_string()))
        .collect();
    names.sort();
    let remedy = match names.is_empty() {
        true => "run kinoprobe in its source directory, or name a file".to_string(),
        false => format!("choose from {}, or name a file", names.join(", ")),
    };
    Err(anyhow::anyhow!("no such recipe: {remedy}")).with_context(|| recipe.display().to_string())
}

/// Prints epochs, and a progress bar if standard error is a terminal.
struct Bar {
    bar: ProgressBar,
    epochs: usize,
    quiet: bool,
}

impl Bar {
    fn new(quiet: bool, epochs: usize) -> Self {
        let bar = if quiet || !std::io::stderr().is_terminal() { ProgressBar::hidden() } else { ProgressBar::new(1) };
        let style = "{bar:30} {msg}  {elapsed}, {eta} left";
        let style = ProgressStyle::with_template(style).expect("the template is valid");
        Self { bar: bar.with_style(style), epochs, quiet }
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Observer for Bar {
    fn step(&self, epoch: usize, step: usize, steps: usize, loss: f64) {
        self.bar.set_length((self.epochs * steps) as u64);
        self.bar.set_position((epoch * steps + step + 1) as u64);
        self.bar.set_message(format!("epoch {}/{}  loss {loss:.4}", epoch + 1, self.epochs));
    }

    fn epoch(&self, history: &[EpochRecord]) -> kinoprobe::error::Result<()> {
        let Some(record) = history.last().filter(|_| !self.quiet) else { return Ok(()) };
        let EpochRecord { epoch, rotation_loss, windows_per_second, waiting, .. } = record;
        let rotation = rotation_loss.map(|loss| format!("  rotations {loss:.4}")).unwrap_or_default();
        let validation = match record.validation {
            Some(validation) => format!("  val {:.4}, {:.1} %", validation.loss, 100.0 * validation.score),
            None => String::new(),
        };
        let score =
            if epoch.train_score.is_nan() { String::new() } else { format!(", {:.1} %", 100.0 * epoch.train_score) };
        self.bar.suspend(|| {
            cli::print_message(format_args!(
                "train: epoch {}/{}  loss {:.4}{score}{rotation}{validation}  rate {:.2e}  {windows_per_second:.1} inputs/s, {:.0} % waiting \
                 for data",
                epoch.epoch,
                self.epochs,
                epoch.train_loss,
                epoch.learning_rate,
                100.0 * waiting
            ));
        });
        Ok(())
    }
}
