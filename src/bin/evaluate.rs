//! kinoprobe-evaluate: measures predictions, without training.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use kinoprobe::cli::{self, Outcome};
use kinoprobe::evaluate::predictions::PredictionTable;
use kinoprobe::report::{self, Evaluation, Metrics, markdown};

/// Measures predictions: accuracy, per-class and averaged precision, recall and F1, confusion, calibration, intervals.
#[derive(Debug, Parser)]
#[command(name = "kinoprobe-evaluate", version, after_help = format!("\
Examples:
  kinoprobe-evaluate --predictions predictions.csv --out evaluation
      columns: id,label,predicted and, where there are scores, one `score:CLASS` per class; `split` and `group` optional

Writes metrics.json (`all`, and each split that is named), predictions.csv, confusion_*.csv and .svg, per_class.csv, REPORT.md.

{}", cli::EXIT_CODES))]
struct Arguments {
    /// Predictions to measure, CSV with columns id, label and predicted, or id, label and scores.
    #[arg(long, value_name = "F.csv")]
    predictions: PathBuf,
    /// Folder to write to.
    #[arg(long, value_name = "D")]
    out: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::run("evaluate", || {
        let table = PredictionTable::read_csv(&arguments.predictions)?;
        let source = arguments.predictions.clone();
        let metrics = report::write_evaluation(&arguments.out, &Evaluation { source, metrics: Metrics::new(), table })?;
        print!("{}", markdown::summary(&metrics));
        println!("evaluate: wrote {}", arguments.out.join("REPORT.md").display());
        Ok(Outcome::Done)
    })
}
