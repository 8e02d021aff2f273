//! The loaded models of a set, which score images.

use std::path::{Component, Path};

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use super::{INDEX_FILE, PosterIndex};
use crate::classify::SavedModel;
use crate::dataset::{Dataset, Task};
use crate::error::{Error, Result};
use crate::evaluate::predictions::DEFAULT_THRESHOLD;
use crate::models::Precision;

/// A loaded model of the set.
pub struct Head {
    /// The genres of the model in the order of its scores, as indices into the labels of the set.
    pub labels: Vec<usize>,
    /// Score thresholds of the genres of the model.
    pub thresholds: Vec<f32>,
    saved: SavedModel,
}

/// All loaded models of a set.
pub struct PosterModels {
    /// The contents of posters.json.
    pub posters: PosterIndex,
    /// One model per year.
    pub years: Vec<Head>,
    /// The model for all posters, if there is one.
    pub overall: Option<Head>,
    /// `true` for the model of a single run, which is not one of posters.
    pub is_run: bool,
}

/// Scores of one image.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// Scores of the genres of each year's model.
    pub years: Vec<Vec<f32>>,
    /// Scores of the model for all posters, if there is one.
    pub overall: Option<Vec<f32>>,
}

impl PosterModels {
    /// Reads the posters.json of the directory `dir` and the models it lists.
    ///
    /// # Errors
    /// Returns an error if posters.json cannot be read (see [`PosterIndex::read`]), lists no models or is inconsistent, or if a model
    /// is missing, was fitted to features of another network or precision, or does not match posters.json.
    pub fn load(dir: &Path) -> Result<Self> {
        let posters = PosterIndex::read(dir)?;
        let invalid = |message: String| Error::Config { path: dir.join(INDEX_FILE), message };
        validate(&posters).map_err(invalid)?;
        let load = |directory: &str, thresholds: &[f32]| Head::load(dir, &posters, directory, thresholds);
        let years =
            posters.years.iter().map(|year| load(&year.directory, &year.thresholds)).collect::<Result<Vec<_>>>()?;
        let overall = posters.overall.as_ref().map(|all| load(&all.directory, &all.thresholds)).transpose()?;
        let models = Self { posters, years, overall, is_run: false };
        if let Some(head) = models.heads().find(|head| head.dim() != models.dim()) {
            let (one, other) = (models.dim(), head.dim());
            return Err(invalid(format!("the models expect {one} and {other} features: train them again")));
        }
        Ok(models)
    }

    /// Returns the model of a single run, as that of all images, with its card and the precision of its network.
    pub fn of_run(saved: SavedModel, card: String, precision: Precision) -> Self {
        let metadata = &saved.metadata;
        let posters = PosterIndex {
            identity: metadata.identity.clone(),
            card,
            precision,
            labels: metadata.classes.clone(),
            ..PosterIndex::new()
        };
        let classes = metadata.classes.len();
        let thresholds = metadata.thresholds.clone().unwrap_or_else(|| vec![DEFAULT_THRESHOLD; classes]);
        let overall = Some(Head { labels: (0..classes).collect(), thresholds, saved });
        Self { posters, years: Vec::new(), overall, is_run: true }
    }

    /// Returns `true` if the labels exclude each other, so that one of them is predicted. Models of posters are multi-label.
    pub fn is_single_label(&self) -> bool {
        self.is_run && self.posters.identity.task == Task::SingleLabel
    }

    fn heads(&self) -> impl Iterator<Item = &Head> {
        self.years.iter().chain(&self.overall)
    }

    /// Returns the number of features per image, D.
    pub fn dim(&self) -> usize {
        self.heads().next().map_or(0, Head::dim)
    }

    /// Returns the precision of the features that the models were fitted to, as stores record it.
    pub fn precision(&self) -> &str {
        self.heads().next().map_or("", |head| &head.saved.metadata.precision)
    }

    /// Computes the scores of images from their embeddings (N, D).
    ///
    /// # Errors
    /// Returns an error if the length of the embeddings does not match the models.
    pub fn scores(&self, embeddings: ArrayView2<'_, f32>) -> Result<Vec<Scores>> {
        let count = embeddings.nrows();
        let data = Dataset {
            ids: (0..count).map(|i| i.to_string()).collect(),
            groups: vec![None; count],
            rows: embeddings.to_owned().into(),
            offsets: (0..=count).collect(),
            targets: Array2::zeros((count, 0)),
            classes: Vec::new(),
        };
        let years = self.years.par_iter().map(|head| head.saved.model.scores(&data)).collect::<Result<Vec<_>>>()?;
        let overall = self.overall.as_ref().map(|head| head.saved.model.scores(&data)).transpose()?;
        let row = |scores: &Array2<f32>, i: usize| scores.row(i).to_vec();
        let image_scores = |i| Scores {
            years: years.iter().map(|scores| row(scores, i)).collect(),
            overall: overall.as_ref().map(|scores| row(scores, i)),
        };
        Ok((0..count).map(image_scores).collect())
    }
}

impl Head {
    /// Returns the bytes of an ONNX file with the model.
    pub fn to_onnx(&self) -> Vec<u8> {
        self.saved.to_onnx()
    }

    fn load(dir: &Path, posters: &PosterIndex, directory: &str, thresholds: &[f32]) -> Result<Self> {
        let dir = dir.join(directory);
        let saved = SavedModel::load(&dir)?;
        let invalid = |message: String| Error::Config { path: dir.join("model.safetensors"), message };
        let metadata = &saved.metadata;
        if metadata.identity.model_sha256 != posters.identity.model_sha256 {
            return Err(invalid(format!(
                "was fitted to features of another network than the one in {INDEX_FILE}: train it again"
            )));
        }
        if !posters.precision.yields(&metadata.precision) {
            return Err(invalid(format!(
                "was fitted to features of precision {}, but {INDEX_FILE} lists {}: train it again",
                metadata.precision, posters.precision
            )));
        }
        if metadata.classes.len() != thresholds.len() {
            let (classes, thresholds) = (metadata.classes.len(), thresholds.len());
            return Err(invalid(format!("has {classes} genres, but {INDEX_FILE} lists {thresholds} thresholds")));
        }
        let label = |class: &String| {
            let index = posters.labels.iter().position(|label| label == class);
            index.ok_or_else(|| invalid(format!("has the genre {class:?}, which {INDEX_FILE} does not list")))
        };
        let labels = metadata.classes.iter().map(label).collect::<Result<Vec<_>>>()?;
        Ok(Self { labels, thresholds: thresholds.to_vec(), saved })
    }

    fn dim(&self) -> usize {
        self.saved.metadata.dim
    }
}

/// Checks the consistency of posters.json.
fn validate(posters: &PosterIndex) -> Result<(), String> {
    if posters.labels.is_empty() {
        return Err("labels: the list is empty".into());
    }
    let repeated = |(i, label): &(usize, &String)| posters.labels[..*i].contains(label);
    if let Some((_, label)) = posters.labels.iter().enumerate().find(repeated) {
        return Err(format!("labels: {label:?} is listed twice"));
    }
    if posters.years.is_empty() && posters.overall.is_none() {
        return Err("no models: years is empty and overall is null".into());
    }
    if posters.years.windows(2).any(|pair| pair[0].year >= pair[1].year) {
        return Err("years: not strictly ascending".into());
    }
    let years = posters.years.iter().map(|year| (&year.directory, &year.thresholds));
    for (directory, thresholds) in years.chain(posters.overall.iter().map(|all| (&all.directory, &all.thresholds))) {
        let mut parts = Path::new(directory).components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
            return Err(format!("directory {directory:?} is not a single path component"));
        }
        if thresholds.iter().any(|threshold| !threshold.is_finite()) {
            return Err(format!("thresholds of {directory} are not finite"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn valid_file() -> Value {
        json!({
            "format": "kinoprobe-posters", "format_version": 1, "method": "effnet", "card": "efficientnet_lite2",
            "weights": "registry", "model_sha256": "ab", "untrained": false, "demo": true, "labels": ["Action", "Drama"],
            "by": "year", "window": 10,
            "years": [
                {"year": 2004, "directory": "2004", "thresholds": [0.5, 0.4], "clips": {"train": 40, "val": 5, "test": 5},
                 "metrics": {"map": 0.5}},
                {"year": 2005, "directory": "2005", "thresholds": [0.5, 0.4], "clips": {"train": 40, "val": 0, "test": 0},
                 "metrics": {}},
            ],
            "overall": null,
        })
    }

    fn read(value: &Value) -> Result<PosterIndex> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(INDEX_FILE), value.to_string()).unwrap();
        PosterIndex::read(dir.path()).and_then(|posters| {
            let invalid = |message: String| Error::Config { path: dir.path().join(INDEX_FILE), message };
            validate(&posters).map_err(invalid).map(|()| posters)
        })
    }

    #[test]
    fn reads_a_valid_file() {
        let posters = read(&valid_file()).unwrap();
        assert_eq!((posters.window, posters.years.len()), (Some(10), 2));
        assert_eq!(posters.precision, Precision::Auto, "the precision of files without the key");
        assert_eq!((posters.years[0].year, posters.years[0].clips.train), (2004, 40));
    }

    #[test]
    fn rejects_inconsistent_files() {
        for (pointer, value, expected) in [
            ("/format", json!("kinoprobe-features"), "kinoprobe-posters"),
            ("/labels", json!([]), "the list is empty"),
            ("/labels", json!(["Drama", "Drama"]), "\"Drama\" is listed twice"),
            ("/years", json!([]), "no models: years is empty"),
            ("/years/1/year", json!(2004), "not strictly ascending"),
            ("/years/0/directory", json!("../2004"), "is not a single path component"),
            ("/by", json!("decade"), "unknown variant"),
            ("/precision", json!("f64"), "unknown variant `f64`, expected one of `auto`, `f32`, `tf32`"),
        ] {
            let mut changed = valid_file();
            changed["precision"] = json!("f32");
            *changed.pointer_mut(pointer).unwrap() = value;
            let error = read(&changed).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(INDEX_FILE), "{pointer}: {error}");
        }
        let error = PosterIndex::read(Path::new("/nowhere")).unwrap_err().to_string();
        assert!(error.contains("posters.json"), "{error}");
    }
}
