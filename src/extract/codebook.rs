//! Bag of visual words: descriptors → words → one histogram a frame.
//!
//! The words are the k-means centers of the descriptors of the training split only: descriptors of clips that a
//! classifier is measured on must not shape its features. Every clip, also of the other splits and without a label, gets
//! its histograms. (Sivic & Zisserman, "Video Google", 2003; Csurka et al., 2004.)

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use ndarray::{Array2, ArrayView2};
use sha2::{Digest, Sha256};

use super::kmeans::{self, KMeans};
use super::{CodebookSettings, Normalize};
use crate::cli;
use crate::error::{Error, Result};
use crate::manifest::{Manifest, Split};
use crate::store::{ClipRows, DescriptorStore, Payload, Provenance, Row, StoreWriter, StoredClip, Values};

/// Descriptors read from a store at once.
const READ_DESCRIPTORS: usize = 1 << 16;
/// Where a store keeps the words.
pub const CENTROIDS: &str = "codebook/centroids";

/// Visual words.
#[derive(Debug, Clone, PartialEq)]
pub struct Codebook {
    /// Their descriptors, (words, D).
    pub centroids: Array2<f32>,
}

/// What making a codebook took.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    /// Training clips.
    pub clips: usize,
    /// Their descriptors.
    pub descriptors: usize,
    /// k-means iterations.
    pub iterations: usize,
    /// Mean squared distance of a descriptor to its word.
    pub distortion: f64,
}

impl Codebook {
    /// Clusters the descriptors of the clips of `manifest` that train; of all of them where none has a label.
    ///
    /// # Errors
    /// No training clip is in the store, they have fewer descriptors than there are to be words, or the store cannot be
    /// read.
    pub fn train(store: &DescriptorStore, manifest: &Manifest, settings: &CodebookSettings) -> Result<(Self, Trained)> {
        let layout = Layout::of(store)?;
        let unlabeled = manifest.clips.iter().all(|clip| clip.labels.is_empty());
        let trains: HashMap<&str, bool> = (manifest.clips.iter())
            .map(|clip| (clip.id.as_str(), unlabeled || clip.split == Some(Split::Train)))
            .collect();
        let known = store.clips().iter().filter(|clip| trains.contains_key(clip.id.as_str())).count();
        let clips: Vec<&StoredClip> =
            store.clips().iter().filter(|clip| trains.get(clip.id.as_str()) == Some(&true)).collect();
        if clips.is_empty() {
            return Err(Error::Data(format!(
                "{}: none of its {} clips is a training clip of {} ({known} are in it at all)",
                store.path().display(),
                store.clips().len(),
                manifest.source.display()
            )));
        }
        let ranges: Vec<Range<usize>> = clips.iter().map(|clip| layout.descriptors_of(clip)).collect();
        let count = ranges.iter().map(ExactSizeIterator::len).sum();
        if count < settings.words {
            return Err(Error::Data(format!(
                "{}: {count} descriptors in {} training clips cannot make {} words; ask for fewer with --words",
                store.path().display(),
                clips.len(),
                settings.words
            )));
        }
        let mut values = Vec::with_capacity(count * store.payload().dim());
        for range in merged(&ranges) {
            for start in range.clone().step_by(READ_DESCRIPTORS) {
                let block = store.descriptors(start..range.end.min(start + READ_DESCRIPTORS))?;
                values.extend_from_slice(block.as_slice().expect("read in standard layout"));
            }
            if cli::interrupted() {
                return Err(Error::Interrupted);
            }
        }
        let data = Array2::from_shape_vec((count, store.payload().dim()), values).expect("counted before");
        let kmeans = KMeans {
            clusters: settings.words,
            max_iterations: settings.max_iterations,
            tolerance: settings.tolerance,
            seed: settings.seed,
        };
        let found = kmeans.fit(data.view())?;
        let trained = Trained {
            clips: clips.len(),
            descriptors: count,
            iterations: found.iterations,
            distortion: found.inertia / count as f64,
        };
        Ok((Self { centroids: found.centroids }, trained))
    }

    /// Histograms of the words of consecutive frames: frame `i` has the next `counts[i]` rows of `descriptors`,
    /// (Σ counts, D). Gives (frames, words); before normalization a row sums to its number of descriptors.
    pub fn histograms(&self, counts: &[u32], descriptors: ArrayView2<'_, u8>, normalize: Normalize) -> Array2<f32> {
        let words = kmeans::assign(descriptors, &self.centroids);
        let mut histograms = Array2::<f32>::zeros((counts.len(), self.centroids.nrows()));
        let mut next = words.into_iter();
        for (mut histogram, &count) in histograms.rows_mut().into_iter().zip(counts) {
            for word in next.by_ref().take(count as usize) {
                histogram[word as usize] += 1.0;
            }
            normalize_row(histogram.as_slice_mut().expect("a row is contiguous"), normalize);
        }
        histograms
    }

    /// SHA-256 of the centers, little-endian f32, row after row.
    pub fn sha256(&self) -> String {
        let mut hasher = Sha256::new();
        self.centroids.iter().for_each(|value| hasher.update(value.to_le_bytes()));
        hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Writes the feature store `out`: the histograms of every clip of `store`, its failures, and the words.
    ///
    /// # Errors
    /// A store cannot be read or written, or the user interrupts.
    pub fn write(&self, store: &DescriptorStore, settings: &CodebookSettings, seconds: f64, out: &Path) -> Result<()> {
        let layout = Layout::of(store)?;
        let rows = store.rows()?;
        let provenance = self.provenance(store, settings, seconds)?;
        let mut writer = StoreWriter::create(out, Payload::Features { dim: self.centroids.nrows() }, &provenance)?;
        for clip in store.clips() {
            let range = clip.offset..clip.offset + clip.length;
            let descriptors = store.descriptors(layout.descriptors_of(clip))?;
            let histograms = self.histograms(&layout.lengths[range.clone()], descriptors.view(), settings.normalize);
            writer.push(rows_of(clip, rows[range].to_vec(), histograms))?;
            if cli::interrupted() {
                return Err(Error::Interrupted);
            }
        }
        for failure in store.failures() {
            writer.push_failure(failure.clone());
        }
        writer.write_matrix(CENTROIDS, self.centroids.view())?;
        writer.finish()
    }

    /// The descriptor store's, with the codebook as the model.
    fn provenance(&self, store: &DescriptorStore, settings: &CodebookSettings, seconds: f64) -> Result<Provenance> {
        let wrong = |message: String| Error::Store { path: store.path().to_path_buf(), message };
        let from = store.provenance();
        let mut recipe: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&from.recipe)
            .map_err(|error| wrong(format!("its attribute recipe is not a JSON object: {error}")))?;
        recipe.insert("codebook".into(), serde_json::to_value(settings).expect("a recipe is plain data"));
        Ok(Provenance {
            weights: "kmeans".into(),
            model_sha256: self.sha256(),
            recipe: serde_json::to_string(&recipe).expect("a recipe is plain data"),
            precision: "f32".into(),
            extract_seconds: from.extract_seconds + seconds,
            ..from.clone()
        })
    }
}

fn rows_of(clip: &StoredClip, rows: Vec<Row>, histograms: Array2<f32>) -> ClipRows {
    ClipRows {
        id: clip.id.clone(),
        path: clip.path.clone(),
        frame_count: clip.frame_count,
        fps: clip.fps,
        duration_seconds: clip.duration_seconds,
        rows,
        values: Values::Features(histograms),
    }
}

/// Where the descriptors of a store's rows stand.
struct Layout {
    /// How many each row has.
    lengths: Vec<u32>,
    /// Where each row's begin, and where the last's end.
    starts: Vec<usize>,
}

impl Layout {
    fn of(store: &DescriptorStore) -> Result<Self> {
        let lengths = store.row_lengths()?;
        let mut starts = Vec::with_capacity(lengths.len() + 1);
        let mut next = 0;
        starts.push(0);
        for &length in &lengths {
            next += length as usize;
            starts.push(next);
        }
        Ok(Self { lengths, starts })
    }

    fn descriptors_of(&self, clip: &StoredClip) -> Range<usize> {
        self.starts[clip.offset]..self.starts[clip.offset + clip.length]
    }
}

/// The same ranges, those that follow each other joined.
fn merged(ranges: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut merged: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => merged.push(range.clone()),
        }
    }
    merged
}

/// Normalizes one histogram; a frame without keypoints stays zero.
fn normalize_row(histogram: &mut [f32], normalize: Normalize) {
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

    fn book() -> Codebook {
        Codebook { centroids: array![[0f32, 0.0], [100.0, 0.0], [0.0, 100.0]] }
    }

    #[test]
    fn counts_words_frame_by_frame() {
        let descriptors: Array2<u8> = array![[1, 2], [90, 3], [101, 0], [3, 99], [0, 0]];
        let histograms = book().histograms(&[3, 0, 2], descriptors.view(), Normalize::None);
        assert_eq!(histograms, array![[1.0, 2.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 1.0]]);
    }

    #[test]
    fn normalizes_and_leaves_empty_frames_zero() {
        let descriptors: Array2<u8> = array![[1, 2], [90, 3], [101, 0], [100, 0], [99, 1]];
        let of = |normalize| book().histograms(&[5, 0], descriptors.view(), normalize);
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
    fn joins_ranges_that_follow_each_other() {
        assert_eq!(merged(&[0..3, 3..5, 6..8, 8..8, 9..9]), [0..5, 6..8, 9..9]);
    }
}
