//! Inference of ONNX networks on one of three backends: the native kernels, OpenVINO, or ONNX Runtime (CPU, CUDA, TensorRT).
//!
//! The native backend is part of this crate. The libraries of the other two are loaded at run time, from the directory
//! named by `KINOPROBE_RUNTIME`, else from `third_party/onnxruntime` (CUDA and TensorRT: `third_party/onnxruntime-gpu`)
//! and `third_party/openvino` in the working directory, else from the same directories in the source directory of the
//! build.
//!
//! OpenVINO is used directly and not as an execution provider of ONNX Runtime: the provider offers no device on AMD
//! processors, and a compiled model serves several lanes with one copy of the weights.

mod choice;
mod cuda;
mod device;
pub mod doctor;
mod ffi;
mod lane;
pub mod library;
mod native;
mod onnxruntime;
mod openvino;
mod profile;

use std::path::Path;

use ndarray::Array2;

use crate::cancel::CancellationToken;
use crate::error::{Error, Result};
use crate::models::Precision;

pub(in crate::models) use native::calibration;

pub use choice::{Choice, choose};
pub use device::{Device, Gpus};
pub use lane::{Items, Lane, SessionOptions};
pub use profile::{LayerProfile, Profile};

/// A loaded network, ready to run.
pub struct Session {
    /// What runs the network: `native-INSTRUCTION_SET`, `cpu`, `openvino`, `cuda`, `tensorrt`, or several joined by `+`.
    pub provider: String,
    /// At least one lane; each GPU has two.
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
            if check_precision(candidate, options.precision).is_err() {
                continue;
            }
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
        check_precision(device, options.precision)?;
        let (provider, lanes) = match device {
            Device::Native => native::load(onnx, &options)?,
            Device::OpenVino => openvino::load(onnx, &options)?,
            device => {
                let gpus = device.gpus().map_or(Ok(vec![0]), |gpus| cuda::prepare(device, gpus))?;
                onnxruntime::load(onnx, device, &gpus, &options)?
            }
        };
        Ok(Self { provider, lanes, options })
    }

    /// Returns the precision of the results, as stores record it.
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

    /// Runs 1 to `batch` items of a network that reads floats on the first lane.
    ///
    /// # Errors
    /// As [`Lane::run`].
    pub fn run(&mut self, items: &[f32]) -> Result<Array2<f32>> {
        self.lanes[0].run(Items::Floats(&[items]))
    }
}

/// Runs a network with the native kernels on one pseudo-random item, `runs` times after one warm-up, and measures its layers. Layers are
/// divided among `options.threads` threads; `options.batch` has no effect.
///
/// # Errors
/// Returns an error if the native kernels do not support the network, the file is not a valid network or does not match `options`,
/// `KINOPROBE_SIMD` names an instruction set that is unknown or unavailable, threads cannot be started, or the token is cancelled.
///
/// # Panics
/// Panics if `runs` or `options.threads` is 0.
pub fn profile(onnx: &Path, options: &SessionOptions, runs: usize, cancel: &CancellationToken) -> Result<Profile> {
    assert!(runs > 0 && options.threads > 0, "at least one run on at least one thread");
    native::profile(onnx, options, runs, cancel)
}

/// Checks that a device can be used, as far as this is possible without a network. Call it before weights are downloaded.
///
/// # Errors
/// Returns an error if the device is a GPU that the machine does not have, if its libraries are not installed, or if it does not
/// compute in this precision.
pub fn check_device(device: Device, precision: Precision) -> Result<()> {
    check_precision(device, precision)?;
    device.gpus().map_or(Ok(()), |gpus| cuda::prepare(device, gpus).map(|_| ()))
}

/// Checks that a device computes in a precision. [`Device::Auto`] does if one of its candidates does.
fn check_precision(device: Device, precision: Precision) -> Result<()> {
    let supports = |device: &Device| match (precision, device) {
        (Precision::Auto, _) => true,
        (Precision::F32, Device::TensorRt(_)) => false,
        (Precision::F32, _) => true,
        (Precision::Tf32 | Precision::Fp16, device) => device.gpus().is_some(),
        (Precision::Bf16, device) => *device == Device::Native,
        (Precision::Int8, device) => device.gpus().is_none(),
    };
    if supports(&device) || (device == Device::Auto && auto_candidates().iter().any(supports)) {
        return Ok(());
    }
    let remedy = match precision {
        Precision::Tf32 | Precision::Fp16 => "only GPUs compute in it: use --device cuda, or another precision",
        Precision::Bf16 => "only the native kernels compute in it: use --device native, or another precision",
        Precision::Int8 => "only CPUs compute in it: use --device native, or another precision",
        Precision::Auto | Precision::F32 => "it computes in tf32: use --device cuda, or another precision",
    };
    Err(Error::Runtime(format!("device {device} does not support precision {precision}; {remedy}")))
}

/// Returns the precision of the results on `device`; for [`Device::Auto`] that on the first candidate, which may turn out not to
/// work.
pub fn expected_precision(device: Device, precision: Precision) -> &'static str {
    let device = if device == Device::Auto { auto_candidates()[0] } else { device };
    precision.on_provider(device.name())
}

/// Returns `true` if a network on `device` competes for the cores of the CPU; for [`Device::Auto`] if one on the first candidate does that
/// computes in this precision.
pub fn expects_cpu(device: Device, precision: Precision) -> bool {
    let device = match device {
        Device::Auto => auto_candidates().into_iter().find(|candidate| check_precision(*candidate, precision).is_ok()),
        device => Some(device),
    };
    device.is_none_or(|device| device.gpus().is_none())
}

/// Returns the devices that [`Device::Auto`] tries, the fastest first.
fn auto_candidates() -> Vec<Device> {
    let mut candidates = Vec::new();
    if cuda::has_gpu() && cuda::is_installed() {
        candidates.push(Device::Cuda(Gpus::First));
    }
    candidates.push(Device::Native);
    if cfg!(target_arch = "x86_64") && library::find("openvino", "libopenvino_c.so").is_some() {
        candidates.push(Device::OpenVino);
    }
    candidates.push(Device::Cpu);
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precision_does_not_depend_on_the_number_of_gpus() {
        for device in ["cuda", "cuda:0,1", "cuda:all", "tensorrt:1"] {
            assert_eq!(expected_precision(device.parse().unwrap(), Precision::Auto), "tf32", "{device}");
        }
    }

    #[test]
    fn devices_support_some_precisions() {
        let check = |device: &str, precision| check_precision(device.parse().unwrap(), precision);
        for device in ["auto", "native", "cpu", "openvino", "cuda", "cuda:all"] {
            check(device, Precision::Auto).unwrap();
            check(device, Precision::F32).unwrap();
        }
        check("cuda:0,1", Precision::Tf32).unwrap();
        check("tensorrt", Precision::Tf32).unwrap();
        check("native", Precision::Bf16).unwrap();
        let error = check("cuda", Precision::Bf16).unwrap_err().to_string();
        assert!(error.contains("cuda does not support precision bf16; only the native kernels"), "{error}");
        let error = check("native", Precision::Tf32).unwrap_err().to_string();
        assert!(error.contains("device native does not support precision tf32; only GPUs compute in it"), "{error}");
        let error = check("tensorrt:1", Precision::F32).unwrap_err().to_string();
        assert!(error.contains("device tensorrt:1 does not support precision f32; it computes in tf32"), "{error}");
    }
}
