//! The registered classifiers.
//!
//! `for_each_classifier` is the only list of classifiers. The kinds, the settings tables of recipes, the flags of
//! kinoprobe-classify, `--help` and the tests that cover every classifier derive from it. Everything else about a
//! classifier is in its own file, behind [`ClassifierDefinition`].

use serde::{Deserialize, Serialize};

use super::definition::{Capabilities, ClassifierDefinition, flags_of};
use super::{Classifier, Model, Tensors, Trainer};
use crate::dataset::Task;
use crate::error::Result;
use crate::store::Pooling;

/// Expands `$define!` with the description, kind, name and settings type of every classifier.
macro_rules! for_each_classifier {
    ($define:ident) => {
        $define! {
            /// Multi-layer perceptron.
            Mlp = mlp: crate::classify::MlpSettings,
            /// Bidirectional LSTM over sequences of rows.
            Bilstm = bilstm: crate::classify::BilstmSettings,
            /// Attentive probe: attention of one learned query to a sequence of rows.
            Attentive = attentive: crate::classify::AttentiveSettings,
            /// Transformer encoder with one layer over sequences of rows.
            Transformer = transformer: crate::classify::TransformerSettings,
            /// Logistic regression: multinomial for one label per clip, one-vs-rest for several.
            Logistic = logistic: crate::classify::LogisticSettings,
            /// Linear support vector machine with the squared hinge loss.
            Svm = svm: crate::classify::SvmSettings,
            /// Gaussian naive Bayes.
            Bayes = bayes: crate::classify::BayesSettings,
            /// Gradient-boosted decision trees, one-vs-rest.
            Gbdt = gbdt: crate::classify::GbdtSettings,
            /// k nearest neighbors.
            Knn = knn: crate::classify::KnnSettings,
            /// Class frequencies of the training split.
            Constant = constant: crate::classify::ConstantSettings,
        }
    };
}
pub(crate) use for_each_classifier;

macro_rules! define_classifiers {
    ($($(#[$doc:meta])* $kind:ident = $name:ident: $settings:ty,)*) => {
        /// The kinds of classifiers.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
        #[serde(rename_all = "lowercase")]
        pub enum ClassifierKind {
            $($(#[$doc])* $kind,)*
        }

        impl ClassifierKind {
            /// All kinds, in order of registration.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// Returns the name used in flags, recipes and files.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => stringify!($name),)*
                }
            }

            /// Returns the capabilities of the classifier.
            pub fn capabilities(self) -> Capabilities {
                match self {
                    $(Self::$kind => <$settings as ClassifierDefinition>::CAPABILITIES,)*
                }
            }

            /// Returns the settings that a search tries by default; see [`ClassifierDefinition::SEARCH`].
            pub fn search(self) -> &'static [(&'static str, &'static str)] {
                match self {
                    $(Self::$kind => <$settings as ClassifierDefinition>::SEARCH,)*
                }
            }

            /// Returns `true` if [`Pooled`](super::Pooled) can correct the models of the classifier.
            pub fn pools(self) -> bool {
                match self {
                    $(Self::$kind => <$settings as ClassifierDefinition>::POOLS,)*
                }
            }

            /// Returns the flags of the classifier's own settings.
            pub(crate) fn flags(self) -> Vec<clap::Arg> {
                match self {
                    $(Self::$kind => flags_of::<$settings>(),)*
                }
            }

            /// Returns the default settings of the classifier.
            pub fn default_settings(self) -> ClassifierSettings {
                match self {
                    $(Self::$kind => ClassifierSettings::$kind(Default::default()),)*
                }
            }

            /// Restores the bare model (without standardization) from its saved tensors.
            pub(super) fn restore(self, tensors: &Tensors, task: Task) -> Result<Box<dyn Model>> {
                match self {
                    $(Self::$kind => <$settings as ClassifierDefinition>::restore(tensors, task),)*
                }
            }
        }

        /// The settings of one classifier.
        #[derive(Debug, Clone, PartialEq)]
        pub enum ClassifierSettings {
            $($(#[$doc])* $kind($settings),)*
        }

        impl ClassifierSettings {
            /// Returns the kind of the classifier.
            pub fn kind(&self) -> ClassifierKind {
                match self {
                    $(Self::$kind(_) => ClassifierKind::$kind,)*
                }
            }

            /// Returns the flags that these settings ignore; see [`ClassifierDefinition::unused_flags`].
            pub(crate) fn unused_flags(&self) -> (&'static [&'static str], String) {
                match self {
                    $(Self::$kind(settings) => settings.unused_flags(),)*
                }
            }

            /// Returns the penalty; see [`ClassifierDefinition::penalty_mut`].
            pub(super) fn penalty_mut(&mut self) -> Option<&mut f64> {
                match self {
                    $(Self::$kind(settings) => settings.penalty_mut(),)*
                }
            }

            /// Creates the classifier; see [`ClassifierDefinition::build`].
            pub(super) fn build(&self, trainer: &Trainer) -> Box<dyn Classifier> {
                match self {
                    $(Self::$kind(settings) => settings.build(trainer),)*
                }
            }
        }
    };
}
for_each_classifier!(define_classifiers);

impl ClassifierKind {
    /// Returns the pooling of the features that this classifier reads: `none` for sequence classifiers; otherwise `pooling`, with
    /// the mean instead of `none`.
    pub fn pooling(self, pooling: Pooling) -> Pooling {
        match (self.capabilities().sequences, pooling) {
            (true, _) => Pooling::None,
            (false, Pooling::None) => Pooling::Mean,
            (false, pooling) => pooling,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn names_are_the_same_in_flags_recipes_and_files() {
        for &kind in ClassifierKind::ALL {
            assert_eq!(kind.to_possible_value().unwrap().get_name(), kind.name());
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{}\"", kind.name()));
            assert_eq!(kind.default_settings().kind(), kind);
        }
    }
}
