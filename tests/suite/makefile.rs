//! The Makefile's targets and variables, through `make --dry-run` in a directory that holds only the files it reads.

use std::fs;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::{assert_code, printed, root};

/// A directory with the Makefile, the recipes and the cards.
fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::copy(root().join("Makefile"), directory.path().join("Makefile")).unwrap();
    for name in ["pipelines", "models"] {
        fs::create_dir(directory.path().join(name)).unwrap();
        for file in fs::read_dir(root().join(name)).unwrap().map(|file| file.unwrap()) {
            if file.path().extension().is_some_and(|extension| extension == "toml") {
                fs::copy(file.path(), directory.path().join(name).join(file.file_name())).unwrap();
            }
        }
    }
    directory
}

fn make(directory: &TempDir, arguments: &[&str]) -> Output {
    let mut command = Command::new("make");
    // The variables of a `make test` that runs this test.
    for name in ["MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS", "MAKELEVEL", "CARGO_TARGET_DIR", "TRAIN"] {
        command.env_remove(name);
    }
    command.arg("--dry-run").arg("--directory").arg(directory.path()).args(arguments).output().unwrap()
}

/// The kinoprobe commands that make would run, without the directory of the programs and with single spaces.
#[track_caller]
fn commands(directory: &TempDir, arguments: &[&str]) -> Vec<String> {
    let output = make(directory, arguments);
    assert_code(&output, 0);
    let commands = printed(&output);
    let commands = commands.lines().filter_map(|line| line.strip_prefix("target/release/kinoprobe-"));
    commands.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[track_caller]
fn assert_error(directory: &TempDir, arguments: &[&str], parts: &[&str]) {
    let output = make(directory, arguments);
    assert_code(&output, 2);
    let message = printed(&output);
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message}");
    }
}

#[test]
fn any_recipe_is_a_method() {
    let directory = directory();
    let pipelines = directory.path().join("pipelines");
    fs::copy(pipelines.join("cnn.toml"), pipelines.join("mine.toml")).unwrap();
    let commands = commands(&directory, &["classify", "METHOD=mine"]);
    assert_eq!(
        commands,
        [
            "demo --out demo",
            "extract --method mine --manifest demo/manifest.csv --out demo/features/mine.h5 --device auto --weights seeded \
             || { code=$?; [ $code -eq 3 ] || exit $code; }",
            "classify --features demo/features/mine.h5 --manifest demo/manifest.csv --recipe pipelines/mine.toml \
             --out demo/runs/mine --classifier mlp",
        ]
    );
}

#[test]
fn imported_features_are_a_method() {
    let directory = directory();
    let features = directory.path().join("out/clips/features");
    fs::create_dir_all(&features).unwrap();
    fs::write(features.join("gist-1.h5"), "").unwrap();
    let arguments = ["METHOD=gist-1", "MANIFEST=clips.csv", "CLASSIFIER=logistic"];
    let expected = "classify --features out/clips/features/gist-1.h5 --manifest clips.csv --out out/clips/runs/gist-1-logistic \
                    --classifier logistic";
    assert_eq!(commands(&directory, &[&["classify"][..], &arguments].concat()), [expected]);
    let text = printed(&make(&directory, &[&["classify"][..], &arguments].concat()));
    assert!(text.contains("cargo build --release"), "{text}");
    assert_error(&directory, &["classify", "METHOD=gist", "MANIFEST=clips.csv"], &["out/clips/features/gist.h5"]);
    // Descriptors are no features.
    fs::write(features.join("own.descriptors.h5"), "").unwrap();
    assert_error(&directory, &["classify", "METHOD=own.descriptors", "MANIFEST=clips.csv"], &["unknown METHOD"]);
}

#[test]
fn a_sift_recipe_is_extracted_in_two_stages() {
    let directory = directory();
    let pipelines = directory.path().join("pipelines");
    fs::copy(pipelines.join("sift.toml"), pipelines.join("sift-256.toml")).unwrap();
    let arguments = ["METHOD=sift-256", "CLASSIFIER=any", "MANIFEST=clips.csv", "ROOT=clips", "OUT=out"];
    let flags = ["EXTRACT_FLAGS=--frames 16", "CLASSIFY_FLAGS=--epochs 5", "SEEDS=3"];
    let commands = commands(&directory, &[&["classify"][..], &arguments, &flags].concat());
    assert_eq!(
        commands,
        [
            "extract --method sift-256 --manifest clips.csv --root clips --out out/features/sift-256.descriptors.h5 \
             --frames 16 || { code=$?; [ $code -eq 3 ] || exit $code; }",
            "codebook --descriptors out/features/sift-256.descriptors.h5 --manifest clips.csv --root clips \
             --recipe pipelines/sift-256.toml --out out/features/sift-256.h5",
            "classify --features out/features/sift-256.h5 --manifest clips.csv --root clips \
             --recipe pipelines/sift-256.toml --out out/runs/sift-256-any --classifier any \
             $(target/release/kinoprobe-classify --list-classifiers seeds | sed -n 's/^any$/--seeds 3/p') --epochs 5",
        ]
    );
}

#[test]
fn sift_on_a_dense_grid_is_extracted_in_two_stages_too() {
    let arguments = ["METHOD=sift-dense", "CLASSIFIER=any", "MANIFEST=clips.csv", "OUT=out"];
    let commands = commands(&directory(), &[&["classify"][..], &arguments].concat());
    let expected = [
        "extract --method sift-dense --manifest clips.csv --out out/features/sift-dense.descriptors.h5",
        "codebook --descriptors out/features/sift-dense.descriptors.h5",
        "classify --features out/features/sift-dense.h5",
    ];
    assert_eq!(commands.len(), expected.len(), "{commands:?}");
    assert!(commands.iter().zip(expected).all(|(command, start)| command.starts_with(start)), "{commands:?}");
    assert!(commands[2].contains(" --recipe pipelines/sift-dense.toml --out out/runs/sift-dense-any "), "{commands:?}");
}

#[test]
fn each_manifest_has_its_own_directory_of_results() {
    let directory = directory();
    for (manifest, out) in [
        ("clips.csv", "out/clips"),
        ("clips/manifest.csv", "out/clips"),
        ("clips/", "out/clips"),
        ("../data/v1.0/clips.csv", "out/data-v1.0-clips"),
        ("../data/v1.0", "out/data-v1.0"),
        ("/data/clips/manifest.csv", "out/data-clips"),
        (".", "out/manifest"),
        ("demo/manifest.csv", "demo"),
        ("demo-labels/manifest.csv", "demo-labels"),
        ("demo-motions/manifest.csv", "demo-motions"),
    ] {
        let commands = commands(&directory, &["classify", "METHOD=effnet", &format!("MANIFEST={manifest}")]);
        let [extract, classify] = &commands[commands.len() - 2..] else { panic!("{commands:?}") };
        assert!(extract.contains(&format!(" --manifest {manifest} --out {out}/features/effnet.h5 ")), "{extract}");
        assert!(classify.contains(&format!(" --out {out}/runs/effnet ")), "{classify}");
    }
    let commands = commands(&directory, &["posters", "MANIFEST=posters.csv"]);
    assert!(commands.iter().any(|line| line.contains(" --out out/posters/runs/posters")), "{commands:?}");
}

#[test]
fn without_a_method_the_default_ones_are_compared() {
    let commands = commands(&directory(), &["compare", "CLASSIFIERS=mlp knn"]);
    let trained: Vec<&str> = commands
        .iter()
        .filter(|line| line.starts_with("classify"))
        .map(|line| line.split("--out ").nth(1).unwrap())
        .collect();
    let expected = ["sift", "cnn", "cnn3d", "effnet"].map(|method| {
        [format!("demo/runs/{method} --classifier mlp"), format!("demo/runs/{method}-knn --classifier knn")]
    });
    assert_eq!(trained, expected.as_flattened());
    assert_eq!(commands.last().unwrap(), "compare demo/runs --out demo/runs/comparison");
    let extracted: Vec<&String> = commands.iter().filter(|line| line.starts_with("extract")).collect();
    assert_eq!(extracted.len(), 4, "{extracted:?}");
    // A package registry carries the weights of EfficientNet-Lite2; the other networks are untrained in the demo.
    let seeded = |method: &str| {
        let method = format!("--method {method} ");
        extracted.iter().find(|line| line.contains(&method)).unwrap().contains("--weights seeded")
    };
    assert_eq!(["sift", "cnn", "cnn3d", "effnet"].map(seeded), [false, true, true, false]);
}

#[test]
fn a_file_named_like_a_run_selects_method_and_classifier() {
    let commands = commands(&directory(), &["demo/runs/cnn3d-bayes/metrics.json", "MANIFEST=demo/manifest.csv"]);
    assert!(commands[1].starts_with("extract --method cnn3d "), "{commands:?}");
    assert!(commands[2].ends_with("--out demo/runs/cnn3d-bayes --classifier bayes"), "{commands:?}");
}

#[test]
fn unknown_names_are_rejected_with_the_choices() {
    let directory = directory();
    let choices = "clip cnn cnn3d effnet keyframes";
    assert_error(&directory, &["features", "METHOD=cmn"], &["unknown METHOD cmn", choices, "pipelines/cmn.toml"]);
    assert_error(
        &directory,
        &["features", "MANIFSET=x"],
        &["unknown variable MANIFSET", "did you mean MANIFEST?", "WEIGHTS"],
    );
    assert_error(&directory, &["features", "FLAGS=--frames 16"], &["unknown variable FLAGS", "EXTRACT_FLAGS"]);
}

#[test]
fn help_lists_every_variable_of_the_pipeline() {
    let directory = directory();
    let output =
        Command::new("make").env_remove("MAKEFLAGS").arg("--directory").arg(directory.path()).arg("help").output();
    let output = output.unwrap();
    assert_code(&output, 0);
    let help = printed(&output);
    for name in ["METHOD", "CLASSIFIER", "MANIFEST", "WEIGHTS", "EXTRACT_FLAGS", "CLASSIFY_FLAGS", "keyframes"] {
        assert!(help.contains(name), "{name} is not in {help}");
    }
}

#[test]
fn a_gpu_is_required_before_anything_is_downloaded_for_it() {
    let directory = directory();
    let text = printed(&make(&directory, &["features", "METHOD=cnn", "MANIFEST=clips.csv", "DEVICE=cuda"]));
    let position = |line: &str| text.lines().position(|command| command == line);
    let (check, setup) = (position("setup/gpu.sh cuda"), position("setup/native.sh"));
    assert!(check.is_some() && check < setup, "{text}");
    assert!(!printed(&make(&directory, &["features", "METHOD=cnn", "MANIFEST=clips.csv"])).contains("gpu.sh"));
    let output = Command::new(root().join("setup/gpu.sh")).arg("cuda").output().unwrap();
    if !std::path::Path::new("/dev/nvidia0").exists() {
        assert_code(&output, 1);
        assert!(printed(&output).contains("DEVICE=cuda needs an NVIDIA GPU with its driver"), "{}", printed(&output));
    }
}

#[test]
fn a_run_that_cannot_be_made_does_not_prevent_the_comparison() {
    let directory = directory();
    let programs = directory.path().join("target/release");
    fs::create_dir_all(&programs).unwrap();
    fs::create_dir(directory.path().join("setup")).unwrap();
    let program = |path: &str, text: &str| {
        let path = directory.path().join(path);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    for name in ["native.sh", "runtime.sh", "cargo.sh"] {
        program(&format!("setup/{name}"), "");
    }
    // Stand-ins that write the file after --out, except for the method cnn.
    let out = "while [ \"$1\" != --out ]; do shift; done; mkdir -p \"$(dirname \"$2\")\"";
    program(
        "target/release/kinoprobe-extract",
        &format!("[ \"$2\" != cnn ] || {{ echo 'extract: no weights' >&2; exit 1; }}\n{out}; touch \"$2\""),
    );
    program("target/release/kinoprobe-classify", &format!("{out}; mkdir -p \"$2\"; touch \"$2/metrics.json\""));
    program(
        "target/release/kinoprobe-compare",
        "echo \"compare $*: $(ls \"$1\" | tr '\\n' ' ')\"; exit \"${CODE:-0}\"",
    );
    program("cargo", "");
    fs::write(directory.path().join("clips.csv"), "id,path\n").unwrap();
    let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap());
    let compare = |code: &str| {
        let mut command = Command::new("make");
        command
            .env_remove("MAKEFLAGS")
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("TRAIN")
            .env("PATH", &path)
            .env("CODE", code);
        command.arg("--directory").arg(directory.path());
        command.args(["compare", "METHOD=cnn effnet", "CLASSIFIERS=knn bayes", "MANIFEST=clips.csv"]).output().unwrap()
    };
    let output = compare("0");
    assert_code(&output, 0);
    let text = printed(&output);
    for part in [
        "extract: no weights",
        "compare out/clips/runs --out out/clips/runs/comparison: effnet-bayes effnet-knn \n",
        "compare: without out/clips/runs/cnn-knn, which could not be made",
        "compare: without out/clips/runs/cnn-bayes, which could not be made",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert!(!text.contains("without out/clips/runs/effnet"), "{text}");
    // The exit code of kinoprobe-compare if there is no run.
    assert_code(&compare("1"), 2);
}

#[test]
fn train_sets_up_libtorch_and_enables_the_feature() {
    let directory = directory();
    let lines = |arguments: &[&str]| {
        let output = make(&directory, arguments);
        assert_code(&output, 0);
        printed(&output)
    };
    let text = lines(&["build", "TRAIN=1"]);
    assert!(text.contains("setup/libtorch.sh") && text.contains("--bins --features train"), "{text}");
    assert!(lines(&["setup", "TRAIN=1", "DEVICE=cuda"]).contains("setup/libtorch.sh cuda"));
    // Both commands of the demo build the same programs.
    let text = lines(&["demo-train"]);
    let builds: Vec<&str> = text.lines().filter(|line| line.starts_with("cargo build")).collect();
    assert!(builds.len() > 1 && builds.iter().all(|line| line.ends_with("--features train")), "{builds:?}");
    let commands = commands(&directory, &["demo-train"]);
    for expected in [
        "demo --out demo-motions --motions",
        "train --recipe demo --manifest demo-motions/manifest.csv --out demo-motions/runs/trained-demo-demo-motions --device cpu --resume",
        "compare demo-motions/runs --out demo-motions/runs/comparison",
    ] {
        assert!(commands.iter().any(|line| line.starts_with(expected)), "{commands:#?}");
    }
    let text = lines(&["build"]);
    assert!(!text.contains("libtorch") && !text.contains("--features"), "{text}");
    assert_error(&directory, &["build", "TRAIN=yes"], &["TRAIN yes", "TRAIN=1"]);
}

#[test]
fn new_clips_are_predicted_by_the_runs_of_the_methods() {
    let directory = directory();
    let arguments = ["predict", "CLIPS=new/ x.mp4", "MANIFEST=clips.csv", "CLASSIFIER=knn", "PREDICT_FLAGS=--top 5"];
    let commands_of = |methods: &str| commands(&directory, &[&arguments[..], &[&format!("METHOD={methods}")]].concat());
    let commands = commands_of("effnet");
    let predict = |models: &str, name: &str| {
        format!(
            "predict {models} new/ x.mp4 --out out/clips/predictions/{name}.csv --features out/clips/predictions/{name}.h5 \
             --device auto --top 5 || {{ code=$?; [ $code -eq 3 ] || exit $code; }}"
        )
    };
    assert!(commands[commands.len() - 2].starts_with("classify "), "{commands:?}");
    assert_eq!(*commands.last().unwrap(), predict("--model out/clips/runs/effnet-knn", "effnet-knn"));
    // Runs that exist are not made again.
    for method in ["effnet", "cnn3d"] {
        let run = directory.path().join(format!("out/clips/runs/{method}-knn"));
        fs::create_dir_all(&run).unwrap();
        fs::write(run.join("metrics.json"), "{}").unwrap();
    }
    let models = "--model out/clips/runs/effnet-knn --model out/clips/runs/cnn3d-knn";
    assert_eq!(commands_of("effnet cnn3d"), [predict(models, "effnet-knn+cnn3d-knn")]);
    let output = Command::new("make")
        .env_remove("MAKEFLAGS")
        .args(["--directory", directory.path().to_str().unwrap(), "require-clips"])
        .output()
        .unwrap();
    assert_code(&output, 2);
    assert!(printed(&output).contains("run make predict METHOD=effnet CLIPS=folder"), "{}", printed(&output));
}
