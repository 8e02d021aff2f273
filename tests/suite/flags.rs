//! Numeric flags of all programs: values out of range are usage errors.

use std::process::Command;

use crate::support::{assert_code, printed};

/// Asserts that each of the `flags` with this value is a usage error that names the flag.
#[track_caller]
fn assert_usage_errors(program: &str, value: &str, flags: &str) {
    for flag in flags.split_whitespace() {
        let output = Command::new(program).arg(format!("--{flag}={value}")).output().unwrap();
        assert_code(&output, 2);
        let expected = format!("invalid value '{value}' for '--{flag}");
        assert!(printed(&output).contains(&expected), "{expected:?} is not in {}", printed(&output));
    }
}

#[test]
fn numbers_out_of_range_are_usage_errors_of_the_tools_for_features() {
    let classify = env!("CARGO_BIN_EXE_kinoprobe-classify");
    let counts = "threads seeds window epochs patience batch hidden length neighbors max-iterations \
                  restart-every restart-factor step-every memory";
    let numbers = "learning-rate weight-decay momentum step-factor gamma-positive gamma-negative margin focal-gamma \
                   focal-alpha dropout alpha smoothing";
    assert_usage_errors(classify, "0", counts);
    assert_usage_errors(classify, "-1", &format!("{counts} {numbers} warm-up split-seed"));
    assert_usage_errors(classify, "nan", numbers);
    assert_usage_errors(classify, "1", "batch momentum margin dropout");
    assert_usage_errors(classify, "1.5", "focal-alpha");

    let codebook = env!("CARGO_BIN_EXE_kinoprobe-codebook");
    assert_usage_errors(codebook, "0", "words max-iterations samples components pyramid");
    assert_usage_errors(codebook, "-1", "words max-iterations tolerance seed split-seed samples components pyramid");
    assert_usage_errors(codebook, "17", "pyramid");
    assert_usage_errors(codebook, "129", "components");
    let compare = env!("CARGO_BIN_EXE_kinoprobe-compare");
    assert_usage_errors(compare, "0", "threads");
    let import = env!("CARGO_BIN_EXE_kinoprobe-import");
    assert_usage_errors(import, "3", "split");
}

#[test]
fn flags_that_exclude_each_other_are_usage_errors() {
    for (program, arguments) in [
        (env!("CARGO_BIN_EXE_kinoprobe-classify"), "--list-classifiers --quiet"),
        (
            env!("CARGO_BIN_EXE_kinoprobe-evaluate"),
            "--predictions p.csv --out x --model m --features f --manifest c.csv",
        ),
        (
            env!("CARGO_BIN_EXE_kinoprobe-evaluate"),
            "--model m --features f --manifest c.csv --out x --task multi-label",
        ),
    ] {
        let output = Command::new(program).args(arguments.split(' ')).output().unwrap();
        assert_code(&output, 2);
        assert!(printed(&output).contains("cannot be used with"), "{arguments}: {}", printed(&output));
    }
    let evaluate = env!("CARGO_BIN_EXE_kinoprobe-evaluate");
    for flag in ["--root=r", "--force", "--features=f", "--manifest=c.csv"] {
        let output = Command::new(evaluate).args(["--predictions", "p.csv", "--out", "x", flag]).output().unwrap();
        assert_code(&output, 2);
    }
}

#[cfg(feature = "media")]
#[test]
fn numbers_out_of_range_are_usage_errors_of_demo() {
    let demo = env!("CARGO_BIN_EXE_kinoprobe-demo");
    assert_usage_errors(demo, "0", "clips years per-year");
    assert_usage_errors(demo, "-1", "clips years per-year seed");
}

#[cfg(all(feature = "media", feature = "onnx"))]
#[test]
fn numbers_out_of_range_are_usage_errors_of_extract_and_shots() {
    let extract = env!("CARGO_BIN_EXE_kinoprobe-extract");
    let flags = "workers memory frames length rate count every most keypoints max-side step bin-widths batch";
    assert_usage_errors(extract, "0", flags);
    assert_usage_errors(extract, "-1", flags);
    for (flag, value) in [("--weights", "seeded"), ("--device", "native"), ("--models", "models")] {
        let mut command = Command::new(extract);
        let output =
            command.args(["--method", "sift", "--manifest", "none.csv", "--out", "none.h5", flag, value]).output();
        let output = output.unwrap();
        assert_code(&output, 1);
        let expected = format!("{flag} does not apply to sift: its extractor is sift, not a network");
        assert!(printed(&output).contains(&expected), "{}", printed(&output));
    }
    let shots = env!("CARGO_BIN_EXE_kinoprobe-shots");
    assert_usage_errors(shots, "-0.1", "threshold");
    assert_usage_errors(shots, "1.1", "threshold");
}

#[cfg(feature = "serve")]
#[test]
fn numbers_out_of_range_are_usage_errors_of_serve() {
    let serve = env!("CARGO_BIN_EXE_kinoprobe-serve");
    let flags = "batch files request-megabytes image-megabytes megapixels seconds frames queue";
    assert_usage_errors(serve, "0", flags);
    assert_usage_errors(serve, "-1", &format!("{flags} delay"));
    // The exported site has neither an address nor a queue.
    for flag in
        ["--addr=127.0.0.1:0", "--device=cpu", "--batch=2", "--delay=1", "--files=2", "--seconds=9", "--queue=3"]
    {
        let output = Command::new(serve).args(["--export", "site", flag]).output().unwrap();
        assert_code(&output, 2);
        assert!(printed(&output).contains("cannot be used with"), "{}", printed(&output));
    }
    // The server buffers at most 512 MiB of images.
    assert_usage_errors(serve, "513", "image-megabytes");
}
