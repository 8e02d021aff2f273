//! ONNX Runtime backend: CPU, CUDA, TensorRT.

use std::fmt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use ndarray::Array2;
use ort::environment::Environment;
use ort::ep::{CUDA, TensorRT};
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::builder::SessionBuilder;
use ort::session::{Session, SessionInputValue};
use ort::value::{Tensor, ValueType};

use super::device::Device;
use super::lane::{Items, Lane, SessionOptions, embeddings, is_embedding, shape_matches};
use super::{ffi, library};
use crate::error::{Error, Result};
use crate::models::Precision;
use crate::models::onnx::pixel_input::{original_name, with_pixel_input};

/// A session, which is the only lane of its own: `ort` considers concurrent runs of one session unsound.
struct SessionLane {
    session: Session,
    input: Input,
    /// Index of the output.
    output: usize,
    options: SessionOptions,
    copy_time: Duration,
}

/// The input of a session, filled before each run. That of a GPU is in pinned memory, which the GPU reads by itself.
enum Input {
    Floats(Tensor<f32>),
    Pixels(Tensor<u8>),
}

impl Lane for SessionLane {
    fn run(&mut self, items: Items<'_>) -> Result<Array2<f32>> {
        let Self { session, input, output, options, copy_time } = self;
        let failed = |e: ort::Error| run_error(&e.to_string());
        let count = items.count(options)?;
        let start = Instant::now();
        match (&mut *input, items) {
            (Input::Floats(tensor), Items::Floats(parts)) => concatenate(parts, tensor.extract_tensor_mut().1),
            (Input::Pixels(tensor), Items::Pixels(parts)) => concatenate(parts, tensor.extract_tensor_mut().1),
            _ => unreachable!("the kind of the items was checked"),
        }
        *copy_time += start.elapsed();
        let input: SessionInputValue<'_> = match input {
            Input::Floats(tensor) => (&*tensor).into(),
            Input::Pixels(tensor) => (&*tensor).into(),
        };
        let outputs = session.run([input]).map_err(failed)?;
        let (_, values) = outputs[*output].try_extract_tensor::<f32>().map_err(failed)?;
        embeddings(values, (options.batch, options.dim), count)
    }

    fn copy_time(&self) -> Duration {
        self.copy_time
    }
}

/// Copies the parts of a batch and completes it with zeros.
fn concatenate<T: Copy + Default>(parts: &[&[T]], batch: &mut [T]) {
    let mut rest = batch;
    for part in parts {
        let (target, remaining) = rest.split_at_mut(part.len());
        target.copy_from_slice(part);
        rest = remaining;
    }
    rest.fill(T::default());
}

/// Loads a network, on a GPU on that with number `gpu`; returns the names of its execution providers and its lane.
///
/// # Errors
/// Returns an error if the library is missing, the device cannot be used, or the network does not match `options`.
pub(super) fn load(onnx: &Path, device: Device, gpu: u32, options: &SessionOptions) -> Result<(String, Box<dyn Lane>)> {
    let environment = environment(device)?;
    let failed = |what: &str, error: &dyn fmt::Display| Error::Runtime(format!("device {device} {what}: {error}"));
    let builder = Session::builder(environment).map_err(|e| failed("cannot be used", &e))?;
    let builder = configure(builder, device, gpu, options).map_err(|e| failed("cannot be used", &e))?;
    let session =
        commit(builder, onnx, options)?.map_err(|e| failed(&format!("cannot load {}", onnx.display()), &e))?;
    let providers = ffi::assigned_providers(&session).map_err(|e| failed("does not report its providers", &e))?;
    let names: Vec<String> =
        providers.iter().map(|name| name.trim_end_matches("ExecutionProvider").to_lowercase()).collect();
    if !names.iter().any(|name| name == device.name()) {
        return Err(failed("was requested, but the network would run on", &names.join("+")));
    }
    let output = check_shapes(&session, onnx, options)?;
    let input = input(&session, device, gpu, options).map_err(|e| failed("cannot allocate the input", &e))?;
    let lane = SessionLane { session, input, output, options: options.clone(), copy_time: Duration::ZERO };
    Ok((names.join("+"), Box::new(lane)))
}

/// Loads the file. The outer error is that of the file, the inner one that of ONNX Runtime.
fn commit(mut builder: SessionBuilder, onnx: &Path, options: &SessionOptions) -> Result<ort::Result<Session>> {
    let Some(normalization) = &options.normalization else { return Ok(builder.commit_from_file(onnx)) };
    let file = std::fs::read(onnx).map_err(Error::io(onnx))?;
    let network = with_pixel_input(&file, normalization)
        .map_err(|message| Error::Weights { path: onnx.to_path_buf(), message })?;
    drop(file);
    // Tensors in other files are relative to the directory of this one.
    let directory = std::path::absolute(onnx).map_err(Error::io(onnx))?;
    let directory = directory.parent().unwrap_or(Path::new("/")).to_string_lossy().into_owned();
    let session = builder
        .with_config_entry("session.model_external_initializers_file_folder_path", &directory)
        .map_err(ort::Error::from)
        .and_then(|mut builder| builder.commit_from_memory(&network));
    Ok(session)
}

/// Allocates the input of a session.
fn input(session: &Session, device: Device, gpu: u32, options: &SessionOptions) -> ort::Result<Input> {
    let allocator = if device.gpus().is_some() {
        let (kind, memory) = (AllocatorType::Device, MemoryType::CPUInput);
        Allocator::new(session, MemoryInfo::new(AllocationDevice::CUDA_PINNED, gpu as i32, kind, memory)?)?
    } else {
        Allocator::default()
    };
    let shape = options.input_shape();
    Ok(match options.normalization {
        Some(_) => Input::Pixels(Tensor::new(&allocator, shape)?),
        None => Input::Floats(Tensor::new(&allocator, shape)?),
    })
}

/// Returns the error of a run that failed, with the remedy if memory was exhausted.
fn run_error(message: &str) -> Error {
    Error::Runtime(format!("inference failed: {message}"))
}

fn configure(
    builder: SessionBuilder,
    device: Device,
    gpu: u32,
    options: &SessionOptions,
) -> ort::Result<SessionBuilder> {
    let builder = builder
        .with_config_entry("session.record_ep_graph_assignment_info", "1")?
        // A fixed batch size lets providers plan memory.
        .with_dimension_override("batch", options.batch as i64)?
        .with_intra_threads(options.threads)?
        // Spinning threads would compete with the decoders for cores.
        .with_intra_op_spinning(false)?;
    let tf32 = options.precision != Precision::F32;
    let cuda = || CUDA::default().with_device_id(gpu as i32).with_tf32(tf32).build().error_on_failure();
    let tensorrt = || TensorRT::default().with_device_id(gpu as i32).build().error_on_failure();
    Ok(match device {
        Device::Cuda(_) => builder.with_execution_providers([cuda()])?,
        Device::TensorRt(_) => builder.with_execution_providers([tensorrt(), cuda()])?,
        Device::Auto | Device::Native | Device::Cpu | Device::OpenVino => builder,
    })
}

/// Checks input and output against the card; returns the index of the output.
fn check_shapes(session: &Session, onnx: &Path, options: &SessionOptions) -> Result<usize> {
    let mismatch = |message: String| Error::Weights { path: onnx.to_path_buf(), message };
    let [input] = session.inputs() else {
        return Err(mismatch(format!("expected exactly one input, found {}", session.inputs().len())));
    };
    match input.dtype() {
        ValueType::Tensor { shape, .. } if shape_matches(shape, &options.input_shape()) => {}
        other => {
            let (name, expected) = (original_name(input.name()), options.input_shape());
            let declared = match other {
                ValueType::Tensor { shape, .. } => format!("{shape:?}"),
                other => other.to_string(),
            };
            return Err(mismatch(format!("input `{name}` is {declared}, but the card declares f32 {expected:?}")));
        }
    }
    let outputs = session.outputs();
    let index = match &options.output {
        None if outputs.len() == 1 => 0,
        None => {
            let names: Vec<_> = outputs.iter().map(|output| output.name()).collect();
            return Err(mismatch(format!(
                "it has {} outputs ({}): name one in its card, [output] name",
                names.len(),
                names.join(", ")
            )));
        }
        Some(name) => (outputs.iter().position(|output| output.name() == name))
            .ok_or_else(|| mismatch(format!("it has no output `{name}`")))?,
    };
    match outputs[index].dtype() {
        ValueType::Tensor { shape, .. } if is_embedding(shape, options.dim) => Ok(index),
        other => {
            let name = outputs[index].name();
            let dim = options.dim;
            Err(mismatch(format!("output `{name}` is {other}, but the card declares f32 [batch, {dim}]")))
        }
    }
}

/// Returns the environment of the process. The first call decides which library is loaded.
fn environment(device: Device) -> Result<&'static Environment> {
    static ENVIRONMENT: OnceLock<Result<Environment, String>> = OnceLock::new();
    let path = match device {
        Device::Cuda(_) | Device::TensorRt(_) => {
            library::require("onnxruntime-gpu", "libonnxruntime.so", "run `make setup DEVICE=cuda`")?
        }
        _ => library::require("onnxruntime", "libonnxruntime.so", "run `make setup`")?,
    };
    let result = ENVIRONMENT.get_or_init(|| {
        // For its errors: those of `init_from` do not say why.
        library::load(&path).map_err(|e| format!("ONNX Runtime cannot be loaded: {e}"))?;
        let builder = ort::init_from(&path).map_err(|e| format!("{} cannot be loaded: {e}", path.display()))?;
        let environment = builder.with_name("kinoprobe").with_telemetry(false).build().map_err(|e| e.to_string())?;
        environment.set_log_level(ort::logging::LogLevel::Error);
        Ok(environment)
    });
    result.as_ref().map_err(|message| Error::Runtime(message.clone()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::models::onnx;

    #[test]
    fn onnx_runtime_reads_appended_properties() {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/models/tiny.onnx");
        let mut bytes = std::fs::read(&fixture).unwrap();
        let properties = [("classes", r#"["café","b"]"#), ("task", "single-label"), ("empty", "")];
        let properties: BTreeMap<String, String> =
            properties.map(|(key, value)| (key.to_string(), value.to_string())).into();
        onnx::append_properties(&mut bytes, &properties);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("network.onnx");
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(onnx::read_properties(&path).unwrap(), properties);
        assert_eq!(onnx::read_properties(&fixture).unwrap(), BTreeMap::new());
        let session = Session::builder(environment(Device::Cpu).unwrap()).unwrap().commit_from_file(&path).unwrap();
        let metadata = session.metadata().unwrap();
        for (key, value) in &properties {
            assert_eq!(metadata.custom(key).as_ref(), Some(value));
        }
    }
}
