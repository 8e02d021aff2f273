//! The models of a set, ready to score pictures.

use std::path::{Component, Path};

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use super::{FILE, Posters};
use crate::classify::SavedModel;
use crate::dataset::Dataset;
use crate::error::{Error, Result};

/// A model of the set, ready to score.
pub struct Head {
    /// The genres it knows, as indices into the set's labels, in the order of its scores.
    pub labels: Vec<usize>,
    /// From which score on a genre is given; one for each of its genres.
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
    /// Reads the posters.json of the folder `dir` and the models it names.
    ///
    /// # Errors
    /// As [`Posters::read`]; it names no model, or a value does not fit another; a model is missing, was fitted to other
    /// features, or does not fit what is said of it.
    pub fn load(dir: &Path) -> Result<Self> {
        let posters = Posters::read(dir)?;
        let wrong = |message: String| Error::Config { path: dir.join(FILE), message };
        check(&posters).map_err(wrong)?;
        let load = |folder: &str, thresholds: &[f32]| Head::load(dir, &posters, folder, thresholds);
        let years =
            posters.years.iter().map(|year| load(&year.folder, &year.thresholds)).collect::<Result<Vec<_>>>()?;
        let overall = posters.overall.as_ref().map(|all| load(&all.folder, &all.thresholds)).transpose()?;
        let models = Self { posters, years, overall };
        if let Some(head) = models.heads().find(|head| head.dim() != models.dim()) {
            let (one, other) = (models.dim(), head.dim());
            return Err(wrong(format!("its models read {one} and {other} features: train them anew")));
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
        let years = self.years.par_iter().map(|head| head.saved.model.scores(&data)).collect::<Result<Vec<_>>>()?;
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
    fn load(dir: &Path, posters: &Posters, folder: &str, thresholds: &[f32]) -> Result<Self> {
        let dir = dir.join(folder);
        let saved = SavedModel::load(&dir)?;
        let wrong = |message: String| Error::Config { path: dir.join("model.safetensors"), message };
        let metadata = &saved.metadata;
        if metadata.model_sha256 != posters.model_sha256 {
            return Err(wrong(format!("was fitted to features of another network than {FILE} says: train it anew")));
        }
        if metadata.classes.len() != thresholds.len() {
            let (classes, thresholds) = (metadata.classes.len(), thresholds.len());
            return Err(wrong(format!("knows {classes} genres, and {FILE} gives it {thresholds} thresholds")));
        }
        let label = |class: &String| {
            let index = posters.labels.iter().position(|label| label == class);
            index.ok_or_else(|| wrong(format!("knows a genre {class:?} that {FILE} does not list")))
        };
        let labels = metadata.classes.iter().map(label).collect::<Result<Vec<_>>>()?;
        Ok(Self { labels, thresholds: thresholds.to_vec(), saved })
    }

    fn dim(&self) -> usize {
        self.saved.metadata.dim
    }
}

/// What the types do not say.
fn check(posters: &Posters) -> Result<(), String> {
    if posters.labels.is_empty() {
        return Err("labels: names no genre".into());
    }
    let repeated = |(i, label): &(usize, &String)| posters.labels[..*i].contains(label);
    if let Some((_, label)) = posters.labels.iter().enumerate().find(repeated) {
        return Err(format!("labels: {label:?} stands twice"));
    }
    if posters.years.is_empty() && posters.overall.is_none() {
        return Err("names no model: neither years nor overall".into());
    }
    if posters.years.windows(2).any(|pair| pair[0].year >= pair[1].year) {
        return Err("years: not ascending, or one stands twice".into());
    }
    let years = posters.years.iter().map(|year| (&year.folder, &year.thresholds));
    for (folder, thresholds) in years.chain(posters.overall.iter().map(|all| (&all.folder, &all.thresholds))) {
        let mut parts = Path::new(folder).components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
            return Err(format!("folder {folder:?} is no plain name"));
        }
        if thresholds.iter().any(|threshold| !threshold.is_finite()) {
            return Err(format!("thresholds of {folder}: not finite"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn listed() -> Value {
        json!({
            "format": "kinoprobe-posters", "format_version": 1, "method": "effnet", "card": "efficientnet_lite2",
            "weights": "registry", "model_sha256": "ab", "untrained": false, "demo": true, "labels": ["Action", "Drama"],
            "by": "year", "window": 10,
            "years": [
                {"year": 2004, "folder": "2004", "thresholds": [0.5, 0.4], "clips": {"train": 40, "val": 5, "test": 5},
                 "metrics": {"map": 0.5}},
                {"year": 2005, "folder": "2005", "thresholds": [0.5, 0.4], "clips": {"train": 40, "val": 0, "test": 0},
                 "metrics": {}},
            ],
            "overall": null,
        })
    }

    fn read(value: &Value) -> Result<Posters> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), value.to_string()).unwrap();
        Posters::read(dir.path()).and_then(|posters| {
            let wrong = |message: String| Error::Config { path: dir.path().join(FILE), message };
            check(&posters).map_err(wrong).map(|()| posters)
        })
    }

    #[test]
    fn a_list_is_read() {
        let posters = read(&listed()).unwrap();
        assert_eq!((posters.window, posters.years.len()), (Some(10), 2));
        assert_eq!((posters.years[0].year, posters.years[0].clips.train), (2004, 40));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_a_sentence() {
        for (pointer, value, expected) in [
            ("/format", json!("kinoprobe-features"), "kinoprobe-posters"),
            ("/labels", json!([]), "names no genre"),
            ("/labels", json!(["Drama", "Drama"]), "\"Drama\" stands twice"),
            ("/years", json!([]), "names no model"),
            ("/years/1/year", json!(2004), "not ascending"),
            ("/years/0/folder", json!("../2004"), "is no plain name"),
            ("/by", json!("decade"), "unknown variant"),
        ] {
            let mut changed = listed();
            *changed.pointer_mut(pointer).unwrap() = value;
            let error = read(&changed).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(FILE), "{pointer}: {error}");
        }
        let error = Posters::read(Path::new("/nowhere")).unwrap_err().to_string();
        assert!(error.contains("posters.json"), "{error}");
    }
}
