//! Clips that tests generate, and a recipe for them.

use std::path::Path;
use std::sync::Mutex;

use kinoprobe::cancel::CancellationToken;
use kinoprobe::manifest::Clip;
use kinoprobe::progress::{Event, ProgressSink};

use super::frame_cache::{CacheOptions, FrameCache};
use super::recipe::TrainRecipe;

/// Height and width of the frames of [`recipe`].
pub(super) const SIDE: usize = 8;

/// Returns a recipe with frames of 8x8 pixels. `keys` are further keys and tables, `sampling` is the table of this name.
pub(super) fn recipe(keys: &str, sampling: &str) -> TrainRecipe {
    let (top, tables) = keys.split_at(keys.find('[').unwrap_or(keys.len()));
    let text = format!(
        "method = \"test\"\nseed = 3\n{top}\n[sampling]\n{sampling}\n[input]\nsize = [8, 8]\nresize = {{ size = [8, 8] }}\n\
         [network]\ncard = \"resnet18\"\nweights = \"none\"\n{tables}"
    );
    let recipe: TrainRecipe = toml::from_str(&text).unwrap();
    recipe.validate().unwrap();
    recipe
}

/// Writes an image with a pattern that depends on `seed`.
pub(super) fn write_image(path: &Path, seed: usize) {
    let value = |x: u32, y: u32, c: u32| (seed as u32 * 37 + x * 11 + y * 5 + c * 71 + x * y) as u8;
    image::RgbImage::from_fn(12, 10, |x, y| image::Rgb([0, 1, 2].map(|c| value(x, y, c)))).save(path).unwrap();
}

/// Writes directories of frames as clips; clip `i` has `frames[i]` frames.
pub(super) fn write_clips(directory: &Path, frames: &[usize]) -> Vec<Clip> {
    let write = |(i, &count): (usize, &usize)| {
        let path = directory.join(format!("clip{i}"));
        std::fs::create_dir_all(&path).unwrap();
        (0..count).for_each(|frame| write_image(&path.join(format!("{frame}.png")), 100 * i + frame));
        Clip { id: format!("clip{i}"), path: format!("clip{i}"), file: path, ..Clip::default() }
    };
    frames.iter().enumerate().map(write).collect()
}

/// Counts events.
#[derive(Default)]
pub(super) struct Counter {
    pub(super) done: Mutex<Vec<String>>,
    pub(super) failed: Mutex<Vec<String>>,
}

impl ProgressSink for Counter {
    fn report(&self, event: Event<'_>) {
        match event {
            Event::ClipDone { id, .. } => self.done.lock().unwrap().push(id.into()),
            Event::ClipFailed { id, error } => self.failed.lock().unwrap().push(format!("{id}: {error}")),
            _ => {}
        }
    }
}

pub(super) fn options(directory: &Path) -> CacheOptions {
    CacheOptions { directory: directory.to_path_buf(), limit: 1 << 20, workers: 2, memory: None, retry_failed: false }
}

/// Builds a cache. Also returns the ids of the clips that were decoded.
pub(super) fn build(recipe: &TrainRecipe, clips: &[Clip], directory: &Path) -> (FrameCache, Vec<String>) {
    let counter = Counter::default();
    let cache = FrameCache::build(recipe, clips, &options(directory), &counter, &CancellationToken::default()).unwrap();
    (cache, counter.done.into_inner().unwrap())
}
