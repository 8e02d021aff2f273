//! Devices that networks run on.

use std::fmt;
use std::str::FromStr;

/// Device, and backend, that a network runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// The first that works of CUDA, the native kernels, OpenVINO (x86) and ONNX Runtime's CPU provider. OpenVINO comes before the
    /// native kernels for networks that it was measured to run faster.
    Auto,
    /// The native kernels on the CPU.
    Native,
    /// ONNX Runtime's CPU provider.
    Cpu,
    /// OpenVINO on the CPU.
    OpenVino,
    /// ONNX Runtime's CUDA provider.
    Cuda,
    /// ONNX Runtime's TensorRT provider.
    TensorRt,
}

impl Device {
    /// All devices with the names used on the command line.
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
        let entry = Self::NAMES.iter().find(|(known, _)| *known == name);
        entry.map(|(_, device)| *device).ok_or_else(|| {
            let names: Vec<_> = Self::NAMES.iter().map(|(name, _)| *name).collect();
            format!("one of {}", names.join(", "))
        })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = Self::NAMES.iter().find(|(_, device)| device == self);
        f.write_str(entry.map_or("?", |(name, _)| name))
    }
}
