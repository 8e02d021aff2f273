//! A video file, by OpenCV's FFmpeg backend. The only user of `VideoCapture`.

use std::ops::Range;
use std::path::Path;

use opencv::core::{Mat, Vector};
use opencv::videoio::{self, VideoCapture, VideoCaptureTrait as _, VideoCaptureTraitConst as _};

use super::rotation::Rotation;
use super::sampler::{self, Timeline, Wanted, Window};
use super::{Claims, Decoded, Frame, FrameSink, timing};
use crate::error::{Error, Result};

/// `CAP_PROP_N_THREADS`, which OpenCV has since 4.7; before, libav starts as many threads as there are cores.
const CAP_PROP_N_THREADS: i32 = 70;

/// Grabs that may fail in a row before the stream is taken to be at its end: a damaged one goes on after some.
const GRAB_ATTEMPTS: usize = 8;

/// Seconds that decoding goes on after a clip's end, so that frames out of place are seen.
const AFTER_END: f64 = 1.0;

/// Frames that a container may claim and be believed for a first plan.
const PLAUSIBLE_FRAMES: Range<f64> = 1.0..1e9;

/// The least frame rate that is believed.
const PLAUSIBLE_FPS: f64 = 0.01;

/// Frames to look at.
struct Plan {
    /// The clip's first frame in the file.
    first: usize,
    windows: Vec<Window>,
}

impl Plan {
    fn new(wanted: Wanted<'_>, clip: &Timeline) -> Self {
        Self { first: clip.first_frame, windows: sampler::plan(wanted, clip) }
    }
}

/// See [`super::decode`].
pub(super) fn decode<S: FrameSink>(
    path: &Path,
    seconds: Range<f64>,
    wanted: Wanted<'_>,
    sink: &mut S,
) -> Result<Decoded> {
    let wrong = |message: String| Error::Media { path: path.to_path_buf(), message };
    let mut capture = open(path)?;
    let claimed_fps = property(&capture, videoio::CAP_PROP_FPS);
    let claimed = property(&capture, videoio::CAP_PROP_FRAME_COUNT);
    let claimed = if PLAUSIBLE_FRAMES.contains(&claimed) { claimed as usize } else { 0 };

    // What the container claims, to begin with.
    let whole = Timeline { frame_count: claimed, ..timing::timeline(Vec::new(), claimed_fps) };
    let frames = timing::frames_in(&seconds, &whole);
    let guess = Plan::new(wanted, &timing::cut(whole, &frames));
    let until = seconds.end + AFTER_END;
    let times = pass(&mut capture, path, &guess, sink, |time| time > until, claimed_fps)?;
    drop(capture);

    let seen = times.len();
    if seen == 0 {
        return Err(wrong("no frame can be decoded".into()));
    }
    let whole = timing::timeline(times, claimed_fps);
    let frames = timing::frames_in(&seconds, &whole);
    if frames.is_empty() {
        let length = whole.seconds(seen - 1) + whole.interval();
        return Err(wrong(format!("no frame from start {} s on: the video ends at {length:.2} s", seconds.start)));
    }
    let mut warnings = Vec::new();
    if seconds.end.is_infinite() && seen * 10 < claimed * 9 {
        warnings.push(format!("{}: claims {claimed} frames, {seen} can be decoded", path.display()));
    }
    let timeline = timing::cut(whole, &frames);
    let truth = Plan::new(wanted, &timeline);
    if truth.windows.is_empty() {
        return Err(wrong(super::NO_SHOT.into()));
    }
    if truth.first != guess.first || truth.windows != guess.windows {
        let mut capture = open(path)?;
        let last = sampler::distinct(&truth.windows).last().copied().unwrap_or(0) + truth.first;
        let mut grabbed = 0;
        let enough = |_| {
            grabbed += 1;
            grabbed > last
        };
        if pass(&mut capture, path, &truth, sink, enough, claimed_fps)?.len() <= last {
            return Err(wrong(format!("frame {last} was decoded once, but not again: is the file being written?")));
        }
    }
    Ok(Decoded { timeline, windows: truth.windows, warnings })
}

/// Decodes from the beginning, shows the sink what is planned, and returns the seconds reported for every frame, as
/// many as there are or until one is enough.
fn pass<S: FrameSink>(
    capture: &mut VideoCapture,
    path: &Path,
    plan: &Plan,
    sink: &mut S,
    mut enough: impl FnMut(f64) -> bool,
    fps: f64,
) -> Result<Vec<f64>> {
    let wanted = sampler::distinct(&plan.windows);
    sink.begin(&plan.windows, &wanted)?;
    let wrong = |message: String| Error::Media { path: path.to_path_buf(), message };
    let mut next = wanted.iter().copied().enumerate().peekable();
    let mut times = Vec::new();
    let mut rotation = Rotation::of(capture);
    let mut picture = Mat::default();
    while grab(capture) {
        let index = times.len();
        let reported = property(capture, videoio::CAP_PROP_POS_MSEC) / 1000.0;
        times.push(reported);
        if let Some((position, wanted)) = next.next_if(|(_, wanted)| wanted + plan.first == index) {
            let retrieved = capture.retrieve(&mut picture, 0).map_err(|e| wrong(e.message))?;
            if !retrieved {
                return Err(wrong(format!("frame {index} cannot be converted to colour")));
            }
            let upright = rotation.apply(&picture).map_err(|e| wrong(e.message))?;
            sink.frame(position, &Frame::new(wanted, upright, path)?)?;
        }
        // Where the decoder knows no time (0, on the last frames often) the frame rate must do.
        if enough(if reported > 0.0 { reported } else { index as f64 / fps.max(PLAUSIBLE_FPS) }) {
            break;
        }
    }
    Ok(times)
}

fn grab(capture: &mut VideoCapture) -> bool {
    (0..GRAB_ATTEMPTS).any(|_| capture.grab().unwrap_or(false))
}

fn property(capture: &VideoCapture, property: i32) -> f64 {
    capture.get(property).unwrap_or(0.0)
}

/// See [`super::claims`].
pub(super) fn claims(path: &Path) -> Result<Claims> {
    let capture = open(path)?;
    let of = |name| property(&capture, name).max(0.0);
    let frames = of(videoio::CAP_PROP_FRAME_COUNT);
    Ok(Claims {
        seconds: frames / of(videoio::CAP_PROP_FPS).max(PLAUSIBLE_FPS),
        pixels: (of(videoio::CAP_PROP_FRAME_WIDTH) * of(videoio::CAP_PROP_FRAME_HEIGHT)) as u64,
    })
}

pub(super) fn open(path: &Path) -> Result<VideoCapture> {
    let wrong = |message: &str| Error::Media { path: path.to_path_buf(), message: message.into() };
    // An absolute path has no `name:` in front that libav could take for a protocol.
    let file = std::path::absolute(path).map_err(Error::io(path))?;
    let one_thread = opencv::core::get_version_major() * 100 + opencv::core::get_version_minor() >= 407;
    let settings: Vector<i32> = if one_thread { Vector::from_iter([CAP_PROP_N_THREADS, 1]) } else { Vector::new() };
    let capture = VideoCapture::from_file_with_params(&file, videoio::CAP_FFMPEG, &settings)
        .map_err(|e| wrong(&format!("cannot be opened: {}", e.message)))?;
    if !capture.is_opened().unwrap_or(false) {
        return Err(wrong("no video stream that can be decoded: audio only, text, or a damaged or unknown format"));
    }
    Ok(capture)
}
