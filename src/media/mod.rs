//! Decoding of videos, images and directories of frames. Only what the sampled frames need is decoded, and only they are converted.
//!
//! ```no_run
//! # use kinoprobe::{media::{self, Sampling}, models::Card, manifest::Clip};
//! # #[cfg(feature = "media")]
//! # fn f(clip: &Clip, sampling: &Sampling, card: &Card) -> kinoprobe::Result<()> {
//! let mut items = media::ItemSink::new(&card.input); // one per worker thread, since it keeps buffers
//! let decoded = media::decode(clip, sampling, &mut items)?;
//! let pixels: Vec<u8> = items.take(); // one item per window, in order: (windows, 3, [T,] H, W), not normalized
//! for window in &decoded.windows {
//!     println!("{} s", decoded.timeline.seconds(window.indices[0]));
//! }
//! # Ok(()) }
//! ```
//!
//! [`decode`] reads the packets of a video without decoding them, plans the sampling from their timestamps, decodes the sections that
//! contain the sampled frames, and passes each one to a [`FrameSink`] (borrowed from the decoder, without a copy). The frames equal those
//! of a decoding from the beginning to the end. A video whose packets do not tell where its frames are is decoded completely; then a second
//! pass follows if the container's frame count is wrong. Packets that cannot be decoded are skipped, and counted in a warning.
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
mod archive;
#[cfg(feature = "media")]
mod bitstream;
#[cfg(feature = "media")]
mod boxes;
#[cfg(feature = "media")]
mod converter;
#[cfg(feature = "media")]
mod decode;
#[cfg(feature = "media")]
mod deinterlacer;
#[cfg(feature = "media")]
mod delivery;
#[cfg(feature = "media")]
mod frame_image;
#[cfg(feature = "media")]
mod frames;
#[cfg(feature = "media")]
mod image;
#[cfg(feature = "media")]
mod image_stats;
#[cfg(feature = "media")]
mod indexed;
#[cfg(feature = "media")]
mod input;
#[cfg(feature = "media")]
mod items;
#[cfg(feature = "media")]
pub(crate) mod jpeg;
#[cfg(feature = "media")]
pub(crate) mod libav;
#[cfg(feature = "media")]
mod location;
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
pub(crate) mod test_video;
#[cfg(feature = "media")]
mod timing;
pub mod transform;
#[cfg(feature = "media")]
mod video;

/// Version of the decoding. A store records it and does not mix the rows of different versions. Version 1 ignored color tags and
/// mirroring, counted times from the first frame of the video, and stopped after damaged sections. Version 2 sampled damaged videos from
/// the frames that can be decoded, and not from all frames.
pub const DECODER_VERSION: &str = "3";

pub use pixels::BgrImage;
pub use sampler::{Timeline, Wanted, Window};
pub use sampling::{Deinterlace, MAX_LENGTH, Sampling};
pub use shots::{Shot, Shots};
pub use transform::Transform;

#[cfg(feature = "media")]
pub use self::{
    decode::{container_info, decode, decode_image, image_size},
    image_stats::ImageStats,
    items::ItemSink,
    location::Location,
    sink::{Decoded, Frame, FrameSink},
    source::Source,
    video::ContainerInfo,
};
