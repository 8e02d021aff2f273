//! Arithmetic precision of a network.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Arithmetic in which a network is to run. Stores record the one in which it ran; rows of different precision never share a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// [`F32`](Self::F32) on a CPU, [`Tf32`](Self::Tf32) on a GPU.
    #[default]
    Auto,
    /// IEEE 754 single precision.
    F32,
    /// Single precision, but matrix products and convolutions round their factors to 10 bits of mantissa. NVIDIA GPUs since Ampere.
    Tf32,
    /// IEEE 754 half precision, with sums in single precision. GPUs.
    Fp16,
    /// Convolutions and linear layers but the first round their factors to bfloat16 (7 bits of mantissa), with sums in single precision.
    /// Native kernels.
    Bf16,
    /// Convolutions and linear layers with 8-bit integers (see [`super::prepare()`]). CPUs.
    Int8,
}

impl Precision {
    /// All precisions.
    pub const ALL: [Precision; 6] =
        [Precision::Auto, Precision::F32, Precision::Tf32, Precision::Fp16, Precision::Bf16, Precision::Int8];

    /// Returns the name in recipes and flags.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Auto => "auto",
            Precision::F32 => "f32",
            Precision::Tf32 => "tf32",
            Precision::Fp16 => "fp16",
            Precision::Bf16 => "bf16",
            Precision::Int8 => "int8",
        }
    }

    /// Returns the precision of the results if `provider` (see [`super::runtime::Session`]) runs a network, as stores record it.
    pub fn on_provider(self, provider: &str) -> &'static str {
        let on_gpu = provider.split('+').any(|name| matches!(name, "cuda" | "tensorrt"));
        match self {
            Precision::Auto if on_gpu => "tf32",
            Precision::Auto | Precision::F32 => "f32",
            Precision::Tf32 | Precision::Fp16 | Precision::Bf16 | Precision::Int8 => self.name(),
        }
    }

    /// Returns `true` if the network's file differs from that of the other precisions: its weights are converted.
    pub fn converts_weights(self) -> bool {
        matches!(self, Precision::Fp16 | Precision::Int8)
    }

    /// Returns the precision that reproduces features of a precision that a store records. Those of a GPU (`tf32`) can only be approximated on
    /// a CPU.
    pub fn recorded(recorded: &str) -> Self {
        match recorded {
            "tf32" => Precision::Auto,
            "fp16" => Precision::Fp16,
            "bf16" => Precision::Bf16,
            "int8" => Precision::Int8,
            _ => Precision::F32,
        }
    }

    /// Returns the precision that a store records, which only yields results of this precision; `None` if it is unknown.
    pub fn exactly(recorded: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|precision| *precision != Precision::Auto && precision.name() == recorded)
    }

    /// Returns `true` if `recorded` is the precision of results of a network in this precision, on any provider.
    pub fn yields(self, recorded: &str) -> bool {
        ["", "cuda"].iter().any(|provider| self.on_provider(provider) == recorded)
    }

    /// Returns `true` for the default precision, which recipes omit.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|precision| precision.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("unknown precision; choose one of: {names}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for precision in Precision::ALL {
            assert_eq!(precision.to_string().parse(), Ok(precision));
            assert_eq!(serde_json::to_string(&precision).unwrap(), format!("\"{precision}\""));
        }
        for (provider, recorded) in [
            ("native-avx2", "f32"),
            ("openvino", "f32"),
            ("cpu", "f32"),
            ("cuda", "tf32"),
            ("cuda+cpu", "tf32"),
            ("tensorrt+cuda", "tf32"),
        ] {
            assert_eq!(Precision::Auto.on_provider(provider), recorded, "{provider}");
            assert!(Precision::Auto.yields(recorded) && Precision::recorded(recorded).yields(recorded));
            assert_eq!(Precision::F32.on_provider(provider), "f32");
            assert_eq!(Precision::Tf32.on_provider(provider), "tf32");
        }
        assert!(Precision::Bf16.yields("bf16") && Precision::recorded("bf16") == Precision::Bf16);
        assert!(!Precision::Auto.yields("bf16") && !Precision::F32.yields("tf32") && !Precision::Tf32.yields("f32"));
        assert!("f64".parse::<Precision>().unwrap_err().contains("f32"));
    }
}
