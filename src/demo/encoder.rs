//! A deterministic MP4 encoder based on libav.

use std::path::{Path, PathBuf};

use ffmpeg_next as ffmpeg;

use ffmpeg::codec::{self, encoder};
use ffmpeg::format::{self, Pixel};
use ffmpeg::software::scaling;
use ffmpeg::{Dictionary, Packet, Rational, frame};

use crate::error::{Error, Result};
use crate::media::libav;

/// The codecs that clips are encoded with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    /// H.264, encoded by x264, which Debian's and Ubuntu's libavcodec include.
    H264,
    /// MPEG-4 part 2, encoded by libavcodec itself.
    Mpeg4,
}

impl Codec {
    /// Returns the first codec that this machine's libavcodec can encode. `directory` is named in the error.
    pub(super) fn available(directory: &Path) -> Result<Self> {
        let has = |codec: &Self| encoder::find_by_name(codec.encoder()).is_some();
        [Codec::H264, Codec::Mpeg4].into_iter().find(has).ok_or_else(|| Error::Media {
            path: directory.to_path_buf(),
            message: "this libavcodec can encode neither H.264 nor MPEG-4: install one with x264".into(),
        })
    }

    /// Returns the name of the codec.
    pub(super) fn name(self) -> &'static str {
        match self {
            Codec::H264 => "H.264",
            Codec::Mpeg4 => "MPEG-4",
        }
    }

    /// Returns the name of the encoder in libavcodec.
    fn encoder(self) -> &'static str {
        match self {
            Codec::H264 => "libx264",
            Codec::Mpeg4 => "mpeg4",
        }
    }

    /// Returns the encoder options: constant quality, without rate control. x264's macroblock tree, which is on by
    /// default, is not deterministic: parallel encoders with one thread each write different bytes for the same frames.
    fn options(self) -> Dictionary<'static> {
        match self {
            Codec::H264 => {
                Dictionary::from_iter([("flags", "+global_header+bitexact"), ("crf", "25"), ("mbtree", "0")])
            }
            // In units of FF_QP2LAMBDA: 118 is a quantizer of 1.
            Codec::Mpeg4 => {
                Dictionary::from_iter([("flags", "+global_header+bitexact+qscale"), ("global_quality", "354")])
            }
        }
    }
}

/// A file that is being encoded.
pub(super) struct Encoder {
    path: PathBuf,
    file: format::context::Output,
    encoder: encoder::Video,
    converter: scaling::Context,
    image: frame::Video,
    converted: frame::Video,
    /// Number of frames that were sent to the encoder.
    frames: i64,
    time_base: Rational,
}

impl Encoder {
    /// Creates a file. Width and height must be even; `fps` is the frame rate.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written or the encoder cannot be opened.
    pub(super) fn create(path: &Path, codec: Codec, (width, height): (usize, usize), fps: u32) -> Result<Self> {
        let failed = |message: String| Error::Media { path: path.to_path_buf(), message };
        let cannot = |error: ffmpeg::Error| failed(format!("cannot be encoded: {error}"));
        libav::silence();
        // libav could interpret the start of a relative path as a protocol (`name:`).
        let absolute = std::path::absolute(path).map_err(Error::io(path))?;
        absolute.to_str().ok_or_else(|| failed("the path is not UTF-8".into()))?;
        let (width, height, time_base) = (width as u32, height as u32, Rational::new(1, fps as i32));
        let mut file = format::output(&absolute).map_err(cannot)?;
        let kind = encoder::find_by_name(codec.encoder());
        let kind = kind.ok_or_else(|| failed(format!("cannot be encoded as {}", codec.name())))?;
        let mut context = codec::Context::new_with_codec(kind);
        // One thread, so that the output does not depend on scheduling.
        context.set_threading(codec::threading::Config::count(1));
        let mut video = context.encoder().video().map_err(cannot)?;
        video.set_width(width);
        video.set_height(height);
        video.set_format(Pixel::YUV420P);
        video.set_time_base(time_base);
        video.set_frame_rate(Some(time_base.invert()));
        let encoder = video.open_with(codec.options()).map_err(cannot)?;
        file.add_stream_with(&encoder).map_err(cannot)?.set_time_base(time_base);
        file.write_header_with(Dictionary::from_iter([("fflags", "+bitexact")])).map_err(cannot)?;
        let flags = scaling::Flags::BICUBIC;
        let converter = scaling::Context::get(Pixel::BGR24, width, height, Pixel::YUV420P, width, height, flags);
        Ok(Self {
            path: path.to_path_buf(),
            file,
            encoder,
            converter: converter.map_err(cannot)?,
            image: frame::Video::new(Pixel::BGR24, width, height),
            converted: frame::Video::new(Pixel::YUV420P, width, height),
            frames: 0,
            time_base,
        })
    }

    /// Appends a frame of blue, green and red bytes, rows without padding.
    ///
    /// # Errors
    /// Returns an error if the frame cannot be encoded or written.
    pub(super) fn write(&mut self, pixels: &[u8]) -> Result<()> {
        let (stride, row) = (self.image.stride(0), 3 * self.image.width() as usize);
        for (line, pixels) in self.image.data_mut(0).chunks_exact_mut(stride).zip(pixels.chunks_exact(row)) {
            line[..row].copy_from_slice(pixels);
        }
        let mut step = || {
            // The encoder may still refer to the buffers of the previous frame.
            self.converted = frame::Video::new(Pixel::YUV420P, self.image.width(), self.image.height());
            self.converter.run(&self.image, &mut self.converted)?;
            self.converted.set_pts(Some(self.frames));
            self.frames += 1;
            self.encoder.send_frame(&self.converted)?;
            self.drain()
        };
        step().map_err(|error| self.error(error))
    }

    /// Flushes the encoder and completes the file.
    ///
    /// # Errors
    /// Returns an error if the remaining frames cannot be encoded or written.
    pub(super) fn finish(mut self) -> Result<()> {
        let mut step = || {
            self.encoder.send_eof()?;
            self.drain()?;
            self.file.write_trailer()
        };
        step().map_err(|error| self.error(error))
    }

    /// Writes the available packets.
    fn drain(&mut self) -> Result<(), ffmpeg::Error> {
        let target = self.file.stream(0).map_or(self.time_base, |stream| stream.time_base());
        let mut packet = Packet::empty();
        while self.encoder.receive_packet(&mut packet).is_ok() {
            packet.set_stream(0);
            // Without a duration, the last frame would not be displayed, and not be decoded.
            packet.set_duration(1);
            packet.rescale_ts(self.time_base, target);
            packet.write_interleaved(&mut self.file)?;
        }
        Ok(())
    }

    fn error(&self, error: ffmpeg::Error) -> Error {
        Error::Media { path: self.path.clone(), message: format!("cannot be encoded: {error}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Clip;
    use crate::media::{self, Frame, FrameSink, Sampling, Window};

    /// The center pixel of every frame: blue, green, red.
    struct CenterPixels(Vec<[u8; 3]>);

    impl FrameSink for CenterPixels {
        fn begin(&mut self, _windows: &[Window], _wanted: &[usize]) -> Result<()> {
            self.0.clear();
            Ok(())
        }

        fn frame(&mut self, _position: usize, frame: &Frame<'_>) -> Result<()> {
            let image = frame.image();
            let at = image.height / 2 * image.stride + 3 * (image.width / 2);
            self.0.push([0, 1, 2].map(|channel| image.data[at + channel]));
            Ok(())
        }
    }

    #[test]
    fn all_encoded_frames_are_decoded() {
        let directory = tempfile::tempdir().unwrap();
        for codec in [Codec::H264, Codec::Mpeg4] {
            let file = directory.path().join(codec.encoder()).with_extension("mp4");
            let mut encoder = Encoder::create(&file, codec, (64, 48), 10).unwrap();
            let color = |frame: u8| [20 * frame, 200 - 10 * frame, 90];
            for frame in 0..8 {
                let pixels: Vec<u8> = color(frame).into_iter().cycle().take(64 * 48 * 3).collect();
                encoder.write(&pixels).unwrap();
            }
            encoder.finish().unwrap();
            let clip = Clip { file, ..Clip::default() };
            let mut centers = CenterPixels(Vec::new());
            let decoded = media::decode(&clip, &Sampling::Even { frames: usize::MAX }, &mut centers).unwrap();
            assert_eq!((decoded.timeline.frame_count, decoded.timeline.fps), (8, 10.0), "{codec:?}");
            assert!(decoded.warnings.is_empty());
            for (frame, seen) in (0..).zip(&centers.0) {
                let step = seen.iter().zip(color(frame)).map(|(a, b)| a.abs_diff(b)).max();
                assert!(step <= Some(8), "{codec:?} frame {frame}: {seen:?}");
            }
        }
    }
}
