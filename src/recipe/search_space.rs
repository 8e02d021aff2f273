//! The table `[classify.search]`: which settings a search tries.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::str::FromStr;

use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::value_parsers;

/// Most trials of a grid. A larger one is probably a mistake, and random trials find a good setting in fewer.
pub(super) const MAX_GRID: usize = 2000;

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

    /// Returns the values of a grid.
    pub(super) fn grid(&self) -> Vec<String> {
        match self {
            Self::List(values) => values.clone(),
            Self::Range(range) => range.grid(),
        }
    }

    /// Draws a value.
    pub(super) fn draw(&self, random: &mut impl Rng) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Values {
        text.parse().unwrap()
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
