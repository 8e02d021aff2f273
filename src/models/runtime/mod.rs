//! Running networks: ONNX Runtime (CPU, CUDA, TensorRT) or OpenVINO, both loaded at run time.
//!
//! Their libraries are looked for in the folder named by `KINOPROBE_RUNTIME`, then in `third_party/onnxruntime`
//! (for CUDA and TensorRT: `third_party/onnxruntime-gpu`) and `third_party/openvino`, beside the working directory,
//! then beside the sources that this was built from.
//!
//! OpenVINO is used directly and not as a plugin of ONNX Runtime: the plugin offers no device on AMD's processors,
//! and one compiled network here serves several lanes at once, so that its weights are in memory once.

mod ffi;
mod native;
mod onnxruntime;
mod openvino;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ndarray::Array2;

use crate::error::{Error, Result};
use crate::models::Precision;

/// Where a network should run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// CUDA where it really works, else kinoprobe's own kernels where they know the network, else OpenVINO on x86, else
    /// ONNX Runtime's CPU provider.
    Auto,
    /// kinoprobe's own kernels on the CPU.
    Native,
    /// ONNX Runtime's own CPU provider.
    Cpu,
    /// OpenVINO on the CPU.
    OpenVino,
    /// CUDA.
    Cuda,
    /// TensorRT.
    TensorRt,
}

impl Device {
    /// All of them, by the names users type.
    pub const NAMES: [(&'static str, Device); 6] = [
        ("auto", Device::Auto),
        ("native", Device::Native),
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
        known.map(|(_, device)| *device).ok_or_else(|| "one of auto, native, cpu, openvino, cuda, tensorrt".to_string())
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
    /// Items a run; every run has exactly this many, so that results do not depend on how a job was cut.
    pub batch: usize,
    /// Cores that all lanes together may use.
    pub threads: usize,
    /// The output to read, where the network has several.
    pub output: Option<String>,
    /// Arithmetic precision.
    pub precision: Precision,
}

impl Settings {
    /// Shape of a whole batch.
    fn input_shape(&self) -> Vec<usize> {
        std::iter::once(self.batch).chain(self.item.iter().copied()).collect()
    }

    /// Numbers in a whole batch.
    pub fn input_len(&self) -> usize {
        self.input_shape().iter().product()
    }
}

/// One of the places where a loaded network can run a batch; lanes run side by side.
pub trait Lane: Send {
    /// Runs one batch: `items` are `batch` items one after another, the result is (batch, dim).
    ///
    /// # Errors
    /// The run fails, or the output has another size or holds a number that is not finite.
    fn run(&mut self, items: &[f32]) -> Result<Array2<f32>>;

    /// Whether from now on it takes the threads of lanes that rest, where it can: its answer comes sooner, and whatever else
    /// the cores do comes later.
    fn share(&mut self, _: bool) {}
}

/// A network ready to run.
pub struct Network {
    /// What really runs it: `native`, `native-amx`, `cpu`, `openvino`, `cuda`, `tensorrt`, several joined by `+`.
    pub provider: String,
    /// At least one.
    pub lanes: Vec<Box<dyn Lane>>,
    /// How it is run.
    pub settings: Settings,
}

impl Network {
    /// Loads `onnx` on `device`.
    ///
    /// # Errors
    /// The runtime's library is missing; the device cannot be used (an asked-for device never falls back to another);
    /// the file is no network, or its input or output does not have the shape that `settings` states.
    pub fn load(onnx: &Path, device: Device, settings: Settings) -> Result<Self> {
        if device != Device::Auto {
            return Self::load_on(onnx, device, settings);
        }
        let mut reasons = Vec::new();
        for candidate in auto_candidates() {
            match Self::load_on(onnx, candidate, settings.clone()) {
                Ok(network) => return Ok(network),
                // A network that does not fit its card fits it nowhere.
                Err(error @ Error::Weights { .. }) => return Err(error),
                Err(error) => reasons.push(error.to_string()),
            }
        }
        Err(Error::Runtime(format!("no device works\n  {}", reasons.join("\n  "))))
    }

    fn load_on(onnx: &Path, device: Device, settings: Settings) -> Result<Self> {
        let (provider, lanes) = match device {
            Device::Native => native::load(onnx, &settings)?,
            Device::OpenVino => openvino::load(onnx, &settings)?,
            device => onnxruntime::load(onnx, device, &settings)?,
        };
        Ok(Self { provider, lanes, settings })
    }

    /// Whether it runs on the processor, and takes its cores.
    pub fn on_cpu(&self) -> bool {
        matches!(self.provider.as_str(), "native" | "native-amx" | "cpu" | "openvino")
    }

    /// Whether several items at once take less time than one after the other.
    pub fn gains_by_batches(&self) -> bool {
        !self.provider.starts_with("native")
    }

    /// Runs one batch on the first lane.
    ///
    /// # Errors
    /// As [`Lane::run`].
    pub fn run(&mut self, items: &[f32]) -> Result<Array2<f32>> {
        self.lanes[0].run(items)
    }
}

fn auto_candidates() -> Vec<Device> {
    let mut candidates = Vec::new();
    // ONNX Runtime says that CUDA is available wherever it was compiled in: look for the driver's device file.
    if Path::new("/dev/nvidia0").exists() && library("onnxruntime-gpu", "libonnxruntime_providers_cuda.so").is_some() {
        candidates.push(Device::Cuda);
    }
    candidates.push(Device::Native);
    if cfg!(target_arch = "x86_64") && library("openvino", "libopenvino_c.so").is_some() {
        candidates.push(Device::OpenVino);
    }
    candidates.push(Device::Cpu);
    candidates
}

/// The first file whose name begins with `stem` in the places where libraries are kept.
fn library(folder: &str, stem: &str) -> Option<PathBuf> {
    let places = [
        std::env::var_os("KINOPROBE_RUNTIME").map(PathBuf::from),
        Some(Path::new("third_party").join(folder)),
        Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("third_party").join(folder)),
    ];
    places.into_iter().flatten().find_map(|place| {
        let names = std::fs::read_dir(place).ok()?.flatten().map(|entry| entry.path());
        let mut found: Vec<PathBuf> = names
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(stem)))
            .collect();
        found.sort();
        found.into_iter().next()?.canonicalize().ok()
    })
}

/// The library, or an error that says how to get it.
fn required_library(folder: &str, stem: &str, remedy: &str) -> Result<PathBuf> {
    library(folder, stem).ok_or_else(|| {
        Error::Runtime(format!(
            "{stem} is not in third_party/{folder}: {remedy}, or name its folder in KINOPROBE_RUNTIME"
        ))
    })
}

/// Turns the numbers of one run into (batch, dim).
fn embeddings(values: &[f32], settings: &Settings) -> Result<Array2<f32>> {
    if let Some(position) = values.iter().position(|value| !value.is_finite()) {
        return Err(Error::Runtime(format!("the network gave {} at position {position}", values[position])));
    }
    Array2::from_shape_vec((settings.batch, settings.dim), values.to_vec()).map_err(|_| {
        Error::Runtime(format!("the network gave {} numbers, not {} × {}", values.len(), settings.batch, settings.dim))
    })
}

/// Whether a shape with unknown (negative) axes admits the wanted one.
fn admits(have: &[i64], want: &[usize]) -> bool {
    have.len() == want.len() && have.iter().zip(want).all(|(&have, &want)| have < 0 || have == want as i64)
}

/// Whether an output shape is (batch, dim), possibly with axes of length 1 between or behind.
fn is_embedding(shape: &[i64], dim: usize) -> bool {
    let long: Vec<i64> = shape.iter().skip(1).copied().filter(|&axis| axis != 1).collect();
    shape.len() >= 2
        && (long.as_slice() == [dim as i64] || (dim == 1 && long.is_empty()) || long.iter().any(|&axis| axis < 0))
}
