//! Training recipes (`pipelines/train/NAME.toml`). Unknown keys, and keys without an effect, are errors.

mod flags;
pub mod settings;

use std::path::Path;

use kinoprobe::classify::{LossKind, LossSettings, OptimizerSettings, ScheduleSettings, TrainingSettings};
use kinoprobe::dataset::Task;
use kinoprobe::error::{Error, Result};
use kinoprobe::media::{Deinterlace, Sampling};
use kinoprobe::store::Pooling;
use kinoprobe::value_parsers;
use serde::{Deserialize, Serialize};
use toml::Table;

pub use flags::TrainFlags;
pub use settings::{
    AugmentSettings, ContrastiveSettings, EpochSettings, InputSettings, MixedPrecision, NetworkSettings,
    RotationSettings,
};

/// A training recipe. Keys with a `#[arg]` attribute, and those of most tables, are also flags (see [`TrainFlags`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct TrainRecipe {
    /// Name of the method, and of the card and the recipe of the trained network.
    #[arg(skip)]
    pub method: String,
    /// Prediction task [default: multi-label if a clip has several labels].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(long)]
    pub task: Option<Task>,
    /// Seed of all random numbers.
    #[serde(default)]
    #[arg(long, value_name = "N")]
    pub seed: u64,
    /// Pooling of the logits of a clip's windows (frames for 2-D networks): mean or max.
    #[serde(default = "default_pooling")]
    #[arg(long, help = "Pooling of the logits of a clip's windows (frames for 2-D networks): mean or max")]
    pub pooling: Pooling,
    /// Arithmetic on CUDA; the CPU computes in f32.
    #[serde(default)]
    #[arg(long)]
    pub precision: MixedPrecision,
    /// Label smoothing of the cross-entropy.
    #[serde(default)]
    #[arg(long, value_name = "X", value_parser = value_parsers::below_one::<f64>)]
    pub label_smoothing: f64,
    /// Maximum norm of the gradient; larger gradients are scaled down [default: none].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "X", value_parser = value_parsers::positive)]
    pub clip_norm: Option<f64>,
    /// Which frames are deinterlaced.
    #[serde(default, skip_serializing_if = "Deinterlace::is_off")]
    #[arg(skip)]
    pub deinterlace: Deinterlace,
    /// Selects the frames of a clip, which are decoded once.
    #[arg(skip = Sampling::Even { frames: 1 })]
    pub sampling: Sampling,
    /// Input of the network.
    #[arg(skip = InputSettings { size: [1, 1], resize: kinoprobe::models::input::Resize::Short(1), mean: [0.0; 3], std: [1.0; 3] })]
    pub input: InputSettings,
    /// The network.
    #[command(flatten)]
    pub network: NetworkSettings,
    /// Clips and frames of an epoch.
    #[serde(default)]
    #[command(flatten)]
    pub epoch: EpochSettings,
    /// Augmentation.
    #[serde(default)]
    #[arg(skip)]
    pub augment: AugmentSettings,
    /// Loss.
    #[serde(default)]
    #[command(flatten)]
    pub loss: LossSettings,
    /// Training loop; `batch` is the number of clips per training step.
    #[serde(default)]
    #[command(flatten)]
    pub training: TrainingSettings,
    /// Optimizer.
    #[serde(default)]
    #[command(flatten)]
    pub optimizer: OptimizerSettings,
    /// Learning-rate schedule.
    #[serde(default)]
    #[command(flatten)]
    pub schedule: ScheduleSettings,
    /// Self-supervised task on labeled and unlabeled frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(skip)]
    pub rotations: Option<RotationSettings>,
    /// Contrastive pre-training instead of classification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(skip)]
    pub contrastive: Option<ContrastiveSettings>,
}

/// Corrects the keys in messages of the settings that classification shares, which name its table.
pub(crate) fn own_key(message: String) -> String {
    message.replace("classify.", "")
}

fn default_pooling() -> Pooling {
    Pooling::Mean
}

impl TrainRecipe {
    /// Reads and validates a recipe.
    ///
    /// # Errors
    /// Returns an error that names the file if it is missing, is not TOML, has an unknown key or one without an effect, or a
    /// value is out of range.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let invalid = |message: String| Error::Config { path: path.to_path_buf(), message };
        let recipe: Self = toml::from_str(&text).map_err(|error| invalid(error.to_string()))?;
        recipe.validate().map_err(invalid)?;
        Ok(recipe)
    }

    /// Returns the text of the recipe's file.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a recipe serializes to TOML")
    }

    /// Overrides values by flags. `path` is the recipe's file, for error messages. Returns the dotted keys of the recipe that have no
    /// effect with the settings that the flags choose; they are reset to their defaults.
    ///
    /// # Errors
    /// Returns an error if a flag does not apply or a value is out of range.
    pub fn apply(&mut self, flags: &TrainFlags, path: &Path) -> Result<Vec<String>> {
        flags.apply(self).map_err(Error::Data)?;
        let unused = self.unused();
        for (table, key, _) in &unused {
            self.reset(table, key);
        }
        self.validate().map_err(|message| Error::Config { path: path.to_path_buf(), message })?;
        Ok(unused.into_iter().map(|(table, key, _)| dotted(&table, &key)).collect())
    }

    /// Returns the number of frames in a window, for 3-D networks; `None` for 2-D networks, whose windows have one frame.
    pub fn window_length(&self) -> Option<usize> {
        match self.sampling {
            Sampling::Spread { length } | Sampling::Windows { length, .. } => Some(length),
            Sampling::Even { .. } | Sampling::All { .. } | Sampling::Shots { .. } => None,
        }
    }

    /// Checks the ranges of the values, and that each has an effect.
    ///
    /// # Errors
    /// Returns a message that names the key and the range.
    pub fn validate(&self) -> Result<(), String> {
        if self.method.is_empty() || self.method.contains(['/', '\\']) {
            return Err("method must be a name without slashes".into());
        }
        self.sampling.validate()?;
        match self.sampling {
            Sampling::All { most: None, .. } => {
                return Err(
                    "sampling.most is required: it bounds the number of frames that are decoded and kept".into()
                );
            }
            Sampling::Shots { .. } => {
                return Err(
                    "sampling.kind must be even, spread, windows or all: training does not read lists of shots".into(),
                );
            }
            _ => {}
        }
        self.input.spec(self.window_length()).check()?;
        if self.pooling == Pooling::None {
            return Err("pooling must be mean or max".into());
        }
        if !(0.0..1.0).contains(&self.label_smoothing) {
            return Err(format!("label_smoothing must be in [0, 1), not {}", self.label_smoothing));
        }
        if self.clip_norm.is_some_and(|norm| !(norm.is_finite() && norm > 0.0)) {
            return Err("clip_norm must be a finite number > 0".into());
        }
        self.network.validate()?;
        self.epoch.validate().map_err(own_key).map_err(|message| match message.strip_prefix("resample") {
            Some(rest) => format!("epoch.resample{rest}"),
            None => message,
        })?;
        self.augment.validate(self.input.size)?;
        self.loss.validate().map_err(own_key)?;
        self.training.validate().map_err(own_key)?;
        self.optimizer.validate().map_err(own_key)?;
        self.schedule.validate().map_err(own_key)?;
        if self.schedule.warm_up >= self.training.epochs && self.schedule.warm_up > 0 {
            return Err("schedule.warm_up must be less than training.epochs".into());
        }
        if let Some(rotations) = &self.rotations {
            rotations.validate()?;
            let [height, width] = self.input.size;
            if self.window_length().is_some() || height != width {
                return Err(
                    "rotations need square frames of a 2-D network: set input.size and sampling.kind accordingly"
                        .into(),
                );
            }
        }
        if let Some(contrastive) = &self.contrastive {
            contrastive.validate()?;
        }
        match self.unused().first() {
            Some((table, key, by)) => Err(format!("{} does not apply to {by}", dotted(table, key))),
            None => Ok(()),
        }
    }

    /// Returns the tables whose keys another key can make ineffective, with these keys and what ignores them.
    fn ignored(&self) -> [(&'static str, &'static [&'static str], String); 3] {
        let (loss, loss_kind) = self.loss.unused_flags();
        let (optimizer, optimizer_kind) = self.optimizer.unused_flags();
        let (schedule, schedule_kind) = self.schedule.unused_flags();
        [("loss", loss, loss_kind), ("optimizer", optimizer, optimizer_kind), ("schedule", schedule, schedule_kind)]
    }

    /// Returns the settings that differ from their defaults without an effect: table, key, and what ignores it.
    fn unused(&self) -> Vec<(String, String, String)> {
        let mut unused = Vec::new();
        let recipe = Table::try_from(self).expect("a recipe serializes to TOML");
        for (table, keys, by) in self.ignored() {
            let (values, defaults) = (&recipe[table], default_table(table));
            let changed = keys.iter().filter(|&&key| values.get(key) != defaults.get(key));
            unused.extend(changed.map(|key| (table.to_string(), (*key).to_string(), by.clone())));
        }
        let mut add = |table: &str, key: &str, by: &str| unused.push((table.into(), key.into(), by.into()));
        if self.label_smoothing > 0.0 && self.loss.kind.is_some_and(|kind| kind != LossKind::CrossEntropy) {
            add("", "label_smoothing", "losses other than cross-entropy");
        }
        if self.contrastive.is_some() {
            let by = "contrastive pre-training, which does not use labels";
            let used = [
                ("", "task", self.task.is_some()),
                ("", "label_smoothing", self.label_smoothing > 0.0),
                ("", "loss", self.loss != LossSettings::default()),
                ("", "rotations", self.rotations.is_some()),
                ("epoch", "balanced", self.epoch.balanced),
                ("epoch", "resample", self.epoch.resample.is_some()),
                ("augment", "mixup", self.augment.mixup > 0.0),
            ];
            used.into_iter().filter(|(.., used)| *used).for_each(|(table, key, _)| add(table, key, by));
        }
        unused
    }

    /// Resets a setting to its default.
    fn reset(&mut self, table: &str, key: &str) {
        let mut recipe = Table::try_from(&*self).expect("a recipe serializes to TOML");
        match recipe.get_mut(table).and_then(toml::Value::as_table_mut) {
            Some(values) => drop(values.remove(key)),
            None => drop(recipe.remove(key)),
        }
        *self = recipe.try_into().expect("a recipe without an optional key is valid");
    }
}

/// Returns the default values of a table that classification shares.
fn default_table(table: &str) -> Table {
    let table = match table {
        "loss" => Table::try_from(LossSettings::default()),
        "optimizer" => Table::try_from(OptimizerSettings::default()),
        _ => Table::try_from(ScheduleSettings::default()),
    };
    table.expect("settings serialize to TOML")
}

fn dotted(table: &str, key: &str) -> String {
    if table.is_empty() { key.to_string() } else { format!("{table}.{key}") }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::settings::HeadSettings;
    use super::*;
    use kinoprobe::models::Card;
    use kinoprobe::models::nets::Architecture;

    fn root() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
    }

    fn recipe(name: &str) -> TrainRecipe {
        TrainRecipe::load(&root().join(format!("pipelines/train/{name}.toml"))).unwrap()
    }

    /// Parses a recipe with one text replaced.
    fn edited(name: &str, from: &str, to: &str) -> Result<TrainRecipe, String> {
        let text = std::fs::read_to_string(root().join(format!("pipelines/train/{name}.toml"))).unwrap();
        assert!(text.contains(from), "{from}");
        let recipe: TrainRecipe = toml::from_str(&text.replacen(from, to, 1)).map_err(|error| error.to_string())?;
        recipe.validate().map(|()| recipe)
    }

    #[test]
    fn all_recipes_are_valid_and_fit_their_cards() {
        let mut names: Vec<String> = std::fs::read_dir(root().join("pipelines/train"))
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_string())
            .collect();
        names.sort();
        assert_eq!(names, ["demo", "posters", "r2plus1d", "r2plus1d-tuned", "resnet50", "sesemi", "simclr"]);
        for name in names {
            let recipe = recipe(&name);
            let card = Card::load(&root().join("models"), &recipe.network.card).unwrap();
            let input = recipe.input.spec(recipe.window_length());
            assert_eq!(input.layout, card.architecture.unwrap().layout(), "{name}");
            // Written to a run's directory, it is the same recipe.
            let written = toml::to_string(&recipe).unwrap();
            assert_eq!(toml::from_str::<TrainRecipe>(&written).unwrap(), recipe, "{name}");
        }
    }

    #[test]
    fn the_reference_projects_settings() {
        let recipe = recipe("r2plus1d");
        assert_eq!((recipe.window_length(), recipe.input.size, recipe.training.batch), (Some(15), [100, 100], 4));
        assert_eq!((recipe.loss.kind, recipe.training.epochs), (Some(LossKind::Bce), 10));
        let OptimizerSettings { learning_rate, momentum, weight_decay, .. } = recipe.optimizer;
        assert_eq!((learning_rate, momentum, weight_decay), (1e-4, 0.8, 5e-3));
        assert_eq!((recipe.schedule.step_every, recipe.schedule.step_factor), (4, 0.1));
    }

    #[test]
    fn heads_have_the_documented_number_of_parameters() {
        let recipe = recipe("sesemi");
        // 2048·1312 + 1312 + 1312·85 + 85 and 2048·584 + 584 + 584·6 + 6.
        let count = |head: &HeadSettings, inputs, outputs| -> usize {
            let parameters = head.layers("head", inputs, outputs).parameters();
            parameters.iter().map(|parameter| parameter.shape.iter().product::<usize>()).sum()
        };
        assert_eq!(count(&recipe.network.head, 2048, 85), 2_799_893);
        assert_eq!(count(&recipe.rotations.as_ref().unwrap().head, 2048, 6), 1_200_126);
        assert_eq!(count(&HeadSettings::default(), 512, 7), 513 * 7);
        // The parameters of the last block.
        let spec = recipe.input.spec(None);
        let trained: usize = Architecture::ResNet50
            .parameters(&spec)
            .iter()
            .filter(|parameter| recipe.network.is_trainable(&parameter.name) && !parameter.name.contains("running_"))
            .map(|parameter| parameter.shape.iter().product::<usize>())
            .sum();
        assert_eq!(trained, 4_462_592);
    }

    #[test]
    fn prefixes_are_whole_components() {
        let mut network = recipe("resnet50").network;
        assert!(network.is_trainable("layer4.2.conv1.weight") && !network.is_trainable("layer4.1.conv1.weight"));
        network.trainable = vec!["layer4.2.conv".into()];
        assert!(!network.is_trainable("layer4.2.conv1.weight"));
        (network.trainable, network.frozen) = (vec![], vec!["layer1".into()]);
        assert!(network.is_trainable("layer10.weight") && !network.is_trainable("layer1.0.weight"));
    }

    #[test]
    fn invalid_values_name_the_key_and_the_range() {
        for (from, to, expected) in [
            ("seed = 0", "sed = 0", "unknown field `sed`"),
            ("flip = 0.5", "flip = 1.5", "augment.flip must be in [0, 1], not 1.5"),
            ("scale = [0.8, 1.0]", "scale = [0.8, 1.1]", "augment.crop.scale must be a range [a, b] with"),
            ("dropout = 0.5", "dropout = 1.0", "network.head.dropout must be in [0, 1), not 1"),
            ("draw = 20", "draw = 0", "epoch.draw must be at least 1"),
            (
                "draw = 20",
                "[epoch.resample]\nkind = \"compose\"\nlow = 0.5\nhigh = 0.1",
                "epoch.resample: low and high",
            ),
            ("margin = 0.05", "margin = 1.0", "loss.margin must be in [0, 1)"),
            ("margin = 0.05", "focal_gamma = 3.0", "loss.focal_gamma does not apply to loss asymmetric"),
            ("kind = \"even\"\nframes = 40", "kind = \"all\"", "sampling.most is required"),
            ("kind = \"even\"\nframes = 40", "kind = \"shots\"\nframes = 1", "does not read lists of shots"),
            ("pooling = \"mean\"", "pooling = \"none\"", "pooling must be mean or max"),
            ("seed = 0", "seed = 0\nclip_norm = 0.0", "clip_norm must be a finite number > 0"),
            ("seed = 0", "seed = 0\nlabel_smoothing = 0.1", "label_smoothing does not apply to losses other than"),
            ("trainable =", "frozen = [\"conv1\"]\ntrainable =", "exclude each other"),
            ("size = [224, 224]", "size = [224, 300]", "input.resize"),
        ] {
            let error = edited("resnet50", from, to).unwrap_err();
            assert!(error.contains(expected), "{to}: {error}");
        }
        for (name, from, to, expected) in [
            (
                "simclr",
                "kernel = 23",
                "kernel = 22",
                "augment.blur.kernel must be an odd number of at most 447, not 22",
            ),
            (
                "simclr",
                "seed = 0",
                "seed = 0\ntask = \"multi-label\"",
                "task does not apply to contrastive pre-training",
            ),
            ("sesemi", "weight = 1.0", "weight = -1.0", "rotations.weight must be in [0, 1000]"),
            ("sesemi", "size = [224, 224]", "size = [224, 200]", "rotations need square frames"),
            (
                "r2plus1d",
                "weight_decay = 0.005",
                "weight_decay = -1.0",
                "optimizer.weight_decay must be a finite number",
            ),
        ] {
            let error = edited(name, from, to).unwrap_err();
            assert!(error.contains(expected), "{to}: {error}");
        }
    }

    #[test]
    fn the_weight_of_the_rotations_rises_linearly() {
        let rotations = RotationSettings { ramp_up: 4, weight: 2.0, ..RotationSettings::default() };
        assert_eq!([0, 1, 3, 4, 9].map(|epoch| rotations.weight_in(epoch)), [0.0, 0.5, 1.5, 2.0, 2.0]);
        assert_eq!(RotationSettings::default().weight_in(0), 1.0);
    }
}
