//! Sampling methods, by the contents of the store.

use std::fs;
use std::process::Command;

use super::Workspace;
use crate::support::{assert_code, fixture, printed, root, run_python};

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
