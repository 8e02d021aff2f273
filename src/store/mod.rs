//! Feature stores: HDF5 files that can be read with h5py, HDFView or h5web. All uses of HDF5 are in this module.
//! docs/store.md documents their layout.
//!
//! During extraction, clips are appended to `NAME.h5.partial`, a [`Journal`] of checksummed records that is not damaged if the
//! process is killed. When all clips are extracted, the store is written in one pass in the order of the manifest, as
//! `NAME.h5.new-RANDOM`, and renamed. (An HDF5 file that grows with a flush per batch is not safe: its last chunks are rewritten in
//! place. Of 150 kills during such flushes, 49 left an unreadable file.)
//!
//! A virtual store refers to the rows of other stores instead of having its own.

mod attributes;
mod cached_rows;
mod clip;
mod cursor;
mod descriptor_store;
mod journal;
mod matlab;
mod pooling;
mod provenance;
mod reader;
pub mod records;
mod sources;
mod virtual_datasets;
mod writer;

pub use cached_rows::CachedRows;
pub use clip::{ClipKey, ClipRows, Failure, RowSource, StoredClip, Values};
pub use cursor::ClipCursor;
pub use descriptor_store::DescriptorStore;
pub use journal::{Journal, JournalSummary};
pub use matlab::MatlabFile;
pub use pooling::Pooling;
pub use provenance::{Difference, Payload, Provenance};
pub use reader::{FeatureStore, Store};
pub use writer::{StoreWriter, check_output};

#[cfg(test)]
pub(crate) mod byte_mutation;
#[cfg(test)]
mod tests;
