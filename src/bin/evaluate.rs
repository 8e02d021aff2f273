//! kinoprobe-evaluate: evaluates predictions or saved models.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::ensure;
use clap::Parser;
use kinoprobe::Result;
use kinoprobe::classify::{RunIdentity, RunInputs, SavedModel};
use kinoprobe::cli::{self, Outcome, output};
use kinoprobe::dataset::{Dataset, DatasetSplits, Task};
use kinoprobe::evaluate::predictions::PredictionTable;
use kinoprobe::manifest::Manifest;
use kinoprobe::posters;
use kinoprobe::report::clips::PageFlags;
use kinoprobe::report::{self, ClipSources, Evaluation, markdown};
use kinoprobe::runs::{self, by_year};
use kinoprobe::store::FeatureStore;

/// Evaluate predictions: accuracy or mAP, precision, recall and F1 (per class and averaged), confusions, intervals
#[derive(Debug, Parser)]
#[command(name = "kinoprobe-evaluate", version, after_help = format!("\
Examples:
  kinoprobe-evaluate --predictions predictions.csv --out evaluation
      columns: id,label,predicted and optionally split, group and one `score:CLASS` per class
      multi-label: a column `labels` instead of `label`, separated by `|`

  kinoprobe-evaluate --model runs/cnn --features features/cnn.h5 --manifest clips.csv --out evaluation
      evaluates a model saved by kinoprobe-classify; for a directory with posters.json, each model on the clips of its year

Writes metrics.json (`all` and each split), predictions.csv, per_class.csv, label_errors_SPLIT.csv, classification_report.txt, REPORT.md
and its figures, and report.html (self-contained; with --model, with thumbnails of the clips behind each confusion).

{}", cli::EXIT_CODES))]
struct Arguments {
    /// Predictions to evaluate: CSV with columns id, label (or labels) and predicted, or id, label and scores
    #[arg(long, value_name = "FILE", required_unless_present = "model", conflicts_with = "model")]
    predictions: Option<PathBuf>,
    /// Task of the predictions [default: single-label for a column `label`, multi-label for `labels`]
    #[arg(long, value_enum, conflicts_with = "model")]
    task: Option<Task>,
    /// Directory of a saved model, instead of predictions
    #[arg(long, value_name = "DIR", requires = "features", requires = "manifest")]
    model: Option<PathBuf>,
    /// Feature store to predict from
    #[arg(long, value_name = "FILE", requires = "model")]
    features: Option<PathBuf>,
    /// Manifest with the clips and their labels
    #[arg(long, value_name = "FILE", requires = "model")]
    manifest: Option<PathBuf>,
    /// Directory that the paths of the manifest are relative to and must not leave [default: the manifest's directory, without this limit]
    #[arg(long, value_name = "DIR", requires = "model")]
    root: Option<PathBuf>,
    /// Evaluate the model on features of another network than the one it was trained on
    #[arg(long, requires = "model")]
    force: bool,
    /// Output directory
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    page: PageFlags,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::run("evaluate", || {
        output::check_directory(&arguments.out)?;
        runs::check_evaluation_output(&arguments.out)?;
        let without_clips = arguments.model.as_ref().is_none_or(|model| model.join(posters::INDEX_FILE).is_file());
        ensure!(
            !without_clips || !arguments.page.is_given(),
            "--thumbnails applies to --model with a single model only"
        );
        let (evaluation, clips) =
            match (&arguments.predictions, &arguments.model, &arguments.features, &arguments.manifest) {
                (Some(source), ..) => {
                    let table = PredictionTable::read_csv(source, arguments.task)?;
                    let (identity, inputs) = (RunIdentity::default(), RunInputs::default());
                    (Evaluation { source: source.clone(), identity, inputs, table }, None)
                }
                (None, Some(model), Some(features), Some(manifest)) if model.join(posters::INDEX_FILE).is_file() => {
                    let manifest = Manifest::load_labels(manifest, arguments.root.as_deref())?;
                    let store = FeatureStore::open(features)?;
                    let (summary, has_report) =
                        by_year::evaluate(model, &store, &manifest, &arguments.out, arguments.force)?;
                    cli::print(summary)?;
                    let written = if has_report { arguments.out.join("REPORT.md") } else { arguments.out };
                    cli::print_line(format_args!("evaluate: wrote {}", written.display()))?;
                    return Ok(Outcome::Done);
                }
                (None, Some(model), Some(features), Some(manifest)) => {
                    let (evaluation, manifest, data) =
                        evaluate_model(model, features, manifest, arguments.root.as_deref(), arguments.force)?;
                    (evaluation, Some((manifest, data)))
                }
                _ => unreachable!("clap requires predictions, or a model with features and a manifest"),
            };
        let metrics = report::write_evaluation(&arguments.out, &evaluation)?;
        let sources = clips.as_ref().map(|(manifest, data)| ClipSources {
            clips: &manifest.clips,
            data: Some(data),
            thumbnails: arguments.page.thumbnails(),
        });
        report::write_page(&arguments.out, &sources.unwrap_or_default())?;
        report::complete(&arguments.out)?;
        cli::print(markdown::summary(&metrics))?;
        let written = arguments.out.join("REPORT.md");
        cli::print_line(format_args!("evaluate: wrote {} and report.html", written.display()))?;
        Ok(Outcome::Done)
    })
}

fn evaluate_model(
    model: &Path,
    features: &Path,
    manifest: &Path,
    root: Option<&Path>,
    force: bool,
) -> Result<(Evaluation, Manifest, DatasetSplits)> {
    let store = FeatureStore::open(features)?;
    let manifest = Manifest::load_labels(manifest, root)?;
    let saved = SavedModel::load(model)?;
    let data = Dataset::join_for_evaluation(&store, &manifest, saved.metadata.pooling)?;
    let evaluation = runs::evaluation(&saved, model, &store, &manifest, &data, force)?;
    Ok((evaluation, manifest, data))
}
