//! kinoprobe-demo: clips to try everything on.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use kinoprobe::cli::{self, EXIT_CODES, Outcome};
use kinoprobe::demo::{self, Settings};

/// Make demo clips: 15 classes, 3 textures × 5 motions, or several labels a clip; one frame tells the texture but not the
/// motion.
#[derive(Debug, Parser)]
#[command(name = "kinoprobe-demo", version, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
struct Arguments {
    /// Folder to write: manifest.csv, attributes.csv (texture and motion of each clip) and clips/
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
    /// No progress bar
    #[arg(long)]
    quiet: bool,
}

const EXAMPLES: &str = "\
Examples:
  kinoprobe-demo --out demo
  kinoprobe-demo --out more --clips 40 --seed 7
  kinoprobe-demo --out demo-genres --multi-label";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::run("demo", || {
        let bar = if arguments.quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
        bar.set_style(
            ProgressStyle::with_template("demo clips [{bar:30}] {pos}/{len}, {eta} left")?.progress_chars("=> "),
        );
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
