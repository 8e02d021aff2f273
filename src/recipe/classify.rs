//! `[classify]`: what is done with the features.

use serde::{Deserialize, Serialize};

use super::positive;
use crate::dataset::Task;
use crate::manifest::imbalance::Resample;
use crate::posters::{By, MinClips};
use crate::store::Pooling;

/// Which classifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ClassifierKind {
    /// Linear → BatchNorm1d → GELU → Dropout → Linear.
    Mlp,
    /// Bidirectional LSTM over sequences of rows.
    Bilstm,
    /// Logistic regression: multinomial, or one a label.
    Logistic,
    /// Gaussian naive Bayes.
    Bayes,
    /// k nearest neighbors.
    Knn,
    /// Always the class frequencies of the training split.
    Constant,
}

impl ClassifierKind {
    /// Returns the pooling that this classifier reads, given the pooling of a recipe: all rows for a classifier of sequences;
    /// the mean instead of all rows for a classifier of vectors.
    pub fn pooling(self, pooling: Pooling) -> Pooling {
        match (self, pooling) {
            (ClassifierKind::Bilstm, _) => Pooling::None,
            (_, Pooling::None) => Pooling::Mean,
            (_, pooling) => pooling,
        }
    }

    /// Whether it is trained over epochs, from weights that are drawn.
    pub fn is_trained(self) -> bool {
        matches!(self, ClassifierKind::Mlp | ClassifierKind::Bilstm)
    }
}

/// What is done with the features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Classify {
    /// Single-label or multi-label; where it is not given, the data decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// Which features are read; see [`ClassifierKind::pooling`].
    pub pooling: Pooling,
    /// Standardize by the mean and deviation of the training split.
    pub standardize: bool,
    /// The classifier trained by default.
    pub classifier: ClassifierKind,
    /// Seeds 0, 1, … this many (mean ± deviation over them is reported; the first one's model is kept).
    pub seeds: u64,
    /// Settings of the multi-layer perceptron.
    pub mlp: Mlp,
    /// Settings of the bidirectional LSTM.
    pub bilstm: Bilstm,
    /// What training minimizes.
    pub loss: Loss,
    /// How training goes through the clips.
    pub training: Training,
    /// How the training clips are evened out before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resample: Option<Resample>,
    /// One model a year, or one for all, in place of a single run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<By>,
    /// by = "year": how many years the training clips of one model span, those from `window / 2` before on; 10 for the decade
    /// from 5 years before to 4 after. Where it is not given, the year alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<i32>,
    /// by = "year": the labeled clips that a year needs.
    #[serde(alias = "least")]
    pub min_clips: MinClips,
    /// How gradients become steps.
    pub optimizer: Optimizer,
    /// The learning rate over time.
    pub schedule: Schedule,
    /// Settings of logistic regression.
    pub logistic: Logistic,
    /// Settings of k nearest neighbors.
    pub knn: Knn,
    /// Settings of Gaussian naive Bayes.
    pub bayes: Bayes,
}

impl Default for Classify {
    fn default() -> Self {
        Self {
            task: None,
            pooling: Pooling::Mean,
            standardize: true,
            classifier: ClassifierKind::Mlp,
            seeds: 1,
            mlp: Mlp::default(),
            bilstm: Bilstm::default(),
            loss: Loss::default(),
            training: Training::default(),
            resample: None,
            by: None,
            window: None,
            min_clips: MinClips::default(),
            optimizer: Optimizer::default(),
            schedule: Schedule::default(),
            logistic: Logistic::default(),
            knn: Knn::default(),
            bayes: Bayes::default(),
        }
    }
}

/// Settings of the multi-layer perceptron.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mlp {
    /// Hidden units.
    pub hidden: usize,
    /// Probability that a hidden unit is dropped.
    pub dropout: f32,
}

impl Default for Mlp {
    fn default() -> Self {
        Self { hidden: 512, dropout: 0.5 }
    }
}

/// Settings of the bidirectional LSTM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bilstm {
    /// Hidden units of each direction.
    pub hidden: usize,
    /// Rows of a clip at the most.
    pub length: usize,
    /// Which rows of a longer clip.
    pub sample: SequenceSample,
    /// Probability that a pooled value is dropped before the linear layer.
    pub dropout: f32,
    /// A published network in place of this crate's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compat: Option<Compat>,
}

impl Default for Bilstm {
    fn default() -> Self {
        Self { hidden: 256, length: 128, sample: SequenceSample::Even, dropout: 0.5, compat: None }
    }
}

/// Which rows of a clip that has more than a sequence holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum SequenceSample {
    /// The first ones.
    Truncate,
    /// A window drawn anew each time a clip is trained on; the middle one for scores.
    RandomWindow,
    /// Evenly spaced ones: the center of each of as many equal segments.
    Even,
}

/// Networks built as others published them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Compat {
    /// A random window of 256 rows, zeros on the left of shorter clips, LayerNorm, a BiLSTM of 128, the last step, MaxPool1d(4) over
    /// its features, linear. Replaces `hidden`, `length` and `sample`.
    MovienetPrediction,
}

/// What training minimizes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Loss {
    /// Which loss; where it is not given, cross-entropy for one label a clip and binary cross-entropy for several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<LossKind>,
    /// Weights against imbalance, for cross-entropy and binary cross-entropy.
    pub weights: ClassWeights,
    /// γ⁺ of the asymmetric loss.
    pub gamma_positive: f64,
    /// γ⁻ of the asymmetric loss.
    pub gamma_negative: f64,
    /// m of the asymmetric loss.
    pub margin: f64,
    /// γ of the focal loss.
    pub focal_gamma: f64,
    /// α of the focal loss: the weight of positives; that of negatives is 1 − α.
    pub focal_alpha: f64,
}

impl Default for Loss {
    fn default() -> Self {
        Self {
            kind: None,
            weights: ClassWeights::None,
            gamma_positive: 0.0,
            gamma_negative: 4.0,
            margin: 0.05,
            focal_gamma: 2.0,
            focal_alpha: 0.25,
        }
    }
}

/// Which loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// Softmax and cross-entropy: one label a clip.
    CrossEntropy,
    /// Binary cross-entropy of each label.
    Bce,
    /// Asymmetric loss (Ridnik et al. 2021) of each label.
    Asymmetric,
    /// Focal loss (Lin et al. 2017) of each label.
    Focal,
}

/// Weights against imbalance, from the N training clips of which n_c have class c, of C.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ClassWeights {
    /// All 1.
    None,
    /// Cross-entropy: N/(C·n_c), scikit-learn's `balanced`. Binary cross-entropy: positives weigh (N − n_c)/n_c.
    Balanced,
}

/// How training goes through the clips.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Training {
    /// Clips a step.
    pub batch: usize,
    /// Epochs at the most.
    pub epochs: usize,
    /// Epochs without a better one before training stops.
    pub patience: usize,
    /// What makes an epoch better than another, for patience.
    pub watch: Watch,
    /// What makes an epoch the one that is kept; where it is not given, as `watch`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<Watch>,
}

impl Default for Training {
    fn default() -> Self {
        Self { batch: 64, epochs: 100, patience: 15, watch: Watch::Score, keep: None }
    }
}

/// What makes an epoch better than another, on the validation split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Watch {
    /// A higher accuracy (one label a clip) or mAP (several), or the same at a lower loss.
    Score,
    /// A lower loss.
    Loss,
    /// Several labels a clip: a higher share of (clip, label) pairs that are right at 0.5, or the same at a lower loss. Where
    /// labels are sparse, saying nothing has a high one.
    BinaryAccuracy,
}

/// How gradients become steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Optimizer {
    /// Which rule.
    pub kind: OptimizerKind,
    /// The learning rate that the schedule begins with, or rises to.
    pub learning_rate: f64,
    /// Weight decay: decoupled for AdamW, an L2 penalty's gradient for the others.
    pub weight_decay: f64,
    /// Momentum of SGD.
    pub momentum: f64,
    /// Nesterov's momentum, for SGD.
    pub nesterov: bool,
}

impl Default for Optimizer {
    fn default() -> Self {
        Self { kind: OptimizerKind::Adamw, learning_rate: 0.01, weight_decay: 0.01, momentum: 0.9, nesterov: false }
    }
}

/// Which optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Adam with decoupled weight decay.
    Adamw,
    /// Adam.
    Adam,
    /// Stochastic gradient descent with momentum.
    Sgd,
}

/// The learning rate over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// Which curve.
    pub kind: ScheduleKind,
    /// Epochs of linear warm-up in front of it.
    pub warm_up: usize,
    /// restarts: epochs of the first cosine (T_0).
    pub restart_every: usize,
    /// restarts: factor by which each cosine is longer than the one before (T_mult).
    pub restart_factor: usize,
    /// step: epochs of each step.
    pub step_every: usize,
    /// step: factor between one step and the next (γ).
    pub step_factor: f64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            kind: ScheduleKind::Restarts,
            warm_up: 0,
            restart_every: 10,
            restart_factor: 1,
            step_every: 30,
            step_factor: 0.1,
        }
    }
}

/// Which curve the learning rate follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Always the same.
    Constant,
    /// Multiplied by a factor every so many epochs.
    Step,
    /// One cosine from the first epoch to the last.
    Cosine,
    /// Cosines with warm restarts.
    Restarts,
}

/// Settings of logistic regression.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Logistic {
    /// L2 penalty (scikit-learn's 1/C, over the summed loss).
    pub alpha: f64,
    /// L-BFGS iterations at the most.
    pub max_iterations: u64,
}

impl Default for Logistic {
    fn default() -> Self {
        Self { alpha: 1.0, max_iterations: 300 }
    }
}

/// Settings of k nearest neighbors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Knn {
    /// Neighbors that vote.
    pub neighbors: usize,
}

impl Default for Knn {
    fn default() -> Self {
        Self { neighbors: 5 }
    }
}

/// Settings of Gaussian naive Bayes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bayes {
    /// Share of the largest variance added to every variance (scikit-learn's `var_smoothing`).
    pub smoothing: f64,
}

impl Default for Bayes {
    fn default() -> Self {
        Self { smoothing: 1e-9 }
    }
}

impl Classify {
    /// Checks the ranges of the values.
    ///
    /// # Errors
    /// Returns a message that names the recipe key if a value is out of range.
    pub fn validate(&self) -> Result<(), String> {
        let Self { mlp, bilstm, loss, training, optimizer, schedule, .. } = self;
        for (name, value) in [
            ("classify.mlp.hidden", mlp.hidden),
            ("classify.bilstm.hidden", bilstm.hidden),
            ("classify.bilstm.length", bilstm.length),
            ("classify.training.epochs", training.epochs),
            ("classify.training.patience", training.patience),
            ("classify.schedule.restart_every", schedule.restart_every),
            ("classify.schedule.restart_factor", schedule.restart_factor),
            ("classify.schedule.step_every", schedule.step_every),
            ("classify.knn.neighbors", self.knn.neighbors),
            ("classify.seeds", self.seeds as usize),
        ] {
            positive(name, value)?;
        }
        positive("classify.window", self.window.unwrap_or(1).max(0) as usize)?;
        if self.window.is_some() && self.by != Some(By::Year) {
            return Err("classify.window serves classify.by = \"year\" only".into());
        }
        if self.min_clips.train < 2 {
            return Err("classify.min_clips.train must be at least 2".into());
        }
        if let Some(resample) = self.resample {
            resample.validate()?;
        }
        if training.batch < 2 {
            return Err("classify.training.batch must be at least 2: batch normalization needs two clips".into());
        }
        for (name, value) in [("mlp", mlp.dropout), ("bilstm", bilstm.dropout)] {
            if !(0.0..1.0).contains(&value) {
                return Err(format!("classify.{name}.dropout must be at least 0 and below 1"));
            }
        }
        for (name, value) in [
            ("loss.gamma_positive", loss.gamma_positive),
            ("loss.gamma_negative", loss.gamma_negative),
            ("loss.focal_gamma", loss.focal_gamma),
            ("optimizer.learning_rate", optimizer.learning_rate),
            ("optimizer.weight_decay", optimizer.weight_decay),
            ("schedule.step_factor", schedule.step_factor),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(format!("classify.{name} must be a number from 0"));
            }
        }
        if !(0.0..1.0).contains(&loss.margin) || !(0.0..=1.0).contains(&loss.focal_alpha) {
            return Err("classify.loss.margin must be at least 0 and below 1, focal_alpha from 0 to 1".into());
        }
        if !(0.0..1.0).contains(&optimizer.momentum) || (optimizer.nesterov && optimizer.momentum == 0.0) {
            return Err("classify.optimizer.momentum must be at least 0 and below 1, and above 0 for nesterov".into());
        }
        if schedule.warm_up >= training.epochs && schedule.warm_up > 0 {
            return Err("classify.schedule.warm_up must be shorter than classify.training.epochs".into());
        }
        Ok(())
    }
}
