//! Turns frames upright as the container's display matrix asks.
//!
//! OpenCV can do it, but 4.6 on FFmpeg 5 and later (Debian 12, Ubuntu 24.04, the wheels of that version) takes the angle
//! in the wrong sense, so that quarter turns come out upside down. Which sense a library has shows in the angle that it
//! reports for a file whose angle is known.

use std::sync::OnceLock;

use opencv::core::{self, Mat};
use opencv::videoio::{self, VideoCapture, VideoCaptureTrait as _, VideoCaptureTraitConst as _};

use super::video;

/// One grey frame to be shown turned by 90° counter-clockwise.
const PROBE: &[u8] = include_bytes!("rotation_probe.mp4");

/// What is done to every frame of a file.
#[derive(Debug, Default)]
pub(super) struct Rotation {
    /// OpenCV's code of the turn, where one is needed.
    code: Option<i32>,
    turned: Mat,
}

impl Rotation {
    /// Takes the turning from OpenCV for this capture. Where OpenCV does not let go of it, nothing is left to do.
    pub(super) fn of(capture: &mut VideoCapture) -> Self {
        let reported = reported(capture);
        if reported == 0 || !capture.set(videoio::CAP_PROP_ORIENTATION_AUTO, 0.0).unwrap_or(false) {
            return Self::default();
        }
        let clockwise = if reports_counter_clockwise() { 360 - reported } else { reported };
        let code = match clockwise {
            90 => Some(core::ROTATE_90_CLOCKWISE),
            180 => Some(core::ROTATE_180),
            270 => Some(core::ROTATE_90_COUNTERCLOCKWISE),
            _ => None,
        };
        Self { code, turned: Mat::default() }
    }

    /// The frame upright.
    pub(super) fn apply<'a>(&'a mut self, frame: &'a Mat) -> opencv::Result<&'a Mat> {
        let Some(code) = self.code else { return Ok(frame) };
        core::rotate(frame, &mut self.turned, code)?;
        Ok(&self.turned)
    }
}

/// Degrees from 0 to 359, in the sense of the library.
fn reported(capture: &VideoCapture) -> i32 {
    (capture.get(videoio::CAP_PROP_ORIENTATION_META).unwrap_or(0.0) as i32).rem_euclid(360)
}

fn reports_counter_clockwise() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(|| {
        let probe = || {
            let file = tempfile::Builder::new().suffix(".mp4").tempfile().ok()?;
            std::fs::write(file.path(), PROBE).ok()?;
            Some(reported(&video::open(file.path()).ok()?))
        };
        probe() == Some(90)
    })
}
