//! Network inputs from clips, for the calibration of a quantized network.

use crate::cancel::CancellationToken;
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::media::{self, ItemSink, Sampling, Wanted};
use crate::models::Card;
use crate::models::input::InputLayout;
use crate::progress::{Event, ProgressSink};

/// Most frames or windows per clip.
const MAX_PER_CLIP: usize = 8;

/// Frame rate of windows, as in pipelines/cnn3d.toml.
const WINDOW_RATE: f64 = 15.0;

/// Decodes about `count` inputs of a network, evenly spaced over the clips and within each, in the order of the manifest. If there are
/// more clips than inputs, evenly spaced ones are used.
///
/// # Errors
/// Returns an error if no clip can be decoded or the token is cancelled. Clips that fail are reported and skipped.
pub fn calibration_items(
    card: &Card,
    manifest: &Manifest,
    count: usize,
    progress: &dyn ProgressSink,
    cancel: &CancellationToken,
) -> Result<Vec<Vec<f32>>> {
    let clips = manifest.clips.len();
    let per_clip = count.div_ceil(clips.max(1)).clamp(1, MAX_PER_CLIP);
    let used = count.div_ceil(per_clip).min(clips);
    let sampling = match (card.input.layout, card.input.frames) {
        (InputLayout::Clip, Some(length)) => Sampling::Windows { length, rate: WINDOW_RATE, count: per_clip },
        _ => Sampling::Even { frames: per_clip },
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut sink = ItemSink::new(&card.input);
    let mut items = Vec::new();
    for index in 0..used {
        cancel.check()?;
        let clip = &manifest.clips[index * clips / used];
        let wanted = Wanted { threads, ..Wanted::from(&sampling) };
        match media::decode(clip, wanted, &mut sink) {
            Ok(_) => {
                items.extend(sink.take().chunks_exact(card.input.item_len()).map(|item| card.input.normalize(item)));
            }
            Err(error) => progress.report(Event::Warning(&format!("clip {}: {error}; it is skipped", clip.id))),
        }
    }
    match items.is_empty() {
        true => Err(Error::Data(format!("{}: no clip can be decoded", manifest.source.display()))),
        false => Ok(items),
    }
}
