//! Settings of `[classify]` that have no effect.

use toml::{Table, Value};

use super::Classify;
use crate::posters::ModelGrouping;

/// The tables of the training loop, which only some classifiers use.
const TRAINING: [&str; 4] = ["loss", "training", "optimizer", "schedule"];

/// A setting that differs from its default although it has no effect.
struct Unused {
    /// Name of its table; empty for keys of `[classify]` itself.
    table: String,
    key: String,
    /// What does not use it.
    by: String,
}

impl Unused {
    /// Returns the dotted key in `[classify]`.
    fn path(&self) -> String {
        if self.table.is_empty() { self.key.clone() } else { format!("{}.{}", self.table, self.key) }
    }
}

/// Checks that no setting differs from its default without an effect. The tables of other classifiers are not checked, since a
/// recipe can hold those of several.
///
/// # Errors
/// Returns a message that names the key.
pub(super) fn check(classify: &Classify) -> Result<(), String> {
    match find(classify).first() {
        Some(unused) => Err(format!("classify.{} does not apply to {}", unused.path(), unused.by)),
        None => Ok(()),
    }
}

/// Resets the settings without an effect to their defaults, so that they are not recorded. Returns their dotted keys.
pub(super) fn reset(classify: &mut Classify) -> Vec<String> {
    let (mut tables, defaults) = (to_table(classify), to_table(&Classify::default()));
    let found = find(classify);
    for unused in &found {
        let (of, defaults) = match unused.table.as_str() {
            "" => (Some(&mut tables), Some(&defaults)),
            table => {
                (tables.get_mut(table).and_then(Value::as_table_mut), defaults.get(table).and_then(Value::as_table))
            }
        };
        match (of, defaults.and_then(|defaults| defaults.get(&unused.key))) {
            (Some(of), Some(default)) => drop(of.insert(unused.key.clone(), default.clone())),
            (Some(of), None) => drop(of.remove(&unused.key)),
            (None, _) => {}
        }
    }
    *classify = tables.try_into().expect("serialized settings with default values are valid");
    found.iter().map(Unused::path).collect()
}

fn to_table(classify: &Classify) -> Table {
    Table::try_from(classify).expect("settings serialize to TOML")
}

fn find(classify: &Classify) -> Vec<Unused> {
    let defaults = to_table(&Classify::default());
    let mut found = Vec::new();
    let mut inspect = |table: &str, keys: &Table, defaults: Option<&Table>| {
        let changed =
            keys.iter().filter(|(key, value)| defaults.and_then(|defaults| defaults.get(*key)) != Some(value));
        for (key, _) in changed.filter(|(_, value)| !value.is_table() || !table.is_empty()) {
            if let Some(by) = not_used_by(classify, table, key) {
                found.push(Unused { table: table.into(), key: key.clone(), by });
            }
        }
    };
    let tables = to_table(classify);
    inspect("", &tables, Some(&defaults));
    for (name, keys) in tables.iter().filter_map(|(name, value)| Some((name, value.as_table()?))) {
        inspect(name, keys, defaults.get(name).and_then(Value::as_table));
    }
    found
}

/// Returns what does not use a setting; `None` if it is used.
fn not_used_by(classify: &Classify, table: &str, key: &str) -> Option<String> {
    let kind = classify.classifier;
    if !kind.capabilities().trained && (TRAINING.contains(&table) || (table, key) == ("", "seeds")) {
        return Some(format!("classifier {}", kind.name()));
    }
    if table == "min_clips" && classify.by != Some(ModelGrouping::Year) {
        return Some("runs without classify.by = \"year\"".into());
    }
    if (table, key) == ("", "pool") {
        return classify.excludes_pool();
    }
    let (flags, setting) = match table {
        "loss" => classify.loss.unused_flags(),
        "optimizer" => classify.optimizer.unused_flags(),
        "schedule" => classify.schedule.unused_flags(),
        table if table.is_empty() || table == kind.name() => classify.classifier_settings(kind).unused_flags(),
        _ => return None,
    };
    // The flags of these keys have the names of the keys, except for `kind` and `loss.weights`, which always have an effect.
    flags.contains(&key).then_some(setting)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::ClassifierKind;

    fn parse(text: &str) -> Classify {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn settings_without_effect_are_found_and_reset() {
        for (text, key, by) in [
            ("classifier = \"logistic\"\n[loss]\nweights = \"balanced\"", "loss.weights", "classifier logistic"),
            ("classifier = \"knn\"\n[training]\nepochs = 5", "training.epochs", "classifier knn"),
            ("classifier = \"bayes\"\nseeds = 3", "seeds", "classifier bayes"),
            ("[optimizer]\nmomentum = 0.5", "optimizer.momentum", "optimizer adamw"),
            ("[schedule]\nkind = \"constant\"\nstep_every = 3", "schedule.step_every", "schedule constant"),
            ("[loss]\nkind = \"focal\"\nmargin = 0.1", "loss.margin", "loss focal"),
            ("[min_clips]\ntest = 7", "min_clips.test", "runs without classify.by"),
            (
                "classifier = \"bilstm\"\n[bilstm]\ncompat = \"movienet-prediction\"\nhidden = 3",
                "bilstm.hidden",
                "compat",
            ),
            ("classifier = \"constant\"\nstandardize = false", "standardize", "classifier constant"),
            ("classifier = \"constant\"\npooling = \"max\"", "pooling", "classifier constant"),
            ("by = \"year\"\npool = true\nclassifier = \"svm\"", "pool", "classifier svm"),
            ("pool = true", "pool", "runs without classify.by"),
            ("by = \"year\"\npool = true\nwindow = 10", "pool", "classify.window"),
            ("by = \"year\"\npool = true\n[loss]\nkind = \"focal\"", "pool", "losses other than bce"),
            (
                "by = \"year\"\npool = true\nclassifier = \"logistic\"\n[logistic]\nclass_weight = \"balanced\"",
                "pool",
                "class weights",
            ),
        ] {
            let mut classify = parse(text);
            let error = check(&classify).unwrap_err();
            assert!(error.starts_with(&format!("classify.{key} does not apply to {by}")), "{text}: {error}");
            assert_eq!(reset(&mut classify), [key]);
            assert_eq!(check(&classify), Ok(()));
            assert_eq!(reset(&mut classify), [""; 0]);
        }
    }

    #[test]
    fn settings_with_an_effect_stay() {
        for text in [
            "seeds = 4\npooling = \"max\"\nstandardize = false\n[loss]\nkind = \"bce\"\nweights = \"balanced\"",
            "by = \"year\"\nwindow = 10\n[min_clips]\ntrain = 5\n[schedule]\nkind = \"step\"\nstep_every = 3",
            "[optimizer]\nkind = \"sgd\"\nmomentum = 0.5\nnesterov = true\n[mlp]\ndropout = 0.3",
            "classifier = \"bilstm\"\npooling = \"max\"\n[bilstm]\nlength = 3",
            "by = \"year\"\npool = true\n[loss]\nkind = \"bce\"",
            "by = \"year\"\npool = true\nclassifier = \"logistic\"\n[logistic]\nalpha = 3",
            "classifier = \"knn\"\nstandardize = false\n[knn]\nneighbors = 3",
            "[knn]\nneighbors = 3\n[logistic]\nalpha = 0.5",
        ] {
            let mut classify = parse(text);
            assert_eq!(check(&classify), Ok(()), "{text}");
            assert_eq!(reset(&mut classify), [""; 0]);
            assert_eq!(classify, parse(text));
        }
        for &kind in ClassifierKind::ALL {
            assert_eq!(check(&Classify { classifier: kind, ..Classify::default() }), Ok(()));
        }
    }
}
