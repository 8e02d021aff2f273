//! Comparison of the features of a store with those that a model was trained on.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::classify::ModelMetadata;
use crate::error::{Error, Result};
use crate::store::{FeatureStore, Provenance};

/// Keys of extraction recipes that do not change features, that belong to the network, which is compared by its hash, or to the clips
/// (the hash of the list of their shots).
const IGNORED: [&str; 4] = ["extractor.batch", "extractor.card", "extractor.precision", "shots"];

/// Compares the network, the precision and the extraction recipe of the features. Returns warnings for the user: other
/// settings with their differences, another precision and, with `force`, another network.
///
/// # Errors
/// Returns an error if the features were computed by another network and `force` is not set.
pub fn check_features(metadata: &ModelMetadata, store: &FeatureStore, force: bool) -> Result<Vec<String>> {
    let (path, provenance, identity) = (store.path(), store.provenance(), &metadata.identity);
    let mut warnings = Vec::new();
    let model = Network { name: &identity.model, weights: &identity.weights, sha256: &identity.model_sha256 };
    let stored = Network::of(provenance);
    if stored.differs_from(&model) {
        let difference = format!("computed by another network, {stored}, than the model's features, {model}");
        if !force {
            let message = format!("{difference}: extract features of that network, or pass --force");
            return Err(Error::Store { path: path.to_path_buf(), message });
        }
        warnings.push(format!("{}: {difference}", path.display()));
    }
    let precision = provenance.precision_or_default();
    if precision != metadata.precision {
        warnings.push(format!(
            "{}: computed in precision {precision}, but the model was trained on features of {}",
            path.display(),
            metadata.precision
        ));
    }
    let differences = recipe_differences(&provenance.recipe, &metadata.extraction);
    if !differences.is_empty() {
        warnings.push(format!(
            "{}: extracted with other settings than the model's features: {}",
            path.display(),
            differences.join("; ")
        ));
    }
    Ok(warnings)
}

/// Checks that a store still has the features that a model was trained on.
///
/// # Errors
/// Returns an error if they were computed by another network, in another precision, or with another extraction recipe.
pub fn require_same_features(metadata: &ModelMetadata, store: &FeatureStore) -> Result<()> {
    match check_features(metadata, store, true)?.first() {
        None => Ok(()),
        Some(difference) => {
            let remedy = "train the run again on this store, or extract the features as before";
            Err(Error::Data(format!("{difference}: {remedy}")))
        }
    }
}

/// The network or algorithm that computed features.
struct Network<'a> {
    name: &'a str,
    weights: &'a str,
    /// Empty if unknown, as in stores that other programs wrote.
    sha256: &'a str,
}

impl<'a> Network<'a> {
    fn of(provenance: &'a Provenance) -> Self {
        Self { name: &provenance.model, weights: &provenance.weights, sha256: &provenance.model_sha256 }
    }

    /// Returns `true` if the hashes differ or, if one is unknown, the names. Unknown names do not differ.
    fn differs_from(&self, other: &Self) -> bool {
        let differ = |a: &str, b: &str| !a.is_empty() && !b.is_empty() && a != b;
        differ(self.sha256, other.sha256)
            || ((self.sha256.is_empty() || other.sha256.is_empty()) && differ(self.name, other.name))
    }
}

impl std::fmt::Display for Network<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hash: String = self.sha256.chars().take(12).collect();
        let hash = if hash.is_empty() { String::new() } else { format!(", SHA-256 {hash}…") };
        write!(f, "{} ({} weights{hash})", self.name, self.weights)
    }
}

/// Describes the settings in which two extraction recipes differ; none if one is unknown.
fn recipe_differences(stored: &str, trained: &str) -> Vec<String> {
    let (Some(stored), Some(trained)) = (settings(stored), settings(trained)) else { return Vec::new() };
    let keys: std::collections::BTreeSet<&String> = stored.keys().chain(trained.keys()).collect();
    let shown = |settings: &BTreeMap<String, String>, key| settings.get(key).map_or("none".into(), String::clone);
    keys.into_iter()
        .filter(|key| stored.get(*key) != trained.get(*key))
        .map(|key| format!("{key} is {}, the model's {}", shown(&stored, key), shown(&trained, key)))
        .collect()
}

/// Returns the settings of a recipe in JSON by their dotted keys; `None` if it is not an object.
fn settings(recipe: &str) -> Option<BTreeMap<String, String>> {
    let recipe = serde_json::from_str::<Value>(recipe).ok().filter(Value::is_object)?;
    let mut settings = BTreeMap::new();
    let mut pending = vec![(String::new(), &recipe)];
    while let Some((key, value)) = pending.pop() {
        match value {
            Value::Object(entries) => pending.extend(
                entries
                    .iter()
                    .map(|(name, value)| (if key.is_empty() { name.clone() } else { format!("{key}.{name}") }, value)),
            ),
            Value::String(text) => drop(settings.insert(key, text.clone())),
            value => drop(settings.insert(key, value.to_string())),
        }
    }
    settings.retain(|key, _| !IGNORED.contains(&key.as_str()));
    Some(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_are_compared_by_setting() {
        let recipe = |sampling: &str, batch: usize| {
            format!(r#"{{"sampling":{sampling},"extractor":{{"kind":"network","card":"x","batch":{batch}}}}}"#)
        };
        let eight = recipe(r#"{"kind":"even","frames":8}"#, 4);
        assert!(recipe_differences(&eight, &recipe(r#"{"frames":8,"kind":"even"}"#, 16)).is_empty());
        let two = recipe(r#"{"kind":"even","frames":2}"#, 4);
        assert_eq!(recipe_differences(&two, &eight), ["sampling.frames is 2, the model's 8"]);
        let windows = recipe(r#"{"kind":"windows","length":16}"#, 4);
        let expected = [
            "sampling.frames is none, the model's 8",
            "sampling.kind is windows, the model's even",
            "sampling.length is 16, the model's none",
        ];
        assert_eq!(recipe_differences(&windows, &eight), expected);
        for unknown in ["", "not JSON", "[]"] {
            assert!(recipe_differences(unknown, &eight).is_empty() && recipe_differences(&eight, unknown).is_empty());
        }
    }

    #[test]
    fn networks_are_compared_by_hash_or_name() {
        let network = |name, sha256| Network { name, weights: "published", sha256 };
        assert!(network("a", "00").differs_from(&network("a", "01")));
        assert!(!network("a", "00").differs_from(&network("b", "00")));
        assert!(network("a", "").differs_from(&network("b", "00")));
        assert!(
            !network("a", "").differs_from(&network("a", "00")) && !network("", "").differs_from(&network("a", "00"))
        );
        assert_eq!(network("a", "0123456789abcdef").to_string(), "a (published weights, SHA-256 0123456789ab…)");
    }
}
