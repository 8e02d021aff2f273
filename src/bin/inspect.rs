//! kinoprobe-inspect: describes a store or a manifest.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::{Parser, ValueEnum};
use kinoprobe::cli::{self, Outcome, output};
use kinoprobe::manifest::Manifest;
use kinoprobe::report::inspect::{self, Export};

/// Describe a store or a manifest (shape, provenance, statistics, failures), plot it and export it
#[derive(Debug, Parser)]
#[command(name = "kinoprobe-inspect", version, after_help = format!("\
Examples:
  kinoprobe-inspect features/cnn.h5
  kinoprobe-inspect features/cnn.h5 --manifest clips.csv --out inspect/cnn     plots a projection colored by label
  kinoprobe-inspect features/cnn.h5 --export npy --out inspect/cnn
  kinoprobe-inspect clips.csv --out inspect/clips                              counts per class, split and group

{}", cli::EXIT_CODES))]
struct Arguments {
    /// Feature store or descriptor store (.h5), or manifest
    #[arg(value_name = "STORE|MANIFEST")]
    source: PathBuf,
    /// Output directory for plots, tables and exports [default: only print]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Manifest with labels for coloring the projection of a store
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Directory that the paths of the manifest are relative to [default: the manifest's directory]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Also export the features; requires --out
    #[arg(long, requires = "out")]
    export: Option<Format>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// features.npy, pooled_mean.npy, pooled_max.npy, and clips.csv and rows.csv with the ids of their rows
    Npy,
    /// pooled.csv: id and mean-pooled features
    Csv,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::run("inspect", || {
        if let Some(out) = &arguments.out {
            output::check_directory(out)?;
        }
        let load = |source: &Path| Manifest::load_labels(source, arguments.root.as_deref());
        let inspection = if is_store(&arguments.source) {
            let manifest = arguments.manifest.as_deref().map(load).transpose()?;
            let export = arguments.export.map(|format| match format {
                Format::Npy => Export::Npy,
                Format::Csv => Export::Csv,
            });
            inspect::inspect_store(&arguments.source, manifest.as_ref(), arguments.out.as_deref(), export)?
        } else if arguments.export.is_some() {
            bail!("{}: --export requires a feature store", arguments.source.display());
        } else {
            inspect::inspect_manifest(&load(&arguments.source)?, arguments.out.as_deref())?
        };
        cli::print(&inspection.text)?;
        for file in &inspection.files {
            cli::print_line(format_args!("inspect: wrote {}", file.display()))?;
        }
        Ok(Outcome::Done)
    })
}

/// Returns `true` if the file has the extension of a store or journal.
fn is_store(path: &Path) -> bool {
    path.extension().is_some_and(|extension| matches!(extension.to_str(), Some("h5" | "hdf5" | "partial")))
}
