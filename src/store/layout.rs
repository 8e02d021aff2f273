//! Names, types and provenance: what reader and writer agree on.

use std::path::Path;

use hdf5::types::VarLenUnicode;
use hdf5::{File, Group, H5Type};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What the rows of a store hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// One f32 vector a row.
    Features {
        /// Its length D.
        dim: usize,
    },
    /// Any number of u8 descriptors a row.
    Descriptors {
        /// The length D of each.
        dim: usize,
    },
}

impl Payload {
    /// The value of the attribute `format`.
    pub fn format(self) -> &'static str {
        match self {
            Payload::Features { .. } => "kinoprobe-features",
            Payload::Descriptors { .. } => "kinoprobe-descriptors",
        }
    }

    /// D.
    pub fn dim(self) -> usize {
        match self {
            Payload::Features { dim } | Payload::Descriptors { dim } => dim,
        }
    }
}

/// The version of the layout that this code reads and writes.
pub const FORMAT_VERSION: i64 = 1;

/// How a store was made: its root attributes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Provenance {
    /// The recipe's name.
    pub method: String,
    /// The network or algorithm.
    pub model: String,
    /// Which weights: `published`, `registry`, `file`, `seeded` (untrained), or `none` for algorithms without.
    pub weights: String,
    /// SHA-256 of the ONNX file that ran (or of the centroids), hexadecimal.
    pub model_sha256: String,
    /// The extraction part of the recipe, JSON.
    pub recipe: String,
    /// SHA-256 of the manifest's ids, paths and time ranges.
    pub manifest_sha256: String,
    /// Arithmetic of the network: `f32`; `u8` for descriptors.
    pub precision: String,
    /// The execution provider that really ran, several joined by `+`.
    pub provider: String,
    /// The version of kinoprobe.
    pub tool_version: String,
    /// When the store was begun, RFC 3339, UTC.
    pub created: String,
    /// Seconds of extraction so far, over all runs.
    pub extract_seconds: f64,
}

/// One attribute in which two stores differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The attribute's name.
    pub attribute: &'static str,
    /// What the store says.
    pub stored: String,
    /// What was asked for.
    pub wanted: String,
}

impl Provenance {
    /// What makes the stored rows unusable for `wanted`: another method, model, weights or recipe. The manifest, the
    /// provider and the times may differ.
    pub fn differences(&self, wanted: &Provenance) -> Vec<Difference> {
        [
            ("method", &self.method, &wanted.method),
            ("model", &self.model, &wanted.model),
            ("weights", &self.weights, &wanted.weights),
            ("model_sha256", &self.model_sha256, &wanted.model_sha256),
            ("recipe", &self.recipe, &wanted.recipe),
            ("precision", &self.precision, &wanted.precision),
        ]
        .into_iter()
        .filter(|(_, stored, wanted)| stored != wanted)
        .map(|(attribute, stored, wanted)| Difference { attribute, stored: stored.clone(), wanted: wanted.clone() })
        .collect()
    }

    /// Fails with a list of what differs where rows made as `self` says, in the file `path`, cannot serve `wanted`.
    ///
    /// # Errors
    /// Method, model, weights, recipe or precision differ.
    pub fn refuse_if_different(&self, path: &Path, wanted: &Provenance) -> Result<()> {
        let differences = self.differences(wanted);
        if differences.is_empty() {
            return Ok(());
        }
        let shown = |value: &str| if value.is_empty() { "nothing".to_string() } else { value.to_string() };
        let lines: Vec<String> = differences
            .iter()
            .map(|d| format!("  {}: it has {}, asked for {}", d.attribute, shown(&d.stored), shown(&d.wanted)))
            .collect();
        let message = format!(
            "made differently; write to another file with --out, or remove this one to start over\n{}",
            lines.join("\n")
        );
        Err(Error::Store { path: path.to_path_buf(), message })
    }

    /// Notes which kinoprobe works on it, and when that began.
    pub(super) fn stamp(&mut self) {
        self.tool_version = env!("CARGO_PKG_VERSION").into();
        if self.created.is_empty() {
            self.created = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
        }
    }

    /// Notes that `provider` ran too.
    pub fn add_provider(&mut self, provider: &str) {
        for name in provider.split('+').filter(|name| !name.is_empty()) {
            if !self.provider.split('+').any(|known| known == name) {
                self.provider = [self.provider.as_str(), name]
                    .iter()
                    .filter(|n| !n.is_empty())
                    .copied()
                    .collect::<Vec<_>>()
                    .join("+");
            }
        }
    }

    /// Whether the features come from untrained (seeded) weights.
    pub fn untrained(&self) -> bool {
        self.weights == "seeded"
    }

    fn texts(&self) -> [(&'static str, &String); 10] {
        [
            ("method", &self.method),
            ("model", &self.model),
            ("weights", &self.weights),
            ("model_sha256", &self.model_sha256),
            ("recipe", &self.recipe),
            ("manifest_sha256", &self.manifest_sha256),
            ("precision", &self.precision),
            ("provider", &self.provider),
            ("tool_version", &self.tool_version),
            ("created", &self.created),
        ]
    }

    pub(super) fn write(&self, file: &File, payload: Payload) -> hdf5::Result<()> {
        put_text(file, "format", payload.format())?;
        put(file, "format_version", FORMAT_VERSION)?;
        put(file, "dim", payload.dim() as i64)?;
        for (name, value) in self.texts() {
            put_text(file, name, value)?;
        }
        put(file, "extract_seconds", self.extract_seconds)
    }

    /// Reads the attributes of a store. Format, version and dim are required; the rest is empty where another
    /// program left it out.
    pub(super) fn read(file: &File, path: &Path) -> Result<(Self, Payload)> {
        let wrong = |message: String| Error::Store { path: path.to_path_buf(), message };
        let text = |name: &str| -> Option<String> { get_text(file, name) };
        let format = text("format").ok_or_else(|| wrong("not a feature store: it has no attribute `format`".into()))?;
        let version = get_integer(file, "format_version")
            .ok_or_else(|| wrong("not a feature store: it has no attribute `format_version`".into()))?;
        if version != FORMAT_VERSION {
            return Err(wrong(format!(
                "format version {version}, this kinoprobe reads {FORMAT_VERSION}: extract again, or use the kinoprobe that made it"
            )));
        }
        let (dataset, axis) = match format.as_str() {
            "kinoprobe-features" => ("features", 1),
            "kinoprobe-descriptors" => ("descriptors", 1),
            other => return Err(wrong(format!("format `{other}` is not kinoprobe-features or kinoprobe-descriptors"))),
        };
        let shape =
            file.dataset(dataset).map_err(|_| wrong(format!("damaged: the dataset /{dataset} is missing")))?.shape();
        let dim = match (shape.get(axis), get_integer(file, "dim")) {
            (Some(&columns), None) => columns,
            (Some(&columns), Some(dim)) if dim == columns as i64 => columns,
            (columns, dim) => {
                return Err(wrong(format!("/{dataset} has {columns:?} columns but the attribute dim says {dim:?}")));
            }
        };
        let payload = if dataset == "features" { Payload::Features { dim } } else { Payload::Descriptors { dim } };
        let or_empty = |name: &str| text(name).unwrap_or_default();
        Ok((
            Provenance {
                method: or_empty("method"),
                model: or_empty("model"),
                weights: or_empty("weights"),
                model_sha256: or_empty("model_sha256"),
                recipe: or_empty("recipe"),
                manifest_sha256: or_empty("manifest_sha256"),
                precision: or_empty("precision"),
                provider: or_empty("provider"),
                tool_version: or_empty("tool_version"),
                created: or_empty("created"),
                extract_seconds: get_float(file, "extract_seconds").unwrap_or(0.0),
            },
            payload,
        ))
    }
}

/// Writes a scalar attribute, replacing one that is there.
pub(super) fn put<T: H5Type>(group: &Group, name: &str, value: T) -> hdf5::Result<()> {
    let attribute = match group.attr(name) {
        Ok(attribute) => attribute,
        Err(_) => group.new_attr::<T>().create(name)?,
    };
    attribute.write_scalar(&value)
}

/// Writes a text attribute, replacing one that is there.
pub(super) fn put_text(group: &Group, name: &str, value: &str) -> hdf5::Result<()> {
    put(group, name, text(value))
}

fn get_integer(group: &Group, name: &str) -> Option<i64> {
    group.attr(name).ok()?.read_scalar::<i64>().ok()
}

fn get_float(group: &Group, name: &str) -> Option<f64> {
    group.attr(name).ok()?.read_scalar::<f64>().ok()
}

/// A text attribute as kinoprobe and h5py write it (variable length UTF-8), or as C programs do (fixed or ASCII).
fn get_text(group: &Group, name: &str) -> Option<String> {
    use hdf5::types::{FixedAscii, FixedUnicode, VarLenAscii};
    let attribute = group.attr(name).ok()?;
    (attribute.read_scalar::<VarLenUnicode>().map(|t| t.to_string()))
        .or_else(|_| attribute.read_scalar::<VarLenAscii>().map(|t| t.to_string()))
        .or_else(|_| attribute.read_scalar::<FixedUnicode<4096>>().map(|t| t.to_string()))
        .or_else(|_| attribute.read_scalar::<FixedAscii<4096>>().map(|t| t.to_string()))
        .ok()
}

/// HDF5's text: no NUL inside, which ends a C string.
pub(super) fn text(value: &str) -> VarLenUnicode {
    value.replace('\0', "\u{fffd}").parse().expect("text without NUL")
}

/// Wraps an HDF5 error with the store it is about.
pub(super) fn wrong(path: &Path) -> impl Fn(hdf5::Error) -> Error {
    let path = path.to_path_buf();
    move |error| {
        let said = error.to_string();
        let message = if said.contains("unable to lock file") || said.contains("already open") {
            "another process has it open: wait for it, or set HDF5_USE_FILE_LOCKING=FALSE where the file system cannot lock"
                .to_string()
        } else if said.contains("file signature not found") || said.contains("truncated file") {
            "not an HDF5 file, or only a part of one".to_string()
        } else {
            format!("HDF5: {said}")
        };
        Error::Store { path: path.clone(), message }
    }
}
