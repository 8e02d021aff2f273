//! kinoprobe-evaluate: measures predictions, without training.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use kinoprobe::Result;
use kinoprobe::classify::SavedModel;
use kinoprobe::cli::{self, Outcome};
use kinoprobe::dataset::{Dataset, Task};
use kinoprobe::evaluate::predictions::PredictionTable;
use kinoprobe::manifest::Manifest;
use kinoprobe::posters;
use kinoprobe::report::{self, Evaluation, Metrics, markdown};
use kinoprobe::runs::{self, by_year};
use kinoprobe::store::FeatureStore;

/// Measures predictions: accuracy or mAP, per-class and averaged precision, recall and F1, confusions, intervals.
#[derive(Debug, Parser)]
#[command(name = "kinoprobe-evaluate", version, after_help = format!("\
Examples:
  kinoprobe-evaluate --predictions predictions.csv --out evaluation
      columns: id,label,predicted and, where there are scores, one `score:CLASS` per class; `split` and `group` optional
      several labels a clip: a column `labels` in place of `label`, with `|` between them

  kinoprobe-evaluate --model runs/cnn --features features/cnn.h5 --manifest clips.csv --out evaluation
      a model that kinoprobe-classify saved, without training; a folder with posters.json: each year's model on its clips

Writes metrics.json (`all`, and each split that is named), predictions.csv, per_class.csv, classification_report.txt,
REPORT.md and its pictures.

{}", cli::EXIT_CODES))]
struct Arguments {
    /// Predictions to measure, CSV with columns id, label (or labels) and predicted, or id, label and scores.
    #[arg(long, value_name = "F.csv", required_unless_present = "model", conflicts_with = "model")]
    predictions: Option<PathBuf>,
    /// One label a clip, or several; where it is not given, the column `label` or `labels` decides.
    #[arg(long, value_enum, conflicts_with = "model")]
    task: Option<Task>,
    /// Folder of a saved model, in place of predictions.
    #[arg(long, value_name = "D", requires = "features", requires = "manifest")]
    model: Option<PathBuf>,
    /// Feature store that the model is to predict from.
    #[arg(long, value_name = "F.h5", requires = "model")]
    features: Option<PathBuf>,
    /// Manifest with the clips and their labels.
    #[arg(long, value_name = "F", requires = "model")]
    manifest: Option<PathBuf>,
    /// Folder below which the manifest's paths lie.
    #[arg(long, value_name = "D", requires = "model")]
    root: Option<PathBuf>,
    /// Folder to write to.
    #[arg(long, value_name = "D")]
    out: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::run("evaluate", || {
        let evaluation = match (&arguments.predictions, &arguments.model, &arguments.features, &arguments.manifest) {
            (Some(source), ..) => Evaluation {
                source: source.clone(),
                metrics: Metrics::new(),
                table: PredictionTable::read_csv(source, arguments.task)?,
            },
            (None, Some(model), Some(features), Some(manifest)) if model.join(posters::FILE).is_file() => {
                let manifest = Manifest::load(manifest, arguments.root.as_deref())?;
                let store = FeatureStore::open(features)?;
                print!("{}", by_year::evaluate(model, &store, &manifest, &arguments.out)?);
                println!("evaluate: wrote {}", arguments.out.join("REPORT.md").display());
                return Ok(Outcome::Done);
            }
            (None, Some(model), Some(features), Some(manifest)) => {
                evaluate_model(model, features, manifest, arguments.root.as_deref())?
            }
            _ => unreachable!("clap asks for either predictions, or a model with features and a manifest"),
        };
        let metrics = report::write_evaluation(&arguments.out, &evaluation)?;
        print!("{}", markdown::summary(&metrics));
        println!("evaluate: wrote {}", arguments.out.join("REPORT.md").display());
        Ok(Outcome::Done)
    })
}

fn evaluate_model(model: &Path, features: &Path, manifest: &Path, root: Option<&Path>) -> Result<Evaluation> {
    let store = FeatureStore::open(features)?;
    let manifest = Manifest::load(manifest, root)?;
    let saved = SavedModel::load(model)?;
    let data = Dataset::join_for_evaluation(&store, &manifest, saved.metadata.pooling)?;
    runs::evaluation(&saved, model, &store, &manifest, &data)
}
