//! Requests to web servers and object stores, through the `object_store` crate.

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::{Either, select};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::{ClientConfigKey, HttpClient, HttpConnector, ReqwestConnector};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::path::Path as Key;
use object_store::{ClientOptions, GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt as _, RetryConfig};
use tokio::runtime::Runtime;

use super::url::RemoteUrl;
use crate::cancel::CancellationToken;
use crate::error::{Error, Result};

/// Time without any byte after which a request is repeated.
const READ_TIMEOUT: &str = "30s";
/// Time in which a connection must be established.
const CONNECT_TIMEOUT: &str = "10s";
/// Limit of a whole request: none in practice, since films are long and connections slow.
const REQUEST_TIMEOUT: &str = "7days";
/// Number of attempts to receive the body of a response, in addition to the attempts of `object_store` for each request.
const BODY_ATTEMPTS: u32 = 4;
/// Pause before the second attempt; it doubles for each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Interval in which a waiting request looks at the cancellation token.
const CANCEL_INTERVAL: Duration = Duration::from_millis(50);
/// Number of characters of a server's response in messages.
const MAX_RESPONSE: usize = 160;

/// What identifies a version of a file on its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) len: u64,
    pub(super) etag: Option<String>,
    /// Seconds since 1970; 0 if unknown.
    pub(super) modified: i64,
}

impl Version {
    fn of(result: &GetResult) -> Self {
        let meta = &result.meta;
        Self { len: meta.size, etag: meta.e_tag.clone(), modified: meta.last_modified.timestamp() }
    }

    /// Returns the entity tag if it identifies the bytes and not only the meaning of a file (RFC 9110, section 8.8.1).
    fn strong_etag(&self) -> Option<&String> {
        self.etag.as_ref().filter(|etag| !etag.starts_with("W/"))
    }
}

/// The answer to the first request for a file.
pub(super) enum Opened {
    /// The server sends parts of the file. These are its first bytes.
    Parts(Version, Bytes),
    /// The server sends the whole file only.
    Whole,
}

/// Connections to web servers and object stores, which all requests of a process share.
pub(super) struct Client {
    runtime: Runtime,
    /// Of web servers: without encryption, and with encryption, which a redirect cannot switch off.
    http: SharedConnector,
    https: SharedConnector,
    retry: RetryConfig,
    stores: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
    cancel: CancellationToken,
}

/// A connector that returns one client, so that web servers share a pool of connections. It has its own settings.
#[derive(Debug, Clone)]
struct SharedConnector(HttpClient);

impl SharedConnector {
    fn new(allow_http: bool) -> object_store::Result<Self> {
        let options = ClientOptions::new().with_allow_http(allow_http);
        ReqwestConnector::default().connect(&configured(options, ClientOptions::with_config)).map(Self)
    }
}

impl HttpConnector for SharedConnector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(self.0.clone())
    }
}

impl Client {
    /// Creates a client. A request is repeated up to `retries` times, with increasing pauses, if the server is unreachable or busy.
    ///
    /// # Errors
    /// Returns an error if threads or TLS cannot be set up.
    pub(super) fn new(retries: usize, cancel: CancellationToken) -> Result<Self> {
        // Fails if a provider is installed already, which then is the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let unavailable = |error: &dyn std::fmt::Display| Error::Runtime(format!("cannot make requests: {error}"));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("remote")
            .enable_all()
            .build()
            .map_err(|error| unavailable(&error))?;
        let connector = |allow_http| SharedConnector::new(allow_http).map_err(|error| unavailable(&error));
        let (http, https) = (connector(true)?, connector(false)?);
        let retry = RetryConfig { max_retries: retries, ..RetryConfig::default() };
        Ok(Self { runtime, http, https, retry, stores: Mutex::default(), cancel })
    }

    /// Requests the first `len` bytes of a file.
    ///
    /// # Errors
    /// Returns an error that names the URL if the file cannot be read, or the token is cancelled.
    pub(super) fn open(&self, url: &RemoteUrl, len: u64) -> Result<Opened> {
        match self.get(url, 0..len, None) {
            Ok((version, bytes)) => Ok(Opened::Parts(version, bytes)),
            Err(Failure::IgnoresRanges) => Ok(Opened::Whole),
            Err(failure) => Err(failure.describe(url)),
        }
    }

    /// Requests a range of bytes of a version of a file.
    ///
    /// # Errors
    /// Returns an error that names the URL if the range cannot be read, the file has changed, or the token is cancelled.
    pub(super) fn part(&self, url: &RemoteUrl, range: Range<u64>, version: &Version) -> Result<Bytes> {
        let (received, bytes) = self.get(url, range, Some(version)).map_err(|failure| failure.describe(url))?;
        if received == *version { Ok(bytes) } else { Err(Failure::Changed.describe(url)) }
    }

    /// Requests a whole file and passes its bytes to `receive`, in order. `begin` is called with the version before the bytes of each
    /// attempt; bytes of earlier attempts are void.
    ///
    /// # Errors
    /// Returns an error that names the URL if the file cannot be read, or the token is cancelled. Returns the errors of the callbacks.
    pub(super) fn whole<T>(
        &self,
        url: &RemoteUrl,
        mut begin: impl FnMut(&Version) -> Result<T>,
        mut receive: impl FnMut(&mut T, &[u8]) -> Result<()>,
    ) -> Result<(Version, T)> {
        let (store, key) = self.store(url)?;
        let attempt = async || {
            let result = store.get(&key).await?;
            let version = Version::of(&result);
            let mut target = begin(&version)?;
            let (mut stream, mut received) = (result.into_stream(), 0);
            while let Some(bytes) = stream.next().await {
                let bytes = bytes.map_err(Failure::Body)?;
                received += bytes.len() as u64;
                receive(&mut target, &bytes)?;
            }
            match received == version.len {
                true => Ok((version, target)),
                false => Err(Failure::Length { received, expected: version.len }),
            }
        };
        self.repeat(attempt).map_err(|failure| failure.describe(url))
    }

    fn get(&self, url: &RemoteUrl, range: Range<u64>, version: Option<&Version>) -> Result<(Version, Bytes), Failure> {
        let (store, key) = self.store(url)?;
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            if_match: version.and_then(|version| version.strong_etag().cloned()),
            ..GetOptions::default()
        };
        self.repeat(async || {
            let result = store.get_opts(&key, options.clone()).await?;
            let (version, expected) = (Version::of(&result), result.range.end - result.range.start);
            let bytes = result.bytes().await.map_err(Failure::Body)?;
            match bytes.len() as u64 == expected {
                true => Ok((version, bytes)),
                false => Err(Failure::Length { received: bytes.len() as u64, expected }),
            }
        })
    }

    /// Repeats requests whose response was not received completely.
    fn repeat<T>(&self, mut request: impl AsyncFnMut() -> Result<T, Failure>) -> Result<T, Failure> {
        self.runtime.block_on(async {
            let mut pause = FIRST_PAUSE;
            for attempt in 1.. {
                match select(pin!(request()), pin!(self.cancelled())).await {
                    Either::Left((Err(failure), _)) if failure.is_transient() && attempt < BODY_ATTEMPTS => {}
                    Either::Left((result, _)) => return result,
                    Either::Right(_) => break,
                }
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            Err(Failure::Other(Error::Interrupted))
        })
    }

    async fn cancelled(&self) {
        while !self.cancel.is_cancelled() {
            tokio::time::sleep(CANCEL_INTERVAL).await;
        }
    }

    /// Returns the store of a URL, and the key in it.
    fn store(&self, url: &RemoteUrl) -> Result<(Arc<dyn ObjectStore>, Key)> {
        let failed = |error: object_store::Error| Failure::Store(error).describe(url);
        let scheme = url.scheme();
        if scheme.starts_with("http") {
            // The URL is the store, so that the path and the parameters are sent as they are.
            let connector = if scheme == "http" { &self.http } else { &self.https };
            let store = HttpBuilder::new()
                .with_url(url.reveal())
                .with_retry(self.retry.clone())
                .with_http_connector(connector.clone())
                .build()
                .map_err(failed)?;
            return Ok((Arc::new(store), Key::default()));
        }
        let (bucket, key) = url.location();
        let key = Key::parse(key).map_err(|error| failed(error.into()))?;
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("{scheme}://{bucket}");
        if let Some(store) = stores.get(&name) {
            return Ok((Arc::clone(store), key));
        }
        let store = self.connect(scheme, bucket).map_err(failed)?;
        stores.insert(name, Arc::clone(&store));
        Ok((store, key))
    }

    /// Connects to a bucket or container with the credentials of the environment or of the machine.
    fn connect(&self, scheme: &str, bucket: &str) -> object_store::Result<Arc<dyn ObjectStore>> {
        let retry = self.retry.clone();
        Ok(match scheme {
            "s3" => {
                let builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry);
                let set =
                    |builder: AmazonS3Builder, key, value| builder.with_config(AmazonS3ConfigKey::Client(key), value);
                Arc::new(configured(builder, set).build()?)
            }
            "gs" => {
                let builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket).with_retry(retry);
                let set = |builder: GoogleCloudStorageBuilder, key, value| {
                    builder.with_config(GoogleConfigKey::Client(key), value)
                };
                Arc::new(configured(builder, set).build()?)
            }
            _ => {
                let builder = MicrosoftAzureBuilder::from_env().with_container_name(bucket).with_retry(retry);
                let set = |builder: MicrosoftAzureBuilder, key, value| {
                    builder.with_config(AzureConfigKey::Client(key), value)
                };
                Arc::new(configured(builder, set).build()?)
            }
        })
    }
}

/// Settings of all connections.
const CONFIGURATION: [(ClientConfigKey, &str); 4] = [
    (ClientConfigKey::ConnectTimeout, CONNECT_TIMEOUT),
    (ClientConfigKey::ReadTimeout, READ_TIMEOUT),
    (ClientConfigKey::Timeout, REQUEST_TIMEOUT),
    (ClientConfigKey::UserAgent, concat!("kinoprobe/", env!("CARGO_PKG_VERSION"))),
];

/// Applies [`CONFIGURATION`].
fn configured<B>(builder: B, set: impl Fn(B, ClientConfigKey, &'static str) -> B) -> B {
    CONFIGURATION.into_iter().fold(builder, |builder, (key, value)| set(builder, key, value))
}

/// Why a request failed.
enum Failure {
    Store(object_store::Error),
    /// The response was not received completely.
    Body(object_store::Error),
    /// The server sent the whole file instead of a part.
    IgnoresRanges,
    /// The file has another version than before.
    Changed,
    /// The response has a wrong number of bytes.
    Length {
        received: u64,
        expected: u64,
    },
    Other(Error),
}

impl From<object_store::Error> for Failure {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::Precondition { .. } => Self::Changed,
            // Of web servers, and of stores; the type of the latter cause is private.
            object_store::Error::NotSupported { .. } => Self::IgnoresRanges,
            error if text_of(&error).contains("non-partial response") => Self::IgnoresRanges,
            error => Self::Store(error),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl Failure {
    /// Returns `true` if another attempt may succeed. `object_store` has repeated requests without a response already, and continues
    /// responses only if the server tells versions apart.
    fn is_transient(&self) -> bool {
        matches!(self, Self::Body(_) | Self::Length { .. })
    }

    /// Returns the error of a clip.
    fn describe(self, url: &RemoteUrl) -> Error {
        use object_store::Error as Cause;
        let message = match self {
            Self::Other(error) => return error,
            Self::IgnoresRanges => "the server sent the whole file instead of a part".into(),
            Self::Changed => "the file changed while it was being read: run again".into(),
            Self::Length { received, expected } => format!("the server sent {received} of {expected} bytes: run again"),
            Self::Store(Cause::NotFound { .. }) => "no such file on the server".into(),
            Self::Store(Cause::PermissionDenied { .. } | Cause::Unauthenticated { .. }) => {
                "the server denies access: check the credentials, or the signature of the URL".into()
            }
            Self::Store(error) | Self::Body(error) => match url.redact(&text_of(&error)) {
                text if text.contains("416 Range Not Satisfiable") => "the file is empty".into(),
                text => text,
            },
        };
        Error::Media { path: PathBuf::from(url.public()), message }
    }
}

/// Returns the innermost cause, or the status and the start of the server's response.
fn text_of(error: &object_store::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    let text = innermost.to_string();
    let text = text.trim_start_matches("Server returned non-2xx status code: ").trim_end_matches([':', ' ']);
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_RESPONSE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// An https URL that redirects to http is refused by the same setting.
    #[test]
    fn https_is_not_replaced_by_http() {
        let client = Client::new(0, CancellationToken::default()).unwrap();
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        server.set_nonblocking(true).unwrap();
        let url = format!("http://{}/a.mp4", server.local_addr().unwrap());
        let store = HttpBuilder::new().with_url(url).with_http_connector(client.https.clone());
        let store = store.with_retry(client.retry.clone()).build().unwrap();
        let error = client.runtime.block_on(store.get(&Key::default())).unwrap_err();
        assert!(text_of(&error).contains("not allowed"), "{error}");
        assert!(server.accept().is_err(), "no connection");
    }
}
