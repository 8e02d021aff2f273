//! Arithmetic precision of a network.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Arithmetic in which a network runs. Stores record it; rows of different precision never share a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// IEEE 754 single precision.
    #[default]
    F32,
}

impl Precision {
    /// All precisions.
    pub const ALL: [Precision; 1] = [Precision::F32];

    /// Returns the name in recipes, flags and stores.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
        }
    }

    /// Returns the precision of the results if `provider` (see [`super::runtime::Session`]) runs a network in this precision, as stores
    /// record it. ONNX Runtime's CUDA and TensorRT providers compute matrix products and convolutions of f32 networks in TF32, with
    /// 10 bits of mantissa, on GPUs that support it.
    pub fn on_provider(self, provider: &str) -> &'static str {
        let on_gpu = provider.split('+').any(|name| matches!(name, "cuda" | "tensorrt"));
        match self {
            Precision::F32 if on_gpu => "tf32",
            precision => precision.name(),
        }
    }

    /// Returns `true` if `recorded` is the precision of results of a network in this precision, on any provider.
    pub fn yields(self, recorded: &str) -> bool {
        ["", "cuda"].iter().any(|provider| self.on_provider(provider) == recorded)
    }

    /// Returns `true` for the default precision, which recipes and file names omit.
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
            assert_eq!(Precision::F32.on_provider(provider), recorded, "{provider}");
            assert!(Precision::F32.yields(recorded));
        }
        assert!(!Precision::F32.yields("bf16"));
        assert!("f64".parse::<Precision>().unwrap_err().contains("f32"));
    }
}
