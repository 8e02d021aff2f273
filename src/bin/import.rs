//! kinoprobe-import: creates a manifest from a data set in its published layout, or a store from features of another program.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Parser, Subcommand};
use kinoprobe::cli::{self, Outcome, output};
use kinoprobe::interchange::import::{ImportOptions as FeatureOptions, Pattern, import_features};
use kinoprobe::manifest::Manifest;
use kinoprobe::manifest::import::{self, Format, ImportOptions, LabelFilter};

/// Create a manifest from a data set in its published layout, or a feature store from the features of another program
#[derive(Debug, Parser)]
#[command(
    name = "kinoprobe-import",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    override_usage = "kinoprobe-import FORMAT SOURCE --out FILE [OPTIONS]\n       kinoprobe-import features SOURCE --out FILE.h5 [OPTIONS]",
    after_help = format!("\
Examples:
  kinoprobe-import movienet movienet/ --clips movienet/240P --out movienet.csv
  kinoprobe-import trailers85 trailers/ --out trailers.csv
  kinoprobe-import trailers12k mtgc.csv --clips trailers12k/ --split 1 --out mtgc-1.csv
  kinoprobe-import posters train.csv --out posters.csv
  kinoprobe-import csv table.csv --labels Drama,Comedy --out drama-or-comedy.csv
  kinoprobe-import features gist.mat --ids clips.csv --out features/gist.h5     see kinoprobe-import features --help

Reports which clips were kept, dropped and missing. Existing files are not overwritten.

{}", cli::EXIT_CODES)
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    manifest: Option<ManifestArguments>,
}

#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
enum Command {
    Features(FeatureArguments),
}

#[derive(Debug, Args)]
struct ManifestArguments {
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

/// Create a feature store from features that another program computed
#[derive(Debug, Args)]
#[command(after_help = format!("\
Examples:
  kinoprobe-import features gist.npy --ids ids.txt --out features/gist.h5
      a matrix (clips × features), and its ids, one per line or in the column id of a CSV file
  kinoprobe-import features clip.npz --out features/clip.h5
      the arrays `features` and `ids` of numpy.savez(\"clip.npz\", features=…, ids=…)
  kinoprobe-import features r21d/ --files '{{id}}_r21d.npy' --out features/r21d.h5
      one file per clip, as video_features writes them; each has one row per window
  kinoprobe-import features r21d/ --files '{{stem}}_r21d.npy' --manifest clips.csv --out r21d.h5
      the same if the files are named after the videos, and the manifest has other ids
  kinoprobe-import features gist.mat --key X --transpose --ids-key names --out features/gist.h5
      MATLAB variables: X with one clip per column, and a cell array of names
  kinoprobe-import features frames.parquet --sequences --out features/frames.h5
      one line per frame with the columns id and features (a list), or id and f0, f1, …
  kinoprobe-import features clips.pt --key '{{id}}' --out features/clip.h5
      torch.save of a dictionary from ids to tensors

Then, with labels and splits from a manifest that has the same ids:
  kinoprobe-classify --features features/gist.h5 --manifest clips.csv --out runs/gist
  make classify METHOD=gist MANIFEST=clips.csv        for a store in OUT/features/gist.h5

Formats, by extension:
  .npy, .npz      numbers of any type, and strings for ids; no pickled objects
  .mat            version 5 (save -v6 or -v7, scipy.io.savemat) and 7.3 (save -v7.3)
  .parquet        a list column, or one numeric column per feature
  .csv            one numeric column per feature, f0, f1, … or any names; a header is optional
  .pt, .pth       torch.save of a tensor or a dictionary of tensors; no code in it is executed

A clip has one vector (D) or a sequence of T rows (T × D); a file with all clips, N × D or
N × T × D. Values are stored as float32; NaN and infinity are errors. The store records the
source, its SHA-256, and weights = \"imported\".

{}", cli::EXIT_CODES))]
struct FeatureArguments {
    /// File with the features of all clips, or directory with one file per clip
    source: PathBuf,
    /// Store to write; an existing file is not overwritten
    #[arg(long, value_name = "FILE.h5")]
    out: PathBuf,
    /// Clips to import, with their paths; the others are excluded [default: all, with the id as path]
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Directory that the paths of the manifest are relative to and must not leave [default: the manifest's directory, without this limit]
    #[arg(long, value_name = "DIR", requires = "manifest")]
    root: Option<PathBuf>,
    /// Names of the files in a directory, with {id} or, for the name of the clip's file, {stem} [default: {id} and the extension]
    #[arg(long, value_name = "PATTERN")]
    files: Option<Pattern>,
    /// Variable with the features, or '{id}' for one variable per clip [default: the only matrix]
    #[arg(long, value_name = "NAME|PATTERN")]
    key: Option<String>,
    /// Variable or column with the ids [default: id, ids, clip_id, video_id, name or names, or the only one with strings]
    #[arg(long, value_name = "NAME", conflicts_with = "ids")]
    ids_key: Option<String>,
    /// File with the ids of the rows in order: one per line, or a CSV file with a column id
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,
    /// Matrices have one clip or row per column
    #[arg(long)]
    transpose: bool,
    /// Consecutive rows with the same id are the rows of one clip
    #[arg(long)]
    sequences: bool,
    /// Record clips of the manifest without features as failed, instead of an error
    #[arg(long, requires = "manifest")]
    allow_missing: bool,
    /// Name of the method, which names runs and reports [default: the name of the store]
    #[arg(long, value_name = "NAME")]
    method: Option<String>,
    /// What computed the features, such as "video_features r2plus1d_18"; recorded in the store
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    model: String,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::run("import", || match (arguments.command, arguments.manifest) {
        (Some(Command::Features(arguments)), _) => features(arguments),
        (None, Some(arguments)) => manifest(arguments),
        (None, None) => unreachable!("clap requires the arguments of a manifest without a subcommand"),
    })
}

fn features(arguments: FeatureArguments) -> anyhow::Result<Outcome> {
    let FeatureArguments { source, out, .. } = arguments;
    output::check_new_file(&out, "NAME.h5")?;
    let stem = out.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    if out.extension().is_none_or(|extension| extension != "h5") {
        bail!("{}: the name of a store ends with .h5: choose another --out", out.display());
    }
    let load = |path: &Path| Manifest::load_labels(path, arguments.root.as_deref());
    let manifest = arguments.manifest.as_deref().map(load).transpose()?;
    let options = FeatureOptions {
        source,
        files: arguments.files,
        key: arguments.key,
        ids_key: arguments.ids_key,
        ids: arguments.ids,
        transposed: arguments.transpose,
        sequences: arguments.sequences,
        allow_missing: arguments.allow_missing,
        method: arguments.method.unwrap_or(stem),
        model: arguments.model,
    };
    let summary = import_features(&options, manifest.as_ref(), &out, &cli::catch_interrupts()?)?;
    let (clips, rows, dim) = (summary.clips, summary.rows, summary.dim);
    cli::print_line(format_args!("import: {clips} clips, {rows} rows × {dim} features, from {}", summary.origin))?;
    for warning in &summary.warnings {
        cli::print_line(format_args!("  warning: {warning}"))?;
    }
    cli::print_line(format_args!("import: wrote {}", out.display()))?;
    Ok(Outcome::from_failures(summary.missing))
}

fn manifest(arguments: ManifestArguments) -> anyhow::Result<Outcome> {
    if arguments.split.is_some() && arguments.format != Format::Trailers12k {
        bail!("--split applies to trailers12k only: the other layouts have at most one split");
    }
    output::check_new_file(&arguments.out, "clips.csv")?;
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
}
