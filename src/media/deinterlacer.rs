//! Deinterlacing by libavfilter's `bwdif` (Bob Weaver deinterlacing filter, based on the BBC's w3fdif and on yadif).

use ffmpeg_next as ffmpeg;

use ffmpeg::{filter, format, frame};

/// Number of frames before and after a frame that its result depends on.
pub(super) const NEIGHBORS: usize = 1;

/// A filter for consecutive frames. Frames that are not marked as interlaced are not changed.
pub(super) struct Deinterlacer {
    graph: filter::Graph,
    format: (format::Pixel, u32, u32),
}

impl Deinterlacer {
    /// Creates a filter for frames like this one. Returns `None` if libavfilter does not support the format.
    pub(super) fn new(frame: &frame::Video) -> Option<Self> {
        let format = format_of(frame);
        let (pixel, width, height) = format;
        let mut graph = filter::Graph::new();
        // Times and the pixels' aspect ratio have no effect.
        let pixel = ffmpeg::ffi::AVPixelFormat::from(pixel) as i32;
        let source = format!("video_size={width}x{height}:pix_fmt={pixel}:time_base=1/25:pixel_aspect=1/1");
        graph.add(&filter::find("buffer")?, "in", &source).ok()?;
        graph.add(&filter::find("buffersink")?, "out", "").ok()?;
        let parser = graph.output("in", 0).and_then(|parser| parser.input("out", 0));
        // One output frame per input frame, and only interlaced frames.
        parser.and_then(|parser| parser.parse("bwdif=mode=send_frame:deint=interlaced")).ok()?;
        graph.validate().ok()?;
        Some(Self { graph, format })
    }

    /// Returns `true` if a frame has the format of this filter.
    pub(super) fn accepts(&self, frame: &frame::Video) -> bool {
        format_of(frame) == self.format
    }

    /// Sends the next frame, which is empty afterwards. Returns `false` if the filter fails.
    pub(super) fn push(&mut self, frame: &frame::Video) -> bool {
        self.graph.get("in").is_some_and(|mut filter| filter.source().add(frame).is_ok())
    }

    /// Ends the sequence. The remaining frames can then be received.
    pub(super) fn finish(&mut self) -> bool {
        self.graph.get("in").is_some_and(|mut filter| filter.source().flush().is_ok())
    }

    /// Receives the next result, in the order of the frames that were sent; `None` if there is none yet.
    pub(super) fn pull(&mut self) -> Option<frame::Video> {
        let mut frame = frame::Video::empty();
        self.graph.get("out")?.sink().frame(&mut frame).ok()?;
        Some(frame)
    }
}

fn format_of(frame: &frame::Video) -> (format::Pixel, u32, u32) {
    (frame.format(), frame.width(), frame.height())
}
