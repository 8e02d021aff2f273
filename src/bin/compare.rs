//! kinoprobe-compare: several runs side by side.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use kinoprobe::cli::{self, Outcome};
use kinoprobe::matrix::default_threads;
use kinoprobe::report::compare::{self, early, late};

/// Compares runs: one table with intervals, a test for every pair, fusions, time per stage, pictures.
#[derive(Debug, Parser)]
#[command(name = "kinoprobe-compare", version, after_help = format!("\
Examples:
  kinoprobe-compare runs/sift runs/cnn runs/cnn3d --out runs/compare
  kinoprobe-compare runs/cnn evaluation-of-other-predictions --out runs/compare

Writes report.html (opens by itself), compare.md, compare.csv, compare.json and the pictures.

{}", cli::EXIT_CODES))]
struct Arguments {
    /// Folders that kinoprobe-classify or kinoprobe-evaluate wrote.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Folder to write to.
    #[arg(long, value_name = "D")]
    out: PathBuf,
    /// Feature stores, beside those that the runs name, in which to look for near-duplicate clips.
    #[arg(long, value_name = "STORE", num_args = 1..)]
    stores: Vec<PathBuf>,
    /// Train no classifier on the methods' features side by side.
    #[arg(long)]
    no_early_fusion: bool,
    /// Threads of early fusion; the result does not depend on them.
    #[arg(long, default_value_t = default_threads())]
    threads: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::run("compare", || {
        let mut entries = compare::load_all(&arguments.runs)?;
        let (mut fusions, mut notes) = late::fuse(&entries)?;
        if !arguments.no_early_fusion {
            // Predictions compare without the features; what early fusion lacks is said and left out.
            match early::fuse(&entries, arguments.threads) {
                Ok(fusion) => fusions.extend(fusion),
                Err(error) => notes.push(format!("early fusion left out: {error}")),
            }
        }
        entries.extend(fusions);
        let mut comparison = compare::compare(&entries, &arguments.stores)?;
        comparison.warnings.extend(notes);
        compare::write(&arguments.out, &comparison)?;
        print!("{}", compare::summary(&comparison));
        println!("compare: wrote {}", arguments.out.join("report.html").display());
        Ok(Outcome::Done)
    })
}
