//! kinoprobe-compare: compares runs.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use kinoprobe::cli::{self, Outcome, output};
use kinoprobe::matrix::default_threads;
use kinoprobe::report::clips::PageFlags;
use kinoprobe::report::compare::{self, LoadedRuns};
use kinoprobe::runs::{self, fusions};
use kinoprobe::value_parsers;

/// Compare runs: metrics with intervals, pairwise significance tests, fusions, times per stage, plots
#[derive(Debug, Parser)]
#[command(name = "kinoprobe-compare", version, after_help = format!("\
Examples:
  kinoprobe-compare runs/sift runs/cnn runs/cnn3d --out runs/compare
  kinoprobe-compare runs --out runs/compare
      compares all runs in the directory, and lists the directories that cannot be compared with the reasons
  kinoprobe-compare runs/cnn evaluation-of-other-predictions --out runs/compare

The run with the highest accuracy or mAP on the validation split is marked; the test split is not used to select. The first line says
which one it is, and what the test split shows about it.
Writes report.html (self-contained, with thumbnails of the clips behind the confusions of the best run), compare.md, compare.csv,
compare.json and the figures, and the predictions of the fusions of all runs, as those of runs, to late-fusion/ (mean of the scores),
learned-fusion/ (logistic regression on the scores, fitted to the validation clips) and early-fusion/ (classifier on the concatenated
features). kinoprobe-predict applies the models of the last two to new clips; a learned fusion needs the directories of its runs.

{}", cli::EXIT_CODES))]
struct Arguments {
    /// Directories written by kinoprobe-classify or kinoprobe-evaluate, or directories that contain them
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Output directory
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Feature stores to search for near-duplicate clips, in addition to those of the runs
    #[arg(long, value_name = "STORE", num_args = 1..)]
    stores: Vec<PathBuf>,
    /// Do not train a classifier on the concatenated features of the methods
    #[arg(long)]
    no_early_fusion: bool,
    /// Maximum number of threads for early and learned fusion; results do not depend on it
    #[arg(long, default_value_t = default_threads(), value_parser = value_parsers::between(1, value_parsers::MAX_THREADS))]
    threads: usize,
    #[command(flatten)]
    page: PageFlags,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::run("compare", || {
        output::check_directory(&arguments.out)?;
        runs::check_comparison_output(&arguments.out)?;
        let LoadedRuns { mut runs, skipped } = compare::load_all(&arguments.runs, &arguments.out)?;
        let (fusions, notes) = fusions::fuse(&runs, &arguments.out, !arguments.no_early_fusion, arguments.threads)?;
        runs.extend(fusions);
        let mut comparison = compare::compare(&runs, &arguments.stores)?;
        comparison.warnings.extend(notes);
        comparison.skipped = skipped;
        compare::write(&arguments.out, &comparison, &runs, arguments.page.thumbnails())?;
        cli::print(compare::summary(&comparison))?;
        cli::print_line(format_args!("compare: wrote {}", arguments.out.join("report.html").display()))?;
        Ok(Outcome::Done)
    })
}
