//! The first or best video stream of a file, frame by frame, by libav (FFmpeg's libraries). The only user of its decoders.
//!
//! Frames, colors and times are OpenCV's `VideoCapture`'s: swscale makes blue, green, red of them with its bicubic
//! flag and its defaults.

use std::path::Path;

use ffmpeg_next as ffmpeg;

use ffmpeg::error::EAGAIN;
use ffmpeg::format::Pixel;
use ffmpeg::software::scaling::{self, context::Definition};
use ffmpeg::{Dictionary, Packet, codec, format, frame, media};

use super::BgrImage;
use super::orientation::{self, Turn};

/// Packets in a row that may fail to decode before the stream is taken to be at its end: a damaged one goes on after some.
const ATTEMPTS: usize = 8;

/// An open file.
pub(super) struct Video {
    file: format::context::Input,
    stream: usize,
    decoder: codec::decoder::Video,
    /// The frame that was decoded last.
    frame: frame::Video,
    /// No packet is left: only what the decoder still holds.
    draining: bool,
    /// Seconds of a tick of the stream's clock.
    tick: f64,
    /// The stream's first time, in ticks.
    start: i64,
    turn: Turn,
    converter: Option<scaling::Context>,
    converted: frame::Video,
    upright: Vec<u8>,
}

impl Video {
    /// Opens a file and its decoder, with one thread; none where it has no video stream that can be decoded. The path is
    /// absolute, so that no `name:` stands in front that libav could take for a protocol; of protocols only that of files is
    /// allowed, whatever the file refers to.
    ///
    /// # Panics
    /// The path is not UTF-8.
    pub(super) fn open(path: &Path) -> Option<Self> {
        silence();
        let options = Dictionary::from_iter([("protocol_whitelist", "file")]);
        let file = format::input_with_dictionary(path, options).ok()?;
        let stream = file.streams().best(media::Type::Video)?;
        let mut context = codec::Context::from_parameters(stream.parameters()).ok()?;
        context.set_threading(codec::threading::Config::count(1));
        let mut decoder = context.decoder();
        decoder.set_packet_time_base(stream.time_base());
        let decoder = decoder.video().ok()?;
        let clockwise = stream
            .side_data()
            .find(|data| data.kind() == codec::packet::side_data::Type::DisplayMatrix)
            .map_or(0, |data| orientation::of_matrix(data.data()));
        let unknown = ffmpeg::ffi::AV_NOPTS_VALUE;
        Some(Self {
            stream: stream.index(),
            tick: f64::from(stream.time_base()),
            start: Some(stream.start_time()).filter(|&time| time != unknown).unwrap_or(0),
            turn: Turn::clockwise(clockwise),
            file,
            decoder,
            frame: frame::Video::empty(),
            draining: false,
            converter: None,
            converted: frame::Video::empty(),
            upright: Vec::new(),
        })
    }

    /// Frames a second that the container claims; 0 where it claims none.
    pub(super) fn claimed_fps(&self) -> f64 {
        let Some(stream) = self.file.stream(self.stream) else { return 0.0 };
        let rates = [door::guessed_rate(&self.file, &stream), stream.avg_frame_rate()];
        rates.map(f64::from).into_iter().find(|rate| rate.is_finite() && *rate > 0.0).unwrap_or(0.0)
    }

    /// Frames that the container claims, or that its length does; 0 where it claims neither.
    pub(super) fn claimed_frames(&self) -> f64 {
        let Some(stream) = self.file.stream(self.stream) else { return 0.0 };
        if stream.frames() > 0 {
            return stream.frames() as f64;
        }
        let length = self.file.duration() as f64 / f64::from(ffmpeg::ffi::AV_TIME_BASE);
        let length = if length > 0.0 { length } else { stream.duration() as f64 * self.tick };
        (length * self.claimed_fps() + 0.5).floor().max(0.0)
    }

    /// Width and height that the container claims.
    pub(super) fn claimed_size(&self) -> [u32; 2] {
        [self.decoder.width(), self.decoder.height()]
    }

    /// Decodes the next frame; false at the end of what can be decoded.
    pub(super) fn next(&mut self) -> bool {
        let mut failures = 0;
        while failures < ATTEMPTS {
            match self.decoder.receive_frame(&mut self.frame) {
                Ok(()) => return true,
                Err(ffmpeg::Error::Other { errno: EAGAIN }) if !self.draining => {}
                Err(ffmpeg::Error::Other { errno: EAGAIN } | ffmpeg::Error::Eof) => return false,
                Err(_) => {
                    failures += 1;
                    continue;
                }
            }
            // A new one each time: reading into one that is filled would leak what it holds.
            let mut packet = Packet::empty();
            match packet.read(&mut self.file) {
                Ok(()) if packet.stream() != self.stream => {}
                Ok(()) => failures += usize::from(self.decoder.send_packet(&packet).is_err()),
                Err(ffmpeg::Error::Other { errno: EAGAIN }) => {}
                // What cannot be read ends the stream as its end does.
                Err(_) => {
                    self.draining = true;
                    if self.decoder.send_eof().is_err() {
                        return false;
                    }
                }
            }
        }
        false
    }

    /// Seconds of the frame after the stream's first; 0 where the decoder knows no time.
    pub(super) fn seconds(&self) -> f64 {
        self.frame.timestamp().map_or(0.0, |time| time.wrapping_sub(self.start) as f64 * self.tick)
    }

    /// The frame in color and upright; none where swscale does not know its format.
    pub(super) fn picture(&mut self) -> Option<BgrImage<'_>> {
        let (width, height) = (self.frame.width() as usize, self.frame.height() as usize);
        // As OpenCV: the whole coded picture is converted and then cropped, which gives other colors at odd sizes.
        let (coded_width, coded_height) = door::coded_size(&self.decoder, &self.frame);
        let wanted = Definition { format: self.frame.format(), width: coded_width, height: coded_height };
        if self.converter.as_ref().is_none_or(|made| *made.input() != wanted) {
            self.converter = Some(converter(wanted)?);
            self.converted = frame::Video::new(Pixel::BGR24, coded_width, coded_height);
        }
        self.frame.set_width(coded_width);
        self.frame.set_height(coded_height);
        let done = self.converter.as_mut()?.run(&self.frame, &mut self.converted);
        self.frame.set_width(width as u32);
        self.frame.set_height(height as u32);
        done.ok()?;
        let stride = self.converted.stride(0);
        let bytes = self.converted.data_mut(0);
        // Rows one after the other, without a gap.
        for y in 1..height {
            bytes.copy_within(y * stride..y * stride + 3 * width, y * 3 * width);
        }
        let bytes = &bytes[..height * width * 3];
        if self.turn.is_none() {
            return Some(BgrImage::new(height, width, bytes));
        }
        self.turn.apply(height, width, bytes, &mut self.upright);
        let [height, width] = self.turn.size(height, width);
        Some(BgrImage::new(height, width, &self.upright))
    }
}

/// Keeps libav and its codecs from writing to the terminal, where they would tear the progress bar.
pub(crate) fn silence() {
    ffmpeg::log::set_level(ffmpeg::log::Level::Quiet);
}

/// From a format to blue, green, red of the same size.
fn converter(from: Definition) -> Option<scaling::Context> {
    let Definition { format, width, height } = from;
    scaling::Context::get(format, width, height, Pixel::BGR24, width, height, scaling::Flags::BICUBIC).ok()
}

/// What libav tells and ffmpeg-next does not ask.
#[allow(unsafe_code)]
mod door {
    use std::ptr;

    use ffmpeg::ffi;
    use ffmpeg::{Rational, Stream, codec, format, frame};
    use ffmpeg_next as ffmpeg;

    /// The frame rate by libav's own rule, from the several that a stream claims.
    pub(super) fn guessed_rate(file: &format::context::Input, stream: &Stream<'_>) -> Rational {
        // SAFETY: both live and the stream is one of the file's; numbers are read, nothing is written.
        let rate =
            unsafe { ffi::av_guess_frame_rate(file.as_ptr().cast_mut(), stream.as_ptr().cast_mut(), ptr::null_mut()) };
        Rational::new(rate.num, rate.den)
    }

    /// Width and height of the coded picture, of which the frame is the upper left part, where its buffers hold as much; else
    /// the frame's own.
    pub(super) fn coded_size(decoder: &codec::decoder::Video, frame: &frame::Video) -> (u32, u32) {
        let shown = (frame.width(), frame.height());
        // SAFETY: the decoder lives; these are plain numbers.
        let (width, height) = unsafe { ((*decoder.as_ptr()).coded_width, (*decoder.as_ptr()).coded_height) };
        let (Ok(coded_width), Ok(coded_height)) = (u32::try_from(width), u32::try_from(height)) else { return shown };
        // The decoder may be ahead of the frame, in pictures of another size.
        let current = (decoder.width(), decoder.height(), decoder.format()) == (shown.0, shown.1, frame.format());
        let larger = coded_width >= shown.0 && coded_height >= shown.1;
        if current && larger && holds(frame, width, height) { (coded_width, coded_height) } else { shown }
    }

    /// Whether the buffers of a frame have the bytes of a picture of this size.
    fn holds(frame: &frame::Video, width: i32, height: i32) -> bool {
        let format = frame.format().into();
        // SAFETY: the frame lives and its buffers with it; addresses are only compared, never followed.
        unsafe {
            let raw = &*frame.as_ptr();
            let strides: [isize; 4] = std::array::from_fn(|plane| raw.linesize[plane] as isize);
            let mut sizes = [0; 4];
            let told = strides.iter().all(|&stride| stride >= 0)
                && ffi::av_image_fill_plane_sizes(sizes.as_mut_ptr(), format, height, strides.as_ptr()) >= 0;
            told && (0..4).filter(|&plane| sizes[plane] > 0).all(|plane| {
                let buffer = ffi::av_frame_get_plane_buffer(frame.as_ptr().cast_mut(), plane as i32);
                if buffer.is_null() {
                    return false;
                }
                let (first, start) = (raw.data[plane] as usize, (*buffer).data as usize);
                let fits = first >= start && first + sizes[plane] <= start + (*buffer).size as usize;
                fits && raw.linesize[plane] >= ffi::av_image_get_linesize(format, width, plane as i32)
            })
        }
    }
}
