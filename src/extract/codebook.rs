//! Bag of visual words: descriptors are quantized to words, and each frame is a histogram of its words, or one for each cell of a
//! spatial pyramid. Fisher vectors also have the means and the variances of the descriptors of each word (see [`super::fisher`]).
//!
//! The words are the k-means centroids of the descriptors of the training split, so that validation and test clips do
//! not influence the features. All clips get features, including those of the other splits and those without labels.
//! (Sivic and Zisserman, "Video Google", 2003; Csurka et al., "Visual categorization with bags of keypoints", 2004.)

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use ndarray::{Array2, ArrayView2, Axis, s};
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::fisher::{BLOCK_ROWS, Gaussians};
use super::histogram::Pyramid;
use super::kmeans::{self, KMeans};
use super::pca::PrincipalComponents;
use super::settings::{CodebookSettings, Encoding, POSITION_LEN};
use crate::cancel::CancellationToken;
use crate::error::{Error, Result};
use crate::manifest::{Manifest, Split};
use crate::store::{DescriptorStore, FeatureStore, Payload, Provenance, StoreWriter, StoredClip, Values};

/// Number of descriptors that are read from a store at once.
const READ_DESCRIPTORS: usize = 1 << 16;
/// Name of the dataset of the words in a store.
pub const CENTROIDS: &str = "codebook/centroids";
/// Name of the dataset of the parameters of Fisher vectors in a store.
const GAUSSIANS: &str = "codebook/gaussians";
/// Name of the dataset of the projection of descriptors in a store.
const COMPONENTS: &str = "codebook/components";

/// Returns the name of the file of a method's codebook in the directory of a run.
pub fn file_name(method: &str) -> String {
    format!("{method}.codebook.h5")
}

/// A set of visual words.
#[derive(Debug, Clone, PartialEq)]
pub struct Codebook {
    /// The projection of descriptors before they are compared with words.
    pub components: Option<PrincipalComponents>,
    /// The centroids, (words, D), or (words, C) with C components.
    pub centroids: Array2<f32>,
    /// The Gaussians at the centroids, for Fisher vectors only.
    pub gaussians: Option<Gaussians>,
}

/// Statistics of the training of a codebook.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingSummary {
    /// Number of training clips.
    pub clips: usize,
    /// Number of descriptors of those clips.
    pub descriptors: usize,
    /// Number of those descriptors that were clustered.
    pub clustered: usize,
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
        if settings.pyramid.iter().any(|&cells| cells > 1) && compared_len(store) == store.payload().dim() {
            return Err(Error::Data(format!(
                "{}: its descriptors have no positions, which a pyramid needs; set codebook.pyramid to [1], or extract with \
                 extractor kind dense-sift",
                store.path().display()
            )));
        }
        if compared_len(store) < settings.components.unwrap_or(1) {
            let message = format!("damaged: its descriptors have length {}", store.payload().dim());
            return Err(Error::Store { path: store.path().to_path_buf(), message });
        }
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
        let data = clustered_descriptors(store, &ranges, count, settings, cancel)?;
        if data.nrows() < settings.words {
            return Err(Error::Data(format!(
                "{}: {} of {count} training descriptors have a gradient, too few for {} words; reduce --words",
                store.path().display(),
                data.nrows(),
                settings.words
            )));
        }
        let kmeans = KMeans {
            clusters: settings.words,
            max_iterations: settings.max_iterations,
            tolerance: settings.tolerance,
            seed: settings.seed,
        };
        let components = settings.components.map(|count| PrincipalComponents::fit(data.view(), count));
        // Bytes are clustered faster than the same numbers as f32.
        let projected = components.as_ref().map(|components| components.project(data.view()));
        let clusters = match &projected {
            Some(projected) => kmeans.fit(projected.view())?,
            None => kmeans.fit(data.view())?,
        };
        let summary = TrainingSummary {
            clips: clips.len(),
            descriptors: count,
            clustered: data.nrows(),
            iterations: clusters.iterations,
            distortion: clusters.inertia / data.nrows() as f64,
        };
        let gaussians = (settings.encoding == Encoding::Fisher).then(|| {
            let values = projected.unwrap_or_else(|| data.mapv(f32::from));
            Gaussians::fit(values.view(), &clusters.centroids, &clusters.labels, settings.max_iterations)
        });
        let centroids = gaussians.as_ref().map_or(clusters.centroids, |gaussians| gaussians.means().clone());
        Ok((Self { components, centroids, gaussians }, summary))
    }

    /// Reads the words of a feature store; `None` if it has none.
    ///
    /// # Errors
    /// Returns an error if the words cannot be read or are damaged.
    pub fn read(store: &FeatureStore) -> Result<Option<Self>> {
        let Some(centroids) = store.read_matrix(CENTROIDS)? else { return Ok(None) };
        let damaged = |name: &str| Error::Store {
            path: store.path().to_path_buf(),
            message: format!("damaged: dataset /{name} does not match /{CENTROIDS}"),
        };
        let components = match store.read_matrix(COMPONENTS)? {
            Some(rows) if rows.nrows() != centroids.ncols() + 1 => return Err(damaged(COMPONENTS)),
            rows => rows.map(PrincipalComponents::new),
        };
        let gaussians = match store.read_matrix(GAUSSIANS)? {
            Some(parameters) => Some(Gaussians::new(&centroids, parameters).ok_or_else(|| damaged(GAUSSIANS))?),
            None => None,
        };
        Ok(Some(Self { components, centroids, gaussians }))
    }

    fn write_words(&self, writer: &mut StoreWriter) -> Result<()> {
        writer.write_matrix(CENTROIDS, self.centroids.view())?;
        if let Some(components) = &self.components {
            writer.write_matrix(COMPONENTS, components.rows())?;
        }
        match &self.gaussians {
            Some(gaussians) => writer.write_matrix(GAUSSIANS, gaussians.parameters()),
            None => Ok(()),
        }
    }

    /// Writes the words as a feature store without clips.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn save(&self, provenance: &Provenance, out: &Path) -> Result<()> {
        let mut writer = StoreWriter::create(out, Payload::Features { dim: self.centroids.nrows() }, provenance)?;
        self.write_words(&mut writer)?;
        writer.finish()
    }

    /// Computes the features of consecutive frames, (frames, [`Pyramid::dim`]). Frame `i` has the next `counts[i]` rows of
    /// `descriptors`, (Σ counts, D): the values that are compared with the words, and possibly a position. Descriptors that are zero
    /// are left out. Before normalization, a histogram sums to the number of the others.
    pub fn encode(&self, counts: &[u32], descriptors: ArrayView2<'_, u8>, settings: &CodebookSettings) -> Array2<f32> {
        let dim = self.components.as_ref().map_or(self.centroids.ncols(), |components| components.rows().ncols());
        let pyramid = self.pyramid(settings);
        let mut next = 0;
        let frames: Vec<Range<usize>> = (counts.iter())
            .map(|&count| {
                let start = next;
                next += count as usize;
                start..next
            })
            .collect();
        let rows: Vec<Vec<f32>> = (frames.into_par_iter())
            .map(|range| {
                let mut sums = pyramid.start();
                for block in descriptors.slice(s![range, ..]).axis_chunks_iter(Axis(0), BLOCK_ROWS) {
                    let (values, positions) = block.split_at(Axis(1), dim);
                    self.add(&pyramid, &mut sums, values, positions);
                }
                pyramid.finish(sums)
            })
            .collect();
        Array2::from_shape_vec((counts.len(), pyramid.dim()), rows.concat()).expect("each row has dim values")
    }

    /// Adds descriptors of a frame to the sums of its cells.
    fn add(&self, pyramid: &Pyramid<'_>, sums: &mut [f32], values: ArrayView2<'_, u8>, positions: ArrayView2<'_, u8>) {
        let projected = self.components.as_ref().map(|components| components.project(values));
        let count = values.nrows();
        if let Some(gaussians) = &self.gaussians {
            let projected = projected.unwrap_or_else(|| values.mapv(f32::from));
            let posteriors = gaussians.posteriors(projected.view());
            return pyramid.add(sums, count, positions, |descriptor, cell| {
                if !is_zero(values.row(descriptor)) {
                    gaussians.add(projected.row(descriptor), posteriors.row(descriptor), cell);
                }
            });
        }
        let words = match &projected {
            Some(projected) => kmeans::assign(projected.view(), &self.centroids),
            None => kmeans::assign(values, &self.centroids),
        };
        pyramid.add(sums, count, positions, |descriptor, cell| {
            if !is_zero(values.row(descriptor)) {
                cell[words[descriptor] as usize] += 1.0;
            }
        });
    }

    fn pyramid<'a>(&self, settings: &'a CodebookSettings) -> Pyramid<'a> {
        let cell_len = self.gaussians.as_ref().map_or(self.centroids.nrows(), Gaussians::dim);
        Pyramid { levels: &settings.pyramid, cell_len, normalize: settings.normalize }
    }

    /// Returns the SHA-256 of the centroids, the parameters of the Gaussians and the projection, as little-endian f32 in row-major order.
    pub fn sha256(&self) -> String {
        let mut hasher = Sha256::new();
        let parameters = self.gaussians.iter().flat_map(|gaussians| gaussians.parameters().into_iter());
        let components = self.components.iter().flat_map(|components| components.rows().into_iter());
        self.centroids.iter().chain(parameters).chain(components).for_each(|value| hasher.update(value.to_le_bytes()));
        format!("{:x}", hasher.finalize())
    }

    /// Writes the feature store `out`: the features of every clip of `store`, its failures, and the words. `seconds`
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
        let payload = Payload::Features { dim: self.pyramid(settings).dim() };
        let mut writer = StoreWriter::create(out, payload, &provenance)?;
        let mut rest = store.clips();
        while let Some(first) = rest.first() {
            // Images have one frame each: several clips at once occupy all threads.
            let limit = index.range(first).start + READ_DESCRIPTORS;
            let count = rest.iter().take_while(|clip| index.range(clip).end <= limit).count().max(1);
            let clips;
            (clips, rest) = rest.split_at(count);
            let frames = first.offset..clips[count - 1].offset + clips[count - 1].length;
            let descriptors = store.descriptors(index.starts[frames.start]..index.starts[frames.end])?;
            let features = self.encode(&index.counts[frames.clone()], descriptors.view(), settings);
            for clip in clips {
                let range = clip.offset..clip.offset + clip.length;
                let features = features.slice(s![range.start - frames.start..range.end - frames.start, ..]);
                writer.push(clip.with_rows(rows[range].to_vec(), Values::Features(features.to_owned())))?;
            }
            cancel.check()?;
        }
        for failure in store.failures() {
            writer.push_failure(failure.clone());
        }
        self.write_words(&mut writer)?;
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

/// Returns the length of the part of a descriptor that is compared with words: all but the position on a dense grid.
fn compared_len(store: &DescriptorStore) -> usize {
    let recipe = serde_json::from_str::<serde_json::Value>(&store.provenance().recipe).unwrap_or_default();
    let positions = if recipe["extractor"]["kind"] == "dense-sift" { POSITION_LEN } else { 0 };
    store.payload().dim().saturating_sub(positions)
}

/// Reads the descriptors of `ranges`, `count` in total, that are clustered: all of them, or `settings.samples` drawn at random, in
/// the order of the store. Descriptors that are zero, those of frames without a gradient, have no word and are left out.
fn clustered_descriptors(
    store: &DescriptorStore,
    ranges: &[Range<usize>],
    count: usize,
    settings: &CodebookSettings,
    cancel: &CancellationToken,
) -> Result<Array2<u8>> {
    let dim = compared_len(store);
    // Positions among the `count` descriptors.
    let drawn: Option<Vec<usize>> = settings.samples.filter(|&samples| samples < count).map(|samples| {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(settings.seed);
        let mut drawn = rand::seq::index::sample(&mut random, count, samples).into_vec();
        drawn.sort_unstable();
        drawn
    });
    let mut values = Vec::with_capacity(drawn.as_ref().map_or(count, Vec::len) * dim);
    let mut wanted = drawn.as_ref().map(|drawn| drawn.iter().copied().peekable());
    let mut position = 0;
    for range in merge_adjacent(ranges) {
        for start in range.clone().step_by(READ_DESCRIPTORS) {
            let block = store.descriptors(start..range.end.min(start + READ_DESCRIPTORS))?;
            for row in block.rows() {
                let is_wanted = wanted.as_mut().is_none_or(|wanted| wanted.next_if_eq(&position).is_some());
                position += 1;
                let row = row.to_slice().expect("the block has standard layout");
                if is_wanted && !is_zero(&row[..dim]) {
                    values.extend_from_slice(&row[..dim]);
                }
            }
            cancel.check()?;
        }
    }
    Ok(Array2::from_shape_vec((values.len() / dim, dim), values).expect("rows of dim values"))
}

/// Returns `true` for a descriptor of a frame, or part of one, without a gradient.
fn is_zero<'a>(descriptor: impl IntoIterator<Item = &'a u8>) -> bool {
    descriptor.into_iter().all(|&value| value == 0)
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

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::extract::settings::Normalize;

    #[test]
    fn counts_words_per_frame() {
        let codebook =
            Codebook { components: None, centroids: array![[0f32, 0.0], [100.0, 0.0], [0.0, 100.0]], gaussians: None };
        // The last column of a descriptor is no part of it; the last descriptor is zero.
        let descriptors: Array2<u8> = array![[1, 2, 7], [90, 3, 0], [101, 0, 3], [3, 99, 0], [2, 0, 0], [0, 0, 9]];
        let settings = CodebookSettings {
            words: 3,
            max_iterations: 1,
            tolerance: 0.0,
            seed: 0,
            samples: None,
            components: None,
            pyramid: vec![1],
            encoding: Encoding::Histogram,
            normalize: Normalize::None,
        };
        let histograms = codebook.encode(&[3, 0, 3], descriptors.view(), &settings);
        assert_eq!(histograms, array![[1.0, 2.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 1.0]]);
    }

    #[test]
    fn merges_adjacent_ranges() {
        assert_eq!(merge_adjacent(&[0..3, 3..5, 6..8, 8..8, 9..9]), [0..5, 6..8, 9..9]);
    }
}
