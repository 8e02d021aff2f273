//! Gradient-boosted decision trees.

mod model;
#[cfg(test)]
mod tests;

use forust_ml::gradientbooster::{EvaluationData, GrowPolicy};
use forust_ml::{GradientBooster, Matrix};
use ndarray::ArrayView1;
use serde::{Deserialize, Serialize};

pub use model::{GbdtModel, Node, Tree};

use super::definition::{non_negative, positive};
use super::linear::{Weights, balanced};
use super::{
    Capabilities, ClassWeights, Classifier, ClassifierDefinition, FitContext, FitOutput, Model, Tensors, Trainer,
};
use crate::dataset::{Dataset, Task};
use crate::error::{Error, Result};
use crate::value_parsers;

/// Settings of gradient-boosted trees; the table `[classify.gbdt]` of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct GbdtSettings {
    /// Maximum number of trees per class.
    #[arg(long, value_name = "N", value_parser = value_parsers::at_least(1_usize))]
    pub trees: usize,
    /// Factor of the values of all leaves (scikit-learn's learning_rate).
    #[arg(long, value_name = "X", value_parser = value_parsers::positive)]
    pub shrinkage: f64,
    /// Maximum number of leaves of a tree.
    #[arg(long, value_name = "N", value_parser = value_parsers::between(2_usize, MAX_LEAVES))]
    pub leaves: usize,
    /// Minimum sum of the second derivatives of the loss in a leaf (XGBoost's min_child_weight).
    #[arg(id = "min_leaf_weight", long = "min-leaf-weight", value_name = "X", value_parser = value_parsers::non_negative)]
    pub min_leaf_weight: f64,
    /// L2 penalty on the values of leaves (XGBoost's lambda).
    #[arg(long, value_name = "X", value_parser = value_parsers::non_negative)]
    pub l2: f64,
    /// Share of the features, drawn at random for each tree, among which it splits (XGBoost's colsample_bytree).
    #[arg(id = "feature_fraction", long = "feature-fraction", value_name = "X", value_parser = value_parsers::probability::<f64>)]
    pub feature_fraction: f64,
    /// Trees without a lower loss on val after which a class gets no more.
    #[arg(id = "early_stopping", long = "early-stopping", value_name = "N", value_parser = value_parsers::at_least(1_usize))]
    pub early_stopping: usize,
    /// Class weights.
    #[arg(id = "class_weight", long = "class-weight", value_name = "RULE")]
    pub class_weight: ClassWeights,
}

/// Largest number of leaves; the numbers of nodes are saved as f32.
const MAX_LEAVES: usize = 1 << 16;

impl Default for GbdtSettings {
    fn default() -> Self {
        Self {
            trees: 100,
            shrinkage: 0.1,
            leaves: 31,
            min_leaf_weight: 1.0,
            l2: 1.0,
            feature_fraction: 1.0,
            early_stopping: 10,
            class_weight: ClassWeights::None,
        }
    }
}

impl ClassifierDefinition for GbdtSettings {
    const CAPABILITIES: Capabilities = Capabilities { sequences: false, trained: false };
    const SEARCH: &'static [(&'static str, &'static str)] = &[("leaves", "4,8,16,31"), ("min-leaf-weight", "0.3,1,5")];

    fn validate(&self) -> std::result::Result<(), String> {
        positive("classify.gbdt.trees", self.trees)?;
        positive("classify.gbdt.early_stopping", self.early_stopping)?;
        non_negative("classify.gbdt.min_leaf_weight", self.min_leaf_weight)?;
        non_negative("classify.gbdt.l2", self.l2)?;
        if !(self.shrinkage.is_finite() && self.shrinkage > 0.0) {
            return Err("classify.gbdt.shrinkage must be a finite number > 0".into());
        }
        if !(2..=MAX_LEAVES).contains(&self.leaves) {
            return Err(format!("classify.gbdt.leaves must be from 2 to {MAX_LEAVES}"));
        }
        if !(self.feature_fraction > 0.0 && self.feature_fraction <= 1.0) {
            return Err("classify.gbdt.feature_fraction must be in (0, 1]".into());
        }
        Ok(())
    }

    fn build(&self, _: &Trainer) -> Box<dyn Classifier> {
        Box::new(GradientBoosting(self.clone()))
    }

    fn restore(tensors: &Tensors, task: Task) -> Result<Box<dyn Model>> {
        Ok(Box::new(GbdtModel::restore(tensors, task)?))
    }
}

/// Newton boosting of regression trees with the logistic loss (Chen and Guestrin, XGBoost, 2016, sections 2 and 3.3), one-vs-rest for
/// both tasks: the logit of a class starts at the log odds of its frequency, and each tree adds a value to it. Trees grow leaf by leaf, at
/// the split with the largest gain, among 256 bins of every feature. scikit-learn's `HistGradientBoostingClassifier` differs in
/// single-label tasks: its trees of all classes are fitted to one cross-entropy.
///
/// The crate `forust-ml` grows the trees. Its results do not depend on the number of threads. It reads a copy of the features in f64 and
/// another one in 16-bit bins: 2.5 times their memory.
///
/// If there are validation clips, a class keeps the trees up to the lowest loss on them. A refit without them grows as many trees in all
/// classes as the class with the most has kept.
pub struct GradientBoosting(pub GbdtSettings);

impl Classifier for GradientBoosting {
    fn fit(&self, train: &Dataset, valid: &Dataset, context: &mut FitContext<'_>) -> Result<FitOutput> {
        if train.is_empty() {
            return Err(Error::Data("there is no training clip".into()));
        }
        if context.task == Task::SingleLabel {
            train.single_labels()?;
        }
        let classes = train.classes.len();
        let weights = match self.0.class_weight {
            ClassWeights::None => Weights::ones(classes),
            ClassWeights::Balanced => balanced(context.task, train.targets.view()),
        };
        let (columns, valid_columns) = (columns(train)?, columns(valid)?);
        let mut model = GbdtModel { base: Vec::new(), trees: Vec::new(), dim: train.dim(), task: context.task };
        for class in 0..classes {
            let part = |data: &Dataset| {
                Part::new(data.targets.column(class), [weights.positive[class], weights.negative[class]])
            };
            let (base, trees) = self.fit_class(&columns, part(train), &valid_columns, part(valid), context)?;
            model.base.push(base);
            model.trees.push(trees);
        }
        let most = model.trees.iter().map(Vec::len).max();
        let kept_epoch = if valid.is_empty() { None } else { most };
        Ok(FitOutput { kept_epoch, ..FitOutput::without_epochs(model, vec![]) })
    }
}

/// The targets and weights of one class.
struct Part {
    targets: Vec<f64>,
    weights: Vec<f64>,
}

impl Part {
    /// `weights` are those of clips that have the class, and of the others.
    fn new(targets: ArrayView1<'_, f32>, [positive, negative]: [f32; 2]) -> Self {
        Self {
            targets: targets.iter().map(|&target| f64::from(target > 0.0)).collect(),
            weights: targets.iter().map(|&target| f64::from(if target > 0.0 { positive } else { negative })).collect(),
        }
    }

    fn clips(&self) -> usize {
        self.targets.len()
    }
}

impl GradientBoosting {
    /// Returns the logit at the start and the trees of one class. A class of all or no clips has a constant logit.
    fn fit_class(
        &self,
        columns: &[f64],
        train: Part,
        valid_columns: &[f64],
        valid: Part,
        context: &FitContext<'_>,
    ) -> Result<(f32, Vec<Tree>)> {
        let (count, positives) = (train.clips() as f64, train.targets.iter().sum::<f64>());
        if positives == 0.0 || positives == count {
            let logit = ((positives + 0.5) / (count - positives + 0.5)).ln();
            return Ok((logit as f32, vec![Tree::leaf(0.0)]));
        }
        let dim = columns.len() / train.clips();
        // The booster takes the integer part of the share.
        let share = self.0.feature_fraction.max((1.0 / dim as f64).next_up()).min(1.0);
        let stops = valid.clips() > 0;
        let mut booster = GradientBooster::default()
            .set_iterations(context.last_epoch.unwrap_or(self.0.trees))
            .set_learning_rate(self.0.shrinkage as f32)
            .set_max_depth(usize::MAX)
            .set_max_leaves(self.0.leaves)
            .set_min_leaf_weight(self.0.min_leaf_weight as f32)
            .set_l2(self.0.l2 as f32)
            .set_colsample_bytree(share)
            .set_seed(context.seed)
            .set_early_stopping_rounds(stops.then_some(self.0.early_stopping))
            .set_parallel(context.threads > 1)
            .set_num_threads(Some(context.threads));
        booster.grow_policy = GrowPolicy::LossGuide;
        let held_out: Option<Vec<EvaluationData>> = stops
            .then(|| vec![(Matrix::new(valid_columns, valid.clips(), dim), &valid.targets[..], &valid.weights[..])]);
        booster
            .fit(&Matrix::new(columns, train.clips(), dim), &train.targets, &train.weights, held_out)
            .map_err(|error| Error::Data(format!("cannot fit gradient-boosted trees: {error}")))?;
        let kept = booster.best_iteration.map_or(booster.trees.len(), |best| best + 1);
        let trees: Vec<Tree> = booster.trees[..kept].iter().map(Tree::from_fitted).collect();
        if !trees.iter().flat_map(|tree| &tree.0).all(|node| node.value.is_finite()) {
            let remedy = "raise classify.gbdt.l2 or classify.gbdt.min_leaf_weight";
            return Err(Error::Data(format!(
                "cannot fit gradient-boosted trees: the values of leaves diverged; {remedy}"
            )));
        }
        Ok((booster.base_score as f32, trees))
    }
}

/// Returns the features, one after the other, of all clips.
fn columns(data: &Dataset) -> Result<Vec<f64>> {
    if data.is_empty() {
        return Ok(Vec::new());
    }
    Ok(data.vectors()?.t().iter().map(|&value| f64::from(value)).collect())
}
