use std::fs;

use kinoprobe::progress::NoProgress;
use proptest::prelude::*;

use super::*;
use crate::train::test_clips::{Counter, SIDE, build, options, recipe, write_clips, write_image};

const EVEN: &str = "kind = \"even\"\nframes = 3";

fn read(cache: &FrameCache, clip: usize, frame: u32) -> Vec<u8> {
    let mut out = vec![0; cache.frame_len()];
    cache.read(clip, frame, &mut out).unwrap();
    out
}

fn all_frames(cache: &FrameCache) -> Vec<Vec<u8>> {
    let frames = |clip: usize| cache.windows(clip).iter().flatten().copied().collect::<Vec<u32>>();
    (0..cache.clips.len())
        .flat_map(|clip| frames(clip).into_iter().map(move |frame| read(cache, clip, frame)))
        .collect()
}

#[test]
fn frames_are_sampled_resized_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let clips = write_clips(directory.path(), &[1, 2, 7]);
    for (sampling, expected) in [
        (EVEN, [vec![vec![0]], vec![vec![0], vec![1]], vec![vec![0], vec![1], vec![2]]]),
        ("kind = \"spread\"\nlength = 3", [vec![vec![0, 0, 0]], vec![vec![0, 1, 1]], vec![vec![0, 1, 2]]]),
        (
            "kind = \"windows\"\nlength = 2\nrate = 25.0\ncount = 2",
            [vec![vec![0, 0]], vec![vec![0, 1]], vec![vec![0, 1], vec![2, 3]]],
        ),
    ] {
        let recipe = recipe("", sampling);
        let (cache, decoded) = build(&recipe, &clips, directory.path());
        assert_eq!(decoded, ["clip0", "clip1", "clip2"]);
        assert_eq!([0, 1, 2].map(|clip| cache.windows(clip).to_vec()), expected, "{sampling}");
        // The same file, without decoding.
        let (again, decoded) = build(&recipe, &clips, directory.path());
        assert_eq!((all_frames(&again), decoded.len()), (all_frames(&cache), 0));
        assert_eq!(again.path(), cache.path());
    }
    let (cache, _) = build(&recipe("", EVEN), &clips, directory.path());
    // Frame 3 of seven is the center of the second of three segments.
    let image = image::open(directory.path().join("clip2/3.png")).unwrap().to_rgb8();
    let bgr: Vec<u8> = image.pixels().flat_map(|pixel| [pixel[2], pixel[1], pixel[0]]).collect();
    let mut expected = vec![0; 3 * SIDE * SIDE];
    let spec = recipe("", EVEN).input.spec(None);
    Transform::new(&spec).write_bytes(media::BgrImage::new(10, 12, &bgr), &mut expected);
    assert_eq!(read(&cache, 2, 1), expected);
    assert_eq!(cache.failure(0), None);
}

#[test]
fn frames_of_a_video_equal_those_of_the_decoder() {
    let directory = tempfile::tempdir().unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/media/plain.mp4");
    let clip = |start, end| Clip { id: "v".into(), file: file.clone(), start, end, ..Clip::default() };
    // The same file twice, and a part of it.
    let clips = [clip(None, None), clip(None, None), clip(Some(1.0), Some(2.0))];
    let recipe = recipe("", "kind = \"spread\"\nlength = 5");
    let (cache, decoded) = build(&recipe, &clips, directory.path());
    assert_eq!(decoded.len(), 2);
    for (i, clip) in clips.iter().enumerate() {
        let mut sink = ByteSink::new(&recipe.input.spec(None));
        media::decode(clip, &recipe.sampling, &mut sink).unwrap();
        assert_eq!(cache.windows(i), [[0, 1, 2, 3, 4]]);
        let frames: Vec<u8> = (0..5).flat_map(|frame| read(&cache, i, frame)).collect();
        assert_eq!(frames, sink.frames);
    }
    assert_eq!(read(&cache, 0, 4), read(&cache, 1, 4));
    assert_ne!(read(&cache, 0, 4), read(&cache, 2, 4));
}

#[test]
fn threads_read_concurrently() {
    let directory = tempfile::tempdir().unwrap();
    let (cache, _) = build(&recipe("", EVEN), &write_clips(directory.path(), &[3, 3, 3]), directory.path());
    let expected = all_frames(&cache);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(all_frames(&cache), expected));
        }
    });
}

#[test]
fn clips_that_fail_are_recorded_with_their_reason() {
    let directory = tempfile::tempdir().unwrap();
    let mut clips = write_clips(directory.path(), &[1, 1, 1]);
    fs::write(directory.path().join("clip1/0.png"), "not an image").unwrap();
    clips.push(Clip { id: "missing".into(), file: directory.path().join("missing.mp4"), ..Clip::default() });
    let recipe = recipe("", EVEN);
    let run = |retry_failed| {
        let counter = Counter::default();
        let options = CacheOptions { retry_failed, ..options(directory.path()) };
        let cache = FrameCache::build(&recipe, &clips, &options, &counter, &CancellationToken::default()).unwrap();
        (cache, counter.done.into_inner().unwrap().len(), counter.failed.into_inner().unwrap())
    };
    let (cache, done, failed) = run(false);
    assert_eq!((done, failed.len(), cache.windows(1).len(), cache.windows(2).len()), (2, 2, 0, 1));
    assert!(cache.failure(1).unwrap().contains("clip1/0.png"), "{failed:?}");
    assert!(cache.failure(3).unwrap().contains("missing.mp4: no such file"), "{failed:?}");
    let (cache, done, failed) = run(false);
    assert_eq!((done, failed.len(), cache.failure(1).is_some()), (0, 0, true));
    assert_eq!(run(true).2.len(), 2);
    // A repaired file has another key.
    write_image(&directory.path().join("clip1/0.png"), 5);
    let (cache, done, failed) = run(false);
    assert_eq!((done, failed.len(), cache.windows(1).len()), (1, 0, 1));
}

#[test]
fn only_changed_and_new_clips_are_decoded() {
    let directory = tempfile::tempdir().unwrap();
    let clips = write_clips(directory.path(), &[1, 2, 3, 4]);
    let recipe = recipe("", EVEN);
    assert_eq!(build(&recipe, &clips[..3], directory.path()).1, ["clip0", "clip1", "clip2"]);
    // In another order, with a new clip, and one with a frame more.
    write_image(&clips[1].file.join("9.png"), 1);
    let reordered = [3, 1, 0, 2].map(|i| clips[i].clone());
    let (cache, decoded) = build(&recipe, &reordered, directory.path());
    assert_eq!(decoded, ["clip3", "clip1"]);
    assert_eq!((cache.windows(1).len(), cache.windows(2).len()), (3, 1));
    // The same size, but another modification time.
    let image = clips[0].file.join("0.png");
    let file = fs::File::options().write(true).open(&image).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(build(&recipe, &clips, directory.path()).1, ["clip0"]);
}

#[test]
fn a_cache_larger_than_the_limit_is_refused_before_decoding() {
    let directory = tempfile::tempdir().unwrap();
    let clips = write_clips(directory.path(), &[1, 2, 9]);
    let recipe = recipe("", EVEN);
    let run = |limit| {
        let options = CacheOptions { limit, ..options(&directory.path().join("cache")) };
        FrameCache::build(&recipe, &clips, &options, &NoProgress, &CancellationToken::default())
    };
    // Directories have at most as many frames as files.
    let frames = (1 + 2 + 3) * 3 * SIDE as u64 * SIDE as u64;
    let error = run(frames - 1).unwrap_err().to_string();
    assert!(error.contains("6 frames of 8x8") && error.contains("--cache-size"), "{error}");
    assert_eq!(run(frames).unwrap().windows(2).len(), 3);
    // What is there counts, too.
    assert!(run(frames).is_ok());
    write_image(&clips[0].file.join("0.png"), 77);
    assert!(run(frames).unwrap_err().to_string().contains("the frames of 1 clips"));
}

#[test]
fn a_cancelled_run_keeps_what_is_decoded() {
    let directory = tempfile::tempdir().unwrap();
    let clips = write_clips(directory.path(), &[1; 30]);
    let recipe = recipe("", EVEN);
    /// Cancels after the third clip.
    struct Cancelling(Counter, CancellationToken);
    impl ProgressSink for Cancelling {
        fn report(&self, event: Event<'_>) {
            self.0.report(event);
            if self.0.done.lock().unwrap().len() == 3 {
                self.1.cancel();
            }
        }
    }
    let cancel = CancellationToken::default();
    let sink = Cancelling(Counter::default(), cancel.clone());
    let error = FrameCache::build(&recipe, &clips, &options(directory.path()), &sink, &cancel).unwrap_err();
    assert!(matches!(error, Error::Interrupted), "{error}");
    let done = sink.0.done.into_inner().unwrap().len();
    assert!((3..30).contains(&done));
    assert_eq!(build(&recipe, &clips, directory.path()).1.len(), 30 - done);
}

#[test]
fn a_cache_in_use_or_of_another_kind_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let clips = write_clips(directory.path(), &[1]);
    let recipe = recipe("", EVEN);
    let (cache, _) = build(&recipe, &clips, directory.path());
    let run =
        || FrameCache::build(&recipe, &clips, &options(directory.path()), &NoProgress, &CancellationToken::default());
    let lock = RecordFile::open(cache.path(), MAGIC, "frame cache", |_: Positioned<Record>| {}).unwrap();
    assert!(run().unwrap_err().to_string().contains("another process is writing"));
    drop(lock);
    fs::write(cache.path(), "something else").unwrap();
    assert!(run().unwrap_err().to_string().contains("not a frame cache"));
    // The cache of another recipe under this name.
    let other = crate::train::test_clips::recipe("", "kind = \"even\"\nframes = 4");
    fs::copy(build(&other, &clips, directory.path()).0.path(), cache.path()).unwrap();
    assert!(run().unwrap_err().to_string().contains("other settings"));
}

#[test]
fn a_frame_that_is_damaged_later_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let (cache, _) = build(&recipe("", EVEN), &write_clips(directory.path(), &[1, 2]), directory.path());
    let mut bytes = fs::read(cache.path()).unwrap();
    let last = bytes.len() - 5; // the last byte of the last frame, before the checksum
    bytes[last] ^= 1;
    fs::write(cache.path(), &bytes).unwrap();
    let mut out = vec![0; cache.frame_len()];
    cache.read(1, 0, &mut out).unwrap();
    let error = cache.read(1, 1, &mut out).unwrap_err().to_string();
    assert!(error.contains("frames-") && error.contains("a frame of clip clip1"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn damage_and_kills_are_repaired(cut in any::<prop::sample::Index>(), flip in any::<Option<prop::sample::Index>>()) {
        let directory = tempfile::tempdir().unwrap();
        let clips = write_clips(directory.path(), &[2, 1, 3, 1]);
        let recipe = recipe("", EVEN);
        let (cache, _) = build(&recipe, &clips, directory.path());
        let original = fs::read(cache.path()).unwrap();
        let mut damaged = original.clone();
        match flip {
            // A changed bit, but not in the magic bytes, which identify the file.
            Some(position) => damaged[8 + position.index(original.len() - 8)] ^= 4,
            // A kill at any moment.
            None => damaged.truncate(cut.index(original.len())),
        }
        fs::write(cache.path(), &damaged).unwrap();
        let (repaired, decoded) = build(&recipe, &clips, directory.path());
        prop_assert!(!decoded.is_empty());
        // The order is that of the clips, so the file is the same as without the interruption.
        prop_assert!(fs::read(repaired.path()).unwrap() == original);
        prop_assert_eq!(all_frames(&repaired), all_frames(&cache));
    }
}
