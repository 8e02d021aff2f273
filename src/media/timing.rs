//! Timelines from the timestamps of a decoder.

use std::ops::Range;

use super::sampler::Timeline;

/// Tolerance at the ends of a time range, in frames, so that a start of 0.04 s is frame 1 at 25 frames per second.
const RANGE_TOLERANCE: f64 = 1e-3;

/// Range of accepted frame rates of containers; others are ignored.
const PLAUSIBLE_FPS: Range<f64> = 0.01..1000.0;

/// Computes the timeline of a file from the timestamp of each frame, in seconds, and the frame rate of the container.
///
/// Decoders report 0 for unknown timestamps (often the last ones), and timestamps may decrease. A timestamp that does not
/// increase is replaced by the previous one plus the previous interval. The rate is constant if a single rate (the
/// container's, otherwise the mean) predicts the time of every frame to within half an interval.
pub(super) fn timeline(mut timestamps: Vec<f64>, container_fps: f64) -> Timeline {
    let frame_count = timestamps.len();
    let container_fps = PLAUSIBLE_FPS.contains(&container_fps).then_some(container_fps);
    repair(&mut timestamps, container_fps);
    let span = timestamps.last().copied().unwrap_or(0.0) - timestamps.first().copied().unwrap_or(0.0);
    let mean = (frame_count > 1 && span > 0.0).then(|| (frame_count - 1) as f64 / span);
    for fps in [container_fps, mean].into_iter().flatten() {
        let constant = timestamps.iter().enumerate().all(|(i, t)| ((t - timestamps[0]) * fps - i as f64).abs() <= 0.5);
        if constant {
            return Timeline { frame_count, fps, timestamps: None, first_frame: 0 };
        }
    }
    match mean {
        Some(fps) => Timeline { frame_count, fps, timestamps: Some(timestamps), first_frame: 0 },
        None => Timeline { frame_count, fps: container_fps.unwrap_or(0.0), timestamps: None, first_frame: 0 },
    }
}

/// Replaces timestamps that do not increase.
fn repair(times: &mut [f64], container_fps: Option<f64>) {
    let mut interval = container_fps.map_or(0.0, |fps| 1.0 / fps);
    for i in 1..times.len() {
        if times[i].is_finite() && times[i] > times[i - 1] {
            interval = times[i] - times[i - 1];
        } else {
            times[i] = times[i - 1] + interval;
        }
    }
}

/// Returns the indices of the frames that are displayed in a time range.
pub(super) fn frames_in(seconds: &Range<f64>, timeline: &Timeline) -> Range<usize> {
    let count = timeline.frame_count;
    let frame_at = |at: f64| -> usize {
        if at <= 0.0 {
            return 0;
        }
        if at.is_infinite() {
            return count;
        }
        match &timeline.timestamps {
            Some(times) => times.partition_point(|t| (at - t) * timeline.fps > RANGE_TOLERANCE),
            None => ((at * timeline.fps - RANGE_TOLERANCE).ceil() as usize).min(count),
        }
    };
    let first = frame_at(seconds.start);
    first..frame_at(seconds.end).max(first)
}

/// Restricts a timeline to a range of frames.
pub(super) fn cut(timeline: Timeline, frames: &Range<usize>) -> Timeline {
    Timeline {
        frame_count: frames.len(),
        timestamps: timeline.timestamps.map(|times| times[frames.clone()].to_vec()),
        first_frame: frames.start,
        ..timeline
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn millisecond_timestamps_are_a_constant_rate() {
        let times = (0..100).map(|i| (i as f64 * 1000.0 / 30.0).round() / 1000.0).collect();
        assert_eq!(timeline(times, 30.0), Timeline { frame_count: 100, fps: 30.0, ..Timeline::default() });
    }

    #[test]
    fn replaces_zeros_at_the_end() {
        let mut times: Vec<f64> = (0..100).map(|i| i as f64 / 25.0).collect();
        times[98] = 0.0;
        times[99] = 0.0;
        assert_eq!(timeline(times.clone(), 25.0).timestamps, None);
        repair(&mut times, None);
        assert!((times[99] - 3.96).abs() < 1e-9, "{}", times[99]);
    }

    #[test]
    fn measures_the_rate_if_the_container_is_wrong() {
        let times = (0..50).map(|i| i as f64 / 12.5).collect();
        let timeline = timeline(times, 90_000.0);
        assert!((timeline.fps - 12.5).abs() < 1e-9);
        assert_eq!(timeline.timestamps, None);
    }

    #[test]
    fn a_pause_makes_the_rate_variable() {
        let times = (0..20).map(|i| i as f64 * 0.1 + if i >= 10 { 2.0 } else { 0.0 }).collect();
        let timeline = timeline(times, 10.0);
        assert_eq!(timeline.timestamps.as_ref().map(Vec::len), Some(20));
        assert!((timeline.fps - 19.0 / 3.9).abs() < 1e-9);
        assert_eq!(frames_in(&(0.5..3.2), &timeline), 5..12);
    }

    #[test]
    fn ranges_include_their_start_and_exclude_their_end() {
        let timeline = Timeline { frame_count: 100, fps: 25.0, ..Timeline::default() };
        assert_eq!(frames_in(&(0.0..f64::INFINITY), &timeline), 0..100);
        assert_eq!(frames_in(&(0.04..0.12), &timeline), 1..3);
        assert_eq!(frames_in(&(0.05..0.13), &timeline), 2..4);
        assert_eq!(frames_in(&(9.0..12.0), &timeline), 100..100);
        assert_eq!(cut(timeline, &(25..50)).seconds(0), 1.0);
    }

    #[test]
    fn a_single_frame_has_the_rate_of_the_container() {
        assert_eq!(timeline(vec![0.0], 25.0).fps, 25.0);
        assert_eq!(timeline(Vec::new(), f64::NAN).fps, 0.0);
    }
}
