//! Clips in MP4, by libav: the same pictures give the same bytes.

use std::path::{Path, PathBuf};

use ffmpeg_next as ffmpeg;

use ffmpeg::codec::{self, encoder};
use ffmpeg::format::{self, Pixel};
use ffmpeg::software::scaling;
use ffmpeg::{Dictionary, Packet, Rational, frame};

use crate::error::{Error, Result};
use crate::media::libav;

/// How clips are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    /// By x264, which Debian's and Ubuntu's libavcodec have.
    H264,
    /// By libavcodec itself.
    Mpeg4,
}

impl Codec {
    /// The first that this machine's libavcodec can encode. `folder` is for the error.
    pub(super) fn usable(folder: &Path) -> Result<Self> {
        let has = |codec: &Self| encoder::find_by_name(codec.encoder()).is_some();
        [Codec::H264, Codec::Mpeg4].into_iter().find(has).ok_or_else(|| Error::Media {
            path: folder.to_path_buf(),
            message: "this libavcodec can encode neither H.264 nor MPEG-4: install one with x264".into(),
        })
    }

    /// What a person calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Codec::H264 => "H.264",
            Codec::Mpeg4 => "MPEG-4",
        }
    }

    /// What libavcodec calls it.
    fn encoder(self) -> &'static str {
        match self {
            Codec::H264 => "libx264",
            Codec::Mpeg4 => "mpeg4",
        }
    }

    /// Constant quality, so that there is no rate to be kept. x264's macroblock tree, which is on by default, decides by more than
    /// the pictures: encoders that run side by side write other bytes with it, from the same frames and with one thread each.
    fn options(self) -> Dictionary<'static> {
        match self {
            Codec::H264 => {
                Dictionary::from_iter([("flags", "+global_header+bitexact"), ("crf", "25"), ("mbtree", "0")])
            }
            // In libav's unit, 118 for a quantizer of 1.
            Codec::Mpeg4 => {
                Dictionary::from_iter([("flags", "+global_header+bitexact+qscale"), ("global_quality", "354")])
            }
        }
    }
}

/// A clip in the making.
pub(super) struct Encoder {
    path: PathBuf,
    file: format::context::Output,
    encoder: encoder::Video,
    converter: scaling::Context,
    picture: frame::Video,
    converted: frame::Video,
    /// Frames that were written.
    frames: i64,
    tick: Rational,
}

impl Encoder {
    /// Begins a file of frames of `width` and `height`, both even, `fps` a second.
    ///
    /// # Errors
    /// It cannot be written or encoded.
    pub(super) fn create(path: &Path, codec: Codec, (width, height): (usize, usize), fps: u32) -> Result<Self> {
        let wrong = |message: String| Error::Media { path: path.to_path_buf(), message };
        let cannot = |error: ffmpeg::Error| wrong(format!("cannot be encoded: {error}"));
        libav::silence();
        // An absolute path has no `name:` in front that libav could take for a protocol.
        let absolute = std::path::absolute(path).map_err(Error::io(path))?;
        absolute.to_str().ok_or_else(|| wrong("its path is not UTF-8".into()))?;
        let (width, height, tick) = (width as u32, height as u32, Rational::new(1, fps as i32));
        let mut file = format::output(&absolute).map_err(cannot)?;
        let kind = encoder::find_by_name(codec.encoder());
        let kind = kind.ok_or_else(|| wrong(format!("cannot be encoded as {}", codec.name())))?;
        let mut context = codec::Context::new_with_codec(kind);
        // With one thread, nothing hangs on which is first.
        context.set_threading(codec::threading::Config::count(1));
        let mut video = context.encoder().video().map_err(cannot)?;
        video.set_width(width);
        video.set_height(height);
        video.set_format(Pixel::YUV420P);
        video.set_time_base(tick);
        video.set_frame_rate(Some(tick.invert()));
        let encoder = video.open_with(codec.options()).map_err(cannot)?;
        file.add_stream_with(&encoder).map_err(cannot)?.set_time_base(tick);
        file.write_header_with(Dictionary::from_iter([("fflags", "+bitexact")])).map_err(cannot)?;
        let flags = scaling::Flags::BICUBIC;
        let converter = scaling::Context::get(Pixel::BGR24, width, height, Pixel::YUV420P, width, height, flags);
        Ok(Self {
            path: path.to_path_buf(),
            file,
            encoder,
            converter: converter.map_err(cannot)?,
            picture: frame::Video::new(Pixel::BGR24, width, height),
            converted: frame::Video::new(Pixel::YUV420P, width, height),
            frames: 0,
            tick,
        })
    }

    /// Appends a frame of blue, green and red, rows without a gap.
    ///
    /// # Errors
    /// It cannot be encoded or written.
    pub(super) fn write(&mut self, pixels: &[u8]) -> Result<()> {
        let (stride, row) = (self.picture.stride(0), 3 * self.picture.width() as usize);
        for (line, pixels) in self.picture.data_mut(0).chunks_exact_mut(stride).zip(pixels.chunks_exact(row)) {
            line[..row].copy_from_slice(pixels);
        }
        let mut step = || {
            // The encoder may still hold the buffers of the frame before.
            self.converted = frame::Video::new(Pixel::YUV420P, self.picture.width(), self.picture.height());
            self.converter.run(&self.picture, &mut self.converted)?;
            self.converted.set_pts(Some(self.frames));
            self.frames += 1;
            self.encoder.send_frame(&self.converted)?;
            self.drain()
        };
        step().map_err(|error| self.wrong(error))
    }

    /// Writes what the encoder still holds, and ends the file.
    ///
    /// # Errors
    /// It cannot be encoded or written.
    pub(super) fn finish(mut self) -> Result<()> {
        let mut step = || {
            self.encoder.send_eof()?;
            self.drain()?;
            self.file.write_trailer()
        };
        step().map_err(|error| self.wrong(error))
    }

    /// Writes the packets that are ready.
    fn drain(&mut self) -> Result<(), ffmpeg::Error> {
        let to = self.file.stream(0).map_or(self.tick, |stream| stream.time_base());
        let mut packet = Packet::empty();
        while self.encoder.receive_packet(&mut packet).is_ok() {
            packet.set_stream(0);
            // Without it the last frame would be shown for no time, and not be decoded.
            packet.set_duration(1);
            packet.rescale_ts(self.tick, to);
            packet.write_interleaved(&mut self.file)?;
        }
        Ok(())
    }

    fn wrong(&self, error: ffmpeg::Error) -> Error {
        Error::Media { path: self.path.clone(), message: format!("cannot be encoded: {error}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Clip;
    use crate::media::{self, Frame, FrameSink, Sampling, Window};

    /// The blue, green and red in the middle of every frame.
    struct Middles(Vec<[u8; 3]>);

    impl FrameSink for Middles {
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
    fn what_is_encoded_is_decoded_to_the_last_frame() {
        let folder = tempfile::tempdir().unwrap();
        for codec in [Codec::H264, Codec::Mpeg4] {
            let file = folder.path().join(codec.encoder()).with_extension("mp4");
            let mut encoder = Encoder::create(&file, codec, (64, 48), 10).unwrap();
            let color = |frame: u8| [20 * frame, 200 - 10 * frame, 90];
            for frame in 0..8 {
                let pixels: Vec<u8> = color(frame).into_iter().cycle().take(64 * 48 * 3).collect();
                encoder.write(&pixels).unwrap();
            }
            encoder.finish().unwrap();
            let clip = Clip { file, ..Clip::default() };
            let mut middles = Middles(Vec::new());
            let decoded = media::decode(&clip, &Sampling::Even { frames: usize::MAX }, &mut middles).unwrap();
            assert_eq!((decoded.timeline.frame_count, decoded.timeline.fps), (8, 10.0), "{codec:?}");
            assert!(decoded.warnings.is_empty());
            for (frame, seen) in (0..).zip(&middles.0) {
                let step = seen.iter().zip(color(frame)).map(|(a, b)| a.abs_diff(b)).max();
                assert!(step <= Some(8), "{codec:?} frame {frame}: {seen:?}");
            }
        }
    }
}
