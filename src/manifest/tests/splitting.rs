//! Split assignment ([`assign`]).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use proptest::prelude::*;

use crate::manifest::split::{Fractions, assign};
use crate::manifest::{Clip, Manifest, Split};

fn manifest(clips: Vec<Clip>) -> Manifest {
    Manifest { source: "test".into(), clips, warnings: Vec::new(), sha256: String::new() }
}

fn clip(i: usize, label: usize, group: Option<usize>) -> Clip {
    Clip {
        id: format!("clip{i}"),
        path: format!("{i}.mp4"),
        file: PathBuf::from(format!("{i}.mp4")),
        labels: vec![format!("class{label}")],
        group: group.map(|group| format!("group{group}")),
        ..Clip::default()
    }
}

fn splits_by_id(manifest: &Manifest) -> BTreeMap<&str, Option<Split>> {
    manifest.clips.iter().map(|clip| (clip.id.as_str(), clip.split)).collect()
}

fn count(manifest: &Manifest, split: Split, label: &str) -> usize {
    manifest.clips.iter().filter(|c| c.split == Some(split) && c.labels.iter().any(|l| l == label)).count()
}

#[test]
fn stratified_split_of_7500_clips_is_exact() {
    let mut data = manifest((0..7500).map(|i| clip(i, i % 15, None)).collect());
    assert!(assign(&mut data, Fractions::default(), 0).unwrap());
    for class in data.classes() {
        assert_eq!((count(&data, Split::Train, &class), count(&data, Split::Val, &class)), (400, 100));
    }
    let first = data.clone();
    data.clips.iter_mut().for_each(|clip| clip.split = None);
    assign(&mut data, Fractions::default(), 1).unwrap();
    assert_ne!(splits_by_id(&first), splits_by_id(&data), "the seed determines the split");
}

#[test]
fn clips_of_one_file_stay_together_without_a_group() {
    let mut clips: Vec<Clip> = (0..40).map(|i| clip(i, i % 2, None)).collect();
    for (i, clip) in clips.iter_mut().enumerate() {
        clip.file = PathBuf::from(format!("film{}.mp4", i / 4));
        (clip.start, clip.end) = (Some(i as f64), Some(i as f64 + 1.0));
    }
    let mut data = manifest(clips);
    assign(&mut data, Fractions::default(), 5).unwrap();
    for film in data.clips.chunks(4) {
        assert_eq!(film.iter().map(|clip| clip.split).collect::<BTreeSet<_>>().len(), 1);
    }
    assert_eq!(data.clips.iter().filter(|clip| clip.split == Some(Split::Val)).count(), 8);
}

#[test]
fn validation_split_is_drawn_from_train_and_test_is_unchanged() {
    let mut clips: Vec<Clip> = (0..100).map(|i| clip(i, i % 4, None)).collect();
    clips.iter_mut().enumerate().for_each(|(i, c)| c.split = Some(if i < 60 { Split::Train } else { Split::Test }));
    clips.push(Clip { labels: Vec::new(), ..clip(100, 0, None) });
    let mut data = manifest(clips);
    assert!(assign(&mut data, Fractions::default(), 5).unwrap());
    let number = |split| data.clips.iter().filter(|clip| clip.split == Some(split)).count();
    assert_eq!((number(Split::Train), number(Split::Val), number(Split::Test)), (48, 12, 40));
    assert_eq!(data.clips[100].split, None, "unlabeled clips get no split");
    assert!(data.clips[60..100].iter().all(|clip| clip.split == Some(Split::Test)));
}

#[test]
fn too_few_groups_are_an_error() {
    let mut one_group = manifest((0..10).map(|i| clip(i, i % 2, Some(0))).collect());
    let message = assign(&mut one_group, Fractions::default(), 0).unwrap_err().to_string();
    assert!(message.contains("cannot draw a val split from 10 labeled clips in 1 groups"), "{message}");
    let mut single = manifest(vec![clip(0, 0, None)]);
    assert!(assign(&mut single, Fractions::default(), 0).is_err());
    let mut none = manifest(Vec::new());
    assert!(!assign(&mut none, Fractions::default(), 0).unwrap());
    assert!(assign(&mut none, Fractions { val: 0.6, test: 0.4 }, 0).is_err());
}

#[test]
fn label_of_a_single_group_is_in_train() {
    for seed in 0..20 {
        let mut clips: Vec<Clip> = (0..40).map(|i| clip(i, 0, Some(i / 4))).collect();
        clips.extend((40..44).map(|i| clip(i, 1, Some(100))));
        let mut data = manifest(clips);
        assign(&mut data, Fractions::default(), seed).unwrap();
        assert_eq!(count(&data, Split::Train, "class1"), 4);
    }
}

proptest! {
    /// Without groups: every clip gets a split, every class is within one clip of its target and keeps a training clip,
    /// and the order of the clips does not matter.
    #[test]
    fn stratified_split_is_exact(
        sizes in prop::collection::vec(1usize..40, 1..8),
        (val, test) in (0.05f64..0.5, prop_oneof![Just(0.0), 0.05f64..0.4]),
        seed in any::<u64>(),
    ) {
        let labels: Vec<usize> = sizes.iter().enumerate().flat_map(|(c, &n)| vec![c; n]).collect();
        let mut data = manifest(labels.iter().enumerate().map(|(i, &label)| clip(i, label, None)).collect());
        let mut reversed = manifest(data.clips.iter().rev().cloned().collect());
        let fractions = Fractions { val, test };
        match assign(&mut data, fractions, seed) {
            Ok(assigned) => prop_assert!(assigned),
            Err(_) => {
                prop_assert!(sizes.iter().map(|n| n - 1).sum::<usize>() < 2 * sizes.len(), "no split for {sizes:?}");
                return Ok(());
            }
        }
        prop_assert!(data.clips.iter().all(|clip| clip.split.is_some()));
        for (c, &size) in sizes.iter().enumerate() {
            let class = format!("class{c}");
            prop_assert!(count(&data, Split::Train, &class) >= 1);
            for (split, fraction) in [(Split::Val, val), (Split::Test, test)] {
                let number = count(&data, split, &class) as f64;
                let target = fraction * size as f64;
                let last_training_clip = count(&data, Split::Train, &class) == 1;
                prop_assert!(number < target + 1.0 + 1e-6 && (number > target - 1.0 - 1e-6 || last_training_clip));
            }
        }
        assign(&mut reversed, fractions, seed).unwrap();
        prop_assert_eq!(splits_by_id(&data), splits_by_id(&reversed));
    }

    /// With groups: every group is in one split, every label has a training clip, and the size of the validation split
    /// deviates by at most the largest group.
    #[test]
    fn groups_stay_together(
        rows in prop::collection::vec((0usize..4, 0usize..25), 30..200),
        seed in any::<u64>(),
    ) {
        let clips = rows.iter().enumerate().map(|(i, &(label, group))| clip(i, label, Some(group))).collect();
        let mut data = manifest(clips);
        let mut reversed = manifest(data.clips.iter().rev().cloned().collect());
        prop_assert!(assign(&mut data, Fractions::default(), seed).unwrap());
        let mut splits: BTreeMap<&str, BTreeSet<Split>> = BTreeMap::new();
        let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
        for clip in &data.clips {
            splits.entry(clip.group.as_deref().unwrap()).or_default().insert(clip.split.unwrap());
            *sizes.entry(clip.group.as_deref().unwrap()).or_default() += 1;
        }
        prop_assert!(splits.values().all(|splits| splits.len() == 1));
        for class in data.classes() {
            prop_assert!(count(&data, Split::Train, &class) >= 1);
        }
        let val = data.clips.iter().filter(|clip| clip.split == Some(Split::Val)).count() as f64;
        let largest = *sizes.values().max().unwrap() as f64;
        prop_assert!((val - 0.2 * rows.len() as f64).abs() <= largest, "{val} of {}", rows.len());
        assign(&mut reversed, Fractions::default(), seed).unwrap();
        prop_assert_eq!(splits_by_id(&data), splits_by_id(&reversed));
    }

    /// Several labels without groups: every label is within three clips of its targets.
    #[test]
    fn multi_label_split_is_balanced(sets in prop::collection::vec(1u8..16, 60..150), seed in any::<u64>()) {
        let clips = sets.iter().enumerate().map(|(i, set)| Clip {
            labels: (0..4).filter(|bit| set & (1 << bit) != 0).map(|bit| format!("class{bit}")).collect(),
            ..clip(i, 0, None)
        });
        let mut data = manifest(clips.collect());
        let fractions = Fractions { val: 0.2, test: 0.1 };
        prop_assert!(assign(&mut data, fractions, seed).unwrap());
        for class in data.classes() {
            let total = data.clips.iter().filter(|clip| clip.labels.contains(&class)).count() as f64;
            for (split, fraction) in [(Split::Val, 0.2), (Split::Test, 0.1)] {
                prop_assert!((count(&data, split, &class) as f64 - fraction * total).abs() <= 3.0);
            }
        }
    }

    /// Several labels and groups: every group is in one split, every label deviates from its targets by at most the size
    /// of its two largest groups (groups are assigned one by one for five labels at once), every label has a training
    /// clip, and the order of the clips does not matter.
    #[test]
    fn multi_label_split_of_groups_is_balanced(
        rows in prop::collection::vec((1u8..32, 0usize..40), 120..240),
        seed in any::<u64>(),
    ) {
        let clips = rows.iter().enumerate().map(|(i, &(set, group))| Clip {
            labels: (0..5).filter(|bit| set & (1 << bit) != 0).map(|bit| format!("class{bit}")).collect(),
            ..clip(i, 0, Some(group))
        });
        let mut data = manifest(clips.collect());
        let mut reversed = manifest(data.clips.iter().rev().cloned().collect());
        let fractions = Fractions { val: 0.2, test: 0.2 };
        prop_assert!(assign(&mut data, fractions, seed).unwrap());
        let mut splits: BTreeMap<&str, BTreeSet<Split>> = BTreeMap::new();
        for clip in &data.clips {
            splits.entry(clip.group.as_deref().unwrap()).or_default().insert(clip.split.unwrap());
        }
        prop_assert!(splits.values().all(|splits| splits.len() == 1));
        for class in data.classes() {
            let mut of_group: BTreeMap<&str, usize> = BTreeMap::new();
            for clip in data.clips.iter().filter(|clip| clip.labels.contains(&class)) {
                *of_group.entry(clip.group.as_deref().unwrap()).or_default() += 1;
            }
            let (total, largest) = (of_group.values().sum::<usize>(), *of_group.values().max().unwrap());
            for split in [Split::Val, Split::Test] {
                let deviation = (count(&data, split, &class) as f64 - 0.2 * total as f64).abs();
                prop_assert!(deviation <= 2.0 * largest as f64 + 1.0, "{class}: off by {deviation}, largest group {largest}");
            }
            prop_assert!(count(&data, Split::Train, &class) >= 1);
        }
        assign(&mut reversed, fractions, seed).unwrap();
        prop_assert_eq!(splits_by_id(&data), splits_by_id(&reversed));
    }
}
