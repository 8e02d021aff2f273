//! URLs of clips. What grants access is never shown.

use std::fmt;
use std::path::Path;

use crate::archives::is_archive;

/// Schemes of URLs that a manifest may contain.
pub const SCHEMES: [&str; 5] = ["http", "https", "s3", "gs", "az"];

/// Parameters of signed URLs, lowercase; also those that start with [`SIGNATURE_PREFIXES`].
const SIGNATURE_PARAMETERS: [&str; 26] = [
    // Amazon S3 (version 2) and CloudFront
    "awsaccesskeyid",
    "signature",
    "expires",
    "policy",
    "key-pair-id",
    // Google Cloud Storage (version 2)
    "googleaccessid",
    // Azure (shared access signatures)
    "sig",
    "se",
    "st",
    "sp",
    "sv",
    "sr",
    "spr",
    "ss",
    "srt",
    "skoid",
    "sktid",
    "skt",
    "ske",
    // other servers
    "token",
    "access_token",
    "auth",
    "key",
    "api_key",
    "apikey",
    "password",
];

/// Prefixes of the parameters of signed URLs, lowercase.
const SIGNATURE_PREFIXES: [&str; 3] = ["x-amz-", "x-goog-", "x-ms-"];

/// The URL of a file on a web server or in an object store.
///
/// [`Display`](fmt::Display) and [`Debug`] omit the parameters that sign it, so that messages, stores and logs never contain them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RemoteUrl {
    full: String,
    public: String,
}

impl RemoteUrl {
    /// Parses a path of a manifest; `None` if it is not a URL.
    ///
    /// # Errors
    /// Returns the reason if the scheme is not one of [`SCHEMES`], the URL names no file, or it contains a user name or password.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        let Some((scheme, rest)) = text.split_once("://") else { return Ok(None) };
        let is_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.chars().all(is_scheme) {
            return Ok(None);
        }
        let scheme = scheme.to_ascii_lowercase();
        if !SCHEMES.contains(&scheme.as_str()) {
            let remedy = if scheme == "file" { "; write the path only" } else { "" };
            return Err(format!("URLs with {scheme}:// cannot be read; expected {}{remedy}", SCHEMES.join(", ")));
        }
        let is_http = scheme.starts_with("http");
        // Other stores have no parameters: `?` and `#` are characters of a key.
        let rest = if is_http { rest.split('#').next().unwrap_or_default() } else { rest };
        let (location, query) = match rest.split_once('?') {
            Some((location, query)) if is_http => (location, query),
            _ => (rest, ""),
        };
        let (host, path) = location.split_once('/').unwrap_or((location, ""));
        if host.contains('@') {
            return Err(
                "a URL must not contain a user name or password; use signed URLs, or the credentials of the store"
                    .into(),
            );
        }
        let public_query: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty() && !signs(pair)).collect();
        let separator = if public_query.is_empty() { "" } else { "?" };
        let public = format!("{scheme}://{location}{separator}{}", public_query.join("&"));
        if host.is_empty() || path.is_empty() || path.ends_with('/') {
            return Err(format!("{public} does not name a file"));
        }
        Ok(Some(Self { full: format!("{scheme}://{rest}"), public }))
    }

    /// Returns the URL without the parameters that sign it.
    pub fn public(&self) -> &str {
        &self.public
    }

    /// Returns the complete URL, for requests and for manifests that users write. It may grant access: never print it.
    pub fn reveal(&self) -> &str {
        &self.full
    }

    /// Returns the path or key, without parameters; for its extension.
    pub fn path(&self) -> &Path {
        Path::new(self.location_and_query().0)
    }

    /// Returns the tar archive that contains the file, and the name of the file in it; `None` if no component before the last one ends in
    /// `.tar`.
    pub fn archive(&self) -> Option<(Self, String)> {
        let end = self.path().ancestors().skip(1).filter(|path| is_archive(path)).last()?.to_str()?.len();
        let (scheme, (location, query)) = (self.scheme(), self.location_and_query());
        let public_query = &self.public[scheme.len() + "://".len() + location.len()..];
        let at = |query: &str| format!("{scheme}://{}{query}", &location[..end]);
        Some((Self { full: at(query), public: at(public_query) }, location[end + 1..].to_owned()))
    }

    /// Returns the host and the path, and the parameters of the complete URL with their `?`.
    fn location_and_query(&self) -> (&str, &str) {
        let (_, rest) = self.full.split_once("://").unwrap_or_default();
        let end = if self.scheme().starts_with("http") { rest.find('?').unwrap_or(rest.len()) } else { rest.len() };
        rest.split_at(end)
    }

    /// Returns the scheme.
    pub fn scheme(&self) -> &str {
        self.public.split_once("://").map_or("", |(scheme, _)| scheme)
    }

    /// Returns the host or bucket, and the path or key.
    #[cfg(feature = "remote")]
    pub(super) fn location(&self) -> (&str, &str) {
        let (_, rest) = self.full.split_once("://").unwrap_or_default();
        rest.split_once('/').unwrap_or((rest, ""))
    }

    /// Replaces the signed URL in a text of other programs by `…`.
    #[cfg(feature = "remote")]
    pub(super) fn redact(&self, text: &str) -> String {
        let (_, query) = self.full.split_once('?').unwrap_or((&self.full, ""));
        let secrets = query.split('&').filter(|pair| !pair.is_empty() && signs(pair));
        secrets.fold(text.replace(&self.full, &self.public), |text, secret| text.replace(secret, "…"))
    }
}

/// Returns `true` if a parameter of a URL signs it.
fn signs(pair: &str) -> bool {
    let name = pair.split('=').next().unwrap_or_default().to_ascii_lowercase();
    SIGNATURE_PARAMETERS.contains(&name.as_str()) || SIGNATURE_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

impl fmt::Display for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.public)
    }
}

impl fmt::Debug for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteUrl({})", self.public)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_not_urls() {
        for path in ["clips/a.mp4", "C:\\a.mp4", "a:b.mp4", "a b://c.mp4", "://a", "clips/http://a"] {
            assert_eq!(RemoteUrl::parse(path), Ok(None), "{path}");
        }
    }

    #[test]
    fn signatures_are_not_shown() {
        for (text, public) in [
            ("HTTPS://host/a%20b.mp4#t=3", "https://host/a%20b.mp4"),
            ("http://host:81/v?id=3&Token=abc", "http://host:81/v?id=3"),
            ("https://b.host/k.mp4?X-Amz-Signature=abc&X-Amz-Date=1", "https://b.host/k.mp4"),
            ("https://host/c/k.mp4?sv=1&sig=abc", "https://host/c/k.mp4"),
            ("s3://bucket/a?b#c.mp4", "s3://bucket/a?b#c.mp4"),
        ] {
            let url = RemoteUrl::parse(text).unwrap().unwrap();
            assert_eq!((url.public(), url.to_string().as_str()), (public, public));
            assert!(!format!("{url:?}").contains("abc"));
        }
    }

    #[test]
    fn components_may_be_archives() {
        let archive = |text: &str| {
            let (archive, name) = RemoteUrl::parse(text).unwrap().unwrap().archive()?;
            Some((archive.reveal().to_owned(), archive.public().to_owned(), name))
        };
        let expected = |full: &str, public: &str, name: &str| Some((full.into(), public.into(), name.into()));
        assert_eq!(archive("s3://b/a.mp4"), None);
        assert_eq!(archive("s3://b/a.tar"), None);
        assert_eq!(archive("s3://b/a.tar/x/y.mp4"), expected("s3://b/a.tar", "s3://b/a.tar", "x/y.mp4"));
        let signed = "https://h/p/a.TAR/y.mp4?id=1&sig=z";
        assert_eq!(archive(signed), expected("https://h/p/a.TAR?id=1&sig=z", "https://h/p/a.TAR?id=1", "y.mp4"));
    }

    #[test]
    fn urls_that_cannot_be_read_have_a_remedy() {
        for (text, expected) in [
            ("ftp://host/a.mp4", "ftp:// cannot be read; expected http, https, s3, gs, az"),
            ("file:///a.mp4", "write the path only"),
            ("https://user:secret@host/a.mp4", "must not contain a user name or password"),
            ("s3://bucket", "does not name a file"),
            ("s3://bucket/clips/", "does not name a file"),
            ("https://host/?token=secret", "https://host/ does not name a file"),
        ] {
            let error = RemoteUrl::parse(text).unwrap_err();
            assert!(error.contains(expected) && !error.contains("secret"), "{error}");
        }
    }
}
