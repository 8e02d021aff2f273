//! One run of `kinoprobe-extract`, from a recipe to a finished store.

use std::path::PathBuf;

use super::pipeline::{Prepare, Prepared, Run};
use super::plan::{Plan, plan};
use super::progress::{Progress, Show};
use super::sift::DescriptorSink;
use super::{ExtractionSettings, Extractor};
use crate::cli::Outcome;
use crate::error::{Error, Result};
use crate::manifest::{Clip, Manifest};
use crate::media::{self, Decoded, FrameSink, ItemSink, Sampling, Shots, Wanted};
use crate::models::runtime::{Device, Network, Settings};
use crate::models::{self, Card, PreparedModel, WeightsChoice};
use crate::store::{Journal, Payload, Provenance, Row, Values};

/// Length of a SIFT descriptor.
const SIFT_DIM: usize = 128;

/// What to extract, from what, into what.
#[derive(Debug)]
pub struct Options {
    /// Name of the method.
    pub method: String,
    /// Sampling and extractor.
    pub settings: ExtractionSettings,
    /// The clips.
    pub manifest: Manifest,
    /// The store.
    pub out: PathBuf,
    /// The shots of the clips; for sampling kind shots, which needs them.
    pub shots: Option<Shots>,
    /// Where a network's weights come from.
    pub weights: WeightsChoice,
    /// Folder of the model cards.
    pub models: PathBuf,
    /// What runs the network.
    pub device: Device,
    /// Threads that decode.
    pub workers: Option<usize>,
    /// Try clips again that failed before.
    pub retry_failed: bool,
    /// Only say what would be done.
    pub dry_run: bool,
    /// How progress is shown.
    pub show: Show,
}

/// What the rows are made by.
enum Made {
    /// A network and its card.
    Network(Box<Card>, PreparedModel),
    /// SIFT with this many keypoints a frame.
    Sift(usize),
}

/// Extracts what is missing and writes the store.
///
/// # Errors
/// Weights or the device cannot be had; the store was made differently or cannot be written; every clip failed; the user
/// interrupted. Clips that fail are recorded in the store, and counted in the outcome.
pub fn run(options: &Options) -> Result<Outcome> {
    let Options { manifest, out, .. } = options;
    for warning in &manifest.warnings {
        eprintln!("extract: {}: {warning}", manifest.source.display());
    }
    check_shots(options)?;
    let made = prepare_model(options)?;
    let (payload, mut wanted) = describe(options, &made);
    if wanted.untrained() {
        eprintln!(
            "extract: UNTRAINED: {} runs with seeded weights; accuracies on them say nothing of the network",
            wanted.model
        );
    }
    let partial = Journal::path_for(out);
    let mut journal = if partial.exists() { Some(Journal::open(out, payload, &wanted)?) } else { None };
    let work = plan(manifest, out, journal.as_ref(), payload, &wanted, options.retry_failed)?;
    let what = format!("{} of {} clips to extract", work.extract.len(), manifest.clips.len());
    if options.dry_run {
        println!("{}: {what}, {} there, {} failed earlier", out.display(), work.there, work.failed);
        return Ok(Outcome::Done);
    }
    if work.up_to_date && journal.is_none() {
        println!("{}: up to date ({} clips)", out.display(), work.there);
        return Ok(outcome(work.failed));
    }
    if work.there + work.failed > 0 {
        eprintln!(
            "extract: {what}; {} are there, {} failed earlier (--retry-failed tries them again)",
            work.there, work.failed
        );
    }
    let dropped = work.dropped(manifest);
    if dropped > 0 {
        eprintln!("extract: {} has {dropped} clips that the manifest no longer has: their rows go", out.display());
    }

    let mut progress = Progress::new(options.show, &options.method, manifest.clips.len(), work.there + work.failed);
    if !work.extract.is_empty() {
        // The journal is opened anew, now that it is known what runs.
        drop(journal.take());
        journal = Some(extract(options, &made, payload, &mut wanted, &work, &mut progress)?);
    }
    let mut journal = match journal {
        Some(journal) => journal,
        None => Journal::open(out, payload, &wanted)?,
    };
    progress.finish();
    let failed = work.failed + progress.failed();
    if work.there == 0 && failed == manifest.clips.len() {
        return Err(Error::Data(format!("every clip failed, {failed} of them; no store is written")));
    }
    work.write_store(manifest, out, payload, &mut journal)?;
    journal.remove()?;
    println!("{}: {} on {}", out.display(), progress.summary(), wanted.provider);
    Ok(outcome(failed))
}

fn outcome(failed: usize) -> Outcome {
    if failed == 0 { Outcome::Done } else { Outcome::Partly { failed } }
}

fn check_shots(Options { method, settings, shots, .. }: &Options) -> Result<()> {
    match (settings.sampling, shots) {
        (Sampling::Shots { .. }, None) => Err(Error::Data(format!(
            "{method} samples shots: name their list with --shots FILE; kinoprobe-shots writes one"
        ))),
        (Sampling::Shots { .. }, Some(_)) | (_, None) => Ok(()),
        (_, Some(shots)) => Err(Error::Data(format!(
            "--shots {} does not apply: {method} does not sample shots (sampling kind shots)",
            shots.path.display()
        ))),
    }
}

fn prepare_model(options: &Options) -> Result<Made> {
    match &options.settings.extractor {
        Extractor::Sift { keypoints } => Ok(Made::Sift(*keypoints)),
        Extractor::Network { card, .. } => {
            let card = Card::load(&options.models, card)?;
            let model = models::prepare(&card, &options.weights, options.show != Show::Bar)?;
            Ok(Made::Network(Box::new(card), model))
        }
    }
}

fn describe(options: &Options, made: &Made) -> (Payload, Provenance) {
    let common = Provenance {
        method: options.method.clone(),
        recipe: options.settings.to_json(options.shots.as_ref().map(|shots| shots.sha256.as_str())),
        manifest_sha256: options.manifest.sha256.clone(),
        ..Provenance::default()
    };
    match made {
        Made::Sift(_) => {
            let provenance = Provenance {
                model: "sift".into(),
                weights: "none".into(),
                precision: "u8".into(),
                provider: "opencv".into(),
                ..common
            };
            (Payload::Descriptors { dim: SIFT_DIM }, provenance)
        }
        Made::Network(card, model) => {
            let provenance = Provenance {
                model: card.name.clone(),
                weights: model.weights.clone(),
                model_sha256: model.sha256.clone(),
                precision: "f32".into(),
                ..common
            };
            (Payload::Features { dim: card.output.dim }, provenance)
        }
    }
}

/// Extracts the planned clips into the journal; `wanted` learns what really ran.
fn extract(
    options: &Options,
    made: &Made,
    payload: Payload,
    wanted: &mut Provenance,
    work: &Plan,
    progress: &mut Progress,
) -> Result<Journal> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    match made {
        Made::Sift(keypoints) => {
            let workers = (0..options.workers.unwrap_or(cores).max(1))
                .map(|_| descriptors(options, *keypoints))
                .collect::<Result<Vec<_>>>()?;
            let mut journal = Journal::open(&options.out, payload, wanted)?;
            Run { manifest: &options.manifest, extract: &work.extract, journal: &mut journal, progress }
                .descriptors(workers)?;
            Ok(journal)
        }
        Made::Network(card, model) => {
            let Extractor::Network { batch, .. } = options.settings.extractor else {
                unreachable!("made by a network")
            };
            let settings = Settings {
                item: card.input.shape(1)[1..].to_vec(),
                dim: card.output.dim,
                batch,
                threads: cores,
                output: Some(card.output.name.clone()),
            };
            let network = Network::load(&model.onnx, options.device, settings)?;
            wanted.provider = network.provider.clone();
            // On the CPU the network takes nearly all the time, and the cores.
            let workers = options.workers.unwrap_or(if network.on_cpu() { cores.div_ceil(4) } else { cores }).max(1);
            let workers = (0..workers).map(|_| items(options, card)).collect();
            let mut journal = Journal::open(&options.out, payload, wanted)?;
            Run { manifest: &options.manifest, extract: &work.extract, journal: &mut journal, progress }
                .embeddings(workers, network)?;
            Ok(journal)
        }
    }
}

/// A worker that makes a network's input.
fn items<'a>(options: &'a Options, card: &'a Card) -> Prepare<'a, Vec<f32>> {
    let mut sink = ItemSink::new(&card.input);
    Box::new(move |clip| prepared(clip, options, &mut sink, |sink, _| sink.take()))
}

/// A worker that describes keypoints.
fn descriptors(options: &Options, keypoints: usize) -> Result<Prepare<'_, Values>> {
    let mut sink = DescriptorSink::new(keypoints)?;
    Ok(Box::new(move |clip| prepared(clip, options, &mut sink, |sink, _| sink.take())))
}

fn prepared<S: FrameSink, T>(
    clip: &Clip,
    Options { settings, shots, .. }: &Options,
    sink: &mut S,
    take: impl FnOnce(&mut S, &Decoded) -> T,
) -> Result<Prepared<T>> {
    let shots = shots.as_ref().map(|shots| shots.of(&clip.id)).transpose()?.unwrap_or_default();
    let decoded = media::decode(clip, Wanted { sampling: &settings.sampling, shots }, sink)?;
    let content = take(sink, &decoded);
    let timeline = &decoded.timeline;
    let rows = decoded
        .windows
        .iter()
        .map(|window| {
            let (first, last) = (window.indices[0], *window.indices.last().expect("a window has frames"));
            Row {
                start_frame: (timeline.first_frame + first) as u64,
                start_seconds: timeline.seconds(first),
                end_seconds: timeline.seconds(last) + timeline.interval(),
                padded: window.padded,
            }
        })
        .collect();
    Ok(Prepared {
        frame_count: timeline.frame_count as u64,
        fps: timeline.fps,
        duration_seconds: timeline.duration(),
        rows,
        frames: decoded.windows.iter().map(|window| window.indices.len()).sum(),
        warnings: decoded.warnings,
        content,
    })
}
