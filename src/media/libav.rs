//! Decoding of the best video stream of a file by libav (FFmpeg's libraries). Frames of intact files are those that OpenCV's
//! `VideoCapture` returns; times count from the start of the file, those of OpenCV from the start of the stream.

use std::path::Path;

use ffmpeg_next as ffmpeg;

use ffmpeg::error::EAGAIN;
use ffmpeg::format::stream::{Disposition, Stream};
use ffmpeg::{Dictionary, Packet, codec, format, frame, media};

use super::converter::{ColorTags, Converter};
use super::orientation::Orientation;
use super::pixels::BgrImage;

/// Number of consecutive errors of a decoder, without a new packet, after which it is not asked again.
const MAX_DECODER_ERRORS: usize = 64;

/// Number of consecutive read errors after which the stream ends. Of a truncated MP4 file, each missing packet is an error.
const MAX_READ_ERRORS: usize = 10_000;

/// Decoding errors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Damage {
    /// Number of packets that cannot be read or decoded.
    packets: usize,
    /// Number of decoded frames with errors, which the decoder conceals.
    frames: usize,
}

impl Damage {
    /// Returns a message for the user if there were errors.
    pub(super) fn warning(self) -> Option<String> {
        let Self { packets, frames } = self;
        (self != Self::default()).then(|| {
            format!("damaged: {packets} packets cannot be decoded, and {frames} of the decoded frames have errors")
        })
    }
}

/// Smallest difference between the start times of the stream and the file in seconds. Smaller ones are due to rounding.
const MIN_DELAY: f64 = 1e-3;

/// An open video file with its decoder.
pub(super) struct Video {
    file: format::context::Input,
    stream: usize,
    decoder: codec::decoder::Video,
    /// The most recent frame.
    frame: frame::Video,
    /// `true` if all packets have been read, and only the frames in the decoder are left.
    draining: bool,
    /// Time base of the stream: seconds per tick.
    time_base: f64,
    /// Start time of the stream in ticks.
    start: i64,
    /// Start time of the stream in seconds from the start of the file.
    delay: f64,
    orientation: Orientation,
    damage: Damage,
    converter: Converter,
    color_tags: Option<ColorTags>,
    oriented: Vec<u8>,
}

impl Video {
    /// Opens a file and its decoder, with one thread. Returns `None` if the file has no video stream that can be decoded; the
    /// cover of a music file is none. The path must be absolute, since libav could interpret the start of a relative path as a protocol (`name:`). Only the
    /// file protocol is allowed, also for files that the file refers to.
    ///
    /// # Panics
    /// Panics if the path is not UTF-8.
    pub(super) fn open(path: &Path) -> Option<Self> {
        silence();
        let options = Dictionary::from_iter([("protocol_whitelist", "file")]);
        let file = format::input_with_dictionary(path, options).ok()?;
        let stream = video_stream(&file)?;
        let mut context = codec::Context::from_parameters(stream.parameters()).ok()?;
        context.set_threading(codec::threading::Config::count(1));
        let mut decoder = context.decoder();
        decoder.set_packet_time_base(stream.time_base());
        let decoder = decoder.video().ok()?;
        let orientation = stream
            .side_data()
            .find(|data| data.kind() == codec::packet::side_data::Type::DisplayMatrix)
            .map(|data| Orientation::from_display_matrix(data.data()));
        let time_base = f64::from(stream.time_base());
        let start = Some(stream.start_time()).filter(|&time| time != ffmpeg::ffi::AV_NOPTS_VALUE).unwrap_or(0);
        let delay = ffi_wrappers::start_seconds(&file).map_or(0.0, |file| start as f64 * time_base - file);
        Some(Self {
            stream: stream.index(),
            time_base,
            start,
            delay: if delay.abs() < MIN_DELAY { 0.0 } else { delay },
            orientation: orientation.unwrap_or_default(),
            file,
            decoder,
            frame: frame::Video::empty(),
            draining: false,
            damage: Damage::default(),
            converter: Converter::new(),
            color_tags: None,
            oriented: Vec::new(),
        })
    }

    /// Returns the frame rate of the container; 0 if unknown.
    pub(super) fn container_fps(&self) -> f64 {
        let Some(stream) = self.file.stream(self.stream) else { return 0.0 };
        let rates = [ffi_wrappers::guess_frame_rate(&self.file, &stream), stream.avg_frame_rate()];
        rates.map(f64::from).into_iter().find(|rate| rate.is_finite() && *rate > 0.0).unwrap_or(0.0)
    }

    /// Returns the frame count of the container, or an estimate from its duration; 0 if both are unknown.
    pub(super) fn container_frame_count(&self) -> f64 {
        let Some(stream) = self.file.stream(self.stream) else { return 0.0 };
        if stream.frames() > 0 {
            return stream.frames() as f64;
        }
        let duration = self.file.duration() as f64 / f64::from(ffmpeg::ffi::AV_TIME_BASE);
        let duration = if duration > 0.0 { duration } else { stream.duration() as f64 * self.time_base };
        (duration * self.container_fps() + 0.5).floor().max(0.0)
    }

    /// Returns width and height of the container.
    pub(super) fn container_size(&self) -> [u32; 2] {
        [self.decoder.width(), self.decoder.height()]
    }

    /// Decodes the next frame. Returns `false` at the end of the stream. Damaged packets are skipped and counted.
    pub(super) fn next(&mut self) -> bool {
        let (mut decoder_errors, mut read_errors) = (0, 0);
        loop {
            match self.decoder.receive_frame(&mut self.frame) {
                Ok(()) => {
                    self.damage.frames += usize::from(self.frame.is_corrupt() || self.frame.has_decode_errors());
                    return true;
                }
                Err(ffmpeg::Error::Other { errno: EAGAIN }) if !self.draining => {}
                Err(ffmpeg::Error::Other { errno: EAGAIN } | ffmpeg::Error::Eof) => return false,
                Err(_) => {
                    self.damage.packets += 1;
                    decoder_errors += 1;
                    if decoder_errors < MAX_DECODER_ERRORS {
                        continue;
                    }
                    if self.draining {
                        return false;
                    }
                }
            }
            // A new packet each time: reading into a used packet would leak its data.
            let mut packet = Packet::empty();
            match packet.read(&mut self.file) {
                Ok(()) if packet.stream() != self.stream => {}
                Ok(()) => {
                    (decoder_errors, read_errors) = (0, 0);
                    // A demuxer marks packets of which it lost a part.
                    let failed = self.decoder.send_packet(&packet).is_err();
                    self.damage.packets += usize::from(failed);
                    self.damage.frames += usize::from(!failed && packet.is_corrupt());
                }
                Err(error) => {
                    read_errors += 1;
                    if error != ffmpeg::Error::Eof && read_errors < MAX_READ_ERRORS {
                        self.damage.packets += usize::from(error != ffmpeg::Error::Other { errno: EAGAIN });
                        continue;
                    }
                    self.draining = true;
                    if self.decoder.send_eof().is_err() {
                        return false;
                    }
                }
            }
        }
    }

    /// Returns the errors since the file was opened.
    pub(super) fn damage(&self) -> Damage {
        self.damage
    }

    /// Returns the start time of the stream in seconds from the start of the file, which is the start of its earliest stream.
    pub(super) fn delay(&self) -> f64 {
        self.delay
    }

    /// Returns the time of the frame in seconds from the start of the file, or `None` if unknown.
    pub(super) fn seconds(&self) -> Option<f64> {
        let seconds = |time: i64| time.wrapping_sub(self.start) as f64 * self.time_base + self.delay;
        self.frame.timestamp().map(seconds)
    }

    /// Returns the color description of the last frame that was converted.
    pub(super) fn color_tags(&self) -> Option<ColorTags> {
        self.color_tags
    }

    /// Converts the frame to color and applies the display matrix. Returns `None` if swscale does not support its format.
    pub(super) fn image(&mut self) -> Option<BgrImage<'_>> {
        let (width, height) = (self.frame.width() as usize, self.frame.height() as usize);
        // As in OpenCV, the coded frame is converted and then cropped, which yields different colors for odd sizes.
        let (coded_width, coded_height) = ffi_wrappers::coded_size(&self.decoder, &self.frame);
        self.color_tags = Some(ColorTags::of(&self.frame));
        self.frame.set_width(coded_width);
        self.frame.set_height(coded_height);
        let converted = self.converter.run(&self.frame);
        self.frame.set_width(width as u32);
        self.frame.set_height(height as u32);
        let converted = converted?;
        let stride = converted.stride(0);
        let bytes = converted.data_mut(0);
        // Remove the padding of rows.
        for y in 1..height {
            bytes.copy_within(y * stride..y * stride + 3 * width, y * 3 * width);
        }
        let bytes = &bytes[..height * width * 3];
        if self.orientation.is_identity() {
            return Some(BgrImage::new(height, width, bytes));
        }
        self.orientation.apply(height, width, bytes, &mut self.oriented);
        let [height, width] = self.orientation.output_size(height, width);
        Some(BgrImage::new(height, width, &self.oriented))
    }
}

/// Returns libav's best video stream. Cover art is a video stream of one frame for libav, and not considered.
fn video_stream(file: &format::context::Input) -> Option<Stream<'_>> {
    let is_video = |stream: &Stream<'_>| {
        let is_cover = stream.disposition().contains(Disposition::ATTACHED_PIC);
        stream.parameters().medium() == media::Type::Video && !is_cover
    };
    file.streams().best(media::Type::Video).into_iter().chain(file.streams()).find(is_video)
}

/// Disables the log output of libav and its codecs, which would disturb the progress bar.
pub(crate) fn silence() {
    ffmpeg::log::set_level(ffmpeg::log::Level::Quiet);
}

/// Functions and fields of libav that ffmpeg-next does not wrap.
#[allow(unsafe_code)]
mod ffi_wrappers {
    use std::ptr;

    use ffmpeg::ffi;
    use ffmpeg::{Rational, Stream, codec, format, frame};
    use ffmpeg_next as ffmpeg;

    /// Returns libav's guess from the frame rates of the container and the codec.
    pub(super) fn guess_frame_rate(file: &format::context::Input, stream: &Stream<'_>) -> Rational {
        // SAFETY: both are valid, and the stream belongs to the file. The function only reads.
        let rate =
            unsafe { ffi::av_guess_frame_rate(file.as_ptr().cast_mut(), stream.as_ptr().cast_mut(), ptr::null_mut()) };
        Rational::new(rate.num, rate.den)
    }

    /// Returns the start time of a file in seconds, the earliest of its streams, or `None` if unknown.
    pub(super) fn start_seconds(file: &format::context::Input) -> Option<f64> {
        // SAFETY: the file is valid, and the field is an integer.
        let start = unsafe { (*file.as_ptr()).start_time };
        (start != ffi::AV_NOPTS_VALUE).then(|| start as f64 / f64::from(ffi::AV_TIME_BASE))
    }

    /// Returns width and height of the coded frame, whose upper left part is displayed, if the buffers of the frame contain all
    /// of it; otherwise the displayed size.
    pub(super) fn coded_size(decoder: &codec::decoder::Video, frame: &frame::Video) -> (u32, u32) {
        let displayed = (frame.width(), frame.height());
        // SAFETY: the decoder is valid, and the fields are integers.
        let (width, height) = unsafe { ((*decoder.as_ptr()).coded_width, (*decoder.as_ptr()).coded_height) };
        let (Ok(coded_width), Ok(coded_height)) = (u32::try_from(width), u32::try_from(height)) else {
            return displayed;
        };
        // The decoder may be ahead of the frame, and the frame size may have changed.
        let current =
            (decoder.width(), decoder.height(), decoder.format()) == (displayed.0, displayed.1, frame.format());
        let larger = coded_width >= displayed.0 && coded_height >= displayed.1;
        if current && larger && has_size(frame, width, height) { (coded_width, coded_height) } else { displayed }
    }

    /// Returns `true` if the buffers of a frame are large enough for this size.
    fn has_size(frame: &frame::Video, width: i32, height: i32) -> bool {
        let format = frame.format().into();
        // SAFETY: the frame and its buffers are valid. Addresses are compared but not dereferenced.
        unsafe {
            let raw = &*frame.as_ptr();
            let strides: [isize; 4] = std::array::from_fn(|plane| raw.linesize[plane] as isize);
            let mut sizes = [0; 4];
            let known = strides.iter().all(|&stride| stride >= 0)
                && ffi::av_image_fill_plane_sizes(sizes.as_mut_ptr(), format, height, strides.as_ptr()) >= 0;
            known
                && (0..4).filter(|&plane| sizes[plane] > 0).all(|plane| {
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

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// Returns a PNG image.
    fn cover() -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image::RgbImage::new(16, 16).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    /// Returns an MP3 file: an ID3v2.3 tag with a picture, and silent frames of MPEG-1 Layer III (128 kbit/s, 44.1 kHz).
    fn mp3() -> Vec<u8> {
        let picture = [b"\0image/png\0\x03\0", cover().as_slice()].concat();
        let frame = [b"APIC", (picture.len() as u32).to_be_bytes().as_slice(), b"\0\0", &picture].concat();
        // The length of the tag has 7 bits per byte.
        let length = [21, 14, 7, 0].map(|shift| (frame.len() >> shift) as u8 & 0x7f);
        let mut silence = [0; 417];
        silence[..4].copy_from_slice(&[0xff, 0xfb, 0x90, 0x64]);
        [b"ID3\x03\0\0".as_slice(), &length, &frame, &silence.repeat(20)].concat()
    }

    /// Returns a FLAC file (RFC 9639): the stream information, a picture, and no audio frames.
    fn flac() -> Vec<u8> {
        let information =
            [&[16, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0x0a, 0xc4, 0x42, 0xf0].as_slice(), [0; 20].as_slice()].concat();
        let number = |value: usize| (value as u32).to_be_bytes();
        let mut picture = [number(3), number(9)].concat();
        picture.extend(b"image/png");
        picture.extend([0, 16, 16, 24, 0, cover().len()].map(number).concat());
        picture.extend(cover());
        let length = &number(picture.len())[1..];
        [b"fLaC\0\0\0\x22", information.as_slice(), &[0x86], length, &picture].concat()
    }

    #[test]
    fn cover_art_is_not_a_video() {
        silence();
        let directory = tempfile::tempdir().unwrap();
        for (name, bytes) in [("song.mp3", mp3()), ("song.flac", flac())] {
            let path = directory.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let file = format::input(&path).unwrap();
            let cover = file.streams().best(media::Type::Video).expect("libav finds the cover");
            assert_eq!(cover.parameters().id(), codec::Id::PNG, "{name}");
            assert!(Video::open(&path).is_none(), "{name}");
        }
    }
}
