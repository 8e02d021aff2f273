//! End-to-end training of networks through libtorch.
//!
//! ```text
//! clips → FrameCache (bytes at training size) → Loader (epoch plan → workers: read, augment, normalize) → batches in order
//! ```
//! Everything random is a pure function of a seed, the epoch and the clip ([`random`]): batches depend neither on the number of
//! workers nor on whether training was interrupted.

pub mod augment;
pub mod checkpoint;
pub mod end_to_end;
pub mod frame_cache;
pub mod learner;
pub mod loader;
pub mod losses;
pub mod network;
pub mod optimizer;
pub mod plan;
mod precision;
pub mod random;
pub mod recipe;
pub mod session;
#[cfg(test)]
mod test_clips;
#[cfg(test)]
mod tests;
pub mod torch;
mod update;

pub use frame_cache::{CacheOptions, FrameCache};
pub use loader::{Batch, Loader, Samples};
pub use recipe::{TrainFlags, TrainRecipe};
