//! Trained models with what is needed to compute their features for new clips.

use std::path::{Path, PathBuf};

use crate::classify::{LogitsModel, ModelMetadata, SavedModel};
use crate::error::{Error, Result};
use crate::evaluate::Predictions;
use crate::evaluate::predictions::PredictionTable;
use crate::extract::ExtractionSettings;
use crate::manifest::Split;
use crate::models::Card;
use crate::models::card::{Origin, OutputSpec};
use crate::posters::INDEX_FILE;

/// Name of the network with its classifier in the directory of a run of kinoprobe-train.
pub const NETWORK_ONNX: &str = "network.onnx";
/// Name of the output of that network.
pub const NETWORK_OUTPUT: &str = "logits";

/// A trained model: a classifier on features, an early fusion, or a network that was trained end to end.
pub struct TrainedRun {
    /// Directory of the run.
    pub directory: PathBuf,
    /// The model.
    pub saved: SavedModel,
    /// Card of a network that was trained end to end. Its output are the logits, which are the features of the model.
    pub network: Option<Card>,
}

impl TrainedRun {
    /// Returns `true` if a directory contains the model of a run.
    pub fn is_run(directory: &Path) -> bool {
        [SavedModel::FILES[0], NETWORK_ONNX].iter().any(|name| directory.join(name).is_file())
    }

    /// Reads the model of a run's directory.
    ///
    /// # Errors
    /// Returns an error if the directory contains no model, or several, or a file is damaged.
    pub fn load(directory: &Path) -> Result<Self> {
        let invalid = |message: String| Error::Config { path: directory.to_path_buf(), message };
        let contains = |name: &str| directory.join(name).is_file();
        if contains(INDEX_FILE) {
            let example = directory.join("all");
            return Err(invalid(format!("a set of poster models: name one of them, such as {}", example.display())));
        }
        if contains(SavedModel::FILES[0]) {
            let saved = SavedModel::load(directory)?;
            return Ok(Self { directory: directory.to_path_buf(), saved, network: None });
        }
        if !contains(NETWORK_ONNX) && contains("metrics.json") {
            let message =
                "contains predictions, but no model, such as the directory of a late or learned fusion: pass its runs";
            return Err(invalid(message.into()));
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
        Ok(Self { directory: directory.to_path_buf(), saved, network: Some(network) })
    }

    /// Returns the origin of the features: of an early fusion, that of each part.
    pub fn sources(&self) -> Vec<&ModelMetadata> {
        let metadata = &self.saved.metadata;
        if metadata.members.is_empty() { vec![metadata] } else { metadata.members.iter().collect() }
    }

    /// Returns the extraction settings of features.
    ///
    /// # Errors
    /// Returns an error if they are not recorded.
    pub fn settings(&self, source: &ModelMetadata) -> Result<ExtractionSettings> {
        serde_json::from_str(&source.extraction).map_err(|_| Error::Config {
            path: self.directory.clone(),
            message: format!(
                "the model does not record how the features of {} were extracted: extract them, and predict with kinoprobe-evaluate \
                 --model",
                if source.identity.method.is_empty() { "its clips" } else { &source.identity.method }
            ),
        })
    }

    /// Returns `true` if the features are histograms of SIFT descriptors.
    pub fn uses_sift(&self) -> bool {
        let is_sift = |settings: ExtractionSettings| settings.codebook.is_some();
        self.sources().into_iter().any(|source| self.settings(source).is_ok_and(is_sift))
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
