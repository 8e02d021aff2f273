//! Joins a feature store with a manifest: features, targets and splits for classifiers.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use ndarray::{Array2, ArrayViewMut2, Axis, CowArray, Ix2, concatenate};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::manifest::Split;
use crate::manifest::imbalance::{self, Resample, Resampled};

mod join;
mod rows;
mod standardizer;

pub use rows::Rows;
pub use standardizer::Standardizer;

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

/// Features and targets of N clips over C classes.
///
/// The features of clip `i` are the rows `offsets[i]..offsets[i + 1]`: one row if features are pooled, several for a
/// sequence. Targets are multi-hot for single-label and multi-label tasks.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Ids of the clips (N).
    pub ids: Vec<String>,
    /// Groups of the clips (N); bootstrap intervals resample groups.
    pub groups: Vec<Option<String>>,
    /// Features, (R, D); `Array2::into` creates them from a matrix.
    pub rows: Rows,
    /// Row offsets (N + 1).
    pub offsets: Vec<usize>,
    /// Targets, (N, C), 0 or 1; all zeros for an unlabeled clip.
    pub targets: Array2<f32>,
    /// Class names in natural order (`2` before `10`), (C).
    pub classes: Vec<String>,
}

/// The clips of a manifest that have features, by split. All datasets have the same classes and feature dimension.
#[derive(Debug, Clone)]
pub struct DatasetSplits {
    /// Multi-label if a clip with a split has several labels, otherwise single-label; a recipe may override it.
    pub task: Task,
    /// Labeled clips of the training split.
    pub train: Dataset,
    /// Training clips after [`DatasetSplits::resample`], with omitted and repeated clips.
    pub resampled: Option<Dataset>,
    /// Labeled clips of the validation split; may be empty.
    pub val: Dataset,
    /// Labeled clips of the test split; may be empty.
    pub test: Dataset,
    /// Unlabeled clips of all splits.
    pub unlabeled: Dataset,
    /// Warnings for the user: excluded clips, with the reason.
    pub warnings: Vec<String>,
}

impl DatasetSplits {
    /// Returns the labeled splits.
    pub fn splits(&self) -> [(Split, &Dataset); 3] {
        [(Split::Train, &self.train), (Split::Val, &self.val), (Split::Test, &self.test)]
    }

    /// Returns the clips to train on: the resampled ones, if any.
    pub fn training_set(&self) -> &Dataset {
        self.resampled.as_ref().unwrap_or(&self.train)
    }

    /// Returns a warning if labeled clips of the validation or test split have the same features as a training clip.
    ///
    /// # Errors
    /// Returns an error if the features cannot be read.
    fn leakage_warning(&self) -> Result<Option<String>> {
        // Hashes, since the features may not fit in memory.
        let mut trained: HashMap<u64, usize> = HashMap::with_capacity(self.train.len());
        for i in 0..self.train.len() {
            trained.insert(hash(&self.train, i)?, i);
        }
        let (mut copies, mut first) = (0, None);
        for clips in [&self.val, &self.test] {
            for i in 0..clips.len() {
                let Some(&original) = trained.get(&hash(clips, i)?) else { continue };
                if clips.clip(i)? == self.train.clip(original)? {
                    copies += 1;
                    first.get_or_insert_with(|| format!("`{}` and `{}`", clips.ids[i], self.train.ids[original]));
                }
            }
        }
        let held_out = self.val.len() + self.test.len();
        Ok(first.map(|first| {
            format!(
                "{copies} of {held_out} validation and test clips have the same features as a training clip, such as {first}: \
                 results on them are too high"
            )
        }))
    }

    /// Selects clips by split (`None` for unlabeled clips) and id. The classes do not change.
    pub fn filter(&self, keep: impl Fn(Option<Split>, &str) -> bool) -> DatasetSplits {
        let select = |split: Option<Split>, clips: &Dataset| {
            clips.select(&(0..clips.len()).filter(|&i| keep(split, &clips.ids[i])).collect::<Vec<_>>())
        };
        DatasetSplits {
            task: self.task,
            train: select(Some(Split::Train), &self.train),
            resampled: self.resampled.as_ref().map(|clips| select(Some(Split::Train), clips)),
            val: select(Some(Split::Val), &self.val),
            test: select(Some(Split::Test), &self.test),
            unlabeled: select(None, &self.unlabeled),
            warnings: self.warnings.clone(),
        }
    }

    /// Resamples the training clips by label set (see [`imbalance::resample_by_label_set`]).
    pub fn resample(&mut self, rule: Resample, seed: u64) -> Resampled {
        let Resample::Compose { low, high } = rule;
        let resampled = imbalance::resample_by_label_set(&self.train.label_sets(), low, high, seed);
        self.resampled = Some(self.train.select(&resampled.indices));
        let (before, after) = (self.train.len(), resampled.indices.len());
        self.warnings.push(format!("resampled {before} training clips to {after} by label set"));
        resampled
    }
}

/// Returns a hash of the features of clip `i`.
fn hash(clips: &Dataset, i: usize) -> Result<u64> {
    let rows = clips.clip(i)?;
    let mut hasher = DefaultHasher::new();
    hasher.write_usize(rows.nrows());
    rows.rows()
        .into_iter()
        .for_each(|row| hasher.write(bytemuck::cast_slice(row.to_slice().expect("rows are contiguous"))));
    Ok(hasher.finish())
}

impl Dataset {
    /// Returns the number of clips, N.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Returns `true` if there are no clips.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Returns the features of clip `i`, (length, D).
    ///
    /// # Errors
    /// Returns an error if the features are in a store and cannot be read.
    pub fn clip(&self, i: usize) -> Result<CowArray<'_, f32, Ix2>> {
        self.rows.clip(&self.offsets, i)
    }

    /// Copies the features of clip `i` to `out`, (length, D).
    ///
    /// # Errors
    /// See [`Dataset::clip`].
    pub fn copy_clip(&self, i: usize, out: ArrayViewMut2<'_, f32>) -> Result<()> {
        self.rows.copy_clip(&self.offsets, i, out)
    }

    /// Returns the feature dimension, D.
    pub fn dim(&self) -> usize {
        self.rows.dim()
    }

    /// Replaces the features, (R, D').
    ///
    /// # Panics
    /// Panics if the number of rows differs.
    pub fn with_rows(&self, rows: Array2<f32>) -> Dataset {
        assert_eq!(Some(&rows.nrows()), self.offsets.last(), "one new row per row");
        Dataset { rows: rows.into(), ..self.clone() }
    }

    /// Standardizes the features. They are standardized where they are read, so that there is no copy of them.
    ///
    /// # Errors
    /// Returns an error if the standardizer was fitted to another number of features.
    pub fn standardized(&self, standardizer: &Arc<Standardizer>) -> Result<Dataset> {
        standardizer.check_dim(self.dim())?;
        Ok(Dataset { rows: self.rows.standardized(standardizer.clone()), ..self.clone() })
    }

    /// Selects the clips at `indices`, in that order, with repetitions.
    pub fn select(&self, indices: &[usize]) -> Dataset {
        let mut offsets = vec![0];
        for (clip, &i) in indices.iter().enumerate() {
            offsets.push(offsets[clip] + self.offsets[i + 1] - self.offsets[i]);
        }
        Dataset {
            ids: indices.iter().map(|&i| self.ids[i].clone()).collect(),
            groups: indices.iter().map(|&i| self.groups[i].clone()).collect(),
            rows: self.rows.select(&self.offsets, indices),
            offsets,
            targets: self.targets.select(Axis(0), indices),
            classes: self.classes.clone(),
        }
    }

    /// Returns the clips of both datasets, which have the same classes. Features are copied unless both select clips of one dataset.
    ///
    /// # Errors
    /// Returns an error if features are copied and cannot be read.
    ///
    /// # Panics
    /// Panics if the numbers of features or classes differ.
    pub fn append(&self, other: &Dataset) -> Result<Dataset> {
        let rows = self.offsets[self.len()];
        Ok(Dataset {
            ids: [&self.ids[..], &other.ids].concat(),
            groups: [&self.groups[..], &other.groups].concat(),
            rows: self.rows.append(&self.offsets, &other.rows, &other.offsets)?,
            offsets: self
                .offsets
                .iter()
                .copied()
                .chain(other.offsets[1..].iter().map(|offset| rows + offset))
                .collect(),
            targets: concatenate![Axis(0), self.targets, other.targets],
            classes: self.classes.clone(),
        })
    }

    /// Returns the classes of every clip as ascending indices.
    pub fn label_sets(&self) -> Vec<Vec<usize>> {
        (0..self.len()).map(|i| self.label_set(i)).collect()
    }

    fn label_set(&self, i: usize) -> Vec<usize> {
        (0..self.classes.len()).filter(|&class| self.targets[(i, class)] > 0.0).collect()
    }

    /// Returns the features as one vector per clip, (N, D). They are copied if clips were selected or features are standardized.
    ///
    /// # Errors
    /// Returns an error if the features of a clip are a sequence (not exactly one row), or cannot be read.
    pub fn vectors(&self) -> Result<CowArray<'_, f32, Ix2>> {
        self.check_vectors()?;
        self.rows.all(&self.offsets)
    }

    /// Checks that the features are one vector per clip.
    ///
    /// # Errors
    /// Returns an error if the features of a clip are a sequence (not exactly one row).
    pub fn check_vectors(&self) -> Result<()> {
        match self.offsets.windows(2).position(|pair| pair[1] - pair[0] != 1) {
            None => Ok(()),
            Some(i) => Err(Error::Data(format!(
                "clip {} has {} feature rows, but the classifier needs one vector per clip; set a pooling",
                self.ids[i],
                self.offsets[i + 1] - self.offsets[i]
            ))),
        }
    }

    /// Returns the class index of every clip, (N).
    ///
    /// # Errors
    /// Returns an error if a clip does not have exactly one label.
    pub fn single_labels(&self) -> Result<Vec<usize>> {
        (0..self.len())
            .map(|i| {
                let labels = self.label_set(i);
                match labels[..] {
                    [class] => Ok(class),
                    [] => Err(Error::Data(format!("clip {} has no label", self.ids[i]))),
                    _ => Err(Error::Data(format!(
                        "clip {} has {} labels ({}), but this classifier needs one per clip; keep one in the manifest",
                        self.ids[i],
                        labels.len(),
                        labels.iter().map(|&c| self.classes[c].as_str()).collect::<Vec<_>>().join(", ")
                    ))),
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn held_out_clips_with_features_of_training_clips_are_reported() {
        let dataset = |name: &str, rows: Array2<f32>| {
            let n = rows.nrows() / 2;
            Dataset {
                ids: (0..n).map(|i| format!("{name}{i}")).collect(),
                groups: vec![None; n],
                rows: rows.into(),
                offsets: (0..=n).map(|i| 2 * i).collect(),
                targets: Array2::ones((n, 1)),
                classes: vec!["x".into()],
            }
        };
        let mut splits = DatasetSplits {
            task: Task::SingleLabel,
            train: dataset("train", array![[1.0], [2.0], [3.0], [4.0]]),
            resampled: None,
            val: dataset("val", array![[3.0], [4.0]]),
            test: dataset("test", array![[2.0], [3.0], [1.0], [2.0]]),
            unlabeled: dataset("new", array![[1.0], [2.0]]),
            warnings: Vec::new(),
        };
        let expected = "2 of 3 validation and test clips have the same features as a training clip, such as `val0` and \
                        `train1`: results on them are too high";
        assert_eq!(splits.leakage_warning().unwrap().as_deref(), Some(expected));
        splits.train = dataset("train", array![[1.0], [2.5]]);
        assert_eq!(splits.leakage_warning().unwrap(), None);
    }
}
