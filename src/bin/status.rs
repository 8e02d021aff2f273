//! kinoprobe-status: shows how far the shards of a store, or of a list of shots, are.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use kinoprobe::cli::{self, Outcome};
use kinoprobe::report::table::Table;
use kinoprobe::shards::{self, Progress, ShardState, ShardStatus, Status};

/// Show how far the shards of kinoprobe-extract --shard or kinoprobe-shots --shard are: done, running, interrupted or waiting, with rates
/// and failures.
#[derive(Debug, Parser)]
#[command(name = "kinoprobe-status", version, after_help = EXAMPLES)]
struct Arguments {
    /// Directory of shards, with its shards.json
    #[arg(value_name = "SHARDS")]
    directory: PathBuf,
    /// Print one list instead of the table
    #[arg(long, value_enum)]
    list: Option<List>,
    /// Print JSON
    #[arg(long, conflicts_with = "list")]
    json: bool,
}

/// Lists for other programs.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum List {
    /// Ids of the clips that are not extracted yet
    Missing,
    /// Ids of the clips that failed, and their errors
    Failed,
    /// Indices of the shards that are not complete, as in --array of sbatch: 3,7,9
    Shards,
    /// The same, and the complete shards with clips that failed, for --retry-failed
    Retry,
}

const EXAMPLES: &str = "\
Examples:
  kinoprobe-status features/cnn.shards
  kinoprobe-status features/cnn.shards --json
  sbatch --array=$(kinoprobe-status features/cnn.shards --list shards) job.sh

A task that was killed counts as running until its machine shows that it has ended, or for 60 seconds.
Exit codes: 0 success; 1 error; 2 usage error";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::run("status", || {
        let status = shards::status(&arguments.directory)?;
        match arguments.list {
            _ if arguments.json => cli::print_line(serde_json::to_string_pretty(&status)?)?,
            None => cli::print(table(&status))?,
            Some(List::Shards) => cli::print_line(indices(&status, |shard| !shard.is_done()))?,
            Some(List::Retry) => {
                let retried = |shard: &ShardStatus| !shard.is_done() || shard.progress.failed > 0;
                cli::print_line(indices(&status, retried))?;
            }
            Some(List::Missing) => {
                for id in status.shards.iter().flat_map(|shard| &shard.missing_ids) {
                    cli::print_line(id)?;
                }
            }
            Some(List::Failed) => {
                for (id, error) in status.shards.iter().flat_map(|shard| &shard.failures) {
                    cli::print_line(format_args!("{id}\t{error}"))?;
                }
            }
        }
        Ok(Outcome::Done)
    })
}

/// Returns the indices of some shards, separated by commas.
fn indices(status: &Status, selected: impl Fn(&ShardStatus) -> bool) -> String {
    let shards = status.shards.iter().filter(|shard| selected(shard));
    shards.map(|shard| shard.shard.to_string()).collect::<Vec<_>>().join(",")
}

/// Formats the shards that are not complete, and the sums.
fn table(status: &Status) -> String {
    let states: Vec<String> = ShardState::ALL
        .iter()
        .map(|&state| (status.count(state), state.name()))
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    let mut text = format!(
        "{} ({}): {} shards: {}\n",
        status.directory.display(),
        status.method,
        status.shards.len(),
        states.join(", ")
    );
    let open: Vec<&ShardStatus> = status.shards.iter().filter(|shard| !shard.is_done()).collect();
    if !open.is_empty() {
        let header = ["task", "state", "shard", "clips", "done", "failed", "missing", "clips/s", "ETA"];
        let mut table = Table::new(&header, 2);
        for shard in open {
            let task = shard.host.as_ref().zip(shard.pid).map(|(host, pid)| format!("{host}:{pid}"));
            table.rows.push(vec![
                task.unwrap_or_default(),
                shard.state.name().to_string(),
                shard.shard.to_string(),
                shard.progress.clips.to_string(),
                shard.progress.done.to_string(),
                shard.progress.failed.to_string(),
                shard.progress.missing.to_string(),
                shard.progress.clips_per_second.map_or_else(String::new, |rate| format!("{rate:.2}")),
                shard.progress.eta_seconds.map_or_else(String::new, duration),
            ]);
        }
        text.push_str(&table.without_empty_columns().text());
    }
    let Progress { clips, done, failed, missing, clips_per_second, eta_seconds } = status.progress;
    text.push_str(&format!("{done} of {clips} clips done, {failed} failed, {missing} missing"));
    if let (Some(rate), Some(eta)) = (clips_per_second, eta_seconds) {
        text.push_str(&format!("; {rate:.2} clips/s, running shards end in {}", duration(eta)));
    }
    text.push('\n');
    text
}

fn duration(seconds: f64) -> String {
    humantime::format_duration(Duration::from_secs(seconds as u64)).to_string()
}
