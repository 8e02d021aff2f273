//! Quantization of a network to 8-bit integers after training, with the values that its layers have on the user's clips.
//!
//! Weights are quantized per output channel, inputs of layers per tensor ([`Calibration`]); the bias is corrected for the mean error
//! of the weights. The first layer stays in f32: with the 7 bits of its weights, it caused nearly all of the error of ConvNeXt-base.
//! So do those that harm the embedding most, until the embeddings of held-out items are similar enough. Unless asked otherwise, only
//! layers that the native kernels compute as matrix products are quantized: Winograd's algorithm in f32 saves as many multiplications as
//! 8-bit integers do on AVX2.

mod qdq;
mod range;
mod weights;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use clap::ValueEnum as _;

use super::runtime::SessionOptions;
use super::runtime::calibration::{CalibrationPlan, InputStatistics};
use super::{external_data, fetch, onnx};
use crate::cancel::CancellationToken;
use crate::error::{Error, Result};
use crate::progress::{Event, ProgressSink};
use qdq::{Layer, Model, Quantized};

pub use range::Calibration;

/// Every fourth item is not used for calibration, but to compare the embeddings.
const HELD_OUT: usize = 4;

/// Number of held-out items that a layer's effect on the embedding is measured with.
const SENSITIVITY_ITEMS: usize = 4;

/// How a network is quantized.
#[derive(Debug, Clone)]
pub struct Options {
    /// How ranges of inputs are chosen. `None`: the way whose embeddings are most similar to those in f32.
    pub calibration: Option<Calibration>,
    /// Layers that stay in f32, by the name of their output.
    pub keep: Vec<String>,
    /// Also quantizes the layers that Winograd's algorithm computes in f32.
    pub include_winograd: bool,
    /// Smallest cosine similarity of an embedding with that in f32: further layers stay in f32 until it is reached.
    pub min_cosine: f64,
    /// Number of calibration clips.
    pub clips: usize,
}

/// A quantized network.
pub struct QuantizedNetwork {
    /// The ONNX file.
    pub bytes: Vec<u8>,
    /// The quantized layers: name and description.
    pub quantized: Vec<(String, String)>,
    /// The layers that could be quantized but stay in f32: name and reason.
    pub kept: Vec<(String, String)>,
    /// How the ranges of inputs were chosen.
    pub calibration: Calibration,
    /// Smallest and mean cosine similarity of held-out embeddings with those in f32.
    pub cosine: (f64, f64),
    /// Number of items for calibration and of held-out items.
    pub items: (usize, usize),
    /// Bytes of the network in f32.
    pub f32_bytes: u64,
}

impl fmt::Display for QuantizedNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = |bytes: f64| bytes / f64::from(1 << 20);
        let (quantized, kept) = (self.quantized.len(), self.kept.len());
        writeln!(f, "{quantized} {} in int8, {kept} kept in f32", if quantized == 1 { "layer" } else { "layers" })?;
        for (layer, reason) in &self.kept {
            writeln!(f, "  {layer}: {reason}")?;
        }
        let ((calibration, held_out), (min, mean), ranges) = (self.items, self.cosine, self.calibration);
        writeln!(
            f,
            "calibrated on {calibration} items ({ranges}); cosine with f32 on {held_out} others: mean {mean:.5}, min {min:.5}"
        )?;
        let (before, after) = (megabytes(self.f32_bytes as f64), megabytes(self.bytes.len() as f64));
        writeln!(f, "{after:.1} MiB instead of {before:.1} MiB")
    }
}

/// Quantizes the network `file` with `items`, inputs of the network.
///
/// # Errors
/// Returns an error if the native kernels do not support the network, a layer to keep does not exist, there are fewer than two items, no
/// layer can be quantized, or the token is cancelled.
pub fn quantize(
    file: &Path,
    session: &SessionOptions,
    items: &[&[f32]],
    options: &Options,
    progress: &dyn ProgressSink,
    cancel: &CancellationToken,
) -> Result<QuantizedNetwork> {
    let plan = CalibrationPlan::open(file, session, options.include_winograd)?;
    if plan.has_slower_winograd() {
        let message = "convolutions that use Winograd's algorithm stay in f32; --include-winograd quantizes them too, \
                       which is faster on this processor";
        progress.report(Event::Info(message));
    }
    let model = Model::read(file)?;
    let names: Vec<String> = plan.layers().map(str::to_owned).collect();
    let layer_count = names.len();
    if let Some(unknown) = options.keep.iter().find(|name| !names.contains(name)) {
        let message = format!("no layer `{unknown}` that can be quantized; there are: {}", names.join(", "));
        return Err(Error::Weights { path: file.into(), message });
    }
    let is_held_out =
        |index: &usize| index % HELD_OUT == HELD_OUT - 1 || (items.len() < HELD_OUT && index + 1 == items.len());
    let select = |held_out: bool| -> Vec<&[f32]> {
        (0..items.len()).filter(|index| is_held_out(index) == held_out).map(|index| items[index]).collect()
    };
    let (calibration, held_out) = (select(false), select(true));
    if calibration.is_empty() || held_out.is_empty() {
        return Err(Error::Data("calibration needs at least two frames: name more clips with --clips".into()));
    }
    progress.report(Event::Info(&format!(
        "recording the inputs of {} layers on {} items",
        names.len(),
        calibration.len()
    )));
    let reference = plan.embeddings(&held_out, cancel)?;
    let statistics = plan.record(&calibration, cancel)?;
    let mut network = Network { plan, held_out, reference, layers: Vec::new(), kept: Vec::new() };
    for (index, (name, statistics)) in names.into_iter().zip(&statistics).enumerate() {
        cancel.check()?;
        if options.keep.contains(&name) {
            network.kept.push((name, "as requested by --keep".into()));
            continue;
        }
        if layer_count > 1 && model.is_first(&name) {
            network
                .kept
                .push((name, "the first layer: it computes little, and its error reaches every other layer".into()));
            continue;
        }
        let Some(layer) = model.layer(&name) else {
            network.kept.push((name, "its weight is not a constant of its own".into()));
            continue;
        };
        let scales = weights::scales(layer.weights.view());
        let mut integers = ndarray::Array3::zeros(layer.weights.dim());
        for ((tap, channel, output), integer) in integers.indexed_iter_mut() {
            *integer = weights::quantized(layer.weights[(tap, channel, output)], scales[output]);
        }
        let mut bias_correction = Vec::new();
        if layer.has_bias() {
            bias_correction = weights::bias_correction(layer.weights.view(), integers.view(), &scales, statistics);
        }
        let input = Calibration::default().quantization(statistics);
        let quantized = Quantized { integers, scales, input, bias_correction };
        let candidate = Candidate { name, index, layer, quantized };
        match network.replace(&candidate) {
            true => network.layers.push(candidate),
            false => network.kept.push((candidate.name, "it has too many inputs".into())),
        }
    }
    if network.layers.is_empty() {
        return Err(Error::Weights { path: file.into(), message: "no layer can be quantized".into() });
    }
    let chosen = network.calibrate(options.calibration, &statistics, cancel)?;
    network.keep_sensitive(options.min_cosine, progress, cancel)?;
    let (min, mean) = network.cosines(network.held_out.len(), cancel)?;
    let layers: Vec<(&Layer, &Quantized)> =
        network.layers.iter().map(|candidate| (&candidate.layer, &candidate.quantized)).collect();
    let quantized = network.layers.iter().map(|layer| (layer.name.clone(), layer.layer.description(&model))).collect();
    let mut bytes = model.write(&layers);
    let kept: Vec<&str> = network.kept.iter().map(|kept| kept.0.as_str()).collect();
    let properties = [
        (onnx::PRECISION_PROPERTY, "int8".into()),
        ("kinoprobe.source_sha256", external_data::model_sha256(file)?),
        ("kinoprobe.calibration", chosen.to_string()),
        ("kinoprobe.calibration_clips", options.clips.to_string()),
        ("kinoprobe.calibration_items", items.len().to_string()),
        ("kinoprobe.calibration_sha256", items_sha256(items)),
        ("kinoprobe.int8_layers", layers.len().to_string()),
        ("kinoprobe.f32_layers", kept.join(",")),
        ("kinoprobe.cosine_min", format!("{min:.6}")),
    ];
    let properties: BTreeMap<String, String> = properties.into_iter().map(|(key, value)| (key.into(), value)).collect();
    onnx::append_properties(&mut bytes, &properties);
    Ok(QuantizedNetwork {
        bytes,
        quantized,
        calibration: chosen,
        cosine: (min, mean),
        items: (calibration.len(), network.held_out.len()),
        kept: network.kept,
        f32_bytes: std::fs::metadata(file).map_err(Error::io(file))?.len(),
    })
}

/// A layer and its quantized form.
struct Candidate {
    name: String,
    /// Index of its probe.
    index: usize,
    layer: Layer,
    quantized: Quantized,
}

/// The network with its quantized layers.
struct Network<'a> {
    plan: CalibrationPlan,
    held_out: Vec<&'a [f32]>,
    /// Embeddings of the held-out items in f32.
    reference: Vec<Vec<f32>>,
    /// The layers that are quantized.
    layers: Vec<Candidate>,
    /// The layers that are not, with reasons.
    kept: Vec<(String, String)>,
}

impl Network<'_> {
    fn replace(&self, candidate: &Candidate) -> bool {
        let Quantized { integers, scales, input, bias_correction } = &candidate.quantized;
        self.plan.quantize(candidate.index, integers.view(), scales, *input, bias_correction)
    }

    /// Sets the ranges of all inputs, in the requested way or in the best one, and returns it.
    fn calibrate(
        &mut self,
        requested: Option<Calibration>,
        statistics: &[InputStatistics],
        cancel: &CancellationToken,
    ) -> Result<Calibration> {
        if let Some(requested) = requested {
            self.set_ranges(requested, statistics);
            return Ok(requested);
        }
        let mut best = (Calibration::default(), f64::NEG_INFINITY);
        for &calibration in Calibration::value_variants() {
            self.set_ranges(calibration, statistics);
            let (_, mean) = self.cosines(self.held_out.len(), cancel)?;
            if mean > best.1 {
                best = (calibration, mean);
            }
        }
        self.set_ranges(best.0, statistics);
        Ok(best.0)
    }

    /// Sets the ranges of all inputs.
    fn set_ranges(&mut self, calibration: Calibration, statistics: &[InputStatistics]) {
        for candidate in &mut self.layers {
            candidate.quantized.input = calibration.quantization(&statistics[candidate.index]);
        }
        self.layers.iter().for_each(|candidate| {
            self.replace(candidate);
        });
    }

    /// Returns the smallest and the mean cosine similarity of the first held-out embeddings with those in f32.
    fn cosines(&self, items: usize, cancel: &CancellationToken) -> Result<(f64, f64)> {
        let items = items.min(self.held_out.len());
        let embeddings = self.plan.embeddings(&self.held_out[..items], cancel)?;
        let cosines: Vec<f64> = embeddings.iter().zip(&self.reference).map(|(a, b)| cosine(a, b)).collect();
        let min = cosines.iter().copied().fold(f64::INFINITY, f64::min);
        Ok((min, cosines.iter().sum::<f64>() / cosines.len() as f64))
    }

    /// Restores the layers whose quantization changes the embedding most, until all held-out embeddings are similar enough.
    fn keep_sensitive(
        &mut self,
        min_cosine: f64,
        progress: &dyn ProgressSink,
        cancel: &CancellationToken,
    ) -> Result<()> {
        if self.cosines(self.held_out.len(), cancel)?.0 >= min_cosine {
            return Ok(());
        }
        progress.report(Event::Info(&format!("measuring the effect of {} layers on the embedding", self.layers.len())));
        self.layers.iter().for_each(|candidate| self.plan.restore(candidate.index));
        let mut sensitivity = Vec::with_capacity(self.layers.len());
        for candidate in &self.layers {
            self.replace(candidate);
            sensitivity.push(1.0 - self.cosines(SENSITIVITY_ITEMS, cancel)?.1);
            self.plan.restore(candidate.index);
        }
        self.layers.iter().for_each(|candidate| {
            self.replace(candidate);
        });
        let mut order: Vec<usize> = (0..self.layers.len()).collect();
        order.sort_by(|&a, &b| sensitivity[b].total_cmp(&sensitivity[a]));
        let mut restored = 0;
        // The number of layers grows by a quarter per step, so that a network of many layers takes few steps.
        while restored < order.len() && self.cosines(self.held_out.len(), cancel)?.0 < min_cosine {
            let next = (restored + 1 + restored / 4).min(order.len());
            order[restored..next].iter().for_each(|&index| self.plan.restore(self.layers[index].index));
            restored = next;
        }
        let kept = &order[..restored];
        for (index, candidate) in std::mem::take(&mut self.layers).into_iter().enumerate() {
            if kept.contains(&index) {
                let reason = format!("cosine {:.5} if only this layer is quantized", 1.0 - sensitivity[index]);
                self.kept.push((candidate.name, reason));
            } else {
                self.layers.push(candidate);
            }
        }
        Ok(())
    }
}

/// Returns the SHA-256 of the list of the items' SHA-256, one per line.
fn items_sha256(items: &[&[f32]]) -> String {
    let list: String = items.iter().map(|item| fetch::sha256(bytemuck::cast_slice(item)) + "\n").collect();
    fetch::sha256(list.as_bytes())
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[cfg(test)]
mod tests;
