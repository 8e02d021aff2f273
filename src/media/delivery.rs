//! The last step of decoding a video: wanted frames are deinterlaced if necessary, converted to color and passed to the sink.

use std::collections::VecDeque;
use std::path::Path;

use super::converter::ColorTags;
use super::deinterlacer::{Deinterlacer, NEIGHBORS};
use super::frame_image::{FrameImages, RawFrame};
use super::libav::Video;
use super::sampler::{self, Window};
use super::sampling::Deinterlace;
use super::sink::{Frame, FrameSink};
use crate::error::{Error, Result};

/// Passes the frames of one clip to a sink.
pub(super) struct Delivery<'a, S> {
    path: &'a Path,
    sink: &'a mut S,
    images: FrameImages,
    /// Indices in the clip of the wanted frames, ascending.
    wanted: Vec<usize>,
    /// Index in the file of the clip's first frame.
    first_frame: usize,
    /// Indices in the file of the frames to decode, ascending: the wanted frames and those that deinterlacing needs.
    required: Vec<usize>,
    /// Number of wanted frames that the sink has received.
    delivered: usize,
    /// Number of required frames that were decoded.
    decoded: usize,
    deinterlaces: bool,
    deinterlacer: Option<Deinterlacer>,
    /// Indices in the file of the frames in the deinterlacer.
    pending: VecDeque<usize>,
}

impl<'a, S: FrameSink> Delivery<'a, S> {
    /// Starts a pass over the frames of `windows`, in a file with at most `frame_count` frames.
    pub(super) fn new(
        path: &'a Path,
        video: &Video,
        deinterlace: Deinterlace,
        (windows, first_frame, frame_count): (&[Window], usize, usize),
        sink: &'a mut S,
    ) -> Result<Self> {
        let wanted = sampler::distinct(windows);
        sink.begin(windows, &wanted)?;
        let deinterlaces = deinterlace == Deinterlace::Auto && video.may_be_interlaced();
        let neighbors = if deinterlaces { NEIGHBORS } else { 0 };
        let mut required: Vec<usize> = Vec::with_capacity(wanted.len());
        for index in wanted.iter().map(|index| index + first_frame) {
            let from = required.last().map_or(0, |last| last + 1).max(index.saturating_sub(neighbors));
            required.extend(from..(index + neighbors + 1).min(frame_count));
        }
        Ok(Self {
            path,
            sink,
            images: FrameImages::new(video.orientation()),
            wanted,
            first_frame,
            required,
            delivered: 0,
            decoded: 0,
            deinterlaces,
            deinterlacer: None,
            pending: VecDeque::new(),
        })
    }

    /// Returns the indices in the file of the frames to decode, ascending.
    pub(super) fn required(&self) -> &[usize] {
        &self.required
    }

    /// Returns `true` if frame `index` of the file is the next required one.
    pub(super) fn needs(&self, index: usize) -> bool {
        self.required.get(self.decoded) == Some(&index)
    }

    /// Receives the next required frame.
    pub(super) fn frame(&mut self, frame: RawFrame) -> Result<()> {
        let index = self.required[self.decoded];
        self.decoded += 1;
        if !self.deinterlaces {
            return self.deliver(frame, index);
        }
        let RawFrame { frame, .. } = frame;
        let follows = self.pending.back().is_some_and(|&last| last + 1 == index);
        if !(follows && self.deinterlacer.as_ref().is_some_and(|filter| filter.accepts(&frame))) {
            self.finish()?;
            self.deinterlacer = Deinterlacer::new(&frame);
        }
        self.pending.push_back(index);
        if !self.deinterlacer.as_mut().is_some_and(|filter| filter.push(&frame)) {
            return Err(self.error(format!("frame {index} cannot be deinterlaced")));
        }
        self.deliver_filtered()
    }

    /// Delivers the frames that wait for their successor. Call this after the last frame.
    pub(super) fn finish(&mut self) -> Result<()> {
        if self.deinterlacer.as_mut().is_some_and(Deinterlacer::finish) {
            self.deliver_filtered()?;
        }
        self.deinterlacer = None;
        match self.pending.pop_front() {
            Some(index) => Err(self.error(format!("frame {index} cannot be deinterlaced"))),
            None => Ok(()),
        }
    }

    /// Returns the color description of the last frame that was delivered.
    pub(super) fn color_tags(&self) -> Option<ColorTags> {
        self.images.color_tags()
    }

    fn deliver_filtered(&mut self) -> Result<()> {
        while let Some(frame) = self.deinterlacer.as_mut().and_then(Deinterlacer::pull) {
            if let Some(index) = self.pending.pop_front() {
                self.deliver(RawFrame::uncropped(frame), index)?;
            }
        }
        Ok(())
    }

    /// Passes frame `index` of the file to the sink, if it is wanted.
    fn deliver(&mut self, mut frame: RawFrame, index: usize) -> Result<()> {
        let Some(&wanted) = self.wanted.get(self.delivered) else { return Ok(()) };
        if wanted + self.first_frame != index {
            return Ok(());
        }
        let Some(image) = self.images.convert(&mut frame) else {
            return Err(self.error(format!("frame {index} cannot be converted to color")));
        };
        self.sink.frame(self.delivered, &Frame::new(wanted, image))?;
        self.delivered += 1;
        Ok(())
    }

    fn error(&self, message: String) -> Error {
        Error::Media { path: self.path.to_path_buf(), message }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::super::input::Input;
    use super::super::sampler::Wanted;
    use super::super::sampling::Sampling;
    use super::super::test_video::TestVideo;
    use super::super::video;
    use super::*;

    /// The checksum and the alternation of rows of each frame.
    #[derive(Default)]
    struct Rows(Vec<(u32, f64)>);

    impl FrameSink for Rows {
        fn begin(&mut self, _windows: &[Window], _wanted: &[usize]) -> Result<()> {
            self.0.clear();
            Ok(())
        }

        fn frame(&mut self, _position: usize, frame: &Frame<'_>) -> Result<()> {
            let image = frame.image();
            // Away from the edges of the rectangle, rows of both fields are equal, or differ where only one field has moved.
            let value = |y: usize, x: usize| f64::from(image.data[y * image.stride + 3 * x]);
            let rows = 1..image.height - 1;
            let differences = rows.clone().flat_map(|y| (0..image.width).map(move |x| (y, x)));
            let sum: f64 =
                differences.map(|(y, x)| (value(y, x) - (value(y - 1, x) + value(y + 1, x)) / 2.0).abs()).sum();
            self.0.push((crc32fast::hash(image.data), sum / (rows.len() * image.width) as f64));
            Ok(())
        }
    }

    /// Draws a rectangle whose odd rows are captured half a frame later.
    fn draw_fields(index: usize, frame: &mut ffmpeg_next::frame::Video) {
        let width = frame.width() as usize;
        let stride = frame.stride(0);
        for (y, row) in frame.data_mut(0).chunks_exact_mut(stride).enumerate() {
            let left = 8 * index + 4 * (y % 2);
            (0..width).for_each(|x| row[x] = if (left..left + 30).contains(&x) { 220 } else { 40 });
        }
        frame.data_mut(1).fill(128);
        frame.data_mut(2).fill(128);
    }

    fn decode(path: &Path, sampling: &Sampling, deinterlace: Deinterlace, seconds: Range<f64>) -> Vec<(u32, f64)> {
        let mut sink = Rows::default();
        video::decode(&Input::at(path), seconds, Wanted { deinterlace, ..Wanted::from(sampling) }, &mut sink).unwrap();
        sink.0
    }

    #[test]
    fn interlaced_frames_are_deinterlaced_if_requested() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, codec, options: &[(&str, &str)]| {
            let path = directory.path().join(name);
            let (times, time_base) = ((0..20).collect(), (1, 25));
            TestVideo { codec, options, times, time_base, size: (192, 96), draw: draw_fields, ..TestVideo::default() }
                .write(&path);
            path
        };
        let all = 0.0..f64::INFINITY;
        let every = Sampling::All { every: 1, most: None };
        let interlaced = [("crf", "1"), ("x264-params", "tff=1"), ("flags", "+ilme+ildct"), ("g", "8")];
        // The index of packets is used for the first file but not for the second one.
        for path in [write("video.mp4", "libx264", &interlaced), write("video.ts", "libx264", &interlaced)] {
            let name = path.display();
            assert!(video::container_info(&Input::at(&path)).unwrap().interlaced, "{name}");
            let woven = decode(&path, &every, Deinterlace::Off, all.clone());
            let filtered = decode(&path, &every, Deinterlace::Auto, all.clone());
            assert_eq!((woven.len(), filtered.len()), (20, 20), "{name}");
            for (index, (woven, filtered)) in woven.iter().zip(&filtered).enumerate() {
                assert!(filtered.1 < woven.1 / 3.0, "{name} frame {index}: {} of {}", filtered.1, woven.1);
            }
            // A frame does not depend on which others are sampled.
            for frames in [1, 3, 7] {
                let some = decode(&path, &Sampling::Even { frames }, Deinterlace::Auto, all.clone());
                let expected: Vec<_> = (0..frames).map(|i| filtered[(2 * i + 1) * 20 / (2 * frames)]).collect();
                assert_eq!(some, expected, "{name} {frames}");
            }
            assert_eq!(decode(&path, &every, Deinterlace::Auto, 0.2..0.4), filtered[5..10], "{name}");
        }
        let progressive = write("progressive.mp4", "libx264", &[("crf", "1")]);
        assert!(!video::container_info(&Input::at(&progressive)).unwrap().interlaced);
        let [off, auto] =
            [Deinterlace::Off, Deinterlace::Auto].map(|mode| decode(&progressive, &every, mode, all.clone()));
        assert_eq!(off, auto);
    }
}
