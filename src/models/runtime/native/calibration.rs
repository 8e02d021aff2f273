//! A network in f32 whose matrix products can be observed and replaced by integer products, one by one.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use ndarray::ArrayView3;
use rayon::prelude::*;

use super::int8::{self, QuantizedMatrix};
use super::isa::Isa;
use super::load_plan_with;
use super::plan::{Item, Plan, Workspace};
use super::plan_builder::LayerProbe;
use super::step::Step;
use crate::cancel::CancellationToken;
use crate::error::{Error, Result};
use crate::models::runtime::lane::SessionOptions;

pub(crate) use super::int8::{InputQuantization, MAX_WEIGHT};
pub(crate) use super::probe::InputStatistics;

/// A network for calibration. It runs items one by one, whatever the batch of its options.
pub(crate) struct CalibrationPlan {
    plan: Plan,
    probes: Vec<LayerProbe>,
    isa: Isa,
    workspaces: Mutex<Vec<Workspace>>,
}

impl CalibrationPlan {
    /// Loads a network. If `include_winograd` is set, the layers that can be quantized include those that Winograd's algorithm computes
    /// in f32.
    ///
    /// # Errors
    /// As the native backend.
    pub fn open(onnx: &Path, options: &SessionOptions, include_winograd: bool) -> Result<Self> {
        let isa = Isa::from_env()?;
        let remedy = "only networks on this device can be quantized";
        let (plan, probes) = load_plan_with(onnx, options, remedy, |graph, options| {
            Plan::with_probes(graph, options, isa, include_winograd)
        })?;
        Ok(Self { plan, probes, isa, workspaces: Mutex::default() })
    }

    /// Returns the layers that can be quantized, by the name of their node's output.
    pub fn layers(&self) -> impl Iterator<Item = &str> {
        self.probes.iter().map(|probe| probe.layer.as_str())
    }

    /// Returns `true` if Winograd's algorithm computes a layer in f32 that would be faster on this processor if it was quantized.
    pub fn has_slower_winograd(&self) -> bool {
        int8::outpaces_winograd(self.isa) && self.plan.steps().iter().any(Step::uses_winograd)
    }

    /// Runs the items and returns the distribution of the input of each layer. It does not depend on the number of threads.
    ///
    /// # Errors
    /// Returns an error if the token is cancelled.
    pub fn record(&self, items: &[&[f32]], cancel: &CancellationToken) -> Result<Vec<InputStatistics>> {
        self.probes.iter().for_each(|probe| probe.probe.record());
        let mut workspace = Workspace::default();
        for item in items {
            cancel.check()?;
            self.plan.run(Item::Floats(item), 1, None, &mut workspace);
        }
        Ok(self.probes.iter().map(|probe| probe.probe.take_statistics().expect("the probe records")).collect())
    }

    /// Returns the embeddings of items.
    ///
    /// # Errors
    /// Returns an error if an embedding is not finite or the token is cancelled.
    pub fn embeddings(&self, items: &[&[f32]], cancel: &CancellationToken) -> Result<Vec<Vec<f32>>> {
        let workspaces = || self.workspaces.lock().unwrap_or_else(PoisonError::into_inner);
        let run = |item: &&[f32]| {
            cancel.check()?;
            let mut workspace = workspaces().pop().unwrap_or_default();
            let embedding = self.plan.run(Item::Floats(item), 1, None, &mut workspace).to_vec();
            workspaces().push(workspace);
            match embedding.iter().all(|value| value.is_finite()) {
                true => Ok(embedding),
                false => Err(Error::Runtime("the network returned a value that is not finite".into())),
            }
        };
        items.par_iter().map(run).collect()
    }

    /// Replaces the product of a layer by one with the `weight` (taps, input channels, output channels) and its `scales` per output
    /// channel, and adds `bias_correction` to the bias. Returns `false` if the layer has too many inputs.
    pub fn quantize(
        &self,
        layer: usize,
        weight: ArrayView3<'_, i8>,
        scales: &[f32],
        input: InputQuantization,
        bias_correction: &[f32],
    ) -> bool {
        let LayerProbe { padded_outputs, probe, .. } = &self.probes[layer];
        let padded = (probe.inputs() / weight.dim().0, *padded_outputs);
        let Some(matrix) = QuantizedMatrix::new(weight, padded, scales, input, self.isa) else { return false };
        let mut correction = bias_correction.to_vec();
        correction.resize(*padded_outputs, 0.0);
        probe.replace(matrix, correction);
        true
    }

    /// Restores the product of a layer.
    pub fn restore(&self, layer: usize) {
        self.probes[layer].probe.reset();
    }
}
