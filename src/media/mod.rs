//! Decoding of videos, images and directories of frames. Each clip is decoded once, and only the sampled frames are converted.
//!
//! ```no_run
//! # use kinoprobe::{media::{self, Sampling}, models::Card, manifest::Clip};
//! # #[cfg(feature = "media")]
//! # fn f(clip: &Clip, sampling: &Sampling, card: &Card) -> kinoprobe::Result<()> {
//! let mut items = media::ItemSink::new(&card.input); // one per worker thread, since it keeps buffers
//! let decoded = media::decode(clip, sampling, &mut items)?;
//! let tensor: Vec<f32> = items.take(); // one item per window, in order: (windows, 3, [T,] H, W)
//! for window in &decoded.windows {
//!     println!("{} s", decoded.timeline.seconds(window.indices[0]));
//! }
//! # Ok(()) }
//! ```
//!
//! [`decode`] plans the sampling from the frame count and frame rate in the container, passes each sampled frame to a
//! [`FrameSink`] when it is decoded (borrowed from the decoder, without a copy), and continues to the end of the clip to
//! determine the actual frame count and timestamps. If the sampling of the actual frames differs from the plan, the clip is
//! decoded a second time. The decoder does not seek: frame `i` is the `i`-th frame that the decoder returns.
//! Packets that cannot be decoded are skipped, and counted in a warning.
//!
//! Other consumers of frames (SIFT, thumbnails) implement the two methods of [`FrameSink`].
//!
//! Frames of videos are rotated and mirrored according to their metadata. Their times, and the start and end of clips, count from
//! the start of the file, which is the start of its earliest stream, as in players. A frame is displayed until the next one.
//!
//! Images and directories have no frame rate (`fps` and all timestamps are 0), so windows consist of consecutive frames. The
//! frames of a directory are its image files in natural order (`shot_2` before `shot_10`), without hidden files and
//! subdirectories. They may differ in size.

#[cfg(feature = "media")]
mod bitstream;
#[cfg(feature = "media")]
mod converter;
#[cfg(feature = "media")]
mod decode;
#[cfg(feature = "media")]
mod frames;
#[cfg(feature = "media")]
mod image;
#[cfg(feature = "media")]
mod image_stats;
#[cfg(feature = "media")]
mod indexed;
#[cfg(feature = "media")]
mod items;
#[cfg(feature = "media")]
pub(crate) mod jpeg;
#[cfg(feature = "media")]
pub(crate) mod libav;
#[cfg(feature = "media")]
mod orientation;
#[cfg(feature = "media")]
mod packet_index;
mod pixels;
pub mod sampler;
mod sampling;
pub mod shots;
#[cfg(feature = "media")]
mod sink;
#[cfg(feature = "media")]
mod source;
#[cfg(all(test, feature = "media"))]
mod test_video;
#[cfg(feature = "media")]
mod timing;
pub mod transform;
#[cfg(feature = "media")]
mod video;

/// Version of the decoding. A store records it and does not mix the rows of different versions. Version 1 ignored color tags and
/// mirroring, counted times from the first frame of the video, and stopped after damaged sections.
pub const DECODER_VERSION: &str = "2";

pub use pixels::BgrImage;
pub use sampler::{Timeline, Wanted, Window};
pub use sampling::Sampling;
pub use shots::{Shot, Shots};
pub use transform::Transform;

#[cfg(feature = "media")]
pub use self::{
    decode::{container_info, decode, decode_image, image_size},
    image_stats::ImageStats,
    items::ItemSink,
    sink::{Decoded, Frame, FrameSink},
    source::Source,
    video::ContainerInfo,
};
