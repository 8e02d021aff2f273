//! Runs of networks that are trained end to end on the frames of clips.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use kinoprobe::cancel::CancellationToken;
use kinoprobe::classify::loss::{Loss, scores};
use kinoprobe::classify::{ModelMetadata, RunIdentity, RunInputs, experiment, predictions, training};
use kinoprobe::dataset::{Dataset, DatasetSplits, Task};
use kinoprobe::error::{Error, Result};
use kinoprobe::evaluate::multi_label::Thresholds;
use kinoprobe::evaluate::{Epoch, Predictions, SeedResult, compute_metrics};
use kinoprobe::extract::Extractor;
use kinoprobe::files;
use kinoprobe::manifest::{Clip, Manifest, Split};
use kinoprobe::models::card::{Card, Origin, OutputSpec};
use kinoprobe::models::{BatchSize, Precision, fetch, onnx};
use kinoprobe::progress::{Event, ProgressSink};
use kinoprobe::recipe::{Classify, Recipe};
use kinoprobe::report::{self, TrainingRun};
use kinoprobe::runs::{NETWORK_ONNX, NETWORK_OUTPUT, check_output};
use kinoprobe::store::Pooling;
use ndarray::Array2;
use tch::Device;

use crate::train::checkpoint::{CHECKPOINT_FILE, EpochRecord, NETWORK_FILE};
use crate::train::learner::Learner;
use crate::train::network::TrainNetwork;
use crate::train::recipe::own_key;
use crate::train::session::{Observer, Session, SessionData, SessionOptions};
use crate::train::{CacheOptions, FrameCache, Samples, TrainRecipe};

/// Name of the extraction recipe of the trained network.
const EXTRACTION_FILE: &str = "extraction.toml";
/// What to do if the disk of the frame cache is full.
const FULL_CACHE_DISK: &str =
    "free some space, or choose a directory on another disk with --cache; the decoded clips are kept";
/// What to do if the disk of the run is full.
const FULL_DISK: &str = "free some space, and continue with --resume; the complete epochs are kept";
/// Directory of the recipes of methods.
const PIPELINES: &str = "pipelines";

/// A training of a network.
pub struct EndToEndJob {
    /// Recipe including command-line overrides.
    pub recipe: TrainRecipe,
    /// Clips, with splits.
    pub manifest: Manifest,
    /// Root directory of the manifest's paths, if one was given.
    pub root: Option<PathBuf>,
    /// More clips without labels, for the self-supervised task.
    pub unlabeled: Option<Manifest>,
    /// Directory of the run. Its name is the method of the trained network.
    pub out: PathBuf,
    /// Directory of the cards.
    pub models: PathBuf,
    /// Device.
    pub device: Device,
    /// Number of threads that prepare batches.
    pub workers: usize,
    /// Frame cache.
    pub cache: CacheOptions,
    /// Continue an interrupted training.
    pub resume: bool,
}

/// Result of a training.
pub struct EndToEndSummary {
    /// Number of clips that cannot be decoded.
    pub failed: usize,
    /// `true` if the run has metrics, and [`report::complete`] completes its directory; not in contrastive pre-training.
    pub classifies: bool,
}

impl EndToEndJob {
    /// Trains the network, and writes the directory of the run: what [`report::write_run`] writes, `network.safetensors`,
    /// `network.onnx`, `checkpoint.safetensors`, `training.csv`, and a card and a recipe for the extraction of features. The event
    /// files of TensorBoard are written during training.
    ///
    /// # Errors
    /// Returns an error if the directory has another run, the clips or the recipe are not suitable, training fails, or a file cannot
    /// be written. Clips that cannot be decoded are excluded.
    pub fn run(
        &self,
        observer: &dyn Observer,
        progress: &dyn ProgressSink,
        cancel: &CancellationToken,
    ) -> Result<EndToEndSummary> {
        self.train_and_evaluate(observer, progress, cancel).map_err(|error| error.on_full_disk(FULL_DISK))
    }

    fn train_and_evaluate(
        &self,
        observer: &dyn Observer,
        progress: &dyn ProgressSink,
        cancel: &CancellationToken,
    ) -> Result<EndToEndSummary> {
        let Self { recipe, manifest, unlabeled, out, .. } = self;
        let method = self.check_output()?;
        std::fs::create_dir_all(out).map_err(Error::io(out))?;
        let more = unlabeled.iter().flat_map(|unlabeled| &unlabeled.clips);
        let clips: Vec<Clip> = manifest.clips.iter().chain(more).cloned().collect();
        let cache = FrameCache::build(recipe, &clips, &self.cache, progress, cancel)
            .map_err(|error| error.on_full_disk(FULL_CACHE_DISK))?;
        let failed: HashMap<usize, &str> =
            (0..clips.len()).filter_map(|position| cache.failure(position).map(|reason| (position, reason))).collect();
        let positions = Positions::new(manifest, unlabeled.as_ref(), &failed);

        let supervised = recipe.contrastive.is_none().then(|| self.splits(&failed)).transpose()?;
        let data = match &supervised {
            Some(splits) => SessionData {
                task: splits.task,
                train: positions.samples(&splits.train),
                val: (!splits.val.is_empty()).then(|| positions.samples(&splits.val)),
                pool: positions.pool.clone(),
            },
            None => SessionData {
                task: Task::SingleLabel,
                train: Samples { targets: Array2::zeros((positions.pool.len(), 0)), clips: positions.pool.clone() },
                val: None,
                pool: Vec::new(),
            },
        };
        let (classes, loss) = match &supervised {
            Some(splits) => {
                let loss = Loss::new(&recipe.loss, splits.task, splits.train.targets.view());
                let loss = loss.map_err(|error| Error::Data(own_key(error.to_string())))?;
                (splits.train.classes.len(), Some(loss))
            }
            None => (0, None),
        };
        let network = TrainNetwork::new(recipe, &self.models, classes, self.device, progress, cancel)?;
        let inputs = BTreeMap::from([
            ("manifest".to_string(), manifest.sha256.clone()),
            ("unlabeled".to_string(), unlabeled.as_ref().map(|manifest| manifest.sha256.clone()).unwrap_or_default()),
            ("splits".to_string(), checksum_of_splits(manifest)),
            ("weights".to_string(), network.weights.clone()),
            ("excluded clips".to_string(), failed.len().to_string()),
        ]);
        let learner = Learner::new(recipe, network, loss)?;
        if supervised.is_some() {
            report::begin(out)?;
        }
        let options = SessionOptions { out, resume: self.resume, inputs, workers: self.workers };
        let observer = EventFiles { observer, out, score_name: training::score_name(data.task) };
        let mut session = Session::new(recipe, &cache, data, learner, options)?;
        session.train(&observer, cancel)?;
        session.restore_best()?;

        self.write_training_csv(session.history())?;
        let classifies = supervised.is_some();
        if let Some(splits) = &supervised {
            self.write_classification(&method, &session, splits, &positions, cancel)?;
        }
        self.write_extraction(&method, &session.learner().network, progress)?;
        Ok(EndToEndSummary { failed: failed.len(), classifies })
    }

    /// Checks the output directory, and returns its name.
    fn check_output(&self) -> Result<String> {
        let Self { out, .. } = self;
        check_output(out, None)?;
        let absolute = std::path::absolute(out).map_err(Error::io(out))?;
        let invalid = |path: &Path, message: &str| Error::Config { path: path.into(), message: message.into() };
        let name = absolute.file_name().and_then(|name| name.to_str());
        let name =
            name.ok_or_else(|| invalid(out, "the name of the directory must be UTF-8: it is the name of the method"))?;
        if out.join("metrics.json").is_file() && !out.join(CHECKPOINT_FILE).is_file() {
            return Err(invalid(
                out,
                "the directory of a classifier, which this run would not replace: choose another --out",
            ));
        }
        for path in self.installed_files(name) {
            let found = std::fs::read_to_string(&path).unwrap_or_default();
            if path.exists() && found.lines().next() != Some(&self.marker()?) {
                return Err(invalid(
                    &path,
                    &format!("exists and is not of this run: choose a directory name other than {name} for --out"),
                ));
            }
        }
        Ok(name.to_string())
    }

    /// Returns the paths of the card and the recipe among those of other methods; none outside of a source directory.
    fn installed_files(&self, name: &str) -> Vec<PathBuf> {
        let directories = [self.models.as_path(), Path::new(PIPELINES)];
        match directories.iter().all(|directory| directory.is_dir()) {
            true => directories.map(|directory| directory.join(format!("{name}.toml"))).to_vec(),
            false => Vec::new(),
        }
    }

    /// Returns the first line of installed files, which identifies the run.
    fn marker(&self) -> Result<String> {
        let out = std::path::absolute(&self.out).map_err(Error::io(&self.out))?;
        Ok(format!("# Written by kinoprobe-train for {}", out.display()))
    }

    /// Splits the labeled clips.
    fn splits(&self, failed: &HashMap<usize, &str>) -> Result<DatasetSplits> {
        let clips = &self.manifest.clips;
        let failed = failed.iter().filter(|(position, _)| **position < clips.len());
        let failed = failed.map(|(&position, reason)| (clips[position].id.clone(), reason.to_string())).collect();
        let mut splits = DatasetSplits::without_features(&self.manifest, &failed)?;
        if let [class] = &splits.train.classes[..] {
            return Err(Error::Data(format!("there is only one class, {class}; a classifier needs at least two")));
        }
        splits.task = self.recipe.task.unwrap_or(splits.task);
        if splits.task == Task::SingleLabel {
            splits.train.single_labels()?;
            splits.val.single_labels()?;
        }
        Ok(splits)
    }

    /// Writes the results on the held-out and unlabeled clips.
    fn write_classification(
        &self,
        method: &str,
        session: &Session<'_>,
        splits: &DatasetSplits,
        positions: &Positions,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let Self { recipe, manifest, out, .. } = self;
        let network = &session.learner().network;
        let predict = |part: &Dataset| -> Result<Predictions> {
            let mut logits = session.predict(positions.samples(part), cancel)?;
            scores(splits.task, logits.view_mut());
            predictions(splits.task, logits, &splits.train.classes, part)
        };
        let held_out = splits.splits().into_iter().filter(|(split, part)| *split != Split::Train && !part.is_empty());
        let held_out: BTreeMap<Split, Predictions> =
            held_out.map(|(split, part)| Ok((split, predict(part)?))).collect::<Result<_>>()?;
        let unlabeled = (!splits.unlabeled.is_empty()).then(|| predict(&splits.unlabeled)).transpose()?;
        let constant = experiment::constant_predictions(splits)?;
        let train_seconds = session.history().iter().map(|record| record.seconds).sum();
        let seed = SeedResult {
            seed: recipe.seed,
            splits: held_out.iter().map(|(split, part)| (*split, compute_metrics(part).headline_map())).collect(),
            seconds: train_seconds,
        };
        let mut warnings = [manifest.warnings.clone(), splits.warnings.clone()].concat();
        if splits.val.is_empty() {
            warnings.push("no validation clips: trained for all epochs and kept the last one".into());
        }
        let run = TrainingRun {
            search: None,
            identity: RunIdentity {
                task: splits.task,
                method: method.into(),
                classifier: "end-to-end".into(),
                untrained: network.is_untrained(),
                weights: network.weights.clone(),
                model: network.architecture.name().into(),
                model_sha256: fetch::sha256_file(&out.join(NETWORK_FILE))?,
                provider: format!("libtorch {:?}", self.device).to_lowercase(),
            },
            inputs: RunInputs { features: PathBuf::new(), manifest: manifest.source.clone(), root: self.root.clone() },
            recipe: recipe.to_toml(),
            extract_seconds: 0.0,
            splits: held_out,
            calibration: None,
            unlabeled,
            constant: constant.iter().map(|(split, part)| (*split, compute_metrics(part))).collect(),
            curves: session.history().iter().map(|record| record.epoch).collect(),
            score_name: training::score_name(splits.task),
            best_epoch: Some(session.kept_epoch()),
            seeds: vec![seed],
            train_seconds,
            warnings,
        };
        let head = network.classifier.as_ref();
        let classes = splits.train.classes.clone();
        let output = OutputSpec { name: NETWORK_OUTPUT.into(), dim: classes.len() };
        let card = Card { output, ..network.card.clone() };
        let mut bytes = onnx::write_with_head(&card, network.architecture, head, &network.parameters)?;
        let metadata = ModelMetadata {
            identity: run.identity.clone(),
            precision: Precision::default().to_string(),
            extraction: self.extraction(method).extraction().to_json(None),
            dim: classes.len(),
            classes,
            pooling: Pooling::Mean,
            seed: recipe.seed,
            tool_version: env!("CARGO_PKG_VERSION").into(),
            thresholds: run.splits.get(&Split::Val).and_then(Thresholds::tune).map(|tuned| tuned.values()),
            members: Vec::new(),
            runs: Vec::new(),
        };
        onnx::append_properties(&mut bytes, &metadata.properties());
        files::write_atomic(&out.join(NETWORK_ONNX), &bytes)?;
        report::write_run(out, &run)
    }

    /// Returns the recipe that extracts features with the trained network.
    fn extraction(&self, method: &str) -> Recipe {
        Recipe {
            method: method.into(),
            deinterlace: self.recipe.deinterlace,
            sampling: self.recipe.sampling,
            extractor: Extractor::Network {
                card: method.into(),
                batch: BatchSize::Auto,
                precision: Precision::default(),
            },
            codebook: None,
            classify: Classify::default(),
            run: None,
        }
    }

    /// Writes the card and the recipe that extract features with the trained network.
    fn write_extraction(&self, method: &str, network: &TrainNetwork, progress: &dyn ProgressSink) -> Result<()> {
        let Self { out, .. } = self;
        let path = out.join(NETWORK_FILE);
        let absolute = std::path::absolute(&path).map_err(Error::io(&path))?;
        let sha256 = Some(fetch::sha256_file(&path)?);
        let card = |path: PathBuf| Card {
            name: method.into(),
            description: format!(
                "{}, trained by kinoprobe-train on {}",
                network.architecture.name(),
                self.manifest.source.display()
            ),
            license: "that of the training data and the initial weights".into(),
            origins: vec![Origin::File { path, sha256: sha256.clone() }],
            output: OutputSpec { name: "embedding".into(), dim: network.architecture.dim() },
            directory: PathBuf::new(),
            ..network.card.clone()
        };
        // Classifiers have their default settings.
        let mut extraction = toml::Table::try_from(self.extraction(method)).expect("a recipe serializes to TOML");
        extraction.remove("classify");
        let extraction = toml::to_string_pretty(&extraction).expect("a table serializes to TOML");
        let card_text = |path: PathBuf| toml::to_string_pretty(&card(path)).expect("a card serializes to TOML");
        let write = |path: &Path, text: String| -> Result<()> {
            files::write_atomic(path, format!("{}\n{text}", self.marker()?).as_bytes())
        };
        write(&out.join(format!("{method}.toml")), card_text(NETWORK_FILE.into()))?;
        write(&out.join(EXTRACTION_FILE), extraction.clone())?;
        if let [card_file, recipe_file] = &self.installed_files(method)[..] {
            write(card_file, card_text(absolute))?;
            write(recipe_file, extraction)?;
            let message = format!(
                "wrote {} and {}: kinoprobe-extract --method {method} uses the network",
                card_file.display(),
                recipe_file.display()
            );
            progress.report(Event::Info(&message));
        } else {
            let directory = out.display();
            let message = format!(
                "kinoprobe-extract --method {method} --recipe {directory}/{EXTRACTION_FILE} --models {directory} uses the network"
            );
            progress.report(Event::Info(&message));
        }
        Ok(())
    }

    /// Writes the speed and the losses of each epoch.
    fn write_training_csv(&self, history: &[EpochRecord]) -> Result<()> {
        let header = "epoch,train_loss,rotation_loss,windows_per_second,waiting_share,seconds\n".to_string();
        let lines = history.iter().map(|record| {
            let rotation = record.rotation_loss.map(|loss| loss.to_string()).unwrap_or_default();
            let EpochRecord { epoch, windows_per_second, waiting, seconds, .. } = record;
            format!(
                "{},{},{rotation},{windows_per_second:.1},{waiting:.3},{seconds:.2}\n",
                epoch.epoch, epoch.train_loss
            )
        });
        let path = self.out.join("training.csv");
        std::fs::write(&path, lines.fold(header, |text, line| text + &line)).map_err(Error::io(&path))
    }
}

/// Writes the event files of TensorBoard after each epoch, before another observer is called.
struct EventFiles<'a> {
    observer: &'a dyn Observer,
    /// Directory of the run.
    out: &'a Path,
    score_name: &'static str,
}

impl Observer for EventFiles<'_> {
    fn step(&self, epoch: usize, step: usize, steps: usize, loss: f64) {
        self.observer.step(epoch, step, steps, loss);
    }

    fn epoch(&self, history: &[EpochRecord]) -> Result<()> {
        let epochs: Vec<Epoch> = history.iter().map(|record| record.epoch).collect();
        report::write_epochs(self.out, self.score_name, &epochs)?;
        self.observer.epoch(history)
    }
}

/// Returns a checksum of the split of each clip. A drawn split is not part of the manifest's hash.
fn checksum_of_splits(manifest: &Manifest) -> String {
    let splits = manifest.clips.iter().map(|clip| format!("{} {:?}\n", clip.id, clip.split));
    format!("{:08x}", crc32fast::hash(splits.collect::<String>().as_bytes()))
}

/// Positions of clips in the frame cache.
struct Positions {
    by_id: HashMap<String, usize>,
    /// Clips that the self-supervised task may use: all but those of the splits val and test.
    pool: Vec<usize>,
}

impl Positions {
    fn new(manifest: &Manifest, unlabeled: Option<&Manifest>, failed: &HashMap<usize, &str>) -> Self {
        let by_id = manifest.clips.iter().zip(0..).map(|(clip, position)| (clip.id.clone(), position)).collect();
        let held_out = |clip: &Clip| matches!(clip.split, Some(Split::Val | Split::Test));
        let own = manifest.clips.iter().enumerate().filter(|(_, clip)| !held_out(clip)).map(|(position, _)| position);
        let more = unlabeled.map_or(0, |unlabeled| unlabeled.clips.len());
        let more = (0..more).map(|position| manifest.clips.len() + position);
        Self { by_id, pool: own.chain(more).filter(|position| !failed.contains_key(position)).collect() }
    }

    fn samples(&self, part: &Dataset) -> Samples {
        Samples { clips: part.ids.iter().map(|id| self.by_id[id]).collect(), targets: part.targets.clone() }
    }
}
