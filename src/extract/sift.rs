//! SIFT: the strongest keypoints of a frame and their descriptors.

use std::cmp::Ordering;
use std::sync::Once;

use ndarray::Array2;
use opencv::core::{self, KeyPoint, KeyPointTraitConst as _, Mat, MatTraitConstManual as _, Ptr, Vec3b, Vector};
use opencv::features2d::{Feature2DTrait as _, SIFT};
use opencv::imgproc;

use crate::error::{Error, Result};
use crate::media::{BgrImage, Frame, FrameSink, Window};
use crate::store::Values;

/// Values in a descriptor: 4×4 cells of 8 orientations.
pub const DESCRIPTOR_LEN: usize = 128;

/// OpenCV's defaults (Lowe 2004): layers in an octave, contrast and edge thresholds, sigma of the first layer.
const LAYERS: i32 = 3;
const CONTRAST: f64 = 0.04;
const EDGE: f64 = 10.0;
const SIGMA: f64 = 1.6;

/// OpenCV's detector with its buffers; one per worker thread.
pub struct Sift {
    detector: Ptr<SIFT>,
    keypoints: usize,
    gray: Mat,
    found: Vector<KeyPoint>,
    descriptors: Mat,
}

impl Sift {
    /// A detector of the `keypoints` strongest keypoints.
    ///
    /// # Errors
    /// OpenCV refuses the number.
    pub fn new(keypoints: usize) -> Result<Self> {
        prepare_opencv();
        let most = i32::try_from(keypoints).map_err(|_| Error::Data(format!("{keypoints} keypoints are too many")))?;
        let detector = SIFT::create.call(most).map_err(unexpected)?;
        let (gray, descriptors) = (Mat::default(), Mat::default());
        Ok(Self { detector, keypoints, gray, found: Vector::new(), descriptors })
    }

    /// Appends the frame's descriptors to `out`, [`DESCRIPTOR_LEN`] bytes each, and returns how many: at most as many
    /// as asked for, none on a frame without texture.
    ///
    /// OpenCV keeps every keypoint as strong as the last one it keeps, in no order. Here the strongest come first;
    /// those of equal response are ordered by y, x, size, angle, then octave, and the surplus dropped.
    ///
    /// # Errors
    /// OpenCV fails.
    ///
    /// # Panics
    /// There are gaps between the frame's rows.
    pub fn describe(&mut self, frame: BgrImage<'_>, out: &mut Vec<u8>) -> Result<usize> {
        assert_eq!(frame.stride, 3 * frame.width, "rows without a gap");
        let (height, width) = (frame.height as i32, frame.width as i32);
        let picture = Mat::new_rows_cols_with_bytes::<Vec3b>(height, width, frame.data).map_err(unexpected)?;
        imgproc::cvt_color_def(&picture, &mut self.gray, imgproc::COLOR_BGR2GRAY).map_err(unexpected)?;
        self.found.clear();
        self.detector
            .detect_and_compute(&self.gray, &core::no_array(), &mut self.found, &mut self.descriptors, false)
            .map_err(unexpected)?;
        let mut order: Vec<(i32, KeyPoint)> = (0..).zip(&self.found).collect();
        order.sort_by(|(_, a), (_, b)| stronger_first(a, b));
        order.truncate(self.keypoints);
        for (row, _) in &order {
            // OpenCV computes whole numbers from 0 to 255 and gives them as floats.
            let row = self.descriptors.at_row::<f32>(*row).map_err(unexpected)?;
            out.extend(row.iter().map(|&value| value as u8));
        }
        Ok(order.len())
    }
}

/// Signatures of `SIFT::create`, which the bindings generate from the installed OpenCV's headers: it has a sixth parameter,
/// `enable_precise_upscale` (false by default), since OpenCV 4.8. The type parameter is inferred from the function.
trait CreateSift<Arguments> {
    /// Creates a detector of the `keypoints` strongest keypoints with OpenCV's default values.
    fn call(self, keypoints: i32) -> opencv::Result<Ptr<SIFT>>;
}

impl<F: FnOnce(i32, i32, f64, f64, f64) -> opencv::Result<Ptr<SIFT>>> CreateSift<(i32, i32, f64, f64, f64)> for F {
    fn call(self, keypoints: i32) -> opencv::Result<Ptr<SIFT>> {
        self(keypoints, LAYERS, CONTRAST, EDGE, SIGMA)
    }
}

impl<F: FnOnce(i32, i32, f64, f64, f64, bool) -> opencv::Result<Ptr<SIFT>>> CreateSift<(i32, i32, f64, f64, f64, bool)>
    for F
{
    fn call(self, keypoints: i32) -> opencv::Result<Ptr<SIFT>> {
        self(keypoints, LAYERS, CONTRAST, EDGE, SIGMA, false)
    }
}

fn stronger_first(a: &KeyPoint, b: &KeyPoint) -> Ordering {
    let place = |k: &KeyPoint| [k.pt().y, k.pt().x, k.size(), k.angle()];
    let by_place = place(a).iter().zip(place(b)).map(|(a, b)| a.total_cmp(&b)).find(|order| order.is_ne());
    b.response().total_cmp(&a.response()).then(by_place.unwrap_or(Ordering::Equal)).then(a.octave().cmp(&b.octave()))
}

/// Settings of OpenCV that hold for the process: no log, which would tear the progress bar, and no threads of its own, since
/// clips are worked on in parallel already.
fn prepare_opencv() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Neither can fail; if one did, the cost would be noise or speed.
        let _ = core::set_log_level(core::LogLevel::LOG_LEVEL_SILENT);
        let _ = core::set_num_threads(1);
    });
}

fn unexpected(error: opencv::Error) -> Error {
    Error::Data(format!("SIFT: {}", error.message))
}

/// Describes each wanted frame of a clip; a row is a frame, so the sampling's windows are of one frame.
pub struct DescriptorSink {
    sift: Sift,
    counts: Vec<u32>,
    values: Vec<u8>,
}

impl DescriptorSink {
    /// A sink for the `keypoints` strongest keypoints of each frame. One per worker thread.
    ///
    /// # Errors
    /// As [`Sift::new`].
    pub fn new(keypoints: usize) -> Result<Self> {
        Ok(Self { sift: Sift::new(keypoints)?, counts: Vec::new(), values: Vec::new() })
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
        let count = self.sift.describe(frame.image(), &mut self.values)?;
        self.counts.push(count as u32);
        Ok(())
    }
}
