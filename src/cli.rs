//! Code shared by the programs: checks of `--out`, exit codes, error output, signal handling and progress on the terminal.

pub mod output;
pub mod progress;

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use anyhow::Context;

use crate::cancel::CancellationToken;
use crate::error::Error;

/// Outcome of a program that did not return an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything succeeded: exit code 0.
    Done,
    /// Some clips or files failed; they were recorded and skipped: exit code 3.
    Partial {
        /// Number of failures.
        failed: usize,
    },
}

impl Outcome {
    /// Returns the outcome of a run with this many failures.
    pub fn from_failures(failed: usize) -> Self {
        if failed == 0 { Outcome::Done } else { Outcome::Partial { failed } }
    }
}

/// The exit codes as text for `--help`, for clap's `after_help`.
pub const EXIT_CODES: &str =
    "Exit codes: 0 success; 1 error; 2 usage error; 3 success, but some clips failed and are recorded; 130 interrupted";

/// Runs the body of a program and converts its result into an exit code. Errors are printed here, once, as
/// `program: message`.
pub fn run(program: &str, body: impl FnOnce() -> anyhow::Result<Outcome>) -> ExitCode {
    match body() {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Partial { failed }) => {
            let are = if failed == 1 { "is" } else { "are" };
            print_message(format_args!("{program}: {failed} failed and {are} recorded; the rest is complete"));
            ExitCode::from(3)
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

/// Writes to standard output. A closed pipe, such as that of `head`, is not an error: the program continues, and all further
/// output is lost.
///
/// # Errors
/// Returns an error if the output cannot be written for another reason, such as a full disk.
pub fn print(text: impl Display) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match write!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to standard output"),
    }
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

/// Installs a handler for SIGINT (Ctrl-C) and SIGTERM, and returns the token that it cancels. A second signal ends the
/// process immediately, with exit code 130.
pub fn catch_interrupts() -> CancellationToken {
    let token = CancellationToken::default();
    let cancelled = token.clone();
    let handler = ctrlc::set_handler(move || {
        if cancelled.cancel() {
            std::process::exit(130);
        }
        print_message("\ninterrupted: finishing work in progress (interrupt again to stop immediately)");
    });
    debug_assert!(handler.is_ok(), "catch_interrupts is called once");
    token
}
