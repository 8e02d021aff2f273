//! kinoprobe-codebook: converts local descriptors to histograms of visual words.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::ensure;
use clap::Parser;
use kinoprobe::cancel::CancellationToken;
use kinoprobe::cli::progress::{ProgressMode, TerminalProgress};
use kinoprobe::cli::{self, EXIT_CODES, Outcome, output};
use kinoprobe::extract::Normalize;
use kinoprobe::extract::codebook::Codebook;
use kinoprobe::manifest::{Manifest, split};
use kinoprobe::progress::{Event, ProgressSink};
use kinoprobe::recipe::Recipe;
use kinoprobe::store::DescriptorStore;
use kinoprobe::value_parsers;

/// Cluster the descriptors of the training split into visual words, and compute the histogram of words of every frame.
///
/// If the manifest has no splits, they are drawn as in kinoprobe-classify: the same seed yields the same splits.
#[derive(Debug, Parser)]
#[command(name = "kinoprobe-codebook", version, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
struct Arguments {
    /// Descriptor store by `kinoprobe-extract --method sift`
    #[arg(long)]
    descriptors: PathBuf,
    /// Manifest: CSV, one directory per class, or list
    #[arg(long)]
    manifest: PathBuf,
    /// Directory that the paths of the manifest are relative to [default: the manifest's directory]
    #[arg(long)]
    root: Option<PathBuf>,
    /// Feature store to write, usually features/sift.h5
    #[arg(long)]
    out: PathBuf,
    /// Recipe file instead of pipelines/METHOD.toml
    #[arg(long)]
    recipe: Option<PathBuf>,
    /// Seed of the split, for a manifest without splits [default: 0]
    #[arg(long)]
    split_seed: Option<u64>,
    /// Print only warnings and errors
    #[arg(long)]
    quiet: bool,
    /// Number of visual words
    #[arg(long, help_heading = "Recipe overrides", value_parser = value_parsers::at_least(1_usize))]
    words: Option<usize>,
    /// Maximum number of k-means iterations
    #[arg(long, help_heading = "Recipe overrides", value_parser = value_parsers::at_least(1_usize))]
    max_iterations: Option<usize>,
    /// Convergence threshold of k-means: movement of the centers relative to the mean variance
    #[arg(long, help_heading = "Recipe overrides", value_parser = value_parsers::non_negative)]
    tolerance: Option<f64>,
    /// Seed of k-means++
    #[arg(long, help_heading = "Recipe overrides")]
    seed: Option<u64>,
    /// Normalization of histograms: none (counts), l1, l2 or power
    #[arg(long, help_heading = "Recipe overrides")]
    normalize: Option<Normalize>,
}

const EXAMPLES: &str = "\
Examples:
  kinoprobe-codebook --descriptors features/sift.descriptors.h5 --manifest clips.csv --out features/sift.h5
  kinoprobe-codebook --descriptors features/sift.descriptors.h5 --manifest clips.csv --out features/sift256.h5 \\
      --words 256 --normalize power";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::run("codebook", || codebook(&arguments, &cli::catch_interrupts()?))
}

fn codebook(arguments: &Arguments, cancel: &CancellationToken) -> anyhow::Result<Outcome> {
    let progress = TerminalProgress::new("codebook", ProgressMode::from_quiet(arguments.quiet));
    output::check_file(&arguments.out, "sift.h5")?;
    let store = DescriptorStore::open(&arguments.descriptors)?;
    let default = || PathBuf::from(format!("pipelines/{}.toml", store.provenance().method));
    let path = arguments.recipe.clone().unwrap_or_else(default);
    let mut settings = Recipe::load(&path)?
        .codebook
        .ok_or_else(|| anyhow::anyhow!("{}: no [codebook]; pass another recipe with --recipe", path.display()))?;
    settings.words = arguments.words.unwrap_or(settings.words);
    settings.max_iterations = arguments.max_iterations.unwrap_or(settings.max_iterations);
    settings.tolerance = arguments.tolerance.unwrap_or(settings.tolerance);
    settings.seed = arguments.seed.unwrap_or(settings.seed);
    settings.normalize = arguments.normalize.unwrap_or(settings.normalize);
    settings.validate().map_err(anyhow::Error::msg)?;

    let split_seed = arguments.split_seed.unwrap_or(0);
    let mut manifest = Manifest::load_labels(&arguments.manifest, arguments.root.as_deref())?;
    let drawn = split::assign(&mut manifest, split::Fractions::default(), split_seed)?;
    ensure!(drawn || arguments.split_seed.is_none(), "--split-seed does not apply: the manifest has splits");
    if manifest.clips.iter().all(|clip| clip.labels.is_empty()) {
        progress.report(Event::Warning("no clip has a label, so there is no held-out split: all clips are clustered"));
    }
    let start = Instant::now();
    let (codebook, training) = Codebook::train(&store, &manifest, &settings, cancel)?;
    let seconds = start.elapsed().as_secs_f64();
    let split = if drawn { format!(" (split drawn with seed {split_seed})") } else { String::new() };
    progress.report(Event::Info(&format!(
        "{} descriptors of {} training clips{split} → {} words in {seconds:.1} s, {} iterations",
        training.descriptors, training.clips, settings.words, training.iterations
    )));
    codebook.write(&store, &settings, seconds, &arguments.out, cancel)?;
    if !arguments.quiet {
        let (clips, failures) = (store.clips().len(), store.failures().len());
        cli::print_line(format_args!("{}: {clips} clips, {failures} failed earlier", arguments.out.display()))?;
    }
    Ok(Outcome::Done)
}
