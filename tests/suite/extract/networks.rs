//! Embeddings of all networks, compared with reference implementations.

use std::fs;
use std::process::Command;

use crate::support::{assert_code, fixture, printed, root, run_python};

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
