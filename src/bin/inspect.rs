//! kinoprobe-inspect: what a store or a manifest holds.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::{Parser, ValueEnum};
use kinoprobe::cli::{self, Outcome};
use kinoprobe::manifest::Manifest;
use kinoprobe::report::inspect::{self, Export};

/// Says what a store or a manifest holds: shape, provenance, statistics, failures; draws and exports it.
#[derive(Debug, Parser)]
#[command(name = "kinoprobe-inspect", version, after_help = format!("\
Examples:
  kinoprobe-inspect features/cnn.h5
  kinoprobe-inspect features/cnn.h5 --manifest clips.csv --out inspect/cnn     draws a projection colored by label
  kinoprobe-inspect features/cnn.h5 --export npy --out inspect/cnn
  kinoprobe-inspect clips.csv --out inspect/clips                              counts per class, split and group

{}", cli::EXIT_CODES))]
struct Arguments {
    /// A feature store, a descriptor store (.h5), or anything that serves as a manifest.
    #[arg(value_name = "STORE|MANIFEST")]
    source: PathBuf,
    /// Folder for pictures, tables and exports; without, everything is only printed.
    #[arg(long, value_name = "D")]
    out: Option<PathBuf>,
    /// Manifest with the labels that color the projection of a store.
    #[arg(long, value_name = "F")]
    manifest: Option<PathBuf>,
    /// Folder below which the manifest's paths lie.
    #[arg(long, value_name = "D")]
    root: Option<PathBuf>,
    /// Also export the features; needs --out.
    #[arg(long, requires = "out")]
    export: Option<Format>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// features.npy, pooled_mean.npy, pooled_max.npy, and clips.csv and rows.csv that say whose they are
    Npy,
    /// pooled.csv: id and mean-pooled features
    Csv,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::run("inspect", || {
        let load = |source: &Path| Manifest::load(source, arguments.root.as_deref());
        let findings = if is_store(&arguments.source) {
            let manifest = arguments.manifest.as_deref().map(load).transpose()?;
            let export = arguments.export.map(|format| match format {
                Format::Npy => Export::Npy,
                Format::Csv => Export::Csv,
            });
            inspect::inspect_store(&arguments.source, manifest.as_ref(), arguments.out.as_deref(), export)?
        } else if arguments.export.is_some() {
            bail!("{}: --export serves a feature store only", arguments.source.display());
        } else {
            inspect::inspect_manifest(&load(&arguments.source)?, arguments.out.as_deref())?
        };
        print!("{}", findings.text);
        for file in &findings.files {
            println!("inspect: wrote {}", file.display());
        }
        Ok(Outcome::Done)
    })
}

/// Whether the file is HDF5 by its name.
fn is_store(path: &Path) -> bool {
    path.extension().is_some_and(|extension| matches!(extension.to_str(), Some("h5" | "hdf5" | "partial")))
}
