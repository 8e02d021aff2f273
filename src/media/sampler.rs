//! Selection of frames: index arithmetic without decoding.
//!
//! The arithmetic is exact: frame rates are fractions (30000/1001, not 29.97…) and every index is the floor of a quotient of
//! integers, so results do not depend on rounding.

use std::ops::Range;

use super::sampling::{Deinterlace, Sampling};

/// The frames of one clip to decode.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The sampling.
    pub sampling: &'a Sampling,
    /// The clip's shots as ascending ranges of frames of its file; only for [`Sampling::Shots`].
    pub shots: &'a [Range<usize>],
    /// Number of decoder threads for a video; the frames do not depend on it.
    pub threads: usize,
    /// Which frames are deinterlaced.
    pub deinterlace: Deinterlace,
}

impl<'a> From<&'a Sampling> for Wanted<'a> {
    fn from(sampling: &'a Sampling) -> Self {
        Self { sampling, shots: &[], threads: 1, deinterlace: Deinterlace::Off }
    }
}

/// Tolerance in seconds when timestamps are compared, since Matroska and WebM store milliseconds.
const TIME_TOLERANCE: f64 = 1e-3;

/// Frame count and timestamps of a clip, or of its part from `start` to `end`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Timeline {
    /// Number of frames that can be decoded.
    pub frame_count: usize,
    /// Frames per second (the mean if the rate is variable); 0 for images and directories of frames.
    pub fps: f64,
    /// Time at which each frame appears, in seconds from the start of the file, ascending; only if the rate is variable.
    pub timestamps: Option<Vec<f64>>,
    /// Index in the file of the clip's first frame; 0 unless the clip has a start.
    pub first_frame: usize,
    /// Time at which the first frame of the file appears, in seconds from the start of the file; positive if another stream
    /// starts earlier.
    pub start: f64,
    /// The period that the clip shows, in seconds from the start of the file; only if the rate is variable and the clip is a
    /// part of its file. It may begin after its first frame appeared.
    pub shown: Option<Range<f64>>,
}

impl Timeline {
    /// Returns the time at which frame `index` of the clip appears, in seconds from the start of the file; 0 without a frame
    /// rate.
    pub fn seconds(&self, index: usize) -> f64 {
        match &self.timestamps {
            Some(times) => {
                times.get(index).copied().unwrap_or_else(|| times.last().map_or(0.0, |t| t + self.interval()))
            }
            None => self.start + (self.first_frame + index) as f64 * self.interval(),
        }
    }

    /// Returns the time at which frame `index` of the clip disappears, in seconds from the start of the file: a frame is
    /// displayed until the next one, and the last frame of the file for one interval.
    pub fn end_seconds(&self, index: usize) -> f64 {
        let next = self.timestamps.as_ref().and_then(|times| times.get(index + 1).copied());
        let last = || self.shown.as_ref().filter(|_| index + 1 == self.frame_count).map(|shown| shown.end);
        next.or_else(last).unwrap_or_else(|| self.seconds(index) + self.interval())
    }

    /// Returns the display time of one frame in seconds; 0 without a frame rate.
    pub fn interval(&self) -> f64 {
        if self.fps > 0.0 { 1.0 / self.fps } else { 0.0 }
    }

    /// Returns the duration in seconds from the first frame to the end of the last one; 0 without a frame rate.
    pub fn duration(&self) -> f64 {
        if let Some(shown) = &self.shown {
            return shown.end - shown.start;
        }
        match (&self.timestamps, self.frame_count) {
            (_, 0) => 0.0,
            (Some(times), _) => times[times.len() - 1] - times[0] + self.interval(),
            (None, count) => count as f64 * self.interval(),
        }
    }
}

/// The frames of one row of features.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Indices of the frames in the clip, ascending.
    pub indices: Vec<usize>,
    /// `true` if the clip is shorter than a window, so that its last frame is repeated.
    pub padded: bool,
}

/// Computes the windows of a clip in temporal order; none for a clip without frames.
///
/// * [`Sampling::Even`]: windows of one frame. Frame `floor((2i+1)·n / 2k)` for `i` in `0..k` is the center of one of `k`
///   equal segments of the `n` frames. If `n` is less than `k`, every frame is a window.
/// * [`Sampling::Windows`]: the clip is resampled to `rate` frames per second. Its frame `k` is frame `floor(k·fps/rate)` of
///   the clip (torchvision's `VideoClips`). If the rate is variable, it is the latest frame that appears by `k/rate` seconds;
///   without a frame rate, every frame is used. Of the `n` possible starts of a window of `length` frames, the starts
///   `floor(w·(n-1) / (count-1))` for `w` in `0..count` are used, without duplicates (torchvision's `UniformClipSampler`); a
///   single window is the first. A clip shorter than a window has one window, in which its last frame is repeated.
/// * [`Sampling::Spread`]: one window with the frames `floor((2i+1)·n / 2·length)` for `i` in `0..length`. A clip shorter than
///   the window repeats frames.
/// * [`Sampling::All`]: windows of one frame: `0, every, 2·every, …`. If there are more than `most`, the centers of `most`
///   equal segments of this list.
/// * [`Sampling::Shots`]: windows of one frame, for each shot as [`Sampling::Even`] for a clip. Parts of shots outside of the
///   clip are ignored. If no shot is within the clip, there are no windows.
///
/// # Source
/// torchvision `datasets/video_utils.py` and `datasets/samplers/clip_sampler.py`, which use 32-bit floats.
pub fn plan<'a>(wanted: impl Into<Wanted<'a>>, timeline: &Timeline) -> Vec<Window> {
    let Wanted { sampling, shots, .. } = wanted.into();
    let frame_count = timeline.frame_count;
    if frame_count == 0 {
        return Vec::new();
    }
    match *sampling {
        Sampling::Even { frames } => even(0..frame_count, frames).map(single).collect(),
        Sampling::Spread { length } => {
            let indices = (0..length).map(|i| center(i, length, frame_count)).collect();
            vec![Window { indices, padded: frame_count < length }]
        }
        Sampling::All { every, most } => {
            let count = frame_count.div_ceil(every);
            even(0..count, most.unwrap_or(count)).map(|k| single(k * every)).collect()
        }
        Sampling::Shots { frames } => {
            let in_clip = |frame: usize| frame.saturating_sub(timeline.first_frame).min(frame_count);
            shots.iter().flat_map(|shot| even(in_clip(shot.start)..in_clip(shot.end), frames)).map(single).collect()
        }
        Sampling::Windows { length, rate, count } => {
            let resampled = Resampled::new(timeline, rate);
            if resampled.len < length {
                let indices = (0..length).map(|k| resampled.index(k.min(resampled.len - 1))).collect();
                return vec![Window { indices, padded: true }];
            }
            starts(resampled.len - length + 1, count)
                .into_iter()
                .map(|start| Window {
                    indices: (start..start + length).map(|k| resampled.index(k)).collect(),
                    padded: false,
                })
                .collect()
        }
    }
}

/// Returns the distinct frames of `windows` in ascending order.
pub fn distinct(windows: &[Window]) -> Vec<usize> {
    let mut indices: Vec<usize> = windows.iter().flat_map(|w| w.indices.iter().copied()).collect();
    indices.sort_unstable();
    indices.dedup();
    indices
}

/// Returns a window of one frame.
fn single(index: usize) -> Window {
    Window { indices: vec![index], padded: false }
}

/// Returns the centers of `count` equal segments of a range, or every index if the range is shorter.
fn even(range: Range<usize>, count: usize) -> impl Iterator<Item = usize> {
    let count = count.min(range.len());
    (0..count).map(move |i| range.start + center(i, count, range.len()))
}

/// Returns the center of segment `i` of `count` equal segments of `0..n`.
fn center(i: usize, count: usize, n: usize) -> usize {
    ((2 * i as u128 + 1) * n as u128 / (2 * count as u128)) as usize
}

/// Returns up to `count` evenly spaced, distinct values of `0..n` in ascending order.
fn starts(n: usize, count: usize) -> Vec<usize> {
    if count >= n {
        return (0..n).collect();
    }
    let last = (n - 1) as u128;
    let steps = count.saturating_sub(1).max(1) as u128;
    let mut starts: Vec<usize> = (0..count as u128).map(|w| (w * last / steps) as usize).collect();
    starts.dedup();
    starts
}

/// A clip resampled to another frame rate. Indices are computed on demand.
struct Resampled<'a> {
    len: usize,
    step: Step<'a>,
}

enum Step<'a> {
    /// Frame `k` is frame `floor(k · numerator / denominator)`.
    Constant { numerator: u128, denominator: u128, last: usize },
    /// Frame `k` is the latest frame that appears by `k / rate` seconds after the start of the clip.
    Timestamps { times: &'a [f64], start: f64, rate: f64 },
}

impl<'a> Resampled<'a> {
    fn new(timeline: &'a Timeline, rate: f64) -> Self {
        let frame_count = timeline.frame_count;
        if let Some(times) = timeline.timestamps.as_deref().filter(|times| times.len() == frame_count) {
            let len = ((timeline.duration() + TIME_TOLERANCE) * rate).floor().max(1.0) as usize;
            let start = timeline.shown.as_ref().map_or(times[0], |shown| shown.start);
            return Resampled { len, step: Step::Timestamps { times, start, rate } };
        }
        let last = frame_count - 1;
        if timeline.fps <= 0.0 {
            return Resampled { len: frame_count, step: Step::Constant { numerator: 1, denominator: 1, last } };
        }
        let (fps, rate) = (fraction(timeline.fps), fraction(rate));
        let (numerator, denominator) = (fps.0 * rate.1, fps.1 * rate.0);
        let len = if numerator % denominator == 0 {
            // An integer step is a slice `[::step]`, which includes the last frame.
            (frame_count as u128).div_ceil(numerator / denominator)
        } else {
            frame_count as u128 * denominator / numerator
        };
        Resampled { len: len.max(1) as usize, step: Step::Constant { numerator, denominator, last } }
    }

    fn index(&self, k: usize) -> usize {
        match self.step {
            Step::Constant { numerator, denominator, last } => {
                ((k as u128 * numerator / denominator) as usize).min(last)
            }
            Step::Timestamps { times, start, rate } => {
                let wanted = start + k as f64 / rate + TIME_TOLERANCE;
                times.partition_point(|&time| time <= wanted).max(1) - 1
            }
        }
    }
}

/// Converts a frame rate to a fraction: an integer, a multiple of 1/1001 (NTSC), of 1/1000 or of 1/1000000.
fn fraction(rate: f64) -> (u128, u128) {
    for denominator in [1.0, 1001.0, 1000.0] {
        let numerator = (rate * denominator).round();
        if numerator >= 1.0 && (rate * denominator - numerator).abs() < 1e-6 * denominator {
            return (numerator as u128, denominator as u128);
        }
    }
    (((rate * 1e6).round() as u128).max(1), 1_000_000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn constant(frame_count: usize, fps: f64) -> Timeline {
        Timeline { frame_count, fps, ..Timeline::default() }
    }

    fn indices(sampling: Sampling, timeline: &Timeline) -> Vec<Vec<usize>> {
        plan(&sampling, timeline).into_iter().map(|w| w.indices).collect()
    }

    #[test]
    fn huge_counts_need_no_memory() {
        let windows = Sampling::Windows { length: 4, rate: 25.0, count: usize::MAX };
        assert_eq!(indices(windows, &constant(6, 25.0)), [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5]]);
        assert_eq!(starts(3, 3), [0, 1, 2]);
        assert_eq!(indices(Sampling::Even { frames: usize::MAX }, &constant(2, 25.0)), [[0], [1]]);
    }

    #[test]
    fn even_sampling_selects_the_centers_of_equal_segments() {
        assert_eq!(indices(Sampling::Even { frames: 4 }, &constant(100, 25.0)), [[12], [37], [62], [87]]);
        assert_eq!(indices(Sampling::Even { frames: 8 }, &constant(3, 25.0)), [[0], [1], [2]]);
        assert!(plan(&Sampling::Even { frames: 8 }, &constant(0, 25.0)).is_empty());
    }

    #[test]
    fn spread_sampling_selects_one_window_of_the_whole_clip() {
        let spread = |length, frames| plan(&Sampling::Spread { length }, &constant(frames, 25.0));
        assert_eq!(spread(4, 100), [Window { indices: vec![12, 37, 62, 87], padded: false }]);
        assert_eq!(spread(5, 2), [Window { indices: vec![0, 0, 1, 1, 1], padded: true }]);
        assert!(spread(4, 0).is_empty());
    }

    #[test]
    fn all_sampling_selects_every_nth_frame_up_to_a_limit() {
        let all = |every, most| indices(Sampling::All { every, most }, &constant(10, 25.0)).concat();
        assert_eq!(all(1, None), (0..10).collect::<Vec<_>>());
        assert_eq!(all(4, None), [0, 4, 8]);
        assert_eq!(all(20, None), [0]);
        assert_eq!(all(2, Some(5)), [0, 2, 4, 6, 8]);
        assert_eq!(all(2, Some(3)), [0, 4, 8]);
        assert_eq!(all(1, Some(1)), [5]);
        assert!(plan(&Sampling::All { every: 1, most: None }, &constant(0, 25.0)).is_empty());
    }

    #[test]
    fn shot_sampling_selects_the_centers_of_shots_within_the_clip() {
        let take = |frames, shots: &[Range<usize>], timeline: &Timeline| -> Vec<usize> {
            let sampling = Sampling::Shots { frames };
            let wanted = Wanted { shots, ..Wanted::from(&sampling) };
            plan(wanted, timeline).into_iter().flat_map(|w| w.indices).collect()
        };
        let clip = constant(100, 25.0);
        assert_eq!(take(1, &[0..30, 31..32, 40..100], &clip), [15, 31, 70]);
        assert_eq!(take(2, &[0..30, 31..32, 40..100], &clip), [7, 22, 31, 55, 85]);
        // Shots are frames of the file. The clip starts at frame 20 and has 30 frames.
        let cut = Timeline { first_frame: 20, ..constant(30, 25.0) };
        assert_eq!(take(1, &[0..10, 10..30, 40..80], &cut), [5, 25]);
        assert!(take(3, &[0..20, 50..60], &cut).is_empty());
    }

    #[test]
    fn a_short_clip_has_one_padded_window() {
        let windows = plan(&Sampling::Windows { length: 5, rate: 15.0, count: 3 }, &constant(5, 30.0));
        assert_eq!(windows, [Window { indices: vec![0, 2, 4, 4, 4], padded: true }]);
        let windows = plan(&Sampling::Windows { length: 3, rate: 15.0, count: 3 }, &constant(1, 25.0));
        assert_eq!(windows, [Window { indices: vec![0, 0, 0], padded: true }]);
    }

    #[test]
    fn windows_are_spaced_evenly_from_the_first_to_the_last() {
        let sampling = |count| Sampling::Windows { length: 2, rate: 10.0, count };
        assert_eq!(indices(sampling(1), &constant(6, 10.0)), [[0, 1]]);
        assert_eq!(indices(sampling(3), &constant(6, 10.0)), [[0, 1], [2, 3], [4, 5]]);
        assert_eq!(indices(sampling(9), &constant(3, 10.0)), [[0, 1], [1, 2]]);
    }

    #[test]
    fn without_a_rate_windows_are_consecutive_frames() {
        assert_eq!(indices(Sampling::Windows { length: 3, rate: 15.0, count: 1 }, &constant(4, 0.0)), [[0, 1, 2]]);
    }

    #[test]
    fn a_variable_rate_is_sampled_by_time() {
        // Ten frames at 10 per second, a pause of two seconds, and ten more.
        let times: Vec<f64> = (0..20).map(|i| i as f64 * 0.1 + if i >= 10 { 2.0 } else { 0.0 }).collect();
        let timeline = Timeline { frame_count: 20, fps: 19.0 / 3.9, timestamps: Some(times), ..Timeline::default() };
        let windows = indices(Sampling::Windows { length: 8, rate: 2.0, count: 1 }, &timeline);
        assert_eq!(windows, [[0, 5, 9, 9, 9, 9, 10, 15]]);
    }

    #[test]
    fn a_part_that_begins_in_a_pause_is_sampled_from_its_start() {
        let timeline = Timeline {
            frame_count: 2,
            fps: 5.0,
            timestamps: Some(vec![0.9, 4.0]),
            first_frame: 9,
            shown: Some(2.0..5.0),
            ..Timeline::default()
        };
        assert_eq!(timeline.duration(), 3.0);
        assert_eq!([timeline.seconds(0), timeline.end_seconds(0), timeline.end_seconds(1)], [0.9, 4.0, 5.0]);
        let windows = plan(&Sampling::Windows { length: 6, rate: 2.0, count: 1 }, &timeline);
        assert_eq!(windows, [Window { indices: vec![0, 0, 0, 0, 1, 1], padded: false }]);
    }

    #[test]
    fn converts_frame_rates_to_fractions() {
        assert_eq!(fraction(25.0), (25, 1));
        assert_eq!(fraction(30000.0 / 1001.0), (30000, 1001));
        assert_eq!(fraction(23.976), (23976, 1000));
        assert_eq!(fraction(12.5), (12500, 1000));
    }

    #[test]
    fn windows_match_torchvision() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/media/sampling.json")))
                .unwrap();
        let cases = golden["cases"].as_array().unwrap();
        assert!(cases.len() > 100);
        for case in cases {
            let number = |key: &str| case[key].as_f64().unwrap();
            let timeline = constant(number("frames") as usize, number("fps"));
            let length = number("length") as usize;
            let count = number("count") as usize;
            let actual = indices(Sampling::Windows { length, rate: number("rate"), count }, &timeline);
            let expected: Vec<Vec<usize>> = serde_json::from_value(case["windows"].clone()).unwrap();
            assert_eq!(actual, expected, "{case}");
        }
    }

    proptest! {
        #[test]
        fn even_sampling_is_ascending_distinct_and_symmetric(n in 1usize..5000, k in 1usize..200) {
            let frames: Vec<usize> = indices(Sampling::Even { frames: k }, &constant(n, 25.0)).concat();
            prop_assert_eq!(frames.len(), k.min(n));
            prop_assert!(frames.windows(2).all(|w| w[0] < w[1]));
            prop_assert!(frames.iter().all(|&f| f < n));
            let expected: Vec<usize> = (0..k.min(n)).map(|i| ((2 * i + 1) * n) / (2 * k.min(n))).collect();
            prop_assert_eq!(frames, expected);
        }

        #[test]
        fn windows_stay_inside_and_in_order(
            n in 1usize..2000, fps in 1.0f64..120.0, length in 1usize..40, rate in 1.0f64..60.0, count in 1usize..20,
        ) {
            let windows = plan(&Sampling::Windows { length, rate, count }, &constant(n, fps));
            prop_assert!(!windows.is_empty() && windows.len() <= count);
            prop_assert!(windows.iter().all(|w| w.indices.len() == length));
            prop_assert!(windows.iter().all(|w| w.indices.windows(2).all(|p| p[0] <= p[1])));
            prop_assert!(windows.iter().all(|w| w.indices.iter().all(|&i| i < n)));
            prop_assert!(windows.iter().all(|w| !w.padded) || windows.len() == 1);
            prop_assert_eq!(windows[0].indices[0], 0);
        }

        #[test]
        fn constant_timestamps_equal_a_constant_rate(
            n in 2usize..600, fps in prop::sample::select(vec![10.0, 24.0, 25.0, 30.0, 50.0]), count in 1usize..6,
        ) {
            let times = (0..n).map(|i| i as f64 / fps).collect();
            let timeline = Timeline { timestamps: Some(times), ..constant(n, fps) };
            // 7 frames per second divides none of the rates; an integer step could add a frame.
            let sampling = Sampling::Windows { length: 3, rate: 7.0, count };
            prop_assert_eq!(plan(&sampling, &timeline), plan(&sampling, &constant(n, fps)));
        }

        #[test]
        fn distinct_frames_cover_every_window(n in 1usize..500, length in 1usize..20, count in 1usize..9) {
            let windows = plan(&Sampling::Windows { length, rate: 15.0, count }, &constant(n, 25.0));
            let wanted = distinct(&windows);
            prop_assert!(wanted.windows(2).all(|w| w[0] < w[1]));
            prop_assert!(windows.iter().flat_map(|w| &w.indices).all(|i| wanted.binary_search(i).is_ok()));
        }
    }
}
