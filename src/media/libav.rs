//! Demuxing and decoding of the best video stream of a file by libav (FFmpeg's libraries). Frames of intact files are those that
//! OpenCV's `VideoCapture` returns; times count from the start of the file, those of OpenCV from the start of the stream.

use std::io::{Read, Seek};
use std::path::Path;

use ffmpeg_next as ffmpeg;

use ffmpeg::codec::threading::{Config, Type};
use ffmpeg::error::EAGAIN;
use ffmpeg::format::context::StreamIo;
use ffmpeg::format::stream::{Disposition, Stream};
use ffmpeg::{Dictionary, Discard, Packet, codec, format, frame, media};

use super::converter::hdr_name;
use super::frame_image::RawFrame;
use super::orientation::Orientation;

pub(super) mod ffi_wrappers;

/// Number of consecutive errors of a decoder, without a new packet, after which it is not asked again.
const MAX_DECODER_ERRORS: usize = 64;

/// Number of consecutive read errors after which the stream ends. Of a truncated MP4 file, each missing packet is an error.
const MAX_READ_ERRORS: usize = 10_000;

/// Bytes that libav reads at once from a stream.
const STREAM_BUFFER: usize = 64 << 10;

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

/// Formats of playlists and scripts. A clip is one file: its size and hash stand for what is decoded, and a file of unknown origin must not
/// make other files of this machine part of the features.
const REFERRING_FORMATS: [&str; 9] =
    ["concat", "hls", "dash", "imf", "sdp", "rtsp", "avisynth", "vapoursynth", "lavfi"];

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
}

impl Video {
    /// Opens a file and its decoder, with this number of threads. Returns `None` if the file has no video stream that can be
    /// decoded; the cover of a music file is none. The path must be absolute, since libav could interpret the start of a relative
    /// path as a protocol (`name:`). Nothing else is opened: only the file protocol is allowed, and no format that refers to other files.
    ///
    /// # Panics
    /// Panics if the path is not UTF-8.
    pub(super) fn open(path: &Path, threads: usize) -> Option<Self> {
        silence();
        let formats = ffi_wrappers::demuxers_except(&REFERRING_FORMATS);
        let options = Dictionary::from_iter([("protocol_whitelist", "file"), ("format_whitelist", &formats)]);
        Self::from_input(format::input_with_dictionary(path, options).ok()?, threads)
    }

    /// Opens a file that is read through `stream`, as [`Video::open`]. It cannot refer to other files.
    pub(super) fn open_stream<S: Read + Seek + Send + 'static>(stream: S, threads: usize) -> Option<Self> {
        Self::open_stream_with(stream, threads, &[])
    }

    /// Opens a file that is read through `stream`, of whose packets only the properties in the container are needed. Parsers, which
    /// would derive others from the content, are disabled.
    pub(super) fn open_container<S: Read + Seek + Send + 'static>(stream: S) -> Option<Self> {
        Self::open_stream_with(stream, 1, &[("fflags", "noparse+nofillin")])
    }

    fn open_stream_with<S: Read + Seek + Send + 'static>(
        stream: S,
        threads: usize,
        options: &[(&str, &str)],
    ) -> Option<Self> {
        silence();
        let stream = StreamIo::from_read_seek_with_capacity(stream, STREAM_BUFFER).ok()?;
        let formats = ffi_wrappers::demuxers_except(&REFERRING_FORMATS);
        let options = options.iter().copied().chain([("protocol_whitelist", "none"), ("format_whitelist", &formats)]);
        Self::from_input(format::input_from_stream(stream, None, Some(Dictionary::from_iter(options))).ok()?, threads)
    }

    fn from_input(mut file: format::context::Input, threads: usize) -> Option<Self> {
        let stream = video_stream(&file)?;
        let mut context = codec::Context::from_parameters(stream.parameters()).ok()?;
        context.set_threading(Config { count: threads, ..Config::kind(Type::Frame) });
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
        let stream = stream.index();
        ffi_wrappers::discard_other_streams(&mut file, stream);
        Some(Self {
            stream,
            time_base,
            start,
            delay: if delay.abs() < MIN_DELAY { 0.0 } else { delay },
            orientation: orientation.unwrap_or_default(),
            file,
            decoder,
            frame: frame::Video::empty(),
            draining: false,
            damage: Damage::default(),
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

    /// Returns the codec of the stream.
    pub(super) fn codec(&self) -> codec::Id {
        self.decoder.id()
    }

    /// Returns the codec's configuration in the container; empty if there is none.
    pub(super) fn configuration(&self) -> &[u8] {
        ffi_wrappers::extradata(&self.decoder)
    }

    /// Returns `true` if the demuxer splits the stream into packets by parsing it, so that the two fields of an interlaced frame
    /// may be separate packets.
    pub(super) fn fields_may_be_packets(&self) -> bool {
        // Containers whose packets the demuxer determines by parsing have no frame count.
        self.is_interlaced() && self.file.stream(self.stream).is_none_or(|stream| stream.frames() == 0)
    }

    /// Returns `false` if the container or codec says that all frames are progressive.
    pub(super) fn may_be_interlaced(&self) -> bool {
        self.file.stream(self.stream).is_none_or(|stream| !ffi_wrappers::is_progressive(&stream))
    }

    /// Returns `true` if the container or the first frames say that frames consist of two fields.
    pub(super) fn is_interlaced(&self) -> bool {
        self.file.stream(self.stream).is_some_and(|stream| ffi_wrappers::is_interlaced(&stream))
    }

    /// Returns `true` if the transfer characteristics are PQ or HLG.
    pub(super) fn is_hdr(&self) -> bool {
        let transfer = self.file.stream(self.stream).map(|stream| ffi_wrappers::transfer(&stream));
        transfer.is_some_and(|transfer| hdr_name(transfer).is_some())
    }

    /// Returns the transform from decoded to displayed frames.
    pub(super) fn orientation(&self) -> Orientation {
        self.orientation
    }

    /// Takes the current frame, which is empty afterwards.
    pub(super) fn take_frame(&mut self) -> RawFrame {
        let coded_size = ffi_wrappers::coded_size(&self.decoder, &self.frame);
        RawFrame::new(std::mem::replace(&mut self.frame, frame::Video::empty()), coded_size)
    }

    /// Reads the next packet of the stream; `None` at its end.
    ///
    /// # Errors
    /// Returns an error if a packet cannot be read. The next call may succeed.
    pub(super) fn read(&mut self) -> Result<Option<Packet>, ffmpeg::Error> {
        loop {
            // A new packet each time: reading into a used packet would leak its data.
            let mut packet = Packet::empty();
            match packet.read(&mut self.file) {
                Ok(()) if packet.stream() != self.stream => {}
                Ok(()) => return Ok(Some(packet)),
                Err(ffmpeg::Error::Eof) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a packet to the decoder. With `skip_non_reference`, the decoder may skip a frame that no other frame needs.
    ///
    /// # Errors
    /// Returns an error if the packet cannot be decoded.
    pub(super) fn send(&mut self, packet: &Packet, skip_non_reference: bool) -> Result<(), ffmpeg::Error> {
        self.decoder.skip_frame(if skip_non_reference { Discard::NonReference } else { Discard::Default });
        self.decoder.send_packet(packet)
    }

    /// Makes the decoder return the frames that it holds.
    ///
    /// # Errors
    /// Returns an error if the decoder fails.
    pub(super) fn send_end(&mut self) -> Result<(), ffmpeg::Error> {
        self.decoder.send_eof()
    }

    /// Receives a frame from the decoder. Returns `false` if it needs a packet, or has returned all frames.
    ///
    /// # Errors
    /// Returns an error if the frame cannot be decoded.
    pub(super) fn receive(&mut self) -> Result<bool, ffmpeg::Error> {
        match self.decoder.receive_frame(&mut self.frame) {
            Ok(()) => Ok(true),
            Err(ffmpeg::Error::Other { errno: EAGAIN } | ffmpeg::Error::Eof) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Resets the decoder, so that it can start at any access point. It then also returns the frames before the access point in the
    /// order of display, which lack references.
    pub(super) fn restart(&mut self) {
        self.decoder.flush();
        // Without this flag, FFmpeg 5.1 drops frames after a recovery point of H.264 if the stream ends soon after it.
        ffi_wrappers::output_corrupt_frames(&mut self.decoder);
    }

    /// Continues reading near the last keyframe at or before a time in ticks. Returns `false` if the container cannot seek.
    pub(super) fn seek(&mut self, time: i64) -> bool {
        ffi_wrappers::seek(&mut self.file, self.stream, time)
    }

    /// Returns the presentation time of the frame in ticks, or `None` if unknown.
    pub(super) fn frame_time(&self) -> Option<i64> {
        self.frame.pts()
    }

    /// Returns `true` if the decoder concealed errors in the frame.
    pub(super) fn frame_has_errors(&self) -> bool {
        self.frame.is_corrupt() || self.frame.has_decode_errors()
    }

    /// Decodes the next frame. Returns `false` at the end of the stream. Damaged packets are skipped and counted.
    pub(super) fn next(&mut self) -> bool {
        let (mut decoder_errors, mut read_errors) = (0, 0);
        loop {
            match self.decoder.receive_frame(&mut self.frame) {
                Ok(()) => {
                    self.damage.frames += usize::from(self.frame_has_errors());
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
            match self.read() {
                Ok(Some(packet)) => {
                    (decoder_errors, read_errors) = (0, 0);
                    // A demuxer marks packets of which it lost a part.
                    let failed = self.send(&packet, false).is_err();
                    self.damage.packets += usize::from(failed);
                    self.damage.frames += usize::from(!failed && packet.is_corrupt());
                }
                Err(error) if read_errors < MAX_READ_ERRORS => {
                    read_errors += 1;
                    self.damage.packets += usize::from(error != ffmpeg::Error::Other { errno: EAGAIN });
                }
                Ok(None) | Err(_) => {
                    self.draining = true;
                    if self.send_end().is_err() {
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
    pub(super) fn frame_seconds(&self) -> Option<f64> {
        self.frame.timestamp().map(|time| self.seconds(time))
    }

    /// Converts ticks to seconds from the start of the file.
    pub(super) fn seconds(&self, time: i64) -> f64 {
        time.wrapping_sub(self.start) as f64 * self.time_base + self.delay
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
            [[16, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0x0a, 0xc4, 0x42, 0xf0].as_slice(), [0; 20].as_slice()].concat();
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
            assert!(Video::open(&path, 1).is_none(), "{name}");
        }
    }
}
