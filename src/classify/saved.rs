//! Model files: `model.safetensors` for kinoprobe, `model.onnx` for other runtimes.

use std::collections::HashMap;
use std::path::Path;

use clap::ValueEnum;
use ndarray::Array2;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::{ClassifierKind, Exporter, Model, RunIdentity, Tensor, Tensors, restore};
use crate::dataset::{Dataset, DatasetSplits, Task};
use crate::error::{Error, Result};
use crate::evaluate::Predictions;
use crate::evaluate::predictions::PredictionTable;
use crate::manifest::normalize_label;
use crate::models::Precision;
use crate::store::{Pooling, Provenance};

/// The metadata of a model file: the model and the origin of its features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelMetadata {
    /// Classifier and features.
    #[serde(flatten)]
    pub identity: RunIdentity,
    /// Precision of the network that computed the features; `f32` in files without this key.
    #[serde(default = "default_precision")]
    pub precision: String,
    /// The extraction settings of the features as JSON: the `recipe` attribute of the store; empty if unknown.
    #[serde(default)]
    pub extraction: String,
    /// Class names in the order of the scores, C of them.
    pub classes: Vec<String>,
    /// Number of features per clip, D.
    pub dim: usize,
    /// Pooling of the features.
    pub pooling: Pooling,
    /// Seed of the fit.
    pub seed: u64,
    /// Version of kinoprobe.
    pub tool_version: String,
}

fn default_precision() -> String {
    Precision::default().to_string()
}

impl ModelMetadata {
    /// Creates the metadata that is known before the fit. [`experiment::run`](super::experiment::run) sets the task, the
    /// classes and the number of features.
    pub fn new(provenance: &Provenance, method: &str, classifier: ClassifierKind, pooling: Pooling) -> Self {
        Self {
            identity: RunIdentity {
                method: method.into(),
                ..RunIdentity::new(Task::default(), classifier.name(), provenance)
            },
            precision: provenance.precision_or_default().into(),
            extraction: provenance.recipe.clone(),
            classes: Vec::new(),
            dim: 0,
            pooling,
            seed: 0,
            tool_version: env!("CARGO_PKG_VERSION").into(),
        }
    }
}

/// A model with its metadata.
pub struct SavedModel {
    /// The metadata.
    pub metadata: ModelMetadata,
    /// The model.
    pub model: Box<dyn Model>,
}

/// File names in a run's directory.
const TENSORS_FILE: &str = "model.safetensors";
const ONNX_FILE: &str = "model.onnx";
/// Key of [`ModelMetadata`] in the metadata of the safetensors file.
const METADATA_KEY: &str = "kinoprobe";

impl SavedModel {
    /// Names of the files of a model.
    pub const FILES: [&str; 2] = [TENSORS_FILE, ONNX_FILE];

    /// Writes `model.safetensors` and `model.onnx` to the directory `dir`, which is created if it does not exist.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = self
            .model
            .tensors()
            .into_iter()
            .map(|Tensor { name, shape, values }| {
                (name, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
            })
            .collect();
        let views = tensors.iter().map(|(name, shape, bytes)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("the values match the shape");
            (name.as_str(), view)
        });
        let metadata = serde_json::to_string(&self.metadata).expect("metadata serializes to JSON");
        let path = dir.join(TENSORS_FILE);
        let bytes = safetensors::serialize(views, Some(HashMap::from([(METADATA_KEY.to_string(), metadata)])))
            .map_err(|error| Error::Weights { path: path.clone(), message: error.to_string() })?;
        std::fs::write(&path, bytes).map_err(Error::io(&path))?;
        let path = dir.join(ONNX_FILE);
        let bytes = Exporter::export(self.model.as_ref(), self.metadata.dim, self.metadata.classes.len());
        std::fs::write(&path, bytes).map_err(Error::io(&path))
    }

    /// Reads the model of a run's directory.
    ///
    /// # Errors
    /// Returns an error if the file is missing, damaged, or was not written by kinoprobe.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join(TENSORS_FILE);
        let invalid = |message: String| Error::Weights { path: path.clone(), message };
        let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
        let file =
            SafeTensors::deserialize(&bytes).map_err(|error| invalid(format!("not a safetensors file: {error}")))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| invalid(error.to_string()))?;
        let metadata = header.metadata().as_ref().and_then(|metadata| metadata.get(METADATA_KEY));
        let metadata = metadata.ok_or_else(|| invalid("not a model of kinoprobe-classify: no metadata".into()))?;
        let mut metadata: ModelMetadata =
            serde_json::from_str(metadata).map_err(|error| invalid(format!("unsupported metadata: {error}")))?;
        // Labels of manifests are normalized; models of earlier revisions may have other spellings.
        metadata.classes.iter_mut().for_each(|class| *class = normalize_label(class).into_owned());
        let mut tensors = Vec::new();
        for (name, view) in file.tensors() {
            if view.dtype() != Dtype::F32 {
                return Err(invalid(format!("tensor {name} is {:?}, expected F32", view.dtype())));
            }
            let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes")));
            tensors.push(Tensor { name, shape: view.shape().to_vec(), values: values.collect() });
        }
        let RunIdentity { task, classifier, .. } = &metadata.identity;
        let kind = ClassifierKind::from_str(classifier, false)
            .map_err(|_| invalid(format!("unknown classifier `{classifier}`: update kinoprobe")))?;
        let model = restore(kind, *task, &Tensors::new(&path, tensors))?;
        Ok(Self { metadata, model })
    }

    /// Predicts the classes of every clip of `data`. The classes of the predictions are those of the model; those of `data`
    /// may differ in number and order.
    ///
    /// # Errors
    /// Returns an error if the features do not match the model, or a clip has a label that is not among the classes of the model or, for a
    /// single-label model, several labels.
    pub fn predict(&self, data: &Dataset) -> Result<Predictions> {
        predict(self.metadata.identity.task, self.model.as_ref(), &self.metadata.classes, data)
    }

    /// Predicts all parts of `data` and returns one table with the split of each labeled clip.
    ///
    /// # Errors
    /// See [`SavedModel::predict`].
    pub fn predict_all(&self, data: &DatasetSplits) -> Result<PredictionTable> {
        let classes = self.metadata.classes.clone();
        let no_scores = Array2::zeros((0, classes.len()));
        let mut all = Predictions::from_scores(self.metadata.identity.task, vec![], vec![], vec![], no_scores, classes);
        let mut splits = Vec::new();
        let labeled = data.splits().map(|(split, part)| (Some(split), part));
        for (split, part) in labeled.into_iter().chain([(None, &data.unlabeled)]) {
            let part = self.predict(part)?;
            splits.resize(splits.len() + part.len(), split);
            all = all.concat(part);
        }
        Ok(PredictionTable { predictions: all, splits, warnings: data.warnings.clone() })
    }
}

/// Predicts the classes of every clip of `data` with a model of `classes`; see [`SavedModel::predict`].
///
/// # Errors
/// See [`SavedModel::predict`].
pub fn predict(task: Task, model: &dyn Model, classes: &[String], data: &Dataset) -> Result<Predictions> {
    let scores = if data.is_empty() { Array2::zeros((0, classes.len())) } else { model.scores(data)? };
    predictions(task, scores, classes, data)
}

/// Returns the predictions for the clips of `data` from scores (N, C) of `classes`.
///
/// # Errors
/// Returns an error if a clip has a label that is not among the classes or, for a single-label task, several labels.
pub fn predictions(task: Task, scores: Array2<f32>, classes: &[String], data: &Dataset) -> Result<Predictions> {
    if task == Task::SingleLabel && data.targets.iter().any(|target| *target > 0.0) {
        data.single_labels()?;
    }
    // Maps the classes of the data to those of the model.
    let class_map: Vec<Option<usize>> =
        data.classes.iter().map(|label| classes.iter().position(|class| class == label)).collect();
    let label_set = |i: usize| -> Result<Vec<usize>> {
        let labels = (0..data.classes.len()).filter(|&class| data.targets[(i, class)] > 0.0);
        let to_model = |class: usize| {
            class_map[class].ok_or_else(|| {
                Error::Data(format!(
                    "clip {} has the label {}, which is not among the classes of the model: {}",
                    data.ids[i],
                    data.classes[class],
                    classes.join(", ")
                ))
            })
        };
        let mut set = labels.map(to_model).collect::<Result<Vec<_>>>()?;
        set.sort_unstable();
        Ok(set)
    };
    let truth = (0..data.len()).map(label_set).collect::<Result<_>>()?;
    Ok(Predictions::from_scores(task, data.ids.clone(), data.groups.clone(), truth, scores, classes.to_vec()))
}
