//! Networks on kinoprobe's own kernels: in f32's precision on the CPU, without another runtime.
//!
//! ```text
//! ONNX file → read (nodes, tensors) → plan (layers in order, buffers shared) → lanes, one a thread
//! ```
//! Activations are kept channels last, so that every convolution is a matrix product over channels and every other
//! layer works on whole vectors. These make it faster than a general runtime on the networks here: 3×3 and 3×1×1
//! convolutions of stride one are computed by Winograd's minimal filtering ([`winograd`]), with a fourth and a half of the
//! multiplications; bottlenecks are computed some rows at a time ([`separable`]); products run on the tile unit where the
//! processor has one ([`tiles`]); and lanes share the weights and never wait for each other. A network with an operator that
//! is not known here is refused by name, and runs on another device.

mod aligned;
mod convolution;
mod layers;
mod plan;
mod product;
mod read;
mod separable;
mod team;
#[cfg(test)]
mod tests;
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(no_tiles)))]
mod tiles;
#[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(no_tiles))))]
#[path = "no_tiles.rs"]
mod tiles;
mod weights;
mod winograd;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use ndarray::Array2;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::{Lane, Settings, embeddings};
use crate::error::{Error, Result};
use crate::memory;
use plan::{Plan, Workspace};
use weights::Unit;

/// Lanes beyond this add memory for activations, and wait for the memory.
const MOST_LANES: usize = 16;

/// One thread's worth of buffers beside the shared plan.
struct NativeLane {
    plan: Arc<Plan>,
    /// Lanes that run at this moment, of all.
    running: Arc<AtomicUsize>,
    lanes: usize,
    /// Threads for a lane that runs while others rest.
    helpers: Arc<OnceLock<Option<ThreadPool>>>,
    share: bool,
    workspace: Workspace,
    settings: Settings,
}

impl Lane for NativeLane {
    fn run(&mut self, items: &[f32]) -> Result<Array2<f32>> {
        let running = Running::begin(&self.running);
        // Item after item: the activations of one stay in the cache, and weights cost little to read again.
        let mut values = Vec::with_capacity(self.settings.batch * self.settings.dim);
        for item in items.chunks_exact(items.len() / self.settings.batch) {
            // The threads of lanes that have nothing to do.
            let helpers = if self.share { helpers(&self.helpers, self.lanes) } else { None };
            let threads = if helpers.is_some() { (self.lanes / running.lanes()).max(1) } else { 1 };
            values.extend_from_slice(self.plan.run(item, threads, helpers, &mut self.workspace));
        }
        embeddings(&values, &self.settings)
    }

    fn share(&mut self, share: bool) {
        self.share = share;
    }
}

/// Threads beside a lane's own, made when they are first wanted.
fn helpers(made: &OnceLock<Option<ThreadPool>>, lanes: usize) -> Option<&ThreadPool> {
    let pool = || ThreadPoolBuilder::new().num_threads(lanes - 1).thread_name(|i| format!("helper {i}"));
    made.get_or_init(|| if lanes > 1 { pool().build().ok() } else { None }).as_ref()
}

/// A lane that runs, as long as this lives.
struct Running<'a>(&'a AtomicUsize);

impl<'a> Running<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }

    /// All that run.
    fn lanes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether these kernels know every operator of the network; says which they do not.
pub(super) fn load(onnx: &Path, settings: &Settings) -> Result<(String, Vec<Box<dyn Lane>>)> {
    let network = read::Network::open(onnx)?;
    let unit = Unit::best();
    let plan =
        Plan::new(&network, &Settings { batch: 1, ..settings.clone() }, unit).map_err(|refusal| match refusal {
            plan::Refusal::Unknown(what) => Error::Runtime(format!(
                "device native cannot run {}: {what}; use --device openvino or cpu",
                onnx.display()
            )),
            plan::Refusal::Unreadable(error) => error,
            plan::Refusal::Misfit(message) => Error::Weights { path: onnx.to_path_buf(), message },
        })?;
    let plan = Arc::new(plan);
    // What reading the weights left free is a tenth of the network's size.
    memory::trim_heap();
    let lanes = settings.threads.clamp(1, MOST_LANES);
    let running = Arc::new(AtomicUsize::new(0));
    let helpers = Arc::new(OnceLock::new());
    let lane = |_| -> Box<dyn Lane> {
        Box::new(NativeLane {
            plan: plan.clone(),
            running: running.clone(),
            helpers: helpers.clone(),
            share: false,
            lanes,
            workspace: Workspace::default(),
            settings: settings.clone(),
        })
    };
    let provider = match unit {
        Unit::Vectors => "native",
        Unit::Tiles => "native-amx",
    };
    Ok((provider.into(), (0..lanes).map(lane).collect()))
}
