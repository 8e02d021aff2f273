//! kinoprobe-extract: extracts features from clips.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Parser;
use kinoprobe::cli::decoding::DecodingFlags;
use kinoprobe::cli::progress::{ProgressFlags, TerminalProgress};
use kinoprobe::cli::{self, EXIT_CODES, Outcome, output};
use kinoprobe::extract::{self, Action, Extractor, Options};
use kinoprobe::media::Shots;
use kinoprobe::memory;
use kinoprobe::models::WeightsChoice;
use kinoprobe::models::runtime::Device;
use kinoprobe::recipe::{ExtractionFlags, Recipe};
use kinoprobe::shards::{ShardChoice, load_manifest};

/// Extract features from the clips of a manifest into an HDF5 store.
///
/// To resume an interrupted run, run the same command again; clips that are already in the store are skipped. Clips that fail are
/// recorded in /failures of the store. Clips of other manifests stay in the store, unless --prune is given.
#[derive(Debug, Parser)]
#[command(name = "kinoprobe-extract", version, after_help = format!("{EXAMPLES}\n\n{SHARDS}\n\n{EXIT_CODES}"))]
struct Arguments {
    /// Method: the name of a recipe in pipelines/ (sift, sift-dense, cnn, cnn3d, effnet, clip, or your own)
    #[arg(long)]
    method: String,
    /// Recipe file instead of pipelines/METHOD.toml
    #[arg(long)]
    recipe: Option<PathBuf>,
    /// Manifest: CSV (id,path,label[,split,group,start,end]), one directory per class, list of paths, or tar archives of WebDataset
    #[arg(long)]
    manifest: PathBuf,
    /// Directory that the paths of the manifest are relative to and must not leave [default: the manifest's directory, without this limit]
    #[arg(long)]
    root: Option<PathBuf>,
    /// Store to write, usually features/METHOD.h5
    #[arg(long)]
    out: PathBuf,
    /// Extract only shard I of N (from 0) into the directory NAME.shards of --out, or the shard of this task: auto or auto/N; see below
    #[arg(long, value_name = "I/N", conflicts_with = "prune")]
    shard: Option<ShardChoice>,
    /// Wait while another task works on the shard, instead of failing
    #[arg(long, requires = "shard")]
    wait: bool,
    /// Shot list by kinoprobe-shots (required by sampling kind shots)
    #[arg(long, value_name = "FILE")]
    shots: Option<PathBuf>,
    /// Source of the network's weights: published, registry, seeded (untrained!) or a file (.onnx, .pth, .safetensors)
    /// [default: the card's first trained origin]
    #[arg(long)]
    weights: Option<WeightsChoice>,
    /// Device that runs the network: auto, native, cpu, openvino, cuda or tensorrt, or several GPUs as in cuda:0,1 or cuda:all; auto selects
    /// the fastest available [default: auto]
    #[arg(long)]
    device: Option<Device>,
    /// Directory of the model cards [default: models]
    #[arg(long)]
    models: Option<PathBuf>,
    #[command(flatten)]
    decoding: DecodingFlags,
    /// Retry clips that failed in an earlier run
    #[arg(long)]
    retry_failed: bool,
    /// Exit with 0 instead of 3 if some clips failed, for schedulers that regard every other exit code as a failure of the task
    #[arg(long)]
    allow_failed_clips: bool,
    /// Remove the clips from the store that are not in the manifest; by default, they are kept
    #[arg(long)]
    prune: bool,
    /// Print what would be done, without doing it
    #[arg(long)]
    dry_run: bool,
    /// Print how long decoding, transforming, the network and writing took, and which of them limited the run
    #[arg(long, conflicts_with = "dry_run")]
    timings: bool,
    #[command(flatten)]
    progress: ProgressFlags,
    #[command(flatten)]
    overrides: ExtractionFlags,
}

const EXAMPLES: &str = "\
Examples:
  kinoprobe-extract --method effnet --manifest clips.csv --root videos --out features/effnet.h5
  kinoprobe-extract --method cnn3d --manifest videos-by-class/ --out features/cnn3d.h5 --device cuda
  kinoprobe-extract --method cnn --frames 16 --manifest clips.csv --out features/cnn16.h5 --dry-run
  kinoprobe-extract --method sift --manifest clips.csv --out features/sift.descriptors.h5   (then kinoprobe-codebook)";

const SHARDS: &str = "\
Shards: tasks on one or several machines extract a manifest together, each with the same command and its own --shard. The first task
writes NAME.shards/shards.json; a task with other clips or settings is refused. Clips are assigned by id and size, so that the number of
tasks that run at the same time does not matter. A shard that was interrupted continues with the clip it was working on.
kinoprobe-status NAME.shards shows the progress, kinoprobe-merge NAME.shards --out NAME.h5 writes the store.
  kinoprobe-extract --method cnn --manifest clips.csv --out features/cnn.h5 --shard 3/200
  kinoprobe-extract --method cnn --manifest clips.csv --out features/cnn.h5 --shard auto
auto takes I and N from the first of: SLURM_ARRAY_TASK_ID with its MIN, MAX and STEP; SLURM_PROCID and SLURM_NTASKS (both: the tasks of
all jobs of the array are numbered consecutively); JOB_COMPLETION_INDEX (Kubernetes), which needs auto/N; RANK and WORLD_SIZE (torchrun).
With auto/N, the number of an array's job is SLURM_ARRAY_TASK_ID itself, so that the array may consist of some shards only.";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::run("extract", || {
        let cancel = cli::catch_interrupts()?;
        let progress = TerminalProgress::new("extract", arguments.progress.mode());
        if !arguments.dry_run {
            output::check_file(&arguments.out, "NAME.h5")?;
        }
        let path = Recipe::path(&arguments.method, arguments.recipe)?;
        let mut recipe = Recipe::load(&path)?;
        recipe.apply(&arguments.overrides, &path)?;
        if !matches!(recipe.extractor, Extractor::Network { .. }) {
            let given = [
                ("weights", arguments.weights.is_some()),
                ("device", arguments.device.is_some()),
                ("models", arguments.models.is_some()),
            ];
            if let Some((flag, _)) = given.iter().find(|(_, given)| *given) {
                bail!(
                    "--{flag} does not apply to {}: its extractor is {}, not a network",
                    recipe.method,
                    recipe.extractor.kind()
                );
            }
            // OpenCV's SIFT allocates its image pyramids for every frame, and descriptors grow with the frames; with one malloc
            // arena per thread, tens of megabytes would stay fragmented.
            memory::limit_malloc_arenas();
        }
        let shard = arguments.shard.map(|choice| choice.resolve(&|name| std::env::var(name).ok())).transpose()?;
        let options = Options {
            settings: recipe.extraction(),
            method: recipe.method,
            manifest: load_manifest(&arguments.manifest, arguments.root.as_deref(), &arguments.out, shard)?,
            shots: arguments.shots.as_deref().map(Shots::load).transpose()?,
            out: arguments.out,
            shard,
            wait: arguments.wait,
            weights: arguments.weights.unwrap_or_default(),
            model_sha256: None,
            card: None,
            models: arguments.models.unwrap_or_else(|| "models".into()),
            device: arguments.device.unwrap_or(Device::Auto),
            workers: arguments.decoding.workers,
            memory: arguments.decoding.memory,
            retry_failed: arguments.retry_failed,
            prune: arguments.prune,
            dry_run: arguments.dry_run,
        };
        let summary = extract::run(&options, &progress, &cancel)?;
        cli::print_line(&summary)?;
        if let (true, Action::Extracted { timings, .. }) = (arguments.timings, &summary.action) {
            cli::print_line(timings)?;
        }
        Ok(Outcome::from_failures(summary.failed()).allow_failures(arguments.allow_failed_clips))
    })
}
