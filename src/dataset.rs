//! Joins a feature store with a manifest: features, targets and splits for classifiers.

use std::collections::HashMap;

use ndarray::{Array2, ArrayView2, Axis, concatenate, s};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::manifest::Split;
use crate::manifest::imbalance::{self, Resample, Resampled};

mod join;

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
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// Ids of the clips (N).
    pub ids: Vec<String>,
    /// Groups of the clips (N); bootstrap intervals resample groups.
    pub groups: Vec<Option<String>>,
    /// Features, (R, D).
    pub rows: Array2<f32>,
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
    fn leakage_warning(&self) -> Option<String> {
        let trained: HashMap<&[u32], &str> =
            (0..self.train.len()).map(|i| (self.train.bits(i), self.train.ids[i].as_str())).collect();
        let copied = |clips: &Dataset, i: usize| {
            trained.get(clips.bits(i)).map(|original| format!("`{}` and `{original}`", clips.ids[i]))
        };
        let held_out = [&self.val, &self.test];
        let copies: Vec<String> =
            held_out.iter().flat_map(|clips| (0..clips.len()).filter_map(|i| copied(clips, i))).collect();
        let first = copies.first()?;
        Some(format!(
            "{} of {} validation and test clips have the same features as a training clip, such as {first}: results on them are \
             too high",
            copies.len(),
            self.val.len() + self.test.len()
        ))
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
    pub fn clip(&self, i: usize) -> ArrayView2<'_, f32> {
        self.rows.slice(s![self.offsets[i]..self.offsets[i + 1], ..])
    }

    /// Returns the bits of the features of clip `i`.
    fn bits(&self, i: usize) -> &[u32] {
        let rows = self.rows.slice(s![self.offsets[i]..self.offsets[i + 1], ..]);
        bytemuck::cast_slice(rows.to_slice().expect("rows are contiguous"))
    }

    /// Returns the feature dimension, D.
    pub fn dim(&self) -> usize {
        self.rows.ncols()
    }

    /// Replaces the features, (R, D').
    ///
    /// # Panics
    /// Panics if the number of rows differs.
    pub fn with_rows(&self, rows: Array2<f32>) -> Dataset {
        assert_eq!(rows.nrows(), self.rows.nrows(), "one new row per row");
        Dataset { rows, ..self.clone_without_rows() }
    }

    /// Selects the clips at `indices`, in that order, with repetitions.
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

    /// Returns the clips of both datasets, which have the same classes.
    ///
    /// # Panics
    /// Panics if the numbers of features or classes differ.
    pub fn append(&self, other: &Dataset) -> Dataset {
        let rows = self.rows.nrows();
        Dataset {
            ids: [&self.ids[..], &other.ids].concat(),
            groups: [&self.groups[..], &other.groups].concat(),
            rows: concatenate![Axis(0), self.rows, other.rows],
            offsets: self
                .offsets
                .iter()
                .copied()
                .chain(other.offsets[1..].iter().map(|offset| rows + offset))
                .collect(),
            targets: concatenate![Axis(0), self.targets, other.targets],
            classes: self.classes.clone(),
        }
    }

    /// Returns the classes of every clip as ascending indices.
    pub fn label_sets(&self) -> Vec<Vec<usize>> {
        (0..self.len()).map(|i| self.label_set(i)).collect()
    }

    fn label_set(&self, i: usize) -> Vec<usize> {
        (0..self.classes.len()).filter(|&class| self.targets[(i, class)] > 0.0).collect()
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

    /// Returns the features as one vector per clip, (N, D).
    ///
    /// # Errors
    /// Returns an error if the features of a clip are a sequence (not exactly one row).
    pub fn vectors(&self) -> Result<ArrayView2<'_, f32>> {
        match self.offsets.windows(2).position(|pair| pair[1] - pair[0] != 1) {
            None => Ok(self.rows.view()),
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
                rows,
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
        assert_eq!(splits.leakage_warning().as_deref(), Some(expected));
        splits.train = dataset("train", array![[1.0], [2.5]]);
        assert_eq!(splits.leakage_warning(), None);
    }
}
