//! Native backend: inference on the CPU with kinoprobe's own SIMD kernels.
//!
//! ```text
//! ONNX file → onnx_reader (nodes, tensors) → plan_builder (fused layers) → plan (buffers) → lanes, one per thread
//! ```
//! Activations are stored channels-last, so that every convolution is a matrix product over channels and every other layer
//! processes full vectors. The following make it faster than a general runtime on the shipped networks:
//! - 3×3 and 3×1×1 convolutions of stride 1 use Winograd's minimal filtering ([`winograd`]);
//! - inverted bottlenecks and (2+1)D convolutions are fused and computed some rows at a time ([`inverted_bottleneck`]);
//! - matrix products use Intel AMX if available ([`amx`]); in other precisions than f32, also integers ([`int8`]) or bfloat16
//!   ([`bf16`]);
//! - attention is computed head by head, so that scores stay in the cache ([`attention`]);
//! - lanes share the weights and do not synchronize.
//!
//! Kernels are generic over pulp's `Simd` and compiled for each [instruction set](isa::Isa); `KINOPROBE_SIMD` selects one. A
//! network with an operator that is not implemented is rejected with its name and runs on another device.

mod activation;
mod aligned;
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(no_amx)))]
mod amx;
#[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(no_amx))))]
#[path = "amx_unsupported.rs"]
mod amx;
mod attention;
mod bf16;
pub(crate) mod calibration;
mod convolution;
mod depthwise;
mod gemm;
mod im2col;
mod int8;
mod inverted_bottleneck;
mod isa;
mod kernel;
mod normalization;
mod onnx_reader;
mod packed;
mod plan;
mod plan_builder;
mod pooling;
mod probe;
mod profile;
mod shape;
mod step;
#[cfg(test)]
mod tests;
mod thread_pool;
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(no_amx)))]
mod tiles;
mod tokens;
mod winograd;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ndarray::Array2;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::lane::{Items, Lane, SessionOptions, embeddings};
use super::profile::Profile;
use crate::cancel::CancellationToken;
use crate::error::{Error, Result};
use crate::memory;
use crate::models::input::NormalizationTable;
use crate::models::precision::Precision;
use isa::Isa;
use onnx_reader::OnnxGraph;
use plan::{Item, Plan, Workspace};
use step::{PlanError, PlanResult};

/// More lanes would need memory for activations and compete for memory bandwidth.
const MAX_LANES: usize = 16;

/// Buffers of one thread and the shared plan.
struct NativeLane {
    plan: Arc<Plan>,
    /// Number of lanes that are running.
    running: Arc<AtomicUsize>,
    /// Number of lanes of the session.
    lanes: usize,
    /// Threads for a lane that runs while others are idle.
    pool: Arc<OnceLock<Option<ThreadPool>>>,
    borrow_threads: bool,
    workspace: Workspace,
    /// What the user should know; returned once by one of the lanes.
    warning: Arc<Mutex<Option<String>>>,
    /// The number for each eight-bit value of each channel, if items are pixels.
    table: Option<Arc<NormalizationTable>>,
    options: SessionOptions,
}

impl Lane for NativeLane {
    fn run(&mut self, items: Items<'_>) -> Result<Array2<f32>> {
        let Self { plan, running, lanes, pool, borrow_threads, workspace, table, options, .. } = self;
        let running = RunningGuard::new(running);
        let (count, item_len, dim) = (items.count(options)?, options.item_len(), options.dim);
        let mut values = Vec::with_capacity(count * dim);
        // One item at a time: its activations stay in the cache, and weights are cheap to read again.
        let mut run = |item: Item<'_>| {
            let pool = if *borrow_threads { thread_pool_of(pool, *lanes) } else { None };
            // Idle lanes' threads are divided among the running ones.
            let threads = if pool.is_some() { (*lanes / running.count()).max(1) } else { 1 };
            values.extend_from_slice(plan.run(item, threads, pool, workspace));
        };
        match items {
            Items::Floats(parts) => {
                parts.iter().flat_map(|part| part.chunks_exact(item_len)).for_each(|item| run(Item::Floats(item)));
            }
            Items::Pixels(parts) => {
                let table = table.as_ref().expect("items are pixels only if they are normalized");
                let items = parts.iter().flat_map(|part| part.chunks_exact(item_len));
                items.for_each(|item| run(Item::Pixels(item, table)));
            }
        }
        embeddings(&values, (count, dim), count)
    }

    fn take_warning(&mut self) -> Option<String> {
        self.warning.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn borrow_idle_threads(&mut self, borrow: bool) {
        self.borrow_threads = borrow;
    }
}

/// Returns the threads besides a lane's own; they are started when first needed. `None` if there is a single lane.
fn thread_pool_of(pool: &OnceLock<Option<ThreadPool>>, lanes: usize) -> Option<&ThreadPool> {
    let builder = || ThreadPoolBuilder::new().num_threads(lanes - 1).thread_name(|i| format!("native-{i}"));
    pool.get_or_init(|| if lanes > 1 { builder().build().ok() } else { None }).as_ref()
}

/// Counts a lane as running while it is alive.
struct RunningGuard<'a>(&'a AtomicUsize);

impl<'a> RunningGuard<'a> {
    fn new(running: &'a AtomicUsize) -> Self {
        running.fetch_add(1, Ordering::Relaxed);
        Self(running)
    }

    /// Returns the number of running lanes.
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for RunningGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Checks the instruction set requested by `KINOPROBE_SIMD`.
///
/// # Errors
/// Returns an error if it is unknown or unavailable.
pub(super) fn check_instruction_set() -> Result<()> {
    Isa::from_env().map(|_| ())
}

/// Returns the names of the instruction sets that are available, the fastest last.
pub(super) fn instruction_sets() -> Vec<&'static str> {
    Isa::available().map(Isa::name).collect()
}

/// Loads a network; returns the provider's name and one lane per thread.
///
/// # Errors
/// Returns an error if the file cannot be read, does not match `options` or needs an unsupported operator (which is named),
/// or if `KINOPROBE_SIMD` is invalid.
pub(super) fn load(onnx: &Path, options: &SessionOptions) -> Result<(String, Vec<Box<dyn Lane>>)> {
    let isa = Isa::from_env()?;
    let plan = Arc::new(load_plan(onnx, options, isa, "use --device openvino or cpu")?);
    // Temporary buffers of packing amount to a tenth of the network's size.
    memory::trim_heap();
    let lanes = options.threads.clamp(1, MAX_LANES);
    let running = Arc::new(AtomicUsize::new(0));
    let pool = Arc::new(OnceLock::new());
    let table = options.normalization.map(|normalization| Arc::new(normalization.table()));
    let warning = (options.precision == Precision::Bf16 && bf16::Kernel::of(isa).is_none()).then(|| {
        let reason = "only AMX-BF16, and AVX512-BF16 of AMD, are; the rounded values are multiplied as f32";
        format!("precision bf16 is not faster than f32 on {}: {reason}", isa.name())
    });
    let warning = Arc::new(Mutex::new(warning));
    let lane = |_| -> Box<dyn Lane> {
        Box::new(NativeLane {
            plan: plan.clone(),
            running: running.clone(),
            lanes,
            pool: pool.clone(),
            borrow_threads: false,
            warning: warning.clone(),
            workspace: Workspace::default(),
            table: table.clone(),
            options: options.clone(),
        })
    };
    Ok((format!("native-{}", isa.name()), (0..lanes).map(lane).collect()))
}

/// Measures the layers of a network on one item and `options.threads` threads, `runs` times.
///
/// # Errors
/// As [`load`]; also if threads cannot be started or the token is cancelled.
pub(super) fn profile(
    onnx: &Path,
    options: &SessionOptions,
    runs: usize,
    cancel: &CancellationToken,
) -> Result<Profile> {
    let isa = Isa::from_env()?;
    let plan = load_plan(onnx, options, isa, "only networks on this device can be profiled")?;
    profile::measure(&plan, isa, options.threads, runs, cancel)
}

/// Creates the plan of a network for single items. `remedy` is what to do about a network with an unsupported operator.
fn load_plan(onnx: &Path, options: &SessionOptions, isa: Isa, remedy: &str) -> Result<Plan> {
    load_plan_with(onnx, options, remedy, |graph, options| Plan::new(graph, options, isa))
}

/// As [`load_plan`], with a function that creates the plan.
fn load_plan_with<T>(
    onnx: &Path,
    options: &SessionOptions,
    remedy: &str,
    create: impl FnOnce(&OnnxGraph, &SessionOptions) -> PlanResult<T>,
) -> Result<T> {
    let graph = OnnxGraph::open(onnx)?;
    let single = SessionOptions { batch: 1, ..options.clone() };
    create(&graph, &single).map_err(|error| match error {
        PlanError::Unsupported(reason) => {
            Error::Runtime(format!("device native cannot run {}: {reason}; {remedy}", onnx.display()))
        }
        PlanError::Mismatch(message) => Error::Weights { path: onnx.to_path_buf(), message },
        PlanError::Read(error) => error,
    })
}
