//! Models on disk: `model.safetensors` to go on with, `model.onnx` to run anywhere.

use std::collections::HashMap;
use std::path::Path;

use ndarray::Array2;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::{Exporter, Model, Tensor, Tensors, restore};
use crate::dataset::{Dataset, DatasetSplits, Task};
use crate::error::{Error, Result};
use crate::evaluate::Predictions;
use crate::evaluate::predictions::PredictionTable;
use crate::recipe::{ClassifierKind, Recipe};
use crate::store::{Pooling, Provenance};

/// What a model is and where it comes from: the metadata of its file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// Whether it gives one label a clip or several.
    #[serde(default)]
    pub task: Task,
    /// The kind of classifier.
    pub classifier: ClassifierKind,
    /// Class names, C of them, in the order of the scores.
    pub classes: Vec<String>,
    /// Features a clip, D.
    pub dim: usize,
    /// Which pooled features it reads.
    pub pooling: Pooling,
    /// The method of the store it was fitted to.
    pub method: String,
    /// SHA-256 of the network that made the features.
    pub model_sha256: String,
    /// Whether that network was untrained (seeded).
    pub untrained: bool,
    /// The seed of the fit.
    pub seed: u64,
    /// The version of kinoprobe.
    pub tool_version: String,
}

impl About {
    /// What is known before the fit: where the features come from. Classes and D are filled in by the fit.
    pub fn of(provenance: &Provenance, recipe: &Recipe) -> Self {
        Self {
            task: recipe.classify.task.unwrap_or_default(),
            classifier: recipe.classify.classifier,
            classes: Vec::new(),
            dim: 0,
            pooling: recipe.classify.pooling,
            method: recipe.method.clone(),
            model_sha256: provenance.model_sha256.clone(),
            untrained: provenance.untrained(),
            seed: 0,
            tool_version: env!("CARGO_PKG_VERSION").into(),
        }
    }
}

/// A model with what it is.
pub struct SavedModel {
    /// What it is.
    pub about: About,
    /// The model.
    pub model: Box<dyn Model>,
}

/// The file's name in the folder of a run.
const TENSORS: &str = "model.safetensors";
const ONNX: &str = "model.onnx";
/// The key of [`About`] in the metadata.
const KEY: &str = "kinoprobe";

impl SavedModel {
    /// Writes `model.safetensors` and `model.onnx` into the folder `dir`, which is made where it is missing.
    ///
    /// # Errors
    /// A file cannot be written.
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
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a tensor's values fill its shape");
            (name.as_str(), view)
        });
        let about = serde_json::to_string(&self.about).expect("it is plain data");
        let path = dir.join(TENSORS);
        let bytes = safetensors::serialize(views, Some(HashMap::from([(KEY.to_string(), about)])))
            .map_err(|error| Error::Weights { path: path.clone(), message: error.to_string() })?;
        std::fs::write(&path, bytes).map_err(Error::io(&path))?;
        let path = dir.join(ONNX);
        let bytes = Exporter::export(self.model.as_ref(), self.about.dim, self.about.classes.len());
        std::fs::write(&path, bytes).map_err(Error::io(&path))
    }

    /// Reads the model of a run's folder.
    ///
    /// # Errors
    /// The file is missing, is damaged, or was not written by kinoprobe.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join(TENSORS);
        let wrong = |message: String| Error::Weights { path: path.clone(), message };
        let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
        let file =
            SafeTensors::deserialize(&bytes).map_err(|error| wrong(format!("is no safetensors file: {error}")))?;
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| wrong(error.to_string()))?;
        let about =
            metadata.metadata().as_ref().and_then(|metadata| metadata.get(KEY)).ok_or_else(|| {
                wrong("has no metadata of kinoprobe: not a model that kinoprobe-classify wrote".into())
            })?;
        let about: About = serde_json::from_str(about).map_err(|error| wrong(format!("unknown metadata: {error}")))?;
        let mut tensors = Vec::new();
        for (name, view) in file.tensors() {
            if view.dtype() != Dtype::F32 {
                return Err(wrong(format!("tensor {name} is {:?} where f32 belongs", view.dtype())));
            }
            let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes")));
            tensors.push(Tensor { name, shape: view.shape().to_vec(), values: values.collect() });
        }
        let model = restore(about.classifier, about.task, &Tensors::new(&path, tensors))?;
        Ok(Self { about, model })
    }

    /// Predicts the classes of every clip of `data`, whose classes may be others than the model's, or fewer, or in another
    /// order: the predictions' classes are the model's.
    ///
    /// # Errors
    /// The features do not fit the model; a clip has a label that the model does not know, or several where the
    /// model gives one.
    pub fn predict(&self, data: &Dataset) -> Result<Predictions> {
        predict(self.about.task, self.model.as_ref(), &self.about.classes, data)
    }
}

impl SavedModel {
    /// Predicts all parts of `data`, as one table that knows the split of each labeled clip.
    ///
    /// # Errors
    /// As [`SavedModel::predict`].
    pub fn predict_all(&self, data: &DatasetSplits) -> Result<PredictionTable> {
        let classes = self.about.classes.clone();
        let none = Array2::zeros((0, classes.len()));
        let mut all = Predictions::from_scores(self.about.task, vec![], vec![], vec![], none, classes);
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

/// Predictions of a model of `classes` for `data`; see [`SavedModel::predict`].
///
/// # Errors
/// As there.
pub fn predict(task: Task, model: &dyn Model, classes: &[String], data: &Dataset) -> Result<Predictions> {
    if task == Task::SingleLabel && data.targets.iter().any(|target| *target > 0.0) {
        data.single_labels()?;
    }
    // From the data's classes to the model's.
    let known: Vec<Option<usize>> =
        data.classes.iter().map(|label| classes.iter().position(|known| known == label)).collect();
    let truth = |i: usize| -> Result<Vec<usize>> {
        let has = (0..data.classes.len()).filter(|&class| data.targets[(i, class)] > 0.0);
        let class_of = |class: usize| {
            known[class].ok_or_else(|| {
                Error::Data(format!(
                    "clip {} is labeled {}, which the model does not know (it knows {})",
                    data.ids[i],
                    data.classes[class],
                    classes.join(", ")
                ))
            })
        };
        let mut set = has.map(class_of).collect::<Result<Vec<_>>>()?;
        set.sort_unstable();
        Ok(set)
    };
    let truth = (0..data.len()).map(truth).collect::<Result<_>>()?;
    let scores = if data.is_empty() { Array2::zeros((0, classes.len())) } else { model.scores(data)? };
    Ok(Predictions::from_scores(task, data.ids.clone(), data.groups.clone(), truth, scores, classes.to_vec()))
}
