//! Benchmarks of training: single steps on one batch, and epochs on clips. `benches/peer/train.py` is the same in PyTorch.
//!
//! ```text
//! cargo bench --features train --bench train -- write FILE --recipe r2plus1d     the initial network and a batch, for the peer
//! cargo bench --features train --bench train -- step --recipe r2plus1d           steps on that batch
//! cargo bench --features train --bench train -- frames FILE MANIFEST --recipe R  the inputs of all clips without augmentation
//! cargo bench --features train --bench train -- epoch MANIFEST --recipe R        epochs as kinoprobe-train runs them
//! ```
//! `step` prints one line of JSON: `step_wall` (median) and `step_cpu` (mean) in seconds, and `losses` of the first steps. `epoch`
//! prints `first` (the first epoch with the decoding of the frame cache) and `later` (the mean of the other epochs, with the checkpoint
//! before each): `wall` and `cpu` in seconds. CPU seconds are `null` without /proc.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use crate::train::checkpoint::EpochRecord;
use crate::train::learner::Learner;
use crate::train::network::TrainNetwork;
use crate::train::random::{Purpose, generator};
use crate::train::session::{Observer, Session, SessionData, SessionOptions};
use crate::train::torch::save;
use crate::train::{Batch, CacheOptions, FrameCache, Loader, Samples, TrainRecipe};
use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use kinoprobe::cancel::CancellationToken;
use kinoprobe::classify::loss::Loss;
use kinoprobe::dataset::{Dataset, DatasetSplits, Task};
use kinoprobe::manifest::Manifest;
use kinoprobe::matrix::default_threads;
use kinoprobe::memory;
use kinoprobe::progress::NoProgress;
use ndarray::Array2;
use rand::Rng;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use serde_json::json;
use tch::{Device, Tensor};

mod common;
// The modules of kinoprobe-train, of which the benchmark uses a part.
#[allow(dead_code, unused_imports)]
#[path = "../src/train/mod.rs"]
mod train;
use common::{cpu_seconds, median};

/// Labels of the batch.
const LABELS: usize = 85;
/// Frames of a batch of a 2-D network, in clips of eight.
const FRAMES: usize = 32;
/// Steps whose losses are printed.
const COMPARED: usize = 3;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// `cargo bench` passes this flag.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Command {
    Write {
        file: PathBuf,
        #[command(flatten)]
        common: Common,
    },
    Step {
        #[arg(long, default_value_t = 8)]
        steps: usize,
        #[command(flatten)]
        common: Common,
    },
    Frames {
        file: PathBuf,
        manifest: PathBuf,
        #[command(flatten)]
        common: Common,
    },
    Epoch {
        manifest: PathBuf,
        #[arg(long, default_value_t = 2)]
        epochs: usize,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Args)]
struct Common {
    /// Name of a recipe in pipelines/train.
    #[arg(long)]
    recipe: String,
    /// Clips per batch [default: that of the recipe].
    #[arg(long)]
    batch: Option<usize>,
    /// Threads of the network.
    #[arg(long, default_value_t = default_threads())]
    threads: usize,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    // As kinoprobe-train.
    memory::keep_freed_memory();
    match arguments.command {
        Command::Write { file, common } => write(&file, &common.recipe()?),
        Command::Step { steps, common } => step(&common.recipe()?, common.threads, steps),
        Command::Frames { file, manifest, common } => frames(&file, &manifest, &common.recipe()?),
        Command::Epoch { manifest, epochs, common } => {
            let mut recipe = common.recipe()?;
            recipe.training.epochs = epochs;
            recipe.schedule.warm_up = 0;
            epoch(&recipe, &manifest, common.threads)
        }
    }
}

impl Common {
    /// Reads the recipe. Frozen layers get seeded weights, so that nothing is downloaded; the speed does not depend on the values.
    fn recipe(&self) -> anyhow::Result<TrainRecipe> {
        let path = repository().join(format!("pipelines/train/{}.toml", self.recipe));
        let mut recipe = TrainRecipe::load(&path)?;
        if recipe.network.weights != "none" {
            recipe.network.weights = "seeded".into();
        }
        recipe.training.batch = self.batch.unwrap_or(recipe.training.batch);
        Ok(recipe)
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn network(recipe: &TrainRecipe, classes: usize) -> kinoprobe::Result<TrainNetwork> {
    let models = repository().join("models");
    TrainNetwork::new(recipe, &models, classes, Device::Cpu, &NoProgress, &CancellationToken::default())
}

/// Returns a batch of noise: the clips of the recipe with one window each for 3-D networks, or [`FRAMES`] frames.
fn noise(recipe: &TrainRecipe) -> Batch {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(0);
    let length = recipe.window_length();
    let (clips, windows) = if length.is_some() { (recipe.training.batch, 1) } else { (FRAMES / 8, 8) };
    let shape = [&[clips * windows, 3][..], length.as_slice(), &recipe.input.size].concat();
    Batch {
        inputs: (0..shape.iter().product()).map(|_| rng.gen_range(-2.0_f32..2.0)).collect(),
        shape,
        targets: (0..clips * LABELS).map(|i| f32::from(i * 7 % 5 == 0)).collect(),
        clips: (0..clips).collect(),
        windows: vec![windows; clips],
        ..Batch::default()
    }
}

fn targets(batch: &Batch) -> Array2<f32> {
    Array2::from_shape_vec((batch.clips.len(), LABELS), batch.targets.clone()).expect("a row per clip")
}

fn tensor(values: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values).reshape(shape.iter().map(|&length| length as i64).collect::<Vec<_>>())
}

fn write(file: &Path, recipe: &TrainRecipe) -> anyhow::Result<()> {
    let batch = noise(recipe);
    let mut tensors = network(recipe, LABELS)?.tensors();
    tensors.push(("batch.inputs".into(), tensor(&batch.inputs, &batch.shape)));
    tensors.push(("batch.targets".into(), tensor(&batch.targets, &[batch.clips.len(), LABELS])));
    // What a step passes to libtorch's generator.
    let seed = |step: u64| generator(recipe.seed, Purpose::Dropout, &[0, step]).r#gen::<i64>().cast_unsigned();
    let seeds: Vec<u64> = (0..COMPARED as u64).map(seed).collect();
    save(file, &tensors, &HashMap::from([("seeds".into(), json!(seeds).to_string())]))?;
    Ok(())
}

fn step(recipe: &TrainRecipe, threads: usize, steps: usize) -> anyhow::Result<()> {
    tch::set_num_threads(i32::try_from(threads)?);
    let mut batch = noise(recipe);
    let loss = Loss::new(&recipe.loss, Task::MultiLabel, targets(&batch).view())?;
    let mut learner = Learner::new(recipe, network(recipe, LABELS)?, Some(loss))?;
    let mut run = |step: usize| {
        batch.step = step;
        learner.step(&batch, 0, COMPARED + steps)
    };
    let losses = (0..COMPARED).map(|step| Ok(run(step)?.loss)).collect::<kinoprobe::Result<Vec<_>>>()?;
    let (mut wall, cpu) = (Vec::new(), cpu_seconds());
    for step in COMPARED..COMPARED + steps {
        let start = Instant::now();
        run(step)?;
        wall.push(start.elapsed().as_secs_f64());
    }
    let cpu = cpu.zip(cpu_seconds()).map(|(before, after)| (after - before) / steps as f64);
    println!("{}", json!({ "step_wall": median(wall), "step_cpu": cpu, "losses": losses, "threads": threads }));
    Ok(())
}

/// The training clips of a manifest, and their frame cache in a directory.
struct Clips {
    cache: FrameCache,
    samples: Samples,
    train: Dataset,
}

impl Clips {
    fn load(recipe: &TrainRecipe, manifest: &Path, directory: &Path) -> anyhow::Result<Self> {
        let manifest = Manifest::load(manifest, None)?;
        let options = CacheOptions {
            directory: directory.into(),
            limit: u64::MAX,
            workers: default_threads(),
            memory: None,
            retry_failed: false,
        };
        let cache = FrameCache::build(recipe, &manifest.clips, &options, &NoProgress, &CancellationToken::default())?;
        let train = DatasetSplits::without_features(&manifest, &HashMap::new())?.train;
        let position =
            |id: &String| manifest.clips.iter().position(|clip| clip.id == *id).context("a clip without a file");
        let clips = train.ids.iter().map(position).collect::<anyhow::Result<_>>()?;
        Ok(Self { cache, samples: Samples { clips, targets: train.targets.clone() }, train })
    }
}

fn frames(file: &Path, manifest: &Path, recipe: &TrainRecipe) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let Clips { cache, samples, train } = Clips::load(recipe, manifest, directory.path())?;
    let loader = Loader::new(&cache, recipe, samples, vec![], 1)?;
    let batches: Vec<Batch> =
        std::thread::scope(|scope| loader.evaluate(scope).collect::<kinoprobe::Result<Vec<Batch>>>())?;
    let mut tensors = Vec::new();
    for batch in batches {
        let inputs = tensor(&batch.inputs, &batch.shape)
            .split_with_sizes(batch.windows.iter().map(|&count| count as i64).collect::<Vec<_>>(), 0);
        tensors.extend(batch.clips.iter().map(|&clip| train.ids[clip].clone()).zip(inputs));
    }
    save(file, &tensors, &HashMap::new())?;
    Ok(())
}

/// Wall and CPU time at the end of each epoch.
#[derive(Default)]
struct Clock(Mutex<Vec<(Instant, Option<f64>, f64)>>);

impl Clock {
    fn tick(&self, loss: f64) {
        self.0.lock().expect("no thread panicked").push((Instant::now(), cpu_seconds(), loss));
    }
}

impl Observer for Clock {
    fn step(&self, _: usize, step: usize, steps: usize, loss: f64) {
        // Before the checkpoint is written, as in the peer.
        if step + 1 == steps {
            self.tick(loss);
        }
    }

    fn epoch(&self, history: &[EpochRecord]) -> kinoprobe::Result<()> {
        if let (Some(tick), Some(record)) = (self.0.lock().expect("no thread panicked").last_mut(), history.last()) {
            tick.2 = record.epoch.train_loss;
        }
        Ok(())
    }
}

fn epoch(recipe: &TrainRecipe, manifest: &Path, threads: usize) -> anyhow::Result<()> {
    tch::set_num_threads(i32::try_from(threads)?);
    let directory = tempfile::tempdir()?;
    // Loads libtorch.
    let classes =
        DatasetSplits::without_features(&Manifest::load(manifest, None)?, &HashMap::new())?.train.classes.len();
    let network = network(recipe, classes)?;

    let clock = Clock::default();
    clock.tick(f64::NAN);
    let Clips { cache, samples, .. } = Clips::load(recipe, manifest, directory.path())?;
    let loss = Loss::new(&recipe.loss, Task::SingleLabel, samples.targets.view())?;
    let learner = Learner::new(recipe, network, Some(loss))?;
    let options = SessionOptions { out: directory.path(), resume: false, inputs: BTreeMap::new(), workers: 1 };
    let data = SessionData { task: Task::SingleLabel, train: samples, val: None, pool: Vec::new() };
    let mut session = Session::new(recipe, &cache, data, learner, options)?;
    session.train(&clock, &CancellationToken::default())?;

    let ticks = clock.0.into_inner().expect("no thread panicked");
    let span = |first: usize, last: usize| {
        let ((start, start_cpu, _), (end, end_cpu, _)) = (ticks[first], ticks[last]);
        let epochs = (last - first) as f64;
        let cpu = start_cpu.zip(end_cpu).map(|(start, end)| (end - start) / epochs);
        json!({ "wall": (end - start).as_secs_f64() / epochs, "cpu": cpu })
    };
    let losses: Vec<f64> = ticks[1..].iter().map(|(.., loss)| *loss).collect();
    let later = (ticks.len() > 2).then(|| span(1, ticks.len() - 1));
    println!("{}", json!({ "first": span(0, 1), "later": later, "losses": losses, "threads": threads }));
    Ok(())
}
