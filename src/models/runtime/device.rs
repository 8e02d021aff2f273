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
    Cuda(Gpus),
    /// ONNX Runtime's TensorRT provider.
    TensorRt(Gpus),
}

/// GPUs, as CUDA numbers them: from 0, in the order of `CUDA_VISIBLE_DEVICES` if it is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gpus {
    /// GPU 0.
    First,
    /// All GPUs.
    All,
    /// GPU i for each bit i that is set.
    Listed(u64),
}

impl Device {
    /// All devices with the names used on the command line. Names of GPUs may be followed by `:all` or by numbers, as in `cuda:0,1`.
    pub const NAMES: [(&'static str, Device); 6] = [
        ("auto", Device::Auto),
        ("native", Device::Native),
        ("cpu", Device::Cpu),
        ("openvino", Device::OpenVino),
        ("cuda", Device::Cuda(Gpus::First)),
        ("tensorrt", Device::TensorRt(Gpus::First)),
    ];

    /// Returns the GPUs; `None` for other devices.
    pub(super) fn gpus(self) -> Option<Gpus> {
        match self {
            Device::Cuda(gpus) | Device::TensorRt(gpus) => Some(gpus),
            Device::Auto | Device::Native | Device::Cpu | Device::OpenVino => None,
        }
    }

    /// Returns the name without the numbers of GPUs.
    pub(super) fn name(self) -> &'static str {
        let first = self.on(Gpus::First);
        Self::NAMES.iter().find(|(_, device)| *device == first).map_or("?", |(name, _)| name)
    }

    /// Returns this device on other GPUs; other devices are not changed.
    fn on(self, gpus: Gpus) -> Self {
        match self {
            Device::Cuda(_) => Device::Cuda(gpus),
            Device::TensorRt(_) => Device::TensorRt(gpus),
            device => device,
        }
    }
}

impl FromStr for Device {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, gpus) = text.split_once(':').map_or((text, None), |(name, gpus)| (name, Some(gpus)));
        let entry = Self::NAMES.iter().find(|(known, _)| *known == name);
        let device = entry.map(|(_, device)| *device).ok_or_else(|| {
            let names: Vec<_> = Self::NAMES.iter().map(|(name, _)| *name).collect();
            format!("one of {}; on several GPUs cuda:0,1 or cuda:all", names.join(", "))
        })?;
        match gpus {
            Some(_) if device.gpus().is_none() => {
                Err(format!("only cuda and tensorrt have numbers of GPUs: pass {name}"))
            }
            Some(gpus) => Ok(device.on(gpus.parse()?)),
            None => Ok(device),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self.gpus() {
            None | Some(Gpus::First) => Ok(()),
            Some(Gpus::All) => f.write_str(":all"),
            Some(Gpus::Listed(listed)) => {
                let indices: Vec<String> = bits(listed).map(|index| index.to_string()).collect();
                write!(f, ":{}", indices.join(","))
            }
        }
    }
}

impl FromStr for Gpus {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        let mut listed = 0_u64;
        for index in text.split(',') {
            let bit = index.parse().ok().and_then(|index| 1_u64.checked_shl(index));
            let bit = bit.ok_or_else(|| "expected numbers of GPUs or all, such as cuda:0,1 or cuda:all".to_string())?;
            if listed & bit != 0 {
                return Err(format!("GPU {index} is listed twice"));
            }
            listed |= bit;
        }
        Ok(Self::Listed(listed))
    }
}

impl Gpus {
    /// Returns the numbers of the GPUs in ascending order. `names` are the names of the GPUs that CUDA finds.
    ///
    /// # Errors
    /// Returns a message with the GPUs that exist, if there are none or one of those listed is not among them.
    pub(super) fn indices(self, names: &[String]) -> Result<Vec<u32>, String> {
        let count = names.len() as u32;
        let wanted: Vec<u32> = match self {
            Self::First => vec![0],
            Self::All => (0..count.max(1)).collect(),
            Self::Listed(listed) => bits(listed).collect(),
        };
        let missing: Vec<String> =
            wanted.iter().filter(|index| **index >= count).map(|index| index.to_string()).collect();
        if missing.is_empty() {
            return Ok(wanted);
        }
        let found: Vec<String> = names.iter().enumerate().map(|(index, name)| format!("{index} ({name})")).collect();
        let found = if found.is_empty() { "none".to_string() } else { found.join(", ") };
        Err(format!("there is no GPU {}; CUDA finds: {found}", missing.join(", ")))
    }
}

/// Returns the indices of the bits that are set, in ascending order.
fn bits(set: u64) -> impl Iterator<Item = u32> {
    (0..u64::BITS).filter(move |index| set >> index & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_parsed_and_formatted() {
        for (text, expected) in [
            ("native", Device::Native),
            ("cuda", Device::Cuda(Gpus::First)),
            ("cuda:all", Device::Cuda(Gpus::All)),
            ("cuda:0", Device::Cuda(Gpus::Listed(1))),
            ("tensorrt:0,3", Device::TensorRt(Gpus::Listed(9))),
            ("cuda:63", Device::Cuda(Gpus::Listed(1 << 63))),
        ] {
            assert_eq!(text.parse(), Ok(expected));
            assert_eq!(expected.to_string(), text);
        }
        assert_eq!("cuda:2,1".parse::<Device>().unwrap().to_string(), "cuda:1,2");
        assert_eq!("tensorrt:1".parse::<Device>().unwrap().name(), "tensorrt");
        for (text, expected) in [
            ("abacus", "one of auto, native, cpu, openvino, cuda, tensorrt; on several GPUs cuda:0,1 or cuda:all"),
            ("native:0", "only cuda and tensorrt have numbers of GPUs: pass native"),
            ("auto:all", "only cuda and tensorrt have numbers of GPUs: pass auto"),
            ("cuda:1,0,1", "GPU 1 is listed twice"),
            ("cuda:", "expected numbers of GPUs or all, such as cuda:0,1 or cuda:all"),
            ("cuda:0,", "expected numbers of GPUs or all, such as cuda:0,1 or cuda:all"),
            ("cuda:-1", "expected numbers of GPUs or all, such as cuda:0,1 or cuda:all"),
            ("cuda:64", "expected numbers of GPUs or all, such as cuda:0,1 or cuda:all"),
            ("cuda:all,0", "expected numbers of GPUs or all, such as cuda:0,1 or cuda:all"),
        ] {
            assert_eq!(text.parse::<Device>(), Err(expected.to_string()), "{text}");
        }
    }

    #[test]
    fn unknown_gpus_are_refused() {
        let names = ["H100", "H100", "L4"].map(String::from);
        assert_eq!(Gpus::First.indices(&names), Ok(vec![0]));
        assert_eq!(Gpus::All.indices(&names), Ok(vec![0, 1, 2]));
        assert_eq!(Gpus::Listed(0b101).indices(&names), Ok(vec![0, 2]));
        let error = Gpus::Listed(0b11010).indices(&names).unwrap_err();
        assert_eq!(error, "there is no GPU 3, 4; CUDA finds: 0 (H100), 1 (H100), 2 (L4)");
        assert_eq!(Gpus::All.indices(&[]).unwrap_err(), "there is no GPU 0; CUDA finds: none");
    }
}
