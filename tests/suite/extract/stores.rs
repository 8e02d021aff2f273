//! Contents of stores, and runs with another recipe or manifest.

use std::fs;

use super::{IDS, Workspace, faults};
use crate::support::{assert_code, printed, run_python};

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
             'clips/fps': 'f8', 'clips/duration_seconds': 'f8', 'clips/start': 'f8', 'clips/end': 'f8',
             'clips/fully_decoded': 'u1'}
    for name, kind in types.items():
        assert store[name].dtype == kind, (name, store[name].dtype)
    assert store['clips/id'].asstr()[:].tolist() == [f'clip{i:03}' for i in range(5)]
    assert store['clips/start'][:].tolist() == [0, 0.3, 0.6, 0.9, 1.2] and (store['clips/end'][:] == numpy.inf).all()
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

/// As if the store had been made on a GPU.
#[test]
fn rows_of_another_precision_are_not_mixed() {
    let workspace = Workspace::new(2);
    assert_code(&workspace.command("tiny.h5").args(["--device", "native"]).output().unwrap(), 0);
    let precision = "import h5py, sys\nwith h5py.File(sys.argv[1], 'r+') as store:\n    print(store.attrs['precision'])\n    \
                     store.attrs['precision'] = 'tf32'";
    assert_eq!(run_python(precision, &[&workspace.path("tiny.h5")]).trim(), "f32");
    let before = fs::read(workspace.path("tiny.h5")).unwrap();
    let output = workspace.command("tiny.h5").args(["--device", "native"]).output().unwrap();
    assert_code(&output, 1);
    let output = printed(&output);
    assert!(
        output.contains("precision: stored tf32, requested f32")
            && output.contains("--precision f32 computes in f32 on both"),
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

#[test]
fn a_store_records_the_batch_size_that_was_used() {
    let workspace = Workspace::new(3);
    let batch = || {
        let attribute =
            "import h5py, json, sys; print(json.loads(h5py.File(sys.argv[1]).attrs['recipe'])['extractor']['batch'])";
        run_python(attribute, &[&workspace.path("x.h5")]).trim().to_string()
    };
    assert_code(&workspace.command("x.h5").args(["--batch", "auto", "--device", "native"]).output().unwrap(), 0);
    assert_eq!(batch(), "1");
    // Features do not depend on it, and it stays if nothing is extracted.
    assert_code(&workspace.command("x.h5").args(["--batch", "2", "--device", "native"]).output().unwrap(), 0);
    fs::write(workspace.path("manifest.csv"), "id,path,label,start\nclip000,video.mp4,a,0.00\n").unwrap();
    assert_code(&workspace.command("x.h5").args(["--batch", "auto", "--prune"]).output().unwrap(), 0);
    assert_eq!(batch(), "1");
}

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
    assert!(text.contains("`first`: video.mp4 and copy.mp4"), "{text}");
    assert!(text.contains("--out") && text.contains("--prune"), "{text}");
    assert_eq!(fs::read(workspace.path("store.h5")).unwrap(), before);
    extract(other, &["--prune"], 0);
    assert_eq!(ids(), "other first | | 12");
}

/// Prints the first and last time of each clip.
const TIMES: &str = "
import h5py, sys
with h5py.File(sys.argv[1]) as store:
    start, end = store['rows/start_seconds'][:], store['rows/end_seconds'][:]
    for id, first, length in zip(store['clips/id'].asstr()[:], store['clips/offset'][:], store['clips/length'][:]):
        print(id, round(start[first], 2), round(end[first + length - 1], 2), end=' ')
";

#[test]
fn clips_with_another_start_or_end_are_extracted_again() {
    let workspace = Workspace::new(0);
    let extract = |rows: &str, flags: &[&str], code: i32| {
        fs::write(workspace.path("manifest.csv"), format!("id,path,label,start,end\n{rows}")).unwrap();
        let output = workspace.command("store.h5").args(flags).output().unwrap();
        assert_code(&output, code);
        printed(&output)
    };
    let times = || run_python(TIMES, &[&workspace.path("store.h5")]).trim().to_owned();
    extract("a,video.mp4,x,0,1\nb,video.mp4,x,,\n", &["--frames", "25"], 0);
    assert_eq!(times(), "a 0.0 1.0 b 0.08 3.96");
    let changed = "a,video.mp4,x,2,3\nb,video.mp4,x,,\n";
    let text = extract(changed, &["--frames", "25"], 1);
    let expected = "1 of its clips have another path, start or end in the manifest or in an interrupted run (`a`: video.mp4 to 1 s and \
                    video.mp4 from 2 s to 3 s)";
    assert!(text.contains(expected) && text.contains("--prune"), "{text}");
    let text = extract(changed, &["--frames", "25", "--prune"], 0);
    assert!(text.contains("1 of 2 clips to extract; 1 already extracted"), "{text}");
    assert_eq!(times(), "a 2.0 3.0 b 0.08 3.96");
    // The same period, written in another way.
    assert!(extract("a,video.mp4,x,2.0,3.00\nb,video.mp4,x,0,\n", &["--frames", "25"], 0).contains("rewritten"));
}

#[test]
fn an_id_has_one_file_in_the_store_and_in_an_interrupted_run() {
    let workspace = Workspace::new(0);
    let write = |rows: &str| fs::write(workspace.path("manifest.csv"), format!("id,path,label\n{rows}")).unwrap();
    fs::copy(workspace.path("video.mp4"), workspace.path("copy.mp4")).unwrap();
    write("a,video.mp4,x\n");
    assert_code(&workspace.command("store.h5").output().unwrap(), 0);
    fs::copy(workspace.path("store.h5"), workspace.path("backup.h5")).unwrap();
    // The journal of a run with --prune that could not write the store.
    write("a,copy.mp4,x\n");
    fs::remove_file(workspace.path("store.h5")).unwrap();
    faults::library(&workspace);
    let (output, _) =
        faults::with_fault(&workspace, workspace.command("store.h5"), "rename", 1, &libc::EIO.to_string());
    assert_code(&output, 1);
    fs::rename(workspace.path("backup.h5"), workspace.path("store.h5")).unwrap();
    write("b,video.mp4,x\n");
    let output = workspace.command("store.h5").output().unwrap();
    assert_code(&output, 1);
    let expected = "an interrupted run (`a`: copy.mp4 and video.mp4)";
    assert!(printed(&output).contains(expected), "{}", printed(&output));
    assert_code(&workspace.command("store.h5").arg("--prune").output().unwrap(), 0);
    assert_eq!(run_python(IDS, &[&workspace.path("store.h5")]).trim(), "b | | 6");
}
