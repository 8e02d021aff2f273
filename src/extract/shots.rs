//! Where shots end: TransNet V2 over every frame of a clip.

use std::path::{Path, PathBuf};

use super::ordered::ordered;
use crate::cli::{self, Outcome};
use crate::error::{Error, Result};
use crate::manifest::Clip;
use crate::media::{self, Decoded, Frame, FrameSink, Sampling, Shot, Shots, Transform, Window, shots};
use crate::models::card::{Input, Layout};
use crate::models::runtime::{Device, Network, Settings};
use crate::models::{self, Card, WeightsChoice};

/// Whether a frame ends a shot is asked of windows, and believed only of frames this far from a window's ends.
const CONTEXT: usize = 25;

/// What to look through, by what, into what.
#[derive(Debug)]
pub struct Options {
    /// The clips.
    pub clips: Vec<Clip>,
    /// The list to write.
    pub out: PathBuf,
    /// The card of a network that gives a logit a frame.
    pub card: String,
    /// Folder of the model cards.
    pub models: PathBuf,
    /// Where its weights come from.
    pub weights: WeightsChoice,
    /// What runs it.
    pub device: Device,
    /// Probability above which a frame ends a shot, in [0, 1].
    pub threshold: f32,
    /// No word on every clip.
    pub quiet: bool,
}

/// Finds the shots of every clip and writes their list.
///
/// # Errors
/// Weights or the device cannot be had; the card is of no network that gives a logit a frame; every clip failed; the list
/// cannot be written; the user interrupted, and nothing is written. Clips that fail are named, left out and counted.
pub fn run(options: &Options) -> Result<Outcome> {
    let Options { clips, out, threshold, .. } = options;
    if !(0.0..=1.0).contains(threshold) {
        return Err(Error::Data(format!("the threshold is a probability, from 0 to 1, not {threshold}")));
    }
    let card = Card::load(&options.models, &options.card)?;
    let mut detector = Detector::load(&card, options)?;
    let (mut list, mut failed) = (Vec::new(), 0);
    std::thread::scope(|scope| {
        // Decoding keeps one core busy beside the network's.
        let mut sink = PixelSink::new(&card);
        let worker = move |clip: &Clip| {
            let decoded = media::decode(clip, &Sampling::All { every: 1, most: None }, &mut sink);
            decoded.map(|decoded| (decoded, std::mem::take(&mut sink.pixels)))
        };
        let wanted = clips.iter().take_while(|_| !cli::interrupted());
        for (clip, decoded) in clips.iter().zip(ordered(scope, wanted, vec![worker], 1)) {
            let found = decoded.and_then(|(decoded, pixels)| {
                let probabilities = detector.probabilities(&pixels)?;
                Ok(shots_of(clip, &decoded, &probabilities, *threshold))
            });
            match found {
                Ok(shots) => {
                    if !options.quiet {
                        eprintln!("shots: {}: {}", clip.id, shots.len());
                    }
                    list.extend(shots);
                }
                Err(error @ Error::Runtime(_)) => return Err(error),
                Err(error) => {
                    eprintln!("shots: clip {}: {error}", clip.id);
                    failed += 1;
                }
            }
        }
        if cli::interrupted() { Err(Error::Interrupted) } else { Ok(()) }
    })?;
    if list.is_empty() {
        return Err(Error::Data(format!("every clip failed, {failed} of them; no list is written")));
    }
    Shots::write(out, &list)?;
    let found = clips.len() - failed;
    println!("{}: {} shots of {found} clips on {}", out.display(), list.len(), detector.network.provider);
    Ok(if failed == 0 { Outcome::Done } else { Outcome::Partly { failed } })
}

/// A video that no manifest lists; its id is its path.
pub fn unlisted(path: &Path) -> Clip {
    let id = path.display().to_string();
    let file = path.to_path_buf();
    Clip {
        path: id.clone(),
        id,
        file,
        labels: Vec::new(),
        group: None,
        split: None,
        year: None,
        start: None,
        end: None,
    }
}

fn shots_of(clip: &Clip, decoded: &Decoded, probabilities: &[f32], threshold: f32) -> Vec<Shot> {
    let timeline = &decoded.timeline;
    let shots = shots::from_probabilities(probabilities, threshold).into_iter().enumerate();
    let shot = |(shot, frames): (usize, std::ops::Range<usize>)| Shot {
        id: clip.id.clone(),
        shot,
        start_frame: timeline.first_frame + frames.start,
        end_frame: timeline.first_frame + frames.end - 1,
        start_seconds: timeline.seconds(frames.start),
        end_seconds: timeline.seconds(frames.end - 1) + timeline.interval(),
        probability: probabilities[frames.end - 1],
    };
    shots.map(shot).collect()
}

/// A network that gives for each frame of a window the logit of a shot ending there.
pub struct Detector {
    network: Network,
    /// Frames in a window.
    frames: usize,
    /// Values in a picture: three channels, one after the other.
    pixels: usize,
}

impl Detector {
    fn load(card: &Card, options: &Options) -> Result<Self> {
        let frames = card.input.frames.unwrap_or(1);
        let Input { layout, scale, mean, std, .. } = card.input;
        if layout != Layout::Clip || card.output.dim != frames || frames <= 2 * CONTEXT {
            let more = 2 * CONTEXT;
            let message = format!("no shot detector: it must take more than {more} frames and give a logit for each");
            return Err(Error::Config { path: card.path(), message });
        }
        if (scale, mean, std) != (255.0, [0.0; 3], [1.0; 3]) {
            let message = "input: a shot detector takes values divided by 255: scale 255, mean 0 and std 1".into();
            return Err(Error::Config { path: card.path(), message });
        }
        let model = models::prepare(card, &options.weights, options.quiet)?;
        if model.untrained {
            eprintln!("shots: UNTRAINED: {} runs with seeded weights; its shots mean nothing", card.name);
        }
        let settings = Settings {
            item: card.input.shape(1)[1..].to_vec(),
            dim: card.output.dim,
            batch: 1,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            output: Some(card.output.name.clone()),
        };
        let network = Network::load(&model.onnx, options.device, settings)?;
        Ok(Self { network, frames, pixels: 3 * card.input.size.iter().product::<usize>() })
    }

    /// For each frame of a clip the probability that a shot ends there. `pictures` are `(frames, 3, height, width)`,
    /// eight-bit.
    ///
    /// Windows overlap so that every frame is believed once; beyond the clip's ends its first and last frame repeat.
    ///
    /// # Errors
    /// The network fails.
    pub fn probabilities(&mut self, pictures: &[u8]) -> Result<Vec<f32>> {
        let (frames, pixels) = (self.frames, self.pixels);
        let count = pictures.len() / pixels;
        let step = frames - 2 * CONTEXT;
        std::thread::scope(|scope| {
            let ahead = 2 * self.network.lanes.len();
            let lanes = self.network.lanes.iter_mut().map(|lane| {
                move |start: usize| {
                    let logits = lane.run(&window(pictures, start, frames, pixels))?;
                    let believed = logits.iter().skip(CONTEXT).take(step.min(count - start));
                    Ok(believed.map(|logit| 1.0 / (1.0 + (-logit).exp())).collect())
                }
            });
            let windows: Result<Vec<Vec<f32>>> =
                ordered(scope, (0..count).step_by(step), lanes.collect(), ahead).collect();
            Ok(windows?.concat())
        })
    }
}

/// The network's input of which frame `start` stands behind the context: (3, frames, height, width) in [0, 1].
fn window(pictures: &[u8], start: usize, frames: usize, pixels: usize) -> Vec<f32> {
    let (count, plane) = (pictures.len() / pixels, pixels / 3);
    let mut item = vec![0.0; frames * pixels];
    for slot in 0..frames {
        let frame = (start + slot).saturating_sub(CONTEXT).min(count - 1);
        for (channel, picture) in pictures[frame * pixels..][..pixels].chunks(plane).enumerate() {
            let out = &mut item[(channel * frames + slot) * plane..][..plane];
            out.iter_mut().zip(picture).for_each(|(value, byte)| *value = f32::from(*byte) / 255.0);
        }
    }
    item
}

/// Keeps every frame as the small eight-bit picture that the network sees: 4 kB a frame, so 700 MB for a film of two
/// hours.
struct PixelSink {
    transform: Transform,
    picture: Vec<f32>,
    pixels: Vec<u8>,
}

impl PixelSink {
    fn new(card: &Card) -> Self {
        let picture = vec![0.0; 3 * card.input.size.iter().product::<usize>()];
        Self { transform: Transform::new(&card.input), picture, pixels: Vec::new() }
    }
}

impl FrameSink for PixelSink {
    fn begin(&mut self, _windows: &[Window], _wanted: &[usize]) -> Result<()> {
        self.pixels.clear();
        Ok(())
    }

    fn frame(&mut self, _position: usize, frame: &Frame<'_>) -> Result<()> {
        let plane = self.picture.len() / 3;
        self.transform.write(frame.image(), &mut self.picture, plane);
        // The input is divided by 255 and nothing else, so this is the whole number that was rounded to.
        self.pixels.extend(self.picture.iter().map(|value| (value * 255.0).round() as u8));
        Ok(())
    }
}
