//! Bag of visual words: descriptors are quantized to words, and each frame is a histogram of its words.
//!
//! The words are the k-means centroids of the descriptors of the training split, so that validation and test clips do
//! not influence the features. All clips get histograms, including those of the other splits and those without labels.
//! (Sivic and Zisserman, "Video Google", 2003; Csurka et al., "Visual categorization with bags of keypoints", 2004.)

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use ndarray::{Array2, ArrayView2};
use sha2::{Digest, Sha256};

use super::kmeans::{self, KMeans};
use super::settings::{CodebookSettings, Normalize};
use crate::cancel::CancellationToken;
use crate::error::{Error, Result};
use crate::manifest::{Manifest, Split};
use crate::store::{
    ClipRows, DescriptorStore, FeatureStore, Payload, Provenance, RowSource, StoreWriter, StoredClip, Values,
};

/// Number of descriptors that are read from a store at once.
const READ_DESCRIPTORS: usize = 1 << 16;
/// Name of the dataset of the words in a store.
pub const CENTROIDS: &str = "codebook/centroids";

/// Returns the name of the file of a method's codebook in the directory of a run.
pub fn file_name(method: &str) -> String {
    format!("{method}.codebook.h5")
}

/// A set of visual words.
#[derive(Debug, Clone, PartialEq)]
pub struct Codebook {
    /// The centroids, (words, D).
    pub centroids: Array2<f32>,
}

/// Statistics of the training of a codebook.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingSummary {
    /// Number of training clips.
    pub clips: usize,
    /// Number of descriptors of those clips.
    pub descriptors: usize,
    /// Number of k-means iterations.
    pub iterations: usize,
    /// Mean squared distance between a descriptor and its word.
    pub distortion: f64,
}

impl Codebook {
    /// Clusters the descriptors of the training clips of `manifest`, or of all its clips if no clip has a label.
    ///
    /// # Errors
    /// Returns an error if the store has no training clip or fewer training descriptors than words, if it cannot be
    /// read, or if the run is cancelled.
    pub fn train(
        store: &DescriptorStore,
        manifest: &Manifest,
        settings: &CodebookSettings,
        cancel: &CancellationToken,
    ) -> Result<(Self, TrainingSummary)> {
        let index = DescriptorIndex::new(store)?;
        let unlabeled = manifest.clips.iter().all(|clip| clip.labels.is_empty());
        let is_training: HashMap<&str, bool> = (manifest.clips.iter())
            .map(|clip| (clip.id.as_str(), unlabeled || clip.split == Some(Split::Train)))
            .collect();
        let listed = store.clips().iter().filter(|clip| is_training.contains_key(clip.id.as_str())).count();
        let clips: Vec<&StoredClip> =
            store.clips().iter().filter(|clip| is_training.get(clip.id.as_str()) == Some(&true)).collect();
        if clips.is_empty() {
            return Err(Error::Data(format!(
                "{}: none of its {} clips is a training clip of {} ({listed} of them are listed there)",
                store.path().display(),
                store.clips().len(),
                manifest.source.display()
            )));
        }
        let ranges: Vec<Range<usize>> = clips.iter().map(|clip| index.range(clip)).collect();
        let count = ranges.iter().map(ExactSizeIterator::len).sum();
        if count < settings.words {
            return Err(Error::Data(format!(
                "{}: {count} descriptors in {} training clips are too few for {} words; reduce --words",
                store.path().display(),
                clips.len(),
                settings.words
            )));
        }
        let mut values = Vec::with_capacity(count * store.payload().dim());
        for range in merge_adjacent(&ranges) {
            for start in range.clone().step_by(READ_DESCRIPTORS) {
                let block = store.descriptors(start..range.end.min(start + READ_DESCRIPTORS))?;
                values.extend_from_slice(block.as_slice().expect("the block has standard layout"));
            }
            cancel.check()?;
        }
        let data = Array2::from_shape_vec((count, store.payload().dim()), values).expect("count rows of dim values");
        let kmeans = KMeans {
            clusters: settings.words,
            max_iterations: settings.max_iterations,
            tolerance: settings.tolerance,
            seed: settings.seed,
        };
        let clusters = kmeans.fit(data.view())?;
        let summary = TrainingSummary {
            clips: clips.len(),
            descriptors: count,
            iterations: clusters.iterations,
            distortion: clusters.inertia / count as f64,
        };
        Ok((Self { centroids: clusters.centroids }, summary))
    }

    /// Reads the words of a feature store; `None` if it has none.
    ///
    /// # Errors
    /// Returns an error if the words cannot be read.
    pub fn read(store: &FeatureStore) -> Result<Option<Self>> {
        Ok(store.read_matrix(CENTROIDS)?.map(|centroids| Self { centroids }))
    }

    /// Writes the words as a feature store without clips.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn save(&self, provenance: &Provenance, out: &Path) -> Result<()> {
        let mut writer = StoreWriter::create(out, Payload::Features { dim: self.centroids.nrows() }, provenance)?;
        writer.write_matrix(CENTROIDS, self.centroids.view())?;
        writer.finish()
    }

    /// Computes the histograms of consecutive frames, (frames, words). Frame `i` has the next `counts[i]` rows of
    /// `descriptors`, (Σ counts, D). Before normalization, a histogram sums to its number of descriptors.
    pub fn histograms(&self, counts: &[u32], descriptors: ArrayView2<'_, u8>, normalize: Normalize) -> Array2<f32> {
        let words = kmeans::assign(descriptors, &self.centroids);
        let mut histograms = Array2::<f32>::zeros((counts.len(), self.centroids.nrows()));
        let mut remaining = words.into_iter();
        for (mut histogram, &count) in histograms.rows_mut().into_iter().zip(counts) {
            for word in remaining.by_ref().take(count as usize) {
                histogram[word as usize] += 1.0;
            }
            normalize_histogram(histogram.as_slice_mut().expect("rows are contiguous"), normalize);
        }
        histograms
    }

    /// Returns the SHA-256 of the centroids, as little-endian f32 in row-major order.
    pub fn sha256(&self) -> String {
        let mut hasher = Sha256::new();
        self.centroids.iter().for_each(|value| hasher.update(value.to_le_bytes()));
        hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Writes the feature store `out`: the histograms of every clip of `store`, its failures, and the words. `seconds`
    /// is the duration of the training.
    ///
    /// # Errors
    /// Returns an error if a store cannot be read or written, or if the run is cancelled.
    pub fn write(
        &self,
        store: &DescriptorStore,
        settings: &CodebookSettings,
        seconds: f64,
        out: &Path,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let index = DescriptorIndex::new(store)?;
        let rows = store.rows()?;
        let provenance = self.provenance(store, settings, seconds)?;
        let mut writer = StoreWriter::create(out, Payload::Features { dim: self.centroids.nrows() }, &provenance)?;
        for clip in store.clips() {
            let range = clip.offset..clip.offset + clip.length;
            let descriptors = store.descriptors(index.range(clip))?;
            let histograms = self.histograms(&index.counts[range.clone()], descriptors.view(), settings.normalize);
            writer.push(clip_rows(clip, rows[range].to_vec(), histograms))?;
            cancel.check()?;
        }
        for failure in store.failures() {
            writer.push_failure(failure.clone());
        }
        writer.write_matrix(CENTROIDS, self.centroids.view())?;
        writer.finish()
    }

    /// Returns the provenance of the descriptor store, with the codebook as the model.
    ///
    /// # Errors
    /// Returns an error if the recipe of the store is not JSON.
    pub fn provenance(&self, store: &DescriptorStore, settings: &CodebookSettings, seconds: f64) -> Result<Provenance> {
        let invalid = |message: String| Error::Store { path: store.path().to_path_buf(), message };
        let source = store.provenance();
        let mut recipe: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&source.recipe)
            .map_err(|error| invalid(format!("attribute recipe is not a JSON object: {error}")))?;
        recipe.insert("codebook".into(), serde_json::to_value(settings).expect("settings serialize to JSON"));
        Ok(Provenance {
            weights: "kmeans".into(),
            model_sha256: self.sha256(),
            recipe: serde_json::to_string(&recipe).expect("a recipe serializes to JSON"),
            precision: "f32".into(),
            extract_seconds: source.extract_seconds + seconds,
            ..source.clone()
        })
    }
}

fn clip_rows(clip: &StoredClip, rows: Vec<RowSource>, histograms: Array2<f32>) -> ClipRows {
    ClipRows {
        id: clip.id.clone(),
        path: clip.path.clone(),
        start: clip.start,
        end: clip.end,
        frame_count: clip.frame_count,
        fps: clip.fps,
        duration_seconds: clip.duration_seconds,
        fully_decoded: clip.fully_decoded,
        rows,
        values: Values::Features(histograms),
    }
}

/// Positions of the descriptors of each row of a store.
struct DescriptorIndex {
    /// Number of descriptors of each row.
    counts: Vec<u32>,
    /// Position of the first descriptor of each row, and the total number of descriptors.
    starts: Vec<usize>,
}

impl DescriptorIndex {
    fn new(store: &DescriptorStore) -> Result<Self> {
        let counts = store.descriptor_counts()?;
        let mut starts = Vec::with_capacity(counts.len() + 1);
        let mut next = 0;
        starts.push(0);
        for &count in &counts {
            next += count as usize;
            starts.push(next);
        }
        Ok(Self { counts, starts })
    }

    /// Returns the positions of the descriptors of a clip.
    fn range(&self, clip: &StoredClip) -> Range<usize> {
        self.starts[clip.offset]..self.starts[clip.offset + clip.length]
    }
}

/// Merges consecutive ranges if one ends at the start of the next.
fn merge_adjacent(ranges: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut merged: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => merged.push(range.clone()),
        }
    }
    merged
}

/// Normalizes one histogram. The histogram of a frame without keypoints remains zero.
fn normalize_histogram(histogram: &mut [f32], normalize: Normalize) {
    if normalize == Normalize::Power {
        histogram.iter_mut().for_each(|count| *count = count.sqrt());
    }
    let norm = match normalize {
        Normalize::None => return,
        Normalize::L1 => histogram.iter().sum::<f32>(),
        Normalize::L2 | Normalize::Power => histogram.iter().map(|count| count * count).sum::<f32>().sqrt(),
    };
    if norm > 0.0 {
        histogram.iter_mut().for_each(|count| *count /= norm);
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    fn codebook() -> Codebook {
        Codebook { centroids: array![[0f32, 0.0], [100.0, 0.0], [0.0, 100.0]] }
    }

    #[test]
    fn counts_words_per_frame() {
        let descriptors: Array2<u8> = array![[1, 2], [90, 3], [101, 0], [3, 99], [0, 0]];
        let histograms = codebook().histograms(&[3, 0, 2], descriptors.view(), Normalize::None);
        assert_eq!(histograms, array![[1.0, 2.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 1.0]]);
    }

    #[test]
    fn normalizes_histograms_and_keeps_empty_ones_zero() {
        let descriptors: Array2<u8> = array![[1, 2], [90, 3], [101, 0], [100, 0], [99, 1]];
        let of = |normalize| codebook().histograms(&[5, 0], descriptors.view(), normalize);
        assert_eq!(of(Normalize::L1).row(0).to_vec(), [0.2, 0.8, 0.0]);
        let l2 = 17f32.sqrt();
        assert_eq!(of(Normalize::L2).row(0).to_vec(), [1.0 / l2, 4.0 / l2, 0.0]);
        let root = 5f32.sqrt();
        assert_eq!(of(Normalize::Power).row(0).to_vec(), [1.0 / root, 2.0 / root, 0.0]);
        for normalize in [Normalize::L1, Normalize::L2, Normalize::Power] {
            assert_eq!(of(normalize).row(1).to_vec(), [0.0; 3]);
        }
    }

    #[test]
    fn merges_adjacent_ranges() {
        assert_eq!(merge_adjacent(&[0..3, 3..5, 6..8, 8..8, 9..9]), [0..5, 6..8, 9..9]);
    }
}
