//! The frame cache: the sampled frames of clips as bytes at training size, decoded once and read in every epoch.
//!
//! A cache is a [`RecordFile`] named after a hash of what determines the frames besides the clips: the version of the decoding, the
//! sampling, deinterlacing, size and resize. Recipes that agree in these share a cache. A clip is identified by its file, start and end,
//! and by the sizes and modification times of its files, so that a changed clip is decoded again. Clips that failed are recorded with
//! the reason.
//!
//! All records are checked when a cache is opened; a damaged or incomplete one and those after it are removed and decoded again. Each
//! frame is checked again when it is read. The size is bounded: if the frames of all clips may not fit, that is an error before
//! anything is decoded, since decoding in every epoch would take most of the time of training.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use kinoprobe::cancel::CancellationToken;
use kinoprobe::error::{Error, Result};
use kinoprobe::extract::budget::{Budget, ReservingSink};
use kinoprobe::manifest::Clip;
use kinoprobe::media::{
    self, DECODER_VERSION, Deinterlace, Frame, FrameSink, Sampling, Source, Transform, Wanted, Window, sampler,
};
use kinoprobe::memory;
use kinoprobe::models::input::{InputSpec, Resize};
use kinoprobe::ordered::ordered;
use kinoprobe::progress::{Event, ProgressSink, Unit};
use kinoprobe::store::records::{Positioned, RecordFile};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::recipe::TrainRecipe;

/// The magic bytes.
const MAGIC: &[u8; 8] = b"kinofrm1";

/// Where frames are cached, and the resources that decoding may use.
#[derive(Debug, Clone)]
pub struct CacheOptions {
    /// Directory of the cache.
    pub directory: PathBuf,
    /// Maximum size of the file in bytes.
    pub limit: u64,
    /// Number of decode threads.
    pub workers: usize,
    /// Memory in bytes that the decode threads share; by default half of the available memory.
    pub memory: Option<u64>,
    /// Decode clips again that failed in an earlier run.
    pub retry_failed: bool,
}

/// What determines the frames besides the clips.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Settings {
    decoder: String,
    sampling: Sampling,
    deinterlace: Deinterlace,
    size: [usize; 2],
    resize: Resize,
}

/// The JSON part of a record.
#[derive(Debug, Serialize, Deserialize)]
enum Record {
    /// The first record.
    Begin(Settings),
    /// A clip, followed by its frames, (frames, height, width, 3) bytes.
    Clip {
        key: String,
        /// Frames of each window.
        windows: Vec<Vec<u32>>,
        /// CRC-32 of each frame.
        checksums: Vec<u32>,
    },
    /// A clip that failed.
    Failure { key: String, error: String },
}

/// The frames of one clip.
#[derive(Debug, Clone)]
struct Location {
    /// Position of the first frame in the file.
    offset: u64,
    windows: Vec<Vec<u32>>,
    checksums: Vec<u32>,
}

/// A clip of the cache: its frames, or why it failed.
type Entry = Result<Location, String>;

/// The frames of a list of clips. Threads can share it.
#[derive(Debug)]
pub struct FrameCache {
    path: PathBuf,
    file: File,
    frame_len: usize,
    /// By position in the list.
    clips: Vec<Entry>,
    ids: Vec<String>,
}

impl FrameCache {
    /// Opens the cache for the frames of a recipe, decodes the clips that it lacks, and records them in the order of `clips`. If the
    /// process is killed, the next call continues.
    ///
    /// # Errors
    /// Returns an error if the frames may not fit into `options.limit`, the file cannot be written, is damaged or in use by another
    /// process, or the run is cancelled. Clips that fail are recorded, and reported as events.
    pub fn build(
        recipe: &TrainRecipe,
        clips: &[Clip],
        options: &CacheOptions,
        progress: &dyn ProgressSink,
        cancel: &CancellationToken,
    ) -> Result<Self> {
        let settings = Settings {
            decoder: DECODER_VERSION.into(),
            sampling: recipe.sampling,
            deinterlace: recipe.deinterlace,
            size: recipe.input.size,
            resize: recipe.input.resize,
        };
        let path = settings.path(&options.directory);
        let [height, width] = settings.size;
        let frame_len = 3 * height * width;
        let keys: Vec<String> = clips.iter().map(key).collect();

        let (mut entries, mut begin) = (HashMap::new(), None);
        let mut records =
            RecordFile::open(&path, MAGIC, "frame cache", |Positioned { bytes, record, .. }| match record {
                Record::Begin(settings) => begin = Some(settings),
                Record::Clip { key, windows, checksums } => {
                    entries.insert(key, Ok(Location { offset: bytes, windows, checksums }));
                }
                Record::Failure { key, error } => drop(entries.insert(key, Err(error))),
            })?;
        match &begin {
            Some(found) if *found != settings => {
                let message = "contains the frames of other settings: the file was renamed; move it away";
                return Err(Error::Store { path, message: message.into() });
            }
            Some(_) => {}
            None => records.forget_all(),
        }
        if options.retry_failed {
            entries.retain(|_, entry| entry.is_ok());
        }

        let mut listed = HashSet::new();
        let pending: Vec<usize> = (0..clips.len())
            .filter(|&position| listed.insert(&keys[position]) && !entries.contains_key(&keys[position]))
            .collect();
        let frames: u64 =
            pending.iter().map(|&position| settings.most_frames(&clips[position])).fold(0, u64::saturating_add);
        let needed = records.end().saturating_add(frames.saturating_mul(frame_len as u64));
        if !pending.is_empty() && needed > options.limit {
            let message = format!(
                "the frames of {} clips ({frames} frames of {height}x{width}) may need {}, more than the limit of {}: raise it with \
                 --cache-size, or lower sampling or input.size of the recipe",
                pending.len(),
                gibibytes(needed),
                gibibytes(options.limit)
            );
            return Err(Error::Store { path, message });
        }
        if !pending.is_empty() {
            records.begin()?;
            if begin.is_none() {
                records.append(&Record::Begin(settings.clone()), &[])?;
            }
            let work =
                Work { settings: &settings, spec: recipe.input.spec(None), clips, keys: &keys, pending: &pending };
            work.run(options, progress, cancel, &mut records, &mut entries)?;
        }
        drop(records);
        let file = File::open(&path).map_err(Error::io(&path))?;
        let missing = || Err("interrupted".to_string());
        Ok(Self {
            file,
            frame_len,
            clips: keys.iter().map(|key| entries.get(key).cloned().unwrap_or_else(missing)).collect(),
            ids: clips.iter().map(|clip| clip.id.clone()).collect(),
            path,
        })
    }

    /// Returns the path of the file.
    #[cfg(test)]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the windows of clip `clip`, each with the indices of its frames; none if the clip failed.
    pub fn windows(&self, clip: usize) -> &[Vec<u32>] {
        self.clips[clip].as_ref().map_or(&[], |location| &location.windows)
    }

    /// Returns why clip `clip` failed; `None` if it did not.
    pub fn failure(&self, clip: usize) -> Option<&str> {
        self.clips[clip].as_ref().err().map(String::as_str)
    }

    /// Returns the number of bytes of a frame, (height, width, 3), in the order red, green, blue.
    pub fn frame_len(&self) -> usize {
        self.frame_len
    }

    /// Reads frame `frame` of clip `clip` into `out`.
    ///
    /// # Errors
    /// Returns an error that names the file if it cannot be read, or the frame is damaged.
    ///
    /// # Panics
    /// Panics if there is no such frame, or the length of `out` is not [`FrameCache::frame_len`].
    pub fn read(&self, clip: usize, frame: u32, out: &mut [u8]) -> Result<()> {
        assert_eq!(out.len(), self.frame_len, "length of a frame");
        let location = self.clips[clip].as_ref().expect("a clip without frames has no windows");
        let offset = location.offset + u64::from(frame) * self.frame_len as u64;
        self.file.read_exact_at(out, offset).map_err(Error::io(&self.path))?;
        if crc32fast::hash(out) != location.checksums[frame as usize] {
            let message = format!(
                "damaged: a frame of clip {} has another checksum; check the disk, and run again: damaged clips are decoded again",
                self.ids[clip]
            );
            return Err(Error::Store { path: self.path.clone(), message });
        }
        Ok(())
    }
}

impl Settings {
    /// Returns the path of the cache with these settings.
    fn path(&self, directory: &Path) -> PathBuf {
        let json = serde_json::to_vec(self).expect("settings serialize to JSON");
        directory.join(format!("frames-{}.cache", &format!("{:x}", Sha256::digest(json))[..16]))
    }

    /// Returns the maximum number of frames of a clip.
    fn most_frames(&self, clip: &Clip) -> u64 {
        let most = match self.sampling {
            Sampling::Even { frames } | Sampling::Shots { frames } => frames as u64,
            Sampling::Spread { length } => length as u64,
            Sampling::Windows { length, count, .. } => (length as u64).saturating_mul(count as u64),
            Sampling::All { most, .. } => most.map_or(u64::MAX, |most| most as u64),
        };
        if clip.is_image() { 1 } else { clip.frames().map_or(most, |frames| most.min(frames as u64)) }
    }
}

/// Identifies the frames of a clip under given settings: a SHA-256 in hexadecimal.
fn key(clip: &Clip) -> String {
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    let absolute = std::path::absolute(&clip.file).unwrap_or_else(|_| clip.file.clone());
    add(absolute.as_os_str().as_encoded_bytes());
    // The sum turns -0 into 0.
    for seconds in [clip.start.unwrap_or(0.0) + 0.0, clip.end.unwrap_or(f64::INFINITY)] {
        add(&seconds.to_bits().to_le_bytes());
    }
    let files = match Source::of(clip) {
        // The key of a remote file is its URL.
        Ok(Source::Video(location) | Source::Image(location)) => local_file(location).into_iter().collect(),
        Ok(Source::Frames(paths)) => paths,
        // The clip will fail; it has another key once it can be read.
        Err(_) => vec![],
    };
    for path in files {
        add(path.file_name().unwrap_or_default().as_encoded_bytes());
        if let Ok(metadata) = path.metadata() {
            for value in [metadata.len().cast_signed(), metadata.mtime(), metadata.mtime_nsec()] {
                add(&value.to_le_bytes());
            }
        }
    }
    format!("{:x}", hash.finalize())
}

/// Returns the local file or archive of a location.
fn local_file(location: media::Location) -> Option<PathBuf> {
    match location {
        media::Location::Path(path) => Some(path),
        media::Location::Url(_) => None,
        media::Location::Member { archive, .. } => local_file(*archive),
    }
}

/// The clips to decode.
struct Work<'a> {
    settings: &'a Settings,
    spec: InputSpec,
    clips: &'a [Clip],
    keys: &'a [String],
    /// Positions in `clips`.
    pending: &'a [usize],
}

/// A decoded clip: its windows, the frames and their checksums, and warnings.
struct DecodedFrames {
    windows: Vec<Vec<u32>>,
    frames: Vec<u8>,
    checksums: Vec<u32>,
    warnings: Vec<String>,
}

impl Work<'_> {
    /// Decodes the clips and appends them to `records` in order.
    fn run(
        &self,
        options: &CacheOptions,
        progress: &dyn ProgressSink,
        cancel: &CancellationToken,
        records: &mut RecordFile,
        entries: &mut HashMap<String, Entry>,
    ) -> Result<()> {
        let total = self.clips.len() as u64;
        let done = total - self.pending.len() as u64;
        progress.report(Event::Started { task: "frames", unit: Unit::Clips, total: Some(total), done });
        let budget =
            Budget::new(options.memory.or_else(|| memory::available().map(|bytes| bytes / 2)).unwrap_or(u64::MAX));
        let workers = options.workers.clamp(1, self.pending.len());
        let threads = options.workers.max(1) / workers;
        std::thread::scope(|scope| {
            let decoders = (0..workers).map(|_| {
                let mut sink = ReservingSink::new(ByteSink::new(&self.spec), &budget, |_, _, _| 0);
                move |position: usize| (position, self.decode(position, threads, &mut sink))
            });
            let pending = self.pending.iter().copied().take_while(|_| !cancel.is_cancelled());
            for (position, decoded) in ordered(scope, pending, decoders.collect(), 2 * workers) {
                let (key, id) = (self.keys[position].clone(), &self.clips[position].id);
                match decoded {
                    Ok(DecodedFrames { windows, frames, checksums, warnings }) => {
                        for warning in warnings {
                            progress.report(Event::Warning(&format!("clip {id}: {warning}")));
                        }
                        let record =
                            Record::Clip { key: key.clone(), windows: windows.clone(), checksums: checksums.clone() };
                        let offset = records.append(&record, &frames)?;
                        records.flush()?;
                        progress.report(Event::ClipDone { id, frames: checksums.len() });
                        entries.insert(key, Ok(Location { offset, windows, checksums }));
                    }
                    Err(error) => {
                        let error = error.to_string();
                        records.append(&Record::Failure { key: key.clone(), error: error.clone() }, &[])?;
                        progress.report(Event::ClipFailed { id, error: &error });
                        entries.insert(key, Err(error));
                    }
                }
            }
            records.flush()
        })?;
        progress.report(Event::Finished);
        cancel.check()
    }

    fn decode(&self, position: usize, threads: usize, sink: &mut ReservingSink<'_, ByteSink>) -> Result<DecodedFrames> {
        let Settings { sampling, deinterlace, .. } = self.settings;
        let wanted = Wanted { sampling, shots: &[], threads, deinterlace: *deinterlace };
        let decoded = media::decode(&self.clips[position], wanted, sink);
        sink.release();
        let decoded = decoded?;
        let distinct = sampler::distinct(&decoded.windows);
        let slot = |index: &usize| distinct.binary_search(index).expect("a window has distinct frames") as u32;
        Ok(DecodedFrames {
            windows: decoded.windows.iter().map(|window| window.indices.iter().map(slot).collect()).collect(),
            frames: std::mem::take(&mut sink.inner().frames),
            checksums: std::mem::take(&mut sink.inner().checksums),
            warnings: decoded.warnings,
        })
    }
}

/// Resizes frames to bytes.
struct ByteSink {
    transform: Transform,
    frames: Vec<u8>,
    checksums: Vec<u32>,
}

impl ByteSink {
    fn new(spec: &InputSpec) -> Self {
        Self { transform: Transform::new(spec), frames: Vec::new(), checksums: Vec::new() }
    }
}

impl FrameSink for ByteSink {
    fn begin(&mut self, _: &[Window], _: &[usize]) -> Result<()> {
        // Grows with the frames that are decoded: a container may claim any number.
        self.frames.clear();
        self.checksums.clear();
        Ok(())
    }

    fn frame(&mut self, _: usize, frame: &Frame<'_>) -> Result<()> {
        let [height, width] = self.transform.size();
        let start = self.frames.len();
        self.frames.resize(start + 3 * height * width, 0);
        let out = &mut self.frames[start..];
        self.transform.write_bytes(frame.image(), out);
        self.checksums.push(crc32fast::hash(out));
        Ok(())
    }
}

fn gibibytes(bytes: u64) -> String {
    format!("{:.2} GiB", bytes as f64 / (1_u64 << 30) as f64)
}

#[cfg(test)]
mod tests;
