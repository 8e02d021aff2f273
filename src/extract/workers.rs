//! Decode workers: each makes the input of the network, or descriptors, from one clip after the other.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::budget::{Budget, ReservingSink};
use super::decoded::{DecodeFn, DecodedClip};
use super::descriptors::{Describer, DescriptorSink};
use super::settings::ExtractionSettings;
use super::timings::{Clocks, TimedSink};
use crate::error::Result;
use crate::manifest::Clip;
use crate::media::{self, FrameSink, ItemSink, Shots, Wanted};
use crate::memory;
use crate::models::Card;
use crate::store::{RowSource, Values};

/// Maximum number of threads for one video, as in the programs of FFmpeg.
const MAX_DECODE_THREADS: usize = 16;

/// What decides which frames of a clip are decoded.
#[derive(Clone, Copy)]
pub(super) struct DecodeRecipe<'a> {
    pub settings: &'a ExtractionSettings,
    /// The shots of the clips, if the sampling needs them.
    pub shots: Option<&'a Shots>,
}

/// What decode workers share.
pub(super) struct Resources<'a> {
    threads: DecodeThreads,
    budget: Budget,
    clocks: &'a Clocks,
}

impl<'a> Resources<'a> {
    /// Creates the resources for a number of clips. `memory` is the number of bytes that the workers share; by default, half of what is
    /// available.
    pub fn new(cores: usize, clips: usize, memory: Option<u64>, clocks: &'a Clocks) -> Self {
        let threads = DecodeThreads { cores, remaining: AtomicUsize::new(clips) };
        Self { threads, budget: Budget::new(memory.unwrap_or_else(default_memory)), clocks }
    }
}

/// Distributes the cores over the clips that are left.
struct DecodeThreads {
    cores: usize,
    /// Number of clips that no worker has taken yet.
    remaining: AtomicUsize,
}

impl DecodeThreads {
    /// Returns the number of threads for the next clip: 1, or more if there are fewer clips than cores.
    fn next(&self) -> usize {
        let remaining = self.remaining.fetch_sub(1, Ordering::Relaxed).max(1);
        (self.cores / remaining).clamp(1, MAX_DECODE_THREADS)
    }
}

/// Returns half of the available memory, so that other processes, the network and the queues have the rest.
fn default_memory() -> u64 {
    memory::available().map_or(u64::MAX, |bytes| bytes / 2)
}

/// Creates a decode worker that makes the network's input.
pub(super) fn item_worker<'a>(
    recipe: DecodeRecipe<'a>,
    resources: &'a Resources<'a>,
    card: &'a Card,
) -> DecodeFn<'a, Vec<u8>> {
    let Resources { threads, budget, clocks } = resources;
    let mut sink = ReservingSink::new(ItemSink::new(&card.input), budget, |_, _, _| 0);
    Box::new(move |clip| decode(clip, recipe, threads.next(), clocks, &mut sink, |sink, _| sink.take()))
}

/// Creates a decode worker that computes descriptors.
pub(super) fn descriptor_worker<'a>(
    recipe: DecodeRecipe<'a>,
    resources: &'a Resources<'a>,
    describer: Box<dyn Describer>,
) -> DecodeFn<'a, Values> {
    let Resources { threads, budget, clocks } = resources;
    let memory = |sink: &DescriptorSink, height, width| sink.memory(height, width);
    let mut sink = ReservingSink::new(DescriptorSink::new(describer), budget, memory);
    Box::new(move |clip| {
        decode(clip, recipe, threads.next(), clocks, &mut sink, |sink, rows| {
            rows.iter_mut().zip(sink.scales()).for_each(|(row, &scale)| row.scale = scale);
            sink.take()
        })
    })
}

/// Decodes a clip. `take_content` takes the content from the sink, and may complete the rows.
fn decode<S: FrameSink, T>(
    clip: &Clip,
    DecodeRecipe { settings, shots }: DecodeRecipe<'_>,
    threads: usize,
    clocks: &Clocks,
    sink: &mut ReservingSink<'_, S>,
    take_content: impl FnOnce(&mut S, &mut [RowSource]) -> T,
) -> Result<DecodedClip<T>> {
    let shots = shots.map(|shots| shots.of(&clip.id)).transpose()?.unwrap_or_default();
    let wanted = Wanted { sampling: &settings.sampling, shots, threads, deinterlace: settings.deinterlace };
    let decoded = media::decode(clip, wanted, &mut TimedSink { sink, clocks });
    sink.release();
    let decoded = decoded?;
    let timeline = &decoded.timeline;
    let mut rows: Vec<RowSource> = decoded
        .windows
        .iter()
        .map(|window| {
            let (first, last) = (window.indices[0], *window.indices.last().expect("a window has frames"));
            RowSource {
                start_frame: (timeline.first_frame + first) as u64,
                start_seconds: timeline.seconds(first),
                end_seconds: timeline.end_seconds(last),
                padded: window.padded,
                scale: 1.0,
            }
        })
        .collect();
    let content = take_content(sink.inner(), &mut rows);
    Ok(DecodedClip {
        frame_count: timeline.frame_count as u64,
        fps: timeline.fps,
        duration_seconds: timeline.duration(),
        full: decoded.full,
        version: decoded.version,
        rows,
        frames: decoded.windows.iter().map(|window| window.indices.len()).sum(),
        content,
        warnings: decoded.warnings,
    })
}
