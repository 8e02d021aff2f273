//! SIFT descriptors of the strongest keypoints of a frame (Lowe, "Distinctive image features from scale-invariant keypoints",
//! 2004), computed by OpenCV.

use std::cmp::Ordering;
use std::sync::Once;

use opencv::core::{self, KeyPoint, KeyPointTraitConst as _, Mat, MatTraitConstManual as _, Ptr, Size, Vec3b, Vector};
use opencv::features2d::{Feature2DTrait as _, SIFT};
use opencv::imgproc;

use super::descriptors::Describer;
use super::settings::DESCRIPTOR_LEN;
use crate::error::{Error, Result};
use crate::media::BgrImage;

// OpenCV's defaults: layers per octave, contrast threshold, edge threshold, sigma of the first layer.
const LAYERS: i32 = 3;
const CONTRAST: f64 = 0.04;
const EDGE: f64 = 10.0;
const SIGMA: f64 = 1.6;

/// Memory of OpenCV's scale space in bytes per pixel of a frame. The first octave has twice the resolution, LAYERS + 3
/// Gaussian and LAYERS + 2 difference images of f32; all octaves together are larger by a third.
const SCALE_SPACE_BYTES: u64 = 240;

/// OpenCV's detector with its buffers. Each worker thread has its own.
pub struct Sift {
    detector: Ptr<SIFT>,
    keypoints: usize,
    max_side: usize,
    gray: Mat,
    found: Vector<KeyPoint>,
    descriptors: Mat,
}

impl Sift {
    /// Creates a detector of the `keypoints` strongest keypoints. Frames whose longer side exceeds `max_side` pixels are scaled
    /// down.
    ///
    /// # Errors
    /// Returns an error if the number exceeds OpenCV's limit.
    pub fn new(keypoints: usize, max_side: usize) -> Result<Self> {
        configure_opencv();
        let limit = i32::try_from(keypoints).map_err(|_| Error::Data(format!("{keypoints} keypoints are too many")))?;
        let detector = SIFT::create.call(limit).map_err(sift_error)?;
        let (gray, descriptors) = (Mat::default(), Mat::default());
        Ok(Self { detector, keypoints, max_side, gray, found: Vector::new(), descriptors })
    }
}

impl Describer for Sift {
    fn dim(&self) -> usize {
        DESCRIPTOR_LEN
    }

    fn max_side(&self) -> usize {
        self.max_side
    }

    /// One byte per pixel, and OpenCV's scale space of the scaled frame.
    fn memory(&self, height: usize, width: usize) -> u64 {
        let [scaled_height, scaled_width] = self.scaled_size(height, width).map(|length| length as u64);
        height as u64 * width as u64 + SCALE_SPACE_BYTES * scaled_height * scaled_width
    }

    /// Appends the descriptors of a frame to `out`, [`DESCRIPTOR_LEN`] bytes each, and returns their number, which may be less
    /// than the number of keypoints of the detector.
    ///
    /// OpenCV returns keypoints in no particular order, and more than requested if responses are equal. Here, keypoints are
    /// sorted by response (descending), y, x, size, angle and octave (ascending), and surplus ones are dropped.
    ///
    /// # Errors
    /// Returns an error if OpenCV fails.
    ///
    /// # Panics
    /// Panics if the rows of the frame have padding.
    fn describe(&mut self, frame: BgrImage<'_>, out: &mut Vec<u8>) -> Result<usize> {
        assert_eq!(frame.stride, 3 * frame.width, "rows have no padding");
        let (height, width) = (frame.height as i32, frame.width as i32);
        let image = Mat::new_rows_cols_with_bytes::<Vec3b>(height, width, frame.data).map_err(sift_error)?;
        imgproc::cvt_color_def(&image, &mut self.gray, imgproc::COLOR_BGR2GRAY).map_err(sift_error)?;
        let [scaled_height, scaled_width] = self.scaled_size(frame.height, frame.width).map(|length| length as i32);
        if [scaled_height, scaled_width] != [height, width] {
            let (mut scaled, size) = (Mat::default(), Size::new(scaled_width, scaled_height));
            imgproc::resize(&self.gray, &mut scaled, size, 0.0, 0.0, imgproc::INTER_AREA).map_err(sift_error)?;
            self.gray = scaled;
        }
        self.found.clear();
        self.detector
            .detect_and_compute(&self.gray, &core::no_array(), &mut self.found, &mut self.descriptors, false)
            .map_err(sift_error)?;
        let mut order: Vec<(i32, KeyPoint)> = (0..).zip(&self.found).collect();
        order.sort_by(|(_, a), (_, b)| by_strength(a, b));
        order.truncate(self.keypoints);
        for (row, _) in &order {
            // The floats are integers from 0 to 255.
            let row = self.descriptors.at_row::<f32>(*row).map_err(sift_error)?;
            out.extend(row.iter().map(|&value| value as u8));
        }
        Ok(order.len())
    }
}

/// The signatures of `SIFT::create`, which the bindings generate from the headers of the installed OpenCV. Since OpenCV 4.8, it
/// has a sixth parameter, `enable_precise_upscale` (false by default). The type parameter is inferred from the function.
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

fn by_strength(a: &KeyPoint, b: &KeyPoint) -> Ordering {
    let position = |k: &KeyPoint| [k.pt().y, k.pt().x, k.size(), k.angle()];
    let by_position = position(a).iter().zip(position(b)).map(|(a, b)| a.total_cmp(&b)).find(|order| order.is_ne());
    b.response().total_cmp(&a.response()).then(by_position.unwrap_or(Ordering::Equal)).then(a.octave().cmp(&b.octave()))
}

/// Changes global settings of OpenCV: no log, which would disturb the progress bar, and a single thread, since clips are
/// processed in parallel.
fn configure_opencv() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // A failure would only affect output and speed.
        let _ = core::set_log_level(core::LogLevel::LOG_LEVEL_SILENT);
        let _ = core::set_num_threads(1);
    });
}

fn sift_error(error: opencv::Error) -> Error {
    Error::Data(format!("SIFT: {}", error.message))
}
