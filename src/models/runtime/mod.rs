//! Inference of ONNX networks on one of three backends: the native kernels, OpenVINO, or ONNX Runtime (CPU, CUDA, TensorRT).
//!
//! The native backend is part of this crate. The libraries of the other two are loaded at run time, from the directory
//! named by `KINOPROBE_RUNTIME`, else from `third_party/onnxruntime` (CUDA and TensorRT: `third_party/onnxruntime-gpu`)
//! and `third_party/openvino` in the working directory, else from the same directories in the source directory of the
//! build.
//!
//! OpenVINO is used directly and not as an execution provider of ONNX Runtime: the provider offers no device on AMD
//! processors, and a compiled model serves several lanes with one copy of the weights.

mod device;
mod ffi;
mod lane;
pub mod library;
mod native;
mod onnxruntime;
mod openvino;

use std::path::Path;

use ndarray::Array2;

use crate::error::{Error, Result};
use crate::models::Precision;

pub use device::Device;
pub use lane::{Lane, SessionOptions};

/// A loaded network, ready to run.
pub struct Session {
    /// What runs the network: `native-INSTRUCTION_SET`, `cpu`, `openvino`, `cuda`, `tensorrt`, or several joined by `+`.
    pub provider: String,
    /// At least one lane.
    pub lanes: Vec<Box<dyn Lane>>,
    /// The options it was loaded with.
    pub options: SessionOptions,
}

impl Session {
    /// Loads the network `onnx` on `device`.
    ///
    /// # Errors
    /// Returns an error if the backend's library is missing, the device cannot be used (a requested device never falls
    /// back to another one), the file is not a valid network, its input or output does not match `options`, or
    /// `KINOPROBE_SIMD` names an instruction set that is unknown or unavailable.
    pub fn load(onnx: &Path, device: Device, options: SessionOptions) -> Result<Self> {
        if device != Device::Auto {
            return Self::load_on(onnx, device, options);
        }
        // An invalid request must not lead to another backend.
        native::check_instruction_set()?;
        let mut reasons = Vec::new();
        for candidate in auto_candidates() {
            match Self::load_on(onnx, candidate, options.clone()) {
                Ok(session) => return Ok(session),
                // A network that does not match its card fails on every device.
                Err(error @ Error::Weights { .. }) => return Err(error),
                Err(error) => reasons.push(error.to_string()),
            }
        }
        Err(Error::Runtime(format!("no device works\n  {}", reasons.join("\n  "))))
    }

    fn load_on(onnx: &Path, device: Device, options: SessionOptions) -> Result<Self> {
        check_device(device)?;
        let (provider, lanes) = match device {
            Device::Native => native::load(onnx, &options)?,
            Device::OpenVino => openvino::load(onnx, &options)?,
            device => onnxruntime::load(onnx, device, &options)?,
        };
        Ok(Self { provider, lanes, options })
    }

    /// Returns the precision of the results, as stores record it: `tf32` on a GPU.
    pub fn precision(&self) -> &'static str {
        self.options.precision.on_provider(&self.provider)
    }

    /// Returns `true` if the network runs on the CPU and competes for its cores.
    pub fn on_cpu(&self) -> bool {
        self.is_native() || matches!(self.provider.as_str(), "cpu" | "openvino")
    }

    /// Returns `true` if a batch takes less time than its items one by one.
    pub fn benefits_from_batching(&self) -> bool {
        !self.is_native()
    }

    fn is_native(&self) -> bool {
        self.provider.starts_with("native")
    }

    /// Runs one batch on the first lane.
    ///
    /// # Errors
    /// As [`Lane::run`].
    pub fn run(&mut self, items: &[f32]) -> Result<Array2<f32>> {
        self.lanes[0].run(items)
    }
}

/// Checks that a device can be used, as far as this is possible without a network. Call it before weights are downloaded.
///
/// # Errors
/// Returns an error if the device is a GPU and the machine has none, or if its libraries are not installed.
pub fn check_device(device: Device) -> Result<()> {
    if !matches!(device, Device::Cuda | Device::TensorRt) {
        return Ok(());
    }
    if !has_gpu() {
        return Err(Error::Runtime(format!(
            "device {device} needs an NVIDIA GPU with its driver: this machine has no /dev/nvidia0; use --device auto"
        )));
    }
    library::require("onnxruntime-gpu", CUDA_PROVIDER, "run `make setup DEVICE=cuda`").map(|_| ())
}

/// The library of ONNX Runtime's CUDA provider.
const CUDA_PROVIDER: &str = "libonnxruntime_providers_cuda.so";

/// Returns `true` if the driver of an NVIDIA GPU has created its device files (WSL: `/dev/dxg`). ONNX Runtime lists CUDA
/// wherever it was compiled in.
fn has_gpu() -> bool {
    let is_gpu = |name: &str| match name.strip_prefix("nvidia") {
        Some(index) => !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit()),
        None => name == "dxg",
    };
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    entries.into_iter().any(|entry| is_gpu(&entry.file_name().to_string_lossy()))
}

/// Returns the precision of the results on `device`; for [`Device::Auto`] that on the first candidate, which may turn out not to
/// work.
pub fn expected_precision(device: Device, precision: Precision) -> &'static str {
    let device = if device == Device::Auto { auto_candidates()[0] } else { device };
    precision.on_provider(&device.to_string())
}

/// Returns the devices that [`Device::Auto`] tries, the fastest first.
fn auto_candidates() -> Vec<Device> {
    let mut candidates = Vec::new();
    if has_gpu() && library::find("onnxruntime-gpu", CUDA_PROVIDER).is_some() {
        candidates.push(Device::Cuda);
    }
    candidates.push(Device::Native);
    if cfg!(target_arch = "x86_64") && library::find("openvino", "libopenvino_c.so").is_some() {
        candidates.push(Device::OpenVino);
    }
    candidates.push(Device::Cpu);
    candidates
}
