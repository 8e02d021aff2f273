//! kinoprobe-merge: merges shards into one store, or one list of shots.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use kinoprobe::cli::progress::{ProgressFlags, TerminalProgress};
use kinoprobe::cli::{self, EXIT_CODES, Outcome, output};
use kinoprobe::shards::{self, MergeOptions};

/// Merge the shards of kinoprobe-extract --shard into one store, or those of kinoprobe-shots --shard into one list.
///
/// The result equals the store of an extraction without shards, except for the times in its attributes, or the list of one run. All shards
/// must have the same recipe, model, precision and decoder; missing, unexpected and duplicate clips are errors. The shards are kept.
///
/// With --virtual, nothing is copied: the store refers to the shards, as a virtual dataset of HDF5. Its clips have the order of the shards
/// instead of that of the manifest. Keep the shards, and move the store only together with them. The programs of kinoprobe check that they
/// are there and unchanged; in other programs, features of missing shards are NaN.
#[derive(Debug, Parser)]
#[command(name = "kinoprobe-merge", version, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
struct Arguments {
    /// Directory of shards with its shards.json, or stores to concatenate
    #[arg(required = true, value_name = "SHARDS")]
    shards: Vec<PathBuf>,
    /// Store to write, usually features/METHOD.h5, or list of shots. A file with clips that the shards do not have is not replaced
    #[arg(long)]
    out: PathBuf,
    /// Merge the shards that are complete although others are missing
    #[arg(long)]
    partial: bool,
    /// Write a store that refers to the shards instead of copying their rows
    #[arg(long = "virtual")]
    virtual_rows: bool,
    /// Check the shards, without writing the store
    #[arg(long)]
    dry_run: bool,
    /// Exit with 0 instead of 3 if some clips failed
    #[arg(long)]
    allow_failed_clips: bool,
    #[command(flatten)]
    progress: ProgressFlags,
}

const EXAMPLES: &str = "\
Examples:
  kinoprobe-merge features/cnn.shards --out features/cnn.h5
  kinoprobe-merge features/cnn.shards --out features/cnn.h5 --virtual   (takes no space for features)
  kinoprobe-merge features/cnn.shards --out features/cnn.h5 --partial   (and again when the other shards are complete)
  kinoprobe-merge trailers-2023.h5 trailers-2024.h5 --out trailers.h5";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::run("merge", || {
        let cancel = cli::catch_interrupts()?;
        let progress = TerminalProgress::new("merge", arguments.progress.mode());
        if !arguments.dry_run {
            output::check_file(&arguments.out, "NAME.h5")?;
        }
        let Arguments { shards, out, partial, virtual_rows, dry_run, allow_failed_clips, .. } = arguments;
        let options = MergeOptions { shards, out, partial, virtual_rows, dry_run };
        let summary = shards::merge(&options, &progress, &cancel)?;
        cli::print_line(&summary)?;
        Ok(Outcome::from_failures(summary.failed).allow_failures(allow_failed_clips))
    })
}
