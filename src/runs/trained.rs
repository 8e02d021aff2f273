//! Trained models with what is needed to compute their features for new clips.

use std::path::{Path, PathBuf};

use super::stack::stack;
use crate::classify::{FusedRun, LogitsModel, ModelMetadata, RunIdentity, SavedModel};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::evaluate::Predictions;
use crate::evaluate::predictions::PredictionTable;
use crate::extract::{ExtractionSettings, Extractor};
use crate::manifest::Split;
use crate::models::card::{Origin, OutputSpec};
use crate::models::fetch::sha256_file;
use crate::models::{Card, Precision};
use crate::posters::INDEX_FILE;
use crate::report::Metrics;
use crate::report::compare::late_fusion;

/// Name of the network with its classifier in the directory of a run of kinoprobe-train.
pub const NETWORK_ONNX: &str = "network.onnx";
/// Name of the output of that network.
pub const NETWORK_OUTPUT: &str = "logits";

/// A trained model: a classifier on features, an early or learned fusion, or a network that was trained end to end.
pub struct TrainedRun {
    /// Directory of the run.
    pub directory: PathBuf,
    /// The model.
    pub saved: SavedModel,
    /// Card of a network that was trained end to end. Its output are the logits, which are the features of the model.
    pub network: Option<Card>,
    /// Of a learned fusion, the runs whose scores its model reads, in order.
    pub members: Vec<TrainedRun>,
}

impl TrainedRun {
    /// Returns `true` if a directory contains the model of a run.
    pub fn is_run(directory: &Path) -> bool {
        Self::model_file(directory).is_some()
    }

    /// Returns the file with the model of a run's directory; `None` if there is none.
    pub fn model_file(directory: &Path) -> Option<PathBuf> {
        [SavedModel::FILES[0], NETWORK_ONNX].iter().map(|name| directory.join(name)).find(|path| path.is_file())
    }

    /// Reads the model of a run's directory, and those of the runs of a learned fusion.
    ///
    /// # Errors
    /// Returns an error if the directory contains no model, or several, a file is damaged, or the model of a run has changed since it was fused.
    pub fn load(directory: &Path) -> Result<Self> {
        let invalid = |message: String| Error::Config { path: directory.to_path_buf(), message };
        let contains = |name: &str| directory.join(name).is_file();
        if contains(INDEX_FILE) {
            let example = directory.join("all");
            return Err(invalid(format!("a set of poster models: name one of them, such as {}", example.display())));
        }
        if contains(SavedModel::FILES[0]) {
            let saved = SavedModel::load(directory)?;
            let members = load_members(directory, &saved.metadata)?;
            return Ok(Self { directory: directory.to_path_buf(), saved, network: None, members });
        }
        if !contains(NETWORK_ONNX) && contains("metrics.json") {
            let Metrics { identity, .. } = Metrics::read(&directory.join("metrics.json"))?;
            return Err(invalid(no_model(&identity).into()));
        }
        if !contains(NETWORK_ONNX) {
            let message = "contains no model: pass the directory of a run of kinoprobe-classify or kinoprobe-train";
            return Err(invalid(message.into()));
        }
        let metadata = ModelMetadata::read_onnx(&directory.join(NETWORK_ONNX))?;
        let card = Card::load(directory, &metadata.identity.method)?;
        let network = Card {
            architecture: None,
            origins: vec![Origin::File { path: NETWORK_ONNX.into(), sha256: None }],
            output: OutputSpec { name: NETWORK_OUTPUT.into(), dim: metadata.classes.len() },
            ..card
        };
        let model = Box::new(LogitsModel { task: metadata.identity.task });
        let saved = SavedModel { metadata, model };
        Ok(Self { directory: directory.to_path_buf(), saved, network: Some(network), members: Vec::new() })
    }

    /// Returns the runs that read features: those of a learned fusion, otherwise the run itself.
    pub fn feature_readers(&self) -> Vec<&Self> {
        match &self.members[..] {
            [] => vec![self],
            members => members.iter().flat_map(Self::feature_readers).collect(),
        }
    }

    /// Predicts clips. `features` returns the features that one of [`feature_readers`](Self::feature_readers) reads; a learned fusion predicts the
    /// clips that all of its runs predict.
    ///
    /// # Errors
    /// Returns the errors of `features` and of [`SavedModel::predict`].
    pub fn predict(&self, features: &dyn Fn(&Self) -> Result<Dataset>) -> Result<Predictions> {
        if self.members.is_empty() {
            return self.saved.predict(&features(self)?);
        }
        let scores = self.members.iter().map(|member| member.predict(features)).collect::<Result<Vec<_>>>()?;
        self.saved.predict(&stack(&scores.iter().collect::<Vec<_>>())?)
    }

    /// Returns the origin of the features that the run itself reads: of an early fusion, that of each part.
    pub fn sources(&self) -> Vec<&ModelMetadata> {
        let metadata = &self.saved.metadata;
        if metadata.members.is_empty() { vec![metadata] } else { metadata.members.iter().collect() }
    }

    /// Returns the extraction settings of features, with the precision that reproduces them.
    ///
    /// # Errors
    /// Returns an error if they are not recorded.
    pub fn settings(&self, source: &ModelMetadata) -> Result<ExtractionSettings> {
        let settings = serde_json::from_str(&source.extraction).map(|mut settings: ExtractionSettings| {
            if let Extractor::Network { precision, .. } = &mut settings.extractor {
                *precision = Precision::recorded(&source.precision);
            }
            settings
        });
        settings.map_err(|_| Error::Config {
            path: self.directory.clone(),
            message: format!(
                "the model does not record how the features of {} were extracted: extract them, and predict with kinoprobe-evaluate \
                 --model",
                if source.identity.method.is_empty() { "its clips" } else { &source.identity.method }
            ),
        })
    }

    /// Returns `true` if the features are made of SIFT descriptors with a codebook.
    pub fn uses_sift(&self) -> bool {
        let is_sift = |settings: ExtractionSettings| settings.codebook.is_some();
        let uses = |run: &Self| run.sources().into_iter().any(|source| run.settings(source).is_ok_and(is_sift));
        self.feature_readers().into_iter().any(uses)
    }

    /// Returns the predictions that the run made for its validation clips; `None` if it made none.
    ///
    /// # Errors
    /// Returns an error if predictions.csv cannot be read.
    pub fn validation(&self) -> Result<Option<Predictions>> {
        let path = self.directory.join("predictions.csv");
        if !path.is_file() {
            return Ok(None);
        }
        let table = PredictionTable::read_csv(&path, Some(self.saved.metadata.identity.task))?;
        Ok(Some(table.select_split(Split::Val)).filter(|part| !part.is_empty()))
    }
}

/// Explains why the directory of predictions has no model.
fn no_model(identity: &RunIdentity) -> &'static str {
    match identity.classifier.as_str() {
        late_fusion::CLASSIFIER => "a late fusion, the mean of the scores of its runs: pass each of them with --model",
        _ => {
            "contains predictions, but no model: pass the directory of the run that made them (for a fusion, repeat kinoprobe-compare)"
        }
    }
}

/// Loads the runs of a learned fusion and checks that they are those that it was fitted to; none for other models.
fn load_members(fusion: &Path, metadata: &ModelMetadata) -> Result<Vec<TrainedRun>> {
    let members: Vec<TrainedRun> = metadata.runs.iter().map(|run| load_member(fusion, run)).collect::<Result<_>>()?;
    let classes = || members.iter().flat_map(|member| &member.saved.metadata.classes);
    let missing = metadata.classes.iter().find(|class| classes().all(|other| other != *class));
    let unknown = classes().find(|class| !metadata.classes.contains(class));
    if let Some(class) = missing.or(unknown).filter(|_| !members.is_empty()) {
        let message = format!("the classes of the fusion are not those of its runs, such as {class}: {REPEAT}");
        return Err(Error::Config { path: fusion.to_path_buf(), message });
    }
    Ok(members)
}

/// Remedy for a fusion that does not fit to its runs.
const REPEAT: &str = "repeat kinoprobe-compare";

fn load_member(fusion: &Path, run: &FusedRun) -> Result<TrainedRun> {
    let FusedRun { name, directory, model_sha256 } = run;
    let directory = fusion.join(directory);
    let invalid = |problem: String| Error::Config {
        path: fusion.to_path_buf(),
        message: format!("reads the scores of {name} ({}), {problem}", directory.display()),
    };
    if model_sha256.is_empty() {
        let problem = "which has no model, so that it cannot be applied to new clips: compare runs of kinoprobe-classify or kinoprobe-train";
        return Err(invalid(problem.into()));
    }
    let Some(file) = TrainedRun::model_file(&directory) else {
        let problem = format!("whose model is missing: move the run back, or train it again and {REPEAT}");
        return Err(invalid(problem));
    };
    if sha256_file(&file)? != *model_sha256 {
        return Err(invalid(format!("whose model has changed since the fusion: {REPEAT}")));
    }
    TrainedRun::load(&directory)
}
