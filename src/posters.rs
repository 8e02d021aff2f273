//! A set of models for posters: one a year, one for all, and what they were trained on. The folder that training writes
//! and the server reads.
//!
//! `posters.json` lists the models; each lies in a folder of its own, as `kinoprobe-classify` writes it.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::classify::SavedModel;
use crate::dataset::Dataset;
use crate::error::{Error, Result};

/// The file that lists the models.
pub const FILE: &str = "posters.json";
/// What `format` must say.
const FORMAT: &str = "kinoprobe-posters";
/// What `format_version` must say.
const FORMAT_VERSION: u32 = 1;

/// How the models divide the posters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// A model a year.
    Year,
    /// One model for all.
    None,
}

/// `posters.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Posters {
    /// `kinoprobe-posters`.
    pub format: String,
    /// 1.
    pub format_version: u32,
    /// The method of the features.
    pub method: String,
    /// Card of the network that made the features.
    pub card: String,
    /// Where its weights came from: `published`, `registry`, `file` or `seeded`.
    pub weights: String,
    /// SHA-256 of its ONNX file.
    pub model_sha256: String,
    /// Whether it was untrained.
    pub untrained: bool,
    /// Whether the posters were drawn by kinoprobe.
    pub demo: bool,
    /// The genres.
    pub labels: Vec<String>,
    /// How the models divide the posters.
    pub by: By,
    /// Years of posters that each year's model saw; none where only its own.
    pub window: Option<u32>,
    /// The models of the years, ascending.
    pub years: Vec<Year>,
    /// The model of all posters.
    pub overall: Option<Trained>,
}

/// The model of one year.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Year {
    /// The year.
    pub year: i32,
    /// The model and what is known of it.
    #[serde(flatten)]
    pub model: Trained,
}

/// A model and what is known of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trained {
    /// Its folder, beside `posters.json`.
    pub folder: String,
    /// A score above which a genre is said, one for each of the model's own classes.
    pub thresholds: Vec<f32>,
    /// Posters by split.
    #[serde(default)]
    pub clips: BTreeMap<String, u64>,
    /// Metrics on the held-out posters.
    #[serde(default)]
    pub metrics: BTreeMap<String, Value>,
}

impl Posters {
    /// Reads and checks `dir/posters.json`.
    ///
    /// # Errors
    /// The file is missing, is not of this format, names no model, or a value does not fit another.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let wrong = |message: String| Error::Config { path: path.clone(), message };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(wrong("no such file: name the folder of a trained set of poster models".into()));
            }
            Err(error) => return Err(Error::io(&path)(error)),
        };
        let posters: Posters = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        posters.check().map_err(wrong)?;
        Ok(posters)
    }

    fn check(&self) -> Result<(), String> {
        if self.format != FORMAT || self.format_version != FORMAT_VERSION {
            let (format, version) = (&self.format, self.format_version);
            return Err(format!("is {format:?} version {version}, where {FORMAT:?} version {FORMAT_VERSION} is read"));
        }
        if self.labels.is_empty() {
            return Err("labels: names no genre".into());
        }
        if let Some(label) = repeated(&self.labels) {
            return Err(format!("labels: {label:?} stands twice"));
        }
        if self.years.is_empty() && self.overall.is_none() {
            return Err("names no model: neither years nor overall".into());
        }
        if self.years.windows(2).any(|pair| pair[0].year >= pair[1].year) {
            return Err("years: not ascending, or one stands twice".into());
        }
        for model in self.models() {
            let mut parts = Path::new(&model.folder).components();
            if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
                return Err(format!("folder {:?} is no plain name", model.folder));
            }
            if model.thresholds.iter().any(|threshold| !(0.0..=1.0).contains(threshold)) {
                return Err(format!("thresholds of {}: must be in [0, 1]", model.folder));
            }
        }
        Ok(())
    }

    fn models(&self) -> impl Iterator<Item = &Trained> {
        self.years.iter().map(|year| &year.model).chain(&self.overall)
    }
}

fn repeated(labels: &[String]) -> Option<&String> {
    labels.iter().enumerate().find(|(i, label)| labels[..*i].contains(label)).map(|(_, label)| label)
}

/// A model of the set, ready to score.
pub struct Head {
    /// The genres it knows, as indices into the set's labels, in the order of its scores.
    pub labels: Vec<usize>,
    /// A score above which a genre is said; one for each of its genres.
    pub thresholds: Vec<f32>,
    saved: SavedModel,
}

/// All models of a set, ready to score.
pub struct PosterModels {
    /// What the set is.
    pub posters: Posters,
    /// One for each of its years.
    pub years: Vec<Head>,
    /// The model of all posters, where there is one.
    pub overall: Option<Head>,
}

/// Scores of one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// For each year the scores of its model's genres.
    pub years: Vec<Vec<f32>>,
    /// The scores of the model of all posters, where there is one.
    pub overall: Option<Vec<f32>>,
}

impl PosterModels {
    /// Reads `posters.json` and the models it names.
    ///
    /// # Errors
    /// As [`Posters::load`]; a model is missing, was fitted to other features, or does not fit what is said of it.
    pub fn load(dir: &Path) -> Result<Self> {
        let posters = Posters::load(dir)?;
        let years =
            posters.years.iter().map(|year| Head::load(dir, &posters, &year.model)).collect::<Result<Vec<_>>>()?;
        let overall = posters.overall.as_ref().map(|model| Head::load(dir, &posters, model)).transpose()?;
        let models = Self { posters, years, overall };
        if let Some(head) = models.heads().find(|head| head.dim() != models.dim()) {
            let message = format!("its models read {} and {} features: train them anew", models.dim(), head.dim());
            return Err(Error::Config { path: dir.join(FILE), message });
        }
        Ok(models)
    }

    fn heads(&self) -> impl Iterator<Item = &Head> {
        self.years.iter().chain(&self.overall)
    }

    /// Features a picture, D.
    pub fn dim(&self) -> usize {
        self.heads().next().map_or(0, Head::dim)
    }

    /// Scores pictures by their embeddings (N, D).
    ///
    /// # Errors
    /// The embeddings are not of the length the models read.
    pub fn scores(&self, embeddings: ArrayView2<'_, f32>) -> Result<Vec<Scores>> {
        let count = embeddings.nrows();
        let data = Dataset {
            ids: (0..count).map(|i| i.to_string()).collect(),
            groups: vec![None; count],
            rows: embeddings.to_owned(),
            offsets: (0..=count).collect(),
            targets: Array2::zeros((count, 0)),
            classes: Vec::new(),
        };
        let years = self.years.iter().map(|head| head.saved.model.scores(&data)).collect::<Result<Vec<_>>>()?;
        let overall = self.overall.as_ref().map(|head| head.saved.model.scores(&data)).transpose()?;
        let of = |scores: &Array2<f32>, i: usize| scores.row(i).to_vec();
        let one = |i| Scores {
            years: years.iter().map(|scores| of(scores, i)).collect(),
            overall: overall.as_ref().map(|scores| of(scores, i)),
        };
        Ok((0..count).map(one).collect())
    }
}

impl Head {
    fn load(dir: &Path, posters: &Posters, model: &Trained) -> Result<Self> {
        let dir = dir.join(&model.folder);
        let saved = SavedModel::load(&dir)?;
        let wrong = |message: String| Error::Config { path: dir.join("model.safetensors"), message };
        let about = &saved.about;
        if about.model_sha256 != posters.model_sha256 {
            return Err(wrong(format!("was fitted to features of another network than {FILE} says: train it anew")));
        }
        if about.classes.len() != model.thresholds.len() {
            let (classes, thresholds) = (about.classes.len(), model.thresholds.len());
            return Err(wrong(format!("knows {classes} genres, and {FILE} gives it {thresholds} thresholds")));
        }
        let label = |class: &String| {
            let index = posters.labels.iter().position(|label| label == class);
            index.ok_or_else(|| wrong(format!("knows a genre {class:?} that {FILE} does not list")))
        };
        let labels = about.classes.iter().map(label).collect::<Result<Vec<_>>>()?;
        Ok(Self { labels, thresholds: model.thresholds.clone(), saved })
    }

    fn dim(&self) -> usize {
        self.saved.about.dim
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn listed() -> Value {
        json!({
            "format": "kinoprobe-posters", "format_version": 1, "method": "effnet", "card": "efficientnet_lite2",
            "weights": "registry", "model_sha256": "ab", "untrained": false, "demo": true, "labels": ["Action", "Drama"],
            "by": "year", "window": 10,
            "years": [
                {"year": 2004, "folder": "2004", "thresholds": [0.5, 0.4], "clips": {"train": 40}, "metrics": {"map": 0.5}},
                {"year": 2005, "folder": "2005", "thresholds": [0.5, 0.4]},
            ],
            "overall": null,
        })
    }

    fn read(value: &Value) -> Result<Posters> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), value.to_string()).unwrap();
        Posters::load(dir.path())
    }

    #[test]
    fn a_list_is_read() {
        let posters = read(&listed()).unwrap();
        assert_eq!((posters.by, posters.window, posters.years.len()), (By::Year, Some(10), 2));
        assert_eq!((posters.years[0].year, posters.years[0].model.clips["train"]), (2004, 40));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_a_sentence() {
        for (pointer, value, expected) in [
            ("/format", json!("kinoprobe-features"), "\"kinoprobe-posters\" version 1 is read"),
            ("/labels", json!([]), "names no genre"),
            ("/labels", json!(["Drama", "Drama"]), "\"Drama\" stands twice"),
            ("/years", json!([]), "names no model"),
            ("/years/1/year", json!(2004), "not ascending"),
            ("/years/0/folder", json!("../2004"), "is no plain name"),
            ("/years/0/thresholds", json!([1.5, 0.1]), "must be in [0, 1]"),
            ("/by", json!("decade"), "unknown variant"),
        ] {
            let mut changed = listed();
            *changed.pointer_mut(pointer).unwrap() = value;
            let error = read(&changed).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(FILE), "{pointer}: {error}");
        }
        let error = Posters::load(Path::new("/nowhere")).unwrap_err().to_string();
        assert!(error.contains("no such file"), "{error}");
    }
}
