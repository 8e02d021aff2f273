//! The root attributes of stores: format and provenance.

use std::fmt;
use std::path::Path;

use hdf5::File;
use serde::{Deserialize, Serialize};

use super::attributes::{read_float, read_integer, read_text, write_attribute, write_text};
use crate::error::{Error, Result};

/// The kind of data of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// One f32 vector per row.
    Features {
        /// Length D of a vector.
        dim: usize,
    },
    /// Any number of u8 descriptors per row.
    Descriptors {
        /// Length D of a descriptor.
        dim: usize,
    },
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Payload::Features { dim } => write!(f, "features of length {dim}"),
            Payload::Descriptors { dim } => write!(f, "descriptors of length {dim}"),
        }
    }
}

impl Payload {
    /// Returns the value of the attribute `format`.
    pub fn format(self) -> &'static str {
        match self {
            Payload::Features { .. } => "kinoprobe-features",
            Payload::Descriptors { .. } => "kinoprobe-descriptors",
        }
    }

    /// Returns the length D of a vector or descriptor.
    pub fn dim(self) -> usize {
        match self {
            Payload::Features { dim } | Payload::Descriptors { dim } => dim,
        }
    }
}

/// Version of the file format that this version of kinoprobe reads and writes.
pub const FORMAT_VERSION: i64 = 1;

/// The origin of a store's data: its root attributes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Provenance {
    /// Name of the recipe.
    pub method: String,
    /// The network or algorithm.
    pub model: String,
    /// Source of the weights: `published`, `registry`, `file` or `seeded` (untrained); `kmeans` or `none` for algorithms; `imported` for
    /// features of another program.
    pub weights: String,
    /// SHA-256 of the ONNX file, or of the centroids, in hexadecimal.
    pub model_sha256: String,
    /// The extraction settings of the recipe as JSON.
    pub recipe: String,
    /// SHA-256 of the manifest's ids, paths and time ranges.
    pub manifest_sha256: String,
    /// Version of the decoding (`media::DECODER_VERSION`); empty in stores of earlier revisions, which ignored color tags.
    #[serde(default)]
    pub decoder: String,
    /// Precision of the results of the network: `f32`, `tf32`, `fp16`, `bf16` or `int8`; `u8` for descriptors.
    pub precision: String,
    /// The execution providers that ran the network, joined by `+`.
    pub provider: String,
    /// Version of kinoprobe.
    pub tool_version: String,
    /// Time at which extraction started, RFC 3339, UTC.
    pub created: String,
    /// Duration of extraction in seconds, over all runs.
    pub extract_seconds: f64,
    /// File or directory that the features were imported from; empty for features that kinoprobe extracted.
    #[serde(default)]
    pub source: String,
    /// SHA-256 of the file, or of the names and contents of the files of the directory, in hexadecimal.
    #[serde(default)]
    pub source_sha256: String,
}

/// An attribute that differs between two provenances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Name of the attribute.
    pub attribute: &'static str,
    /// Value in the store.
    pub stored: String,
    /// Requested value.
    pub requested: String,
}

/// Returns a recipe without the batch size, on which features do not depend; `None` if it has no extractor.
fn without_batch(recipe: &str) -> Option<serde_json::Value> {
    let mut recipe: serde_json::Value = serde_json::from_str(recipe).ok()?;
    recipe.get_mut("extractor")?.as_object_mut()?.remove("batch");
    Some(recipe)
}

impl Provenance {
    /// Returns the precision, or `f32` if it is not recorded.
    pub fn precision_or_default(&self) -> &str {
        if self.precision.is_empty() { "f32" } else { &self.precision }
    }

    /// Returns the differences that make the stored rows unusable: method, model, weights, recipe, decoder and precision. Manifest,
    /// provider, times and the batch size in the recipe may differ.
    pub fn differences(&self, requested: &Provenance) -> Vec<Difference> {
        [
            ("method", &self.method, &requested.method),
            ("model", &self.model, &requested.model),
            ("weights", &self.weights, &requested.weights),
            ("model_sha256", &self.model_sha256, &requested.model_sha256),
            ("recipe", &self.recipe, &requested.recipe),
            ("decoder", &self.decoder, &requested.decoder),
            ("precision", &self.precision, &requested.precision),
        ]
        .into_iter()
        .filter(|(attribute, stored, requested)| {
            let same_features = || without_batch(stored).is_some_and(|stored| without_batch(requested) == Some(stored));
            stored != requested && !(*attribute == "recipe" && same_features())
        })
        .map(|(attribute, stored, requested)| Difference {
            attribute,
            stored: stored.clone(),
            requested: requested.clone(),
        })
        .collect()
    }

    /// Checks that the rows of the file `path`, with this provenance, can be used for `requested`.
    ///
    /// # Errors
    /// Returns an error with the [differences](Self::differences), if any.
    pub fn check_compatible(&self, path: &Path, requested: &Provenance) -> Result<()> {
        let differences = self.differences(requested);
        if differences.is_empty() {
            return Ok(());
        }
        let hint = match differences.iter().any(|difference| difference.attribute == "precision") {
            true => {
                "\n(by default, networks run in f32 on a CPU and in tf32 on a GPU; --precision f32 computes in f32 on both)"
            }
            false => "",
        };
        let display = |value: &str| if value.is_empty() { "none".to_string() } else { value.to_string() };
        let lines: Vec<String> = differences
            .iter()
            .map(|d| format!("  {}: stored {}, requested {}", d.attribute, display(&d.stored), display(&d.requested)))
            .collect();
        let message = format!(
            "made with other settings; choose another store (--out; --features of kinoprobe-predict), or remove this one to start \
             over\n{}{hint}",
            lines.join("\n")
        );
        Err(Error::Store { path: path.to_path_buf(), message })
    }

    /// Sets the version of kinoprobe, and the creation time if it is empty.
    pub(super) fn stamp(&mut self) {
        self.tool_version = env!("CARGO_PKG_VERSION").into();
        if self.created.is_empty() {
            self.created = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
        }
    }

    /// Adds execution providers, joined by `+`, that are not listed yet.
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

    /// Returns `true` if the weights are untrained (seeded).
    pub fn untrained(&self) -> bool {
        self.weights == "seeded"
    }

    /// Names and values of the string attributes.
    fn texts(&self) -> [(&'static str, &String); 11] {
        [
            ("method", &self.method),
            ("model", &self.model),
            ("weights", &self.weights),
            ("model_sha256", &self.model_sha256),
            ("recipe", &self.recipe),
            ("manifest_sha256", &self.manifest_sha256),
            ("decoder", &self.decoder),
            ("precision", &self.precision),
            ("provider", &self.provider),
            ("tool_version", &self.tool_version),
            ("created", &self.created),
        ]
    }

    /// Writes the root attributes.
    pub(super) fn write(&self, file: &File, payload: Payload) -> hdf5::Result<()> {
        write_text(file, "format", payload.format())?;
        write_attribute(file, "format_version", FORMAT_VERSION)?;
        write_attribute(file, "dim", payload.dim() as i64)?;
        for (name, value) in self.texts() {
            write_text(file, name, value)?;
        }
        if !self.source.is_empty() {
            write_text(file, "source", &self.source)?;
            write_text(file, "source_sha256", &self.source_sha256)?;
        }
        write_attribute(file, "extract_seconds", self.extract_seconds)
    }

    /// Reads the root attributes. Format and version are required. Missing attributes, which other programs may omit, are
    /// empty.
    ///
    /// # Errors
    /// Returns an error if the file is not a store of this version, or the attribute `dim` contradicts the dataset.
    pub(super) fn read(file: &File, path: &Path) -> Result<(Self, Payload)> {
        let invalid = |message: String| Error::Store { path: path.to_path_buf(), message };
        let format = read_text(file, "format")
            .ok_or_else(|| invalid("not a feature store: attribute `format` is missing".into()))?;
        let version = read_integer(file, "format_version").ok_or_else(|| {
            invalid("not a feature store: attribute `format_version` is missing or not an integer".into())
        })?;
        if version != FORMAT_VERSION {
            return Err(invalid(format!(
                "unsupported format version {version} (supported: {FORMAT_VERSION}): extract again, or use another version of kinoprobe"
            )));
        }
        let dataset = match format.as_str() {
            "kinoprobe-features" => "features",
            "kinoprobe-descriptors" => "descriptors",
            other => {
                return Err(invalid(format!("format `{other}` is not kinoprobe-features or kinoprobe-descriptors")));
            }
        };
        let shape =
            file.dataset(dataset).map_err(|_| invalid(format!("damaged: dataset /{dataset} is missing")))?.shape();
        let dim = match (shape.as_slice(), read_integer(file, "dim")) {
            ([_, columns], None) => *columns,
            ([_, columns], Some(dim)) if dim == *columns as i64 => *columns,
            (shape, dim) => {
                return Err(invalid(format!("damaged: /{dataset} has shape {shape:?}, but attribute dim is {dim:?}")));
            }
        };
        let payload = if dataset == "features" { Payload::Features { dim } } else { Payload::Descriptors { dim } };
        let text = |name: &str| read_text(file, name).unwrap_or_default();
        Ok((
            Provenance {
                method: text("method"),
                model: text("model"),
                weights: text("weights"),
                model_sha256: text("model_sha256"),
                recipe: text("recipe"),
                manifest_sha256: text("manifest_sha256"),
                decoder: text("decoder"),
                precision: text("precision"),
                provider: text("provider"),
                tool_version: text("tool_version"),
                created: text("created"),
                extract_seconds: read_float(file, "extract_seconds").unwrap_or(0.0),
                source: text("source"),
                source_sha256: text("source_sha256"),
            },
            payload,
        ))
    }
}
