//! The table `[classify.search]`: settings of the classifier to choose by their score on held-out clips.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::str::FromStr;

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

use super::{Classify, ClassifyFlags};
use crate::classify::ClassifierKind;
use crate::value_parsers;

/// Most trials of a grid. A larger one is probably a mistake, and random trials find a good setting in fewer.
const MAX_GRID: usize = 2000;
/// Default number of random trials of classifiers with several seeds, whose settings interact.
const DEFAULT_TRIALS: usize = 20;
/// Flags that are not settings of the fit.
const NOT_SEARCHABLE: [&str; 9] =
    ["task", "classifier", "seeds", "folds", "repeat", "refit", "by", "window", "max-iterations"];

/// A search over settings of the classifier; the table `[classify.search]` of a recipe.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SearchSettings {
    /// Values by the name of the setting's flag, such as `alpha` or `learning-rate`; by default those of
    /// [`ClassifierDefinition::SEARCH`](crate::classify::ClassifierDefinition::SEARCH).
    pub values: BTreeMap<String, Values>,
    /// Number of random trials; `None` for all combinations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trials: Option<usize>,
    /// Seed of the random trials.
    pub seed: u64,
    /// Score by a cross-validation with this number of folds over the clips of train and val, instead of on val.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folds: Option<usize>,
}

/// One combination of values.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// Names and values.
    pub values: Vec<(String, String)>,
    /// The settings with these values.
    pub classify: Classify,
}

impl SearchSettings {
    /// Fills in the default values, and the default number of trials for them, for a search of `kind`.
    ///
    /// # Errors
    /// Returns a message if the classifier has no setting to search.
    pub(super) fn resolve(&mut self, kind: ClassifierKind) -> Result<(), String> {
        if !self.values.is_empty() {
            return Ok(());
        }
        let defaults = kind.search();
        if defaults.is_empty() {
            return Err(format!("classifier {} has no setting to search", kind.name()));
        }
        for (name, values) in defaults {
            self.values.insert(name.to_string(), values.parse().expect("default values are valid"));
        }
        self.trials = self.trials.or(kind.capabilities().trained.then_some(DEFAULT_TRIALS));
        Ok(())
    }

    /// Returns the trials: all combinations in order, or different random ones. `classify` has the values of all other settings.
    ///
    /// # Errors
    /// Returns a message if a setting cannot be searched, a value is invalid, or the grid is too large.
    pub fn trials(&self, classify: &Classify) -> Result<Vec<Trial>, String> {
        let base = Classify { search: None, ..classify.clone() };
        for name in self.values.keys() {
            if NOT_SEARCHABLE.contains(&name.as_str()) || ClassifyFlags::supporters(name).is_none() {
                return Err(format!("classify.search.values: {name} is not a setting that can be searched"));
            }
        }
        let combinations = match self.trials {
            None => self.grid()?,
            Some(count) => self.random(count),
        };
        let mut trials: Vec<Trial> = Vec::with_capacity(combinations.len());
        for values in combinations {
            let arguments = values.iter().map(|(name, value)| format!("--{name}={value}"));
            let flags = ClassifyFlags::parse(arguments)?;
            let mut classify = base.clone();
            let applied = flags.apply(&mut classify).and_then(|()| classify.validate());
            applied.map_err(|message| format!("classify.search.values: {message}"))?;
            // Values that round to the same number.
            if trials.iter().all(|trial| trial.classify != classify) {
                trials.push(Trial { values, classify });
            }
        }
        Ok(trials)
    }

    fn grid(&self) -> Result<Vec<Vec<(String, String)>>, String> {
        let axes: Vec<(&String, Vec<String>)> =
            self.values.iter().map(|(name, values)| (name, values.grid())).collect();
        let size = axes.iter().fold(1_usize, |size, (_, values)| size.saturating_mul(values.len()));
        if size > MAX_GRID {
            return Err(format!(
                "the grid of the search has {size} combinations, more than {MAX_GRID}: pass fewer values, or --trials N for N random \
                 combinations"
            ));
        }
        let mut combinations = vec![vec![]];
        for (name, values) in axes {
            let extend = |combination: &Vec<(String, String)>| {
                let with = |value: &String| [combination.clone(), vec![(name.clone(), value.clone())]].concat();
                values.iter().map(with).collect::<Vec<_>>()
            };
            combinations = combinations.iter().flat_map(extend).collect();
        }
        Ok(combinations)
    }

    fn random(&self, count: usize) -> Vec<Vec<(String, String)>> {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(self.seed);
        let mut drawn: Vec<Vec<(String, String)>> = Vec::with_capacity(count);
        // The values may have fewer combinations than trials.
        for _ in 0..20 * count {
            let combination =
                self.values.iter().map(|(name, values)| (name.clone(), values.draw(&mut random))).collect();
            if !drawn.contains(&combination) {
                drawn.push(combination);
            }
            if drawn.len() == count {
                break;
            }
        }
        drawn
    }

    fn check(&self) -> Result<(), String> {
        if self.trials == Some(0) {
            return Err("classify.search.trials must be at least 1".into());
        }
        if self.trials.is_none() && self.seed != 0 {
            return Err("classify.search.seed applies to random trials only: set classify.search.trials".into());
        }
        Ok(())
    }

    /// Checks the ranges of the settings and that they apply to `classify`, whose search this is.
    pub(super) fn validate(&self, classify: &Classify) -> Result<(), String> {
        self.check()?;
        let trained = classify.classifier.capabilities().trained;
        if classify.by.is_some() {
            return Err("classify.search does not apply to classify.by".into());
        }
        if let Some(folds) = classify.folds {
            let least = crate::classify::cross_validation::min_folds(trained) + 1;
            if self.folds.is_some() {
                return Err(
                    "classify.search.folds does not apply to classify.folds, whose folds the search uses".into()
                );
            }
            if folds < least {
                return Err(format!("a search within classify.folds needs at least {least} folds"));
            }
            if self.values.contains_key("pooling") {
                return Err("classify.search.values: pooling cannot be searched with classify.folds".into());
            }
        }
        if let Some(folds) = self.folds {
            // The run is a cross-validation with these folds.
            Classify { folds: Some(folds), search: None, ..classify.clone() }
                .validate()
                .map_err(|message| message.replace("classify.folds", "classify.search.folds"))?;
        }
        self.trials(classify).map(|_| ())
    }
}

/// The values of a setting that a search tries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "toml::Value", into = "toml::Value")]
pub enum Values {
    /// These values.
    List(Vec<String>),
    /// Numbers in a range.
    Range(Range),
}

/// A range of numbers, both ends inclusive. Numbers are rounded to four significant digits, and to integers if both ends are integers.
#[derive(Debug, Clone, PartialEq)]
pub struct Range {
    /// Lowest number.
    min: Number,
    /// Highest number.
    max: Number,
    /// The numbers are evenly spaced, and drawn uniformly, on a logarithmic scale.
    logarithmic: bool,
    /// Points of a grid; by default one per power of ten on a logarithmic scale, and five on a linear one.
    points: Option<usize>,
}

/// A number and its text, which says whether it is an integer.
#[derive(Debug, Clone, PartialEq)]
struct Number {
    text: String,
    value: f64,
}

impl FromStr for Number {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let value = text.parse().ok().filter(|value: &f64| value.is_finite());
        let value = value.ok_or_else(|| format!("`{text}` is not a number"))?;
        Ok(Self { text: text.into(), value })
    }
}

impl FromStr for Values {
    type Err = String;

    /// Parses `A,B,C` or `[log:]MIN..MAX[/POINTS]`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.contains("..") {
            true => Ok(Self::Range(text.parse()?)),
            false => Self::list(text.split(',').map(|value| value.trim().to_string()).collect()),
        }
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (logarithmic, range) = match text.strip_prefix("log:") {
            Some(range) => (true, range),
            None => (false, text),
        };
        let (range, points) = match range.split_once('/') {
            Some((range, points)) => {
                let points = value_parsers::between(2, MAX_GRID)(points);
                (range, Some(points.map_err(|error| format!("the number of points of `{text}` {error}"))?))
            }
            None => (range, None),
        };
        let (min, max) = range.split_once("..").ok_or_else(|| format!("`{text}` is not a range MIN..MAX"))?;
        let (min, max): (Number, Number) = (min.trim().parse()?, max.trim().parse()?);
        if min.value >= max.value {
            return Err(format!("the range `{text}` is empty: its first number must be the lower one"));
        }
        if logarithmic && min.value <= 0.0 {
            return Err(format!("the logarithmic range `{text}` must have positive ends"));
        }
        Ok(Self { min, max, logarithmic, points })
    }
}

impl Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min, max, logarithmic, points } = self;
        write!(f, "{}{}..{}", if *logarithmic { "log:" } else { "" }, min.text, max.text)?;
        match points {
            Some(points) => write!(f, "/{points}"),
            None => Ok(()),
        }
    }
}

impl Range {
    /// Returns the number at a fraction of the way through the range.
    fn at(&self, fraction: f64) -> String {
        let (min, max) = (self.min.value, self.max.value);
        let value = match self.logarithmic {
            true => (min.ln() + fraction * (max.ln() - min.ln())).exp(),
            false => min + fraction * (max - min),
        };
        if [&self.min, &self.max].iter().all(|number| number.text.parse::<i64>().is_ok()) {
            return format!("{}", value.round());
        }
        let rounded: f64 = format!("{value:.3e}").parse().expect("a formatted number is a number");
        format!("{}", rounded.clamp(min, max))
    }

    fn grid(&self) -> Vec<String> {
        let decades = (self.max.value / self.min.value).log10();
        let default = if self.logarithmic { decades.round() as usize + 1 } else { 5 };
        let points = self.points.unwrap_or(default).max(2);
        let mut values: Vec<String> = (0..points).map(|i| self.at(i as f64 / (points - 1) as f64)).collect();
        values.dedup();
        values
    }
}

impl Values {
    fn list(values: Vec<String>) -> Result<Self, String> {
        match values.iter().any(String::is_empty) || values.is_empty() {
            true => Err("a value is missing".into()),
            false => Ok(Self::List(values)),
        }
    }

    fn grid(&self) -> Vec<String> {
        match self {
            Self::List(values) => values.clone(),
            Self::Range(range) => range.grid(),
        }
    }

    fn draw(&self, random: &mut impl Rng) -> String {
        match self {
            Self::List(values) => values[random.gen_range(0..values.len())].clone(),
            Self::Range(range) => range.at(random.r#gen::<f64>()),
        }
    }
}

impl TryFrom<toml::Value> for Values {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        use toml::Value::{Array, Boolean, Float, Integer, String as Text};
        match value {
            Text(text) => text.parse(),
            Array(values) => {
                let text = |value| match value {
                    Text(text) => Ok(text),
                    Integer(value) => Ok(value.to_string()),
                    Float(value) => Ok(value.to_string()),
                    Boolean(value) => Ok(value.to_string()),
                    _ => Err("a value must be a number, a string, true or false".to_string()),
                };
                Self::list(values.into_iter().map(text).collect::<Result<_, _>>()?)
            }
            _ => Err("values are a list, or a range such as \"log:1e-4..1e5\"".into()),
        }
    }
}

impl From<Values> for toml::Value {
    fn from(values: Values) -> Self {
        let value = |text: String| match (text.parse::<i64>(), text.parse::<f64>(), text.parse::<bool>()) {
            (Ok(value), _, _) => value.into(),
            (_, Ok(value), _) if value.is_finite() => value.into(),
            (_, _, Ok(value)) => value.into(),
            _ => toml::Value::String(text),
        };
        match values {
            Values::List(values) => values.into_iter().map(value).collect::<Vec<_>>().into(),
            Values::Range(range) => range.to_string().into(),
        }
    }
}

/// Flags of kinoprobe-classify for `[classify.search]`.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Search")]
pub struct SearchFlags {
    /// Search settings of the classifier: train with each combination of their values and keep the one with the best score on val; see
    /// the examples below. NAME is the name of a flag, VALUES are A,B,C or [log:]MIN..MAX[/POINTS] [default: those of the classifier]
    #[arg(long, value_name = "NAME=VALUES", num_args = 0.., value_parser = parse_assignment)]
    pub search: Option<Vec<(String, Values)>>,
    /// With --search: try N random combinations instead of all
    #[arg(long, value_name = "N", value_parser = value_parsers::at_least(1_usize))]
    pub trials: Option<usize>,
    /// With --trials: seed of the combinations [default: 0]
    #[arg(long, value_name = "SEED")]
    pub search_seed: Option<u64>,
    /// With --search: score by a cross-validation over train and val instead of on val, and train the final model on both
    #[arg(long, value_name = "K", value_parser = value_parsers::at_least(2_usize))]
    pub search_folds: Option<usize>,
}

fn parse_assignment(text: &str) -> Result<(String, Values), String> {
    let (name, values) = text.split_once('=').ok_or("use NAME=VALUES, such as alpha=log:1e-4..1e5")?;
    Ok((name.trim_start_matches("--").to_string(), values.parse()?))
}

impl SearchFlags {
    /// Overrides values of `classify.search`; with `--search`, there is a search even if the recipe has none. `given` tells whether a flag
    /// fixes a setting.
    pub(super) fn apply(&self, classify: &mut Classify, given: &dyn Fn(&str) -> bool) -> Result<(), String> {
        let Self { search, trials, search_seed, search_folds } = self;
        if let Some(assignments) = search {
            let settings = classify.search.get_or_insert_default();
            for (name, values) in assignments {
                if given(name) {
                    return Err(format!("--{name} is searched: pass it in --search only"));
                }
                settings.values.insert(name.clone(), values.clone());
            }
        }
        let Some(settings) = &mut classify.search else {
            let flags = [
                ("trials", trials.is_some()),
                ("search-seed", search_seed.is_some()),
                ("search-folds", search_folds.is_some()),
            ];
            return match flags.iter().find(|(_, given)| *given) {
                Some((flag, _)) => Err(format!("--{flag} applies to --search only")),
                None => Ok(()),
            };
        };
        settings.trials = trials.or(settings.trials);
        settings.seed = search_seed.unwrap_or(settings.seed);
        settings.folds = search_folds.or(settings.folds);
        settings.resolve(classify.classifier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Values {
        text.parse().unwrap()
    }

    fn search(pairs: &[(&str, &str)], trials: Option<usize>) -> SearchSettings {
        let values = pairs.iter().map(|(name, text)| (name.to_string(), values(text))).collect();
        SearchSettings { values, trials, ..SearchSettings::default() }
    }

    #[test]
    fn grids_contain_both_ends() {
        for (text, expected) in [
            ("log:1e-4..1e5", "0.0001 0.001 0.01 0.1 1 10 100 1000 10000 100000"),
            ("log:1..1000/7", "1 3 10 32 100 316 1000"),
            ("log:1.0..1000/7", "1 3.162 10 31.62 100 316.2 1000"),
            ("0..0.5", "0 0.125 0.25 0.375 0.5"),
            ("1..3", "1 2 3"),
            ("3, 5,9", "3 5 9"),
            ("mean,max", "mean max"),
        ] {
            assert_eq!(values(text).grid().join(" "), expected, "{text}");
        }
        for (text, expected) in [
            ("5..1", "the range `5..1` is empty"),
            ("log:0..1", "must have positive ends"),
            ("1..x", "`x` is not a number"),
            ("1..2/1", "the number of points of `1..2/1` must be at least 2"),
            ("1,,2", "a value is missing"),
        ] {
            let error = text.parse::<Values>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn random_values_are_in_the_range_and_seeded() {
        let settings = search(&[("alpha", "log:1e-3..1e3"), ("class-weight", "none,balanced")], Some(200));
        let drawn = settings.random(200);
        assert_eq!(drawn, settings.random(200));
        assert_ne!(drawn, SearchSettings { seed: 1, ..settings.clone() }.random(200));
        let alphas: Vec<f64> = drawn.iter().map(|trial| trial[0].1.parse().unwrap()).collect();
        assert!(alphas.iter().all(|alpha| (1e-3..=1e3).contains(alpha)));
        // Half of them are below 1, up to four standard deviations.
        let low = alphas.iter().filter(|alpha| **alpha < 1.0).count();
        assert!((72..=128).contains(&low), "{low}");
        // There are only two combinations.
        assert_eq!(search(&[("class-weight", "none,balanced")], Some(10)).random(10).len(), 2);
    }

    #[test]
    fn trials_are_settings_of_the_classifier() {
        let classify = Classify { classifier: ClassifierKind::Logistic, ..Classify::default() };
        let settings = search(&[("alpha", "1,10"), ("standardize", "true,false")], None);
        let trials = settings.trials(&classify).unwrap();
        let found: Vec<_> =
            trials.iter().map(|trial| (trial.classify.logistic.alpha, trial.classify.standardize)).collect();
        assert_eq!(found, [(1.0, true), (1.0, false), (10.0, true), (10.0, false)]);
        assert_eq!(trials[1].values, [("alpha".into(), "1".into()), ("standardize".into(), "false".into())]);

        for (pairs, expected) in [
            (&[("hidden", "1,2")][..], "--hidden does not apply to classifier logistic"),
            (&[("alpha", "1,x")], "invalid value 'x' for '--alpha"),
            (&[("alpha", "-1,1")], "'--alpha"),
            (&[("depth", "1,2")], "depth is not a setting that can be searched"),
            (&[("folds", "3,4")], "folds is not a setting that can be searched"),
            (&[("alpha", "1.0..9/1999"), ("standardize", "true,false")], "3998 combinations, more than 2000"),
        ] {
            let error = search(pairs, None).trials(&classify).unwrap_err();
            assert!(error.contains(expected), "{pairs:?}: {error}");
        }
    }

    #[test]
    fn every_classifier_with_settings_has_valid_default_values() {
        for &kind in ClassifierKind::ALL {
            let mut settings = SearchSettings::default();
            if kind.search().is_empty() {
                assert!(settings.resolve(kind).is_err());
                continue;
            }
            settings.resolve(kind).unwrap();
            let pooling = kind.pooling(crate::store::Pooling::Mean);
            let trials = settings.trials(&Classify { classifier: kind, pooling, ..Classify::default() }).unwrap();
            assert!((2..=100).contains(&trials.len()), "{kind:?}: {}", trials.len());
        }
    }

    #[test]
    fn tables_are_read_and_written() {
        let text = "trials = 30\nseed = 2\n\n[values]\nalpha = \"log:1e-4..1e5/19\"\nhidden = [128, 256]\nlearning-rate = [0.001, 0.01]\nloss = [\"bce\", \"focal\"]\n";
        let settings: SearchSettings = toml::from_str(text).unwrap();
        assert_eq!(settings.values["hidden"], values("128,256"));
        let written = toml::to_string(&settings).unwrap();
        assert_eq!(toml::from_str::<SearchSettings>(&written).unwrap(), settings);
        assert!(written.contains("hidden = [128, 256]"), "{written}");
        let error = toml::from_str::<SearchSettings>("[values]\nalpha = 3\n").unwrap_err().to_string();
        assert!(error.contains("values are a list, or a range"), "{error}");
    }
}
