//! kinoprobe-inspect: describes a store or a manifest.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::Parser;
use kinoprobe::cli::{self, Outcome, output};
use kinoprobe::interchange::export::{ExportOptions, Format};
use kinoprobe::manifest::Manifest;
use kinoprobe::report::inspect;
use kinoprobe::store::Pooling;

/// Describe a store or a manifest (shape, provenance, statistics, failures), plot it and export it
#[derive(Debug, Parser)]
#[command(name = "kinoprobe-inspect", version, after_help = format!("\
Examples:
  kinoprobe-inspect features/cnn.h5
  kinoprobe-inspect features/cnn.h5 --manifest clips.csv --out inspect/cnn     plots a projection colored by label
  kinoprobe-inspect features/cnn.h5 --manifest clips.csv --export parquet --out export/cnn
      export/cnn/pooled_mean.parquet: one row per clip with id, path, label, split, group and the mean of its features
      in Python: pandas.read_parquet('export/cnn/pooled_mean.parquet')
  kinoprobe-inspect features/cnn.h5 --manifest clips.csv --export npy --pooling none --out export/rows
      features.npy with all rows, and rows.csv with the id, label, split and time of each
  kinoprobe-inspect features/cnn.h5 --manifest clips.csv --export webdataset --out export/shards
      train-000000.tar, val-000000.tar, test-000000.tar: KEY.npy and KEY.json (id, path, labels, split, group) per clip
  kinoprobe-inspect clips.csv --out inspect/clips                              counts per class, split and group

The layout of stores is documented in docs/store.md.

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
    /// Directory that the paths of the manifest are relative to and must not leave [default: the manifest's directory, without this limit]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Also export the features, with the labels and splits of --manifest; existing files are not overwritten
    #[arg(long, requires = "out", value_name = "FORMAT")]
    export: Option<Format>,
    /// What to export: one vector per clip, or all rows [default: mean]
    #[arg(long, requires = "export")]
    pooling: Option<Pooling>,
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
            let pooling = arguments.pooling.unwrap_or(Pooling::Mean);
            let export = arguments.export.map(|format| ExportOptions { format, pooling, manifest: manifest.as_ref() });
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
