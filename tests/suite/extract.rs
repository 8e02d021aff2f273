//! kinoprobe-extract on real videos. Stores are read with h5py.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::support::{assert_code, fixture, printed, root, run_python, send_signal};

/// Prints a hash of the contents of a store, without times and versions.
const FINGERPRINT: &str = "
import h5py, sys, hashlib
digest = hashlib.sha256()
with h5py.File(sys.argv[1]) as store:
    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            values = item.asstr()[:].tolist() if h5py.check_string_dtype(item.dtype) else item[:].tobytes()
            digest.update(repr((name, item.shape, str(item.dtype), values)).encode())
    store.visititems(visit)
    keys = ['format', 'format_version', 'method', 'model', 'weights', 'model_sha256', 'recipe', 'dim', 'decoder', 'precision']
    digest.update(repr([(key, store.attrs[key]) for key in keys]).encode())
print(digest.hexdigest())
";

/// A directory with a manifest of clips that are parts of one video.
struct Workspace {
    directory: TempDir,
}

impl Workspace {
    fn new(clips: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::copy(fixture("media/plain.mp4"), directory.path().join("video.mp4")).unwrap();
        let mut manifest = String::from("id,path,label,start\n");
        for i in 0..clips {
            manifest += &format!("clip{i:03},video.mp4,{},{:.2}\n", ["a", "b"][i % 2], i as f64 * 1.5 / clips as f64);
        }
        fs::write(directory.path().join("manifest.csv"), manifest).unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, out: &str) -> Command {
        self.command_with_models(out, &fixture("models"))
    }

    fn command_with_models(&self, out: &str, models: &Path) -> Command {
        self.command_with_recipe(out, models, &fixture("pipelines/tiny.toml"))
    }

    fn command_with_recipe(&self, out: &str, models: &Path, recipe: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kinoprobe-extract"));
        command.current_dir(root());
        command.args(["--method", "tiny", "--recipe"]).arg(recipe);
        command.arg("--models").arg(models);
        command.arg("--manifest").arg(self.path("manifest.csv")).arg("--out").arg(self.path(out));
        command
    }

    fn fingerprint(&self, out: &str) -> String {
        run_python(FINGERPRINT, &[&self.path(out)])
    }
}

#[test]
fn h5py_reads_a_store_in_the_documented_format() {
    let workspace = Workspace::new(5);
    let output = workspace.command("tiny.h5").output().unwrap();
    assert_code(&output, 0);
    let output = run_python(
        "
import h5py, numpy, sys
with h5py.File(sys.argv[1]) as store:
    rows, dim = store['features'].shape
    assert store.attrs['format'] == 'kinoprobe-features' and store.attrs['format_version'] == 1
    assert store.attrs['dim'] == dim == 8 and rows == 30
    provider = store.attrs['provider']
    assert provider.startswith('native-') or provider in ('cpu', 'openvino')
    assert store.attrs['weights'] == 'file'
    assert store['features'].dtype == 'f4' and store['features'].compression == 'gzip' and store['features'].shuffle
    types = {'rows/clip': 'u4', 'rows/start_frame': 'u8', 'rows/start_seconds': 'f8', 'rows/end_seconds': 'f8',
             'rows/padded': 'u1', 'clips/offset': 'u8', 'clips/length': 'u4', 'clips/frame_count': 'u8',
             'clips/fps': 'f8', 'clips/duration_seconds': 'f8'}
    for name, kind in types.items():
        assert store[name].dtype == kind, (name, store[name].dtype)
    assert store['clips/id'].asstr()[:].tolist() == [f'clip{i:03}' for i in range(5)]
    assert store['rows/clip'][:].tolist() == [i for i in range(5) for _ in range(6)]
    features = store['features'][:].reshape(5, 6, 8)
    assert numpy.isfinite(features).all() and features.std() > 0
    assert numpy.allclose(store['pooled/mean'][:], features.mean(1), atol=1e-6)
    assert numpy.array_equal(store['pooled/max'][:], features.max(1))
    assert len(store['failures/id']) == 0
    seconds = store['rows/start_seconds'][:]
    assert (numpy.diff(seconds.reshape(5, 6)) > 0).all() and seconds[6] >= 0.3
print('ok')
",
        &[&workspace.path("tiny.h5")],
    );
    assert_eq!(output.trim(), "ok");
    assert!(!workspace.path("tiny.h5.partial").exists());
}

#[test]
fn the_store_does_not_depend_on_the_number_of_workers() {
    let workspace = Workspace::new(7);
    for (out, workers) in [("one.h5", "1"), ("three.h5", "3")] {
        assert_code(&workspace.command(out).args(["--workers", workers]).output().unwrap(), 0);
    }
    assert_eq!(workspace.fingerprint("one.h5"), workspace.fingerprint("three.h5"));
}

/// Runs the command repeatedly, and kills it when its journal has each of `sizes`. Returns the number of kills.
fn kill_at(workspace: &Workspace, out: &str, sizes: impl Iterator<Item = u64>) -> usize {
    let journal = workspace.path(&format!("{out}.partial"));
    let mut kills = 0;
    for size in sizes {
        let mut child =
            workspace.command(out).arg("--quiet").stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        loop {
            if child.try_wait().unwrap().is_some() {
                return kills;
            }
            if fs::metadata(&journal).is_ok_and(|journal| journal.len() >= size) {
                child.kill().unwrap();
                child.wait().unwrap();
                kills += 1;
                break;
            }
            std::thread::yield_now();
        }
    }
    kills
}

#[test]
fn killed_runs_resume_and_produce_the_same_store() {
    let workspace = Workspace::new(60);
    assert_code(&workspace.command("complete.h5").output().unwrap(), 0);
    // From the first byte of the journal; every run continues the previous one.
    let kills = kill_at(&workspace, "killed.h5", (0..12).map(|i| i * 3_000));
    assert!(kills >= 3, "too many runs ended before they were killed: {kills} kills");
    let output = workspace.command("killed.h5").output().unwrap();
    assert_code(&output, 0);
    assert!(printed(&output).contains("already extracted"), "nothing was reused: {}", printed(&output));
    assert_eq!(workspace.fingerprint("killed.h5"), workspace.fingerprint("complete.h5"));
}

#[test]
fn an_interrupted_run_can_be_continued() {
    let workspace = Workspace::new(60);
    assert_code(&workspace.command("complete.h5").output().unwrap(), 0);
    let journal = workspace.path("interrupted.h5.partial");
    let child = workspace.command("interrupted.h5").stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    while !fs::metadata(&journal).is_ok_and(|journal| journal.len() > 2_000) {
        std::thread::yield_now();
    }
    send_signal(&child, "-INT");
    let output = child.wait_with_output().unwrap();
    assert_code(&output, 130);
    assert!(printed(&output).contains("run the same command again"), "{}", printed(&output));
    assert!(!workspace.path("interrupted.h5").exists());
    assert_code(&workspace.command("interrupted.h5").output().unwrap(), 0);
    assert_eq!(workspace.fingerprint("interrupted.h5"), workspace.fingerprint("complete.h5"));
}

#[test]
fn failed_clips_are_recorded_skipped_and_retried() {
    let workspace = Workspace::new(3);
    for (name, content) in [("text.mp4", "no video"), ("empty.mp4", ""), ("late.mp4", "not yet")] {
        fs::write(workspace.path(name), content).unwrap();
    }
    let manifest =
        "id,path,label\none,video.mp4,a\ntext,text.mp4,a\nlate,late.mp4,b\nempty,empty.mp4,b\ntwo,video.mp4,b\n";
    fs::write(workspace.path("manifest.csv"), manifest).unwrap();
    let output = workspace.command("tiny.h5").output().unwrap();
    assert_code(&output, 3);
    assert!(printed(&output).contains("3 failed"), "{}", printed(&output));
    let failures = "
import h5py, sys
with h5py.File(sys.argv[1]) as store:
    print(store['clips/id'].asstr()[:].tolist(), store['failures/id'].asstr()[:].tolist(), set(store['failures/stage'].asstr()[:]))
";
    let listed = run_python(failures, &[&workspace.path("tiny.h5")]);
    assert_eq!(listed.trim(), "['one', 'two'] ['text', 'late', 'empty'] {'decode'}");

    // Again: nothing is retried, and the exit code is the same.
    let output = workspace.command("tiny.h5").output().unwrap();
    assert_code(&output, 3);
    assert!(printed(&output).contains("up to date"), "{}", printed(&output));

    fs::copy(workspace.path("video.mp4"), workspace.path("late.mp4")).unwrap();
    assert_code(&workspace.command("tiny.h5").arg("--retry-failed").output().unwrap(), 3);
    let listed = run_python(failures, &[&workspace.path("tiny.h5")]);
    assert_eq!(listed.trim(), "['one', 'late', 'two'] ['text', 'empty'] {'decode'}");
}

#[test]
fn a_store_with_other_settings_is_rejected_with_the_differences() {
    let workspace = Workspace::new(2);
    assert_code(&workspace.command("tiny.h5").output().unwrap(), 0);
    let before = fs::read(workspace.path("tiny.h5")).unwrap();
    let output = workspace.command("tiny.h5").args(["--frames", "3"]).output().unwrap();
    assert_code(&output, 1);
    let output = printed(&output);
    assert!(
        output.contains("made with other settings")
            && output.contains("recipe: stored")
            && output.contains("\"frames\":3"),
        "{output}"
    );
    assert_eq!(fs::read(workspace.path("tiny.h5")).unwrap(), before);
}

#[test]
fn new_clips_are_added_in_the_order_of_the_manifest() {
    let workspace = Workspace::new(4);
    assert_code(&workspace.command("grown.h5").output().unwrap(), 0);
    let lines = "id,path,label,start\nnew,video.mp4,a,0.1\nclip001,video.mp4,b,0.38\nclip000,video.mp4,a,0.00\n";
    fs::write(workspace.path("manifest.csv"), lines).unwrap();
    let output = workspace.command("grown.h5").arg("--prune").output().unwrap();
    assert_code(&output, 0);
    assert!(printed(&output).contains("1 of 3 clips to extract"), "{}", printed(&output));
    assert!(printed(&output).contains("2 clips are not in the manifest and are removed"), "{}", printed(&output));
    assert_code(&workspace.command("fresh.h5").output().unwrap(), 0);
    assert_eq!(workspace.fingerprint("grown.h5"), workspace.fingerprint("fresh.h5"));
}

/// Prints the ids of the clips and failures of a store.
const IDS: &str = "
import h5py, sys
with h5py.File(sys.argv[1]) as store:
    print(*store['clips/id'].asstr()[:], '|', *store['failures/id'].asstr()[:], '|', store['features'].shape[0])
";

#[test]
fn clips_of_other_manifests_stay_in_the_store() {
    let workspace = Workspace::new(2);
    let both = "id,path,label\nlast,video.mp4,a\nbroken,broken.mp4,a\nfirst,video.mp4,b\n";
    let other = "id,path,label\nother,video.mp4,a\nfirst,video.mp4,b\n";
    fs::write(workspace.path("broken.mp4"), "no video").unwrap();
    let extract = |manifest: &str, flags: &[&str], code: i32| {
        fs::write(workspace.path("manifest.csv"), manifest).unwrap();
        let output = workspace.command("store.h5").args(flags).output().unwrap();
        assert_code(&output, code);
        printed(&output)
    };
    let ids = || run_python(IDS, &[&workspace.path("store.h5")]).trim().to_owned();
    extract(both, &[], 3);
    assert_eq!(ids(), "last first | broken | 12");
    let text = extract(other, &["--dry-run"], 0);
    assert!(text.contains("1 clips are not in the manifest and are kept"), "{text}");
    extract(other, &[], 0);
    assert_eq!(ids(), "other first last | broken | 18");
    let text = extract(other, &[], 0);
    assert!(text.contains("up to date (2 clips)"), "{text}");
    let text = extract(both, &[], 3);
    assert!(text.contains("rewritten; all 2 clips"), "{text}");
    assert_eq!(ids(), "last first other | broken | 18");

    // The same id for another file.
    fs::copy(workspace.path("video.mp4"), workspace.path("copy.mp4")).unwrap();
    let before = fs::read(workspace.path("store.h5")).unwrap();
    let text = extract("id,path,label\nfirst,copy.mp4,a\n", &[], 1);
    assert!(text.contains("`first` is video.mp4 in the store and copy.mp4 in the manifest"), "{text}");
    assert!(text.contains("--out") && text.contains("--prune"), "{text}");
    assert_eq!(fs::read(workspace.path("store.h5")).unwrap(), before);
    extract(other, &["--prune"], 0);
    assert_eq!(ids(), "other first | | 12");
}

#[test]
fn an_interrupted_run_of_another_manifest_is_not_lost() {
    let workspace = Workspace::new(60);
    let kills = kill_at(&workspace, "store.h5", [3_000].into_iter());
    assert_eq!(kills, 1);
    fs::write(workspace.path("manifest.csv"), "id,path,label\nother,video.mp4,a\n").unwrap();
    let output = workspace.command("store.h5").output().unwrap();
    assert_code(&output, 0);
    let ids = run_python(IDS, &[&workspace.path("store.h5")]);
    assert!(ids.starts_with("other clip000 clip001"), "{ids}");
}

#[test]
fn a_dry_run_writes_nothing() {
    let workspace = Workspace::new(4);
    let output = workspace.command("dry.h5").arg("--dry-run").output().unwrap();
    assert_code(&output, 0);
    assert!(printed(&output).contains("4 of 4 clips to extract"), "{}", printed(&output));
    assert!(
        fs::read_dir(workspace.directory.path())
            .unwrap()
            .flatten()
            .all(|e| !e.path().to_string_lossy().contains("dry.h5"))
    );
}

#[test]
fn the_json_log_has_one_object_per_line() {
    let workspace = Workspace::new(3);
    fs::write(workspace.path("text.mp4"), "no video").unwrap();
    fs::write(workspace.path("manifest.csv"), "id,path,label\none,video.mp4,a\ntext,text.mp4,a\n").unwrap();
    let output = workspace.command("tiny.h5").arg("--log-json").output().unwrap();
    assert_code(&output, 3);
    let events: Vec<serde_json::Value> = String::from_utf8_lossy(&output.stderr)
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(events.iter().any(|event| event["event"] == "failure" && event["id"] == "text"), "{events:?}");
    assert!(
        events.iter().any(|event| event["event"] == "finished" && event["clips"] == 1 && event["failed"] == 1),
        "{events:?}"
    );
}

#[test]
fn invalid_arguments_are_explained() {
    let workspace = Workspace::new(1);
    let run = |flags: [&str; 2]| {
        let output = workspace.command("x.h5").args(flags).output().unwrap();
        (output.status.code(), printed(&output))
    };
    let (code, message) = run(["--device", "abacus"]);
    assert_eq!(code, Some(2));
    assert!(message.contains("auto, native, cpu, openvino, cuda, tensorrt"), "{message}");
    let (code, message) = run(["--keypoints", "3"]);
    assert_eq!(code, Some(1));
    assert!(message.contains("--keypoints does not apply"), "{message}");
    let recipe = fs::read_to_string(fixture("pipelines/tiny.toml")).unwrap();
    fs::write(workspace.path("zero.toml"), recipe.replace("frames = 6", "frames = 0")).unwrap();
    let output =
        workspace.command_with_recipe("x.h5", &fixture("models"), &workspace.path("zero.toml")).output().unwrap();
    assert_code(&output, 1);
    assert!(printed(&output).contains("sampling.frames must be at least 1"), "{}", printed(&output));
    // An unavailable device is an error; no other device is used.
    let (code, message) = run(["--device", "cuda"]);
    assert_eq!(code, Some(1));
    assert!(message.contains("make setup DEVICE=cuda") || message.contains("device cuda"), "{message}");
    assert!(!Path::new(&workspace.path("x.h5")).exists());
}

#[test]
fn a_card_that_does_not_match_its_network_is_rejected() {
    let workspace = Workspace::new(1);
    let models = workspace.path("models");
    fs::create_dir(&models).unwrap();
    fs::copy(fixture("models/tiny.onnx"), models.join("tiny.onnx")).unwrap();
    let card = fs::read_to_string(fixture("models/tiny.toml")).unwrap();
    for (from, to, expected) in [
        ("dim = 8", "dim = 9", "[batch, 9]"),
        ("size = [64, 64]\nresize", "size = [32, 32]\nresize", "32"),
        ("name = \"tiny\"", "nome = \"tiny\"", "unknown field `nome`"),
    ] {
        assert!(card.contains(from));
        fs::write(models.join("tiny.toml"), card.replace(from, to)).unwrap();
        let output = workspace.command_with_models("x.h5", &models).output().unwrap();
        assert_ne!(output.status.code(), Some(0));
        assert!(printed(&output).contains(expected), "{}", printed(&output));
    }
}

/// Prints the smallest cosine between the rows of a store and those of the reference for the same clip, and the largest cosine
/// between different rows of the reference, which a row at a wrong position would have.
const PARITY: &str = "
import h5py, numpy, sys
with h5py.File(sys.argv[1]) as store:
    ours, weights = store['features'][:].astype('f8'), store.attrs['weights']
reference = numpy.load(sys.argv[2]).astype('f8')
assert ours.shape == reference.shape, (ours.shape, reference.shape)
cosine = (ours * reference).sum(1) / numpy.linalg.norm(ours, axis=1) / numpy.linalg.norm(reference, axis=1)
unit = reference / numpy.linalg.norm(reference, axis=1, keepdims=True)
others = (unit @ unit.T)[~numpy.eye(len(unit), dtype=bool)].max()
print(weights, cosine.min(), others)
";

/// Compares the embeddings of an H.264 file with torchvision's.
fn check_parity(method: &str, card: &str, weights: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let manifest = directory.path().join("manifest.csv");
    fs::write(&manifest, format!("id,path,label\nplain,{},a\n", fixture("media/plain.mp4").display())).unwrap();
    let out = directory.path().join("store.h5");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinoprobe-extract"));
    command.current_dir(root()).args(["--method", method, "--quiet", "--manifest"]).arg(&manifest);
    let output = command.arg("--out").arg(&out).args(weights).output().unwrap();
    assert_code(&output, 0);
    assert_eq!(printed(&output).contains("UNTRAINED"), weights.contains(&"seeded"), "{}", printed(&output));
    let output = run_python(PARITY, &[&out, &fixture(&format!("networks/{card}-path.npy"))]);
    println!("{method}: {output}");
    let number = |i: usize| -> f64 { output.split_whitespace().nth(i).unwrap().parse().unwrap() };
    let (cosine, others) = (number(1), number(2));
    assert!(cosine >= 0.9999 && 1.0 - cosine < 0.02 * (1.0 - others), "{output}");
}

#[test]
fn convnext_embeddings_of_a_video_match_torchvision() {
    check_parity("cnn", "convnext_base", &["--weights", "seeded"]);
}

#[test]
fn resnet50_embeddings_of_a_video_match_torchvision() {
    check_parity("resnet50", "resnet50", &["--weights", "seeded"]);
}

#[test]
fn r2plus1d_embeddings_of_a_video_match_torchvision() {
    check_parity("cnn3d", "r2plus1d_18", &["--weights", "seeded"]);
}

#[test]
fn efficientnet_embeddings_of_a_video_match_its_package() {
    check_parity("effnet", "efficientnet_lite2", &[]);
}

/// Every 12th of 100 frames, 9 rows.
#[test]
fn clip_embeddings_of_a_video_match_transformers() {
    check_parity("clip", "clip_vit_b32", &["--weights", "seeded"]);
}

#[test]
fn all_frames_are_stored_as_a_sequence() {
    let workspace = Workspace::new(2);
    let recipe = workspace.path("tiny.toml");
    let tiny = fs::read_to_string(fixture("pipelines/tiny.toml")).unwrap();
    fs::write(&recipe, tiny.replace("kind = \"even\"\nframes = 6", "kind = \"all\"")).unwrap();
    let extract = |out: &str, flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kinoprobe-extract"));
        command.current_dir(root()).args(["--method", "tiny", "--recipe"]).arg(&recipe);
        command.arg("--models").arg(fixture("models")).arg("--manifest").arg(workspace.path("manifest.csv"));
        command.arg("--out").arg(workspace.path(out)).args(flags).output().unwrap()
    };
    let rows = |out: &str| {
        let script = "
import h5py, sys
with h5py.File(sys.argv[1]) as store:
    frames, length = store['rows/start_frame'][:], store['clips/length'][:]
    print(length.tolist(), frames[:3].tolist(), frames[length[0]:][:3].tolist(), store['clips/frame_count'][:].tolist())
";
        run_python(script, &[&workspace.path(out)]).trim().to_owned()
    };
    assert_code(&extract("all.h5", &[]), 0);
    // The second clip starts at 0.75 s, while frame 18 is displayed (25 frames per second).
    assert_eq!(rows("all.h5"), "[100, 82] [0, 1, 2] [18, 19, 20] [100, 82]");
    assert_code(&extract("tenth.h5", &["--every", "10"]), 0);
    assert_eq!(rows("tenth.h5"), "[10, 9] [0, 10, 20] [18, 28, 38] [100, 82]");
    assert_code(&extract("most.h5", &["--every", "10", "--most", "5"]), 0);
    assert_eq!(rows("most.h5"), "[5, 5] [10, 30, 50] [18, 38, 58] [100, 82]");
    let output = workspace.command("even.h5").args(["--every", "2"]).output().unwrap();
    assert_code(&output, 1);
    assert!(printed(&output).contains("--every does not apply"), "{}", printed(&output));
}

#[test]
fn extraction_goes_on_without_readers_of_its_output() {
    let workspace = Workspace::new(3);
    fs::write(workspace.path("text.mp4"), "no video").unwrap();
    fs::write(workspace.path("manifest.csv"), "id,path,label\none,video.mp4,a\ntext,text.mp4,a\n").unwrap();
    for (out, flags) in [("plain.h5", &["--quiet"][..]), ("json.h5", &["--log-json"])] {
        let mut command = workspace.command(out);
        let mut child = command.args(flags).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        drop((child.stdout.take(), child.stderr.take()));
        assert_eq!(child.wait().unwrap().code(), Some(3));
        assert_eq!(run_python(IDS, &[&workspace.path(out)]).trim(), "one | text | 6");
    }
}

#[test]
fn a_full_disk_is_one_message_and_loses_nothing() {
    let workspace = Workspace::new(60);
    assert_code(&workspace.command("complete.h5").output().unwrap(), 0);
    // Files are limited to 512 bytes times these. The signal is ignored, so that writes fail as on a full disk.
    let mut failed_with_journal = 0;
    for blocks in [0, 1, 8, 24, 48] {
        let command = workspace.command("full.h5");
        let mut limited = Command::new("sh");
        limited.current_dir(root()).args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"")]);
        let output = limited.arg(command.get_program()).args(command.get_args()).arg("--quiet").output().unwrap();
        assert_code(&output, 1);
        let message = String::from_utf8_lossy(&output.stderr);
        let found = message.lines().count() == 1 && message.matches("File too large").count() == 1;
        assert!(found && message.contains("full.h5"), "{blocks}: {message}");
        assert!(!workspace.path("full.h5").exists() && !workspace.path("full.h5.new").exists());
        failed_with_journal += usize::from(workspace.path("full.h5.partial").exists());
    }
    assert!(failed_with_journal > 2);
    let output = workspace.command("full.h5").output().unwrap();
    assert_code(&output, 0);
    assert!(printed(&output).contains("already extracted"), "{}", printed(&output));
    assert_eq!(workspace.fingerprint("full.h5"), workspace.fingerprint("complete.h5"));
}

#[test]
fn directories_and_absurd_numbers_are_refused() {
    let workspace = Workspace::new(1);
    fs::create_dir(workspace.path("features")).unwrap();
    let output = workspace.command("features").output().unwrap();
    assert_code(&output, 1);
    let directory = workspace.path("features");
    let expected = format!(
        "extract: {0}: a directory: write to a file in it with --out, such as {0}/NAME.h5\n",
        directory.display()
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
    for (flag, value) in [("--workers", "100000"), ("--batch", "1000000")] {
        let output = workspace.command("x.h5").args([flag, value]).output().unwrap();
        assert_code(&output, 2);
        assert!(printed(&output).contains("must be at most 1024"), "{}", printed(&output));
    }
    let recipe = fs::read_to_string(fixture("pipelines/tiny.toml")).unwrap();
    fs::write(workspace.path("huge.toml"), recipe.replace("batch = 4", "batch = 1000000")).unwrap();
    let output = workspace.command_with_recipe("x.h5", &fixture("models"), &workspace.path("huge.toml")).output();
    let output = output.unwrap();
    assert_code(&output, 1);
    assert!(printed(&output).contains("extractor.batch must be at most 1024"), "{}", printed(&output));
}

#[test]
fn a_missing_gpu_is_reported_before_weights_are_fetched() {
    if Path::new("/dev/nvidia0").exists() {
        println!("skipped: this machine has a GPU");
        return;
    }
    let workspace = Workspace::new(1);
    let models = workspace.path("models");
    fs::create_dir(&models).unwrap();
    let card = fs::read_to_string(fixture("models/tiny.toml")).unwrap();
    // A download would fail with another message.
    let origin = format!("kind = \"url\"\nurl = \"http://127.0.0.1:9/tiny.onnx\"\nsha256 = \"{}\"", "0".repeat(64));
    fs::write(models.join("tiny.toml"), card.replace("kind = \"file\"\npath = \"tiny.onnx\"", &origin)).unwrap();
    for device in ["cuda", "tensorrt"] {
        let output = workspace.command_with_models("x.h5", &models).args(["--device", device]).output().unwrap();
        assert_code(&output, 1);
        let expected = format!("extract: device {device} needs an NVIDIA GPU with its driver");
        assert!(printed(&output).starts_with(&expected), "{}", printed(&output));
    }
    assert!(!models.join("downloads").exists());
}
