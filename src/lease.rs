//! Leases: files that say which process works on something, also on file systems that several machines share.
//!
//! Locks of network file systems are not reliable, so a lease relies only on files that are created if they do not exist.
//! The holder writes to its lease every [`HEARTBEAT`]. A lease that has not been written for [`EXPIRY`], or whose process on this machine has
//! ended, is stale, and another process takes it over. Ages are differences between modification times of the same file system: the clocks
//! of the machines do not matter.

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use crate::cancel::CancellationToken;
use crate::error::{Error, Result};
use crate::files::{self, directory_of};

/// Time between two writes of the holder.
pub const HEARTBEAT: Duration = Duration::from_secs(10);
/// Age of the last write at which a lease is stale.
pub const EXPIRY: Duration = Duration::from_secs(60);
/// Time between two looks at the lease of another process.
const POLL: Duration = Duration::from_secs(1);

/// The process that holds a lease. [`Display`](fmt::Display) formats it as `process PID on HOST`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Name of the machine.
    pub host: String,
    /// Process id.
    pub pid: u32,
    /// Time at which the lease was acquired, RFC 3339, UTC.
    pub since: String,
    /// Boot and namespace in which the process id is valid; empty if unknown.
    machine: String,
    /// Time at which the process started, in clock ticks since the boot: process ids are used again.
    process_start: Option<u64>,
    /// Distinguishes the leases of a process.
    nonce: u64,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}", self.pid, self.host)
    }
}

impl Holder {
    /// Describes this process.
    fn current() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_string()).unwrap_or_default();
        Self {
            host: read("/proc/sys/kernel/hostname"),
            pid: std::process::id(),
            since: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            machine: machine(),
            process_start: process_start(std::process::id()),
            nonce: rand::random(),
        }
    }

    /// Returns whether the process runs; `None` if it is not on this machine.
    fn runs(&self) -> Option<bool> {
        // /proc may hide the processes of other users, and then also the first one.
        let visible = process_start(1).is_some();
        let here = visible && !self.machine.is_empty() && self.machine == machine() && self.process_start.is_some();
        here.then(|| process_start(self.pid) == self.process_start)
    }
}

/// Returns what a process id is relative to: the boot of the machine and the namespace of process ids, which containers have.
fn machine() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let namespace = std::fs::read_link("/proc/self/ns/pid");
    match (boot, namespace) {
        (Ok(boot), Ok(namespace)) => format!("{} {}", boot.trim(), namespace.display()),
        _ => String::new(),
    }
}

/// Returns the time at which a process started, in clock ticks since the boot; `None` if it does not run.
fn process_start(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program is in parentheses and may contain spaces and parentheses. The state is field 3, the start field 22.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let start = fields.nth(18)?.parse().ok();
    start.filter(|_| !matches!(state, "Z" | "X"))
}

/// What to do about a lease that another process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    /// Return an error. If the other process is on another machine, this takes up to [`EXPIRY`], because it may have ended.
    Fail,
    /// Wait until it is released or stale.
    Wait,
}

/// A lease of this process, released when it is dropped.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
    holder: Holder,
    state: Arc<State>,
    heartbeat: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    released: Mutex<bool>,
    release: Condvar,
    lost: AtomicBool,
}

impl Lease {
    /// Acquires the lease `path`. If another process takes it over later, because this one could not write for
    /// [`EXPIRY`], `cancel` is cancelled and [`Lease::check`] returns an error. `wait` is called once if the lease is held.
    ///
    /// # Errors
    /// Returns an error if another process holds the lease (with [`Busy::Fail`]), the file cannot be written, or `cancel` is cancelled.
    pub fn acquire(path: &Path, busy: Busy, cancel: &CancellationToken, wait: &dyn Fn(&str)) -> Result<Self> {
        let holder = Holder::current();
        // The last observation, and since when the lease is the same.
        let mut observed: Option<(Observed, Instant)> = None;
        loop {
            cancel.check()?;
            let Some(other) = Observed::new(path)? else {
                match Self::create(path, &holder, cancel)? {
                    Some(lease) => return Ok(lease),
                    None => continue,
                }
            };
            let by = || other.holder.as_ref().map_or_else(|| "another process".into(), Holder::to_string);
            let before = observed.as_ref();
            let same_since =
                before.filter(|(before, _)| before.is_same(&other)).map_or_else(Instant::now, |(_, since)| *since);
            match (other.holder.as_ref().and_then(Holder::runs), before) {
                (Some(false), _) => {
                    other.remove(path)?;
                    continue;
                }
                (Some(true), _) if busy == Busy::Fail => return Err(held(path, &by())),
                (None, Some((before, _))) if busy == Busy::Fail && !before.is_same(&other) => {
                    return Err(held(path, &by()));
                }
                (None, _) if other.is_stale(same_since.elapsed()) => {
                    other.remove(path)?;
                    continue;
                }
                (_, None) => wait(&format!("{}: held by {}; waiting", path.display(), by())),
                _ => {}
            }
            observed = Some((other, same_since));
            std::thread::sleep(POLL);
        }
    }

    /// Creates the file, unless it exists.
    fn create(path: &Path, holder: &Holder, cancel: &CancellationToken) -> Result<Option<Self>> {
        let json = serde_json::to_vec(holder).expect("a holder serializes to JSON");
        let Some(file) = files::create_new(path, &json)? else { return Ok(None) };
        let state = Arc::new(State::default());
        let beat = Heartbeat {
            file,
            json,
            path: path.into(),
            nonce: holder.nonce,
            state: state.clone(),
            cancel: cancel.clone(),
        };
        let heartbeat = Some(std::thread::spawn(move || beat.run()));
        Ok(Some(Self { path: path.into(), holder: holder.clone(), state, heartbeat }))
    }

    /// Reads the lease, and checks that this process still holds it.
    ///
    /// # Errors
    /// Returns an error if another process has taken it over, or it was removed.
    pub fn check(&self) -> Result<()> {
        if !self.state.lost.load(Ordering::SeqCst) && is_held(&self.path, self.holder.nonce) {
            return Ok(());
        }
        let message = format!(
            "lost: it was removed, or another process took it over because this one did not write to it for {} s",
            EXPIRY.as_secs()
        );
        Err(Error::Store { path: self.path.clone(), message })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        *self.state.released.lock().unwrap_or_else(|error| error.into_inner()) = true;
        self.state.release.notify_all();
        if let Some(heartbeat) = self.heartbeat.take() {
            let _ = heartbeat.join();
        }
        if is_held(&self.path, self.holder.nonce) {
            // A file that cannot be removed is taken over like that of a killed process.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Returns `false` if the lease `path` does not exist or is that of another process. A file that cannot be read may still be that of this one.
fn is_held(path: &Path, nonce: u64) -> bool {
    match std::fs::read(path) {
        Ok(json) => serde_json::from_slice(&json).is_ok_and(|holder: Holder| holder.nonce == nonce),
        Err(error) => error.kind() != ErrorKind::NotFound,
    }
}

/// Returns the holder of the lease `path`, if there is a lease that is not stale.
///
/// # Errors
/// Returns an error if the file cannot be read.
pub fn active_holder(path: &Path) -> Result<Option<Holder>> {
    let Some(Observed { holder: Some(holder), age, .. }) = Observed::new(path)? else { return Ok(None) };
    let runs = holder.runs().unwrap_or(age < EXPIRY);
    Ok(runs.then_some(holder))
}

fn held(path: &Path, holder: &str) -> Error {
    let message = format!("{holder} works on this; wait until it has finished, or stop it first");
    Error::Store { path: path.into(), message }
}

/// Returns the time by the clock of a file system.
fn now(directory: &Path) -> std::io::Result<SystemTime> {
    let mut probe = tempfile::tempfile_in(directory)?;
    probe.write_all(b"\n")?;
    probe.metadata()?.modified()
}

/// A lease of another process.
struct Observed {
    content: Vec<u8>,
    holder: Option<Holder>,
    written: SystemTime,
    /// Time since the last write, by the clock of the file system; by that of this machine if the directory cannot be written to.
    age: Duration,
}

impl Observed {
    /// Reads a lease, if it exists.
    fn new(path: &Path) -> Result<Option<Self>> {
        // Opened first: opening a file on a network file system updates its attributes.
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(path)(error)),
        };
        let written = file.metadata().and_then(|metadata| metadata.modified()).map_err(Error::io(path))?;
        let content = std::io::read_to_string(file).unwrap_or_default().into_bytes();
        let now = now(directory_of(path)).unwrap_or_else(|_| SystemTime::now());
        let holder = serde_json::from_slice(&content).ok();
        Ok(Some(Self { content, holder, written, age: now.duration_since(written).unwrap_or_default() }))
    }

    /// `true` if the lease has not been written for [`EXPIRY`]. `same` is the time for which this process has seen no change: if the clock of
    /// the file system was moved back, the last write may be in the future.
    fn is_stale(&self, same: Duration) -> bool {
        self.age.max(same) >= EXPIRY
    }

    /// `true` if nobody has written to the lease between both observations.
    fn is_same(&self, other: &Self) -> bool {
        self.content == other.content && self.written == other.written
    }

    /// Removes the lease, if it is still the one that was observed and no other process is about to remove it.
    fn remove(&self, path: &Path) -> Result<()> {
        let mut guard = path.as_os_str().to_owned();
        guard.push(".takeover");
        let guard = PathBuf::from(guard);
        if files::create_new(&guard, b"")?.is_none() {
            // Whoever created it removes it within milliseconds, unless it is killed.
            if Self::new(&guard)?.is_some_and(|guard| guard.age >= EXPIRY) {
                remove_if_exists(&guard)?;
            }
            std::thread::sleep(POLL / 100);
            return Ok(());
        }
        let is_same = Self::new(path)?.is_some_and(|now| self.is_same(&now));
        let removed = if is_same { remove_if_exists(path) } else { Ok(()) };
        remove_if_exists(&guard)?;
        removed
    }
}

fn remove_if_exists(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(path)(error)),
        _ => Ok(()),
    }
}

/// Writes to a lease until it is released.
struct Heartbeat {
    file: File,
    json: Vec<u8>,
    path: PathBuf,
    nonce: u64,
    state: Arc<State>,
    cancel: CancellationToken,
}

impl Heartbeat {
    fn run(mut self) {
        let mut last = Instant::now();
        let mut released = self.state.released.lock().unwrap_or_else(|error| error.into_inner());
        while !*released {
            let waited = self.state.release.wait_timeout(released, HEARTBEAT);
            released = waited.unwrap_or_else(|error| error.into_inner()).0;
            if *released {
                return;
            }
            // A file that is written through its handle stays that of this process, even if another one has renamed it.
            let written = self.file.seek(SeekFrom::Start(0)).and_then(|_| self.file.write_all(&self.json));
            if written.and_then(|()| self.file.sync_data()).is_ok() {
                last = Instant::now();
            }
            if !is_held(&self.path, self.nonce) || last.elapsed() >= EXPIRY {
                self.state.lost.store(true, Ordering::SeqCst);
                self.cancel.cancel();
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn acquire(path: &Path, busy: Busy) -> Result<Lease> {
        Lease::acquire(path, busy, &CancellationToken::default(), &|_| ())
    }

    fn read(path: &Path) -> Holder {
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    fn names(directory: &Path) -> Vec<String> {
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// A lease of a process that has ended, as after SIGKILL.
    fn ended() -> Holder {
        let mut process = Command::new("sleep").arg("1000").spawn().unwrap();
        let holder = Holder { pid: process.id(), process_start: process_start(process.id()), ..Holder::current() };
        assert_eq!(holder.runs(), Some(true));
        process.kill().unwrap();
        process.wait().unwrap();
        holder
    }

    /// A lease of another machine, written this long ago.
    fn elsewhere(path: &Path, age: Duration) -> Holder {
        let holder = Holder { host: "node7".into(), machine: "another boot".into(), ..Holder::current() };
        std::fs::write(path, serde_json::to_vec(&holder).unwrap()).unwrap();
        File::options().write(true).open(path).unwrap().set_modified(SystemTime::now() - age).unwrap();
        holder
    }

    #[test]
    fn held_lease_is_refused_and_a_released_one_is_free() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.lease");
        let lease = acquire(&path, Busy::Fail).unwrap();
        assert_eq!(active_holder(&path).unwrap().unwrap().pid, std::process::id());
        let error = acquire(&path, Busy::Fail).unwrap_err().to_string();
        assert!(error.contains(&format!("process {} on ", std::process::id())), "{error}");
        lease.check().unwrap();
        drop(lease);
        assert_eq!(names(directory.path()), Vec::<String>::new());
        let lease = acquire(&path, Busy::Fail).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(lease.check().unwrap_err().to_string().contains("x.lease: lost: it was removed"));
        drop(lease);
        drop(acquire(&path, Busy::Fail).unwrap());
    }

    #[test]
    fn lease_of_an_ended_process_is_taken_over_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.lease");
        std::fs::write(&path, serde_json::to_vec(&ended()).unwrap()).unwrap();
        assert!(active_holder(&path).unwrap().is_none());
        let lease = acquire(&path, Busy::Fail).unwrap();
        assert_eq!((read(&path), names(directory.path()).len()), (lease.holder.clone(), 1));
    }

    #[test]
    fn lease_of_another_machine_is_taken_over_when_it_is_stale() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.lease");
        let holder = elsewhere(&path, EXPIRY / 2);
        assert_eq!(active_holder(&path).unwrap(), Some(holder));
        elsewhere(&path, EXPIRY + Duration::from_secs(1));
        assert!(active_holder(&path).unwrap().is_none());
        drop(acquire(&path, Busy::Fail).unwrap());
    }

    #[test]
    fn lease_of_the_future_is_stale_if_nobody_writes_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.lease");
        elsewhere(&path, Duration::ZERO);
        File::options().write(true).open(&path).unwrap().set_modified(SystemTime::now() + EXPIRY * 60).unwrap();
        let lease = Observed::new(&path).unwrap().unwrap();
        assert!(!lease.is_stale(EXPIRY / 2) && lease.is_stale(EXPIRY));
        assert!(lease.is_same(&Observed::new(&path).unwrap().unwrap()));
    }

    #[test]
    fn damaged_lease_is_taken_over_when_it_is_stale() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.lease");
        elsewhere(&path, Duration::ZERO);
        std::fs::write(&path, "").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(SystemTime::now() - EXPIRY).unwrap();
        drop(acquire(&path, Busy::Wait).unwrap());
    }

    #[test]
    fn waiting_ends_when_it_is_cancelled() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.lease");
        let lease = acquire(&path, Busy::Fail).unwrap();
        let cancel = CancellationToken::default();
        let waited = Lease::acquire(&path, Busy::Wait, &cancel, &|message| {
            assert!(message.ends_with("; waiting"), "{message}");
            cancel.cancel();
        });
        assert!(matches!(waited, Err(Error::Interrupted)));
        lease.check().unwrap();
    }

    #[test]
    fn lease_that_was_renewed_by_another_process_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.lease");
        elsewhere(&path, EXPIRY);
        let stale = Observed::new(&path).unwrap().unwrap();
        let renewed = elsewhere(&path, Duration::ZERO);
        stale.remove(&path).unwrap();
        assert_eq!((read(&path), names(directory.path()).len()), (renewed, 1));
    }

    #[test]
    fn only_one_of_several_threads_acquires_a_stale_lease() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.lease");
        for _ in 0..20 {
            std::fs::write(&path, serde_json::to_vec(&ended()).unwrap()).unwrap();
            let leases: Vec<Result<Lease>> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| acquire(&path, Busy::Fail))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(leases.iter().filter(|lease| lease.is_ok()).count(), 1);
            assert_eq!(names(directory.path()), ["x.lease"]);
        }
    }
}
