//! kinoprobe-demo: generates synthetic clips and posters as sample data for the other programs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use kinoprobe::cli::progress::{ProgressMode, TerminalProgress};
use kinoprobe::cli::{self, EXIT_CODES, Outcome};
use kinoprobe::demo::FileCounts;
use kinoprobe::demo::clips::{self, ClipSettings, ClipSummary, Labels};
use kinoprobe::demo::posters::{self, PosterSettings};
use kinoprobe::report::{compare, demo};

/// Generate synthetic data: clips of 15 classes (3 textures × 5 motions, of which a single frame shows only the texture),
/// the same clips labeled by motion, multi-label clips, or posters with genres and years.
#[derive(Debug, Parser)]
#[command(name = "kinoprobe-demo", version, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
struct Arguments {
    /// Output directory: manifest.csv, and clips/ with attributes.csv (texture and motion of each clip), or posters/
    #[arg(long, required_unless_present = "results")]
    out: Option<PathBuf>,
    /// Print what the runs on the demo clips in this directory recognize (texture, motion, both), and exit
    #[arg(long, value_name = "RUNS", exclusive = true)]
    results: Option<PathBuf>,
    /// Number of clips per texture and motion
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clips: u32,
    /// Seed of the random generator
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Label the clips by motion only: 5 classes, which a single frame does not show
    #[arg(long)]
    motions: bool,
    /// Generate multi-label clips: one to four labels per clip (texture, motion, letterbox, flicker)
    #[arg(long, conflicts_with = "motions")]
    multi_label: bool,
    /// Generate posters instead of clips, each with one to three genres and a year
    #[arg(long, conflicts_with_all = ["multi_label", "motions", "clips"])]
    posters: bool,
    /// Number of years, starting in 2000
    #[arg(long, default_value_t = 10, requires = "posters", value_parser = clap::value_parser!(u32).range(1..=100))]
    years: u32,
    /// Number of posters per year
    #[arg(long, default_value_t = 60, requires = "posters", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    per_year: u32,
    /// Hide the progress bar
    #[arg(long)]
    quiet: bool,
}

const EXAMPLES: &str = "\
Examples:
  kinoprobe-demo --out demo
  kinoprobe-demo --out more --clips 40 --seed 7
  kinoprobe-demo --out demo-motions --motions
  kinoprobe-demo --out demo-genres --multi-label
  kinoprobe-demo --out demo-posters --posters
  kinoprobe-demo --results demo/runs";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::run("demo", || {
        let out = match (arguments.out, &arguments.results) {
            (Some(out), _) => out,
            (None, Some(runs)) => return print_results(runs),
            (None, None) => unreachable!("clap requires one of them"),
        };
        let progress = TerminalProgress::new("demo", ProgressMode::from_quiet(arguments.quiet));
        let manifest = out.join("manifest.csv");
        if arguments.posters {
            let settings = PosterSettings {
                out,
                first_year: 2000,
                years: arguments.years as usize,
                posters_per_year: arguments.per_year as usize,
                seed: arguments.seed,
            };
            let FileCounts { created, kept } = posters::make(&settings, &progress)?;
            cli::print_line(format_args!("{}: {created} posters created, {kept} kept", manifest.display()))?;
        } else {
            let settings = ClipSettings {
                out,
                clips: arguments.clips as usize,
                seed: arguments.seed,
                labels: match (arguments.motions, arguments.multi_label) {
                    (true, _) => Labels::Motion,
                    (_, true) => Labels::Several,
                    _ => Labels::TextureAndMotion,
                },
            };
            let ClipSummary { files: FileCounts { created, kept }, codec } = clips::make(&settings, &progress)?;
            cli::print_line(format_args!("{}: {created} clips created, {kept} kept ({codec})", manifest.display()))?;
        }
        Ok(Outcome::Done)
    })
}

/// Prints the accuracy of runs on the demo clips.
fn print_results(runs: &Path) -> anyhow::Result<Outcome> {
    // There is no output directory to leave out.
    let runs_of_directory = compare::load_all(&[runs.to_path_buf()], runs)?.runs;
    let table = demo::textures_and_motions(&runs_of_directory).with_context(|| {
        format!(
            "{}: the labels are not those of the demo clips, such as dots-pan: pass the runs of `make demo`",
            runs.display()
        )
    })?;
    cli::print(format!("Accuracy on the validation and test clips:\n{}", table.text()))?;
    Ok(Outcome::Done)
}
