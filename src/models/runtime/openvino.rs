//! Networks on OpenVINO's CPU device.

use std::path::Path;

use ndarray::Array2;
use openvino::{
    Core, DeviceType, ElementType, InferRequest, InferenceError, PartialShape, RwPropertyKey, Shape, Tensor,
};

use super::{Lane, Settings, admits, embeddings, is_embedding, required_library};
use crate::error::{Error, Result};

/// Lanes beyond this add memory for activations and hardly any speed.
const MOST_LANES: usize = 8;

/// One infer request of a compiled network: requests run side by side, one a stream.
struct RequestLane {
    request: InferRequest,
    input: Tensor,
    output: usize,
    settings: Settings,
}

impl Lane for RequestLane {
    fn run(&mut self, items: &[f32]) -> Result<Array2<f32>> {
        let failed = |e: InferenceError| Error::Runtime(format!("the network failed: {e}"));
        self.input.get_data_mut::<f32>().map_err(failed)?.copy_from_slice(items);
        self.request.infer().map_err(failed)?;
        let output = self.request.get_output_tensor_by_index(self.output).map_err(failed)?;
        embeddings(output.get_data::<f32>().map_err(failed)?, &self.settings)
    }
}

pub(super) fn load(onnx: &Path, settings: &Settings) -> Result<(String, Vec<Box<dyn Lane>>)> {
    let path = required_library("openvino", "libopenvino_c.so", "run `make setup` (x86), or use --device cpu")?;
    let unusable = |e: &dyn std::fmt::Display| Error::Runtime(format!("device openvino cannot be used: {e}"));
    let wrong = |message: String| Error::Weights { path: onnx.to_path_buf(), message };
    openvino_sys::library::load_from(path).map_err(|e| unusable(&e))?;
    let mut core = Core::new().map_err(|e| unusable(&e))?;

    let name = onnx.to_str().ok_or_else(|| wrong("its path is not UTF-8".into()))?;
    std::fs::metadata(onnx).map_err(Error::io(onnx))?;
    let mut model = core.read_model_from_file(name, "").map_err(|e| wrong(format!("OpenVINO cannot read it: {e}")))?;
    let inputs = model.get_inputs_len().map_err(|e| unusable(&e))?;
    if inputs != 1 {
        return Err(wrong(format!("a network needs exactly one input, this one has {inputs}")));
    }
    let input = model.get_input_by_index(0).and_then(|node| node.get_partial_shape()).map_err(|e| unusable(&e))?;
    let declared = axes(&input);
    if !admits(&declared, &settings.input_shape()) {
        return Err(wrong(format!("its input is {declared:?}, the card states f32 {:?}", settings.input_shape())));
    }
    let shape: Vec<i64> = settings.input_shape().iter().map(|&axis| axis as i64).collect();
    let refused = |e: InferenceError| wrong(format!("its input does not take the card's f32 {shape:?}: {e}"));
    // A fixed shape lets OpenVINO plan its memory once.
    let fixed = PartialShape::new_static(shape.len() as i64, &shape).map_err(refused)?;
    model.reshape_single_input(&fixed).map_err(refused)?;
    let output = find_output(&model, onnx, settings)?;

    let lanes = settings.threads.clamp(1, MOST_LANES);
    for (key, value) in [
        (RwPropertyKey::HintInferencePrecision, settings.precision.to_string()),
        (RwPropertyKey::NumStreams, lanes.to_string()),
        (RwPropertyKey::InferenceNumThreads, settings.threads.max(1).to_string()),
        // Pinned streams share cores with the decoders, or with each other.
        (RwPropertyKey::HintEnableCpuPinning, "NO".to_string()),
    ] {
        core.set_property(&DeviceType::CPU, &key, &value).map_err(|e| unusable(&e))?;
    }
    let mut compiled = core.compile_model(&model, DeviceType::CPU).map_err(|e| unusable(&e))?;
    let lane = |compiled: &mut openvino::CompiledModel| -> Result<Box<dyn Lane>, InferenceError> {
        let mut request = compiled.create_infer_request()?;
        let input = Tensor::new(ElementType::F32, &Shape::new(&shape)?)?;
        request.set_input_tensor(&input)?;
        Ok(Box::new(RequestLane { request, input, output, settings: settings.clone() }))
    };
    let lanes = (0..lanes).map(|_| lane(&mut compiled)).collect::<Result<_, _>>().map_err(refused)?;
    Ok(("openvino".into(), lanes))
}

/// The index of the output that the card means.
fn find_output(model: &openvino::Model, onnx: &Path, settings: &Settings) -> Result<usize> {
    let wrong = |message: String| Error::Weights { path: onnx.to_path_buf(), message };
    let unreadable = |e: InferenceError| wrong(format!("OpenVINO cannot read its outputs: {e}"));
    let count = model.get_outputs_len().map_err(unreadable)?;
    let mut names = Vec::with_capacity(count);
    for index in 0..count {
        names.push(model.get_output_by_index(index).and_then(|node| node.get_name()).map_err(unreadable)?);
    }
    let index = match &settings.output {
        None if count == 1 => 0,
        None => {
            return Err(wrong(format!(
                "it has several outputs, {}: name one in its card, [output] name",
                names.join(", ")
            )));
        }
        Some(name) => {
            names.iter().position(|known| known == name).ok_or_else(|| wrong(format!("it has no output `{name}`")))?
        }
    };
    let node = model.get_output_by_index(index).map_err(unreadable)?;
    let shape = node.get_partial_shape().map_err(unreadable)?;
    let declared = axes(&shape);
    if is_embedding(&declared, settings.dim) {
        Ok(index)
    } else {
        Err(wrong(format!(
            "its output `{}` is {declared:?}, the card states f32 [batch, {}]",
            names[index], settings.dim
        )))
    }
}

/// The axes of a shape, -1 where one is not fixed.
fn axes(shape: &PartialShape) -> Vec<i64> {
    shape.get_dimensions().iter().map(|axis| if axis.is_dynamic() { -1 } else { axis.get_max() }).collect()
}
