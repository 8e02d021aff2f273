//! Quantized layers, written as QuantizeLinear and DequantizeLinear around their operands (QDQ), and probes of the layers that can be
//! quantized.

use std::sync::Arc;

use ndarray::ArrayView3;

use super::super::int8::{InputQuantization, MAX_WEIGHT, QuantizedMatrix};
use super::super::onnx_reader::Initializer;
use super::super::packed::PackedWeights;
use super::super::probe::Probe;
use super::super::step::{PlanError, PlanResult, unsupported};
use super::node::{attribute, input, ints, optional_input, output};
use super::{LayerProbe, PlanBuilder};
use crate::models::onnx::proto::NodeProto;

/// An activation that was quantized, and possibly dequantized again.
#[derive(Debug, Clone)]
pub(super) struct QuantizedActivation {
    /// Name of the original activation.
    source: String,
    quantization: InputQuantization,
    /// Number of times that each name in between is read is 1.
    only_reader: bool,
    is_dequantized: bool,
}

/// Weights that DequantizeLinear reads.
#[derive(Debug, Clone)]
pub(super) struct QuantizedWeight<'a> {
    tensor: &'a Initializer,
    axis: usize,
    scales: Vec<f32>,
}

/// The operands of a layer.
pub(super) struct LayerOperands<'a> {
    /// Name of the activation.
    pub activation: String,
    /// `true` if nothing else reads the activation.
    pub only_reader: bool,
    /// Shape of the weight.
    pub shape: &'a [usize],
    pub weight: LayerWeight<'a>,
}

/// The weight of a layer.
pub(super) enum LayerWeight<'a> {
    F32(&'a Initializer),
    Int8(QuantizedWeight<'a>, InputQuantization),
}

impl<'a> PlanBuilder<'a> {
    /// Adds a QuantizeLinear of an activation: nothing is computed before a layer reads it.
    pub(super) fn add_quantize(&mut self, node: &NodeProto) -> PlanResult<()> {
        let name = input(node, 0)?;
        self.tensor(name, None)?;
        let Some(quantization) = self.input_quantization(node) else {
            return unsupported("operator QuantizeLinear other than to u8 with one scale");
        };
        let activation = QuantizedActivation {
            source: name.into(),
            quantization,
            only_reader: self.is_read_once(name),
            is_dequantized: false,
        };
        self.quantized.insert(output(node)?.into(), activation);
        Ok(())
    }

    /// Adds a DequantizeLinear of a quantized activation or of a constant weight.
    pub(super) fn add_dequantize(&mut self, node: &NodeProto) -> PlanResult<()> {
        let name = input(node, 0)?;
        if let Some(activation) = self.quantized.get(name) {
            if activation.is_dequantized || self.input_quantization(node) != Some(activation.quantization) {
                return unsupported("operator DequantizeLinear with another scale than its QuantizeLinear");
            }
            let only_reader = activation.only_reader && self.is_read_once(name);
            let activation = QuantizedActivation { only_reader, is_dequantized: true, ..activation.clone() };
            self.quantized.insert(output(node)?.into(), activation);
            return Ok(());
        }
        let weight = self.quantized_weight(node)?;
        self.quantized_weights.insert(output(node)?.into(), weight);
        Ok(())
    }

    fn is_read_once(&self, name: &str) -> bool {
        self.readers.get(name) == Some(&1)
    }

    /// Returns the scale and the zero point of a node; `None` unless they are a positive scalar and a u8.
    fn input_quantization(&self, node: &NodeProto) -> Option<InputQuantization> {
        let scale = self.scalar(optional_input(node, 1)?)?;
        let zero_point = self.graph.bytes.get(optional_input(node, 2)?)?;
        if zero_point.len() != 1 || zero_point.is_i8() || attribute(node, "block_size").is_some() {
            return None;
        }
        let zero_point = self.graph.read_bytes(zero_point).ok()?[0];
        let is_valid = scale > 0.0 && scale.is_finite() && scale.recip().is_finite();
        is_valid.then_some(InputQuantization { scale, zero_point })
    }

    fn quantized_weight(&self, node: &NodeProto) -> PlanResult<QuantizedWeight<'a>> {
        let other =
            || unsupported("operator DequantizeLinear other than of an i8 weight with one scale per output channel");
        let Some(tensor) = self.graph.bytes.get(input(node, 0)?).filter(|tensor| tensor.is_i8()) else {
            return other();
        };
        let scales = self.initializer(input(node, 1)?)?;
        let axis = ints(node, "axis").first().copied().unwrap_or(1);
        let Some(axis) = usize::try_from(axis).ok().filter(|&axis| tensor.shape.get(axis) == Some(&scales.len()))
        else {
            return other();
        };
        if attribute(node, "block_size").is_some() {
            return other();
        }
        if let Some(name) = optional_input(node, 2) {
            let zeros = self.graph.bytes.get(name).map(|zeros| self.graph.read_bytes(zeros)).transpose();
            if zeros.map_err(PlanError::Read)?.is_none_or(|zeros| zeros.iter().any(|&zero| zero != 0)) {
                return other();
            }
        }
        Ok(QuantizedWeight { tensor, axis, scales: self.read(scales)? })
    }

    /// Returns the operands of a Conv or MatMul, both in f32 or both quantized.
    pub(super) fn operands(&self, node: &NodeProto) -> PlanResult<LayerOperands<'a>> {
        let (activation, weight) = (input(node, 0)?, input(node, 1)?);
        match (self.quantized.get(activation), self.quantized_weights.get(weight)) {
            (None, None) => {
                let tensor = self.initializer(weight)?;
                let (activation, only_reader) = (activation.into(), self.is_read_once(activation));
                Ok(LayerOperands { activation, only_reader, shape: &tensor.shape, weight: LayerWeight::F32(tensor) })
            }
            (Some(quantized), Some(weight)) if quantized.is_dequantized => Ok(LayerOperands {
                activation: quantized.source.clone(),
                only_reader: quantized.only_reader && self.is_read_once(activation),
                shape: &weight.tensor.shape,
                weight: LayerWeight::Int8(weight.clone(), quantized.quantization),
            }),
            _ => unsupported(format!("operator {} of which one operand is quantized", node.op_type)),
        }
    }

    /// Packs a quantized weight, whose output channels are on `axis` of its shape. `view` converts its values to (taps, input channels,
    /// output channels), which are padded to `padded` (inputs, outputs).
    pub(super) fn pack_quantized(
        &self,
        weight: &QuantizedWeight<'a>,
        input: InputQuantization,
        axis: usize,
        padded: (usize, usize),
        view: impl for<'v> Fn(&'v [i8]) -> ArrayView3<'v, i8>,
    ) -> PlanResult<PackedWeights> {
        if weight.axis != axis {
            return unsupported("a quantized weight with scales of another axis than the output channels");
        }
        let bytes = self.graph.read_bytes(weight.tensor).map_err(PlanError::Read)?;
        let values: &[i8] = bytemuck::cast_slice(&bytes);
        if values.iter().any(|value| value.unsigned_abs() > MAX_WEIGHT.unsigned_abs()) {
            return unsupported(format!("a quantized weight greater than {MAX_WEIGHT}"));
        }
        match QuantizedMatrix::new(view(values), padded, &weight.scales, input, self.target.isa) {
            Some(matrix) => Ok(PackedWeights::quantized(matrix)),
            None => unsupported("a quantized layer with too many inputs"),
        }
    }

    /// Adds a probe to a matrix product that computes the output `layer`, if this plan is for a calibration.
    pub(super) fn probe(&mut self, layer: &str, packed: PackedWeights) -> PackedWeights {
        let Some(probes) = &mut self.probes else { return packed };
        let (inputs, outputs) = packed.dim();
        let probe = Arc::new(Probe::new(inputs));
        probes.push(LayerProbe { layer: layer.into(), padded_outputs: outputs, probe: probe.clone() });
        packed.with_probe(probe)
    }
}
