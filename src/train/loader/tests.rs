use std::collections::BTreeSet;
use std::path::Path;

use ndarray::Array2;
use proptest::prelude::*;

use super::*;
use crate::train::test_clips::{SIDE, build, recipe, write_clips};

const EVEN: &str = "kind = \"even\"\nframes = 6";
const AUGMENT: &str = "[augment]\nrotation = 20.0\nflip = 0.5\ngrayscale = 0.3\nmixup = 0.4\ncrop = { scale = [0.3, 1.0] }\n\
                       jitter = { probability = 0.7, brightness = 0.4, contrast = 0.4, saturation = 0.4, hue = 0.1 }\n\
                       blur = { probability = 0.5, kernel = 3, sigma = [0.1, 2.0] }\n";
/// Floats of a frame.
const FRAME: usize = 3 * SIDE * SIDE;

/// Samples of clips `0..n` with two classes that alternate.
fn samples(n: usize) -> Samples {
    Samples {
        clips: (0..n).collect(),
        targets: Array2::from_shape_fn((n, 2), |(i, c)| f32::from(u8::from(i % 2 == c))),
    }
}

fn train(loader: &Loader<'_>, epoch: usize, first: usize) -> Vec<Batch> {
    std::thread::scope(|scope| loader.train(scope, epoch, first).collect::<Result<_>>().unwrap())
}

fn evaluate(loader: &Loader<'_>) -> Vec<Batch> {
    std::thread::scope(|scope| loader.evaluate(scope).collect::<Result<_>>().unwrap())
}

fn cache(recipe: &TrainRecipe, directory: &Path, frames: &[usize]) -> FrameCache {
    build(recipe, &write_clips(directory, frames), directory).0
}

#[test]
fn batches_depend_neither_on_workers_nor_on_where_training_starts() {
    let directory = tempfile::tempdir().unwrap();
    let frames = [6, 2, 1, 4, 6, 6, 3, 5, 2];
    for keys in [
        format!("[training]\nbatch = 4\n[epoch]\ndraw = 3\n{AUGMENT}[rotations]\nframes = 2\n"),
        format!("[training]\nbatch = 2\n[epoch]\nbalanced = true\n{AUGMENT}"),
        format!("[training]\nbatch = 4\n[epoch]\ndraw = 2\n{}[contrastive]\n", AUGMENT.replace("mixup = 0.4\n", "")),
        format!("[training]\nbatch = 2\n{AUGMENT}[epoch.resample]\nkind = \"compose\"\nlow = 0.6\nhigh = 0.8\n"),
    ] {
        let recipe = recipe(&keys, EVEN);
        let cache = cache(&recipe, directory.path(), &frames);
        let loader = |workers| Loader::new(&cache, &recipe, samples(7), vec![0, 3, 7, 8], workers).unwrap();
        let epochs: Vec<Vec<Batch>> = (0..3).map(|epoch| train(&loader(1), epoch, 0)).collect();
        assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2]);
        for workers in [1, 2, 4] {
            assert!(train(&loader(workers), 2, 0) == epochs[2], "{workers} workers, {keys}");
            assert!(train(&loader(workers), 1, 1) == epochs[1][1..], "{workers} workers from step 1, {keys}");
        }
        let other_seed = TrainRecipe { seed: 4, ..recipe.clone() };
        assert!(train(&Loader::new(&cache, &other_seed, samples(7), vec![0], 1).unwrap(), 0, 0) != epochs[0]);
        assert!(evaluate(&loader(1)) == evaluate(&loader(4)));
        for batch in epochs.iter().flatten() {
            let total: usize = batch.windows.iter().sum();
            assert_eq!(batch.shape, [total, 3, SIDE, SIDE]);
            assert_eq!(batch.inputs.len(), total * FRAME);
            assert_eq!(batch.second_views.len(), if recipe.contrastive.is_some() { total * FRAME } else { 0 });
            assert_eq!((batch.windows.len(), batch.targets.len()), (batch.clips.len(), 2 * batch.clips.len()));
            assert_eq!(batch.rotated.len(), batch.rotation_labels.len() * FRAME);
            assert!(batch.inputs.iter().chain(&batch.rotated).all(|value| value.is_finite()));
        }
    }
}

#[test]
fn an_epoch_has_every_clip_once_and_evaluation_their_order() {
    let directory = tempfile::tempdir().unwrap();
    let frames = [3, 1, 6, 2, 5];
    let recipe = recipe("[training]\nbatch = 2\n[epoch]\ndraw = 2\n", EVEN);
    let cache = cache(&recipe, directory.path(), &frames);
    let loader = Loader::new(&cache, &recipe, samples(5), vec![], 2).unwrap();
    let batches = train(&loader, 0, 0);
    assert_eq!((batches.len(), loader.steps()), (3, 3));
    assert_eq!(batches.iter().map(|batch| batch.step).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(batches.iter().map(|batch| batch.clips.len()).collect::<Vec<_>>(), [2, 2, 1]);
    let clips: BTreeSet<usize> = batches.iter().flat_map(|batch| batch.clips.clone()).collect();
    assert_eq!(clips, (0..5).collect());
    for batch in &batches {
        for (i, &clip) in batch.clips.iter().enumerate() {
            assert_eq!(batch.windows[i], frames[clip].min(2));
            assert_eq!(batch.targets[2 * i..2 * i + 2], [1.0 - (clip % 2) as f32, (clip % 2) as f32]);
        }
    }
    let evaluated = evaluate(&loader);
    assert_eq!(evaluated.iter().flat_map(|batch| batch.clips.clone()).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(evaluated.iter().flat_map(|batch| batch.windows.clone()).collect::<Vec<_>>(), frames);
    // Normalized frames of the cache: the second frame of clip 2.
    let mut bytes = vec![0; cache.frame_len()];
    cache.read(2, 1, &mut bytes).unwrap();
    let item = &evaluated[1].inputs[FRAME..2 * FRAME];
    for (i, &byte) in bytes.iter().enumerate() {
        let (c, position) = (i % 3, i / 3);
        let expected = (f32::from(byte) / 255.0 - recipe.input.mean[c] as f32) / recipe.input.std[c] as f32;
        assert_eq!(item[c * SIDE * SIDE + position], expected);
    }
    // Without augmentation, training has the same inputs.
    let batch = batches.iter().find(|batch| batch.clips[0] == 1).map(|batch| &batch.inputs[..FRAME]);
    if let Some(inputs) = batch {
        assert_eq!(inputs, &evaluated[0].inputs[3 * FRAME..]);
    }
}

#[test]
fn windows_of_a_3d_network_have_channels_before_frames() {
    let directory = tempfile::tempdir().unwrap();
    let recipe = recipe("[training]\nbatch = 2\n", "kind = \"spread\"\nlength = 4");
    let cache = cache(&recipe, directory.path(), &[9, 2]);
    let loader = Loader::new(&cache, &recipe, samples(2), vec![], 1).unwrap();
    let batch = evaluate(&loader).remove(0);
    assert_eq!((batch.shape, batch.windows), (vec![2, 3, 4, SIDE, SIDE], vec![1, 1]));
    let plane = SIDE * SIDE;
    let mut bytes = vec![0; cache.frame_len()];
    for (t, frame) in cache.windows(1)[0].iter().enumerate() {
        cache.read(1, *frame, &mut bytes).unwrap();
        for (c, &byte) in bytes[..3].iter().enumerate() {
            let value = batch.inputs[4 * FRAME + (c * 4 + t) * plane];
            let expected = (f32::from(byte) / 255.0 - recipe.input.mean[c] as f32) / recipe.input.std[c] as f32;
            assert_eq!(value, expected, "frame {t}, channel {c}");
        }
    }
}

#[test]
fn all_frames_of_a_window_are_augmented_alike() {
    let directory = tempfile::tempdir().unwrap();
    let keys = format!("[training]\nbatch = 2\n{}", AUGMENT.replace("mixup = 0.4\n", ""));
    let recipe = recipe(&keys, "kind = \"spread\"\nlength = 3");
    // A clip of one frame, which is repeated.
    let cache = cache(&recipe, directory.path(), &[1, 1]);
    let loader = Loader::new(&cache, &recipe, samples(2), vec![], 1).unwrap();
    for epoch in 0..5 {
        for item in train(&loader, epoch, 0)[0].inputs.chunks_exact(3 * FRAME) {
            for channel in item.chunks_exact(3 * SIDE * SIDE) {
                let frames: Vec<&[f32]> = channel.chunks_exact(SIDE * SIDE).collect();
                assert!(frames[0] == frames[1] && frames[1] == frames[2]);
            }
        }
    }
}

#[test]
fn rotated_frames_occur_under_all_transforms_with_their_labels() {
    let directory = tempfile::tempdir().unwrap();
    let recipe =
        recipe("[training]\nbatch = 2\n[augment]\nflip = 1.0\nrotation = 90.0\n[rotations]\nframes = 3\n", EVEN);
    let cache = cache(&recipe, directory.path(), &[1, 1, 1, 1]);
    let loader = Loader::new(&cache, &recipe, samples(2), vec![0, 1, 2, 3], 1).unwrap();
    let plain = {
        let all = Samples { clips: (0..4).collect(), targets: Array2::zeros((4, 2)) };
        let evaluated = evaluate(&Loader::new(&cache, &recipe, all, vec![], 1).unwrap());
        evaluated.iter().flat_map(|batch| batch.inputs.clone()).collect::<Vec<f32>>()
    };
    let mut used = BTreeSet::new();
    for epoch in 0..4 {
        let batch = train(&loader, epoch, 0).remove(0);
        assert_eq!(batch.rotation_labels, [0, 1, 2, 3, 4, 5].repeat(3));
        for frame in batch.rotated.chunks_exact(6 * FRAME) {
            // Neither flipped nor rotated by the augmentation.
            let upright = &frame[..FRAME];
            used.insert(plain.chunks_exact(FRAME).position(|item| item == upright).expect("a frame of the pool"));
            for label in 0..6 {
                for c in 0..3 {
                    let plane = &upright[c * SIDE * SIDE..][..SIDE * SIDE];
                    let mut expected = vec![0.0; SIDE * SIDE];
                    orient(plane, SIDE, label, &mut expected);
                    assert_eq!(frame[label * FRAME + c * SIDE * SIDE..][..SIDE * SIDE], expected);
                }
            }
        }
    }
    assert_eq!(used, (0..4).collect());
}

#[test]
fn two_views_of_a_window_differ() {
    let directory = tempfile::tempdir().unwrap();
    let recipe = recipe("[training]\nbatch = 4\n[augment]\ncrop = { scale = [0.1, 0.5] }\n[contrastive]\n", EVEN);
    let cache = cache(&recipe, directory.path(), &[1, 1, 1, 1]);
    let unlabeled = Samples { clips: (0..4).collect(), targets: Array2::zeros((4, 0)) };
    let loader = Loader::new(&cache, &recipe, unlabeled, vec![], 1).unwrap();
    let batch = train(&loader, 0, 0).remove(0);
    assert!(batch.targets.is_empty());
    for (first, second) in batch.inputs.chunks_exact(FRAME).zip(batch.second_views.chunks_exact(FRAME)) {
        assert_ne!(first, second);
    }
    assert!(evaluate(&loader)[0].second_views.is_empty());
}

#[test]
fn a_partial_batch_is_kept_or_omitted() {
    let directory = tempfile::tempdir().unwrap();
    let keys = |drop_last| format!("[training]\nbatch = 4\n[epoch]\ndrop_last = {drop_last}\n");
    let (keep, omit) = (recipe(&keys(false), EVEN), recipe(&keys(true), EVEN));
    let cache = cache(&keep, directory.path(), &[1; 9]);
    let sizes = |recipe: &TrainRecipe, n| {
        let loader = Loader::new(&cache, recipe, samples(n), vec![], 1).unwrap();
        train(&loader, 0, 0).iter().map(|batch| batch.clips.len()).collect::<Vec<_>>()
    };
    assert_eq!(sizes(&keep, 9), [4, 4, 1]);
    assert_eq!(sizes(&omit, 9), [4, 4]);
    assert_eq!(sizes(&omit, 8), [4, 4]);
    let error = Loader::new(&cache, &omit, samples(3), vec![], 1).unwrap_err().to_string();
    assert!(error.contains("3 clips are fewer than a batch of 4"), "{error}");
    let error = Loader::new(&cache, &keep, samples(0), vec![], 1).unwrap_err().to_string();
    assert!(error.contains("no clips"), "{error}");
}

#[test]
fn damaged_frames_are_errors_and_failed_clips_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let recipe = recipe("[training]\nbatch = 2\n", EVEN);
    let mut clips = write_clips(directory.path(), &[1, 1]);
    clips[1].file = directory.path().join("missing.mp4");
    let (cache, _) = build(&recipe, &clips, directory.path());
    let error = Loader::new(&cache, &recipe, samples(2), vec![], 1).unwrap_err().to_string();
    assert!(error.contains("missing.mp4"), "{error}");
    let loader = Loader::new(&cache, &recipe, samples(1), vec![], 1).unwrap();
    let mut bytes = std::fs::read(cache.path()).unwrap();
    bytes.iter_mut().skip(200).for_each(|byte| *byte ^= 1);
    std::fs::write(cache.path(), bytes).unwrap();
    let results: Vec<Result<Batch>> = std::thread::scope(|scope| loader.train(scope, 0, 0).collect());
    assert!(results[0].as_ref().unwrap_err().to_string().contains("damaged"));
}

#[test]
fn recycled_memory_does_not_change_batches() {
    let directory = tempfile::tempdir().unwrap();
    let keys = format!("[training]\nbatch = 3\n[epoch]\ndraw = 3\n{AUGMENT}[rotations]\nframes = 2\n");
    let recipe = recipe(&keys, EVEN);
    let cache = cache(&recipe, directory.path(), &[6, 2, 1, 4, 6, 6, 3]);
    let loader = || Loader::new(&cache, &recipe, samples(7), vec![0, 3], 2).unwrap();
    let expected = [train(&loader(), 0, 0), train(&loader(), 1, 0)];
    let recycling = loader();
    for (epoch, expected) in expected.iter().enumerate() {
        std::thread::scope(|scope| {
            for (batch, expected) in recycling.train(scope, epoch, 0).zip(expected) {
                let mut batch = batch.unwrap();
                assert!(batch == *expected);
                batch.inputs.fill(f32::NAN);
                batch.rotated.fill(f32::NAN);
                recycling.recycle(batch);
            }
        });
    }
    assert!(!recycling.free.lock().unwrap().is_empty());
}

#[test]
fn batches_can_be_abandoned() {
    let directory = tempfile::tempdir().unwrap();
    let recipe = recipe("[training]\nbatch = 2\n", EVEN);
    let cache = cache(&recipe, directory.path(), &[1; 20]);
    let loader = Loader::new(&cache, &recipe, samples(20), vec![], 3).unwrap();
    std::thread::scope(|scope| {
        let mut batches = loader.train(scope, 0, 0);
        assert_eq!(batches.next().unwrap().unwrap().step, 0);
        assert!(batches.waited() > Duration::ZERO);
    });
}

proptest! {
    #[test]
    fn mixup_is_a_convex_combination(windows in prop::collection::vec(1usize..4, 1..6), lambda in 0.0f32..1.0) {
        let (item_len, total) = (5, windows.iter().sum::<usize>());
        let n = windows.len();
        let original = Batch {
            inputs: (0..total * item_len).map(|i| (i * 7 % 31) as f32).collect(),
            targets: (0..2 * n).map(|i| (i % 3) as f32).collect(),
            windows: windows.clone(),
            ..Batch::default()
        };
        let mut mixed = original.clone();
        mix(&mut mixed, item_len, lambda);
        let starts: Vec<usize> = (0..n).map(|i| windows[..i].iter().sum()).collect();
        let combine = |a: f32, b: f32| lambda * a + (1.0 - lambda) * b;
        for a in 0..n {
            let b = n - 1 - a;
            for c in 0..2 {
                let expected = combine(original.targets[2 * a + c], original.targets[2 * b + c]);
                prop_assert!((mixed.targets[2 * a + c] - expected).abs() < 1e-5);
            }
            for w in 0..windows[a] {
                for i in 0..item_len {
                    let at = |clip: usize, window: usize| (starts[clip] + window) * item_len + i;
                    let expected = combine(original.inputs[at(a, w)], original.inputs[at(b, w % windows[b])]);
                    prop_assert!((mixed.inputs[at(a, w)] - expected).abs() < 1e-4);
                }
            }
        }
    }
}
