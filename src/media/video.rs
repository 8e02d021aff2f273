//! Decoding of video files: of the sections that contain the wanted frames, or of all frames in one or two passes.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::delivery::Delivery;
use super::indexed::{self, IndexedError};
use super::input::Input;
use super::libav::Video;
use super::packet_index::{PacketIndex, Untrusted};
use super::sampler::{self, Timeline, Wanted, Window};
use super::sink::{Decoded, FrameSink, NO_SHOT};
use super::timing;
use crate::error::{Error, Result};

/// Seconds of decoding after the end of a clip, to include frames that are out of order.
const DECODE_AFTER_END: f64 = 1.0;

/// Range of accepted frame counts of containers; others are ignored in the first plan.
const PLAUSIBLE_FRAME_COUNTS: Range<f64> = 1.0..1e9;

/// Memory of a decoder in bytes per pixel: up to 17 frames with 1.5 bytes per pixel, and a color image.
const DECODER_BYTES: u64 = 32;

/// Memory of each of several threads in bytes per pixel: its decoder, and the frames of sections that wait for their turn.
const THREAD_BYTES: u64 =
    DECODER_BYTES + (indexed::SECTIONS_AHEAD + 1) as u64 * indexed::MAX_SECTION_FRAMES as u64 * 3 / 2;

/// Lower bound for the frame rate of a container.
const MIN_FPS: f64 = 0.01;

/// The frames to pass to the sink.
struct DecodePlan {
    timeline: Timeline,
    windows: Vec<Window>,
}

impl DecodePlan {
    /// Plans the sampling of the part of a file that is displayed in a time range. An error if it contains no frame or shot.
    fn for_part(path: &Path, wanted: Wanted<'_>, timeline: Timeline, seconds: &Range<f64>) -> Result<Self> {
        let failed = |message: String| Error::Media { path: path.to_path_buf(), message };
        let frames = timing::frames_in(seconds, &timeline);
        if frames.is_empty() {
            let (start, end) = (timeline.seconds(0), timeline.end_seconds(timeline.frame_count - 1));
            return Err(failed(if frames.start == 0 {
                format!("no frame before end {} s: the video starts at {start:.2} s", seconds.end)
            } else {
                format!("no frame after start {} s: the video ends at {end:.2} s", seconds.start)
            }));
        }
        let timeline = timing::cut(timeline, &frames, seconds);
        let windows = sampler::plan(wanted, &timeline);
        if windows.is_empty() {
            return Err(failed(NO_SHOT.into()));
        }
        Ok(Self { timeline, windows })
    }

    /// Starts a pass over the frames, in a file with at most `frame_count` frames.
    fn delivery<'a, S: FrameSink>(
        &self,
        path: &'a Path,
        video: &Video,
        wanted: Wanted<'_>,
        frame_count: usize,
        sink: &'a mut S,
    ) -> Result<Delivery<'a, S>> {
        let frames = (self.windows.as_slice(), self.timeline.first_frame, frame_count);
        Delivery::new(path, video, wanted.deinterlace, frames, sink)
    }
}

/// Decodes the frames of a video that are displayed between two times, in seconds from the start of the file; see [`super::decode`].
pub(super) fn decode<S: FrameSink>(
    input: &Arc<Input>,
    seconds: Range<f64>,
    wanted: Wanted<'_>,
    sink: &mut S,
) -> Result<Decoded> {
    let mut video = input.video(1)?;
    let [width, height] = video.container_size().map(|length| length as usize);
    let decoder_bytes = if wanted.threads > 1 { wanted.threads as u64 * THREAD_BYTES } else { DECODER_BYTES };
    sink.reserve(height, width, height as u64 * width as u64 * decoder_bytes);
    // If something differs from an index without content, the packets are read.
    if let Some(mut without_content) = input.video_without_content() {
        let index = PacketIndex::read_without_content(&mut without_content).map_err(IndexedError::from);
        drop(without_content);
        match index.and_then(|index| decode_indexed(&mut video, &index, input, &seconds, wanted, sink)) {
            Ok(decoded) => return input.check(Ok(decoded)),
            Err(IndexedError::Other(error)) => return input.check(Err(error)),
            Err(IndexedError::Untrusted(_)) => video = input.video(1)?,
        }
    }
    let indexed = PacketIndex::read(&mut video).map_err(IndexedError::from);
    let decoded = match indexed.and_then(|index| decode_indexed(&mut video, &index, input, &seconds, wanted, sink)) {
        Ok(decoded) => Ok(decoded),
        Err(IndexedError::Other(error)) => Err(error),
        Err(IndexedError::Untrusted(Untrusted(reason))) => {
            drop(video);
            input.check(Ok(()))?;
            decode_fully(input, seconds, wanted, sink, reason)
        }
    };
    input.check(decoded)
}

/// Decodes what the wanted frames need.
fn decode_indexed<S: FrameSink>(
    video: &mut Video,
    index: &PacketIndex,
    input: &Arc<Input>,
    seconds: &Range<f64>,
    wanted: Wanted<'_>,
    sink: &mut S,
) -> Result<Decoded, IndexedError> {
    let path = input.name();
    let times: Vec<_> = index.times().map(|time| Some(video.seconds(time))).collect();
    let timeline = timing::timeline(&times, video.container_fps());
    let frame_count = timeline.frame_count;
    let plan = DecodePlan::for_part(path, wanted, timeline, seconds).map_err(IndexedError::Other)?;
    let mut delivery = plan.delivery(path, video, wanted, frame_count, sink).map_err(IndexedError::Other)?;
    let frames = delivery.required().to_vec();
    let reopen = |threads| input.video(threads).ok();
    indexed::decode(video, reopen, index, &frames, wanted.threads, |_, frame| delivery.frame(frame))?;
    delivery.finish().map_err(IndexedError::Other)?;
    let warnings = warnings(path, video, &delivery);
    let DecodePlan { timeline, windows } = plan;
    Ok(Decoded { timeline, windows, warnings, full: None, version: String::new() })
}

/// Returns messages for the user about what was decoded.
fn warnings<S: FrameSink>(path: &Path, video: &Video, delivery: &Delivery<'_, S>) -> Vec<String> {
    let warnings = [video.damage().warning(), delivery.color_tags().and_then(|tags| tags.warning())];
    warnings.into_iter().flatten().map(|message| format!("{}: {message}", path.display())).collect()
}

/// Decodes all frames, in one or two passes, for this reason.
fn decode_fully<S: FrameSink>(
    input: &Arc<Input>,
    seconds: Range<f64>,
    wanted: Wanted<'_>,
    sink: &mut S,
    reason: &'static str,
) -> Result<Decoded> {
    let path = input.name();
    let failed = |message: String| Error::Media { path: path.to_path_buf(), message };
    let mut video = input.video(1)?;
    let container_fps = video.container_fps();
    let container_frames = video.container_frame_count();
    // A frame has at least one byte.
    let bytes = input.len()? as f64;
    let plausible = PLAUSIBLE_FRAME_COUNTS.contains(&container_frames) && container_frames <= bytes;
    let container_frames = if plausible { container_frames as usize } else { 0 };

    // The first pass follows a plan from the container's metadata.
    let timeline =
        Timeline { frame_count: container_frames, start: video.delay(), ..timing::timeline(&[], container_fps) };
    let frames = timing::frames_in(&seconds, &timeline);
    let timeline = timing::cut(timeline, &frames, &seconds);
    let first_plan = DecodePlan { windows: sampler::plan(wanted, &timeline), timeline };
    let last_time = seconds.end + DECODE_AFTER_END;
    let mut delivery = first_plan.delivery(path, &video, wanted, usize::MAX, sink)?;
    let timestamps = decode_pass(&mut video, &mut delivery, |time| time > last_time, container_fps)?;
    input.check(Ok(()))?;
    let warnings = warnings(path, &video, &delivery);
    drop(video);

    if timestamps.is_empty() {
        return Err(failed("no frame can be decoded".into()));
    }
    let timeline = timing::timeline(&timestamps, container_fps);
    let plan = DecodePlan::for_part(path, wanted, timeline, &seconds)?;
    if plan.timeline.first_frame != first_plan.timeline.first_frame || plan.windows != first_plan.windows {
        let mut video = input.video(1)?;
        let mut delivery = plan.delivery(path, &video, wanted, timestamps.len(), sink)?;
        let last = delivery.required().last().copied().unwrap_or(0);
        let mut decoded = 0;
        let done = |_| {
            decoded += 1;
            decoded > last
        };
        if decode_pass(&mut video, &mut delivery, done, container_fps)?.len() <= last {
            return Err(failed(format!("frame {last} could not be decoded again: is the file being written?")));
        }
    }
    Ok(Decoded { timeline: plan.timeline, windows: plan.windows, warnings, full: Some(reason), version: String::new() })
}

/// Decodes from the beginning of the file until `done` returns `true` for the time of a frame. Returns the timestamps of all
/// frames, in seconds from the start of the file.
fn decode_pass<S: FrameSink>(
    video: &mut Video,
    delivery: &mut Delivery<'_, S>,
    mut done: impl FnMut(f64) -> bool,
    fps: f64,
) -> Result<Vec<Option<f64>>> {
    let mut timestamps = Vec::new();
    while video.next() {
        let index = timestamps.len();
        let time = video.frame_seconds();
        timestamps.push(time);
        if delivery.needs(index) {
            delivery.frame(video.take_frame())?;
        }
        // A missing timestamp is estimated from the frame rate.
        if done(time.unwrap_or_else(|| video.delay() + index as f64 / fps.max(MIN_FPS))) {
            break;
        }
    }
    delivery.finish()?;
    Ok(timestamps)
}

/// Metadata of a video container, which may be wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ContainerInfo {
    /// Duration in seconds; 0 if unknown.
    pub seconds: f64,
    /// Number of pixels per frame.
    pub pixels: u64,
    /// `true` if frames consist of two fields, by the container or the first frames.
    pub interlaced: bool,
    /// `true` for high dynamic range: the transfer characteristics are PQ or HLG.
    pub hdr: bool,
}

/// See [`super::container_info`].
pub(super) fn container_info(input: &Arc<Input>) -> Result<ContainerInfo> {
    let video = input.video(1)?;
    let [width, height] = video.container_size();
    Ok(ContainerInfo {
        seconds: video.container_frame_count() / video.container_fps().max(MIN_FPS),
        pixels: u64::from(width) * u64::from(height),
        interlaced: video.is_interlaced(),
        hdr: video.is_hdr(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::sink::Frame;
    use ffmpeg_next::color::{Range as ColorRange, Space, TransferCharacteristic};
    use ffmpeg_next::format::Pixel;

    use super::super::test_video::{self, TestVideo, draw_noise};
    use super::*;
    use crate::media::Sampling;

    /// The index and the center pixel of each frame.
    #[derive(Default)]
    struct CenterPixels(Frames);

    impl FrameSink for CenterPixels {
        fn begin(&mut self, _windows: &[Window], _wanted: &[usize]) -> Result<()> {
            self.0.clear();
            Ok(())
        }

        fn frame(&mut self, _position: usize, frame: &Frame<'_>) -> Result<()> {
            let image = frame.image();
            let at = image.height / 2 * image.stride + 3 * (image.width / 2);
            self.0.push((frame.index, *image.data[at..].first_chunk().unwrap()));
            Ok(())
        }
    }

    /// Index and center pixel of each frame.
    type Frames = Vec<(usize, [u8; 3])>;

    /// Decodes all frames of a part of a video.
    fn decode_all(path: &Path, seconds: Range<f64>) -> Result<(Decoded, Frames)> {
        let mut sink = CenterPixels::default();
        let sampling = Sampling::Even { frames: usize::MAX };
        let decoded = decode(&Input::at(path), seconds, Wanted::from(&sampling), &mut sink)?;
        Ok((decoded, sink.0))
    }

    #[test]
    fn tags_of_encoded_videos_are_applied() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("video.mp4");
        // Blue, green, red by the equations of ITU-T H.273 for Y′ = 60, Cb = 110, Cr = 190.
        let cases = [
            (Space::BT709, ColorRange::MPEG, [13, 22, 162]),
            (Space::BT709, ColorRange::JPEG, [27, 34, 158]),
            (Space::SMPTE170M, ColorRange::MPEG, [15, 8, 150]),
            (Space::BT2020NCL, ColorRange::MPEG, [13, 14, 156]),
            (Space::Unspecified, ColorRange::Unspecified, [15, 8, 150]),
        ];
        for (matrix, range, expected) in cases {
            let draw = |_, frame: &mut ffmpeg_next::frame::Video| {
                [60, 110, 190].into_iter().enumerate().for_each(|(plane, value)| frame.data_mut(plane).fill(value));
            };
            let options = &[("crf", "1")];
            TestVideo { matrix, range, draw, options, times: vec![0, 40], ..TestVideo::default() }.write(&path);
            let (decoded, frames) = decode_all(&path, 0.0..f64::INFINITY).unwrap();
            assert_eq!(frames.len(), 2);
            for (_, pixel) in frames {
                assert!(pixel.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= 3), "{matrix:?} {range:?}: {pixel:?}");
            }
            assert_eq!(decoded.warnings, [""; 0]);
        }
    }

    #[test]
    fn hdr_videos_have_a_warning() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("video.mkv");
        for (transfer, name) in
            [(TransferCharacteristic::SMPTE2084, "PQ"), (TransferCharacteristic::ARIB_STD_B67, "HLG")]
        {
            let video =
                TestVideo { transfer, matrix: Space::BT2020NCL, range: ColorRange::MPEG, ..TestVideo::default() };
            TestVideo { format: Pixel::YUV420P, ..video }.write(&path);
            let (decoded, _) = decode_all(&path, 0.0..f64::INFINITY).unwrap();
            assert_eq!(decoded.warnings.len(), 1);
            assert!(decoded.warnings[0].contains(&format!("HDR ({name})")), "{:?}", decoded.warnings);
        }
    }

    fn indices(frames: &[(usize, [u8; 3])]) -> Vec<usize> {
        frames.iter().map(|(_, pixel)| test_video::index_of_gray(pixel[0])).collect()
    }

    #[test]
    fn times_count_from_the_start_of_the_file() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["late.mkv", "late.mov"] {
            let path = directory.path().join(name);
            let times = (0..50).map(|i| 2000 + 40 * i).collect();
            TestVideo { times, audio: Some(0..4000), ..TestVideo::default() }.write(&path);
            let part = |seconds: Range<f64>| {
                let (decoded, frames) = decode_all(&path, seconds).unwrap();
                assert_eq!(decoded.timeline.first_frame, indices(&frames)[0], "{name}");
                (decoded.timeline.seconds(0), indices(&frames))
            };
            let all: Vec<usize> = (0..50).collect();
            let (start, seen) = part(0.0..f64::INFINITY);
            assert!((start - 2.0).abs() < 1e-3, "{name}: {start}");
            assert_eq!(seen, all, "{name}");
            // Before the first frame.
            assert_eq!(part(0.5..f64::INFINITY).1, all, "{name}");
            assert_eq!(part(0.5..2.1).1, [0, 1, 2], "{name}");
            let (start, seen) = part(3.0..f64::INFINITY);
            assert!((start - 3.0).abs() < 1e-3, "{name}: {start}");
            assert_eq!(seen, all[25..], "{name}");
            let error = |seconds| decode_all(&path, seconds).unwrap_err().to_string();
            assert!(error(0.5..1.5).contains("the video starts at 2.00 s"), "{name}: {}", error(0.5..1.5));
            assert!(error(4.5..5.0).contains("the video ends at 4.00 s"), "{name}: {}", error(4.5..5.0));
        }
    }

    #[test]
    fn a_frame_is_displayed_until_the_next_one() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["gap.mkv", "gap.mp4"] {
            let path = directory.path().join(name);
            let times = (0..50).map(|i| 40 * i + if i >= 25 { 5000 } else { 0 }).collect();
            TestVideo { times, ..TestVideo::default() }.write(&path);
            let (decoded, frames) = decode_all(&path, 2.0..5.0).unwrap();
            assert_eq!(indices(&frames), [24], "{name}");
            assert!((decoded.timeline.seconds(0) - 0.96).abs() < 1e-3, "{name}: {}", decoded.timeline.seconds(0));
            assert_eq!(decoded.timeline.duration(), 3.0, "{name}");
            assert_eq!(indices(&decode_all(&path, 2.0..6.07).unwrap().1), [24, 25, 26], "{name}");
            assert_eq!(decode_all(&path, 0.0..f64::INFINITY).unwrap().0.warnings, [""; 0], "{name}");
        }
    }

    #[test]
    fn frames_before_an_edit_list_are_not_displayed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("edit.mp4");
        let (times, options) = ((-10..40).map(|i| 40 * i).collect(), &[("crf", "20"), ("bf", "2"), ("g", "50")]);
        let container = &[("avoid_negative_ts", "disabled")];
        TestVideo { times, options, container, ..TestVideo::default() }.write(&path);
        let (decoded, frames) = decode_all(&path, 0.0..f64::INFINITY).unwrap();
        assert_eq!(indices(&frames), (10..50).collect::<Vec<_>>());
        assert_eq!((decoded.timeline.seconds(0), decoded.warnings), (0.0, vec![]));
        assert_eq!(indices(&decode_all(&path, 0.4..0.6).unwrap().1), [20, 21, 22, 23, 24]);
    }

    #[test]
    fn negative_timestamps_count_from_the_first_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("negative.mkv");
        let (times, container) = ((-10..40).map(|i| 40 * i).collect(), &[("avoid_negative_ts", "disabled")]);
        TestVideo { times, container, ..TestVideo::default() }.write(&path);
        let (decoded, frames) = decode_all(&path, 0.0..f64::INFINITY).unwrap();
        assert_eq!(indices(&frames), (0..50).collect::<Vec<_>>());
        assert_eq!(decoded.timeline.seconds(0), 0.0);
    }

    #[test]
    fn decoding_continues_after_damage() {
        let directory = tempfile::tempdir().unwrap();
        let options = &[("crf", "20"), ("bf", "2"), ("g", "12")];
        for name in ["video.mp4", "video.mkv", "video.ts"] {
            let path = directory.path().join(name);
            let times = (0..200).map(|i| 40 * i).collect();
            TestVideo { times, options, draw: draw_noise, ..TestVideo::default() }.write(&path);
            let (intact, _) = decode_all(&path, 0.0..f64::INFINITY).unwrap();
            assert_eq!((intact.timeline.frame_count, intact.warnings.as_slice()), (200, [].as_slice()), "{name}");
            let bytes = std::fs::read(&path).unwrap();
            // In the middle, and near the end.
            for damage in [0.45..0.6, 0.9..0.93] {
                let mut bytes = bytes.clone();
                let at = |part: f64| (bytes.len() as f64 * part) as usize;
                let damage = at(damage.start)..at(damage.end);
                bytes[damage].fill(0xaa);
                std::fs::write(&path, bytes).unwrap();
                let (decoded, _) = decode_all(&path, 0.0..f64::INFINITY).unwrap();
                let timeline = &decoded.timeline;
                let end = timeline.end_seconds(timeline.frame_count - 1);
                assert!((end - 8.0).abs() < 0.05, "{name}: the video ends at {end} s");
                assert!((150..=200).contains(&timeline.frame_count), "{name}: {}", timeline.frame_count);
                // The demuxer of Matroska skips damaged clusters without an error.
                let has_warning = decoded.warnings.iter().any(|warning| warning.contains("damaged"));
                assert!(has_warning || name == "video.mkv", "{name}");
            }
        }
    }

    #[test]
    fn intact_videos_have_no_warning() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["video.mkv", "video.mov"] {
            let path = directory.path().join(name);
            // The audio is longer.
            TestVideo { audio: Some(0..3000), ..TestVideo::default() }.write(&path);
            let (decoded, frames) = decode_all(&path, 0.0..f64::INFINITY).unwrap();
            assert_eq!((frames.len(), decoded.warnings.as_slice()), (25, [].as_slice()), "{name}");
        }
    }

    #[test]
    fn heic_images_are_rejected_with_a_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("photo.heic");
        std::fs::write(&path, b"\0\0\0\x18ftypheic\0\0\0\0mif1heic").unwrap();
        let error = decode_all(&path, 0.0..f64::INFINITY).unwrap_err().to_string();
        assert!(error.contains("photo.heic: HEIC") && error.contains("heif-convert"), "{error}");
    }
}
