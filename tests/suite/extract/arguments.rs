//! Arguments, cards and devices.

use std::fs;
use std::path::Path;

use super::Workspace;
use crate::support::{assert_code, fixture, printed};

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
fn timings_show_what_limits_a_run() {
    let workspace = Workspace::new(4);
    let output = workspace.command("x.h5").args(["--timings", "--quiet"]).output().unwrap();
    assert_code(&output, 0);
    let text = printed(&output);
    for stage in ["decode", "transform", "copy", "network", "write"] {
        assert!(text.lines().any(|line| line.starts_with(&format!("  {stage} "))), "{stage}: {text}");
    }
    assert!(text.contains("timings: ") && text.contains("  limited by "), "{text}");
    // Nothing was extracted.
    let output = workspace.command("x.h5").arg("--timings").output().unwrap();
    assert!(!printed(&output).contains("timings: "), "{}", printed(&output));
    assert_code(&workspace.command("x.h5").args(["--timings", "--dry-run"]).output().unwrap(), 2);
}

#[test]
fn precisions_of_the_same_arithmetic_share_a_store() {
    let workspace = Workspace::new(4);
    assert_code(&workspace.command("x.h5").args(["--device", "native"]).output().unwrap(), 0);
    let output = workspace.command("x.h5").args(["--device", "native", "--precision", "f32"]).output().unwrap();
    assert_code(&output, 0);
    assert!(printed(&output).contains("up to date (4 clips)"), "{}", printed(&output));
    let output = workspace.command("y.h5").args(["--device", "native", "--precision", "tf32"]).output().unwrap();
    assert_code(&output, 1);
    let message = printed(&output);
    assert!(message.contains("device native does not support precision tf32; only GPUs compute in it"), "{message}");
    assert!(!workspace.path("y.h5").exists());
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
    let (code, message) = run(["--device", "cuda:0,0"]);
    assert_eq!(code, Some(2));
    assert!(message.contains("invalid value 'cuda:0,0' for '--device <DEVICE>': GPU 0 is listed twice"), "{message}");
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
        assert!(printed(&output).contains("1024"), "{}", printed(&output));
    }
    let output = workspace.command("x.h5").args(["--length", "100000"]).output().unwrap();
    assert_code(&output, 2);
    assert!(printed(&output).contains("must be at most 4096"), "{}", printed(&output));
    let recipe = fs::read_to_string(fixture("pipelines/tiny.toml")).unwrap();
    fs::write(workspace.path("huge.toml"), recipe.replace("batch = 4", "batch = 1000000")).unwrap();
    let output = workspace.command_with_recipe("x.h5", &fixture("models"), &workspace.path("huge.toml")).output();
    let output = output.unwrap();
    assert_code(&output, 1);
    assert!(
        printed(&output).contains("extractor.batch must be a number from 1 to 1024, or \"auto\""),
        "{}",
        printed(&output)
    );
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
    for device in ["cuda", "tensorrt", "cuda:0,1", "cuda:all"] {
        let output = workspace.command_with_models("x.h5", &models).args(["--device", device]).output().unwrap();
        assert_code(&output, 1);
        let expected = format!("extract: device {device} needs an NVIDIA GPU with its driver");
        assert!(printed(&output).starts_with(&expected), "{}", printed(&output));
    }
    assert!(!models.join("downloads").exists());
}
