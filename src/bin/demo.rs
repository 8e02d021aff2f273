//! kinoprobe-demo: clips and posters to try everything on.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use kinoprobe::cli::{self, EXIT_CODES, Outcome};
use kinoprobe::demo::{self, Settings, posters};

/// Make demo data: clips of 15 classes, 3 textures × 5 motions, or of several labels, where one frame tells the texture but
/// not the motion; or posters of several genres and of a year.
#[derive(Debug, Parser)]
#[command(name = "kinoprobe-demo", version, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
struct Arguments {
    /// Folder to write: manifest.csv, and clips/ with attributes.csv (texture and motion of each clip), or posters/
    #[arg(long)]
    out: PathBuf,
    /// Clips of each class
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clips: u32,
    /// Another seed gives other clips
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Give each clip one to four labels (texture, motion, letterbox, flicker) instead of one class
    #[arg(long)]
    multi_label: bool,
    /// Draw posters of several genres each, with a year, in place of clips
    #[arg(long, conflicts_with_all = ["multi_label", "clips"])]
    posters: bool,
    /// Years of posters, from 2000 on
    #[arg(long, default_value_t = 10, requires = "posters", value_parser = clap::value_parser!(u32).range(1..=100))]
    years: u32,
    /// Posters a year
    #[arg(long, default_value_t = 60, requires = "posters", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    a_year: u32,
    /// No progress bar
    #[arg(long)]
    quiet: bool,
}

const EXAMPLES: &str = "\
Examples:
  kinoprobe-demo --out demo
  kinoprobe-demo --out more --clips 40 --seed 7
  kinoprobe-demo --out demo-genres --multi-label
  kinoprobe-demo --out demo-posters --posters";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::run("demo", || {
        let bar = if arguments.quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
        bar.set_style(ProgressStyle::with_template("demo [{bar:30}] {pos}/{len}, {eta} left")?.progress_chars("=> "));
        if arguments.posters {
            let settings = posters::Settings {
                out: arguments.out,
                first: 2000,
                years: arguments.years as usize,
                posters: arguments.a_year as usize,
                seed: arguments.seed,
            };
            let made = posters::make(&settings, &bar)?;
            println!("{}/manifest.csv: {} posters drawn, {} kept", settings.out.display(), made.clips, made.kept);
            return Ok(Outcome::Done);
        }
        let settings = Settings {
            out: arguments.out,
            clips: arguments.clips as usize,
            seed: arguments.seed,
            multi_label: arguments.multi_label,
        };
        let made = demo::make(&settings, &bar)?;
        let out = settings.out.display();
        println!("{out}/manifest.csv: {} clips made, {} kept ({})", made.clips, made.kept, made.codec);
        Ok(Outcome::Done)
    })
}
