//! kinoprobe-codebook: converts local descriptors to histograms of visual words, or to Fisher vectors.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::ensure;
use clap::Parser;
use kinoprobe::cancel::CancellationToken;
use kinoprobe::cli::progress::{ProgressMode, TerminalProgress};
use kinoprobe::cli::{self, EXIT_CODES, Outcome, output};
use kinoprobe::extract::codebook::Codebook;
use kinoprobe::extract::{DESCRIPTOR_LEN, Encoding, MAX_CELLS, Normalize};
use kinoprobe::manifest::{Manifest, split};
use kinoprobe::progress::{Event, ProgressSink};
use kinoprobe::recipe::Recipe;
use kinoprobe::store::DescriptorStore;
use kinoprobe::value_parsers;

/// Cluster the descriptors of the training split into visual words, and compute the histogram of words, or the Fisher vector, of every
/// frame or of each cell of a spatial pyramid.
///
/// If the manifest has no splits, they are drawn as in kinoprobe-classify: the same seed yields the same splits.
#[derive(Debug, Parser)]
#[command(name = "kinoprobe-codebook", version, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
struct Arguments {
    /// Descriptor store by `kinoprobe-extract --method sift` or `sift-dense`
    #[arg(long)]
    descriptors: PathBuf,
    /// Manifest: CSV, one directory per class, or list
    #[arg(long)]
    manifest: PathBuf,
    /// Directory that the paths of the manifest are relative to and must not leave [default: the manifest's directory, without this limit]
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
    /// Maximum number of iterations of k-means, and of expectation maximization for Fisher vectors
    #[arg(long, help_heading = "Recipe overrides", value_parser = value_parsers::at_least(1_usize))]
    max_iterations: Option<usize>,
    /// Convergence threshold of k-means: movement of the centers relative to the mean variance
    #[arg(long, help_heading = "Recipe overrides", value_parser = value_parsers::non_negative)]
    tolerance: Option<f64>,
    /// Seed of k-means++
    #[arg(long, help_heading = "Recipe overrides")]
    seed: Option<u64>,
    /// Maximum number of descriptors that are clustered, drawn at random; bounds the memory
    #[arg(long, help_heading = "Recipe overrides", value_parser = value_parsers::at_least(1_usize))]
    samples: Option<usize>,
    /// Number of principal components that descriptors are projected onto before they are clustered
    #[arg(long, help_heading = "Recipe overrides", value_parser = value_parsers::between(1, DESCRIPTOR_LEN))]
    components: Option<usize>,
    /// Spatial pyramid of a dense grid: numbers of cells along an axis, such as 1,2,4
    #[arg(long, help_heading = "Recipe overrides", value_name = "CELLS", value_delimiter = ',', value_parser = value_parsers::between(1, MAX_CELLS))]
    pyramid: Option<Vec<usize>>,
    /// What the descriptors of each word and cell become: histogram (their number) or fisher (a Fisher vector)
    #[arg(long, help_heading = "Recipe overrides")]
    encoding: Option<Encoding>,
    /// Normalization: none, l1, l2, power (for histograms, the Hellinger kernel) or chi2 (for the χ² kernel)
    #[arg(long, help_heading = "Recipe overrides")]
    normalize: Option<Normalize>,
}

const EXAMPLES: &str = "\
Examples:
  kinoprobe-codebook --descriptors features/sift.descriptors.h5 --manifest clips.csv --out features/sift.h5
  kinoprobe-codebook --descriptors features/sift.descriptors.h5 --manifest clips.csv --out features/sift256.h5 \\
      --words 256 --normalize power
  kinoprobe-codebook --descriptors features/sift-dense.descriptors.h5 --manifest clips.csv --out features/sift-dense.h5 \\
      --encoding histogram --words 1000 --normalize chi2";

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
    let mut extraction = Recipe::load(&path)?.extraction();
    let settings = (extraction.codebook.as_mut())
        .ok_or_else(|| anyhow::anyhow!("{}: no [codebook]; pass another recipe with --recipe", path.display()))?;
    settings.words = arguments.words.unwrap_or(settings.words);
    settings.max_iterations = arguments.max_iterations.unwrap_or(settings.max_iterations);
    settings.tolerance = arguments.tolerance.unwrap_or(settings.tolerance);
    settings.seed = arguments.seed.unwrap_or(settings.seed);
    settings.samples = arguments.samples.or(settings.samples);
    settings.components = arguments.components.or(settings.components);
    settings.pyramid = arguments.pyramid.clone().unwrap_or_else(|| settings.pyramid.clone());
    settings.encoding = arguments.encoding.unwrap_or(settings.encoding);
    settings.normalize = arguments.normalize.unwrap_or(settings.normalize);
    let settings = settings.clone();
    extraction.validate().map_err(anyhow::Error::msg)?;

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
        "{} of {} descriptors of {} training clips{split} → {} words in {seconds:.1} s, {} iterations",
        training.clustered, training.descriptors, training.clips, settings.words, training.iterations
    )));
    codebook.write(&store, &settings, seconds, &arguments.out, cancel)?;
    if !arguments.quiet {
        let (clips, failures) = (store.clips().len(), store.failures().len());
        cli::print_line(format_args!("{}: {clips} clips, {failures} failed earlier", arguments.out.display()))?;
    }
    Ok(Outcome::Done)
}
