//! Losses, optimizers, schedules and the BiLSTM compared with PyTorch, on the values of tests/goldens/training.py.

use ndarray::{Array2, Axis};
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;
use safetensors::SafeTensors;

use super::{matrix, one_hot, values, vector};
use crate::classify::bilstm::lstm::LstmDirection;
use crate::classify::bilstm::network::{BilstmNetwork, SequencePooling, restore_clip_order};
use crate::classify::bilstm::sequences::{PackedBatch, SequenceWindow};
use crate::classify::layers::{Dropout, LayerNorm, Linear, Parameter};
use crate::classify::loss::Loss;
use crate::classify::numeric::Real;
use crate::classify::optimizer::Optimizer;
use crate::classify::schedule::Schedule;
use crate::classify::{OptimizerKind, OptimizerSettings, ScheduleKind, ScheduleSettings, SequenceSample};
use crate::dataset::Dataset;

const TRAINING: &[u8] = include_bytes!("../../../fixtures/training.safetensors");
const BILSTM: &[u8] = include_bytes!("../../../fixtures/bilstm.safetensors");

#[test]
fn losses_match_pytorch() {
    let file = SafeTensors::deserialize(TRAINING).unwrap();
    let logits: Array2<f64> = matrix(&file, "loss.logits");
    let several: Array2<f32> = matrix(&file, "loss.targets");
    let one = one_hot(&values(&file, "loss.classes").1, logits.ncols());
    let weights = values(&file, "loss.weights").1;
    let asymmetric =
        |gamma_positive, gamma_negative, margin| Loss::Asymmetric { gamma_positive, gamma_negative, margin };
    for (name, loss) in [
        ("bce", Loss::BinaryCrossEntropy { positive: None }),
        ("bce_weighted", Loss::BinaryCrossEntropy { positive: Some(weights.clone()) }),
        ("cross_entropy", Loss::CrossEntropy { weights: None }),
        ("cross_entropy_weighted", Loss::CrossEntropy { weights: Some(weights) }),
        ("asymmetric", asymmetric(0.0, 4.0, 0.05)),
        ("asymmetric_both", asymmetric(1.0, 2.5, 0.2)),
        ("focal", Loss::Focal { gamma: 2.0, alpha: 0.25 }),
        ("focal_half", Loss::Focal { gamma: 0.5, alpha: 0.7 }),
    ] {
        let targets = if name.starts_with("cross") { &one } else { &several };
        let expected = values(&file, &format!("loss.{name}.value")).1[0];
        let mut gradient = logits.clone();
        let value = loss.gradient(gradient.view_mut(), targets.view());
        assert!((value - expected).abs() < 1e-12 * expected.abs().max(1.0), "{name}: {value} vs. {expected}");
        assert_eq!(loss.value(logits.view(), targets.view()), value, "{name}");
        let theirs: Array2<f64> = matrix(&file, &format!("loss.{name}.gradient"));
        let distance = (&gradient - &theirs).iter().fold(0f64, |max, d| max.max(d.abs()));
        assert!(distance < 1e-12, "{name}: gradient {distance:e}");
        // In single precision.
        let mut single = logits.mapv(|z| z as f32);
        loss.gradient(single.view_mut(), targets.view());
        assert!(single.iter().zip(&theirs).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-7), "{name}");
    }
}

#[test]
fn ten_steps_of_every_optimizer_match_pytorch() {
    let file = SafeTensors::deserialize(TRAINING).unwrap();
    let gradients: Array2<f64> = matrix(&file, "optimizer.gradients");
    let sgd = |momentum, nesterov| (OptimizerKind::Sgd, momentum, nesterov);
    for (name, (kind, momentum, nesterov)) in [
        ("adamw", (OptimizerKind::Adamw, 0.9, false)),
        ("adam", (OptimizerKind::Adam, 0.9, false)),
        ("sgd", sgd(0.0, false)),
        ("momentum", sgd(0.9, false)),
        ("nesterov", sgd(0.9, true)),
    ] {
        let settings = OptimizerSettings { kind, learning_rate: 0.05, weight_decay: 0.1, momentum, nesterov };
        let expected: Array2<f64> = matrix(&file, &format!("optimizer.{name}"));
        let mut ours = values(&file, "optimizer.start").1;
        let mut optimizer = Optimizer::new(&settings);
        for (gradient, theirs) in gradients.rows().into_iter().zip(expected.rows()) {
            let gradient = gradient.to_vec();
            optimizer.step(&mut [Parameter { values: &mut ours, gradient: &gradient }], 0.05, 1);
            assert!(ours.iter().zip(theirs).all(|(a, b)| (a - b).abs() < 1e-12), "{name}");
        }
    }
}

#[test]
fn schedules_match_pytorch() {
    let file = SafeTensors::deserialize(TRAINING).unwrap();
    let base = ScheduleSettings { step_every: 5, step_factor: 0.3, ..ScheduleSettings::default() };
    for (name, kind, warm_up) in
        [("step", ScheduleKind::Step, 0), ("cosine", ScheduleKind::Cosine, 0), ("warm_cosine", ScheduleKind::Cosine, 3)]
    {
        let schedule = Schedule::new(&ScheduleSettings { kind, warm_up, ..base.clone() }, 0.02, 12);
        for (epoch, theirs) in values(&file, &format!("schedule.{name}")).1.into_iter().enumerate() {
            let ours = schedule.rate(epoch, 0, 1);
            assert!((ours - theirs).abs() < 1e-15, "{name}, epoch {epoch}: {ours} vs. {theirs}");
        }
    }
    let constant = Schedule::new(&ScheduleSettings { kind: ScheduleKind::Constant, warm_up: 1, ..base }, 0.02, 12);
    let rates: Vec<f64> =
        (0..2).flat_map(|epoch| (0..2).map(move |step| (epoch, step))).map(|(e, s)| constant.rate(e, s, 2)).collect();
    assert_eq!(rates, [0.01, 0.02, 0.02, 0.02]);
}

/// Computes the largest differences from PyTorch's loss and gradients.
fn bilstm_distance_to_pytorch<T: Real>(
    prefix: &str,
    pooling: SequencePooling,
    window: SequenceWindow,
    loss: &Loss,
) -> (f64, f64) {
    let file = SafeTensors::deserialize(BILSTM).unwrap();
    let name = |key: &str| format!("{prefix}.{key}");
    let direction = |suffix: &str| {
        LstmDirection::from_parameters(
            matrix(&file, &name(&format!("lstm.weight_ih_l0{suffix}"))),
            matrix(&file, &name(&format!("lstm.weight_hh_l0{suffix}"))),
            vector(&file, &name(&format!("lstm.bias_ih_l0{suffix}"))),
            vector(&file, &name(&format!("lstm.bias_hh_l0{suffix}"))),
            !suffix.is_empty(),
        )
    };
    let norm = window
        .pad
        .then(|| LayerNorm::from_parameters(vector(&file, &name("norm.weight")), vector(&file, &name("norm.bias"))));
    let linear = Linear::from_parameters(matrix(&file, &name("linear.weight")), vector(&file, &name("linear.bias")));
    let mut network = BilstmNetwork::<T>::from_layers(norm, [direction(""), direction("_reverse")], pooling, linear, 2);
    let mut offsets = vec![0];
    offsets.extend(values(&file, "lengths").1.iter().scan(0, |sum, length| {
        *sum += *length as usize;
        Some(*sum)
    }));
    let (clips, targets) = (offsets.len() - 1, matrix::<f32>(&file, "targets"));
    // A data set holds f32 rows, so it gets row numbers, which the batch replaces by the rows of type T.
    let rows: Array2<T> = matrix(&file, "rows");
    let data = Dataset {
        ids: (0..clips).map(|i| i.to_string()).collect(),
        groups: vec![None; clips],
        rows: Array2::from_shape_fn(rows.dim(), |(row, _)| row as f32 + 1.0).into(),
        offsets,
        classes: vec![String::new(); targets.ncols()],
        targets,
    };
    let mut batch = PackedBatch::<T>::new(&data, &(0..clips).collect::<Vec<_>>(), window, None).unwrap();
    for mut row in batch.rows.rows_mut() {
        if row[0] > T::zero() {
            row.assign(&rows.row(row[0].double() as usize - 1));
        }
    }
    let targets = data.targets.select(Axis(0), &batch.order);
    let mut dropout = Dropout::new(0.0, Xoshiro256PlusPlus::seed_from_u64(0));
    let mut logits = Array2::zeros(targets.dim());
    let value = network.train_step(&batch, targets.view(), loss, &mut dropout, logits.view_mut());
    assert_eq!(network.logits(&batch), logits);
    let mut ordered = Array2::zeros(logits.dim());
    restore_clip_order(logits.mapv(|z| z.double() as f32).view(), &batch.order, ordered.view_mut());
    let theirs: Array2<f32> = matrix(&file, &name("logits"));
    assert!((&ordered - &theirs).iter().all(|d| d.abs() < 1e-6));

    let loss_distance = (value - values(&file, &name("loss")).1[0]).abs();
    let mut keys = if window.pad { vec!["norm.weight", "norm.bias"] } else { vec![] };
    keys.extend(["lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.bias_ih_l0", "lstm.bias_hh_l0"]);
    keys.extend(["lstm.weight_ih_l0_reverse", "lstm.weight_hh_l0_reverse"]);
    keys.extend(["lstm.bias_ih_l0_reverse", "lstm.bias_hh_l0_reverse", "linear.weight", "linear.bias"]);
    let parameters = network.parameters();
    assert_eq!(parameters.len(), keys.len());
    let mut gradient_distance = 0f64;
    for (parameter, key) in parameters.iter().zip(keys) {
        let theirs = values(&file, &name(&format!("gradient.{key}"))).1;
        assert_eq!(parameter.gradient.len(), theirs.len(), "{key}");
        let distances = parameter.gradient.iter().zip(&theirs).map(|(a, b)| (a.double() - b).abs());
        gradient_distance = distances.fold(gradient_distance, f64::max);
    }
    (loss_distance, gradient_distance)
}

#[test]
fn bilstm_matches_pytorch() {
    let window = |length, pad| SequenceWindow { length, sample: SequenceSample::Truncate, pad };
    let asymmetric = Loss::Asymmetric { gamma_positive: 0.0, gamma_negative: 4.0, margin: 0.05 };
    let entropy = Loss::BinaryCrossEntropy { positive: None };
    for (prefix, pooling, window, loss) in [
        ("max", SequencePooling::MaxOverTime, window(7, false), asymmetric),
        ("compat", SequencePooling::LastStep, window(8, true), entropy),
    ] {
        let exact = bilstm_distance_to_pytorch::<f64>(prefix, pooling, window, &loss);
        assert!(exact.0 < 1e-12 && exact.1 < 1e-12, "{prefix}, f64: {exact:?}");
        let single = bilstm_distance_to_pytorch::<f32>(prefix, pooling, window, &loss);
        assert!(single.0 < 1e-6 && single.1 < 1e-6, "{prefix}, f32: {single:?}");
        println!("{prefix}: loss and gradients within {exact:?} (f64) and {single:?} (f32) of PyTorch");
    }
}

#[test]
fn early_stopping_and_the_kept_epoch_may_use_different_metrics() {
    use crate::classify::{
        ClassifierSettings, FitContext, FitSettings, MlpSettings, Trainer, TrainingSettings, ValidationMetric, build,
    };
    use crate::dataset::Task;
    use rand::Rng;

    let mut random = Xoshiro256PlusPlus::seed_from_u64(5);
    let mut clips = |count: usize| {
        let rows = Array2::from_shape_fn((count, 12), |_| random.gen_range(-1.0..1.0f32));
        // Noisy labels, so that training soon overfits and the validation loss rises.
        let noise = Array2::from_shape_fn((count, 3), |_| random.gen_range(-1.2..1.2f32));
        let targets = Array2::from_shape_fn((count, 3), |(i, c)| f32::from(rows[(i, c)] + noise[(i, c)] > 0.3));
        super::dataset(rows.view(), targets)
    };
    let (train, valid) = (clips(40), clips(25));
    let fit = |watch: ValidationMetric, keep: Option<ValidationMetric>, task: Task| {
        let settings = FitSettings {
            trainer: Trainer {
                training: TrainingSettings { batch: 8, epochs: 100, patience: 6, watch, keep },
                ..Trainer::default()
            },
            ..FitSettings::new(ClassifierSettings::Mlp(MlpSettings { hidden: vec![32], dropout: 0.0 }))
        };
        let mut ignore = |_: &_| {};
        let mut context = FitContext::new(0, task, 1, &mut ignore);
        build(&settings).fit(&train, &valid, &mut context)
    };
    let first =
        |values: Vec<f64>| (0..values.len()).rev().min_by(|&a, &b| values[a].total_cmp(&values[b])).unwrap() + 1;
    let fitted = fit(ValidationMetric::Loss, Some(ValidationMetric::Score), Task::MultiLabel).unwrap();
    let lowest = first(fitted.curves.iter().map(|epoch| epoch.val_loss).collect());
    let highest = fitted.curves.iter().map(|epoch| epoch.val_score).fold(0.0, f64::max);
    let kept = fitted.kept_epoch.unwrap();
    assert_eq!(fitted.curves.len(), lowest + 6, "patience counts from the epoch with the lowest loss");
    assert_eq!(fitted.curves[kept - 1].val_score, highest);
    assert_ne!(kept, lowest, "the test needs two different epochs");
    let same = fit(ValidationMetric::Loss, None, Task::MultiLabel).unwrap();
    assert_eq!(same.kept_epoch, Some(lowest), "`keep` defaults to `watch`");

    let binary = fit(ValidationMetric::Loss, Some(ValidationMetric::BinaryAccuracy), Task::MultiLabel).unwrap();
    let scores = binary.model.scores(&valid).unwrap();
    let correct = scores.iter().zip(&valid.targets).filter(|&(&s, &t)| (s >= 0.5) == (t > 0.0)).count();
    let other_scores = fitted.model.scores(&valid).unwrap();
    let other = other_scores.iter().zip(&valid.targets).filter(|&(&s, &t)| (s >= 0.5) == (t > 0.0)).count();
    assert!(correct >= other, "the kept epoch has the highest binary accuracy: {correct} vs. {other}");
    let refused = fit(ValidationMetric::Loss, Some(ValidationMetric::BinaryAccuracy), Task::SingleLabel).err().unwrap();
    assert!(refused.to_string().contains("binary-accuracy"), "{refused}");
}
