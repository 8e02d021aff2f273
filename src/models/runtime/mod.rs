//! Running networks: ONNX Runtime, loaded at run time, on the execution provider asked for.
//!
//! The library is looked for in the folder named by `KINOPROBE_ORT`, then in `third_party/onnxruntime` (with CUDA:
//! `third_party/onnxruntime-gpu`) beside the working directory, then beside the sources that this was built from.

mod ffi;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, OnceLock};

use ndarray::Array2;
use ort::environment::Environment;
use ort::ep::{CUDA, ExecutionProvider, TensorRT};
use ort::memory::DeviceType;
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::value::{TensorRef, ValueType};

use crate::error::{Error, Result};

/// Where a network should run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// CUDA where it really works, else OpenVINO on x86, else the CPU.
    Auto,
    /// ONNX Runtime's own CPU provider.
    Cpu,
    /// The OpenVINO plugin on the CPU.
    OpenVino,
    /// CUDA.
    Cuda,
    /// TensorRT.
    TensorRt,
}

impl Device {
    /// All of them, by the names users type.
    pub const NAMES: [(&'static str, Device); 5] = [
        ("auto", Device::Auto),
        ("cpu", Device::Cpu),
        ("openvino", Device::OpenVino),
        ("cuda", Device::Cuda),
        ("tensorrt", Device::TensorRt),
    ];
}

impl FromStr for Device {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::NAMES.iter().find(|(known, _)| *known == name);
        known.map(|(_, device)| *device).ok_or_else(|| "one of auto, cpu, openvino, cuda, tensorrt".to_string())
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = Self::NAMES.iter().find(|(_, device)| device == self);
        f.write_str(known.map_or("?", |(name, _)| name))
    }
}

/// What a network must look like and how it is run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Shape of one item, without the batch: (3, H, W) or (3, T, H, W).
    pub item: Vec<usize>,
    /// Length of one embedding.
    pub dim: usize,
    /// Items a run.
    pub batch: usize,
    /// Threads a run may use.
    pub threads: usize,
    /// The output to read, where the network has several.
    pub output: Option<String>,
}

/// A network ready to run.
#[derive(Debug)]
pub struct Network {
    session: Session,
    provider: String,
    output: usize,
    settings: Settings,
}

impl Network {
    /// Loads `onnx` on `device`.
    ///
    /// # Errors
    /// ONNX Runtime is missing; the device cannot be used (an asked-for device never falls back to another); the file
    /// is no network, or its input or output does not have the shape that the card states.
    pub fn load(onnx: &Path, device: Device, settings: Settings) -> Result<Self> {
        match device {
            Device::Auto => {
                let mut reasons = Vec::new();
                for candidate in auto_candidates() {
                    match Self::load_on(onnx, candidate, settings.clone()) {
                        Ok(network) => return Ok(network),
                        // A network that does not fit its card does not fit it anywhere.
                        Err(error @ Error::Weights { .. }) => return Err(error),
                        Err(error) => reasons.push(format!("{candidate}: {error}")),
                    }
                }
                Err(Error::Runtime(format!("no device works\n  {}", reasons.join("\n  "))))
            }
            device => Self::load_on(onnx, device, settings),
        }
    }

    fn load_on(onnx: &Path, device: Device, settings: Settings) -> Result<Self> {
        let environment = environment(device)?;
        let failed = |what: &str, error: &dyn fmt::Display| Error::Runtime(format!("device {device}: {what}: {error}"));
        let builder = Session::builder(environment).map_err(|e| failed("cannot make a session", &e))?;
        let builder = configure(builder, environment, device, &settings).map_err(|e| failed("cannot be used", &e))?;
        let mut builder = builder;
        let session = builder.commit_from_file(onnx).map_err(|e| Error::Runtime(format!(
            "device {device}: cannot load {}: {e}", onnx.display()
        )))?;
        let ran = ffi::assigned_providers(&session).map_err(|e| failed("cannot tell what runs", &e))?;
        let provider = provider_names(&ran);
        let expected = if device == Device::OpenVino { "openvino" } else { &device.to_string() };
        if !provider.split('+').any(|name| name == expected) {
            return Err(Error::Runtime(format!("device {device} was asked for, but the network would run on {provider}")));
        }
        let output = check_shapes(&session, onnx, &settings)?;
        Ok(Self { session, provider, output, settings })
    }

    /// The provider that runs it: `cpu`, `openvino`, `cuda`, `tensorrt`, several joined by `+`.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// How it is run.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Runs one batch.
    ///
    /// `items` holds `batch` items one after another; the result is (batch, dim).
    ///
    /// # Errors
    /// The run fails, or the output holds a number that is not finite.
    pub fn run(&mut self, items: &[f32]) -> Result<Array2<f32>> {
        let shape: Vec<usize> = std::iter::once(self.settings.batch).chain(self.settings.item.iter().copied()).collect();
        let failed = |e: ort::Error| Error::Runtime(format!("the network failed: {e}"));
        let input = TensorRef::from_array_view((shape, items)).map_err(failed)?;
        let outputs = self.session.run(ort::inputs![input]).map_err(failed)?;
        let (_, values) = outputs[self.output].try_extract_tensor::<f32>().map_err(failed)?;
        if let Some(position) = values.iter().position(|v| !v.is_finite()) {
            return Err(Error::Runtime(format!("the network gave {} at position {position}", values[position])));
        }
        Array2::from_shape_vec((self.settings.batch, self.settings.dim), values.to_vec())
            .map_err(|e| Error::Runtime(format!("the network gave {} numbers: {e}", values.len())))
    }
}

fn configure(builder: SessionBuilder, environment: &Environment, device: Device, settings: &Settings) -> ort::Result<SessionBuilder> {
    let builder = builder
        .with_config_entry("session.record_ep_graph_assignment_info", "1")?
        // Every run has the same shape, so that providers may plan for it.
        .with_dimension_override("batch", settings.batch as i64)?
        .with_intra_threads(settings.threads)?
        // Threads that spin while they wait take cores from the decoders.
        .with_intra_op_spinning(false)?;
    Ok(match device {
        Device::Auto | Device::Cpu => builder,
        Device::Cuda => builder.with_execution_providers([CUDA::default().build().error_on_failure()])?,
        Device::TensorRt => builder.with_execution_providers([
            TensorRT::default().build().error_on_failure(),
            CUDA::default().build().error_on_failure(),
        ])?,
        Device::OpenVino => {
            let devices: Vec<_> = environment
                .devices()
                .filter(|d| d.ep().is_ok_and(|ep| ep.starts_with("OpenVINO")) && d.hardware_device().ty() == DeviceType::CPU)
                .collect();
            if devices.is_empty() {
                return Err(ort::Error::new("the OpenVINO plugin offers no CPU device"));
            }
            // Without pinning, sessions side by side use different cores.
            let config = format!(
                r#"{{"CPU":{{"INFERENCE_NUM_THREADS":"{}","NUM_STREAMS":"1","ENABLE_CPU_PINNING":"NO","INFERENCE_PRECISION_HINT":"f32"}}}}"#,
                settings.threads
            );
            builder.with_devices(devices, Some(&[("OpenVINOExecutionProvider.load_config".to_string(), config)]))?
        }
    })
}

/// Short names of the providers that got nodes, in ONNX Runtime's order.
fn provider_names(assigned: &[String]) -> String {
    let names: Vec<String> = assigned
        .iter()
        .map(|name| match name.trim_end_matches("ExecutionProvider") {
            name if name.starts_with("OpenVINO") => "openvino".to_string(),
            name => name.to_lowercase(),
        })
        .collect();
    names.join("+")
}

/// Compares input and output with the card; returns the output's index.
fn check_shapes(session: &Session, onnx: &Path, settings: &Settings) -> Result<usize> {
    let wrong = |message: String| Error::Weights { path: onnx.to_path_buf(), message };
    let [input] = session.inputs() else {
        return Err(wrong(format!("a network needs exactly one input, this one has {}", session.inputs().len())));
    };
    let fits = |have: &[i64], want: &[usize]| {
        have.len() == want.len() && have.iter().zip(want).all(|(&have, &want)| have < 0 || have == want as i64)
    };
    let wanted: Vec<usize> = std::iter::once(settings.batch).chain(settings.item.iter().copied()).collect();
    match input.dtype() {
        ValueType::Tensor { shape, .. } if fits(shape, &wanted) => {}
        other => return Err(wrong(format!("its input `{}` is {other:?}, the card states f32 {wanted:?}", input.name()))),
    }
    let index = match &settings.output {
        None if session.outputs().len() == 1 => 0,
        None => {
            let names: Vec<_> = session.outputs().iter().map(|output| output.name()).collect();
            return Err(wrong(format!("it has several outputs ({}); name one in the card: [output] name = …", names.join(", "))));
        }
        Some(name) => (session.outputs().iter().position(|output| output.name() == name))
            .ok_or_else(|| wrong(format!("it has no output `{name}`")))?,
    };
    match session.outputs()[index].dtype() {
        ValueType::Tensor { shape, .. }
            if shape.last().is_some_and(|&d| d < 0 || d == settings.dim as i64)
                && shape.iter().skip(1).rev().skip(1).all(|&d| d <= 1) =>
        {
            Ok(index)
        }
        other => Err(wrong(format!(
            "its output `{}` is {other:?}, the card states f32 [batch, {}]",
            session.outputs()[index].name(),
            settings.dim
        ))),
    }
}

fn auto_candidates() -> Vec<Device> {
    let mut candidates = Vec::new();
    // CUDA::is_available() says true without a GPU, so look for the driver's device file.
    if Path::new("/dev/nvidia0").exists() && library("onnxruntime-gpu", "libonnxruntime_providers_cuda.so").is_some() {
        candidates.push(Device::Cuda);
    }
    if cfg!(target_arch = "x86_64") && openvino_plugin().is_some() {
        candidates.push(Device::OpenVino);
    }
    candidates.push(Device::Cpu);
    candidates
}

fn openvino_plugin() -> Option<PathBuf> {
    library("onnxruntime", "libonnxruntime_providers_openvino_plugin.so")
}

/// The first file whose name begins with `stem` in the places where libraries are kept.
fn library(folder: &str, stem: &str) -> Option<PathBuf> {
    let places = [
        std::env::var_os("KINOPROBE_ORT").map(PathBuf::from),
        Some(Path::new("third_party").join(folder)),
        Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("third_party").join(folder)),
    ];
    places.into_iter().flatten().find_map(|place| {
        let mut found: Vec<PathBuf> = std::fs::read_dir(place)
            .ok()?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(stem)))
            .collect();
        found.sort();
        found.into_iter().next()
    })
}

/// The process's one environment. The first call decides which library is loaded.
fn environment(device: Device) -> Result<&'static Environment> {
    static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
    static SETTING_UP: Mutex<Vec<Device>> = Mutex::new(Vec::new());
    let mut registered = SETTING_UP.lock().expect("no panic while setting up");
    let environment = match ENVIRONMENT.get() {
        Some(environment) => environment,
        None => {
            let on_gpu = matches!(device, Device::Cuda | Device::TensorRt);
            let folder = if on_gpu { "onnxruntime-gpu" } else { "onnxruntime" };
            let path = library(folder, "libonnxruntime.so").ok_or_else(|| {
                let target = if on_gpu { "make setup DEVICE=cuda" } else { "make setup" };
                Error::Runtime(format!(
                    "libonnxruntime.so is not in third_party/{folder}: run `{target}`, or name its folder in KINOPROBE_ORT"
                ))
            })?;
            let wrong = |e: &dyn fmt::Display| Error::Runtime(format!("{} cannot be loaded: {e}", path.display()));
            let built = ort::init_from(&path).map_err(|e| wrong(&e))?.with_name("kinoprobe").with_telemetry(false).build();
            let built = built.map_err(|e| wrong(&e))?;
            built.set_log_level(ort::logging::LogLevel::Error);
            ENVIRONMENT.get_or_init(|| built)
        }
    };
    // Only when it is wanted: a registered plugin also takes sessions that ask for the CPU provider.
    if device == Device::OpenVino && !registered.contains(&device) {
        let plugin = openvino_plugin().ok_or_else(|| {
            Error::Runtime("the OpenVINO plugin is not in third_party/onnxruntime: run `make setup` (x86 only), or use --device cpu".into())
        })?;
        (environment.register_ep_library("openvino", &plugin))
            .map_err(|e| Error::Runtime(format!("{}: {e}", plugin.display())))?;
        registered.push(device);
    }
    Ok(environment)
}

/// Whether a provider is compiled into the library; used by `kinoprobe-models list`.
pub fn available(device: Device) -> bool {
    match device {
        Device::Auto | Device::Cpu => library("onnxruntime", "libonnxruntime.so").is_some(),
        Device::OpenVino => openvino_plugin().is_some(),
        Device::Cuda => CUDA::default().is_available().unwrap_or(false),
        Device::TensorRt => TensorRT::default().is_available().unwrap_or(false),
    }
}
