//! Timelines from the timestamps of a decoder.

use std::ops::Range;

use super::sampler::Timeline;

/// Tolerance at the ends of a time range in seconds, since times in manifests and in Matroska files are rounded to
/// milliseconds; at most a quarter of the interval between frames.
const RANGE_TOLERANCE: f64 = 1e-3;

/// Number of timestamps after an invalid one that are searched for a valid one.
const LOOKAHEAD: usize = 16;

/// Range of accepted frame rates of containers; others are ignored.
const PLAUSIBLE_FPS: Range<f64> = 0.01..1000.0;

/// Computes the timeline of a file from the timestamp of each frame, in seconds from the start of the file, and the frame
/// rate of the container.
///
/// Decoders may lack timestamps (often the last ones), and timestamps may decrease; see [`repair`]. The rate is constant if a single rate (the
/// container's, otherwise the mean) predicts the time of every frame to within half an interval.
pub(super) fn timeline(timestamps: &[Option<f64>], container_fps: f64) -> Timeline {
    let frame_count = timestamps.len();
    let container_fps = PLAUSIBLE_FPS.contains(&container_fps).then_some(container_fps);
    let times = repair(timestamps, container_fps);
    let start = times.first().copied().unwrap_or(0.0);
    let span = times.last().copied().unwrap_or(0.0) - start;
    let mean = (frame_count > 1 && span > 0.0).then(|| (frame_count - 1) as f64 / span);
    for fps in [container_fps, mean].into_iter().flatten() {
        let constant = times.iter().enumerate().all(|(i, t)| ((t - start) * fps - i as f64).abs() <= 0.5);
        if constant {
            return Timeline { frame_count, fps, start, ..Timeline::default() };
        }
    }
    let timestamps = mean.map(|_| times);
    let fps = mean.or(container_fps).unwrap_or(0.0);
    Timeline { frame_count, fps, timestamps, start, ..Timeline::default() }
}

/// Replaces timestamps that are missing or do not increase. Returns times from 0 on if the first one is negative.
///
/// Such a timestamp is interpolated if one of the next [`LOOKAHEAD`] timestamps is later than the previous one; otherwise it is
/// the previous one plus the previous interval, but at most twice the interval of the container. Missing ones at the start
/// precede the first known one.
fn repair(timestamps: &[Option<f64>], container_fps: Option<f64>) -> Vec<f64> {
    let container_interval = container_fps.map(|fps| 1.0 / fps);
    let mut interval = container_interval.unwrap_or(0.0);
    let known = timestamps.iter().enumerate().find_map(|(i, time)| time.map(|time| time - i as f64 * interval));
    let mut times: Vec<f64> = Vec::with_capacity(timestamps.len());
    for (i, &timestamp) in timestamps.iter().enumerate() {
        let time = match (times.last(), timestamp) {
            (None, _) => known.unwrap_or(0.0),
            (Some(&previous), Some(time)) if time > previous => {
                interval = time - previous;
                time
            }
            (Some(&previous), _) => {
                let later = (2..).zip(timestamps[i + 1..].iter().take(LOOKAHEAD));
                let next = later.filter_map(|(steps, time)| Some((steps, (*time)?))).find(|&(_, time)| time > previous);
                previous
                    + match next {
                        Some((steps, time)) => (time - previous) / f64::from(steps),
                        None => interval.min(container_interval.map_or(f64::INFINITY, |container| 2.0 * container)),
                    }
            }
        };
        times.push(time);
    }
    let first = times.first().copied().unwrap_or(0.0);
    if first < 0.0 {
        times.iter_mut().for_each(|time| *time -= first);
    }
    times
}

/// Returns the indices of the frames that are displayed in a time range. A frame is displayed until the next one, so the first
/// frame may have appeared before the range starts. Empty if the range is before the first frame or after the last one.
pub(super) fn frames_in(seconds: &Range<f64>, timeline: &Timeline) -> Range<usize> {
    let count = timeline.frame_count;
    let interval = timeline.interval();
    let tolerance = RANGE_TOLERANCE.min(interval / 4.0);
    // Returns the number of frames that appear before a time.
    let appeared = |at: f64| match &timeline.timestamps {
        _ if at == f64::INFINITY => count,
        Some(times) => times.partition_point(|&time| time < at),
        None => (((at - timeline.start) * timeline.fps).ceil() as usize).min(count),
    };
    let end = appeared(seconds.end - tolerance);
    if seconds.start <= 0.0 || count == 0 {
        return 0..end;
    }
    let over = interval > 0.0 && seconds.start + tolerance >= timeline.end_seconds(count - 1);
    let first = if over { count } else { appeared(seconds.start + tolerance).saturating_sub(1) };
    first..end.max(first)
}

/// Restricts a timeline to the frames that are displayed in a time range.
pub(super) fn cut(timeline: Timeline, frames: &Range<usize>, seconds: &Range<f64>) -> Timeline {
    let is_part = seconds.start > 0.0 || seconds.end.is_finite();
    let shown = timeline
        .timestamps
        .as_ref()
        .filter(|_| is_part && !frames.is_empty())
        .map(|times| seconds.start.max(times[frames.start])..seconds.end.min(timeline.end_seconds(frames.end - 1)));
    Timeline {
        frame_count: frames.len(),
        timestamps: timeline.timestamps.map(|times| times[frames.clone()].to_vec()),
        first_frame: frames.start,
        shown,
        ..timeline
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(times: impl IntoIterator<Item = f64>) -> Vec<Option<f64>> {
        times.into_iter().map(Some).collect()
    }

    #[test]
    fn millisecond_timestamps_are_a_constant_rate() {
        let times = known((0..100).map(|i| (i as f64 * 1000.0 / 30.0).round() / 1000.0));
        assert_eq!(timeline(&times, 30.0), Timeline { frame_count: 100, fps: 30.0, ..Timeline::default() });
    }

    #[test]
    fn replaces_missing_and_decreasing_timestamps() {
        for unknown in [None, Some(0.0)] {
            let mut times = known((0..100).map(|i| i as f64 / 25.0));
            times[98] = unknown;
            times[99] = unknown;
            assert_eq!(timeline(&times, 25.0).timestamps, None);
            let last = repair(&times, None)[99];
            assert!((last - 3.96).abs() < 1e-9, "{last}");
        }
        let times = repair(&[None, None, Some(1.0), None, Some(1.2)], Some(10.0));
        assert!(times.iter().zip([0.8, 0.9, 1.0, 1.1, 1.2]).all(|(a, b)| (a - b).abs() < 1e-9), "{times:?}");
        // After lost frames, one timestamp is out of order.
        let times = repair(&[0.0, 0.1, 1.0, 0.9, 1.2, 1.3].map(Some), Some(10.0));
        assert!(times.iter().zip([0.0, 0.1, 1.0, 1.1, 1.2, 1.3]).all(|(a, b)| (a - b).abs() < 1e-9), "{times:?}");
        let times = repair(&[0.0, 5.0, 0.2, 0.3].map(Some), Some(10.0));
        assert!(times.iter().zip([0.0, 5.0, 5.2, 5.4]).all(|(a, b)| (a - b).abs() < 1e-9), "{times:?}");
        let times = repair(&[-0.2, -0.1, 0.0].map(Some), Some(10.0));
        assert!(times.iter().zip([0.0, 0.1, 0.2]).all(|(a, b)| (a - b).abs() < 1e-9), "{times:?}");
        let times = repair(&[None; 3], Some(10.0));
        assert!(times.iter().zip([0.0, 0.1, 0.2]).all(|(a, b)| (a - b).abs() < 1e-9), "{times:?}");
    }

    #[test]
    fn measures_the_rate_if_the_container_is_wrong() {
        let times = known((0..50).map(|i| i as f64 / 12.5));
        let timeline = timeline(&times, 90_000.0);
        assert!((timeline.fps - 12.5).abs() < 1e-9);
        assert_eq!(timeline.timestamps, None);
    }

    #[test]
    fn a_frame_is_displayed_during_a_pause() {
        let times = known((0..20).map(|i| i as f64 * 0.1 + if i >= 10 { 2.0 } else { 0.0 }));
        let timeline = timeline(&times, 10.0);
        assert_eq!(timeline.timestamps.as_ref().map(Vec::len), Some(20));
        assert!((timeline.fps - 19.0 / 3.9).abs() < 1e-9);
        assert_eq!(frames_in(&(0.5..3.2), &timeline), 5..12);
        assert_eq!(frames_in(&(1.5..2.5), &timeline), 9..10);
        assert_eq!(frames_in(&(1.5..3.05), &timeline), 9..11);
        let part = cut(timeline, &(9..11), &(1.5..3.05));
        assert_eq!((part.first_frame, part.shown.clone()), (9, Some(1.5..3.05)));
        assert_eq!([part.seconds(0), part.end_seconds(0), part.end_seconds(1)], [0.9, 3.0, 3.05]);
    }

    #[test]
    fn ranges_include_the_displayed_frame_and_exclude_their_end() {
        let timeline = Timeline { frame_count: 100, fps: 25.0, ..Timeline::default() };
        assert_eq!(frames_in(&(0.0..f64::INFINITY), &timeline), 0..100);
        assert_eq!(frames_in(&(0.04..0.12), &timeline), 1..3);
        assert_eq!(frames_in(&(0.05..0.13), &timeline), 1..4);
        assert_eq!(frames_in(&(0.0396..0.1204), &timeline), 1..3, "rounded to milliseconds");
        assert_eq!(frames_in(&(3.98..12.0), &timeline), 99..100);
        assert_eq!(frames_in(&(4.0..12.0), &timeline), 100..100);
        assert_eq!(frames_in(&(9.0..12.0), &timeline), 100..100);
        assert_eq!(cut(timeline, &(25..50), &(1.0..2.0)).seconds(0), 1.0);
    }

    #[test]
    fn times_count_from_the_start_of_the_file() {
        let times = known((0..50).map(|i| 2.0 + i as f64 / 25.0));
        let timeline = timeline(&times, 25.0);
        assert_eq!((timeline.start, timeline.timestamps.is_none()), (2.0, true));
        assert_eq!(frames_in(&(3.0..f64::INFINITY), &timeline), 25..50);
        assert_eq!(frames_in(&(0.5..2.1), &timeline), 0..3);
        assert_eq!(frames_in(&(0.5..1.5), &timeline), 0..0);
        assert_eq!(frames_in(&(4.0..5.0), &timeline), 50..50);
        assert_eq!(cut(timeline, &(25..50), &(3.0..f64::INFINITY)).seconds(1), 3.04);
    }

    #[test]
    fn a_single_frame_has_the_rate_of_the_container() {
        assert_eq!(timeline(&[Some(0.0)], 25.0).fps, 25.0);
        assert_eq!(timeline(&[], f64::NAN).fps, 0.0);
    }
}
