//! Code shared by the programs: common flags, checks of `--out`, exit codes, error output, signal handling and progress on the terminal.

pub mod decoding;
pub mod output;
pub mod progress;

use std::fmt::Display;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cancel::CancellationToken;
use crate::error::Error;

/// Outcome of a program that did not return an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything succeeded: exit code 0.
    Done,
    /// Some clips or files failed; they were recorded and skipped: exit code 3, or 0 if that is allowed.
    Partial {
        /// Number of failures.
        failed: usize,
        /// Whether the program succeeds nevertheless (`--allow-failed-clips`).
        allowed: bool,
    },
}

impl Outcome {
    /// Returns the outcome of a run with this many failures.
    pub fn from_failures(failed: usize) -> Self {
        if failed == 0 { Outcome::Done } else { Outcome::Partial { failed, allowed: false } }
    }

    /// Makes failures a success if they are `allowed`.
    #[must_use]
    pub fn allow_failures(self, allowed: bool) -> Self {
        match self {
            Outcome::Done => Outcome::Done,
            Outcome::Partial { failed, .. } => Outcome::Partial { failed, allowed },
        }
    }
}

/// The exit codes as text for `--help`, for clap's `after_help`.
pub const EXIT_CODES: &str =
    "Exit codes: 0 success; 1 error; 2 usage error; 3 success, but some clips failed and are recorded; 130 interrupted";

/// Runs the body of a program and converts its result into an exit code. Errors are printed here, once, as
/// `program: message`.
pub fn run(program: &str, body: impl FnOnce() -> anyhow::Result<Outcome>) -> ExitCode {
    // Merges and virtual stores open every shard; the usual soft limit is 1024 files. If it cannot be raised, opening the file that exceeds
    // it is an error.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    match body() {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Partial { failed, allowed }) => {
            let are = if failed == 1 { "is" } else { "are" };
            print_message(format_args!("{program}: {failed} failed and {are} recorded; the rest is complete"));
            ExitCode::from(if allowed { 0 } else { 3 })
        }
        Err(error) => {
            print_message(format_args!("{program}: {}", describe(&error)));
            match error.downcast_ref::<Error>() {
                Some(Error::Interrupted) => ExitCode::from(130),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Joins the messages of an error and its causes, each once: [`Error::Io`] contains the message of its cause.
fn describe(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// Writes to standard output. A closed pipe, such as that of `head`, or terminal is not an error: the program continues, and all
/// further output is lost.
///
/// # Errors
/// Returns an error if the output cannot be written for another reason, such as a full disk.
pub fn print(text: impl Display) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match write!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        // Unlike a file, a terminal has an input or output error only after it was closed.
        Err(error) if error.raw_os_error() == Some(libc::EIO) && is_character_device(&stdout) => Ok(()),
        result => result.context("cannot write to standard output"),
    }
}

/// Returns `true` for terminals and other character devices, also after a terminal was closed.
fn is_character_device(output: &impl AsFd) -> bool {
    let metadata = output.as_fd().try_clone_to_owned().and_then(|output| File::from(output).metadata());
    metadata.is_ok_and(|metadata| metadata.file_type().is_char_device())
}

/// Writes a line to standard output; see [`print`](fn@print).
///
/// # Errors
/// See [`print`](fn@print).
pub fn print_line(text: impl Display) -> anyhow::Result<()> {
    print(format_args!("{text}\n"))
}

/// Writes a line to standard error. Errors are ignored, since a message that cannot be written must not stop a program.
pub fn print_message(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Time in which several signals count as one: schedulers signal a process and the shell that started it, which passes the signal on.
const SAME_REQUEST: Duration = Duration::from_secs(1);

/// Handles signals, and returns the token that SIGINT (Ctrl-C) and SIGTERM cancel. Another such signal, after [`SAME_REQUEST`], ends the
/// process immediately, with exit code 130. SIGHUP, which a terminal sends when it is closed, is ignored: the program continues.
///
/// # Errors
/// Returns an error if the signals cannot be handled.
pub fn catch_interrupts() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::default();
    let cancelled = token.clone();
    #[cfg(feature = "remote")]
    crate::remote::cancel_with(&token);
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::spawn(move || {
        let mut first: Option<Instant> = None;
        for _ in signals.forever().filter(|&signal| signal != SIGHUP) {
            match first {
                Some(first) if first.elapsed() < SAME_REQUEST => continue,
                Some(_) => std::process::exit(130),
                None => first = Some(Instant::now()),
            }
            cancelled.cancel();
            print_message("\ninterrupted: finishing work in progress (interrupt again to stop immediately)");
        }
    });
    Ok(token)
}
