//! Clips on web servers and in object stores.
//!
//! A manifest may contain URLs instead of paths. [`RemoteFile`] reads parts of such a file, in blocks that are kept on disk, if the
//! server sends parts; otherwise it reads the whole file once.

#[cfg(feature = "remote")]
mod block_cache;
#[cfg(feature = "remote")]
mod client;
#[cfg(feature = "remote")]
mod file;
mod url;

#[cfg(feature = "remote")]
pub use file::{RemoteFile, cancel_with, check_settings};
pub use url::{RemoteUrl, SCHEMES};
