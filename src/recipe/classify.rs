//! The table `[classify]` of a recipe.

use clap::ArgAction;
use serde::{Deserialize, Serialize};

use super::SearchSettings;
use crate::classify::cross_validation::min_folds;
use crate::classify::{
    CalibrationMethod, ClassWeights, ClassifierDefinition, ClassifierKind, ClassifierSettings, FitSettings, LossKind,
    LossSettings, OptimizerSettings, ScheduleSettings, Trainer, TrainingSettings, for_each_classifier, positive,
};
use crate::dataset::Task;
use crate::manifest::imbalance::Resample;
use crate::posters::{MinClips, ModelGrouping};
use crate::store::Pooling;
use crate::value_parsers;

macro_rules! define_table {
    ($($(#[$doc:meta])* $kind:ident = $name:ident: $settings:ty,)*) => {
        /// The classifier and its training. Keys with a `#[arg]` attribute are also flags of kinoprobe-classify; so are the
        /// keys of the tables (see [`ClassifyFlags`](super::ClassifyFlags)).
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
        #[serde(deny_unknown_fields, default)]
        pub struct Classify {
            /// Prediction task [default: multi-label if a clip has several labels].
            #[serde(skip_serializing_if = "Option::is_none")]
            #[arg(long)]
            pub task: Option<Task>,
            /// Pooling of the features; see [`ClassifierKind::pooling`].
            #[arg(long, help = "Pooling of the features")]
            pub pooling: Pooling,
            /// Standardize features by the mean and standard deviation of the training split.
            #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
            pub standardize: bool,
            /// Classifier.
            #[arg(long)]
            pub classifier: ClassifierKind,
            /// Number of seeds, 0, 1, …; the model of the first seed is kept.
            #[arg(long, value_name = "N", value_parser = value_parsers::at_least(1_u64))]
            pub seeds: u64,
            /// Number of folds of a cross-validation over the clips of train and val, or over all labeled clips of a manifest without
            /// splits [default: a single split].
            #[serde(skip_serializing_if = "Option::is_none")]
            #[arg(long, value_name = "K", value_parser = value_parsers::at_least(2_usize))]
            pub folds: Option<usize>,
            /// With --folds: repetitions of the cross-validation with other folds [default: 1].
            #[serde(skip_serializing_if = "Option::is_none")]
            #[arg(long, value_name = "N", value_parser = value_parsers::at_least(1_usize))]
            pub repeat: Option<usize>,
            /// Fit the final model to the clips of train and val. The predictions of val are those of a model that was fitted to train only.
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
            pub refit: bool,
            /// Search over settings of the classifier [default: none].
            #[serde(skip_serializing_if = "Option::is_none")]
            #[arg(skip)]
            pub search: Option<SearchSettings>,
            /// Calibration of the scores, fitted to the predictions of val.
            #[serde(skip_serializing_if = "CalibrationMethod::is_none")]
            #[arg(long, value_name = "METHOD")]
            pub calibrate: CalibrationMethod,
            /// Resampling of the training clips.
            #[serde(skip_serializing_if = "Option::is_none")]
            #[arg(skip)]
            pub resample: Option<Resample>,
            /// Train one model per year and one for all clips (year), or one for all clips (none); writes a directory of runs
            /// [default: a single run].
            #[serde(skip_serializing_if = "Option::is_none")]
            #[arg(long)]
            pub by: Option<ModelGrouping>,
            /// With --by year: number of years that the training clips of a model span; 10 selects the years y − 5 to y + 4
            /// [default: the year alone].
            #[serde(skip_serializing_if = "Option::is_none")]
            #[arg(long, value_name = "YEARS", value_parser = value_parsers::at_least(1_i32))]
            pub window: Option<i32>,
            /// With --by year: correct the model of all years for each year instead of training one on the year alone; years with
            /// too few clips have the model of all years.
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
            pub pool: bool,
            /// Minimum number of labeled clips of a year, for `by = "year"`.
            #[serde(alias = "least")]
            #[arg(skip)]
            pub min_clips: MinClips,
            /// Loss.
            #[arg(skip)]
            pub loss: LossSettings,
            /// Training loop.
            #[arg(skip)]
            pub training: TrainingSettings,
            /// Optimizer.
            #[arg(skip)]
            pub optimizer: OptimizerSettings,
            /// Learning-rate schedule.
            #[arg(skip)]
            pub schedule: ScheduleSettings,
            $(
                $(#[$doc])*
                #[serde(skip_serializing_if = "has_no_fields")]
                #[arg(skip)]
                pub $name: $settings,
            )*
        }

        impl Default for Classify {
            fn default() -> Self {
                Self {
                    task: None,
                    pooling: Pooling::Mean,
                    standardize: true,
                    classifier: ClassifierKind::Mlp,
                    seeds: 1,
                    folds: None,
                    repeat: None,
                    refit: false,
                    search: None,
                    calibrate: CalibrationMethod::None,
                    resample: None,
                    by: None,
                    window: None,
                    pool: false,
                    min_clips: MinClips::default(),
                    loss: LossSettings::default(),
                    training: TrainingSettings::default(),
                    optimizer: OptimizerSettings::default(),
                    schedule: ScheduleSettings::default(),
                    $($name: Default::default(),)*
                }
            }
        }

        impl Classify {
            /// Returns the settings of the classifier `kind`.
            pub fn classifier_settings(&self, kind: ClassifierKind) -> ClassifierSettings {
                match kind {
                    $(ClassifierKind::$kind => ClassifierSettings::$kind(self.$name.clone()),)*
                }
            }

            /// Overrides settings of the chosen classifier by flags.
            pub(super) fn update_classifier(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
                match self.classifier {
                    $(ClassifierKind::$kind => clap::FromArgMatches::update_from_arg_matches(&mut self.$name, matches),)*
                }
            }

            fn validate_classifiers(&self) -> Result<(), String> {
                $(self.$name.validate()?;)*
                Ok(())
            }
        }
    };
}
for_each_classifier!(define_table);

/// `true` for settings without fields, whose table is not written.
fn has_no_fields<T>(_: &T) -> bool {
    size_of::<T>() == 0
}

impl Classify {
    /// Returns the settings of a fit of the chosen classifier.
    pub fn fit_settings(&self) -> FitSettings {
        FitSettings {
            classifier: self.classifier_settings(self.classifier),
            standardize: self.standardize,
            seeds: self.seeds,
            refit: self.refit,
            calibrate: self.calibrate,
            trainer: Trainer {
                loss: self.loss.clone(),
                training: self.training.clone(),
                optimizer: self.optimizer.clone(),
                schedule: self.schedule.clone(),
            },
        }
    }

    /// Returns the setting that `pool` does not apply to, if there is one.
    pub(super) fn excludes_pool(&self) -> Option<String> {
        let kind = self.classifier;
        let loss = self.loss.kind.filter(|loss| kind.capabilities().trained && *loss != LossKind::Bce);
        let weights = match self.classifier_settings(kind) {
            ClassifierSettings::Logistic(settings) => settings.class_weight,
            _ => self.loss.weights,
        };
        if !kind.pools() {
            Some(format!("classifier {}", kind.name()))
        } else if self.by != Some(ModelGrouping::Year) {
            Some("runs without classify.by = \"year\"".into())
        } else if self.window.is_some() {
            Some("classify.window".into())
        } else if self.seeds != 1 {
            Some("classify.seeds".into())
        } else if self.refit {
            Some("classify.refit".into())
        } else if self.calibrate != CalibrationMethod::None {
            Some("classify.calibrate".into())
        } else if loss.is_some() {
            Some("losses other than bce".into())
        } else if weights != ClassWeights::None {
            Some("class weights".into())
        } else {
            None
        }
    }

    /// Checks the ranges of the values, except for those of the search, and that each has an effect.
    ///
    /// # Errors
    /// Returns a message that names the recipe key if a value is out of range.
    pub fn validate(&self) -> Result<(), String> {
        self.validate_classifiers()?;
        self.loss.validate()?;
        self.training.validate()?;
        self.optimizer.validate()?;
        self.schedule.validate()?;
        positive("classify.seeds", self.seeds as usize)?;
        positive("classify.window", self.window.unwrap_or(1).max(0) as usize)?;
        if self.window.is_some() && self.by != Some(ModelGrouping::Year) {
            return Err("classify.window applies to classify.by = \"year\" only".into());
        }
        match self.folds {
            None if self.repeat.is_some() => return Err("classify.repeat applies to classify.folds only".into()),
            None => {}
            Some(folds) => {
                let least = min_folds(self.classifier.capabilities().trained);
                if folds < least {
                    return Err(format!("classify.folds must be at least {least} for {}", self.classifier.name()));
                }
                positive("classify.repeat", self.repeat.unwrap_or(1))?;
                let conflict = [
                    ("by", self.by.is_some_and(|by| by == ModelGrouping::Year)),
                    ("resample", self.resample.is_some()),
                    ("seeds", self.seeds != 1),
                    ("refit", self.refit),
                ];
                if let Some((key, _)) = conflict.iter().find(|(_, used)| *used) {
                    return Err(format!("classify.{key} does not apply to classify.folds"));
                }
            }
        }
        if self.refit && self.resample.is_some() {
            return Err("classify.resample does not apply to classify.refit".into());
        }
        if self.min_clips.train < 2 {
            return Err("classify.min_clips.train must be at least 2".into());
        }
        if let Some(resample) = self.resample {
            resample.validate()?;
        }
        super::unused::check(self)?;
        if self.schedule.warm_up >= self.training.epochs && self.schedule.warm_up > 0 {
            return Err("classify.schedule.warm_up must be less than classify.training.epochs".into());
        }
        Ok(())
    }
}
