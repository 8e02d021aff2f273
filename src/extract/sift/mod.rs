//! SIFT: the strongest keypoints of a frame and their descriptors.
//!
//! OpenCV's detector spends most of its time on what a bag of words never sees: orientations of keypoints that are then
//! dropped, and memory asked for and given back with every frame. Here the scale space is OpenCV's, to the bit, in
//! buffers that stay, blur following blur while the rows are in the cache; refined extrema are ranked by response first, and only those that are kept get orientations and
//! descriptors. Descriptors are OpenCV's but for a step in one of some hundred, as between OpenCV's own versions.
//!
//! # Source
//! D. Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 60(2), 2004; parameters and details of
//! OpenCV's `SIFT_create`.

mod blur;
mod descriptor;
mod extrema;
mod gradients;
mod keypoints;
mod scale_space;

use std::cmp::Ordering;

use ndarray::Array2;
use opencv::core::{Mat, MatTraitConst as _, MatTraitConstManual as _};
use opencv::imgproc;

pub use self::descriptor::DESCRIPTOR_LEN;
use self::descriptor::Describer;
use self::extrema::Candidate;
use self::gradients::Gradients;
use self::keypoints::Extremum;
use self::scale_space::ScaleSpace;
use crate::error::{Error, Result};
use crate::media::{self, Frame, FrameSink, Window};
use crate::store::Values;

/// The detector with its buffers; one per worker thread.
#[derive(Debug)]
pub struct Sift {
    keypoints: usize,
    grey: Mat,
    space: ScaleSpace,
    candidates: Vec<Candidate>,
    gradients: Gradients,
    describer: Describer,
}

impl Sift {
    /// A detector of the `keypoints` strongest keypoints.
    pub fn new(keypoints: usize) -> Self {
        media::prepare_opencv();
        Self {
            keypoints,
            grey: Mat::default(),
            space: ScaleSpace::new(),
            candidates: Vec::new(),
            gradients: Gradients::new(),
            describer: Describer::new(),
        }
    }

    /// Appends the descriptors of a frame (eight bits, blue, green, red) to `out`, [`DESCRIPTOR_LEN`] bytes each, and
    /// returns how many: at most as many as asked for, none on a frame without texture.
    ///
    /// The strongest come first; those of equal response (one extremum with several orientations, mostly) are ordered
    /// by y, x, size, octave, layer, then angle, and the surplus is dropped.
    ///
    /// # Errors
    /// OpenCV cannot turn the frame grey.
    pub fn describe(&mut self, frame: &Mat, out: &mut Vec<u8>) -> Result<usize> {
        let unexpected = |error: opencv::Error| Error::Data(format!("SIFT: {}", error.message));
        imgproc::cvt_color_def(frame, &mut self.grey, imgproc::COLOR_BGR2GRAY).map_err(unexpected)?;
        let grey = self.grey.data_bytes().map_err(unexpected)?;
        self.candidates.clear();
        self.space.build(grey, self.grey.rows() as usize, self.grey.cols() as usize, &mut self.candidates);
        let octaves = self.space.octaves();
        let refined = self.candidates.iter().filter_map(|c| keypoints::refine(c, &octaves[c.octave]));
        let mut extrema: Vec<Extremum> = refined.collect();
        extrema.sort_unstable_by(Extremum::stronger_first);
        // Two extrema may be refined to the same place.
        extrema.dedup_by(|a, b| a.stronger_first(b) == Ordering::Equal);

        let mut left = self.keypoints;
        for extremum in &extrema {
            if left == 0 {
                break;
            }
            let image = &octaves[extremum.octave][extremum.layer];
            let mut orientations = keypoints::orientations(extremum, image, &mut self.gradients);
            orientations.sort_by(f32::total_cmp);
            for orientation in orientations.into_iter().take(left) {
                out.extend(self.describer.describe(extremum, orientation, image, &mut self.gradients));
                left -= 1;
            }
        }
        Ok(self.keypoints - left)
    }
}

/// Describes each wanted frame of a clip; a row is a frame, so the sampling's windows are of one frame.
pub struct DescriptorSink {
    sift: Sift,
    counts: Vec<u32>,
    values: Vec<u8>,
}

impl DescriptorSink {
    /// A sink for the `keypoints` strongest keypoints of each frame. One per worker thread.
    pub fn new(keypoints: usize) -> Self {
        Self { sift: Sift::new(keypoints), counts: Vec::new(), values: Vec::new() }
    }

    /// The descriptors of the clip just decoded.
    pub fn take(&mut self) -> Values {
        let counts = std::mem::take(&mut self.counts);
        let values = std::mem::take(&mut self.values);
        let shape = (values.len() / DESCRIPTOR_LEN, DESCRIPTOR_LEN);
        let values = Array2::from_shape_vec(shape, values).expect("descriptors are whole");
        Values::Descriptors { counts, values }
    }
}

impl FrameSink for DescriptorSink {
    fn begin(&mut self, windows: &[Window], wanted: &[usize]) -> Result<()> {
        if windows.len() != wanted.len() {
            return Err(Error::Data("SIFT looks at single frames: make sampling.kind \"even\"".into()));
        }
        self.counts.clear();
        self.values.clear();
        Ok(())
    }

    fn frame(&mut self, _position: usize, frame: &Frame<'_>) -> Result<()> {
        let count = self.sift.describe(frame.mat(), &mut self.values)?;
        self.counts.push(count as u32);
        Ok(())
    }
}
