//! Checkpoints: the state of training after an epoch, from which it continues as if it had not been interrupted.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use kinoprobe::classify::training::Validation;
use kinoprobe::error::{Error, Result};
use kinoprobe::evaluate::Epoch;
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use super::torch::{load, save};

/// Name of the checkpoint in the directory of a run.
pub const CHECKPOINT_FILE: &str = "checkpoint.safetensors";
/// Name of the network of the best epoch so far.
pub const NETWORK_FILE: &str = "network.safetensors";
/// Key of the metadata of the file.
const METADATA_KEY: &str = "kinoprobe";

/// A complete epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "StoredRecord", into = "StoredRecord")]
pub struct EpochRecord {
    /// Losses, scores and learning rate.
    pub epoch: Epoch,
    /// Measurements on the validation split; `None` without validation clips.
    pub validation: Option<Validation>,
    /// Mean loss of the rotation task, if any.
    pub rotation_loss: Option<f64>,
    /// Training windows (frames for 2-D networks) per second.
    pub windows_per_second: f64,
    /// Share of the training time spent waiting for data, in [0, 1].
    pub waiting: f64,
    /// Seconds of training and validation.
    pub seconds: f64,
}

/// [`EpochRecord`] in JSON, which has no NaN: missing scores are null.
#[derive(Clone, Serialize, Deserialize)]
struct StoredRecord {
    epoch: usize,
    /// Training loss and score, validation loss and score, learning rate.
    values: [Option<f64>; 5],
    /// Loss, score and binary accuracy.
    validation: Option<[Option<f64>; 3]>,
    rotation_loss: Option<f64>,
    windows_per_second: f64,
    waiting: f64,
    seconds: f64,
    /// Unix time.
    time: f64,
}

impl From<EpochRecord> for StoredRecord {
    fn from(record: EpochRecord) -> Self {
        let finite = |value: f64| Some(value).filter(|value| value.is_finite());
        let EpochRecord { epoch, validation, rotation_loss, windows_per_second, waiting, seconds } = record;
        let Epoch { train_loss, train_score, val_loss, val_score, learning_rate, .. } = epoch;
        Self {
            epoch: epoch.epoch,
            values: [train_loss, train_score, val_loss, val_score, learning_rate].map(finite),
            validation: validation
                .map(|Validation { loss, score, binary_accuracy }| [loss, score, binary_accuracy].map(finite)),
            rotation_loss,
            windows_per_second,
            waiting,
            seconds,
            time: epoch.time,
        }
    }
}

impl From<StoredRecord> for EpochRecord {
    fn from(stored: StoredRecord) -> Self {
        let or_nan = |value: Option<f64>| value.unwrap_or(f64::NAN);
        let StoredRecord { epoch, values, validation, rotation_loss, windows_per_second, waiting, seconds, time } =
            stored;
        let [train_loss, train_score, val_loss, val_score, learning_rate] = values.map(or_nan);
        let validation = validation.map(|values| {
            let [loss, score, binary_accuracy] = values.map(or_nan);
            Validation { loss, score, binary_accuracy }
        });
        let epoch = Epoch { epoch, train_loss, train_score, val_loss, val_score, learning_rate, time };
        Self { epoch, validation, rotation_loss, windows_per_second, waiting, seconds }
    }
}

/// What a checkpoint contains besides tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointHeader {
    /// The recipe as TOML, without the number of epochs and the patience, which may differ when training continues.
    pub recipe: String,
    /// What else must be the same when training continues, by name: the clips, the classes.
    pub inputs: BTreeMap<String, String>,
    /// The complete epochs.
    pub history: Vec<EpochRecord>,
}

impl CheckpointHeader {
    /// Checks that training can continue with this recipe and these inputs.
    ///
    /// # Errors
    /// Returns an error that lists what differs.
    pub fn check(&self, path: &Path, recipe: &str, inputs: &BTreeMap<String, String>) -> Result<()> {
        let mut differences: Vec<String> = self
            .inputs
            .iter()
            .filter(|(name, value)| inputs.get(*name) != Some(value))
            .map(|(name, _)| name.clone())
            .collect();
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let (stored, requested) = (lines(&self.recipe), lines(recipe));
        let only = |a: &[String], b: &[String]| a.iter().filter(|line| !b.contains(line)).cloned().collect::<Vec<_>>();
        let (removed, added) = (only(&stored, &requested), only(&requested, &stored));
        if stored != requested {
            differences.push(format!("recipe ({} instead of {})", shown(&added), shown(&removed)));
        }
        if differences.is_empty() {
            return Ok(());
        }
        let message = format!("was trained with other settings, {}: choose another --out", differences.join(", "));
        Err(Error::Config { path: path.to_path_buf(), message })
    }
}

fn shown(lines: &[String]) -> String {
    if lines.is_empty() { "nothing".into() } else { lines.join("; ") }
}

/// Returns the path of the checkpoint of a run's directory.
pub fn path(directory: &Path) -> PathBuf {
    directory.join(CHECKPOINT_FILE)
}

/// Writes the checkpoint of a run, replacing that of the epoch before.
///
/// # Errors
/// Returns an error if the file cannot be written; the checkpoint of the epoch before remains.
pub fn write(directory: &Path, header: &CheckpointHeader, state: &[(String, Tensor)]) -> Result<()> {
    let header = serde_json::to_string(header).expect("a header serializes to JSON");
    save(&path(directory), state, &HashMap::from([(METADATA_KEY.to_string(), header)]))
}

/// Reads the header of the checkpoint of a run; `None` if there is none.
///
/// # Errors
/// Returns an error if the file cannot be read or is not a checkpoint.
pub fn read_header(directory: &Path) -> Result<Option<CheckpointHeader>> {
    let path = path(directory);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(&path)(error)),
    };
    let invalid = |message: String| Error::Weights { path: path.clone(), message };
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| invalid(error.to_string()))?;
    let header = metadata.metadata().as_ref().and_then(|metadata| metadata.get(METADATA_KEY));
    let header = header.ok_or_else(|| invalid("not a checkpoint of kinoprobe-train".into()))?;
    let other =
        |error| invalid(format!("a checkpoint of another version of kinoprobe ({error}): choose another --out"));
    serde_json::from_str(header).map(Some).map_err(other)
}

/// Reads the state of the checkpoint of a run.
///
/// # Errors
/// Returns an error if the file cannot be read or is damaged.
pub fn read_state(directory: &Path, device: Device) -> Result<BTreeMap<String, Tensor>> {
    load(&path(directory), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_of_other_versions_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let metadata = HashMap::from([(METADATA_KEY.to_string(), "{}".to_string())]);
        save(&path(directory.path()), &[], &metadata).unwrap();
        let message = read_header(directory.path()).unwrap_err().to_string();
        assert!(message.contains("another version of kinoprobe (missing field"), "{message}");
    }
}
