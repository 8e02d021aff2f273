//! A video file: what is planned of it is shown to a sink, and how many frames it has is found out.

use std::ops::Range;
use std::path::Path;

use super::libav::Video;
use super::sampler::{self, Timeline, Wanted, Window};
use super::{Claims, Decoded, Frame, FrameSink, timing};
use crate::error::{Error, Result};

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
    let mut video = open(path)?;
    let claimed_fps = video.claimed_fps();
    let claimed = video.claimed_frames();
    let claimed = if PLAUSIBLE_FRAMES.contains(&claimed) { claimed as usize } else { 0 };

    // What the container claims, to begin with.
    let whole = Timeline { frame_count: claimed, ..timing::timeline(Vec::new(), claimed_fps) };
    let frames = timing::frames_in(&seconds, &whole);
    let guess = Plan::new(wanted, &timing::cut(whole, &frames));
    let until = seconds.end + AFTER_END;
    let times = pass(&mut video, path, &guess, sink, |time| time > until, claimed_fps)?;
    drop(video);

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
        let mut video = open(path)?;
        let last = sampler::distinct(&truth.windows).last().copied().unwrap_or(0) + truth.first;
        let mut decoded = 0;
        let enough = |_| {
            decoded += 1;
            decoded > last
        };
        if pass(&mut video, path, &truth, sink, enough, claimed_fps)?.len() <= last {
            return Err(wrong(format!("frame {last} was decoded once, but not again: is the file being written?")));
        }
    }
    Ok(Decoded { timeline, windows: truth.windows, warnings })
}

/// Decodes from the beginning, shows the sink what is planned, and returns the seconds reported for every frame, as
/// many as there are or until one is enough.
fn pass<S: FrameSink>(
    video: &mut Video,
    path: &Path,
    plan: &Plan,
    sink: &mut S,
    mut enough: impl FnMut(f64) -> bool,
    fps: f64,
) -> Result<Vec<f64>> {
    let wanted = sampler::distinct(&plan.windows);
    sink.begin(&plan.windows, &wanted)?;
    let mut next = wanted.iter().copied().enumerate().peekable();
    let mut times = Vec::new();
    while video.next() {
        let index = times.len();
        let reported = video.seconds();
        times.push(reported);
        if let Some((position, wanted)) = next.next_if(|(_, wanted)| wanted + plan.first == index) {
            let wrong = || {
                let message = format!("frame {index} cannot be converted to color");
                Error::Media { path: path.to_path_buf(), message }
            };
            let image = video.picture().ok_or_else(wrong)?;
            sink.frame(position, &Frame::new(wanted, image))?;
        }
        // Where the decoder knows no time (0, on the last frames often) the frame rate must do.
        if enough(if reported > 0.0 { reported } else { index as f64 / fps.max(PLAUSIBLE_FPS) }) {
            break;
        }
    }
    Ok(times)
}

/// See [`super::claims`].
pub(super) fn claims(path: &Path) -> Result<Claims> {
    let video = open(path)?;
    let [width, height] = video.claimed_size();
    Ok(Claims {
        seconds: video.claimed_frames() / video.claimed_fps().max(PLAUSIBLE_FPS),
        pixels: u64::from(width) * u64::from(height),
    })
}

fn open(path: &Path) -> Result<Video> {
    let wrong = |message: &str| Error::Media { path: path.to_path_buf(), message: message.into() };
    let file = std::path::absolute(path).map_err(Error::io(path))?;
    if file.to_str().is_none() {
        return Err(wrong("its path is not UTF-8: rename it"));
    }
    let nothing = "no video stream that can be decoded: audio only, text, or a damaged or unknown format";
    Video::open(&file).ok_or_else(|| wrong(nothing))
}
