//! Nearest training clips in the feature space.

use std::collections::HashMap;

use ndarray::{Array1, Array2, Axis};

use crate::dataset::{Dataset, DatasetSplits};
use crate::error::Result;

/// A training clip that is similar to another clip.
pub(super) struct Neighbor {
    pub id: String,
    /// Names of its labels.
    pub labels: Vec<String>,
    /// Cosine similarity in [−1, 1].
    pub cosine: f32,
}

/// The training clips of a data set, for searches.
pub(super) struct TrainingClips<'a> {
    data: &'a DatasetSplits,
    mean: Array1<f32>,
    /// Unit vectors, (N, D); zero for a clip whose features equal the mean.
    units: Array2<f32>,
    row_of_id: HashMap<&'a str, (&'a Dataset, usize)>,
}

impl<'a> TrainingClips<'a> {
    /// Prepares the search; `None` without training clips.
    ///
    /// # Errors
    /// Returns an error if the features cannot be read.
    pub fn new(data: &'a DatasetSplits) -> Result<Option<Self>> {
        let vectors = mean_vectors(&data.train)?;
        let Some(mean) = vectors.mean_axis(Axis(0)) else { return Ok(None) };
        let held_out = [&data.val, &data.test, &data.train];
        let row_of_id = held_out
            .iter()
            .flat_map(|part| part.ids.iter().enumerate().map(|(row, id)| (id.as_str(), (*part, row))))
            .collect();
        let units = unit_vectors(vectors, &mean);
        Ok(Some(Self { data, mean, units, row_of_id }))
    }

    /// Returns the `count` training clips with the highest cosine similarity to a clip (ties: the first), without the clip
    /// itself; none if the clip has no features. The features are the means over the rows of a clip, centered by the mean of the
    /// training clips: those of most networks are not negative, so that all of them have similar directions without it.
    ///
    /// # Errors
    /// Returns an error if the features of the clip cannot be read.
    pub fn nearest(&self, id: &str, count: usize) -> Result<Vec<Neighbor>> {
        let Some(&(part, row)) = self.row_of_id.get(id) else { return Ok(Vec::new()) };
        let own = unit_vectors(mean_vectors(&part.select(&[row]))?, &self.mean);
        let cosines = self.units.dot(&own.row(0));
        let train = &self.data.train;
        let mut order: Vec<usize> =
            (0..train.len()).filter(|&i| train.ids[i] != id && cosines[i].is_finite()).collect();
        order.sort_by(|&a, &b| cosines[b].total_cmp(&cosines[a]).then(a.cmp(&b)));
        order.truncate(count);
        let labels = |i: usize| (0..train.classes.len()).filter(move |&class| train.targets[(i, class)] > 0.0);
        let neighbor = |i: usize| Neighbor {
            id: train.ids[i].clone(),
            labels: labels(i).map(|class| train.classes[class].clone()).collect(),
            cosine: cosines[i],
        };
        Ok(order.into_iter().map(neighbor).collect())
    }
}

/// Returns the mean of the rows of each clip, (N, D).
fn mean_vectors(part: &Dataset) -> Result<Array2<f32>> {
    let mut vectors = Array2::zeros((part.len(), part.dim()));
    for (i, mut vector) in vectors.outer_iter_mut().enumerate() {
        if let Some(mean) = part.clip(i)?.mean_axis(Axis(0)) {
            vector.assign(&mean);
        }
    }
    Ok(vectors)
}

fn unit_vectors(vectors: Array2<f32>, mean: &Array1<f32>) -> Array2<f32> {
    let mut centered = vectors - mean;
    for mut vector in centered.outer_iter_mut() {
        let norm = vector.dot(&vector).sqrt();
        if norm > 0.0 {
            vector /= norm;
        }
    }
    centered
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::dataset::Task;

    #[test]
    fn neighbors_are_found_by_direction_from_the_mean() {
        let part = |ids: &[&str], rows: Array2<f32>, offsets: Vec<usize>| Dataset {
            ids: ids.iter().map(|id| id.to_string()).collect(),
            groups: vec![None; ids.len()],
            targets: Array2::from_shape_fn((ids.len(), 2), |(i, class)| f32::from(u8::from(i % 2 == class))),
            rows: rows.into(),
            offsets,
            classes: vec!["a".into(), "b".into()],
        };
        let none = || part(&[], Array2::zeros((0, 2)), vec![0]);
        // The mean of the training clips is (10, 10). The second clip is a sequence with the mean (8, 10).
        let rows = array![[14.0, 10.0], [7.0, 10.0], [9.0, 10.0], [10.0, 12.0], [8.0, 8.0]];
        let data = DatasetSplits {
            task: Task::SingleLabel,
            train: part(&["right", "left", "up", "down-left"], rows, vec![0, 1, 3, 4, 5]),
            resampled: None,
            val: none(),
            test: part(&["x"], array![[1.0, 1.5]], vec![0, 1]),
            unlabeled: none(),
            warnings: vec![],
        };
        let training = TrainingClips::new(&data).unwrap().unwrap();
        let names = |id: &str| training.nearest(id, 2).unwrap().into_iter().map(|n| n.id).collect::<Vec<_>>();
        assert_eq!(names("x"), ["down-left", "left"]);
        assert_eq!(names("left"), ["down-left", "up"], "not the clip itself");
        let nearest = &training.nearest("x", 1).unwrap()[0];
        let expected = (9.0 + 8.5) / (2f32.sqrt() * (81f32 + 72.25).sqrt());
        assert!((nearest.cosine - expected).abs() < 1e-6 && nearest.labels == ["b"]);
        assert!(training.nearest("unknown", 2).unwrap().is_empty());
        assert!(TrainingClips::new(&DatasetSplits { train: none(), ..data.clone() }).unwrap().is_none());
    }
}
