//! kinoprobe-import: a manifest of a data set in the layout it is published in.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Parser;
use kinoprobe::cli::{self, Outcome};
use kinoprobe::manifest::import::{self, Format, Labels, Settings};

/// Makes a manifest of a data set in the layout it is published in, and says what was kept, dropped and missing.
#[derive(Debug, Parser)]
#[command(name = "kinoprobe-import", version, after_help = format!("\
Examples:
  kinoprobe-import movienet movienet/ --clips movienet/240P --out movienet.csv
  kinoprobe-import trailers85 trailers/ --out trailers.csv
  kinoprobe-import trailers12k mtgc.csv --clips trailers12k/ --split 1 --out mtgc-1.csv
  kinoprobe-import posters train.csv --out posters.csv
  kinoprobe-import csv table.csv --labels Drama,Comedy --out drama-or-comedy.csv

{}", cli::EXIT_CODES))]
struct Arguments {
    /// The data set's layout.
    format: Format,
    /// Its list, or the folder in which the list lies.
    source: PathBuf,
    /// Manifest to write: id, path, labels, split, group, year.
    #[arg(long, value_name = "F.csv")]
    out: PathBuf,
    /// Folder below which videos, images and folders of frames lie, where it is not the source's own.
    #[arg(long, value_name = "D")]
    clips: Option<PathBuf>,
    /// Keep these labels only.
    #[arg(long, value_name = "L,L", value_delimiter = ',', conflicts_with = "all_labels")]
    labels: Vec<String>,
    /// Keep all labels, also those outside MovieNet's 21 genres, and `N/A`.
    #[arg(long)]
    all_labels: bool,
    /// Which split of trailers12k [default: 0].
    #[arg(long, value_name = "0|1|2", value_parser = clap::value_parser!(u8).range(0..=2))]
    split: Option<u8>,
    /// What stands between labels in the column `labels` of a CSV [default: |].
    #[arg(long, value_name = "CHARACTER")]
    separator: Option<char>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::run("import", || {
        if arguments.split.is_some() && arguments.format != Format::Trailers12k {
            bail!("--split chooses among the splits of trailers12k; the other layouts have one or none");
        }
        let labels = match (arguments.all_labels, arguments.labels.is_empty()) {
            (true, _) => Labels::All,
            (false, false) => Labels::Only(arguments.labels),
            (false, true) => Labels::Usual,
        };
        let settings = Settings {
            clips: arguments.clips,
            labels,
            split: arguments.split.unwrap_or(0),
            separator: arguments.separator,
        };
        let imported = import::import(arguments.format, &arguments.source, &settings)?;
        print!("{}", imported.summary);
        imported.manifest.warnings.iter().for_each(|warning| println!("  warning: {warning}"));
        imported.write_csv(&arguments.out)?;
        println!("import: wrote {}", arguments.out.display());
        Ok(Outcome::Done)
    })
}
