//! OpenVINO backend on the CPU.

use std::path::Path;
use std::time::{Duration, Instant};

use ndarray::Array2;
use openvino::{
    Core, DeviceType, ElementType, InferRequest, InferenceError, PartialShape, RwPropertyKey, Shape, Tensor,
};

use super::lane::{FloatInput, Items, Lane, SessionOptions, embeddings, is_embedding, shape_matches};
use super::library;
use crate::error::{Error, Result};

/// More lanes would need memory for activations and bring hardly any speed.
const MAX_LANES: usize = 8;

/// One inference request of a compiled model; requests run concurrently, one per stream.
struct RequestLane {
    request: InferRequest,
    input: Tensor,
    floats: FloatInput,
    copy_time: Duration,
    /// Index of the output.
    output: usize,
    options: SessionOptions,
}

impl Lane for RequestLane {
    fn run(&mut self, items: Items<'_>) -> Result<Array2<f32>> {
        let failed = |e: InferenceError| Error::Runtime(format!("inference failed: {e}"));
        let count = items.count(&self.options)?;
        let start = Instant::now();
        self.floats.write(items, self.input.get_data_mut::<f32>().map_err(failed)?);
        self.copy_time += start.elapsed();
        self.request.infer().map_err(failed)?;
        let output = self.request.get_output_tensor_by_index(self.output).map_err(failed)?;
        embeddings(output.get_data::<f32>().map_err(failed)?, (self.options.batch, self.options.dim), count)
    }

    fn copy_time(&self) -> Duration {
        self.copy_time
    }
}

/// Loads a network; returns the provider's name and the lanes.
///
/// # Errors
/// Returns an error if the library is missing, the device cannot be used, or the network does not match `options`.
pub(super) fn load(onnx: &Path, options: &SessionOptions) -> Result<(String, Vec<Box<dyn Lane>>)> {
    let path = library::require("openvino", "libopenvino_c.so", "run `make setup` (x86), or use --device cpu")?;
    let unusable = |e: &dyn std::fmt::Display| Error::Runtime(format!("device openvino cannot be used: {e}"));
    let mismatch = |message: String| Error::Weights { path: onnx.to_path_buf(), message };
    openvino_sys::library::load_from(path).map_err(|e| unusable(&e))?;
    let mut core = Core::new().map_err(|e| unusable(&e))?;

    let name = onnx.to_str().ok_or_else(|| mismatch("the path is not UTF-8".into()))?;
    std::fs::metadata(onnx).map_err(Error::io(onnx))?;
    let mut model =
        core.read_model_from_file(name, "").map_err(|e| mismatch(format!("OpenVINO cannot read it: {e}")))?;
    let inputs = model.get_inputs_len().map_err(|e| unusable(&e))?;
    if inputs != 1 {
        return Err(mismatch(format!("expected exactly one input, found {inputs}")));
    }
    let input = model.get_input_by_index(0).and_then(|node| node.get_partial_shape()).map_err(|e| unusable(&e))?;
    let declared = axes(&input);
    let expected = options.input_shape();
    if !shape_matches(&declared, &expected) {
        return Err(mismatch(format!("input is {declared:?}, but the card declares f32 {expected:?}")));
    }
    let shape: Vec<i64> = expected.iter().map(|&axis| axis as i64).collect();
    let rejected = |e: InferenceError| mismatch(format!("input rejects the card's f32 {shape:?}: {e}"));
    // A fixed shape lets OpenVINO plan memory once.
    let static_shape = PartialShape::new_static(shape.len() as i64, &shape).map_err(rejected)?;
    model.reshape_single_input(&static_shape).map_err(rejected)?;
    let output = find_output(&model, onnx, options)?;

    let lanes = options.threads.clamp(1, MAX_LANES);
    for (key, value) in [
        (RwPropertyKey::HintInferencePrecision, "f32".to_string()),
        (RwPropertyKey::NumStreams, lanes.to_string()),
        (RwPropertyKey::InferenceNumThreads, options.threads.max(1).to_string()),
        // Pinned streams would share cores with the decoders or with each other.
        (RwPropertyKey::HintEnableCpuPinning, "NO".to_string()),
    ] {
        core.set_property(&DeviceType::CPU, &key, &value).map_err(|e| unusable(&e))?;
    }
    let mut compiled = core.compile_model(&model, DeviceType::CPU).map_err(|e| unusable(&e))?;
    let lane = |compiled: &mut openvino::CompiledModel| -> Result<Box<dyn Lane>, InferenceError> {
        let mut request = compiled.create_infer_request()?;
        let input = Tensor::new(ElementType::F32, &Shape::new(&shape)?)?;
        request.set_input_tensor(&input)?;
        let (floats, copy_time) = (FloatInput::new(options), Duration::ZERO);
        Ok(Box::new(RequestLane { request, input, floats, copy_time, output, options: options.clone() }))
    };
    let lanes = (0..lanes).map(|_| lane(&mut compiled)).collect::<Result<_, _>>().map_err(rejected)?;
    Ok(("openvino".into(), lanes))
}

/// Returns the index of the output that the card selects, or of the only one.
fn find_output(model: &openvino::Model, onnx: &Path, options: &SessionOptions) -> Result<usize> {
    let mismatch = |message: String| Error::Weights { path: onnx.to_path_buf(), message };
    let unreadable = |e: InferenceError| mismatch(format!("OpenVINO cannot read its outputs: {e}"));
    let count = model.get_outputs_len().map_err(unreadable)?;
    let mut names = Vec::with_capacity(count);
    for index in 0..count {
        names.push(model.get_output_by_index(index).and_then(|node| node.get_name()).map_err(unreadable)?);
    }
    let index = match &options.output {
        None if count == 1 => 0,
        None => {
            return Err(mismatch(format!(
                "it has {count} outputs ({}): name one in its card, [output] name",
                names.join(", ")
            )));
        }
        Some(name) => names
            .iter()
            .position(|known| known == name)
            .ok_or_else(|| mismatch(format!("it has no output `{name}`")))?,
    };
    let node = model.get_output_by_index(index).map_err(unreadable)?;
    let shape = node.get_partial_shape().map_err(unreadable)?;
    let declared = axes(&shape);
    if is_embedding(&declared, options.dim) {
        Ok(index)
    } else {
        Err(mismatch(format!(
            "output `{}` is {declared:?}, but the card declares f32 [batch, {}]",
            names[index], options.dim
        )))
    }
}

/// Returns the axes of a shape; -1 for a dynamic axis.
fn axes(shape: &PartialShape) -> Vec<i64> {
    shape.get_dimensions().iter().map(|axis| if axis.is_dynamic() { -1 } else { axis.get_max() }).collect()
}
