//! Event files that TensorBoard opens: curves of a training, and precision-recall curves of every label.
//!
//! `tensorboard/train` and `tensorboard/val` hold the scalars `loss`, the score (`accuracy` or `mAP`) and `learning_rate` of
//! every epoch; `tensorboard/val` and `tensorboard/test` the precision-recall curve of each label, as TensorBoard's own
//! `pr_curve` summary makes it. A file is a row of records (length, its CRC, an `Event` in protobuf, its CRC); the CRCs are
//! CRC-32C, rotated and shifted ("masked") as TFRecord has them.

use std::path::Path;

use prost::Message;

use super::TrainingRun;
use crate::error::{Error, Result};
use crate::evaluate::Predictions;

/// Thresholds of a precision-recall curve, from 0 to 1.
const THRESHOLDS: usize = 201;

#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
    #[prost(message, optional, tag = "8")]
    tensor: Option<Tensor>,
    #[prost(message, optional, tag = "9")]
    metadata: Option<Metadata>,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(message, optional, tag = "1")]
    plugin_data: Option<PluginData>,
    #[prost(string, tag = "2")]
    display_name: String,
    /// 2: a tensor.
    #[prost(int32, tag = "4")]
    data_class: i32,
}

#[derive(Clone, PartialEq, Message)]
struct PluginData {
    #[prost(string, tag = "1")]
    plugin_name: String,
    #[prost(bytes = "vec", tag = "2")]
    content: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct CurveData {
    #[prost(int32, tag = "1")]
    version: i32,
    #[prost(uint32, tag = "2")]
    num_thresholds: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    /// 1: f32.
    #[prost(int32, tag = "1")]
    dtype: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
    #[prost(float, repeated, tag = "5")]
    values: Vec<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = "2")]
    dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(int64, tag = "1")]
    size: i64,
}

/// Writes the event files of a run with epochs into `dir`/tensorboard, replacing those of an earlier run.
///
/// # Errors
/// A file cannot be written.
pub fn write(dir: &Path, run: &TrainingRun) -> Result<()> {
    let scalar = |step: usize, tag: &str, value: f64| {
        let value = Value { tag: tag.into(), simple_value: Some(value as f32), ..Value::default() };
        (step as i64, value)
    };
    let last = run.best_epoch.unwrap_or(0) as i64;
    let mut train = Vec::new();
    let mut parts = std::collections::BTreeMap::<&str, Vec<(i64, Value)>>::new();
    for epoch in &run.curves {
        train.push(scalar(epoch.epoch, "loss", epoch.train_loss));
        train.push(scalar(epoch.epoch, run.score_name, epoch.train_score));
        train.push(scalar(epoch.epoch, "learning_rate", epoch.learning_rate));
        if epoch.val_loss.is_finite() {
            let val = parts.entry("val").or_default();
            val.push(scalar(epoch.epoch, "loss", epoch.val_loss));
            val.push(scalar(epoch.epoch, run.score_name, epoch.val_score));
        }
    }
    parts.insert("train", train);
    for (split, predictions) in &run.splits {
        let curves = (0..predictions.classes.len()).filter_map(|label| pr_curve(predictions, label));
        parts.entry(split.name()).or_default().extend(curves.map(|value| (last, value)));
    }
    for (name, values) in parts {
        let folder = dir.join("tensorboard").join(name);
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let path = folder.join("events.out.tfevents.0.kinoprobe");
        std::fs::write(&path, records(values)).map_err(Error::io(&path))?;
    }
    Ok(())
}

/// True and false positives, true and false negatives, precision and recall of the label at each threshold, a score of at
/// least the threshold saying yes; `None` where there are no scores.
fn pr_curve(predictions: &Predictions, label: usize) -> Option<Value> {
    let scores = predictions.scores.as_ref()?;
    let mut yes = [[0f32; THRESHOLDS]; 2]; // without the label, with it
    for (truth, &score) in predictions.truth.iter().zip(scores.column(label)) {
        let has = usize::from(truth.contains(&label));
        let bucket = (score.clamp(0.0, 1.0) * (THRESHOLDS - 1) as f32) as usize;
        yes[has][..=bucket].iter_mut().for_each(|count| *count += 1.0);
    }
    let [fp, tp] = yes;
    let each = |of: &dyn Fn(usize) -> f32| (0..THRESHOLDS).map(of).collect::<Vec<f32>>();
    let share = |part: f32, of: f32| if of > 0.0 { part / of } else { 0.0 };
    let rows = [
        tp.to_vec(),
        fp.to_vec(),
        each(&|i| fp[0] - fp[i]),
        each(&|i| tp[0] - tp[i]),
        each(&|i| share(tp[i], tp[i] + fp[i])),
        each(&|i| share(tp[i], tp[0])),
    ];
    let dim = [rows.len(), THRESHOLDS].map(|size| Dimension { size: size as i64 }).to_vec();
    let content = CurveData { version: 0, num_thresholds: THRESHOLDS as u32 }.encode_to_vec();
    let name = &predictions.classes[label];
    Some(Value {
        tag: format!("pr/{name}"),
        tensor: Some(Tensor { dtype: 1, shape: Some(Shape { dim }), values: rows.concat() }),
        metadata: Some(Metadata {
            plugin_data: Some(PluginData { plugin_name: "pr_curves".into(), content }),
            display_name: name.clone(),
            data_class: 2,
        }),
        ..Value::default()
    })
}

fn records(values: Vec<(i64, Value)>) -> Vec<u8> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let wall_time = now.map_or(0.0, |since| since.as_secs_f64());
    let first = Event { wall_time, file_version: Some("brain.Event:2".into()), ..Event::default() };
    let events = values.into_iter().map(|(step, value)| {
        let summary = Some(Summary { value: vec![value] });
        Event { wall_time, step, summary, ..Event::default() }
    });
    let mut bytes = Vec::new();
    for event in std::iter::once(first).chain(events) {
        let event = event.encode_to_vec();
        let length = (event.len() as u64).to_le_bytes();
        bytes.extend(length);
        bytes.extend(masked_crc(&length).to_le_bytes());
        bytes.extend(&event);
        bytes.extend(masked_crc(&event).to_le_bytes());
    }
    bytes
}

fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}
