//! Inputs that cannot be used, and clips without features.

use std::fs;

use kinoprobe::store::Failure;

use super::{Bench, Made, QUICK, separable};
use crate::support::{assert_code, printed};

#[test]
fn clips_without_features_are_reported_with_the_reason() {
    let clips = separable(&["a", "b"], [6, 2, 2], 4);
    let bench = Bench::new(&clips);
    let failure =
        Failure { id: clips[0].id.clone(), stage: "decode".into(), error: "no frame".into(), ..Failure::default() };
    bench.store(&clips[1..], "registry", &[failure]);
    let output = bench.classify("out", &QUICK);
    assert_code(&output, 0);
    assert!(printed(&output).contains("train-a-0 (decode: no frame)"), "{}", printed(&output));
    // A store with more clips than the manifest.
    bench.store(&clips, "registry", &[]);
    bench.manifest(&clips[1..]);
    let output = bench.classify("out", &QUICK);
    assert_code(&output, 0);
    assert!(
        printed(&output).contains("excluded 1 clips of made.h5 that are not in the manifest"),
        "{}",
        printed(&output)
    );
}

#[test]
fn untrained_features_are_reported() {
    let clips = separable(&["a", "b"], [6, 2, 0], 4);
    let bench = Bench::new(&clips);
    bench.store(&clips, "seeded", &[]);
    let output = bench.classify("out", &[&QUICK[..], &["--quiet"]].concat());
    assert_code(&output, 0);
    assert!(printed(&output).to_lowercase().contains("untrained"), "{}", printed(&output));
    assert_eq!(bench.metrics("out")["untrained"], true);
}

#[test]
fn unusable_inputs_are_errors_with_a_reason() {
    let clips = separable(&["a", "b", "c"], [4, 2, 2], 4);
    let bench = Bench::new(&clips);
    let without = |gone: &dyn Fn(&Made) -> bool| clips.iter().filter(|clip| !gone(clip)).cloned().collect::<Vec<_>>();

    // A class whose training clips have no features.
    bench.store(&without(&|clip| clip.label == "b" && clip.split == "train"), "registry", &[]);
    bench.assert_error(&QUICK, &["no training clip with features for class b", "4 clips have no features"]);
    // A split whose clips have no features.
    bench.store(&without(&|clip| clip.split == "val"), "registry", &[]);
    bench.assert_error(&QUICK, &["none of the 6 clips of the split val has features"]);
    // A NaN feature.
    let mut broken = clips.clone();
    broken[3].features[2] = f32::NAN;
    bench.store(&broken, "registry", &[]);
    bench.assert_error(&QUICK, &["made.h5", "feature 2 of clip train-a-1 is NaN"]);
    // A class without training clips, and a manifest with a single class.
    bench.store(&clips, "registry", &[]);
    bench.manifest(&without(&|clip| clip.label == "c" && clip.split == "train"));
    bench.assert_error(&QUICK, &["manifest.csv", "`c` has no training clip"]);
    bench.manifest(&without(&|clip| clip.label != "a"));
    bench.assert_error(&QUICK, &["only one class, a"]);
    // Several labels per clip for a single-label task.
    bench.manifest(&clips);
    let text = fs::read_to_string(bench.path("manifest.csv")).unwrap();
    let text = text.replace("label,", "labels,").replace("train-a-0.mp4,a", "train-a-0.mp4,a|b");
    fs::write(bench.path("manifest.csv"), text).unwrap();
    bench.assert_error(&[&QUICK[..], &["--task", "single-label"]].concat(), &["clip train-a-0 has 2 labels (a, b)"]);
    // Values out of range, options of another classifier, and an invalid store.
    bench.manifest(&clips);
    let recipe = String::from_utf8(bench.classify("failed", &["--dry-run"]).stdout).unwrap();
    assert!(recipe.contains("batch = 64"), "{recipe}");
    fs::write(bench.path("recipe.toml"), recipe.replace("batch = 64", "batch = 1")).unwrap();
    bench.assert_error(&["--recipe", "recipe.toml"], &["recipe.toml", "batch must be at least 2"]);
    for (classifier, flag, value) in
        [("logistic", "--loss-weights", "balanced"), ("knn", "--hidden", "4"), ("bayes", "--seeds", "2")]
    {
        let expected =
            format!("{flag} does not apply to classifier {classifier}; classifiers with this option: mlp, bilstm");
        bench.assert_error(&["--classifier", classifier, flag, value], &[&expected]);
    }
    bench.assert_error(&["--memory", "1G"], &["--memory does not apply: mlp reads one vector per clip, not sequences"]);
    bench.assert_error(&["--split-seed", "3"], &["--split-seed does not apply: the manifest has splits"]);
    let logistic = recipe
        .replace("classifier = \"mlp\"", "classifier = \"logistic\"")
        .replace("weights = \"none\"", "weights = \"balanced\"");
    let logistic = logistic.split("[run]").next().unwrap();
    fs::write(bench.path("recipe.toml"), logistic).unwrap();
    let expected = ["recipe.toml", "classify.loss.weights does not apply to classifier logistic"];
    bench.assert_error(&["--recipe", "recipe.toml"], &expected);
    // A recipe can be used with another classifier; what does not apply to it is reported and not recorded.
    fs::write(bench.path("recipe.toml"), logistic.replace("classifier = \"logistic\"", "classifier = \"mlp\""))
        .unwrap();
    let output = bench.classify("switched", &["--recipe", "recipe.toml", "--classifier", "logistic"]);
    assert_code(&output, 0);
    let expected = "keys of the recipe without an effect on this run: loss.weights\n";
    assert!(printed(&output).contains(expected), "{}", printed(&output));
    let recorded = fs::read_to_string(bench.path("switched/recipe.toml")).unwrap();
    assert!(recorded.contains("classifier = \"logistic\"") && !recorded.contains("balanced"), "{recorded}");
    bench.assert_error(&["--learning-rate", "1e30", "--epochs", "9"], &["training diverged"]);
    fs::write(bench.path("made.h5"), "no store").unwrap();
    bench.assert_error(&QUICK, &["made.h5"]);
}
