//! Model files: `model.safetensors` for kinoprobe, `model.onnx` for other runtimes.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use clap::ValueEnum;
use ndarray::{Array2, ArrayView2, Axis, concatenate, s};
use rayon::prelude::*;
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::{ClassifierKind, Exporter, Model, RunIdentity, Tensor, Tensors, restore};
use crate::dataset::{Dataset, DatasetSplits, Task};
use crate::error::{Error, Result};
use crate::evaluate::Predictions;
use crate::evaluate::predictions::PredictionTable;
use crate::manifest::normalize_label;
use crate::models::{Precision, onnx};
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
    /// Score thresholds of the classes of a multi-label model, tuned on the validation clips (see
    /// [`Thresholds::tune`](crate::evaluate::multi_label::Thresholds::tune)); `None`
    /// without them, and for single-label models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<Vec<f32>>,
    /// Of an early fusion, the origin of each part of the concatenated features, in order: `dim` is the length of the part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<ModelMetadata>,
    /// Of a learned fusion, the runs whose scores are its features, in order: each has one score per class of `classes`, 0 for a class that
    /// it lacks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<FusedRun>,
}

/// A run whose scores a learned fusion reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FusedRun {
    /// Name of the run in the comparison.
    pub name: String,
    /// Its directory, relative to that of the fusion.
    pub directory: String,
    /// SHA-256 of the file of its model, hexadecimal; empty if it has none, as the evaluation of predictions.
    pub model_sha256: String,
}

/// The keys of [`ModelMetadata::properties`] whose values are JSON. The others are text.
const JSON_PROPERTIES: [&str; 7] = ["untrained", "classes", "dim", "seed", "thresholds", "members", "runs"];

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
            thresholds: None,
            members: Vec::new(),
            runs: Vec::new(),
        }
    }

    /// Returns the metadata as text by key, as ONNX files carry it.
    pub fn properties(&self) -> BTreeMap<String, String> {
        let serde_json::Value::Object(values) = serde_json::to_value(self).expect("metadata serializes to JSON") else {
            unreachable!("metadata is an object")
        };
        let text = |value: serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
        values.into_iter().map(|(key, value)| (key, text(value))).collect()
    }

    /// Reads the metadata of an ONNX file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or has no metadata of a model.
    pub fn read_onnx(path: &Path) -> Result<Self> {
        let properties = onnx::read_properties(path)?;
        let value = |(key, text): (String, String)| {
            let parsed = JSON_PROPERTIES.contains(&key.as_str()).then(|| serde_json::from_str(&text).ok()).flatten();
            (key, parsed.unwrap_or(serde_json::Value::String(text)))
        };
        let values: serde_json::Map<_, _> = properties.into_iter().map(value).collect();
        let invalid = |error| Error::Weights {
            path: path.to_path_buf(),
            message: format!("has no metadata of a model ({error}): train it again with this version of kinoprobe"),
        };
        serde_json::from_value(serde_json::Value::Object(values)).map_err(invalid)
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
        let metadata = serde_json::to_string(&self.metadata).expect("metadata serializes to JSON");
        let path = dir.join(TENSORS_FILE);
        write_tensors(&path, &self.model.tensors(), HashMap::from([(METADATA_KEY.to_string(), metadata)]))?;
        let path = dir.join(ONNX_FILE);
        let write = |file: File| {
            let mut file = BufWriter::new(file);
            self.write_onnx(&mut file)?;
            file.flush()
        };
        File::create(&path).and_then(write).map_err(Error::io(&path))
    }

    /// Returns the bytes of an ONNX file with the model and its metadata.
    pub fn to_onnx(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_onnx(&mut bytes).expect("writing to memory succeeds");
        bytes
    }

    /// Writes an ONNX file with the model and its metadata.
    fn write_onnx(&self, out: &mut impl Write) -> std::io::Result<()> {
        Exporter::export(self.model.as_ref(), self.metadata.dim, self.metadata.classes.len(), out)?;
        let mut properties = Vec::new();
        onnx::append_properties(&mut properties, &self.metadata.properties());
        out.write_all(&properties)
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

/// Writes a safetensors file without another copy of the tensors: those of nearest neighbors are the features of all training clips.
fn write_tensors(path: &Path, tensors: &[Tensor], metadata: HashMap<String, String>) -> Result<()> {
    const { assert!(cfg!(target_endian = "little"), "safetensors files are little-endian, as all supported processors") };
    let views = tensors.iter().map(|Tensor { name, shape, values }| {
        let values = values.as_slice().expect("the values are contiguous");
        let view = TensorView::new(Dtype::F32, shape.clone(), bytemuck::cast_slice(values));
        (name.as_str(), view.expect("the values match the shape"))
    });
    safetensors::serialize_to_file(views, Some(metadata), path).map_err(|error| match error {
        SafeTensorError::IoError(error) => Error::io(path)(error),
        error => Error::Weights { path: path.to_path_buf(), message: error.to_string() },
    })
}

/// Predicts the classes of every clip of `data` with a model of `classes`; see [`SavedModel::predict`].
///
/// # Errors
/// See [`SavedModel::predict`].
pub fn predict(task: Task, model: &dyn Model, classes: &[String], data: &Dataset) -> Result<Predictions> {
    let scores = if data.is_empty() { Array2::zeros((0, classes.len())) } else { independent_scores(model, data)? };
    predictions(task, scores, classes, data)
}

/// Number of clips of which vector models compute the same scores, to the last bit, whatever the clips are.
const BLOCK: usize = 256;

/// Computes scores (N, C) that do not depend on the other clips. Matrix products of few rows sum in another order than those of many.
/// Models that read all rows of a clip therefore score one clip at a time; for others, the last block is repeated with copies of its
/// last clip.
fn independent_scores(model: &dyn Model, data: &Dataset) -> Result<Array2<f32>> {
    if model.reads_all_rows() {
        let scores = (0..data.len()).into_par_iter().map(|clip| model.scores(&data.select(&[clip])));
        let scores: Vec<Array2<f32>> = scores.collect::<Result<_>>()?;
        let scores: Vec<ArrayView2<'_, f32>> = scores.iter().map(Array2::view).collect();
        return Ok(concatenate(Axis(0), &scores).expect("every clip has a score per class"));
    }
    let (count, complete) = (data.len(), data.len() / BLOCK * BLOCK);
    if complete == count {
        return model.scores(data);
    }
    let last: Vec<usize> = (complete..complete + BLOCK).map(|i| i.min(count - 1)).collect();
    let last = model.scores(&data.select(&last))?.slice_move(s![..count - complete, ..]);
    if complete == 0 {
        return Ok(last);
    }
    let mut scores = model.scores(data)?;
    scores.slice_mut(s![complete.., ..]).assign(&last);
    Ok(scores)
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
