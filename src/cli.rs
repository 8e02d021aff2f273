//! What the stage binaries share: exit codes and the one place where an error is printed.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Error;

/// How a stage that did not fail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything asked for is done: exit code 0.
    Done,
    /// This many clips (or files) failed, are recorded and were skipped; the rest is done: exit code 3.
    Partly {
        /// How many failed.
        failed: usize,
    },
}

/// The `--help` text on exit codes, for clap's `after_help`.
pub const EXIT_CODES: &str =
    "Exit codes: 0 done; 1 failed; 2 wrong usage; 3 done, but some clips failed and are recorded; 130 interrupted";

/// Runs a stage and turns its result into the exit code. An error is printed here, once, as `stage: message`.
pub fn run(stage: &str, body: impl FnOnce() -> anyhow::Result<Outcome>) -> ExitCode {
    match body() {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Partly { failed }) => {
            eprintln!(
                "{stage}: {failed} failed and {} recorded; the rest is done",
                if failed == 1 { "is" } else { "are" }
            );
            ExitCode::from(3)
        }
        Err(error) => {
            eprintln!("{stage}: {error:#}");
            match error.downcast_ref::<Error>() {
                Some(Error::Interrupted) => ExitCode::from(130),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes Ctrl-C and SIGTERM set a flag ([`interrupted`]); a second one ends the process at once.
pub fn catch_interrupts() {
    let caught = ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        eprintln!("\ninterrupted: finishing what is in flight (again to stop at once)");
    });
    debug_assert!(caught.is_ok(), "catch_interrupts is called once");
}

/// Whether the user asked to stop.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}
