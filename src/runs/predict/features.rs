//! Extraction of the features that models need.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::Options;
use crate::cancel::CancellationToken;
use crate::classify::ModelMetadata;
use crate::error::{Error, Result};
use crate::extract::codebook::{self, Codebook};
use crate::extract::{self, ExtractionSettings, shots};
use crate::manifest::Manifest;
use crate::media::{Sampling, Shots};
use crate::models::WeightsChoice;
use crate::progress::{Event, ProgressSink};
use crate::recipe::Recipe;
use crate::runs::TrainedRun;
use crate::store::{DescriptorStore, FeatureStore, Store};

/// Features that a model needs.
pub(super) struct Source<'a> {
    pub run: &'a TrainedRun,
    pub metadata: &'a ModelMetadata,
    settings: ExtractionSettings,
}

/// The stores of the features, in the order of the sources.
pub(super) struct Features {
    pub stores: Vec<FeatureStore>,
    /// Declared after the stores, so that they are closed before the directory is removed.
    _temporary: Option<TempDir>,
}

impl<'a> Source<'a> {
    /// Returns the features that the models need, each once.
    ///
    /// # Errors
    /// Returns an error if a model does not record how its features were extracted.
    pub fn distinct(models: &'a [TrainedRun]) -> Result<Vec<Self>> {
        let mut sources: Vec<Self> = Vec::new();
        for run in models.iter().flat_map(TrainedRun::feature_readers) {
            for metadata in run.sources() {
                let settings = run.settings(metadata)?;
                if !sources.iter().any(|source| source.has_features_of(run, metadata)) {
                    sources.push(Self { run, metadata, settings });
                }
            }
        }
        Ok(sources)
    }

    /// Returns `true` if these are the features of `metadata`, a source of `run`.
    pub fn has_features_of(&self, run: &TrainedRun, metadata: &ModelMetadata) -> bool {
        let same_settings = run.settings(metadata).is_ok_and(|settings| settings == self.settings);
        let (own, other) = (&self.metadata.identity, &metadata.identity);
        let same_network = (&own.method, &own.model_sha256, &self.run.network.is_some())
            == (&other.method, &other.model_sha256, &run.network.is_some());
        same_settings && same_network && self.metadata.precision == metadata.precision
    }

    fn is_sift(&self) -> bool {
        self.settings.codebook.is_some()
    }

    fn method(&self) -> &str {
        &self.metadata.identity.method
    }
}

/// Extracts the features of every source. Returns `None` for a dry run.
pub(super) fn extract(
    sources: &[Source<'_>],
    options: &Options,
    progress: &dyn ProgressSink,
    cancel: &CancellationToken,
) -> Result<Option<Features>> {
    check_flags(sources, options)?;
    let temporary =
        options.features.is_none().then(tempfile::tempdir).transpose().map_err(Error::io("a temporary directory"))?;
    let first = match (&options.features, &temporary) {
        (Some(path), _) => path.clone(),
        (None, temporary) => temporary.as_ref().expect("created above").path().join("features.h5"),
    };
    let mut paths: Vec<PathBuf> = Vec::new();
    let mut stores = Vec::new();
    for source in sources {
        let out = if sources.len() == 1 { first.clone() } else { store_path(&first, source.method(), &paths) };
        paths.push(out.clone());
        stores.extend(extract_source(source, &out, options, progress, cancel)?);
    }
    Ok((stores.len() == sources.len()).then_some(Features { stores, _temporary: temporary }))
}

/// Returns the path of the store of one of several methods: `NAME-METHOD.h5`, with a number if it is taken.
fn store_path(features: &Path, method: &str, taken: &[PathBuf]) -> PathBuf {
    let stem = features.file_stem().unwrap_or_default().to_string_lossy();
    let path = |suffix: &str| features.with_file_name(format!("{stem}-{method}{suffix}.h5"));
    let numbered = (2..).map(|number| path(&format!("-{number}")));
    std::iter::once(path("")).chain(numbered).find(|path| !taken.contains(path)).expect("there are free numbers")
}

/// Checks that the options apply.
fn check_flags(sources: &[Source<'_>], options: &Options) -> Result<()> {
    let networks = sources.iter().filter(|source| !source.is_sift() && source.run.network.is_none()).count();
    if options.weights.is_some() && networks != 1 {
        let message = format!("--weights applies to models of one network; these need {networks}");
        return Err(Error::Data(message));
    }
    if options.codebook.is_some() && sources.iter().filter(|source| source.is_sift()).count() != 1 {
        return Err(Error::Data("--codebook applies to models of one method with SIFT features".into()));
    }
    let samples_shots = |source: &Source| matches!(source.settings.sampling, Sampling::Shots { .. });
    if options.shots.is_some() && !sources.iter().any(samples_shots) {
        return Err(Error::Data("--shots does not apply: no model samples shots".into()));
    }
    Ok(())
}

/// Extracts the features of a source into the store `out`. Returns `None` for a dry run.
fn extract_source(
    source: &Source<'_>,
    out: &Path,
    options: &Options,
    progress: &dyn ProgressSink,
    cancel: &CancellationToken,
) -> Result<Option<FeatureStore>> {
    let Source { run, metadata, settings } = source;
    let samples_shots = matches!(settings.sampling, Sampling::Shots { .. });
    let shots = if samples_shots { find_shots(out, options, progress, cancel)? } else { None };
    if samples_shots && shots.is_none() {
        return Ok(None);
    }
    let codebook = if source.is_sift() { Some(find_codebook(source, options)?) } else { None };
    let recorded = WeightsChoice::recorded(&metadata.identity.weights);
    let extraction = extract::Options {
        method: source.method().to_string(),
        settings: settings.clone(),
        manifest: Manifest { warnings: Vec::new(), ..options.manifest.clone() },
        out: if codebook.is_some() { out.with_extension("descriptors.h5") } else { out.to_path_buf() },
        shots,
        weights: if run.network.is_some() {
            WeightsChoice::Default
        } else {
            options.weights.clone().unwrap_or(recorded)
        },
        model_sha256: run.network.is_none().then(|| metadata.identity.model_sha256.clone()),
        models: options.cards.clone(),
        card: run.network.clone(),
        device: options.device,
        workers: options.workers,
        memory: options.memory,
        retry_failed: options.retry_failed,
        shard: None,
        wait: false,
        prune: false,
        dry_run: options.dry_run,
    };
    let summary = extract::run(&extraction, progress, cancel)?;
    if options.dry_run || options.features.is_some() {
        progress.report(Event::Info(&summary.to_string()));
    }
    if options.dry_run {
        return Ok(None);
    }
    if let Some(codebook) = codebook {
        encode_descriptors(&codebook, source, &extraction.out, out, cancel)?;
    }
    FeatureStore::open(out).map(Some)
}

/// Returns the shots of the clips: those given, or in the list of an earlier run, or else detects them. `None` for a dry run
/// without a list.
fn find_shots(
    out: &Path,
    options: &Options,
    progress: &dyn ProgressSink,
    cancel: &CancellationToken,
) -> Result<Option<Shots>> {
    let list = options.shots.clone().unwrap_or_else(|| out.with_extension("shots.csv"));
    if options.shots.is_none() && !list.is_file() {
        if options.dry_run {
            progress.report(Event::Info("the shots of the clips are to be detected"));
            return Ok(None);
        }
        let detection = shots::Options {
            manifest: options.manifest.clone(),
            out: list.clone(),
            shard: None,
            wait: false,
            card: shots::DEFAULT_CARD.into(),
            models: options.cards.clone(),
            weights: WeightsChoice::Default,
            device: options.device,
            threshold: shots::DEFAULT_THRESHOLD,
        };
        let summary = shots::run(&detection, progress, cancel)?;
        progress.report(Event::Info(&summary.to_string()));
    }
    Shots::load(&list).map(Some)
}

/// Returns the codebook that the features of the model were computed with.
fn find_codebook(source: &Source<'_>, options: &Options) -> Result<Codebook> {
    let Source { run, metadata, .. } = source;
    let expected = &metadata.identity.model_sha256;
    let read = |path: &Path| -> Result<Option<Codebook>> { Codebook::read(&FeatureStore::open(path)?) };
    let is_original = |codebook: &Codebook| codebook.sha256() == *expected;
    if let Some(path) = &options.codebook {
        let message = match read(path)? {
            Some(codebook) if is_original(&codebook) => return Ok(codebook),
            Some(_) => "has another codebook than the one that the model was trained with",
            None => "has no codebook",
        };
        let message = format!("{message}: pass the store that the model was trained on with --codebook");
        return Err(Error::Store { path: path.clone(), message });
    }
    let saved = run.directory.join(codebook::file_name(source.method()));
    // Runs of earlier versions do not keep it.
    let trained_on = Recipe::load(&run.directory.join("recipe.toml")).ok().and_then(|recipe| recipe.run);
    let trained_on = trained_on.map(|files| files.features);
    for path in [Some(&saved), trained_on.as_ref()].into_iter().flatten().filter(|path| path.is_file()) {
        if let Some(codebook) = read(path)?.filter(is_original) {
            return Ok(codebook);
        }
    }
    let message = format!(
        "the codebook of {} is missing: pass the store that the model was trained on with --codebook",
        source.method()
    );
    Err(Error::Store { path: saved, message })
}

/// Writes the features of the clips of the descriptor store `descriptors`, unless `out` has them already.
fn encode_descriptors(
    codebook: &Codebook,
    source: &Source<'_>,
    descriptors: &Path,
    out: &Path,
    cancel: &CancellationToken,
) -> Result<()> {
    let settings = source.settings.codebook.as_ref().expect("SIFT recipes have a codebook");
    let descriptors = DescriptorStore::open(descriptors)?;
    if out.exists() {
        let existing = FeatureStore::open(out)?;
        existing.provenance().check_compatible(out, &codebook.provenance(&descriptors, settings, 0.0)?)?;
        let keys = |store: &Store| store.clips().iter().map(|clip| clip.key()).collect::<Vec<_>>();
        let (own, new) = (keys(&existing), keys(&descriptors));
        if own == new && existing.failures() == descriptors.failures() {
            return Ok(());
        }
        if let Some(lost) = own.iter().find(|key| !new.contains(key)) {
            let message = format!(
                "clip {} is not in {}, so it would be lost: choose another store, or extract its descriptors again",
                lost.id,
                descriptors.path().display()
            );
            return Err(Error::Store { path: out.to_path_buf(), message });
        }
    }
    codebook.write(&descriptors, settings, 0.0, out, cancel)
}
