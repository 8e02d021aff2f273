//! Feature stores: HDF5 files that can be read with h5py, HDFView or h5web. All uses of HDF5 are in this module.
//!
//! ```text
//! /            attrs: format="kinoprobe-features" format_version=1 method model weights model_sha256 recipe(JSON)
//!              manifest_sha256 dim decoder precision provider tool_version created extract_seconds
//! /features    f32 [R, D], chunked, gzip + shuffle   one row per frame, window or frame histogram
//! /rows/clip u32 [R] · /rows/start_frame u64 · /rows/start_seconds f64 · /rows/end_seconds f64 · /rows/padded u8
//! /rows/scale f64 [R]                scale of the frame for SIFT, below 1 if it was larger than max_side; 1 if missing
//! /clips/id str [N] · path str · offset u64 · length u32 · frame_count u64 · fps f64 · duration_seconds f64
//! /clips/fully_decoded u8 [N]        1 if all frames of the video were decoded, not only the necessary sections
//! /clips/start f64 [N] · end f64     period in seconds of the manifest; 0 and inf for whole files (also if missing)
//! /pooled/mean f32 [N, D] · /pooled/max f32 [N, D]
//! /failures/id str [F] · stage str · error str · path str · start f64 · end f64    the last three may be missing
//! ```
//!
//! A *descriptor store* (`format="kinoprobe-descriptors"`) has `/descriptors` u8 [K, D] and `/rows/descriptors` u32 [R]
//! (number of descriptors of each frame) instead of `/features` and `/pooled`. The rest is the same.
//!
//! During extraction, clips are appended to `NAME.h5.partial`, a [`Journal`] of checksummed records that is not damaged if the
//! process is killed. When all clips are extracted, the store is written in one pass in the order of the manifest, as
//! `NAME.h5.new`, and renamed. (An HDF5 file that grows with a flush per batch is not safe: its last chunks are rewritten in
//! place. Of 150 kills during such flushes, 49 left an unreadable file.)

mod attributes;
mod clip;
mod journal;
mod pooling;
mod provenance;
mod reader;
pub mod records;
mod writer;

pub use clip::{ClipKey, ClipRows, Failure, RowSource, StoredClip, Values};
pub use journal::Journal;
pub use pooling::Pooling;
pub use provenance::{Difference, Payload, Provenance};
pub use reader::{DescriptorStore, FeatureStore, Store};
pub use writer::{StoreWriter, check_output};

#[cfg(test)]
mod tests;
