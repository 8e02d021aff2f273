//! kinoprobe-classify: fits a classifier to stored features.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use kinoprobe::classify::{self, Overrides};
use kinoprobe::cli::{self, Outcome};
use kinoprobe::dataset::{Dataset, DatasetSplits, Task};
use kinoprobe::manifest::{Manifest, split};
use kinoprobe::matrix::default_threads;
use kinoprobe::recipe::{Recipe, RunFiles};
use kinoprobe::report::{Metrics, markdown};
use kinoprobe::runs::{Job, by_year};
use kinoprobe::store::FeatureStore;

/// Fits a classifier to stored features, and measures it on the clips held out.
#[derive(Debug, Parser)]
#[command(name = "kinoprobe-classify", version, after_help = format!("\
Examples:
  kinoprobe-classify --features features/cnn.h5 --manifest clips.csv --out runs/cnn
  kinoprobe-classify --features features/cnn.h5 --manifest clips.csv --out runs/cnn-logistic --classifier logistic
  kinoprobe-classify --features features/clip.h5 --manifest clips.csv --out runs/clip --classifier bilstm --loss asymmetric
  kinoprobe-classify --recipe runs/cnn/recipe.toml
      the same run again: its recipe names its files; --out writes elsewhere
  kinoprobe-classify --features features/effnet.h5 --manifest posters.csv --recipe pipelines/posters.toml --out runs/posters
      a model of genres for each year of the manifest, and one for all; --window 10 learns from decades, --by none for all only
  kinoprobe-classify --features features/sift.h5 --manifest clips/ --out runs/sift --seeds 5 --learning-rate 0.003

The settings come from pipelines/METHOD.toml, METHOD being the store's, or from --recipe; a flag goes before either.
Writes model.safetensors and model.onnx, predictions.csv, submission.csv (clips without a label), metrics.json, curves, tensorboard/,
confusion matrices, per_class.csv, recipe.toml, REPORT.md, and manifest.csv where the split was drawn here. --by writes such
a folder for every model, and posters.json, years.csv, REPORT.md and report.html above them.

{}", cli::EXIT_CODES))]
struct Arguments {
    /// Feature store.
    #[arg(long, value_name = "F.h5", required_unless_present = "recipe")]
    features: Option<PathBuf>,
    /// Manifest: CSV, folder per class, or list; its ids are those of the store.
    #[arg(long, value_name = "F", required_unless_present = "recipe")]
    manifest: Option<PathBuf>,
    /// Folder below which the manifest's paths lie.
    #[arg(long, value_name = "D")]
    root: Option<PathBuf>,
    /// Folder to write to.
    #[arg(long, value_name = "D", required_unless_present = "recipe")]
    out: Option<PathBuf>,
    /// Recipe, in place of pipelines/METHOD.toml; one that stands beside results names the files of their run too.
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// Seed of the split, where the manifest has none (0 where it is not given).
    #[arg(long)]
    split_seed: Option<u64>,
    /// Threads; the result does not depend on them.
    #[arg(long, default_value_t = default_threads())]
    threads: usize,
    /// Say what would be fitted, and stop.
    #[arg(long)]
    dry_run: bool,
    /// Show no progress and no table.
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    values: Overrides,
}

impl Arguments {
    /// The files of the run: as given, else as the recipe has them.
    fn files(&self) -> anyhow::Result<RunFiles> {
        let recipe = self.recipe.as_deref().map(Recipe::load).transpose()?.and_then(|recipe| recipe.run);
        let recipe = recipe.as_ref();
        let pick = |name: &str, given: &Option<PathBuf>, recorded: Option<&PathBuf>| {
            let missing = || format!("--{name} is missing, and the recipe has no [run] that names it");
            given.clone().or(recorded.cloned()).with_context(missing)
        };
        Ok(RunFiles {
            features: pick("features", &self.features, recipe.map(|run| &run.features))?,
            manifest: pick("manifest", &self.manifest, recipe.map(|run| &run.manifest))?,
            root: match self.manifest {
                Some(_) => self.root.clone(),
                None => self.root.clone().or(recipe.and_then(|run| run.root.clone())),
            },
            out: pick("out", &self.out, recipe.map(|run| &run.out))?,
            split_seed: self.split_seed.or(recipe.map(|run| run.split_seed)).unwrap_or(0),
        })
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::run("classify", || classify(&arguments))
}

fn classify(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let files = arguments.files()?;
    let store = FeatureStore::open(&files.features)?;
    let mut recipe = classify::recipe_of(&store, arguments.recipe.as_deref(), &arguments.values)?;
    let mut manifest = Manifest::load(&files.manifest, files.root.as_deref())?;
    let drawn = split::assign(&mut manifest, split::Fractions::default(), files.split_seed)?;
    manifest.check_training()?;
    let mut data = Dataset::join(&store, &manifest, recipe.classify.pooling)?;
    // Models by year say of every label by itself whether a poster has it.
    let of_models = recipe.classify.by.map(|_| Task::MultiLabel);
    data.task = recipe.classify.task.or(of_models).unwrap_or(data.task);
    recipe.run = Some(files.absolute().context("the working directory is gone")?);
    let say = |line: &str| {
        if !arguments.quiet {
            eprintln!("classify: {line}")
        }
    };
    if store.untrained() {
        eprintln!(
            "classify: UNTRAINED features: their network had seeded weights, so the numbers say nothing of {}",
            recipe.method
        );
    }
    say(&format!("{} · {}: {}", recipe.method, classify::name(recipe.classify.classifier), sizes(&data)));
    data.warnings.splice(0..0, manifest.warnings.iter().cloned());
    if arguments.dry_run {
        print!("{}", toml::to_string_pretty(&recipe).context("the recipe as TOML")?);
        data.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
        return Ok(Outcome::Done);
    }
    let resampled = recipe.classify.resample.map(|rule| data.resample(rule, 0));
    let bar = progress_bar(arguments.quiet, &recipe);
    let measure = classify::training::measure(data.task);
    let job = Job {
        store: &store,
        recipe: &recipe,
        files: &files,
        threads: arguments.threads,
        progress: &|seed, epoch| {
            bar.set_position(seed * recipe.classify.training.epochs as u64 + epoch.epoch as u64);
            bar.set_message(format!(
                "seed {seed}  epoch {}  loss {:.4}  val {:.4}  {measure} {:.1} %",
                epoch.epoch,
                epoch.train_loss,
                epoch.val_loss,
                100.0 * epoch.val_score
            ));
        },
        say: &|line| bar.suspend(|| say(line)),
    };
    let summary = match recipe.classify.by {
        Some(by) => by_year::fit(&job, &data, &manifest, by, resampled)?,
        None => {
            job.run(&data, &files.out)?;
            markdown::summary(&Metrics::read(&files.out.join("metrics.json"))?)
        }
    };
    bar.finish_and_clear();
    if drawn {
        manifest.write_csv(&files.out.join("manifest.csv"))?;
    }
    if !arguments.quiet {
        print!("{summary}");
    }
    say(&format!("wrote {}", files.out.join("REPORT.md").display()));
    Ok(Outcome::Done)
}

/// How much there is of what.
fn sizes(data: &DatasetSplits) -> String {
    let [train, val, test] = data.splits().map(|(_, part)| part.len());
    let (dim, classes, unlabeled) = (data.train.dim(), data.train.classes.len(), data.unlabeled.len());
    format!("{dim} features, {classes} classes, {train} train, {val} val, {test} test, {unlabeled} unlabeled clips")
}

fn progress_bar(quiet: bool, recipe: &Recipe) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() || !recipe.classify.classifier.is_trained() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {msg}  {elapsed}").expect("the template is well-formed");
    ProgressBar::new(recipe.classify.seeds * recipe.classify.training.epochs as u64).with_style(style)
}
