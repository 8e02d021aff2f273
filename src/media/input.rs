//! The file of a clip while it is decoded.

use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::boxes;
use super::image;
use super::libav::Video;
use crate::error::{Error, Result};
use crate::read_at::{LocalFile, ReadAt};

/// Number of bytes that tell the format of a file.
const HEADER: u64 = 64;

/// An open file.
pub(super) struct Input {
    name: PathBuf,
    content: Content,
    /// Version of a remote file; empty otherwise.
    version: String,
    /// The first error of reading. libav treats errors like the end of the file, so that its result is not valid then.
    error: Mutex<Option<Error>>,
}

enum Content {
    /// A local file, which libav opens itself.
    Path(PathBuf),
    /// Any other file.
    File(Arc<dyn ReadAt>),
}

impl Input {
    /// Reads a local file.
    pub(super) fn at(path: &Path) -> Arc<Self> {
        let content = Content::Path(path.to_path_buf());
        Arc::new(Self { name: path.to_path_buf(), content, version: String::new(), error: Mutex::default() })
    }

    /// Reads any other file. `name` is its path in messages.
    pub(super) fn of(name: &Path, file: Arc<dyn ReadAt>, version: String) -> Arc<Self> {
        Arc::new(Self { name: name.to_path_buf(), content: Content::File(file), version, error: Mutex::default() })
    }

    /// Returns the path for messages.
    pub(super) fn name(&self) -> &Path {
        &self.name
    }

    /// Returns what identifies the version of a remote file; empty for local files.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Returns the number of bytes.
    ///
    /// # Errors
    /// Returns an error if the file is missing.
    pub(super) fn len(&self) -> Result<u64> {
        match &self.content {
            Content::Path(path) => Ok(path.metadata().map_err(Error::io(path))?.len()),
            Content::File(file) => Ok(file.len()),
        }
    }

    /// Reads the whole file, up to `limit` bytes.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, or is longer.
    pub(super) fn read_all(&self, limit: u64) -> Result<Vec<u8>> {
        let len = self.len()?;
        if len > limit {
            let message = format!("{len} bytes are too many: the limit is {limit}");
            return Err(Error::Media { path: self.name.clone(), message });
        }
        match &self.content {
            Content::Path(path) => std::fs::read(path).map_err(Error::io(path)),
            Content::File(file) => file.read_vec(0, len),
        }
    }

    /// Opens a video with a decoder of this number of threads.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or has no video stream that can be decoded.
    pub(super) fn video(self: &Arc<Self>, threads: usize) -> Result<Video> {
        let failed = |message: &str| Error::Media { path: self.name.clone(), message: message.into() };
        let absolute = match &self.content {
            Content::Path(path) => {
                let absolute = std::path::absolute(path).map_err(Error::io(path))?;
                if absolute.to_str().is_none() {
                    return Err(failed("the path is not UTF-8: rename the file"));
                }
                Some(absolute)
            }
            Content::File(_) => None,
        };
        let header = match &self.content {
            Content::Path(path) => LocalFile::open(path)?.read_vec(0, HEADER)?,
            Content::File(file) => file.read_vec(0, HEADER)?,
        };
        if image::is_heic(&header) {
            return Err(failed(image::HEIC));
        }
        let video = match &absolute {
            Some(path) => Video::open(path, threads),
            None => Video::open_stream(self.stream(Unread::default()), threads),
        };
        self.check(video.ok_or_else(|| {
            failed("no video stream that can be decoded: audio only, text, or a damaged or unknown format")
        }))
    }

    /// Opens a video whose packets have the right times and sizes, but no content: they are not read. `None` if reading is cheap, or
    /// the container does not tell its packets in advance.
    pub(super) fn video_without_content(self: &Arc<Self>) -> Option<Video> {
        let Content::File(file) = &self.content else { return None };
        let unread = Unread { ranges: boxes::media_data(&**file)?, active: Arc::default() };
        let active = Arc::clone(&unread.active);
        let video = Video::open_container(self.stream(unread))?;
        active.store(true, Ordering::Relaxed);
        Some(video)
    }

    fn stream(self: &Arc<Self>, unread: Unread) -> Stream {
        Stream { input: Arc::clone(self), position: 0, unread }
    }

    /// Returns the error of reading the file, if there was one, instead of a result that depends on what was read.
    ///
    /// # Errors
    /// Returns that error, or the one of the result.
    pub(super) fn check<T>(&self, result: Result<T>) -> Result<T> {
        match self.error.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None => result,
        }
    }
}

/// Parts of a file that are replaced by zeros, without reading them.
#[derive(Clone, Default)]
struct Unread {
    ranges: Vec<Range<u64>>,
    /// `false` until the properties of the video are known.
    active: Arc<AtomicBool>,
}

/// A reader of a file for libav.
struct Stream {
    input: Arc<Input>,
    position: u64,
    unread: Unread,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let Content::File(file) = &self.input.content else { unreachable!("libav opens local files itself") };
        if self.unread.active.load(Ordering::Relaxed)
            && let Some(range) = self.unread.ranges.iter().find(|range| range.contains(&self.position))
        {
            let len = (range.end - self.position).min(buffer.len() as u64) as usize;
            buffer[..len].fill(0);
            self.position += len as u64;
            return Ok(len);
        }
        // A read that crosses into such a part would fetch its beginning.
        match file.read_at(self.position, buffer) {
            Ok(read) => {
                self.position += read as u64;
                Ok(read)
            }
            Err(error) => {
                self.input.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                Err(std::io::ErrorKind::Other.into())
            }
        }
    }
}

impl Seek for Stream {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let len = self.input.len().map_err(|_| std::io::ErrorKind::Other)?;
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
            SeekFrom::End(offset) => len.checked_add_signed(offset),
        };
        self.position = position.ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::AtomicU64;

    use super::super::sampler::{Wanted, Window};
    use super::super::sink::{Frame, FrameSink};
    use super::super::test_video::{TestVideo, draw_noise};
    use super::super::video;
    use super::*;
    use crate::media::Sampling;

    /// A file that counts the bytes that are read, and fails after some. Blocks that are read several times are counted once.
    struct Counted {
        file: LocalFile,
        read: AtomicU64,
        blocks: Mutex<BTreeSet<u64>>,
        limit: u64,
    }

    /// Bytes of a block.
    const BLOCK: u64 = 64 << 10;

    impl Counted {
        fn open(path: &Path, limit: u64) -> Arc<Self> {
            Arc::new(Self {
                file: LocalFile::open(path).unwrap(),
                read: AtomicU64::new(0),
                blocks: Mutex::default(),
                limit,
            })
        }
    }

    impl ReadAt for Counted {
        fn len(&self) -> u64 {
            self.file.len()
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
            let read = self.file.read_at(offset, buffer)?;
            self.blocks.lock().unwrap().extend(offset / BLOCK..(offset + read as u64).div_ceil(BLOCK));
            if self.read.fetch_add(read as u64, Ordering::Relaxed) + read as u64 > self.limit {
                return Err(Error::Media { path: "https://host/a".into(), message: "the connection broke".into() });
            }
            Ok(read)
        }
    }

    /// The index and a checksum of each frame.
    #[derive(Default)]
    struct Checksums(Vec<(usize, u32)>);

    impl FrameSink for Checksums {
        fn begin(&mut self, _windows: &[Window], _wanted: &[usize]) -> Result<()> {
            self.0.clear();
            Ok(())
        }

        fn frame(&mut self, _position: usize, frame: &Frame<'_>) -> Result<()> {
            self.0.push((frame.index, crc32fast::hash(frame.image().data)));
            Ok(())
        }
    }

    fn decode(input: &Arc<Input>, threads: usize) -> Result<(super::super::sink::Decoded, Vec<(usize, u32)>)> {
        let sampling = Sampling::Even { frames: 2 };
        let mut sink = Checksums::default();
        let wanted = Wanted { threads, ..Wanted::from(&sampling) };
        Ok((video::decode(input, 40.0..41.0, wanted, &mut sink)?, sink.0))
    }

    /// Encodes 400 frames with large packets, 5 per second: libav reads the first five seconds when it opens a file.
    fn encode(path: &Path, codec: &str, options: &[(&str, &str)], container: &[(&str, &str)]) {
        let times = (0..400).map(|i| 200 * i).collect();
        TestVideo { codec, options, container, times, size: (192, 128), draw: draw_noise, ..TestVideo::default() }
            .write(path);
    }

    #[test]
    fn streams_are_decoded_as_files_are() {
        let directory = tempfile::tempdir().unwrap();
        let closed: &[(&str, &str)] = &[("crf", "12"), ("g", "100"), ("bf", "2")];
        let open: &[(&str, &str)] = &[("crf", "12"), ("x264-params", "keyint=100:bframes=2:open-gop=1:scenecut=0")];
        let fragmented: &[(&str, &str)] = &[("movflags", "frag_keyframe+empty_moov")];
        let first: &[(&str, &str)] = &[("movflags", "faststart")];
        // The share of the file that may be read. Some codecs make files that are smaller than what is read to open them.
        for (name, codec, options, container, share) in [
            ("closed.mp4", "libx264", closed, &[] as &[_], 0.3),
            ("first.mp4", "libx264", closed, first, 0.3),
            ("open.mov", "libx264", open, &[], 3.0),
            ("parts.mp4", "mpeg4", &[("g", "100")], &[], 3.0),
            ("vp9.mp4", "libvpx-vp9", &[("g", "100"), ("crf", "10"), ("cpu-used", "8")], &[], 3.0),
            ("fragmented.mp4", "libx264", closed, fragmented, 3.0),
            ("closed.mkv", "libx264", closed, &[], 3.0),
            ("closed.ts", "libx264", closed, &[], 3.0),
        ] {
            let path = directory.path().join(name);
            encode(&path, codec, options, container);
            for threads in [1, 3] {
                let expected = decode(&Input::at(&path), threads).unwrap();
                let file = Counted::open(&path, u64::MAX);
                let found = decode(&Input::of(&path, file.clone(), String::new()), threads).unwrap();
                assert_eq!(found, expected, "{name}");
                let read = (file.blocks.lock().unwrap().len() as u64 * BLOCK) as f64 / file.len() as f64;
                assert!(threads > 1 || read < share, "{name}: {read:.2} of {} bytes", file.len());
            }
        }
    }

    #[test]
    fn errors_of_reading_fail_a_clip() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["a.mp4", "a.mkv", "a.ts"] {
            let path = directory.path().join(name);
            encode(&path, "libx264", &[("crf", "12"), ("g", "100")], &[]);
            let file = Counted::open(&path, u64::MAX);
            decode(&Input::of(&path, file.clone(), String::new()), 1).unwrap();
            let read = file.read.load(Ordering::Relaxed);
            for limit in [0, 100, read / 8, read / 2, read - 1] {
                let file = Counted::open(&path, limit);
                let error = decode(&Input::of(&path, file, String::new()), 1).unwrap_err();
                assert_eq!(error.to_string(), "https://host/a: the connection broke", "{name} after {limit} bytes");
            }
        }
    }
}
