//! From the timestamps a decoder reports to a [`Timeline`].

use std::ops::Range;

use super::sampler::Timeline;

/// Slack at the borders of a clip's range, in frames: a start of 0.04 s is frame 1 at 25 frames a second.
const BORDER_SLACK: f64 = 1e-3;

/// Frame rates that a container may claim and be believed.
const PLAUSIBLE: Range<f64> = 0.01..1000.0;

/// The timeline of a whole file.
///
/// `reported` are seconds of each frame; decoders leave some out as 0 (the last ones, often) or let them run backwards,
/// so a time that does not grow is replaced by the one before plus the interval before that. The rate is constant where a
/// single rate (the container's, else the mean) puts every frame within half an interval of its time.
pub(super) fn timeline(mut reported: Vec<f64>, claimed_fps: f64) -> Timeline {
    let frame_count = reported.len();
    let claimed = PLAUSIBLE.contains(&claimed_fps).then_some(claimed_fps);
    repair(&mut reported, claimed);
    let span = reported.last().copied().unwrap_or(0.0) - reported.first().copied().unwrap_or(0.0);
    let mean = (frame_count > 1 && span > 0.0).then(|| (frame_count - 1) as f64 / span);
    for fps in [claimed, mean].into_iter().flatten() {
        let constant = reported.iter().enumerate().all(|(i, t)| ((t - reported[0]) * fps - i as f64).abs() <= 0.5);
        if constant {
            return Timeline { frame_count, fps, timestamps: None, first_frame: 0 };
        }
    }
    match mean {
        Some(fps) => Timeline { frame_count, fps, timestamps: Some(reported), first_frame: 0 },
        None => Timeline { frame_count, fps: claimed.unwrap_or(0.0), timestamps: None, first_frame: 0 },
    }
}

fn repair(times: &mut [f64], claimed: Option<f64>) {
    let mut interval = claimed.map_or(0.0, |fps| 1.0 / fps);
    for i in 1..times.len() {
        if times[i].is_finite() && times[i] > times[i - 1] {
            interval = times[i] - times[i - 1];
        } else {
            times[i] = times[i - 1] + interval;
        }
    }
}

/// The frames shown in a range of seconds, as indices into the file.
pub(super) fn frames_in(seconds: &Range<f64>, timeline: &Timeline) -> Range<usize> {
    let count = timeline.frame_count;
    let border = |at: f64| -> usize {
        if at <= 0.0 {
            return 0;
        }
        if at.is_infinite() {
            return count;
        }
        match &timeline.timestamps {
            Some(times) => times.partition_point(|t| (at - t) * timeline.fps > BORDER_SLACK),
            None => ((at * timeline.fps - BORDER_SLACK).ceil() as usize).min(count),
        }
    };
    let first = border(seconds.start);
    first..border(seconds.end).max(first)
}

/// The timeline of those frames alone.
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
    fn milliseconds_of_matroska_are_a_constant_rate() {
        let times = (0..100).map(|i| (i as f64 * 1000.0 / 30.0).round() / 1000.0).collect();
        assert_eq!(timeline(times, 30.0), Timeline { frame_count: 100, fps: 30.0, ..Timeline::default() });
    }

    #[test]
    fn zeros_at_the_end_are_filled_in() {
        let mut times: Vec<f64> = (0..100).map(|i| i as f64 / 25.0).collect();
        times[98] = 0.0;
        times[99] = 0.0;
        assert_eq!(timeline(times.clone(), 25.0).timestamps, None);
        repair(&mut times, None);
        assert!((times[99] - 3.96).abs() < 1e-9, "{}", times[99]);
    }

    #[test]
    fn a_rate_that_is_claimed_wrongly_is_measured() {
        let times = (0..50).map(|i| i as f64 / 12.5).collect();
        let timeline = timeline(times, 90_000.0);
        assert!((timeline.fps - 12.5).abs() < 1e-9);
        assert_eq!(timeline.timestamps, None);
    }

    #[test]
    fn a_pause_makes_the_rate_vary() {
        let times = (0..20).map(|i| i as f64 * 0.1 + if i >= 10 { 2.0 } else { 0.0 }).collect();
        let timeline = timeline(times, 10.0);
        assert_eq!(timeline.timestamps.as_ref().map(Vec::len), Some(20));
        assert!((timeline.fps - 19.0 / 3.9).abs() < 1e-9);
        assert_eq!(frames_in(&(0.5..3.2), &timeline), 5..12);
    }

    #[test]
    fn ranges_hold_their_start_and_leave_out_their_end() {
        let timeline = Timeline { frame_count: 100, fps: 25.0, ..Timeline::default() };
        assert_eq!(frames_in(&(0.0..f64::INFINITY), &timeline), 0..100);
        assert_eq!(frames_in(&(0.04..0.12), &timeline), 1..3);
        assert_eq!(frames_in(&(0.05..0.13), &timeline), 2..4);
        assert_eq!(frames_in(&(9.0..12.0), &timeline), 100..100);
        assert_eq!(cut(timeline, &(25..50)).seconds(0), 1.0);
    }

    #[test]
    fn one_frame_or_none_has_the_claimed_rate() {
        assert_eq!(timeline(vec![0.0], 25.0).fps, 25.0);
        assert_eq!(timeline(Vec::new(), f64::NAN).fps, 0.0);
    }
}
