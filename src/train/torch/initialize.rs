//! Initial values of networks that are trained from scratch: those of the constructors that define the architectures in
//! PyTorch. The random numbers are our own, so that they depend on the seed and the parameter's name only.

use kinoprobe::error::{Error, Result};
use kinoprobe::models::graph::{Parameter, Role};
use kinoprobe::models::nets::Architecture;
use kinoprobe::models::seeded;
use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// Distribution of the initial values of a parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Distribution {
    Constant(f64),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Uniform between −x and x.
    Uniform(f64),
}

/// Computes the initial values of all `parameters` of an architecture, or of a classifier head (`None`), in their order:
///
/// - ResNet and R(2+1)D, as in torchvision: convolutions by `kaiming_normal_(mode="fan_out", nonlinearity="relu")`;
/// - ConvNeXt, as in torchvision: standard deviation 0.02 (Liu et al. 2022), biases 0, layer scale 1e-6. The truncation at ±2
///   has no effect at this deviation;
/// - EfficientNet-Lite and classifier heads: PyTorch's default, uniform with bound 1 / √fan_in for weights and biases;
/// - CLIP, as in `transformers`: deviations by width and depth (Radford et al. 2021, section 2.5).
///
/// Normalizations are the identity.
///
/// # Errors
/// Returns an error for TransNet V2, which cannot be trained.
pub(super) fn values(architecture: Option<Architecture>, parameters: &[Parameter], seed: u64) -> Result<Vec<Vec<f32>>> {
    let initial = |parameter: &Parameter| {
        let weight = format!("{}.weight", parameter.name.strip_suffix(".bias").unwrap_or(&parameter.name));
        let layer = parameters.iter().find(|other| other.name == weight).unwrap_or(parameter);
        Ok(sample(distribution(architecture, parameter, fan_in(layer))?, parameter, seed))
    };
    parameters.iter().map(initial).collect()
}

/// Number of inputs of each output of a convolution or linear layer with this weight.
fn fan_in(weight: &Parameter) -> usize {
    weight.shape.iter().skip(1).product()
}

fn distribution(architecture: Option<Architecture>, parameter: &Parameter, fan_in: usize) -> Result<Distribution> {
    match parameter.role {
        Role::NormScale | Role::RunningVariance => return Ok(Distribution::Constant(1.0)),
        Role::NormShift | Role::RunningMean => return Ok(Distribution::Constant(0.0)),
        _ => {}
    }
    let bound = Distribution::Uniform(1.0 / (fan_in as f64).sqrt());
    Ok(match architecture {
        None | Some(Architecture::EfficientNetLite2) => bound,
        Some(
            Architecture::ResNet18 | Architecture::ResNet50 | Architecture::R2Plus1D18 | Architecture::R2Plus1DTiny,
        ) => match parameter.role {
            Role::Bias => Distribution::Constant(0.0),
            _ => {
                let fan_out = parameter.shape[0] * parameter.shape[2..].iter().product::<usize>();
                Distribution::Normal((2.0 / fan_out as f64).sqrt())
            }
        },
        Some(Architecture::ConvNextBase) => match parameter.role {
            Role::Bias => Distribution::Constant(0.0),
            Role::LayerScale => Distribution::Constant(1e-6),
            _ => Distribution::Normal(0.02),
        },
        Some(Architecture::ClipVitB32) => clip(parameter),
        Some(Architecture::TransNetV2) => {
            return Err(Error::Data("transnet_v2 has no default initialization: it cannot be trained".into()));
        }
    })
}

fn clip(Parameter { name, role, .. }: &Parameter) -> Distribution {
    const WIDTH: f64 = 768.0;
    const LAYERS: f64 = 12.0;
    let output = 1.0 / (WIDTH * 2.0 * LAYERS).sqrt();
    match name.as_str() {
        _ if *role == Role::Bias => Distribution::Constant(0.0),
        name if name.ends_with("patch_embedding.weight") || name.contains("position_embedding") => {
            Distribution::Normal(0.02)
        }
        name if name.ends_with("fc1.weight") => Distribution::Normal(1.0 / (2.0 * WIDTH).sqrt()),
        name if name.ends_with("fc2.weight") => Distribution::Normal(output),
        name if ["q_proj", "k_proj", "v_proj"].iter().any(|layer| name.contains(layer)) => Distribution::Normal(output),
        _ => Distribution::Normal(1.0 / WIDTH.sqrt()),
    }
}

fn sample(distribution: Distribution, Parameter { name, shape, .. }: &Parameter, seed: u64) -> Vec<f32> {
    let count = shape.iter().product();
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seeded::state(name, seed));
    // Multiples of 2⁻⁵³ in [0, 1).
    let mut uniform = || (random.r#gen::<u64>() >> 11) as f64 / (1u64 << 53) as f64;
    match distribution {
        Distribution::Constant(value) => vec![value as f32; count],
        Distribution::Uniform(bound) => (0..count).map(|_| ((2.0 * uniform() - 1.0) * bound) as f32).collect(),
        Distribution::Normal(deviation) => {
            // Box and Muller 1958: two uniform values give two normal ones.
            let mut values = Vec::with_capacity(count + 1);
            while values.len() < count {
                let radius = (-2.0 * (1.0 - uniform()).ln()).sqrt() * deviation;
                let (sine, cosine) = (std::f64::consts::TAU * uniform()).sin_cos();
                values.extend([(radius * cosine) as f32, (radius * sine) as f32]);
            }
            values.truncate(count);
            values
        }
    }
}
