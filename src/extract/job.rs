//! One extraction run, from a recipe to a complete store.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::dense_sift::DenseSift;
use super::descriptors::Describer;
use super::pipeline::{Counts, Pipeline};
use super::plan::{Unlisted, WorkPlan};
use super::settings::{DESCRIPTOR_LEN, ExtractionSettings, Extractor, POSITION_LEN};
use super::sift::Sift;
use super::summary::{Action, Summary};
use super::timings::Clocks;
use super::workers::{DecodeRecipe, Resources, descriptor_worker, item_worker};
use crate::cancel::CancellationToken;
use crate::error::{Error, Result};
use crate::lease::Busy;
use crate::manifest::{Manifest, duplicate_warning};
use crate::media::{self, Sampling, Shots};
use crate::models::runtime::{self, Device, Session, SessionOptions};
use crate::models::{self, BatchSize, Card, Precision, PreparedModel, WeightsChoice};
use crate::progress::{Event, ProgressSink, Unit};
use crate::shards::{Claim, Product, Shard, ShardPlan};
use crate::store::{Journal, Payload, Provenance, Store, check_output};

/// Number of rows of a clip that is assumed if the sampling does not tell.
const ASSUMED_ROWS: usize = 64;

/// Settings of an extraction run.
#[derive(Debug)]
pub struct Options {
    /// Name of the method.
    pub method: String,
    /// Sampling and extractor.
    pub settings: ExtractionSettings,
    /// The clips.
    pub manifest: Manifest,
    /// The store to write.
    pub out: PathBuf,
    /// Extract only this shard, into its store in the directory of the shards of `out`.
    pub shard: Option<Shard>,
    /// If another task works on the shard, wait instead of returning an error.
    pub wait: bool,
    /// The shots of the clips; required by sampling kind `shots`, and rejected by the others.
    pub shots: Option<Shots>,
    /// Source of the network's weights.
    pub weights: WeightsChoice,
    /// SHA-256 that the network must have; `None` for any.
    pub model_sha256: Option<String>,
    /// Directory of the model cards.
    pub models: PathBuf,
    /// Card of the network, instead of the one in `models`.
    pub card: Option<Card>,
    /// The device that runs the network.
    pub device: Device,
    /// Number of decode threads; by default chosen from the number of cores and the device.
    pub workers: Option<usize>,
    /// Memory in bytes that decode threads share; by default half of the available memory. A frame that needs more is decoded
    /// while no other is.
    pub memory: Option<u64>,
    /// Retry clips that failed in an earlier run.
    pub retry_failed: bool,
    /// Remove the clips from the store that are not in the manifest, instead of keeping them.
    pub prune: bool,
    /// Plan only: write nothing.
    pub dry_run: bool,
}

/// The source of the features, ready to run.
enum FeatureSource {
    Network {
        card: Box<Card>,
        model: PreparedModel,
        batch: BatchSize,
        precision: Precision,
    },
    Descriptors {
        /// Name of the algorithm.
        model: &'static str,
        /// What computes the descriptors.
        provider: &'static str,
        /// Length of a descriptor in bytes.
        dim: usize,
        /// Creates the describer of a worker.
        create: Box<dyn Fn() -> Result<Box<dyn Describer>>>,
    },
}

/// The clips and the store of a run: those of the options, or those of a shard.
struct Job<'a> {
    options: &'a Options,
    source: &'a FeatureSource,
    manifest: &'a Manifest,
    out: &'a Path,
    /// The shard, if it is one.
    claim: Option<&'a Claim>,
}

/// Extracts the missing clips and writes the store.
///
/// # Errors
/// Returns an error if the weights or the device are not available, the store was made with other settings or cannot be
/// written, every clip failed, or the run is cancelled (an interrupted run continues from its journal). Single clips that
/// fail are recorded in the store and counted in the summary.
pub fn run(options: &Options, progress: &dyn ProgressSink, cancel: &CancellationToken) -> Result<Summary> {
    let Options { manifest, out, .. } = options;
    // The first task looks for duplicates in the files of all shards.
    let is_first = options.shard.is_none() || !ShardPlan::exists(out);
    let duplicates = if is_first { duplicate_warning(&manifest.duplicates()) } else { None };
    for warning in manifest.warnings.iter().chain(&duplicates) {
        progress.report(Event::Warning(&format!("{}: {warning}", manifest.source.display())));
    }
    check_output(out)?;
    check_shots(options)?;
    #[cfg(feature = "remote")]
    if manifest.clips.iter().any(|clip| clip.url.is_some()) {
        crate::remote::check_settings()?;
    }
    let source = prepare_source(options, progress, cancel)?;
    let (payload, mut provenance) = payload_and_provenance(options, &source);
    if provenance.untrained() {
        progress.report(Event::Warning(&format!(
            "UNTRAINED: {} has seeded weights; accuracies on its features are meaningless",
            provenance.model
        )));
    }
    let Some(shard) = options.shard else {
        let job = Job { options, source: &source, manifest, out, claim: None };
        return job.run(payload, provenance, progress, cancel);
    };
    let made = (Product::Store(payload), &provenance);
    let claim = match options.dry_run {
        true => Claim::preview(out, shard, manifest, made)?,
        false => {
            let busy = if options.wait { Busy::Wait } else { Busy::Fail };
            Claim::new(out, shard, busy, manifest, made, progress, cancel)?
        }
    };
    provenance.manifest_sha256.clone_from(&claim.manifest.sha256);
    let job = Job { options, source: &source, manifest: &claim.manifest, out: &claim.path, claim: Some(&claim) };
    claim.explain(job.run(payload, provenance, progress, cancel))
}

impl Job<'_> {
    fn run(
        &self,
        payload: Payload,
        mut provenance: Provenance,
        progress: &dyn ProgressSink,
        cancel: &CancellationToken,
    ) -> Result<Summary> {
        let Self { options, manifest, out, .. } = *self;
        let mut journal = None;
        if Journal::path_for(out).exists() {
            journal = Some(Journal::open(out, payload, &provenance)?);
        }
        let unlisted = if options.prune { Unlisted::Prune } else { Unlisted::Keep };
        let plan =
            WorkPlan::new(manifest, out, journal.as_ref(), payload, &provenance, options.retry_failed, unlisted)?;
        let mut summary = Summary {
            store: out.to_path_buf(),
            clips: manifest.clips.len(),
            extracted_before: plan.extracted,
            failed_before: plan.failed,
            action: Action::Planned(plan.pending.len()),
        };
        let up_to_date = plan.up_to_date && journal.is_none();
        if plan.unlisted_clips > 0 && !up_to_date {
            let found = format!("{}: {} clips are not in the manifest", out.display(), plan.unlisted_clips);
            match unlisted {
                Unlisted::Prune => progress.report(Event::Warning(&format!("{found} and are removed (--prune)"))),
                Unlisted::Keep => progress.report(Event::Info(&format!("{found} and are kept (--prune removes them)"))),
            }
        }
        if options.dry_run {
            return Ok(summary);
        }
        if up_to_date {
            summary.action = Action::UpToDate;
            return Ok(summary);
        }
        if plan.extracted + plan.failed > 0 {
            progress.report(Event::Info(&format!(
                "{} of {} clips to extract; {} already extracted, {} failed earlier (--retry-failed retries them)",
                plan.pending.len(),
                manifest.clips.len(),
                plan.extracted,
                plan.failed
            )));
        }

        let started = Instant::now();
        progress.report(Event::Started {
            task: &options.method,
            unit: Unit::Clips,
            total: Some(manifest.clips.len() as u64),
            done: (plan.extracted + plan.failed) as u64,
        });
        let (clocks, mut done) = (Clocks::default(), Extracted::default());
        if !plan.pending.is_empty() {
            // The journal is opened again once the provider is known.
            drop(journal.take());
            let (extracted, filled) = self.extract(payload, &mut provenance, &plan, &clocks, progress, cancel)?;
            (done, journal) = (extracted, Some(filled));
        }
        let Extracted { counts, workers, lanes } = done;
        let mut journal = match journal {
            Some(journal) => journal,
            None => Journal::open(out, payload, &provenance)?,
        };
        progress.report(Event::Finished);
        let failed = plan.failed + counts.failed;
        if plan.extracted == 0 && failed == manifest.clips.len() && options.shard.is_none() {
            return Err(Error::Data(format!("all {failed} clips failed; no store is written")));
        }
        self.claim.map_or(Ok(()), Claim::check)?;
        clocks.store.time(|| plan.write_store(manifest, out, payload, &mut journal))?;
        journal.remove()?;
        summary.action = if plan.pending.is_empty() {
            Action::Rewritten
        } else {
            let timings = clocks.timings(started.elapsed().as_secs_f64(), workers, lanes);
            Action::Extracted { counts, timings, provider: provenance.provider }
        };
        Ok(summary)
    }

    /// Extracts the pending clips into the journal, and sets the provider and the precision of `provenance`.
    fn extract(
        &self,
        payload: Payload,
        provenance: &mut Provenance,
        plan: &WorkPlan,
        clocks: &Clocks,
        progress: &dyn ProgressSink,
        cancel: &CancellationToken,
    ) -> Result<(Extracted, Journal)> {
        let Self { options, source, manifest, out, .. } = *self;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let resources = Resources::new(cores, plan.pending.len(), options.memory, clocks);
        let recipe = DecodeRecipe { settings: &options.settings, shots: options.shots.as_ref() };
        let pipeline = Pipeline { manifest, pending: &plan.pending, progress, cancel, clocks };
        match source {
            FeatureSource::Descriptors { create, .. } => {
                let workers = (0..options.workers.unwrap_or(cores).max(1))
                    .map(|_| Ok(descriptor_worker(recipe, &resources, create()?)))
                    .collect::<Result<Vec<_>>>()?;
                let mut journal = Journal::open(out, payload, provenance)?;
                let number = workers.len();
                let counts = pipeline.extract_descriptors(workers, &mut journal)?;
                Ok((Extracted { counts, workers: number, lanes: 0 }, journal))
            }
            FeatureSource::Network { card, model, batch, precision } => {
                // On the CPU, the network takes most of the time and all cores.
                let on_cpu = runtime::expects_cpu(options.device, *precision);
                let workers = options.workers.unwrap_or(if on_cpu { cores.div_ceil(4) } else { cores }).max(1);
                let decoders = (0..workers).map(|_| item_worker(recipe, &resources, card)).collect();
                let mut lanes = 0;
                let (counts, journal) = pipeline.extract_embeddings(decoders, || {
                    // Shards have the precision that shards.json names.
                    let shard = options.shard.and_then(|_| Precision::exactly(&provenance.precision));
                    let precision = shard.unwrap_or(*precision);
                    let network = clocks.load.time(|| self.load(card, model, *batch, precision, progress))?;
                    self.record_device(&network, provenance, plan)?;
                    lanes = network.lanes.len();
                    Ok((network, Journal::open(out, payload, provenance)?))
                })?;
                Ok((Extracted { counts, workers, lanes }, journal))
            }
        }
    }

    /// Loads the network on the chosen device.
    fn load(
        &self,
        card: &Card,
        model: &PreparedModel,
        batch: BatchSize,
        precision: Precision,
        progress: &dyn ProgressSink,
    ) -> Result<Session> {
        let Options { device, settings, .. } = self.options;
        // All clips of the manifest: an interrupted run continues on the same device.
        let rows = settings.sampling.max_rows().unwrap_or(ASSUMED_ROWS) * self.manifest.clips.len();
        let mut options = SessionOptions::for_card(card, 1, precision);
        let choice = runtime::choose(&model.onnx, *device, batch, &options, rows as u64, progress)?;
        if let Some(reason) = &choice.reason {
            progress.report(Event::Info(reason));
        }
        options.batch = choice.batch;
        Session::load(&model.onnx, choice.device, options)
    }

    /// Sets the provider, the precision and the batch size of `provenance` to those of the loaded network.
    fn record_device(&self, network: &Session, provenance: &mut Provenance, plan: &WorkPlan) -> Result<()> {
        let Options { settings, shots, .. } = self.options;
        let shots = shots.as_ref().map(|shots| shots.sha256.as_str());
        provenance.provider = network.provider.clone();
        provenance.recipe = settings.with_batch(network.options.batch).to_json(shots);
        if provenance.precision == network.precision() {
            return Ok(());
        }
        // The device auto fell back from a GPU to the CPU.
        provenance.precision = network.precision().into();
        plan.check_previous(self.out, provenance)
    }
}

fn check_shots(Options { method, settings, shots, .. }: &Options) -> Result<()> {
    match (settings.sampling, shots) {
        (Sampling::Shots { .. }, None) => Err(Error::Data(format!(
            "{method} samples shots: pass their list with --shots FILE (kinoprobe-shots writes one)"
        ))),
        (Sampling::Shots { .. }, Some(_)) | (_, None) => Ok(()),
        (_, Some(shots)) => Err(Error::Data(format!(
            "--shots {} does not apply: {method} does not sample shots (sampling kind shots)",
            shots.path.display()
        ))),
    }
}

fn prepare_source(options: &Options, progress: &dyn ProgressSink, cancel: &CancellationToken) -> Result<FeatureSource> {
    match &options.settings.extractor {
        &Extractor::Sift { keypoints, max_side } => Ok(FeatureSource::Descriptors {
            model: "sift",
            provider: "opencv",
            dim: DESCRIPTOR_LEN,
            create: Box::new(move || Ok(Box::new(Sift::new(keypoints, max_side)?))),
        }),
        Extractor::DenseSift(settings) => {
            let settings = settings.clone();
            Ok(FeatureSource::Descriptors {
                model: "dense-sift",
                provider: "native",
                dim: DESCRIPTOR_LEN + POSITION_LEN,
                create: Box::new(move || Ok(Box::new(DenseSift::new(settings.clone())))),
            })
        }
        Extractor::Network { card, batch, precision } => {
            let precision = resumed_precision(options, *precision);
            if !options.dry_run {
                runtime::check_device(options.device, precision)?;
            }
            let card = match &options.card {
                Some(card) => card.clone(),
                None => Card::load(&options.models, card)?,
            };
            let model = models::prepare(&card, &options.weights, precision, progress, cancel)?;
            if let Some(expected) = &options.model_sha256 {
                model.check_sha256(expected)?;
            }
            let card = Box::new(card);
            Ok(FeatureSource::Network { card, model, batch: *batch, precision })
        }
    }
}

/// Returns the precision of the store that is continued if the device is chosen between a GPU and the CPU: the choice may differ from that
/// of the first run.
fn resumed_precision(options: &Options, precision: Precision) -> Precision {
    let is_chosen = options.device == Device::Auto
        && precision == Precision::Auto
        && !runtime::expects_cpu(Device::Auto, Precision::Auto);
    if !is_chosen || !options.out.is_file() {
        return precision;
    }
    let stored = Store::open(&options.out).ok().and_then(|store| Precision::exactly(&store.provenance().precision));
    // Other precisions than f32 and tf32 are not chosen automatically.
    let supported = stored
        .filter(|stored| Precision::Auto.yields(stored.name()) && runtime::check_device(Device::Auto, *stored).is_ok());
    supported.unwrap_or(precision)
}

fn payload_and_provenance(options: &Options, source: &FeatureSource) -> (Payload, Provenance) {
    let common = Provenance {
        method: options.method.clone(),
        recipe: options.settings.to_json(options.shots.as_ref().map(|shots| shots.sha256.as_str())),
        manifest_sha256: options.manifest.sha256.clone(),
        decoder: media::DECODER_VERSION.into(),
        ..Provenance::default()
    };
    match source {
        &FeatureSource::Descriptors { model, provider, dim, .. } => {
            let provenance = Provenance {
                model: model.into(),
                weights: "none".into(),
                precision: "u8".into(),
                provider: provider.into(),
                ..common
            };
            (Payload::Descriptors { dim }, provenance)
        }
        FeatureSource::Network { card, model, precision, .. } => {
            let provenance = Provenance {
                model: card.name.clone(),
                weights: model.weights.clone(),
                model_sha256: model.sha256.clone(),
                precision: runtime::expected_precision(options.device, *precision).into(),
                ..common
            };
            (Payload::Features { dim: card.output.dim }, provenance)
        }
    }
}

/// The result of a run of the pipeline.
#[derive(Default)]
struct Extracted {
    counts: Counts,
    /// Number of decode workers.
    workers: usize,
    /// Number of lanes of the network.
    lanes: usize,
}
