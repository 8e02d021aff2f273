//! HTTP downloads that resume: `TARGET.part` holds the bytes so far and `TARGET.part.version` the server's version
//! (ETag or Last-Modified) of the file that they belong to.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::http::{Response, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig};
use ureq::{Agent, Body, Proxy};

use super::files::{check_sha256, sha256_mismatch};
use crate::cancel::CancellationToken;
use crate::error::{Error, Result};
use crate::progress::{Event, ProgressSink, Unit};

/// Maximum number of attempts per transfer; further attempts are left to the user.
const MAX_ATTEMPTS: usize = 3;

/// Downloads `url` to `target`. A partial download of an earlier run is resumed if the server still has the same version
/// of the file, and started over otherwise. `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` are honored, in
/// lower or upper case. `SSL_CERT_FILE` names the root certificates to use instead of Mozilla's.
///
/// # Errors
/// Returns an error if the server cannot be reached or refuses, the connection breaks (the received bytes are kept), the
/// file cannot be written, the hash differs (the file is kept as `TARGET.rejected`), or the token is cancelled.
pub fn download(
    url: &str,
    target: &Path,
    sha256_prefix: &str,
    progress: &dyn ProgressSink,
    cancel: &CancellationToken,
) -> Result<()> {
    let directory = target.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory).map_err(Error::io(directory))?;
    let download = Download { agent: agent(url)?, url, part: PartialFile::new(target), progress, cancel };
    let resumed = download.part.len() > 0;
    download.transfer_with_retries()?;
    if resumed && check_sha256(&download.part.file, sha256_prefix).is_err() {
        // The two parts may be of different versions: download once more from the start.
        download.part.remove()?;
        download.transfer_with_retries()?;
    }
    if let Some(mismatch) = sha256_mismatch(&download.part.file, sha256_prefix)? {
        let rejected = with_suffix(target, ".rejected");
        crate::files::rename(&download.part.file, &rejected).map_err(Error::io(&rejected))?;
        download.part.remove()?;
        let message = format!("{mismatch}: {url} sent a different file, kept under this name");
        return Err(Error::Weights { path: rejected, message });
    }
    crate::files::rename(&download.part.file, target).map_err(Error::io(target))?;
    download.part.remove()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// An incomplete download and the server's version of the file that it is part of.
struct PartialFile {
    file: PathBuf,
    version: PathBuf,
}

impl PartialFile {
    fn new(target: &Path) -> Self {
        Self { file: with_suffix(target, ".part"), version: with_suffix(target, ".part.version") }
    }

    fn len(&self) -> u64 {
        self.file.metadata().map_or(0, |m| m.len())
    }

    fn remove(&self) -> Result<()> {
        for path in [&self.file, &self.version] {
            match std::fs::remove_file(path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(path)(e)),
                _ => {}
            }
        }
        Ok(())
    }
}

enum TransferError {
    /// The connection failed; another attempt may succeed.
    Connection(String),
    /// Any other failure.
    Fatal(Error),
}

impl From<Error> for TransferError {
    fn from(error: Error) -> Self {
        TransferError::Fatal(error)
    }
}

struct Download<'a> {
    agent: Agent,
    url: &'a str,
    part: PartialFile,
    progress: &'a dyn ProgressSink,
    cancel: &'a CancellationToken,
}

impl Download<'_> {
    /// Retries broken transfers as long as each attempt receives some bytes.
    fn transfer_with_retries(&self) -> Result<()> {
        let mut attempt = 1;
        loop {
            let before = self.part.len();
            match self.transfer() {
                Ok(()) => return Ok(()),
                Err(TransferError::Fatal(error)) => return Err(error),
                Err(TransferError::Connection(_)) if attempt < MAX_ATTEMPTS && self.part.len() > before => attempt += 1,
                Err(TransferError::Connection(cause)) => {
                    let kept = match self.part.len() {
                        0 => String::new(),
                        n => format!("; {n} bytes are kept, run again to resume"),
                    };
                    return Err(self.error(&format!("{cause}{kept}")));
                }
            }
        }
    }

    fn error(&self, message: &str) -> Error {
        Error::Weights { path: self.part.file.clone(), message: format!("{}: {message}", self.url) }
    }

    /// Makes one request and appends the response to the partial file.
    fn transfer(&self) -> Result<(), TransferError> {
        let received = self.part.len();
        let mut request = self.agent.get(self.url);
        if received > 0 {
            request = request.header("Range", format!("bytes={received}-"));
            if let Ok(version) = std::fs::read_to_string(&self.part.version) {
                request = request.header("If-Range", version);
            }
        }
        let response = request.call().map_err(|e| TransferError::Connection(e.to_string()))?;
        let (start, total) = match response.status().as_u16() {
            206 => match content_range(&response) {
                Some((start, total)) if start == received => (start, total),
                _ => return Err(self.error("the server sent a different range; delete the .part file").into()),
            },
            200 => (0, header(&response, "content-length").and_then(|n| n.parse().ok())),
            416 if received > 0 => {
                // Either the file is complete, or the server has another version. The caller checks the hash.
                let range = header(&response, "content-range");
                let total = range.and_then(|range| range.strip_prefix("bytes */")?.parse::<u64>().ok());
                if total == Some(received) {
                    return Ok(());
                }
                self.part.remove()?;
                return self.transfer();
            }
            404 => return Err(self.error("the server has no such file (404)").into()),
            status => return Err(self.error(&format!("the server responded with status {status}")).into()),
        };
        let task = self.part.file.file_stem().unwrap_or_default().to_string_lossy();
        self.progress.report(Event::Started { task: &task, unit: Unit::Bytes, total, done: start });
        let result = self.receive(response, start, total);
        self.progress.report(Event::Finished);
        result
    }

    /// Writes the body of a response to the partial file from position `start`.
    fn receive(&self, mut response: Response<Body>, start: u64, total: Option<u64>) -> Result<(), TransferError> {
        let io = |e| TransferError::Fatal(Error::io(&self.part.file)(e));
        let mut file = OpenOptions::new()
            .create(true)
            .append(start > 0)
            .write(true)
            .truncate(start == 0)
            .open(&self.part.file)
            .map_err(io)?;
        match header(&response, "etag").filter(|tag| !tag.starts_with("W/")).or(header(&response, "last-modified")) {
            Some(version) => std::fs::write(&self.part.version, version).map_err(io)?,
            None => drop(std::fs::remove_file(&self.part.version)),
        }
        let mut body = response.body_mut().as_reader();
        let mut buffer = vec![0; 1 << 16];
        let mut position = start;
        loop {
            self.cancel.check()?;
            match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    file.write_all(&buffer[..n]).map_err(io)?;
                    position += n as u64;
                    self.progress.report(Event::Position(position));
                }
                Err(e) => return Err(TransferError::Connection(format!("the connection broke ({e})"))),
            }
        }
        match total {
            Some(total) if position != total => {
                Err(TransferError::Connection(format!("the connection ended at byte {position} of {total}")))
            }
            _ => file.sync_all().map_err(io),
        }
    }
}

fn header(response: &Response<Body>, name: &str) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_owned())
}

/// Parses the first byte and the total length of a partial response: `bytes 100-199/200`.
fn content_range(response: &Response<Body>) -> Option<(u64, Option<u64>)> {
    let range = header(response, "content-range")?;
    let (span, total) = range.strip_prefix("bytes ")?.split_once('/')?;
    Some((span.split_once('-')?.0.parse().ok()?, total.parse().ok()))
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

/// Returns the proxy for a URL from the environment, by curl's conventions: the variable of the URL's scheme, then
/// `all_proxy`. `no_proxy` lists hosts to connect to directly: a name includes its subdomains, `*` matches every host.
fn proxy(url: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Option<Proxy>> {
    let uri: Uri = url.parse().map_err(|e| Error::Data(format!("invalid URL {url:?}: {e}")))?;
    let either_case = |name: &str| variable(name).or_else(|| variable(&name.to_uppercase())).filter(|v| !v.is_empty());
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    let direct = either_case("no_proxy").unwrap_or_default().split(',').any(|entry| {
        let entry = entry.trim().trim_start_matches("*.").trim_start_matches('.').to_ascii_lowercase();
        entry == "*" || (!entry.is_empty() && (host == entry || host.ends_with(&format!(".{entry}"))))
    });
    if direct {
        return Ok(None);
    }
    let name = format!("{}_proxy", uri.scheme_str().unwrap_or("http"));
    let Some(address) = either_case(&name).or_else(|| either_case("all_proxy")) else { return Ok(None) };
    Proxy::new(&address).map(Some).map_err(|e| Error::Data(format!("{name}: invalid proxy {address:?}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::proxy;

    fn selected_proxy(url: &str, environment: &[(&str, &str)]) -> Option<String> {
        let variable =
            |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string());
        proxy(url, variable).unwrap().map(|p| format!("{}:{}", p.host(), p.port()))
    }

    #[test]
    fn selects_the_proxy_of_the_url_scheme() {
        let both = [("http_proxy", "http://plain:1"), ("HTTPS_PROXY", "http://secure:2")];
        assert_eq!(selected_proxy("http://a.org/x", &both).as_deref(), Some("plain:1"));
        assert_eq!(selected_proxy("https://a.org/x", &both).as_deref(), Some("secure:2"));
        assert_eq!(selected_proxy("https://a.org/x", &both[..1]), None);
        assert_eq!(selected_proxy("https://a.org/x", &[("ALL_PROXY", "http://any:3")]).as_deref(), Some("any:3"));
    }

    #[test]
    fn no_proxy_matches_hosts_and_their_subdomains() {
        for (list, direct) in
            [("a.org", true), (".a.org", true), ("*", true), ("x, a.org ", true), ("b.org", false), ("aa.org", false)]
        {
            let environment = [("https_proxy", "http://secure:2"), ("no_proxy", list)];
            assert_eq!(selected_proxy("https://files.a.org/x", &environment).is_none(), direct, "{list}");
        }
    }
}
