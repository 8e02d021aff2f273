//! Networks on kinoprobe's own kernels: f32 on the CPU, without another runtime.
//!
//! ```text
//! ONNX file → read (nodes, tensors) → plan (layers in order, buffers shared) → lanes, one a thread
//! ```
//! Activations are kept channels last, so that every convolution is a matrix product over channels and every other
//! layer works on whole vectors. Two things make it faster than a general runtime on the networks here: 3×3 and
//! 3×1×1 convolutions of stride one are computed by Winograd's minimal filtering ([`winograd`]), with a fourth and a half
//! of the multiplications, and lanes share the weights and never wait for each other. A network with an operator that is
//! not known here is refused by name, and runs on another device.

mod convolution;
mod layers;
mod plan;
mod product;
mod read;
#[cfg(test)]
mod tests;
mod weights;
mod winograd;

use std::path::Path;
use std::sync::Arc;

use ndarray::Array2;

use super::{Lane, Settings, embeddings};
use crate::error::{Error, Result};
use crate::memory;
use plan::{Plan, Workspace};

/// Lanes beyond this add memory for activations, and wait for the memory.
const MOST_LANES: usize = 16;

/// One thread's worth of buffers beside the shared plan.
struct NativeLane {
    plan: Arc<Plan>,
    workspace: Workspace,
    settings: Settings,
}

impl Lane for NativeLane {
    fn run(&mut self, items: &[f32]) -> Result<Array2<f32>> {
        // Item after item: the activations of one stay in the cache, and weights cost little to read again.
        let mut values = Vec::with_capacity(self.settings.batch * self.settings.dim);
        for item in items.chunks_exact(items.len() / self.settings.batch) {
            values.extend_from_slice(self.plan.run(item, &mut self.workspace));
        }
        embeddings(&values, &self.settings)
    }
}

/// Whether these kernels know every operator of the network; says which they do not.
pub(super) fn load(onnx: &Path, settings: &Settings) -> Result<(String, Vec<Box<dyn Lane>>)> {
    let network = read::Network::open(onnx)?;
    let plan = Plan::new(&network, &Settings { batch: 1, ..settings.clone() }).map_err(|refusal| match refusal {
        plan::Refusal::Unknown(what) => {
            Error::Runtime(format!("device native cannot run {}: {what}; use --device openvino or cpu", onnx.display()))
        }
        plan::Refusal::Unreadable(error) => error,
        plan::Refusal::Misfit(message) => Error::Weights { path: onnx.to_path_buf(), message },
    })?;
    let plan = Arc::new(plan);
    // What reading the weights left free is a tenth of the network's size.
    memory::give_back();
    let lanes = settings.threads.clamp(1, MOST_LANES);
    let lane = |_| -> Box<dyn Lane> {
        Box::new(NativeLane { plan: plan.clone(), workspace: Workspace::default(), settings: settings.clone() })
    };
    Ok(("native".into(), (0..lanes).map(lane).collect()))
}
