//! Feature store ⨝ manifest → rows, targets and splits.

use std::collections::{BTreeSet, HashMap};

use ndarray::{Array2, ArrayView2, Axis, s};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::manifest::imbalance::{self, Resample, Resampled};
use crate::manifest::{Clip, Manifest, Split};
use crate::store::{FeatureStore, Pooling, StoredClip};

/// The prediction task: how many labels a clip has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Exactly one label per clip; the classes are mutually exclusive.
    #[default]
    SingleLabel,
    /// Any number of labels per clip; each class is a separate binary decision.
    MultiLabel,
}

/// Clips ready for a classifier.
///
/// Clip `i` owns the rows `offsets[i]..offsets[i + 1]` of `rows`: one row for pooled features, several for a sequence.
/// Targets are multi-hot, so that single-label and multi-label data take one path.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// Clip ids, N of them.
    pub ids: Vec<String>,
    /// Clip groups; bootstrap intervals draw whole groups.
    pub groups: Vec<Option<String>>,
    /// Features, (rows, D).
    pub rows: Array2<f32>,
    /// N + 1 row offsets.
    pub offsets: Vec<usize>,
    /// Targets, (N, C), 0 or 1; a row of zeros is an unlabeled clip.
    pub targets: Array2<f32>,
    /// Class names in natural order (`2` before `10`), C of them.
    pub classes: Vec<String>,
}

/// The clips of a manifest that have features, by what they are for. All parts have the same classes and D.
#[derive(Debug, Clone)]
pub struct Joined {
    /// Multi-label where a clip that has a split has several labels; a recipe may say otherwise.
    pub task: Task,
    /// Labeled clips of the training split.
    pub train: Dataset,
    /// What is trained on in place of `train`, where [`Joined::resample`] made it: clips left out, clips that stand several times.
    pub resampled: Option<Dataset>,
    /// Labeled clips of the validation split; may be empty.
    pub val: Dataset,
    /// Labeled clips of the test split; may be empty.
    pub test: Dataset,
    /// Clips without a label, whatever their split.
    pub unlabeled: Dataset,
    /// What the user should know: clips left out, and why.
    pub warnings: Vec<String>,
}

impl Joined {
    /// The labeled parts with their splits.
    pub fn splits(&self) -> [(Split, &Dataset); 3] {
        [(Split::Train, &self.train), (Split::Val, &self.val), (Split::Test, &self.test)]
    }

    /// What is trained on.
    pub fn training(&self) -> &Dataset {
        self.resampled.as_ref().unwrap_or(&self.train)
    }

    /// The clips of each part that `wanted` takes, by split (`None`: the unlabeled ones) and id; the classes stay.
    pub fn filter(&self, wanted: impl Fn(Option<Split>, &str) -> bool) -> Joined {
        let part = |split: Option<Split>, part: &Dataset| {
            part.select(&(0..part.len()).filter(|&i| wanted(split, &part.ids[i])).collect::<Vec<_>>())
        };
        Joined {
            task: self.task,
            train: part(Some(Split::Train), &self.train),
            resampled: self.resampled.as_ref().map(|clips| part(Some(Split::Train), clips)),
            val: part(Some(Split::Val), &self.val),
            test: part(Some(Split::Test), &self.test),
            unlabeled: part(None, &self.unlabeled),
            warnings: self.warnings.clone(),
        }
    }

    /// Evens out the training clips by their label sets; `seed` draws those that are left out or repeated.
    pub fn resample(&mut self, rule: Resample, seed: u64) -> Resampled {
        let Resample::Compose { low, high } = rule;
        let resampled = imbalance::resample_by_label_set(&self.train.label_sets(), low, high, seed);
        self.resampled = Some(self.train.select(&resampled.indices));
        let (before, after) = (self.train.len(), resampled.indices.len());
        self.warnings.push(format!("resampled by label set: {before} training clips became {after}"));
        resampled
    }
}

impl Dataset {
    /// Number of clips.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no clip.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The rows of clip `i`, (length, D).
    pub fn clip(&self, i: usize) -> ArrayView2<'_, f32> {
        self.rows.slice(s![self.offsets[i]..self.offsets[i + 1], ..])
    }

    /// Features a row, D.
    pub fn dim(&self) -> usize {
        self.rows.ncols()
    }

    /// The same clips with other features, one row for one.
    pub fn with_rows(&self, rows: Array2<f32>) -> Dataset {
        assert_eq!(rows.nrows(), self.rows.nrows(), "every row is replaced");
        Dataset { rows, ..self.clone_without_rows() }
    }

    /// The clips at `indices`, in that order; a clip may stand there several times.
    pub fn select(&self, indices: &[usize]) -> Dataset {
        let mut offsets = vec![0];
        let mut rows = Vec::new();
        for &i in indices {
            rows.extend(self.offsets[i]..self.offsets[i + 1]);
            offsets.push(rows.len());
        }
        Dataset {
            ids: indices.iter().map(|&i| self.ids[i].clone()).collect(),
            groups: indices.iter().map(|&i| self.groups[i].clone()).collect(),
            rows: self.rows.select(Axis(0), &rows),
            offsets,
            targets: self.targets.select(Axis(0), indices),
            classes: self.classes.clone(),
        }
    }

    /// The labels of every clip, as rising indices below C.
    pub fn label_sets(&self) -> Vec<Vec<usize>> {
        let has = |i: usize| (0..self.classes.len()).filter(move |&class| self.targets[(i, class)] > 0.0).collect();
        (0..self.len()).map(has).collect()
    }

    fn clone_without_rows(&self) -> Dataset {
        Dataset {
            ids: self.ids.clone(),
            groups: self.groups.clone(),
            rows: Array2::zeros((0, 0)),
            offsets: self.offsets.clone(),
            targets: self.targets.clone(),
            classes: self.classes.clone(),
        }
    }

    /// The features as one vector a clip, (N, D).
    ///
    /// # Errors
    /// A clip has no row, or several: it is a sequence.
    pub fn vectors(&self) -> Result<ArrayView2<'_, f32>> {
        match self.offsets.windows(2).position(|pair| pair[1] - pair[0] != 1) {
            None => Ok(self.rows.view()),
            Some(i) => Err(Error::Data(format!(
                "clip {} has {} rows of features where the classifier reads one vector a clip",
                self.ids[i],
                self.offsets[i + 1] - self.offsets[i]
            ))),
        }
    }

    /// The one class of every clip, an index below C.
    ///
    /// # Errors
    /// A clip has no label, or several.
    pub fn single_labels(&self) -> Result<Vec<usize>> {
        (0..self.len())
            .map(|i| {
                let labels: Vec<usize> = (0..self.classes.len()).filter(|&c| self.targets[(i, c)] > 0.0).collect();
                match labels[..] {
                    [class] => Ok(class),
                    [] => Err(Error::Data(format!("clip {} has no label", self.ids[i]))),
                    _ => Err(Error::Data(format!(
                        "clip {} has {} labels ({}), and this classifier takes one a clip; keep one in the manifest",
                        self.ids[i],
                        labels.len(),
                        labels.iter().map(|&c| self.classes[c].as_str()).collect::<Vec<_>>().join(", ")
                    ))),
                }
            })
            .collect()
    }

    /// Joins the features of `store`, pooled or as sequences (of which only those of the manifest's clips are read), to the clips of `manifest` by id, in the manifest's order.
    ///
    /// Classes are the labels of all clips with a split, in natural order. Clips without features are left out with a warning that
    /// gives the store's reason where it has one, and so are labeled clips without a split where others have one.
    ///
    /// # Errors
    /// No training clip; a split that has clips in the manifest has none with features; a class has no training clip with
    /// features; a feature is not finite.
    pub fn join(store: &FeatureStore, manifest: &Manifest, pooling: Pooling) -> Result<Joined> {
        let (joined, missing) = Self::gather(store, manifest, pooling)?;
        joined.check(store, manifest, &missing)?;
        Ok(joined)
    }

    /// As [`Dataset::join`] for a model that is already fitted: the manifest needs no training clip. Where no clip has a
    /// split, all labeled ones count as test, which is what they are to the model.
    ///
    /// # Errors
    /// No clip has features; a feature is not finite.
    pub fn join_fitted(store: &FeatureStore, manifest: &Manifest, pooling: Pooling) -> Result<Joined> {
        let mut manifest = manifest.clone();
        if manifest.clips.iter().all(|clip| clip.split.is_none() || clip.labels.is_empty()) {
            manifest.clips.iter_mut().for_each(|clip| clip.split = Some(Split::Test));
        }
        let (joined, missing) = Self::gather(store, &manifest, pooling)?;
        if joined.splits().iter().all(|(_, part)| part.is_empty()) && joined.unlabeled.is_empty() {
            let clips = if missing.is_empty() { String::new() } else { format!(": {}", first_few(&missing)) };
            return Err(Error::Data(format!(
                "{}: no clip has features in {}{clips}",
                manifest.source.display(),
                store.path().display()
            )));
        }
        Ok(joined)
    }

    /// The parts, and the ids (with the reason) of the clips that have no features.
    fn gather(store: &FeatureStore, manifest: &Manifest, pooling: Pooling) -> Result<(Joined, Vec<String>)> {
        let pooled = match pooling {
            Pooling::None => None,
            pooling => Some(store.pooled(pooling)?),
        };
        let stored: HashMap<&str, usize> =
            store.clips().iter().zip(0..).map(|(clip, i)| (clip.id.as_str(), i)).collect();
        let failures: HashMap<&str, String> = store
            .failures()
            .iter()
            .map(|failure| (failure.id.as_str(), format!("{}: {}", failure.stage, failure.error)))
            .collect();
        let mut warnings = Vec::new();

        let missing: Vec<String> = manifest
            .clips
            .iter()
            .filter(|clip| !stored.contains_key(clip.id.as_str()))
            .map(|clip| match failures.get(clip.id.as_str()) {
                Some(why) => format!("{} ({why})", clip.id),
                None => clip.id.clone(),
            })
            .collect();
        if !missing.is_empty() {
            warnings.push(format!(
                "{} of {} clips of the manifest have no features in {} and are left out: {}",
                missing.len(),
                manifest.clips.len(),
                store.path().display(),
                first_few(&missing)
            ));
        }
        let known: BTreeSet<&str> = manifest.clips.iter().map(|clip| clip.id.as_str()).collect();
        let surplus: Vec<String> =
            store.clips().iter().filter(|clip| !known.contains(clip.id.as_str())).map(|clip| clip.id.clone()).collect();
        if !surplus.is_empty() {
            warnings.push(format!(
                "{} clips of {} are not in the manifest and are left out: {}",
                surplus.len(),
                store.path().display(),
                first_few(&surplus)
            ));
        }
        let adrift: Vec<String> = manifest
            .clips
            .iter()
            .filter(|clip| !clip.labels.is_empty() && clip.split.is_none())
            .map(|clip| clip.id.clone())
            .collect();
        if !adrift.is_empty() {
            warnings.push(format!(
                "{} labeled clips have no split and are left out: {}",
                adrift.len(),
                first_few(&adrift)
            ));
        }

        let used: BTreeSet<&str> = manifest
            .clips
            .iter()
            .filter(|clip| clip.split.is_some())
            .flat_map(|clip| clip.labels.iter().map(String::as_str))
            .collect();
        let classes: Vec<String> =
            manifest.classes().into_iter().filter(|class| used.contains(class.as_str())).collect();
        let index: HashMap<&str, usize> = classes.iter().map(String::as_str).zip(0..).collect();
        let gather = |wanted: &dyn Fn(&Clip) -> bool| -> Result<Dataset> {
            let chosen: Vec<(&Clip, usize)> = manifest
                .clips
                .iter()
                .filter(|clip| wanted(clip))
                .filter_map(|clip| stored.get(clip.id.as_str()).map(|&row| (clip, row)))
                .collect();
            let mut offsets = vec![0];
            for (_, stored) in &chosen {
                let length = if pooled.is_some() { 1 } else { store.clips()[*stored].length };
                offsets.push(offsets[offsets.len() - 1] + length);
            }
            let mut rows = Array2::zeros((offsets[chosen.len()], store.dim()));
            let mut targets = Array2::zeros((chosen.len(), classes.len()));
            for (i, (clip, stored)) in chosen.iter().enumerate() {
                let features = match &pooled {
                    Some(pooled) => pooled.slice(s![*stored..*stored + 1, ..]).to_owned(),
                    None => {
                        let StoredClip { offset, length, .. } = store.clips()[*stored];
                        store.features(offset..offset + length)?
                    }
                };
                if let Some(((row, column), value)) = features.indexed_iter().find(|(_, value)| !value.is_finite()) {
                    let of_row = if pooled.is_some() { String::new() } else { format!(" of row {row}") };
                    return Err(Error::Store {
                        path: store.path().to_path_buf(),
                        message: format!(
                            "feature {column}{of_row} of clip {} is {value}; extract the clip anew",
                            clip.id
                        ),
                    });
                }
                rows.slice_mut(s![offsets[i]..offsets[i + 1], ..]).assign(&features);
                for label in &clip.labels {
                    if let Some(class) = index.get(label.as_str()) {
                        targets[(i, *class)] = 1.0;
                    }
                }
            }
            Ok(Dataset {
                ids: chosen.iter().map(|(clip, _)| clip.id.clone()).collect(),
                groups: chosen.iter().map(|(clip, _)| clip.group.clone()).collect(),
                rows,
                offsets,
                targets,
                classes: classes.clone(),
            })
        };
        let of_split = |split: Split| gather(&|clip| clip.split == Some(split) && !clip.labels.is_empty());
        let several = manifest.clips.iter().any(|clip| clip.split.is_some() && clip.labels.len() > 1);
        let joined = Joined {
            task: if several { Task::MultiLabel } else { Task::SingleLabel },
            train: of_split(Split::Train)?,
            resampled: None,
            val: of_split(Split::Val)?,
            test: of_split(Split::Test)?,
            unlabeled: gather(&|clip| clip.labels.is_empty())?,
            warnings,
        };
        Ok((joined, missing))
    }
}

impl Joined {
    fn check(&self, store: &FeatureStore, manifest: &Manifest, missing: &[String]) -> Result<()> {
        let because = |message: String| {
            Error::Data(if missing.is_empty() {
                format!("{}: {message}", manifest.source.display())
            } else {
                format!(
                    "{}: {message}; {} clips have no features in {}: {}",
                    manifest.source.display(),
                    missing.len(),
                    store.path().display(),
                    first_few(missing)
                )
            })
        };
        for (split, part) in self.splits() {
            let planned = manifest.clips.iter().filter(|c| c.split == Some(split) && !c.labels.is_empty()).count();
            if part.is_empty() && planned > 0 {
                return Err(because(format!("none of the {planned} clips of the split {} has features", split.name())));
            }
        }
        if self.train.is_empty() {
            return Err(because("no labeled clip is in the split train".into()));
        }
        let columns = self.train.targets.columns();
        let empty: Vec<String> = columns
            .into_iter()
            .zip(&self.train.classes)
            .filter(|(column, _)| column.iter().all(|target| *target == 0.0))
            .map(|(_, class)| class.clone())
            .collect();
        if !empty.is_empty() {
            return Err(because(format!(
                "no training clip with features for {}; add clips, or take the clips so labeled out of the manifest",
                if empty.len() == 1 { format!("class {}", empty[0]) } else { format!("classes {}", first_few(&empty)) }
            )));
        }
        Ok(())
    }
}

/// The first five, and how many more there are.
fn first_few(names: &[String]) -> String {
    let shown = names.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > 5 { format!("{shown} and {} more", names.len() - 5) } else { shown }
}
