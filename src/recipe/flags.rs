//! Flags that override single values of a recipe.

use clap::parser::ValueSource;
use clap::{ArgMatches, Command, FromArgMatches};

use super::{Classify, Recipe};
use crate::classify::{ClassifierKind, LossSettings, OptimizerSettings, ScheduleSettings, TrainingSettings, flags_of};
use crate::extract::{BIN_WIDTHS, DenseSiftSettings, Extractor, MAX_SIDES};
use crate::media::{Deinterlace, MAX_LENGTH, Sampling};
use crate::models::{BatchSize, Precision};
use crate::posters::ModelGrouping;
use crate::store::Pooling;
use crate::value_parsers;

const HEADING: &str = "Recipe overrides";

/// Flags of kinoprobe-extract for values of `[sampling]` and `[extractor]`.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = HEADING)]
pub struct ExtractionFlags {
    /// Evenly spaced frames per clip or shot (sampling kinds even, shots)
    #[arg(long, value_parser = value_parsers::at_least(1_usize))]
    pub frames: Option<usize>,
    /// Frames per window (sampling kinds windows, spread)
    #[arg(long, value_parser = value_parsers::between(1, MAX_LENGTH))]
    pub length: Option<usize>,
    /// Frame rate of the resampled clip, in frames per second (sampling kind windows)
    #[arg(long, value_parser = value_parsers::positive)]
    pub rate: Option<f64>,
    /// Maximum number of windows (sampling kind windows)
    #[arg(long, value_parser = value_parsers::at_least(1_usize))]
    pub count: Option<usize>,
    /// Distance between selected frames (sampling kind all)
    #[arg(long, value_parser = value_parsers::at_least(1_usize))]
    pub every: Option<usize>,
    /// Maximum number of frames per clip, evenly spaced (sampling kind all)
    #[arg(long, value_parser = value_parsers::at_least(1_usize))]
    pub most: Option<usize>,
    /// Which frames of videos are deinterlaced
    #[arg(long)]
    pub deinterlace: Option<Deinterlace>,
    /// Maximum number of keypoints per frame (extractor kind sift)
    #[arg(long, value_parser = value_parsers::at_least(1_usize))]
    pub keypoints: Option<usize>,
    /// Longer side that larger frames are scaled down to, in pixels (extractor kinds sift, dense-sift)
    #[arg(long, value_parser = value_parsers::between(*MAX_SIDES.start(), *MAX_SIDES.end()))]
    pub max_side: Option<usize>,
    /// Distance of the grid points in pixels (extractor kind dense-sift)
    #[arg(long, value_parser = value_parsers::at_least(1_usize))]
    pub step: Option<usize>,
    /// Widths of the bins of the descriptors in pixels, such as 4,6,8 (extractor kind dense-sift)
    #[arg(long, value_name = "WIDTHS", value_delimiter = ',', value_parser = value_parsers::between(*BIN_WIDTHS.start(), *BIN_WIDTHS.end()))]
    pub bin_widths: Option<Vec<usize>>,
    /// Standard deviation of the smoothed frame in pixels (extractor kind dense-sift)
    #[arg(long, value_parser = value_parsers::non_negative)]
    pub sigma: Option<f64>,
    /// RootSIFT: take the square root of the normalized descriptors (extractor kind dense-sift)
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    pub root_sift: Option<bool>,
    /// Frames or windows per run of the network: a number, or auto, which is 1 on a CPU and measured on a GPU (extractor kind network)
    #[arg(long, value_name = "ITEMS|auto")]
    pub batch: Option<BatchSize>,
    /// Name of the network's card (extractor kind network)
    #[arg(long)]
    pub card: Option<String>,
    /// Arithmetic precision: f32; tf32 or fp16 (GPU only); bf16 or int8 (CPU only, int8 after kinoprobe-models quantize); or
    /// auto, which is f32 on a CPU and tf32 on a GPU (extractor kind network) [default: auto]
    #[arg(long)]
    pub precision: Option<Precision>,
}

impl ExtractionFlags {
    /// Overrides values of `recipe`.
    pub(super) fn apply(&self, recipe: &mut Recipe) -> Result<(), String> {
        let (mut frames, mut length, mut rate, mut count) = (None, None, None, None);
        let (mut every, mut most) = (None, None);
        match &mut recipe.sampling {
            Sampling::Even { frames: value } | Sampling::Shots { frames: value } => frames = Some(value),
            Sampling::All { every: e, most: m } => (every, most) = (Some(e), Some(m)),
            Sampling::Spread { length: value } => length = Some(value),
            Sampling::Windows { length: l, rate: r, count: c } => (length, rate, count) = (Some(l), Some(r), Some(c)),
        }
        let (mut keypoints, mut max_side) = (None, None);
        let (mut step, mut bin_widths, mut sigma, mut root_sift) = (None, None, None, None);
        let (mut batch, mut card, mut precision) = (None, None, None);
        match &mut recipe.extractor {
            Extractor::Network { card: c, batch: b, precision: p } => {
                (card, batch, precision) = (Some(c), Some(b), Some(p));
            }
            Extractor::Sift { keypoints: k, max_side: m } => (keypoints, max_side) = (Some(k), Some(m)),
            Extractor::DenseSift(DenseSiftSettings { step: s, bin_widths: b, sigma: d, root_sift: r, max_side: m }) => {
                (step, bin_widths, sigma, root_sift, max_side) = (Some(s), Some(b), Some(d), Some(r), Some(m));
            }
        }
        set("frames", &self.frames, frames)?;
        set("length", &self.length, length)?;
        set("rate", &self.rate, rate)?;
        set("count", &self.count, count)?;
        set("every", &self.every, every)?;
        set("most", &self.most.map(Some), most)?;
        set("deinterlace", &self.deinterlace, Some(&mut recipe.deinterlace))?;
        set("keypoints", &self.keypoints, keypoints)?;
        set("max-side", &self.max_side, max_side)?;
        set("step", &self.step, step)?;
        set("bin-widths", &self.bin_widths, bin_widths)?;
        set("sigma", &self.sigma, sigma)?;
        set("root-sift", &self.root_sift, root_sift)?;
        set("batch", &self.batch, batch)?;
        set("card", &self.card, card)?;
        set("precision", &self.precision, precision)
    }
}

/// Sets a recipe value to that of a flag. `target` is `None` if the recipe has no such key.
fn set<T: Clone>(name: &str, value: &Option<T>, target: Option<&mut T>) -> Result<(), String> {
    match (value, target) {
        (None, _) => Ok(()),
        (Some(value), Some(target)) => {
            *target = value.clone();
            Ok(())
        }
        (Some(_), None) => {
            Err(format!("--{name} does not apply: the recipe's sampling and extractor have no such key"))
        }
    }
}

/// Flags of kinoprobe-classify for values of `[classify]`, derived from the settings of the recipe and of the registered
/// classifiers.
#[derive(Debug, Clone, Default)]
pub struct ClassifyFlags {
    matches: Option<ArgMatches>,
}

/// A flag, and the classifiers that support it.
struct Flag {
    arg: clap::Arg,
    /// Help text of each group of classifiers, in order of registration.
    help: Vec<(Vec<ClassifierKind>, String)>,
}

impl Flag {
    fn new(arg: clap::Arg, kinds: Vec<ClassifierKind>) -> Self {
        let help = arg.get_help().map(|help| help.to_string()).unwrap_or_default();
        Self { arg, help: vec![(kinds, help)] }
    }

    fn id(&self) -> &str {
        self.arg.get_id().as_str()
    }

    fn kinds(&self) -> Vec<ClassifierKind> {
        self.help.iter().flat_map(|(kinds, _)| kinds.clone()).collect()
    }

    fn add(&mut self, kind: ClassifierKind, other: &clap::Arg) {
        let help = other.get_help().map(|help| help.to_string()).unwrap_or_default();
        match self.help.iter_mut().find(|(_, known)| *known == help) {
            Some((kinds, _)) => kinds.push(kind),
            None => self.help.push((vec![kind], help)),
        }
    }

    /// Returns the clap argument. Its help names the classifiers unless all support it.
    fn into_arg(self) -> clap::Arg {
        if self.kinds().len() == ClassifierKind::ALL.len() {
            return self.arg.help_heading(HEADING);
        }
        let help: Vec<String> = self.help.iter().map(|(kinds, help)| format!("{}: {help}", names(kinds))).collect();
        self.arg.help(help.join("; ")).help_heading(HEADING)
    }
}

fn names(kinds: &[ClassifierKind]) -> String {
    kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ")
}

/// Returns all flags: those of `[classify]`, of the training loop, and of every classifier's own settings.
fn flags() -> Vec<Flag> {
    let all = ClassifierKind::ALL.to_vec();
    let trained: Vec<ClassifierKind> = all.iter().copied().filter(|kind| kind.capabilities().trained).collect();
    let mut flags: Vec<Flag> = flags_of::<Classify>()
        .into_iter()
        .map(|arg| {
            let kinds = match arg.get_id().as_str() {
                "seeds" => trained.clone(),
                "pool" => all.iter().copied().filter(|kind| kind.pools()).collect(),
                _ => all.clone(),
            };
            Flag::new(arg, kinds)
        })
        .collect();
    for &kind in ClassifierKind::ALL {
        for arg in kind.flags() {
            match flags.iter_mut().find(|flag| flag.arg.get_id() == arg.get_id()) {
                Some(flag) => flag.add(kind, &arg),
                None => flags.push(Flag::new(arg, vec![kind])),
            }
        }
    }
    let training = [
        flags_of::<LossSettings>(),
        flags_of::<TrainingSettings>(),
        flags_of::<OptimizerSettings>(),
        flags_of::<ScheduleSettings>(),
    ];
    flags.extend(training.into_iter().flatten().map(|arg| Flag::new(arg, trained.clone())));
    flags
}

impl clap::Args for ClassifyFlags {
    fn augment_args(command: Command) -> Command {
        command.args(flags().into_iter().map(Flag::into_arg))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ClassifyFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self { matches: Some(matches.clone()) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.matches = Some(matches.clone());
        Ok(())
    }
}

impl ClassifyFlags {
    /// Returns the classifiers that support the option `name` (without dashes); `None` if there is no such option.
    pub fn supporters(name: &str) -> Option<Vec<ClassifierKind>> {
        flags().into_iter().find(|flag| flag.arg.get_long() == Some(name)).map(|flag| flag.kinds())
    }

    /// Parses arguments.
    ///
    /// # Errors
    /// Returns a message that names the flag if an argument is invalid.
    pub(super) fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let command = <Self as clap::Args>::augment_args(Command::new("flags").no_binary_name(true));
        let matches = command.try_get_matches_from(arguments).map_err(|error| {
            let text = error.to_string();
            text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_string()
        })?;
        Ok(Self { matches: Some(matches) })
    }

    /// Returns `true` if the flag `name` (without dashes) is given.
    pub(super) fn given(&self, name: &str) -> bool {
        let flag = flags().into_iter().find(|flag| flag.arg.get_long() == Some(name));
        let source = |flag: Flag| self.matches.as_ref().and_then(|matches| matches.value_source(flag.id()));
        flag.and_then(source) == Some(ValueSource::CommandLine)
    }

    /// Overrides values of `classify`, and resolves its pooling for the chosen classifier.
    ///
    /// # Errors
    /// Returns a message that names the flag if the chosen classifier, or another chosen setting, does not support it.
    pub(super) fn apply(&self, classify: &mut Classify) -> Result<(), String> {
        if let Some(matches) = &self.matches {
            let mut update = || -> Result<(), clap::Error> {
                classify.update_from_arg_matches(matches)?;
                classify.loss.update_from_arg_matches(matches)?;
                classify.training.update_from_arg_matches(matches)?;
                classify.optimizer.update_from_arg_matches(matches)?;
                classify.schedule.update_from_arg_matches(matches)?;
                classify.update_classifier(matches)
            };
            update().map_err(|error| error.to_string())?;
            let given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
            check_support(classify, &given)?;
            check_counts(classify.classifier, matches)?;
            let pools = given("pool") && classify.pool;
            if (classify.by != Some(ModelGrouping::Year) || pools) && !given("window") {
                classify.window = None;
            }
            if let Some(setting) = classify.excludes_pool().filter(|_| pools) {
                return Err(format!("--pool does not apply to {setting}"));
            }
        }
        classify.pooling = classify.classifier.pooling(classify.pooling);
        Ok(())
    }
}

/// Checks that flags have several values only if the classifier takes a list.
fn check_counts(kind: ClassifierKind, matches: &ArgMatches) -> Result<(), String> {
    for arg in kind.flags().iter().filter(|arg| arg.get_value_delimiter().is_none()) {
        let id = arg.get_id().as_str();
        if matches.value_source(id).is_some() && matches.get_raw(id).is_some_and(|values| values.len() > 1) {
            return Err(format!(
                "--{} takes one value with classifier {}",
                arg.get_long().expect("every flag has a long name"),
                kind.name()
            ));
        }
    }
    Ok(())
}

/// Checks that every given flag has an effect.
fn check_support(classify: &Classify, given: &dyn Fn(&str) -> bool) -> Result<(), String> {
    let kind = classify.classifier;
    let flags = flags();
    let long = |flag: &Flag| flag.arg.get_long().expect("every flag has a long name").to_string();
    for flag in flags.iter().filter(|flag| given(flag.id())) {
        let kinds = flag.kinds();
        if !kinds.contains(&kind) {
            return Err(format!(
                "--{} does not apply to classifier {}; classifiers with this option: {}",
                long(flag),
                kind.name(),
                names(&kinds)
            ));
        }
    }
    let unused = [
        classify.classifier_settings(kind).unused_flags(),
        classify.loss.unused_flags(),
        classify.optimizer.unused_flags(),
        classify.schedule.unused_flags(),
    ];
    for (ids, setting) in unused {
        if let Some(flag) = flags.iter().find(|flag| ids.contains(&flag.id()) && given(flag.id())) {
            return Err(format!("--{} does not apply to {setting}", long(flag)));
        }
    }
    if given("pooling") && kind.pooling(classify.pooling) != classify.pooling {
        let sequences = kind.capabilities().sequences;
        let kinds = ClassifierKind::ALL.iter().copied().filter(|kind| kind.capabilities().sequences != sequences);
        let kinds = names(&kinds.collect::<Vec<_>>());
        return Err(match classify.pooling {
            Pooling::None => format!(
                "--pooling none yields sequences, but classifier {} needs one vector per clip; use mean or max, or a \
                 sequence classifier: {kinds}",
                kind.name()
            ),
            _ => format!(
                "--pooling does not apply to classifier {}, which reads sequences; classifiers with this option: {kinds}",
                kind.name()
            ),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Arguments {
        #[command(flatten)]
        flags: ClassifyFlags,
    }

    fn apply(arguments: &[&str]) -> Result<Classify, String> {
        let parsed = Arguments::try_parse_from([&["classify"], arguments].concat()).map_err(|e| e.to_string())?;
        let mut classify = Classify::default();
        parsed.flags.apply(&mut classify)?;
        Ok(classify)
    }

    #[test]
    fn flags_override_the_settings_of_the_chosen_classifier() {
        let classify = apply(&["--hidden", "7", "--loss", "focal", "--focal-gamma", "1", "--seeds", "3"]).unwrap();
        assert_eq!((classify.mlp.hidden, classify.bilstm.hidden, classify.seeds), (vec![7], 256, 3));
        assert_eq!((classify.loss.focal_gamma, classify.training.epochs), (1.0, 100));
        let classify = apply(&["--classifier", "bilstm", "--hidden", "7"]).unwrap();
        assert_eq!((classify.mlp.hidden, classify.bilstm.hidden, classify.pooling), (vec![512], 7, Pooling::None));
        assert_eq!(apply(&["--hidden", "512,256"]).unwrap().mlp.hidden, [512, 256]);
        assert_eq!(apply(&["--classifier", "knn", "--neighbors", "2"]).unwrap().knn.neighbors, 2);
        assert_eq!(apply(&[]).unwrap(), Classify::default());
        assert_eq!(ClassifyFlags::supporters("neighbors"), Some(vec![ClassifierKind::Knn]));
        assert_eq!(ClassifyFlags::supporters("frames"), None);
    }

    #[test]
    fn every_flag_is_accepted_by_exactly_the_classifiers_that_support_it() {
        for flag in flags() {
            let (long, supporters) = (flag.arg.get_long().unwrap().to_string(), flag.kinds());
            let given = |id: &str| id == flag.id();
            for &kind in ClassifierKind::ALL {
                // The error about another setting names that setting, not the classifier.
                let classify =
                    Classify { classifier: kind, pooling: kind.pooling(Pooling::Mean), ..Classify::default() };
                let message = check_support(&classify, &given).err().unwrap_or_default();
                let refused = message.contains(&format!("--{long} does not apply to classifier {};", kind.name()));
                assert_eq!(refused, !supporters.contains(&kind), "--{long}, {}: {message}", kind.name());
            }
        }
    }

    #[test]
    fn flags_without_effect_are_errors_that_name_the_flag() {
        for (arguments, expected) in [
            ("--classifier logistic --loss-weights balanced", "--loss-weights does not apply to classifier logistic"),
            ("--classifier knn --hidden 4", "classifiers with this option: mlp, bilstm"),
            ("--classifier bilstm --hidden 4,5", "--hidden takes one value with classifier bilstm"),
            ("--classifier bayes --seeds 2", "--seeds does not apply to classifier bayes"),
            ("--pooling none", "needs one vector per clip"),
            ("--classifier bilstm --pooling max", "which reads sequences"),
            ("--schedule constant --restart-every 3", "--restart-every does not apply to schedule constant"),
            ("--momentum 0.5", "--momentum does not apply to optimizer adamw"),
            ("--margin 0.1", "--margin does not apply to the default loss"),
            ("--classifier bilstm --compat movienet-prediction --length 4", "--length does not apply to compat"),
            ("--classifier constant --standardize false", "--standardize does not apply to classifier constant"),
            ("--classifier constant --pooling max", "--pooling does not apply to classifier constant"),
            ("--by year --pool --classifier svm", "classifiers with this option: mlp, logistic"),
            ("--pool", "--pool does not apply to runs without classify.by"),
            ("--by year --pool --window 10", "--pool does not apply to classify.window"),
            ("--by year --pool --loss focal", "--pool does not apply to losses other than bce"),
            (
                "--classifier forest",
                "possible values: mlp, bilstm, attentive, transformer, logistic, svm, bayes, gbdt, knn, constant",
            ),
        ] {
            let error = apply(&arguments.split(' ').collect::<Vec<_>>()).unwrap_err();
            assert!(error.contains(expected), "{arguments}: {error}");
        }
    }

    #[test]
    fn help_names_the_classifiers_of_each_flag() {
        use clap::CommandFactory;
        let help = Arguments::command().term_width(0).render_long_help().to_string();
        for expected in [
            "mlp: Hidden units, of each layer if there are several: 512,256; bilstm: Hidden units per direction",
            "mlp, bilstm, attentive, transformer: Dropout probability",
        ] {
            assert!(help.contains(expected), "{help}");
        }
    }
}
