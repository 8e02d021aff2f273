//! kinoprobe-classify: fits a classifier to stored features.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use kinoprobe::classify::cross_validation::Folds;
use kinoprobe::classify::{ClassifierKind, training};
use kinoprobe::cli::{self, Outcome, output};
use kinoprobe::dataset::{Dataset, DatasetSplits, Task};
use kinoprobe::manifest::{Manifest, split};
use kinoprobe::matrix::default_threads;
use kinoprobe::recipe::{Classify, ClassifyFlags, Recipe, RunFiles, SearchFlags};
use kinoprobe::report::clips::PageFlags;
use kinoprobe::report::{self, ClipSources, Metrics, markdown};
use kinoprobe::runs::{self, RunContext, by_year, search};
use kinoprobe::store::{FeatureStore, Pooling};
use kinoprobe::value_parsers;

/// Fit a classifier to stored features and evaluate it on held-out clips
#[derive(Debug, Parser)]
#[command(name = "kinoprobe-classify", version, after_help = format!("\
Examples:
  kinoprobe-classify --features features/cnn.h5 --manifest clips.csv --out runs/cnn
  kinoprobe-classify --features features/cnn.h5 --manifest clips.csv --out runs/cnn-logistic --classifier logistic
  kinoprobe-classify --features features/clip.h5 --manifest clips.csv --out runs/clip --classifier bilstm --loss asymmetric
  kinoprobe-classify --features features/cnn.h5 --manifest clips.csv --out runs/cnn-svm --classifier svm --folds 5
      predicts each clip of train and val by a model that was fitted without it; test clips by a model of all of them
  kinoprobe-classify --features features/cnn.h5 --manifest clips.csv --out runs/cnn --classifier logistic --search
      tries penalties over nine decades and keeps the one with the best score on val; --search-folds 5 scores by cross-validation
  kinoprobe-classify --features features/cnn.h5 --manifest clips.csv --out runs/cnn --search dropout=0..0.6 hidden=128,512 --trials 20
      tries 20 random combinations; log:1e-4..1e-2 is a logarithmic range
  kinoprobe-classify --recipe runs/cnn/recipe.toml
      repeats a run, whose recipe contains the paths of its files; --out selects another directory
  kinoprobe-classify --features features/effnet.h5 --manifest posters.csv --recipe pipelines/posters.toml --out runs/posters
      one model per year of the manifest and one for all; --pool corrects the one for all by the clips of the year, --window 10 trains
      on decades, --by none trains one for all only
  kinoprobe-classify --features features/sift.h5 --manifest clips/ --out runs/sift --seeds 5 --learning-rate 0.003

Settings come from --recipe or, by default, from pipelines/METHOD.toml for the method of the store. Flags override the recipe;
a flag that the classifier does not support is an error.
Writes model.safetensors and model.onnx, predictions.csv, submission.csv (clips without a label), metrics.json, curves, tensorboard/,
confusion matrices, per_class.csv, label_errors_SPLIT.csv, recipe.toml, REPORT.md, report.html (self-contained, with thumbnails of the clips
behind each confusion), manifest.csv if a split was drawn, folds.csv with --folds, and search.csv and best.toml with --search. --by year
writes one such directory per model, and posters.json, years.csv, REPORT.md and report.html in the output directory.

{}", cli::EXIT_CODES))]
struct Arguments {
    /// Feature store
    #[arg(long, value_name = "FILE", required_unless_present_any = ["recipe", "list_classifiers"])]
    features: Option<PathBuf>,
    /// Manifest: CSV, one directory per class, or list, with the ids of the store
    #[arg(long, value_name = "FILE", required_unless_present_any = ["recipe", "list_classifiers"])]
    manifest: Option<PathBuf>,
    /// Directory that the paths of the manifest are relative to and must not leave [default: the manifest's directory, without this limit]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Output directory
    #[arg(long, value_name = "DIR", required_unless_present_any = ["recipe", "list_classifiers"])]
    out: Option<PathBuf>,
    /// Recipe instead of pipelines/METHOD.toml; the recipe of a run also names the files of the run
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// Seed of the split, for a manifest without splits [default: 0]
    #[arg(long)]
    split_seed: Option<u64>,
    /// Maximum number of threads; results do not depend on it
    #[arg(long, default_value_t = default_threads(), value_parser = value_parsers::between(1, value_parsers::MAX_THREADS))]
    threads: usize,
    /// Memory for sequences, such as 8G; what needs more is read from the store again [default: half of the available memory]
    #[arg(long, value_name = "BYTES", value_parser = value_parsers::bytes)]
    memory: Option<u64>,
    /// Print the recipe that would be used, and exit
    #[arg(long)]
    dry_run: bool,
    /// Print the names of the classifiers, or of those that support --OPTION, and exit
    #[arg(long, value_name = "OPTION", exclusive = true)]
    list_classifiers: Option<Option<String>>,
    /// Print neither progress nor tables
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    page: PageFlags,
    #[command(flatten)]
    flags: ClassifyFlags,
    #[command(flatten)]
    search: SearchFlags,
}

impl Arguments {
    /// Returns the files of the run. Flags take precedence over the recipe.
    fn files(&self) -> anyhow::Result<RunFiles> {
        let recipe = self.recipe.as_deref().map(Recipe::load).transpose()?.and_then(|recipe| recipe.run);
        let recipe = recipe.as_ref();
        let pick = |name: &str, flag: &Option<PathBuf>, recorded: Option<&PathBuf>| {
            let missing = || format!("--{name} is missing, and the recipe has no [run] table");
            flag.clone().or(recorded.cloned()).with_context(missing)
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
    if let Some(option) = &arguments.list_classifiers {
        let kinds = match option {
            None => ClassifierKind::ALL.to_vec(),
            Some(name) => ClassifyFlags::supporters(name).with_context(|| format!("unknown option --{name}"))?,
        };
        for kind in kinds {
            cli::print_line(kind.name())?;
        }
        return Ok(Outcome::Done);
    }
    let files = arguments.files()?;
    let mut store = FeatureStore::open(&files.features)?;
    let (mut recipe, unused) =
        Recipe::for_store(&store, arguments.recipe.as_deref(), &arguments.flags, &arguments.search)?;
    if let Some(bytes) = arguments.memory {
        let classifier = recipe.classify.classifier.name();
        ensure!(
            recipe.classify.pooling == Pooling::None,
            "--memory does not apply: {classifier} reads one vector per clip, not sequences"
        );
        store.set_cache_memory(bytes);
    }
    if !arguments.dry_run {
        output::check_directory(&files.out)?;
        runs::check_output(&files.out, recipe.classify.by)?;
    }
    let mut manifest = Manifest::load_labels(&files.manifest, files.root.as_deref())?;
    let count = recipe.classify.folds.or(recipe.classify.search.as_ref().and_then(|search| search.folds));
    let (folds, drawn) = match count {
        Some(count) => {
            (draw_folds(&mut manifest, count, recipe.classify.repeat.unwrap_or(1), files.split_seed)?, false)
        }
        None => (vec![], split::assign(&mut manifest, split::Fractions::default(), files.split_seed)?),
    };
    manifest.check_training()?;
    let by_year = recipe.classify.by.is_some();
    ensure!(!by_year || !arguments.page.is_given(), "--thumbnails does not apply: models by year have no thumbnails");
    let seeded = drawn || !folds.is_empty();
    ensure!(seeded || arguments.split_seed.is_none(), "--split-seed does not apply: the manifest has splits");
    let settings = recipe.classify.clone();
    let load = |pooling: Pooling| {
        let mut data = Dataset::join(&store, &manifest, pooling)?;
        // Models by year are multi-label even if every clip has one label.
        let default_task = settings.by.map(|_| Task::MultiLabel);
        data.task = settings.task.or(default_task).unwrap_or(data.task);
        data.warnings.splice(0..0, manifest.warnings.iter().cloned());
        let resampled = settings.resample.map(|rule| data.resample(rule, 0));
        Ok((data, resampled))
    };
    let (mut data, resampled) = load(recipe.classify.pooling)?;
    recipe.run = Some(files.absolute().context("the working directory does not exist")?);
    let log = |line: &str| {
        if !arguments.quiet {
            cli::print_message(format_args!("classify: {line}"))
        }
    };
    if store.untrained() {
        cli::print_message(format_args!(
            "classify: UNTRAINED features: the network has seeded weights, so the metrics do not measure {}",
            recipe.method
        ));
    }
    log(&format!("{} · {}: {}", recipe.method, recipe.classify.classifier.name(), describe(&data)));
    if !unused.is_empty() {
        log(&format!("keys of the recipe without an effect on this run: {}", unused.join(", ")));
    }
    if arguments.dry_run {
        cli::print(recipe.to_toml())?;
        data.warnings.iter().for_each(|warning| cli::print_message(format_args!("warning: {warning}")));
        return Ok(Outcome::Done);
    }
    let of_clip = |folds: &HashMap<String, usize>| data.train.ids.iter().map(|id| folds[id]).collect();
    let folds = count.map(|count| Folds { count, of_clip: folds.iter().map(of_clip).collect() });
    let (mut of_fold, mut search_report) = (vec![], None);
    if recipe.classify.search.is_some() {
        let bar = search_bar(arguments.quiet);
        let on_fit = |done: usize, fits: usize| {
            bar.set_length(fits as u64);
            bar.set_position(done as u64);
        };
        let load = |pooling| Ok(load(pooling)?.0);
        let searched = search::search(&recipe, data, folds.as_ref(), &load, arguments.threads, &on_fit)?;
        bar.finish_and_clear();
        log(&searched.report.one_line());
        (recipe, data) = (searched.recipe, searched.data);
        (of_fold, search_report) = (searched.of_fold, Some(searched.report));
    }
    let fits = folds.as_ref().map_or(recipe.classify.seeds, |folds| (folds.of_clip.len() * folds.count + 1) as u64);
    let bar = progress_bar(arguments.quiet, &recipe.classify, fits);
    let score_name = training::score_name(data.task);
    let context = RunContext {
        store: &store,
        recipe: &recipe,
        files: &files,
        folds,
        of_fold,
        search: search_report,
        threads: arguments.threads,
        on_epoch: &|fit, epoch| {
            bar.set_position(fit * recipe.classify.training.epochs as u64 + epoch.epoch as u64);
            bar.set_message(format!(
                "fit {fit}  epoch {}  loss {:.4}  val {:.4}  {score_name} {:.1} %",
                epoch.epoch,
                epoch.train_loss,
                epoch.val_loss,
                100.0 * epoch.val_score
            ));
        },
        on_message: &|line| bar.suspend(|| log(line)),
    };
    let write_splits = || -> anyhow::Result<()> {
        report::remove_drawn_manifest(&files.out, &manifest.source)?;
        if drawn {
            manifest.write_csv(&files.out.join("manifest.csv"))?;
        }
        if let Some(folds) = &context.folds {
            folds.write_csv(&data.train.ids, &files.out.join("folds.csv"))?;
        }
        Ok(())
    };
    let summary = match recipe.classify.by {
        Some(by) => {
            let summary = by_year::train(&context, &data, &manifest, by, resampled)?;
            write_splits()?;
            summary
        }
        None => {
            context.train(&data, &files.out)?;
            write_splits()?;
            let thumbnails = arguments.page.thumbnails();
            report::write_page(&files.out, &ClipSources { clips: &manifest.clips, data: Some(&data), thumbnails })?;
            report::complete(&files.out)?;
            markdown::summary(&Metrics::read(&files.out.join("metrics.json"))?)
        }
    };
    bar.finish_and_clear();
    if !arguments.quiet {
        cli::print(&summary)?;
    }
    log(&format!("wrote {} and report.html", files.out.join("REPORT.md").display()));
    Ok(Outcome::Done)
}

/// Draws the folds of each repetition, with the seeds `seed`, `seed` + 1, …
fn draw_folds(
    manifest: &mut Manifest,
    count: usize,
    repetitions: usize,
    seed: u64,
) -> anyhow::Result<Vec<HashMap<String, usize>>> {
    let seeds = (0..repetitions as u64).map(|repetition| seed.wrapping_add(repetition));
    Ok(seeds.map(|seed| split::assign_folds(manifest, count, seed)).collect::<kinoprobe::error::Result<_>>()?)
}

/// Describes the size of the data set.
fn describe(data: &DatasetSplits) -> String {
    let [train, val, test] = data.splits().map(|(_, part)| part.len());
    let (dim, classes, unlabeled) = (data.train.dim(), data.train.classes.len(), data.unlabeled.len());
    format!("{dim} features, {classes} classes, {train} train, {val} val, {test} test, {unlabeled} unlabeled clips")
}

/// Creates the progress bar of a search, whose steps are fits.
fn search_bar(quiet: bool) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("search {bar:30} {pos}/{len} fits  {elapsed}");
    ProgressBar::new(1).with_style(style.expect("the template is valid"))
}

/// Creates the progress bar of `fits` fits, whose steps are epochs.
fn progress_bar(quiet: bool, classify: &Classify, fits: u64) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() || !classify.classifier.capabilities().trained {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {msg}  {elapsed}").expect("the template is valid");
    ProgressBar::new(fits * classify.training.epochs as u64).with_style(style)
}
