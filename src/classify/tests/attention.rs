//! Classifiers with attention compared with PyTorch, on the values of tests/goldens/attention.py.

use ndarray::Array2;
use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use safetensors::SafeTensors;

use super::{matrix, values, vector};
use crate::classify::attentive::network::AttentiveNetwork;
use crate::classify::clip_rows::ClipRows;
use crate::classify::layers::{Attention, Dropout, LayerNorm, Linear, Parameter};
use crate::classify::loss::Loss;
use crate::classify::numeric::Real;
use crate::classify::optimizer::Optimizer;
use crate::classify::transformer::network::{TransformerLayers, TransformerNetwork, TransformerSizes};
use crate::classify::{
    AttentiveSettings, ClassifierDefinition, ClassifierKind, ClassifierSettings, FitContext, FitSettings,
    OptimizerSettings, Tensors, build, restore,
};
use crate::dataset::Task;

const ATTENTION: &[u8] = include_bytes!("../../../fixtures/attention.safetensors");

/// The tensors of one network.
struct Golden {
    file: SafeTensors<'static>,
    prefix: &'static str,
}

impl Golden {
    fn new(prefix: &'static str) -> Self {
        Self { file: SafeTensors::deserialize(ATTENTION).unwrap(), prefix }
    }

    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.prefix)
    }

    fn batch<T: Real>(&self) -> ClipRows<T> {
        let mut offsets = vec![0];
        offsets.extend(values(&self.file, "lengths").1.iter().scan(0, |sum, length| {
            *sum += *length as usize;
            Some(*sum)
        }));
        ClipRows { rows: matrix(&self.file, "rows"), offsets }
    }

    fn linear<T: Real>(&self, key: &str) -> Linear<T> {
        let name = |kind: &str| self.name(&format!("{key}.{kind}"));
        Linear::from_parameters(matrix(&self.file, &name("weight")), vector(&self.file, &name("bias")))
    }

    fn norm<T: Real>(&self, key: &str) -> LayerNorm<T> {
        let name = |kind: &str| self.name(&format!("{key}.{kind}"));
        LayerNorm::from_parameters(vector(&self.file, &name("weight")), vector(&self.file, &name("bias")))
    }

    fn attention<T: Real>(&self, key: &str, heads: usize) -> Attention<T> {
        let output = self.linear::<T>(&format!("{key}.out_proj"));
        let (width, biases) = (output.bias.len(), vector::<T>(&self.file, &self.name(&format!("{key}.in_proj_bias"))));
        let [query, key, value] = [(0, "q"), (1, "k"), (2, "v")].map(|(i, projection)| {
            let weight = matrix(&self.file, &self.name(&format!("{key}.{projection}_proj_weight")));
            Linear::from_parameters(weight, biases.slice(ndarray::s![i * width..(i + 1) * width]).to_owned())
        });
        Attention::from_layers(query, key, value, output, heads)
    }

    /// Returns the values of `kind` for the parameters `keys`, in order. `in_proj_bias.q` is the first third of `in_proj_bias`.
    fn parameters(&self, kind: &str, keys: &[String]) -> Vec<Vec<f64>> {
        let values = |key: &str| values(&self.file, &self.name(&format!("{kind}{key}"))).1;
        keys.iter()
            .map(|key| match key.rsplit_once("in_proj_bias.") {
                None => values(key),
                Some((layer, projection)) => {
                    let biases = values(&format!("{layer}in_proj_bias"));
                    let (width, i) = (biases.len() / 3, "qkv".find(projection).unwrap());
                    biases[i * width..(i + 1) * width].to_vec()
                }
            })
            .collect()
    }
}

/// The names of the parameters of an attention layer, in the order of [`Attention::parameters`].
fn attention_keys(layer: &str) -> Vec<String> {
    let projections = ["q", "k", "v"].into_iter().flat_map(|projection| {
        [format!("{layer}.{projection}_proj_weight"), format!("{layer}.in_proj_bias.{projection}")]
    });
    projections.chain(["weight", "bias"].map(|key| format!("{layer}.out_proj.{key}"))).collect()
}

fn names(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|key| key.to_string()).collect()
}

/// Runs three training steps and returns the largest differences from PyTorch: of the logits, loss and gradients of the first step,
/// and of the parameters after the last one.
fn distances<T: Real, N>(
    golden: &Golden,
    mut network: N,
    keys: &[String],
    train_step: impl Fn(&mut N, &ClipRows<T>, &Array2<f32>, &Loss, &mut Dropout, &mut Array2<T>) -> f64,
    parameters: impl for<'a> Fn(&'a mut N) -> Vec<Parameter<'a, T>>,
) -> (f64, f64) {
    let (batch, targets) = (golden.batch::<T>(), matrix::<f32>(&golden.file, "targets"));
    let loss = Loss::BinaryCrossEntropy { positive: None };
    let mut dropout = Dropout::new(0.0, Xoshiro256PlusPlus::seed_from_u64(0));
    let mut optimizer =
        Optimizer::new(&OptimizerSettings { learning_rate: 0.01, weight_decay: 0.01, ..OptimizerSettings::default() });
    let mut first = 0f64;
    for step in 0..3 {
        let mut logits = Array2::zeros(targets.dim());
        let value = train_step(&mut network, &batch, &targets, &loss, &mut dropout, &mut logits);
        if step == 0 {
            let theirs: Array2<f64> = matrix(&golden.file, &golden.name("logits"));
            let distances = logits.iter().zip(&theirs).map(|(a, b)| (a.double() - b).abs());
            first = distances.fold((value - values(&golden.file, &golden.name("loss")).1[0]).abs(), f64::max);
            let found = parameters(&mut network);
            assert_eq!(found.len(), keys.len());
            for ((parameter, theirs), key) in found.iter().zip(golden.parameters("gradient.", keys)).zip(keys) {
                assert_eq!(parameter.gradient.len(), theirs.len(), "{key}");
                let distances = parameter.gradient.iter().zip(&theirs).map(|(a, b)| (a.double() - b).abs());
                first = distances.fold(first, f64::max);
            }
        }
        optimizer.step(&mut parameters(&mut network), 0.01, 1);
    }
    let mut last = 0f64;
    for ((parameter, theirs), key) in parameters(&mut network).iter().zip(golden.parameters("after.", keys)).zip(keys) {
        // The exact gradient of b_k is 0. Adam divides its rounding errors in f32 by their size.
        if key.ends_with("in_proj_bias.k") && T::epsilon().double() > 1e-10 {
            continue;
        }
        let distances = parameter.values.iter().zip(&theirs).map(|(a, b)| (a.double() - b).abs());
        last = distances.fold(last, f64::max);
    }
    (first, last)
}

fn assert_close<T: Real>(a: &Array2<T>, b: &Array2<T>) {
    assert!(a.iter().zip(b).all(|(a, b)| (*a - *b).abs() < T::of(20.0) * T::epsilon()), "{a} vs. {b}");
}

fn attentive_distances<T: Real>(prefix: &'static str, heads: usize) -> (f64, f64) {
    let golden = Golden::new(prefix);
    let network = AttentiveNetwork::<T>::from_layers(
        matrix(&golden.file, &golden.name("query")),
        golden.attention("attention", heads),
        golden.norm("norm"),
        golden.linear("linear"),
        1,
    );
    let keys = [
        names(&["query"]),
        attention_keys("attention"),
        names(&["norm.weight", "norm.bias", "linear.weight", "linear.bias"]),
    ];
    distances(
        &golden,
        network,
        &keys.concat(),
        |network, batch, targets, loss, dropout, logits| {
            let value = network.train_step(batch, targets.view(), loss, dropout, logits.view_mut());
            assert_close(&network.logits(batch), logits);
            value
        },
        AttentiveNetwork::parameters,
    )
}

#[test]
fn attentive_probe_matches_pytorch() {
    for (prefix, heads) in [("attentive", 2), ("attentive.dim", 4)] {
        let exact = attentive_distances::<f64>(prefix, heads);
        assert!(exact.0 < 1e-12 && exact.1 < 1e-9, "{prefix}, f64: {exact:?}");
        let single = attentive_distances::<f32>(prefix, heads);
        // Adam divides gradients by their size, so that rounding errors of small gradients grow.
        assert!(single.0 < 1e-6 && single.1 < 1e-4, "{prefix}, f32: {single:?}");
        println!("{prefix}: within {exact:?} (f64) and {single:?} (f32) of PyTorch");
    }
}

fn transformer_distances<T: Real>(prefix: &'static str, heads: usize, threads: usize) -> (f64, f64) {
    let golden = Golden::new(prefix);
    let has = |key: &str| golden.file.names().iter().any(|name| **name == golden.name(key));
    let (projection, cls) = (has("projection.weight"), has("cls"));
    let layers = TransformerLayers {
        projection: projection.then(|| golden.linear("projection")),
        positions: matrix(&golden.file, &golden.name("positions")),
        cls: cls.then(|| matrix(&golden.file, &golden.name("cls"))),
        attention: golden.attention("layer.self_attn", heads),
        norm1: golden.norm("layer.norm1"),
        linear1: golden.linear("layer.linear1"),
        linear2: golden.linear("layer.linear2"),
        norm2: golden.norm("layer.norm2"),
        linear: golden.linear("linear"),
    };
    let layer = |key: &str| [format!("{key}.weight"), format!("{key}.bias")].to_vec();
    let keys = [
        if projection { layer("projection") } else { vec![] },
        names(&["positions"]),
        if cls { names(&["cls"]) } else { vec![] },
        attention_keys("layer.self_attn"),
        layer("layer.norm1"),
        layer("layer.linear1"),
        layer("layer.linear2"),
        layer("layer.norm2"),
        layer("linear"),
    ];
    distances(
        &golden,
        TransformerNetwork::<T>::from_layers(layers, threads),
        &keys.concat(),
        |network, batch, targets, loss, dropout, logits| {
            let value = network.train_step(batch, targets.view(), loss, dropout, logits.view_mut());
            assert_close(&network.logits(batch), logits);
            value
        },
        TransformerNetwork::parameters,
    )
}

#[test]
fn transformer_matches_pytorch() {
    for (prefix, heads) in [("transformer.mean", 3), ("transformer.cls", 2)] {
        let exact = transformer_distances::<f64>(prefix, heads, 1);
        assert!(exact.0 < 1e-12 && exact.1 < 1e-9, "{prefix}, f64: {exact:?}");
        assert_eq!(transformer_distances::<f64>(prefix, heads, 2), exact);
        let single = transformer_distances::<f32>(prefix, heads, 1);
        assert!(single.0 < 1e-6 && single.1 < 1e-4, "{prefix}, f32: {single:?}");
        println!("{prefix}: within {exact:?} (f64) and {single:?} (f32) of PyTorch");
    }
}

#[test]
fn logits_of_a_clip_do_not_depend_on_the_other_clips() {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(6);
    let (inputs, lengths) = (96, [5, 1, 40, 2, 17, 3, 1, 8, 9, 33, 4, 6]);
    let clips: Vec<Array2<f32>> = lengths
        .iter()
        .map(|&length| Array2::from_shape_simple_fn((length, inputs), || random.gen_range(-2.0..2.0f32)))
        .collect();
    let batch = |clips: &[Array2<f32>]| {
        let views: Vec<_> = clips.iter().map(|clip| clip.view()).collect();
        let mut offsets = vec![0];
        offsets.extend(clips.iter().scan(0, |sum, clip| {
            *sum += clip.nrows();
            Some(*sum)
        }));
        ClipRows { rows: ndarray::concatenate(ndarray::Axis(0), &views).unwrap(), offsets }
    };
    let check = |name: &str, logits: &dyn Fn(&ClipRows<f32>) -> Array2<f32>| {
        let together = logits(&batch(&clips));
        for first in 0..clips.len() {
            for count in [1, 2, 5] {
                let range = first..(first + count).min(clips.len());
                let few = logits(&batch(&clips[range.clone()]));
                assert_eq!(few, together.slice(ndarray::s![range.clone(), ..]), "{name}, clips {range:?}");
            }
        }
    };
    for heads in [1, 3, 8] {
        let network = AttentiveNetwork::new((inputs, inputs, 5), heads, &mut random, 1);
        check("attentive", &|batch| network.logits(batch));
        for cls in [false, true] {
            let sizes = TransformerSizes { inputs, width: 48, heads, hidden: 40, length: 40, outputs: 5 };
            let network = TransformerNetwork::new(sizes, cls, &mut random, 1);
            check("transformer", &|batch| network.logits(batch));
        }
    }
}

#[test]
fn models_with_one_unit_per_feature_are_restored_and_need_a_suitable_number_of_heads() {
    let (train, test) = super::parts(ClassifierKind::Attentive, Task::SingleLabel);
    let settings = |heads| FitSettings {
        classifier: ClassifierSettings::Attentive(AttentiveSettings { heads, ..AttentiveSettings::default() }),
        ..super::quick(ClassifierKind::Attentive, false)
    };
    let fitted = super::fit(&settings(2), Task::SingleLabel, &train, &test, 1);
    let tensors = Tensors::new("model".as_ref(), fitted.model.tensors());
    assert!(tensors.contains("attention.in_proj_weight") && !tensors.contains("attention.q_proj_weight"));
    let restored = restore(ClassifierKind::Attentive, Task::SingleLabel, &tensors).unwrap();
    assert_eq!(restored.scores(&test).unwrap(), fitted.model.scores(&test).unwrap());

    let mut progress = |_: &_| {};
    let mut context = FitContext::new(3, Task::SingleLabel, 1, &mut progress);
    let error = build(&settings(4)).fit(&train, &test, &mut context).err().unwrap().to_string();
    assert!(error.contains("6 features are not a multiple of 4 heads") && error.contains("--dim"), "{error}");
    let dim = AttentiveSettings { heads: 4, dim: Some(6), dropout: 0.0 };
    assert!(dim.validate().unwrap_err().contains("classify.attentive.dim"));
}
