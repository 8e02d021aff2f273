//! Models by year that are corrections of the model of all years, with the real binaries, on features with a common structure and one of
//! each year.

use std::collections::HashMap;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use kinoprobe::classify::SavedModel;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{assert_code, printed};

const LABELS: [&str; 4] = ["action", "comedy", "drama", "horror"];
const DIM: usize = 16;
const YEARS: std::ops::Range<i32> = 2000..2010;
/// Clips of a year for train, val and test.
const COUNTS: [usize; 3] = [24, 12, 40];

/// Pseudo-random numbers.
struct Noise(u64);

impl Noise {
    fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 40) as f32) / (1u64 << 23) as f32 - 1.0
    }

    /// Returns values with mean 0 and variance 1: sums of three uniform ones.
    fn vector(&mut self) -> Vec<f32> {
        (0..DIM).map(|_| self.uniform() + self.uniform() + self.uniform()).collect()
    }

    /// Returns a vector of weights for each label.
    fn weights(&mut self) -> Vec<Vec<f32>> {
        LABELS.iter().map(|_| self.vector()).collect()
    }
}

/// Features, and labels that depend on them by common weights and weights of the year.
struct Films {
    directory: TempDir,
}

impl Films {
    /// Writes films.h5 and films.csv. `deviation` is the size of the weights of a year relative to the common ones. The year 1999 has two
    /// test clips only, and 2010 two clips without a label.
    fn new(deviation: f32) -> Self {
        let films = Self { directory: tempfile::tempdir().unwrap() };
        let mut noise = Noise(5);
        let common = noise.weights();
        let of_year: HashMap<i32, _> = (YEARS.start - 1..=YEARS.end).map(|year| (year, noise.weights())).collect();
        let mut features = format!("id,{}\n", (0..DIM).map(|d| format!("f{d}")).collect::<Vec<_>>().join(","));
        let mut manifest = String::from("id,path,labels,year,split\n");
        let mut add = |year: i32, split: &str, count: usize, labeled: bool| {
            for i in 0..count {
                let x = noise.vector();
                let has = |c: usize| {
                    let weights = common[c].iter().zip(&of_year[&year][c]).map(|(w, own)| w + deviation * own);
                    weights.zip(&x).map(|(w, x)| w * x).sum::<f32>() > 0.0
                };
                let mut labels: Vec<&str> = (0..LABELS.len()).filter(|&c| has(c)).map(|c| LABELS[c]).collect();
                if labels.is_empty() {
                    labels.push("other");
                }
                if !labeled {
                    labels.clear();
                }
                let id = format!("{year}-{split}-{i}");
                let values: Vec<String> = x.iter().map(f32::to_string).collect();
                writeln!(features, "{id},{}", values.join(",")).unwrap();
                writeln!(manifest, "{id},{id}.jpg,{},{year},{split}", labels.join("|")).unwrap();
            }
        };
        for year in YEARS {
            for (split, count) in ["train", "val", "test"].into_iter().zip(COUNTS) {
                add(year, split, count, true);
            }
        }
        add(YEARS.start - 1, "test", 2, true);
        add(YEARS.end, "test", 2, false);
        fs::write(films.path("features.csv"), features).unwrap();
        fs::write(films.path("films.csv"), manifest).unwrap();
        let arguments = ["features", "features.csv", "--out", "films.h5"];
        assert_code(&films.run(env!("CARGO_BIN_EXE_kinoprobe-import"), &arguments), 0);
        films
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn run(&self, binary: &str, arguments: &[&str]) -> Output {
        Command::new(binary).current_dir(self.directory.path()).args(arguments).output().unwrap()
    }

    fn classify(&self, out: &str, more: &[&str]) -> Output {
        let arguments = ["--features", "films.h5", "--manifest", "films.csv", "--out", out, "--by", "year"];
        self.run(env!("CARGO_BIN_EXE_kinoprobe-classify"), &[&arguments[..], more].concat())
    }

    /// Returns a column of the row "models of the years" of years.csv.
    fn of_years(&self, out: &str, column: &str) -> f64 {
        let mut reader = csv::Reader::from_path(self.path(out).join("years.csv")).unwrap();
        let index = reader.headers().unwrap().iter().position(|name| name == column).unwrap();
        let row = reader.records().map(|row| row.unwrap()).find(|row| &row[0] == "models of the years").unwrap();
        row[index].parse().unwrap()
    }
}

#[test]
fn pooled_models_are_better_than_those_of_a_year_and_of_all_years() {
    let films = Films::new(0.7);
    let mlp: &[&str] = &["--classifier", "mlp", "--hidden", "32", "--epochs", "40"];
    // The hidden units of an MLP are common to all years, so that it gains less.
    for (classifier, classifier_flags, gain) in
        [("logistic", &["--classifier", "logistic"][..], 0.03), ("mlp", mlp, 0.005)]
    {
        let [pooled, alone] = ["pooled", "alone"].map(|name| format!("{classifier}-{name}"));
        let output = films.classify(&pooled, &[classifier_flags, &["--pool"]].concat());
        assert_code(&output, 0);
        assert!(
            printed(&output).contains("1999 has the model of all years: 0 training clips, the"),
            "{}",
            printed(&output)
        );
        assert_code(&films.classify(&alone, classifier_flags), 0);
        let (of_pooled, of_all) = (films.of_years(&pooled, "map"), films.of_years(&pooled, "all:map"));
        let of_alone = films.of_years(&alone, "map");
        assert!(of_pooled > of_all + gain && of_pooled > of_alone + 0.04, "{of_pooled} {of_all} {of_alone}");
    }
}

#[test]
fn years_with_too_few_clips_have_the_model_of_all_years() {
    let films = Films::new(0.7);
    let output = films.classify("pooled", &["--classifier", "logistic", "--pool"]);
    assert_code(&output, 0);
    let posters: Value = serde_json::from_str(&films.text("pooled/posters.json")).unwrap();
    assert_eq!((&posters["by"], &posters["window"]), (&"year".into(), &Value::Null));
    let years = posters["years"].as_array().unwrap();
    let numbers: Vec<i64> = years.iter().map(|year| year["year"].as_i64().unwrap()).collect();
    assert_eq!(numbers, (1999..2010).collect::<Vec<_>>());
    assert_eq!(years[0]["clips"], serde_json::json!({"train": 240, "val": 0, "test": 2}));
    assert_eq!(years[1]["clips"], serde_json::json!({"train": 24, "val": 12, "test": 40}));
    let tensors = |name: &str| SavedModel::load(&films.path("pooled").join(name)).unwrap().model.tensors();
    assert_eq!(tensors("1999"), tensors("all"));
    let corrected = (2000..2010).filter(|year| tensors(&year.to_string()) != tensors("all")).count();
    assert!(corrected >= 5, "{corrected}");
    assert!(films.text("pooled/2000/recipe.toml").contains("pool = true"));

    let report = films.text("pooled/REPORT.md");
    for part in [
        "each a correction of the model of all years",
        "## Pooling",
        "1999 (0 training clips, the minimum is 20; ",
        "| pooled |",
        "| one model for all years |",
        "| sliding windows of 10 years |",
        "| one model per year |",
        "∞ (model of all years)",
        "[2009](2009/",
    ] {
        assert!(report.contains(part), "no {part:?} in\n{report}");
    }
    assert!(!report.contains("skipping"), "{report}");
    assert_eq!(films.text("pooled/years.csv").lines().count(), 1 + 11 + 2);

    let arguments = ["--model", "pooled", "--features", "films.h5", "--manifest", "films.csv", "--out", "evaluated"];
    assert_code(&films.run(env!("CARGO_BIN_EXE_kinoprobe-evaluate"), &arguments), 0);
    assert_eq!(films.of_years("evaluated", "map"), films.of_years("pooled", "map"));

    // Training without pooling removes the year that has no model of its own.
    assert_code(&films.classify("pooled", &["--classifier", "logistic"]), 0);
    assert!(!films.path("pooled/1999").exists());
    let output = films.classify("svm", &["--classifier", "svm", "--pool"]);
    assert_code(&output, 1);
    assert!(printed(&output).contains("classifiers with this option: mlp, logistic"), "{}", printed(&output));
    fs::write(films.path("films.csv"), films.text("films.csv").replace(",year,", ",decade,")).unwrap();
    let output = films.classify("none", &["--classifier", "logistic", "--pool"]);
    assert_code(&output, 1);
    assert!(printed(&output).contains("no clip has a year"), "{}", printed(&output));
}
