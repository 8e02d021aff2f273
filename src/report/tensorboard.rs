//! TensorBoard event files: learning curves, and a precision-recall curve of each label.
//!
//! `tensorboard/train` and `tensorboard/val` contain the scalars `loss`, the score (`accuracy` or `mAP`) and `learning_rate` of
//! each epoch; `tensorboard/val` and `tensorboard/test` contain the precision-recall curve of each label in the format of
//! TensorBoard's `pr_curve` summary. A file is a TFRecord sequence: length, masked CRC-32C of the length, an `Event` message,
//! masked CRC-32C of the message.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::path::Path;

use prost::Message;

use super::TrainingRun;
use crate::error::{Error, Result};
use crate::evaluate::{Epoch, Predictions};

/// Number of thresholds of a precision-recall curve, from 0 to 1.
const THRESHOLDS: usize = 201;

#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since the Unix epoch.
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
    value: Vec<SummaryValue>,
}

#[derive(Clone, PartialEq, Message)]
struct SummaryValue {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
    #[prost(message, optional, tag = "8")]
    tensor: Option<TensorProto>,
    #[prost(message, optional, tag = "9")]
    metadata: Option<SummaryMetadata>,
}

#[derive(Clone, PartialEq, Message)]
struct SummaryMetadata {
    #[prost(message, optional, tag = "1")]
    plugin_data: Option<PluginData>,
    #[prost(string, tag = "2")]
    display_name: String,
    /// 2: `DATA_CLASS_TENSOR`.
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
struct PrCurvePluginData {
    #[prost(int32, tag = "1")]
    version: i32,
    #[prost(uint32, tag = "2")]
    num_thresholds: u32,
}

#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    /// 1: `DT_FLOAT`.
    #[prost(int32, tag = "1")]
    dtype: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<TensorShape>,
    #[prost(float, repeated, tag = "5")]
    values: Vec<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorShape {
    #[prost(message, repeated, tag = "2")]
    dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(int64, tag = "1")]
    size: i64,
}

/// Name of the file in the directory of each split.
pub(super) const FILE: &str = "events.out.tfevents.0.kinoprobe";

/// Events by the directory that they are written to.
type Events = BTreeMap<&'static str, Vec<Event>>;

/// Writes the event files of the complete epochs of a run to `dir`/tensorboard, while it is trained.
///
/// # Errors
/// Returns an error if a file cannot be read or written.
pub fn write_epochs(dir: &Path, score_name: &str, epochs: &[Epoch]) -> Result<()> {
    write_events(dir, epoch_events(score_name, epochs))
}

/// Writes the event files of a run with epochs to `dir`/tensorboard: those of its epochs, and precision-recall curves.
///
/// # Errors
/// Returns an error if a file cannot be read or written.
pub(super) fn write(dir: &Path, run: &TrainingRun) -> Result<()> {
    let mut events = epoch_events(run.score_name, &run.curves);
    let wall_time = run.curves.last().map_or(0.0, |epoch| epoch.time);
    let kept = run.best_epoch.unwrap_or(0);
    for (split, predictions) in &run.splits {
        let curves = (0..predictions.classes.len()).filter_map(|label| pr_curve(predictions, label));
        events.entry(split.name()).or_default().extend(curves.map(|value| event(wall_time, kept, value)));
    }
    write_events(dir, events)
}

/// Returns the scalars of epochs.
fn epoch_events(score_name: &str, epochs: &[Epoch]) -> Events {
    let mut events = Events::new();
    for epoch in epochs {
        let scalars = [
            ("train", "loss", epoch.train_loss),
            ("train", score_name, epoch.train_score),
            ("train", "learning_rate", epoch.learning_rate),
            ("val", "loss", epoch.val_loss),
            ("val", score_name, epoch.val_score),
        ];
        // Epochs without validation clips or labels have no such values.
        for (directory, tag, value) in scalars.into_iter().filter(|(_, _, value)| value.is_finite()) {
            let value = SummaryValue { tag: tag.into(), simple_value: Some(value as f32), ..SummaryValue::default() };
            events.entry(directory).or_default().push(event(epoch.time, epoch.epoch, value));
        }
    }
    events
}

fn event(wall_time: f64, step: usize, value: SummaryValue) -> Event {
    Event { wall_time, step: step as i64, summary: Some(Summary { value: vec![value] }), ..Event::default() }
}

fn write_events(dir: &Path, events: Events) -> Result<()> {
    for (name, events) in events {
        let directory = dir.join("tensorboard").join(name);
        std::fs::create_dir_all(&directory).map_err(Error::io(&directory))?;
        let path = directory.join(FILE);
        update(&path, &records(&events)).map_err(Error::io(&path))?;
    }
    Ok(())
}

/// Writes a file. If it has the first of these bytes already, the others are appended, since TensorBoard reads a growing file.
fn update(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let present = match std::fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        present => present?,
    };
    match bytes.strip_prefix(&present[..]) {
        Some(more) => std::fs::File::options().create(true).append(true).open(path)?.write_all(more),
        None => std::fs::write(path, bytes),
    }
}

/// Returns the counts TP, FP, TN and FN, precision and recall of a label at each threshold; scores of at least the threshold are
/// positive. Returns `None` if there are no scores.
fn pr_curve(predictions: &Predictions, label: usize) -> Option<SummaryValue> {
    let scores = predictions.scores.as_ref()?;
    let mut positives = [[0f32; THRESHOLDS]; 2]; // false positives, true positives
    for (truth, &score) in predictions.truth.iter().zip(scores.column(label)) {
        let has = usize::from(truth.contains(&label));
        let bucket = (score.clamp(0.0, 1.0) * (THRESHOLDS - 1) as f32) as usize;
        positives[has][..=bucket].iter_mut().for_each(|count| *count += 1.0);
    }
    let [fp, tp] = positives;
    let each = |of: &dyn Fn(usize) -> f32| (0..THRESHOLDS).map(of).collect::<Vec<f32>>();
    let ratio = |numerator: f32, denominator: f32| if denominator > 0.0 { numerator / denominator } else { 0.0 };
    let rows = [
        tp.to_vec(),
        fp.to_vec(),
        each(&|i| fp[0] - fp[i]),
        each(&|i| tp[0] - tp[i]),
        each(&|i| ratio(tp[i], tp[i] + fp[i])),
        each(&|i| ratio(tp[i], tp[0])),
    ];
    let dim = [rows.len(), THRESHOLDS].map(|size| Dimension { size: size as i64 }).to_vec();
    let content = PrCurvePluginData { version: 0, num_thresholds: THRESHOLDS as u32 }.encode_to_vec();
    let name = &predictions.classes[label];
    Some(SummaryValue {
        tag: format!("pr/{name}"),
        tensor: Some(TensorProto { dtype: 1, shape: Some(TensorShape { dim }), values: rows.concat() }),
        metadata: Some(SummaryMetadata {
            plugin_data: Some(PluginData { plugin_name: "pr_curves".into(), content }),
            display_name: name.clone(),
            data_class: 2,
        }),
        ..SummaryValue::default()
    })
}

/// Returns the records of a file.
fn records(events: &[Event]) -> Vec<u8> {
    let wall_time = events.first().map_or(0.0, |event| event.wall_time);
    let version = Event { wall_time, file_version: Some("brain.Event:2".into()), ..Event::default() };
    let mut bytes = Vec::new();
    for event in std::iter::once(&version).chain(events) {
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
