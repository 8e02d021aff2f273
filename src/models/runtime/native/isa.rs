//! Instruction sets: detection, selection through `KINOPROBE_SIMD`, and dispatch of kernels.

use std::ffi::OsStr;
use std::sync::OnceLock;

use pulp::{Simd, WithSimd};

use super::amx;
use crate::error::{Error, Result};

/// Environment variable that forces an instruction set.
const VARIABLE: &str = "KINOPROBE_SIMD";

/// Instruction set that kernels run on, from the slowest to the fastest of each architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Isa {
    /// One f32 at a time; works everywhere. `mul_add` is a library call, so this is for tests and comparisons.
    Scalar,
    /// 128-bit vectors (aarch64).
    Neon,
    /// 256-bit vectors with FMA (x86-64-v3).
    Avx2,
    /// 512-bit vectors (x86-64-v4).
    Avx512,
    /// [Integer tiles](amx) for large matrix products, AVX-512 for everything else.
    Amx,
}

impl Isa {
    /// Every instruction set of every architecture.
    pub const ALL: [Isa; 5] = [Isa::Scalar, Isa::Neon, Isa::Avx2, Isa::Avx512, Isa::Amx];

    /// Returns the name used in `KINOPROBE_SIMD` and in provider names.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Neon => "neon",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Amx => "amx",
        }
    }

    /// Returns `true` if this build, processor and operating system support the instruction set.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Scalar => true,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => pulp::aarch64::Neon::try_new().is_some(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => pulp::x86::V3::try_new().is_some(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => pulp::x86::V4::try_new().is_some(),
            Isa::Amx => amx::is_available() && Isa::Avx512.is_available(),
            #[allow(unreachable_patterns)] // depends on the architecture
            _ => false,
        }
    }

    /// Returns the available instruction sets, the fastest last.
    pub fn available() -> impl Iterator<Item = Isa> {
        Self::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// Returns the instruction set named by `KINOPROBE_SIMD`, or the fastest one if the variable is unset or empty.
    ///
    /// # Errors
    /// Returns an error if the variable names an instruction set that is unknown or unavailable.
    pub fn from_env() -> Result<Self> {
        Self::select(std::env::var_os(VARIABLE).as_deref()).map_err(Error::Runtime)
    }

    fn select(requested: Option<&OsStr>) -> Result<Self, String> {
        let Some(requested) = requested.filter(|name| !name.is_empty()) else {
            return Ok(Self::available().last().expect("scalar is always available"));
        };
        let available = || Self::available().map(Isa::name).collect::<Vec<_>>().join(", ");
        match Self::ALL.into_iter().find(|isa| requested == isa.name()) {
            Some(isa) if isa.is_available() => Ok(isa),
            Some(isa) => Err(format!("{VARIABLE}={}: not available here, use one of {}", isa.name(), available())),
            None => Err(format!(
                "{VARIABLE}={}: unknown instruction set, use one of {}",
                requested.to_string_lossy(),
                available()
            )),
        }
    }

    /// Runs a kernel compiled for this instruction set.
    ///
    /// # Panics
    /// Panics if the instruction set is not [available](Isa::is_available).
    #[inline(always)]
    pub fn dispatch<K: WithSimd>(self, kernel: K) -> K::Output {
        match self {
            Isa::Scalar => Simd::vectorize(pulp::Scalar::new(), kernel),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Simd::vectorize(pulp::aarch64::Neon::try_new().expect("NEON is available"), kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Simd::vectorize(pulp::x86::V3::try_new().expect("AVX2 is available"), kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Amx => Simd::vectorize(pulp::x86::V4::try_new().expect("AVX-512 is available"), kernel),
            #[allow(unreachable_patterns)] // depends on the architecture
            _ => unreachable!("{} is not available on this architecture", self.name()),
        }
    }
}

/// A value per instruction set, computed when it is first read.
pub(super) struct PerIsa<T>([OnceLock<T>; Isa::ALL.len()]);

impl<T> PerIsa<T> {
    pub const fn new() -> Self {
        Self([const { OnceLock::new() }; Isa::ALL.len()])
    }

    /// Returns the value of an instruction set; `compute` is called if there is none yet.
    pub fn get_or_init(&self, isa: Isa, compute: impl FnOnce() -> T) -> &T {
        // `ALL` lists the variants in their order.
        self.0[isa as usize].get_or_init(compute)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selects_the_requested_or_the_fastest_instruction_set() {
        let fastest = Isa::available().last();
        assert_eq!(Isa::select(None).ok(), fastest);
        assert_eq!(Isa::select(Some(OsStr::new(""))).ok(), fastest);
        for isa in Isa::ALL {
            let selected = Isa::select(Some(OsStr::new(isa.name())));
            if isa.is_available() {
                assert_eq!(selected, Ok(isa));
            } else {
                let message = selected.unwrap_err();
                assert!(message.contains("not available") && message.contains("scalar"), "{message}");
            }
        }
    }

    #[test]
    fn unknown_instruction_set_is_an_error_that_lists_the_available_ones() {
        let message = Isa::select(Some(OsStr::new("AVX"))).unwrap_err();
        assert!(message.starts_with("KINOPROBE_SIMD=AVX: unknown instruction set, use one of scalar"), "{message}");
    }
}
