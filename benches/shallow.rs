//! Benchmark of the classifiers without epochs for `benches/bench.py`: fits a classifier to standardized features, scores other clips, and
//! prints one line of JSON: the wall and CPU seconds of the fit (with the standardization) and of the scores.
//!
//! `shallow FILE OUT --classifier logistic` reads `train` (N, D), `targets` (N, C) and `test` (M, D), f32, from an HDF5 file and writes `scores`
//! (M, C) to another one.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use kinoprobe::classify::{ClassifierKind, ClassifierSettings, FitContext, FitSettings, build};
use kinoprobe::dataset::{Dataset, Task};
use kinoprobe::matrix::default_threads;
use ndarray::Array2;
use serde_json::json;

mod common;
use common::cpu_seconds;

#[derive(Parser)]
struct Arguments {
    file: PathBuf,
    out: PathBuf,
    #[arg(long, value_parser = |name: &str| ClassifierKind::from_str(name, false))]
    classifier: ClassifierKind,
    /// `cargo bench` passes this flag.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The default settings, except for a penalty of the SVM with which the peer converges within minutes.
fn settings(kind: ClassifierKind) -> ClassifierSettings {
    let mut settings = kind.default_settings();
    if let ClassifierSettings::Svm(svm) = &mut settings {
        svm.alpha = 1000.0;
    }
    settings
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let file = hdf5::File::open(&arguments.file).context(arguments.file.display().to_string())?;
    let matrix = |name: &str| -> anyhow::Result<Array2<f32>> { Ok(file.dataset(name)?.read_2d()?) };
    let (rows, targets, test) = (matrix("train")?, matrix("targets")?, matrix("test")?);
    let classes = targets.ncols();
    let dataset = |rows: Array2<f32>, targets: Array2<f32>| Dataset {
        ids: (0..rows.nrows()).map(|i| i.to_string()).collect(),
        groups: vec![None; rows.nrows()],
        offsets: (0..=rows.nrows()).collect(),
        classes: (0..classes).map(|c| c.to_string()).collect(),
        rows: rows.into(),
        targets,
    };
    let train = dataset(rows, targets);
    let test_targets = Array2::zeros((test.nrows(), classes));
    let test = dataset(test, test_targets);
    let settings = FitSettings::new(settings(arguments.classifier));
    let mut ignore = |_: &_| {};
    let mut context = FitContext::new(0, Task::SingleLabel, default_threads(), &mut ignore);
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let fitted = build(&settings).fit(&train, &train.select(&[]), &mut context)?;
    let fit_wall = start.elapsed().as_secs_f64();
    let fit_cpu = cpu.zip(cpu_seconds()).map(|(before, after)| after - before);
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let scores = fitted.model.scores(&test)?;
    let predict_wall = start.elapsed().as_secs_f64();
    let predict_cpu = cpu.zip(cpu_seconds()).map(|(before, after)| after - before);
    let out = hdf5::File::create(&arguments.out)?;
    out.new_dataset_builder().with_data(&scores).create("scores")?;
    println!(
        "{}",
        json!({ "fit_wall": fit_wall, "fit_cpu": fit_cpu, "predict_wall": predict_wall, "predict_cpu": predict_cpu, "notes": fitted.notes })
    );
    Ok(())
}
