//! From a path to frames: a video, an image or a folder of frames, decoded once, only the wanted frames looked at.
//!
//! ```no_run
//! # use kinoprobe::{media::{self, Sampling}, models::Card, manifest::Clip};
//! # #[cfg(feature = "media")]
//! # fn f(clip: &Clip, sampling: &Sampling, card: &Card) -> kinoprobe::Result<()> {
//! let mut items = media::ItemSink::new(&card.input); // one per worker thread: it keeps its buffers
//! let decoded = media::decode(clip, sampling, &mut items)?;
//! let tensor: Vec<f32> = items.take(); // one item per window, in order: (windows, 3, [T,] H, W)
//! for window in &decoded.windows {
//!     println!("{} s", decoded.timeline.seconds(window.indices[0]));
//! }
//! # Ok(()) }
//! ```
//!
//! [`decode`] plans the sampling from what the container claims, shows each wanted frame to a [`FrameSink`] as it is
//! decoded (borrowed from the decoder, so nothing is copied or collected), and goes on to the end of the clip to learn
//! how many frames there really are and when each is shown. If the plan from the truth is another one, the sink begins
//! anew and the clip is decoded a second time. There is no seeking: frame `i` is the `i`-th that decodes.
//!
//! A sink for another purpose (SIFT, thumbnails) implements the two methods of [`FrameSink`].
//!
//! Videos have rotation metadata applied and a clock; images and folders have none (`fps` 0, all seconds 0), so
//! windows take every frame of a folder. A folder's frames are its image files in natural order (`shot_2` before
//! `shot_10`), hidden files and subfolders left out; they may differ in size.

#[cfg(feature = "media")]
mod frames;
#[cfg(feature = "media")]
mod image;
#[cfg(feature = "media")]
mod items;
#[cfg(feature = "media")]
pub(crate) mod jpeg;
#[cfg(feature = "media")]
pub(crate) mod libav;
#[cfg(feature = "media")]
mod orientation;
pub mod sampler;
mod sampling;
pub mod shots;
#[cfg(feature = "media")]
mod still;
#[cfg(feature = "media")]
mod timing;
pub mod transform;
#[cfg(feature = "media")]
mod video;

pub use sampler::{Timeline, Wanted, Window};
pub use sampling::Sampling;
pub use shots::{Shot, Shots};
pub use transform::{BgrImage, Transform};

#[cfg(feature = "media")]
pub use self::{items::ItemSink, still::Still, stream::*};

#[cfg(feature = "media")]
mod stream {
    use std::path::{Path, PathBuf};

    use super::sampler::{self, Timeline, Wanted, Window};
    use super::{BgrImage, frames, image, video};
    use crate::error::{Error, Result};
    use crate::manifest::Clip;

    /// What a clip is read from.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum Source {
        /// A file with a video stream.
        Video(PathBuf),
        /// One picture.
        Image(PathBuf),
        /// The pictures of a folder, in natural order.
        Frames(Vec<PathBuf>),
    }

    impl Source {
        /// Looks at the path: a folder is frames, a file named like a picture an image, everything else a video.
        ///
        /// # Errors
        /// There is nothing there, it is empty, neither file nor folder, or a folder without pictures; or the clip has
        /// a start or end but no clock, or a start that is not before its end.
        pub fn of(clip: &Clip) -> Result<Self> {
            let path = &clip.file;
            let wrong = |message: &str| Err(Error::Media { path: path.clone(), message: message.into() });
            let metadata = match std::fs::metadata(path) {
                Ok(metadata) => metadata,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return wrong("no such file or folder"),
                Err(e) => return Err(Error::io(path)(e)),
            };
            let (start, end) = (clip.start.unwrap_or(0.0), clip.end.unwrap_or(f64::INFINITY));
            if start.is_nan() || end.is_nan() || start < 0.0 || start >= end {
                return wrong(&format!("start {start} s is not before end {end} s"));
            }
            let source = if metadata.is_dir() {
                Source::Frames(frames::list(path)?)
            } else if !metadata.is_file() {
                return wrong("neither a file nor a folder");
            } else if metadata.len() == 0 {
                return wrong("the file is empty");
            } else if image::is_named_like_one(path) {
                Source::Image(path.clone())
            } else {
                Source::Video(path.clone())
            };
            if !matches!(source, Source::Video(_)) && (clip.start.is_some() || clip.end.is_some()) {
                return wrong("start and end need a video: pictures have no clock");
            }
            Ok(source)
        }
    }

    /// One decoded frame, borrowed from the decoder: eight bits, blue, green, red.
    #[derive(Debug)]
    pub struct Frame<'a> {
        /// Its index in the clip.
        pub index: usize,
        image: BgrImage<'a>,
    }

    impl<'a> Frame<'a> {
        pub(super) fn new(index: usize, image: BgrImage<'a>) -> Self {
            Self { index, image }
        }

        /// The frame's pixels; its rows follow each other without a gap.
        pub fn image(&self) -> BgrImage<'a> {
            self.image
        }
    }

    /// Takes the wanted frames of a clip while it is decoded.
    pub trait FrameSink {
        /// A pass begins: frames `wanted` (ascending, distinct: all that `windows` look at) will come. Called a second
        /// time where the first plan proves wrong; what came before is then void.
        ///
        /// # Errors
        /// The sink cannot use such windows.
        fn begin(&mut self, windows: &[Window], wanted: &[usize]) -> Result<()>;

        /// Frame `wanted[position]`; positions come in order.
        ///
        /// # Errors
        /// The frame cannot be used; ends the clip.
        fn frame(&mut self, position: usize, frame: &Frame<'_>) -> Result<()>;
    }

    /// A clip after decoding.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Decoded {
        /// How many frames there really are, and when they are shown.
        pub timeline: Timeline,
        /// What was looked at, in order; never empty.
        pub windows: Vec<Window>,
        /// What the user should know: far fewer frames than the container claims.
        pub warnings: Vec<String>,
    }

    /// What is wrong where nothing is wanted of a clip that has frames.
    pub(super) const NO_SHOT: &str = "none of its shots lies within the clip";

    /// Decodes a clip and shows the sink the frames that are wanted: those of a sampling, or of its shots.
    ///
    /// # Errors
    /// [`Error::Media`] or [`Error::Io`], naming the file: missing, empty, not decodable, without a frame, a start past
    /// the end, a folder without pictures, a picture too large, shots that are all elsewhere. Whatever the sink returns.
    pub fn decode<'a, S: FrameSink>(clip: &Clip, wanted: impl Into<Wanted<'a>>, sink: &mut S) -> Result<Decoded> {
        let wanted = wanted.into();
        match Source::of(clip)? {
            Source::Video(path) => {
                let range = clip.start.unwrap_or(0.0)..clip.end.unwrap_or(f64::INFINITY);
                video::decode(&path, range, wanted, sink)
            }
            Source::Image(path) => pictures(&[path], wanted, sink),
            Source::Frames(paths) => pictures(&paths, wanted, sink),
        }
    }

    /// Decodes a picture that is in memory and shows it to the sink, as [`decode`] does with the same picture's file.
    /// `name` is for the error.
    ///
    /// # Errors
    /// [`Error::Media`]: no picture, damaged, cut off or too large. Whatever the sink returns.
    pub fn decode_picture<S: FrameSink>(name: &Path, bytes: &[u8], sink: &mut S) -> Result<()> {
        let picture = image::decode(name, bytes)?;
        sink.begin(&[Window { indices: vec![0], padded: false }], &[0])?;
        sink.frame(0, &Frame::new(0, picture.image()))
    }

    /// Width and height that a picture's header claims; none where it is no picture, or of an unknown format.
    pub fn picture_size(bytes: &[u8]) -> Option<(u64, u64)> {
        image::claimed_size(bytes)
    }

    /// What a video's container claims.
    #[derive(Debug, Clone, Copy, PartialEq)]
    pub struct Claims {
        /// Length; 0 where it claims none.
        pub seconds: f64,
        /// Pixels of a frame.
        pub pixels: u64,
    }

    /// What the container of a video claims, before anything is decoded: not to be believed, but enough to refuse.
    ///
    /// # Errors
    /// [`Error::Media`]: no video stream that can be decoded.
    pub fn claims(path: &Path) -> Result<Claims> {
        video::claims(path)
    }

    fn pictures<S: FrameSink>(paths: &[PathBuf], wanted: Wanted<'_>, sink: &mut S) -> Result<Decoded> {
        let timeline = Timeline { frame_count: paths.len(), ..Timeline::default() };
        let windows = sampler::plan(wanted, &timeline);
        if windows.is_empty() {
            return Err(Error::Media { path: paths[0].clone(), message: NO_SHOT.into() });
        }
        let wanted = sampler::distinct(&windows);
        sink.begin(&windows, &wanted)?;
        for (position, &index) in wanted.iter().enumerate() {
            let picture = image::read(&paths[index])?;
            sink.frame(position, &Frame::new(index, picture.image()))?;
        }
        Ok(Decoded { timeline, windows, warnings: Vec::new() })
    }
}
