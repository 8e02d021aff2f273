//! Mixed precision on CUDA (Micikevicius et al. 2018).
#![allow(unsafe_code)]

use tch::Tensor;

use super::recipe::MixedPrecision;

/// First factor of the loss in fp16, as in `torch.amp.GradScaler`.
const INITIAL_SCALE: f32 = 65536.0;
/// Number of steps without overflow after which the factor is doubled.
const GROWTH_INTERVAL: f32 = 2000.0;

unsafe extern "C" {
    /// `at::autocast::set_autocast_dtype(c10::DeviceType, c10::ScalarType)`, which tch does not wrap. Both enumerations are bytes.
    #[link_name = "_ZN2at8autocast18set_autocast_dtypeEN3c1010DeviceTypeENS1_10ScalarTypeE"]
    fn set_autocast_dtype(device: i8, dtype: i8);
}

/// `c10::DeviceType::CUDA`.
const CUDA: i8 = 1;
/// `c10::ScalarType::Half` and `BFloat16`.
const HALF: i8 = 5;
const BFLOAT16: i8 = 15;

/// Runs a forward pass in a precision: operators on CUDA compute in bf16 or fp16 where PyTorch's autocast does.
pub(super) fn autocast<T>(precision: MixedPrecision, forward: impl FnOnce() -> T) -> T {
    let dtype = match precision {
        MixedPrecision::F32 => return forward(),
        MixedPrecision::Bf16 => BFLOAT16,
        MixedPrecision::F16 => HALF,
    };
    // SAFETY: the function sets a variable of this thread; the values are those of the enumerations of libtorch 2.11, to which
    // setup/libtorch-x86_64.txt pins the library.
    unsafe { set_autocast_dtype(CUDA, dtype) };
    tch::autocast(true, forward)
}

/// The factor of the loss in fp16, which keeps small gradients from becoming zero: it is halved after an overflow, whose step is
/// omitted, and doubled after 2000 steps without one, as `torch.amp.GradScaler` does.
#[derive(Debug)]
pub(super) struct LossScale {
    /// `None` if losses are not scaled.
    scale: Option<f32>,
    /// Number of steps since the last overflow or change.
    steps: f32,
}

impl LossScale {
    pub(super) fn new(enabled: bool) -> Self {
        Self { scale: enabled.then_some(INITIAL_SCALE), steps: 0.0 }
    }

    /// Multiplies a loss by the factor.
    pub(super) fn scaled(&self, loss: &Tensor) -> tch::Result<Tensor> {
        match self.scale {
            Some(scale) => loss.f_mul_scalar(f64::from(scale)),
            None => Ok(loss.shallow_clone()),
        }
    }

    /// Divides gradients by the factor. Returns `false` if one of them is not finite.
    pub(super) fn unscale(&self, gradients: impl Iterator<Item = Tensor>) -> tch::Result<bool> {
        let Some(scale) = self.scale else { return Ok(true) };
        let mut finite = true;
        for mut gradient in gradients {
            let unscaled = tch::no_grad(|| gradient.f_div_scalar_(f64::from(scale)))?;
            finite &= unscaled.f_sum(tch::Kind::Float).and_then(|sum| f64::try_from(&sum))?.is_finite();
        }
        Ok(finite)
    }

    /// Adjusts the factor after a step.
    pub(super) fn update(&mut self, finite: bool) {
        let Some(scale) = &mut self.scale else { return };
        self.steps += 1.0;
        if !finite {
            (*scale, self.steps) = (*scale / 2.0, 0.0);
        } else if self.steps >= GROWTH_INTERVAL {
            (*scale, self.steps) = (*scale * 2.0, 0.0);
        }
    }

    /// Returns the factor and the number of steps; empty without scaling.
    pub(super) fn state(&self) -> Vec<f32> {
        self.scale.map(|scale| vec![scale, self.steps]).unwrap_or_default()
    }

    /// Restores what [`LossScale::state`] returned.
    pub(super) fn restore(&mut self, state: &[f32]) {
        if let (Some(scale), &[saved, steps]) = (&mut self.scale, state) {
            (*scale, self.steps) = (saved, steps);
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    #[test]
    fn the_factor_is_halved_after_an_overflow_and_grows_slowly() {
        let mut scale = LossScale::new(true);
        let gradients = |value: f32| std::iter::once(Tensor::from_slice(&[value, 65536.0]));
        let first = Tensor::from_slice(&[65536.0_f32, 131072.0]);
        assert!(scale.unscale(std::iter::once(first.shallow_clone())).unwrap());
        assert_eq!(Vec::<f32>::try_from(&first).unwrap(), [1.0, 2.0]);
        assert!(!scale.unscale(gradients(f32::INFINITY)).unwrap());
        assert!(!scale.unscale(gradients(f32::NAN)).unwrap());
        scale.update(false);
        assert_eq!(scale.state(), [32768.0, 0.0]);
        for _ in 0..2000 {
            scale.update(true);
        }
        assert_eq!(scale.state(), [65536.0, 0.0]);
        let loss = Tensor::from(1.5).to_kind(Kind::Float);
        assert_eq!(f64::try_from(&scale.scaled(&loss).unwrap()).unwrap(), 98304.0);
        let mut restored = LossScale::new(true);
        restored.restore(&[8.0, 3.0]);
        assert_eq!(restored.state(), [8.0, 3.0]);
        assert_eq!(LossScale::new(false).state(), [0.0_f32; 0]);
    }
}
