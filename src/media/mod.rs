//! media
pub mod sampler;
pub mod transform;
