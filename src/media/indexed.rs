//! Decoding of single frames by an index of packets: only the sections that the wanted frames need are decoded, and only what
//! these frames refer to within the sections.
//!
//! Every packet that is read and every frame that is decoded is compared with the index. If something differs, the index is not
//! trusted, and the caller decodes the whole video.

use ffmpeg_next::Packet;

use super::frame_image::RawFrame;
use super::libav::Video;
use super::packet_index::{PacketIndex, Section, Untrusted, Unwanted};
use crate::error::Error;
use crate::ordered::ordered;

/// Number of bytes between two packets from which seeking is faster than reading.
const MIN_SEEK_BYTES: usize = 1 << 20;

/// Number of wanted frames up to which a section is decoded by a thread of its own, which holds them in memory.
pub(super) const MAX_SECTION_FRAMES: usize = 16;

/// Number of sections per thread that are decoded ahead of the oldest one, so that a long section does not stop other threads.
pub(super) const SECTIONS_AHEAD: usize = 2;

/// Why a video is decoded completely if a thread cannot open it again.
const CANNOT_REOPEN: Untrusted = Untrusted("a packet cannot be read again");

/// Error of decoding by an index.
pub(super) enum IndexedError {
    /// The file differs from the index, or has errors.
    Untrusted(Untrusted),
    /// The consumer of the frames failed.
    Other(Error),
}

impl From<Untrusted> for IndexedError {
    fn from(reason: Untrusted) -> Self {
        Self::Untrusted(reason)
    }
}

/// Decodes the frames `wanted`, in ascending order, and calls `receive` for each one with its position in `wanted`.
///
/// With several threads, each one decodes whole sections, which are independent of each other. If sections have too many wanted frames to hold them in memory, they are decoded one after another by a decoder with several
/// threads, which needs more CPU time. `reopen` opens the file with a decoder of this number of threads.
pub(super) fn decode(
    video: &mut Video,
    reopen: impl Fn(usize) -> Option<Video> + Sync,
    index: &PacketIndex,
    wanted: &[usize],
    threads: usize,
    mut receive: impl FnMut(usize, RawFrame) -> Result<(), Error>,
) -> Result<(), IndexedError> {
    let times: Vec<i64> = wanted.iter().map(|&frame| index.time(frame)).collect();
    let receive = |position, frame| receive(position, frame).map_err(IndexedError::Other);
    if threads <= 1 {
        // The packets of the index have been read.
        let mut reader = Reader { index, next: index.packets.len() };
        return decode_sections(video, &mut reader, &index.sections(wanted), &times, receive);
    }
    let sections = index.shortest_sections(wanted);
    if sections.len() == 1 || sections.iter().any(|section| section.frames > MAX_SECTION_FRAMES) {
        let mut decoder = reopen(threads).ok_or(CANNOT_REOPEN)?;
        let mut reader = Reader { index, next: 0 };
        return decode_sections(&mut decoder, &mut reader, &index.sections(wanted), &times, receive);
    }
    decode_in_parallel(video, reopen, index, sections, &times, threads, receive)
}

/// Decodes sections one after another and receives the frames with these times.
fn decode_sections(
    video: &mut Video,
    reader: &mut Reader<'_>,
    sections: &[Section],
    times: &[i64],
    mut receive: impl FnMut(usize, RawFrame) -> Result<(), IndexedError>,
) -> Result<(), IndexedError> {
    let mut done = 0;
    for section in sections {
        let times = &times[done..done + section.frames];
        decode_section(video, reader, section, times, |position, frame| receive(done + position, frame))?;
        done += section.frames;
    }
    Ok(())
}

/// Decodes sections by several threads and receives the frames with these times.
fn decode_in_parallel(
    video: &mut Video,
    reopen: impl Fn(usize) -> Option<Video> + Sync,
    index: &PacketIndex,
    sections: Vec<Section>,
    times: &[i64],
    threads: usize,
    mut receive: impl FnMut(usize, RawFrame) -> Result<(), IndexedError>,
) -> Result<(), IndexedError> {
    // The first thread uses the open file.
    let mut open = Some(video);
    let workers = (0..threads.min(sections.len())).map(|_| {
        let (mut given, mut opened) = (open.take(), None);
        let mut reader = Reader { index, next: if given.is_some() { index.packets.len() } else { 0 } };
        let reopen = &reopen;
        move |(section, times): (Section, &[i64])| -> Result<Vec<RawFrame>, IndexedError> {
            let decoder = match (&mut given, &mut opened) {
                (Some(video), _) => &mut **video,
                (None, Some(video)) => video,
                (None, none) => none.insert(reopen(1).ok_or(CANNOT_REOPEN)?),
            };
            let mut frames = Vec::with_capacity(section.frames);
            decode_section(decoder, &mut reader, &section, times, |_, frame| {
                frames.push(frame);
                Ok(())
            })?;
            Ok(frames)
        }
    });
    let mut rest = times;
    let sections = sections.into_iter().map(|section| {
        let (times, later) = rest.split_at(section.frames);
        rest = later;
        (section, times)
    });
    std::thread::scope(|scope| {
        let mut position = 0;
        for frames in ordered(scope, sections, workers.collect(), SECTIONS_AHEAD * threads) {
            for frame in frames? {
                receive(position, frame)?;
                position += 1;
            }
        }
        Ok(())
    })
}

/// Decodes a section and receives the frames with these times.
fn decode_section(
    video: &mut Video,
    reader: &mut Reader<'_>,
    section: &Section,
    times: &[i64],
    mut receive: impl FnMut(usize, RawFrame) -> Result<(), IndexedError>,
) -> Result<(), IndexedError> {
    let index = reader.index;
    let start = index.packets[section.first].time;
    let mut received = 0;
    let mut receive_all = |video: &mut Video| -> Result<(), IndexedError> {
        while video.receive().map_err(|_| Untrusted("decoding errors"))? {
            let Some(time) = video.frame_time() else { return Err(Untrusted("timestamps are missing").into()) };
            // Frames that are displayed before the access point may lack references.
            if time >= start && video.frame_has_errors() {
                return Err(Untrusted("decoding errors").into());
            }
            match times.get(received) {
                Some(&next) if next == time => {
                    receive(received, video.take_frame())?;
                    received += 1;
                }
                Some(&next) if next < time => return Err(Untrusted("a frame is missing").into()),
                _ => {}
            }
        }
        Ok(())
    };
    video.restart();
    for position in section.first..=section.last {
        let time = index.packets[position].time;
        let unwanted = times.binary_search(&time).is_err().then(|| index.unwanted(position));
        if unwanted == Some(Unwanted::Omit) {
            continue;
        }
        let is_start = position == section.first;
        let packet = if is_start { reader.start(video, position) } else { reader.read(video, position) }?;
        index.verify(&packet, is_start)?;
        let skip = unwanted == Some(Unwanted::DecodeIfReferenced);
        if video.send(&packet, skip).is_err() && time >= start {
            return Err(Untrusted("decoding errors").into());
        }
        receive_all(video)?;
    }
    video.send_end().map_err(|_| Untrusted("decoding errors"))?;
    receive_all(video)?;
    if received < times.len() { Err(Untrusted("a frame is missing").into()) } else { Ok(()) }
}

/// Reads packets by their position in the index.
struct Reader<'a> {
    index: &'a PacketIndex,
    /// Position of the next packet of the demuxer.
    next: usize,
}

impl Reader<'_> {
    /// Reads the packet at an access point, before which packets may be skipped.
    fn start(&mut self, video: &mut Video, position: usize) -> Result<Packet, Untrusted> {
        let packets = &self.index.packets;
        let skipped = packets.get(self.next..position).map(|skipped| skipped.iter().map(|packet| packet.size).sum());
        if skipped.is_none_or(|bytes: usize| bytes >= MIN_SEEK_BYTES) {
            let packet = self.seek(video, position)?;
            self.next = position + 1;
            return Ok(packet);
        }
        self.read(video, position)
    }

    /// Reads up to the packet at a position, which is not before the next one.
    fn read(&mut self, video: &mut Video, position: usize) -> Result<Packet, Untrusted> {
        loop {
            let packet = video.read().ok().flatten().ok_or(Untrusted("a packet cannot be read again"))?;
            if !self.is_at(&packet, self.next) {
                return Err(Untrusted("packets differ when they are read again"));
            }
            self.next += 1;
            if self.next > position {
                return Ok(packet);
            }
        }
    }

    /// Seeks to an access point and returns its packet.
    fn seek(&self, video: &mut Video, position: usize) -> Result<Packet, Untrusted> {
        let packets = &self.index.packets;
        let target = packets[position];
        // Containers have no common rule whether they seek by presentation or decoding time, and indices of their own that
        // may lack keyframes. If everything fails, all packets up to the target are read again.
        for time in [target.time, target.decoding_time, packets[0].decoding_time.min(packets[0].time)] {
            if !video.seek(time) {
                continue;
            }
            while let Ok(Some(packet)) = video.read() {
                if self.is_at(&packet, position) {
                    return Ok(packet);
                }
                if packet.is_key() && packet.pts().is_some_and(|time| time > target.time) {
                    break;
                }
            }
        }
        Err(Untrusted("the container cannot seek"))
    }

    /// Returns `true` if this is the packet at a position.
    fn is_at(&self, packet: &Packet, position: usize) -> bool {
        let expected = self.index.packets.get(position);
        expected.is_some_and(|expected| packet.pts() == Some(expected.time) && packet.size() == expected.size)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    use super::super::frame_image::FrameImages;
    use super::super::test_video::{TestVideo, draw_motion};
    use super::*;

    const FRAMES: i64 = 150;

    fn checksum(images: &mut FrameImages, mut frame: RawFrame) -> u32 {
        crc32fast::hash(images.convert(&mut frame).unwrap().data)
    }

    /// Returns the checksum of each frame, decoded from the beginning to the end.
    fn all_frames(path: &Path) -> Vec<u32> {
        let mut video = Video::open(path, 1).unwrap();
        let (mut images, mut frames) = (FrameImages::new(video.orientation()), Vec::new());
        while video.next() {
            frames.push(checksum(&mut images, video.take_frame()));
        }
        assert_eq!(video.damage().warning(), None, "{}", path.display());
        frames
    }

    fn frames_at(path: &Path, wanted: &[usize], threads: usize) -> Result<Vec<u32>, String> {
        let mut video = Video::open(path, 1).unwrap();
        let index = PacketIndex::read(&mut video).map_err(|Untrusted(reason)| reason)?;
        let (mut images, mut frames) = (FrameImages::new(video.orientation()), Vec::new());
        let reopen = |threads| Video::open(path, threads);
        let decoded = decode(&mut video, reopen, &index, wanted, threads, |position, frame| {
            assert_eq!(position, frames.len());
            frames.push(checksum(&mut images, frame));
            Ok(())
        });
        match decoded {
            Ok(()) => Ok(frames),
            Err(IndexedError::Untrusted(Untrusted(reason))) => Err(reason.into()),
            Err(IndexedError::Other(error)) => Err(error.to_string()),
        }
    }

    /// Checks that any set of frames equals those of a complete decoding.
    fn assert_exact(path: &Path, frame_count: usize) {
        let all = all_frames(path);
        assert_eq!(all.len(), frame_count, "{}", path.display());
        let sets = (proptest::collection::btree_set(0..frame_count, 1..12), 1_usize..4);
        let result =
            TestRunner::new(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() }).run(
                &sets,
                |(wanted, threads)| {
                    let wanted: Vec<usize> = wanted.into_iter().collect();
                    let expected: Vec<u32> = wanted.iter().map(|&frame| all[frame]).collect();
                    prop_assert_eq!(frames_at(path, &wanted, threads), Ok(expected));
                    Ok(())
                },
            );
        if let Err(error) = result {
            panic!("{}: {error}", path.display());
        }
        let every: Vec<usize> = (0..frame_count).collect();
        for threads in [1, 2] {
            assert_eq!(frames_at(path, &every, threads).unwrap(), all, "{}", path.display());
        }
    }

    /// Encodes videos and checks that any set of frames is exact.
    fn assert_exact_videos(names: &[&str], codec: &str, options: &[(&str, &str)]) {
        let directory = tempfile::tempdir().unwrap();
        for name in names {
            let path = directory.path().join(name);
            let (times, time_base) = ((0..FRAMES).collect(), (1, 25));
            TestVideo { codec, options, times, time_base, size: (96, 64), draw: draw_motion, ..TestVideo::default() }
                .write(&path);
            assert_exact(&path, FRAMES as usize);
        }
    }

    #[test]
    fn frames_of_h264_are_exact() {
        let names = ["video.mp4", "video.mkv", "video.ts"];
        assert_exact_videos(&names, "libx264", &[("g", "1")]);
        assert_exact_videos(&names, "libx264", &[("g", "12"), ("bf", "0")]);
        assert_exact_videos(&names, "libx264", &[("g", "30"), ("bf", "3"), ("preset", "fast")]);
        let pyramid = "bframes=8:b-pyramid=strict:b-adapt=0:ref=4";
        assert_exact_videos(&names, "libx264", &[("g", "250"), ("x264-params", pyramid)]);
    }

    #[test]
    fn frames_of_h264_without_closed_groups_are_exact() {
        let names = ["video.mp4", "video.mkv", "video.ts"];
        let open = "open-gop=1:bframes=5:b-pyramid=normal:b-adapt=0:scenecut=0";
        assert_exact_videos(&names, "libx264", &[("g", "20"), ("x264-params", open)]);
        assert_exact_videos(&names, "libx264", &[("g", "20"), ("x264-params", "intra-refresh=1:bframes=0")]);
    }

    #[test]
    fn frames_of_hevc_are_exact() {
        let names = ["video.mp4", "video.mkv", "video.ts"];
        let parameters = "log-level=none:frame-threads=1:pools=none:bframes=4:b-adapt=0:keyint=24:min-keyint=24";
        for open_groups in [0, 1] {
            let parameters = format!("{parameters}:open-gop={open_groups}");
            assert_exact_videos(&names, "libx265", &[("preset", "ultrafast"), ("x265-params", &parameters)]);
        }
        let layers = format!("{parameters}:temporal-layers=1");
        assert_exact_videos(&["video.mkv"], "libx265", &[("preset", "ultrafast"), ("x265-params", &layers)]);
    }

    #[test]
    fn frames_of_vp8_vp9_and_av1_are_exact() {
        let options =
            &[("g", "40"), ("deadline", "good"), ("cpu-used", "5"), ("auto-alt-ref", "1"), ("lag-in-frames", "16")];
        assert_exact_videos(&["video.webm", "video.mkv"], "libvpx", options);
        assert_exact_videos(&["video.webm", "video.mp4"], "libvpx-vp9", options);
        let options = &[("g", "40"), ("cpu-used", "8"), ("usage", "realtime")];
        assert_exact_videos(&["video.mkv", "video.mp4"], "libaom-av1", options);
    }

    #[test]
    fn frames_of_mpeg_codecs_are_exact() {
        let options = &[("g", "12"), ("bf", "2")];
        assert_exact_videos(&["video.ts", "video.mkv", "video.mp4"], "mpeg2video", options);
        assert_exact_videos(&["video.ts"], "mpeg1video", options);
        assert_exact_videos(&["video.mp4", "video.mkv"], "mpeg4", options);
        assert_exact_videos(&["video.avi"], "mpeg4", &[("g", "12"), ("bf", "0")]);
        assert_exact_videos(&["video.avi", "video.mkv"], "ffvhuff", &[]);
    }

    #[test]
    fn frames_with_variable_rate_are_exact() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["video.mp4", "video.mkv", "video.ts"] {
            let path = directory.path().join(name);
            let times = (0..FRAMES).map(|i| 40 * i + i * i % 37).collect();
            let options = &[("g", "25"), ("bf", "3")];
            TestVideo { options, times, size: (96, 64), draw: draw_motion, ..TestVideo::default() }.write(&path);
            assert_exact(&path, FRAMES as usize);
        }
    }

    #[test]
    fn streams_without_timestamps_are_untrusted() {
        let directory = tempfile::tempdir().unwrap();
        let names = ["video.avi", "video.mpg"];
        for (name, codec) in names.into_iter().zip(["libx264", "mpeg2video"]).chain([("video.avi", "mpeg4")]) {
            let path = directory.path().join(name);
            let (options, time_base) = (&[("g", "25"), ("bf", "3")], (1, 25));
            let video = TestVideo { codec, options, time_base, times: (0..FRAMES).collect(), ..TestVideo::default() };
            TestVideo { draw: draw_motion, ..video }.write(&path);
            assert_eq!(frames_at(&path, &[20], 1), Err("timestamps are missing".into()), "{name} {codec}");
        }
    }
}
