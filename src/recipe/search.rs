//! The trials of a search over settings of the classifier.

use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::search_space::MAX_GRID;
use super::{Classify, ClassifyFlags, SearchSettings, Values};
use crate::classify::ClassifierKind;
use crate::value_parsers;

/// Default number of random trials of classifiers with several seeds, whose settings interact.
const DEFAULT_TRIALS: usize = 20;
/// Flags that are not settings of the fit.
const NOT_SEARCHABLE: [&str; 10] =
    ["task", "classifier", "seeds", "folds", "repeat", "refit", "calibrate", "by", "window", "max-iterations"];

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
}
