//! ONNX Runtime backend: CPU, CUDA, TensorRT.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use ndarray::{Array2, Axis};
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

/// Number of lanes on a GPU: while one computes, the input of the other is copied. Each is a session with its own copy of the weights.
const LANES_PER_GPU: usize = 2;

/// A lane of its own session: `ort` considers concurrent runs of one session unsound.
struct SessionLane {
    /// `None` only while it is loaded again with a smaller batch, and if that failed.
    network: Option<Network>,
    onnx: PathBuf,
    device: Device,
    gpu: u32,
    options: SessionOptions,
    copy_time: Duration,
    warning: Option<String>,
}

/// A loaded network.
struct Network {
    session: Session,
    /// Names of its execution providers.
    provider: String,
    input: Input,
    /// Index of the output.
    output: usize,
    /// Those of the lane, with a smaller batch if memory was exhausted.
    options: SessionOptions,
}

/// The input of a session, filled before each run. That of a GPU is in pinned memory, which the GPU reads by itself.
enum Input {
    Floats(Tensor<f32>),
    Pixels(Tensor<u8>),
}

impl SessionLane {
    fn load(onnx: &Path, device: Device, gpu: u32, options: &SessionOptions) -> Result<Self> {
        let network = Some(Network::load(onnx, device, gpu, options)?);
        let (onnx, options) = (onnx.to_path_buf(), options.clone());
        Ok(Self { network, onnx, device, gpu, options, copy_time: Duration::ZERO, warning: None })
    }

    /// Calls `run` until the memory of the device suffices, with half of the batch each time.
    fn with_enough_memory<T>(&mut self, mut run: impl FnMut(&mut Network, &mut Duration) -> Result<T>) -> Result<T> {
        loop {
            let Some(network) = &mut self.network else {
                return Err(Error::Runtime(format!("the network is no longer loaded on device {}", self.device)));
            };
            let batch = network.options.batch;
            match run(network, &mut self.copy_time) {
                Err(error) if is_out_of_memory(&error) && batch > 1 => self.load_with_batch(batch / 2)?,
                result => return result,
            }
        }
    }

    /// Loads the network again with a smaller batch. The memory of the present one is released before.
    fn load_with_batch(&mut self, batch: usize) -> Result<()> {
        let before = self.network.take().map_or(0, |network| network.options.batch);
        let options = SessionOptions { batch, ..self.options.clone() };
        self.network = Some(Network::load(&self.onnx, self.device, self.gpu, &options)?);
        self.warning = Some(format!(
            "the memory of device {} is exhausted with {before} items per batch: going on with {batch} (--batch {batch})",
            self.device
        ));
        Ok(())
    }
}

impl Lane for SessionLane {
    fn run(&mut self, items: Items<'_>) -> Result<Array2<f32>> {
        items.count(&self.options)?;
        let item_len = self.options.item_len();
        self.with_enough_memory(|network, copy_time| {
            let batch = network.options.batch;
            match items {
                Items::Floats(parts) => {
                    in_batches(parts, item_len, batch, |parts| network.run(Items::Floats(parts), copy_time))
                }
                Items::Pixels(parts) => {
                    in_batches(parts, item_len, batch, |parts| network.run(Items::Pixels(parts), copy_time))
                }
            }
        })
    }

    fn copy_time(&self) -> Duration {
        self.copy_time
    }

    fn take_warning(&mut self) -> Option<String> {
        self.warning.take()
    }
}

impl Network {
    /// Runs at most a batch, and adds the time of copying it.
    fn run(&mut self, items: Items<'_>, copy_time: &mut Duration) -> Result<Array2<f32>> {
        let count = items.count(&self.options)?;
        let start = Instant::now();
        match (&mut self.input, items) {
            (Input::Floats(tensor), Items::Floats(parts)) => concatenate(parts, tensor.extract_tensor_mut().1),
            (Input::Pixels(tensor), Items::Pixels(parts)) => concatenate(parts, tensor.extract_tensor_mut().1),
            _ => unreachable!("`count` has checked the kind of the items"),
        }
        *copy_time += start.elapsed();
        let shape = (self.options.batch, self.options.dim);
        self.infer(|values| embeddings(values, shape, count))
    }

    /// Runs a batch of zeros, whatever the result.
    fn run_zeros(&mut self) -> Result<()> {
        match &mut self.input {
            Input::Floats(tensor) => tensor.extract_tensor_mut().1.fill(0.0),
            Input::Pixels(tensor) => tensor.extract_tensor_mut().1.fill(0),
        }
        self.infer(|_| Ok(()))
    }

    /// Runs the network on its input and passes its output to `read`.
    fn infer<T>(&mut self, read: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
        let failed = |e: ort::Error| Error::Runtime(format!("inference failed: {e}"));
        let input: SessionInputValue<'_> = match &self.input {
            Input::Floats(tensor) => tensor.into(),
            Input::Pixels(tensor) => tensor.into(),
        };
        let outputs = self.session.run([input]).map_err(failed)?;
        read(outputs[self.output].try_extract_tensor::<f32>().map_err(failed)?.1)
    }
}

/// Runs the parts of a batch, at most `batch` items at a time, and concatenates the rows.
fn in_batches<T>(
    parts: &[&[T]],
    item_len: usize,
    batch: usize,
    mut run: impl FnMut(&[&[T]]) -> Result<Array2<f32>>,
) -> Result<Array2<f32>> {
    if parts.iter().map(|part| part.len()).sum::<usize>() <= batch * item_len {
        return run(parts);
    }
    let items: Vec<&[T]> = parts.iter().flat_map(|part| part.chunks_exact(item_len)).collect();
    let rows = items.chunks(batch).map(run).collect::<Result<Vec<_>>>()?;
    let rows: Vec<_> = rows.iter().map(Array2::view).collect();
    ndarray::concatenate(Axis(0), &rows).map_err(|e| Error::Runtime(e.to_string()))
}

/// Returns `true` if a run failed because the memory of the device is exhausted. ONNX Runtime has no code for it.
fn is_out_of_memory(error: &Error) -> bool {
    let message = error.to_string().to_lowercase();
    ["out of memory", "failed to allocate memory", "alloc_failed", "error_alloc"]
        .iter()
        .any(|text| message.contains(text))
}

/// Copies the parts of a batch and completes it with zeros.
fn concatenate<T: Copy + Default>(parts: &[&[T]], batch: &mut [T]) {
    let mut len = 0;
    for part in parts {
        batch[len..][..part.len()].copy_from_slice(part);
        len += part.len();
    }
    batch[len..].fill(T::default());
}

/// Loads a network; returns the names of its execution providers and its lanes: one on the CPU, two on each GPU.
///
/// # Errors
/// Returns an error if the library is missing, the device cannot be used, or the network does not match `options`.
pub(super) fn load(
    onnx: &Path,
    device: Device,
    gpus: &[u32],
    options: &SessionOptions,
) -> Result<(String, Vec<Box<dyn Lane>>)> {
    let on_gpu = device.gpus().is_some();
    let load = |gpu: u32| {
        let mut lane = SessionLane::load(onnx, device, gpu, options)?;
        if on_gpu {
            // The first run initializes cuDNN and selects algorithms.
            lane.with_enough_memory(|network, _| network.run_zeros())?;
        }
        Ok(lane)
    };
    let gpus: Vec<u32> =
        gpus.iter().flat_map(|&gpu| std::iter::repeat_n(gpu, if on_gpu { LANES_PER_GPU } else { 1 })).collect();
    let lanes: Vec<SessionLane> = if matches!(device, Device::Cuda(_)) {
        std::thread::scope(|scope| {
            let threads: Vec<_> = gpus.iter().map(|&gpu| scope.spawn(move || load(gpu))).collect();
            threads.into_iter().map(|thread| thread.join().expect("loading does not panic")).collect::<Result<_>>()
        })?
    } else {
        // TensorRT builds an engine for the first lane, which the others find in the cache.
        gpus.iter().map(|&gpu| load(gpu)).collect::<Result<_>>()?
    };
    let providers = lanes.iter().filter_map(|lane| Some((lane.gpu, lane.network.as_ref()?.provider.as_str())));
    let provider = same_provider(providers)?.to_string();
    Ok((provider, lanes.into_iter().map(|lane| Box::new(lane) as Box<dyn Lane>).collect()))
}

/// Returns the provider of all lanes, which are given with their GPUs. It does not tell how many GPUs there are: results do not depend on it.
fn same_provider<'a>(lanes: impl IntoIterator<Item = (u32, &'a str)>) -> Result<&'a str> {
    let mut lanes = lanes.into_iter();
    let (first, provider) = lanes.next().expect("there is at least one lane");
    match lanes.find(|(_, other)| *other != provider) {
        None => Ok(provider),
        Some((gpu, other)) => Err(Error::Runtime(format!(
            "the network would run on {provider} on GPU {first}, but on {other} on GPU {gpu}"
        ))),
    }
}

/// Measures how long a GPU takes to load a network and to run a batch: `next` receives the results so far, (batch size, seconds), and
/// returns the next size, or `None` to end. The time to load is the shortest, and includes the first run.
///
/// # Errors
/// Returns an error as [`load`] does. Exhausted memory ends the measurement, unless it is the first.
pub(super) fn measure(
    onnx: &Path,
    device: Device,
    gpu: u32,
    options: &SessionOptions,
    next: impl Fn(&[(usize, f64)]) -> Option<usize>,
) -> Result<(f64, Vec<(usize, f64)>)> {
    let (mut load_seconds, mut runs) = (f64::INFINITY, Vec::new());
    while let Some(batch) = next(&runs) {
        let measured = || {
            let start = Instant::now();
            let options = SessionOptions { batch, ..options.clone() };
            let mut network = Network::load(onnx, device, gpu, &options)?;
            network.run_zeros()?;
            let (load, start) = (start.elapsed(), Instant::now());
            network.run_zeros()?;
            Ok((load.as_secs_f64(), start.elapsed().as_secs_f64()))
        };
        match measured() {
            Ok((load, seconds)) => {
                load_seconds = load_seconds.min(load);
                runs.push((batch, seconds));
            }
            Err(error) if is_out_of_memory(&error) && !runs.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok((load_seconds, runs))
}

impl Network {
    fn load(onnx: &Path, device: Device, gpu: u32, options: &SessionOptions) -> Result<Self> {
        let environment = environment(device)?;
        let failed = |what: &str, error: &dyn fmt::Display| Error::Runtime(format!("device {device} {what}: {error}"));
        let builder = Session::builder(environment).map_err(|e| failed("cannot be used", &e))?;
        let builder = configure(builder, onnx, device, gpu, options).map_err(|e| failed("cannot be used", &e))?;
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
        Ok(Self { session, provider: names.join("+"), input, output, options: options.clone() })
    }
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

fn configure(
    builder: SessionBuilder,
    onnx: &Path,
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
    let tensorrt = || {
        // Building an engine takes minutes. ONNX Runtime adds hashes of the network and names of the GPU to the prefix.
        let engines = onnx.parent().unwrap_or(Path::new("")).join("tensorrt").display().to_string();
        let stem = onnx.file_stem().unwrap_or_default().to_string_lossy();
        let precision = if options.precision == Precision::Fp16 { "fp16" } else { "tf32" };
        TensorRT::default()
            .with_device_id(gpu as i32)
            .with_fp16(options.precision == Precision::Fp16)
            .with_engine_cache(true)
            .with_engine_cache_path(&engines)
            .with_engine_cache_prefix(format!("{stem}-{precision}"))
            .with_timing_cache(true)
            .with_timing_cache_path(&engines)
            .build()
            .error_on_failure()
    };
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
mod tests;
