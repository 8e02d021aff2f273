//! kinoprobe-import: creates a manifest from a data set in its published layout.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Parser;
use kinoprobe::cli::{self, Outcome};
use kinoprobe::manifest::import::{self, Format, ImportOptions, LabelFilter};

/// Create a manifest from a data set in its published layout, and report which clips were kept, dropped and missing
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
    /// Layout of the data set
    format: Format,
    /// Label file of the data set, or the directory that contains it
    source: PathBuf,
    /// Manifest to write, with the columns id, path, labels, split, group and year
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Root directory of the videos, images and frame directories [default: the directory of the source]
    #[arg(long, value_name = "DIR")]
    clips: Option<PathBuf>,
    /// Labels to keep
    #[arg(long, value_name = "L,L", value_delimiter = ',', conflicts_with = "all_labels")]
    labels: Vec<String>,
    /// Keep all labels, including `N/A` and those that are not among MovieNet's 21 genres
    #[arg(long)]
    all_labels: bool,
    /// Split of trailers12k [default: 0]
    #[arg(long, value_name = "0|1|2", value_parser = clap::value_parser!(u8).range(0..=2))]
    split: Option<u8>,
    /// Separator in the column `labels` of a CSV file [default: |]
    #[arg(long, value_name = "CHARACTER")]
    separator: Option<char>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::run("import", || {
        if arguments.split.is_some() && arguments.format != Format::Trailers12k {
            bail!("--split applies to trailers12k only: the other layouts have at most one split");
        }
        let labels = match (arguments.all_labels, arguments.labels.is_empty()) {
            (true, _) => LabelFilter::All,
            (false, false) => LabelFilter::Only(arguments.labels),
            (false, true) => LabelFilter::FormatDefault,
        };
        let options = ImportOptions {
            clips: arguments.clips,
            labels,
            split: arguments.split.unwrap_or(0),
            separator: arguments.separator,
        };
        let imported = import::import(arguments.format, &arguments.source, &options)?;
        cli::print(&imported.summary)?;
        for warning in &imported.manifest.warnings {
            cli::print_line(format_args!("  warning: {warning}"))?;
        }
        imported.write_csv(&arguments.out)?;
        cli::print_line(format_args!("import: wrote {}", arguments.out.display()))?;
        Ok(Outcome::Done)
    })
}
