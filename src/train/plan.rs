//! The clips of an epoch, as pure functions of the seed and the epoch.

use rand::Rng;
use rand::seq::SliceRandom;
use rand::seq::index;

use super::random::{Purpose, generator};

/// One occurrence of a clip in an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// Index of the clip.
    pub clip: usize,
    /// Number of earlier occurrences in the epoch; above 0 only for clips that are repeated.
    pub occurrence: usize,
}

/// Orders `clips` (indices, possibly with repetitions) at random.
pub fn shuffled(clips: &[usize], seed: u64, epoch: usize) -> Vec<Draw> {
    let mut order = clips.to_vec();
    order.shuffle(&mut generator(seed, Purpose::Order, &[epoch as u64]));
    count_occurrences(&order)
}

/// Draws as many clips as there are, with replacement: a class, uniformly among those that occur, then one of its clips, uniformly.
/// `label_sets` has the classes of each clip; clips without a class are not drawn.
pub fn balanced(label_sets: &[Vec<usize>], seed: u64, epoch: usize) -> Vec<Draw> {
    let classes = label_sets.iter().flatten().max().map_or(0, |last| last + 1);
    let mut members = vec![Vec::new(); classes];
    for (clip, labels) in label_sets.iter().enumerate() {
        labels.iter().for_each(|&label| members[label].push(clip));
    }
    members.retain(|clips| !clips.is_empty());
    let mut rng = generator(seed, Purpose::Order, &[epoch as u64]);
    let mut draw = || members.choose(&mut rng).and_then(|clips| clips.choose(&mut rng)).copied();
    count_occurrences(&label_sets.iter().filter_map(|_| draw()).collect::<Vec<_>>())
}

/// Returns the clips in order, without randomness.
pub fn sequential(clips: usize) -> Vec<Draw> {
    (0..clips).map(|clip| Draw { clip, occurrence: 0 }).collect()
}

fn count_occurrences(order: &[usize]) -> Vec<Draw> {
    let mut counts = vec![0; order.iter().max().map_or(0, |last| last + 1)];
    let draw = |&clip: &usize| {
        counts[clip] += 1;
        Draw { clip, occurrence: counts[clip] - 1 }
    };
    order.iter().map(draw).collect()
}

/// Draws up to `most` of the windows `0..windows` of a clip without replacement, in ascending order; all without a maximum.
pub fn windows(windows: usize, most: Option<usize>, seed: u64, epoch: usize, draw: Draw) -> Vec<usize> {
    match most {
        Some(most) if most < windows => {
            let counters = [epoch, draw.clip, draw.occurrence].map(|counter| counter as u64);
            let mut chosen = index::sample(&mut generator(seed, Purpose::Windows, &counters), windows, most).into_vec();
            chosen.sort_unstable();
            chosen
        }
        _ => (0..windows).collect(),
    }
}

/// Draws `count` windows for the self-supervised task: the clips of a pool in random order, repeatedly in new orders, and one of the
/// windows of each. `windows` has the number of windows of each clip of the pool. Returns pairs of an index in the pool and a window.
pub fn from_pool(windows: &[usize], count: usize, seed: u64, epoch: usize) -> Vec<(usize, usize)> {
    let mut rng = generator(seed, Purpose::Rotations, &[epoch as u64]);
    let mut order: Vec<usize> = (0..windows.len()).collect();
    let mut drawn = Vec::with_capacity(count);
    while drawn.len() < count && !order.is_empty() {
        order.shuffle(&mut rng);
        drawn.extend(order.iter().take(count - drawn.len()).map(|&clip| (clip, rng.gen_range(0..windows[clip]))));
    }
    drawn
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_epoch_has_every_clip_once(n in 0usize..200, seed in any::<u64>(), epoch in 0usize..100) {
            let clips: Vec<usize> = (0..n).collect();
            let order = shuffled(&clips, seed, epoch);
            let mut sorted: Vec<usize> = order.iter().map(|draw| draw.clip).collect();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, clips.clone());
            prop_assert!(order.iter().all(|draw| draw.occurrence == 0));
            prop_assert_eq!(&order, &shuffled(&clips, seed, epoch));
            if n > 20 {
                prop_assert_ne!(&order, &shuffled(&clips, seed, epoch + 1));
                prop_assert_ne!(&order, &shuffled(&clips, seed.wrapping_add(1), epoch));
            }
        }

        #[test]
        fn windows_are_distinct_and_ascending(n in 1usize..100, most in 1usize..30, seed in any::<u64>()) {
            let draw = Draw { clip: 3, occurrence: 1 };
            let chosen = windows(n, Some(most), seed, 2, draw);
            prop_assert_eq!(chosen.len(), most.min(n));
            prop_assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]) && chosen.iter().all(|&window| window < n));
            prop_assert_eq!(&chosen, &windows(n, Some(most), seed, 2, draw));
            prop_assert_eq!(windows(n, None, seed, 2, draw).len(), n);
        }

        #[test]
        fn a_pool_is_used_evenly(sizes in prop::collection::vec(1usize..5, 1..20), count in 0usize..100, seed in any::<u64>()) {
            let drawn = from_pool(&sizes, count, seed, 0);
            prop_assert_eq!(drawn.len(), count);
            let mut counts = vec![0; sizes.len()];
            for (clip, window) in drawn {
                prop_assert!(window < sizes[clip]);
                counts[clip] += 1;
            }
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
        }
    }

    #[test]
    fn repeated_clips_are_counted() {
        let order = shuffled(&[0, 1, 1, 1, 2], 5, 0);
        let occurrences =
            |clip| order.iter().filter(|draw| draw.clip == clip).map(|draw| draw.occurrence).collect::<Vec<_>>();
        assert_eq!([occurrences(0), occurrences(1), occurrences(2)], [vec![0], vec![0, 1, 2], vec![0]]);
    }

    #[test]
    fn balanced_epochs_have_equally_frequent_classes() {
        // Class 0 has 90 clips, class 1 nine, class 3 one; one clip has no class.
        let mut label_sets: Vec<Vec<usize>> = (0..100)
            .map(|i| {
                vec![if i < 90 {
                    0
                } else if i < 99 {
                    1
                } else {
                    3
                }]
            })
            .collect();
        label_sets.push(vec![]);
        let mut counts = [0; 4];
        for epoch in 0..30 {
            let order = balanced(&label_sets, 1, epoch);
            assert_eq!(order.len(), 101);
            order.iter().for_each(|draw| counts[label_sets[draw.clip][0]] += 1);
        }
        // 1010 each, with a standard deviation of 26.
        assert_eq!(counts[2], 0);
        assert!([0, 1, 3].iter().all(|&class: &usize| (counts[class] as i64 - 1010).abs() < 130), "{counts:?}");
        assert_eq!(balanced(&[vec![], vec![]], 1, 0), []);
    }

    #[test]
    fn an_empty_pool_yields_nothing() {
        assert_eq!(from_pool(&[], 5, 0, 0), []);
    }
}
