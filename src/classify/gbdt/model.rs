//! The model of gradient-boosted trees: its own predictor, tensors and ONNX operator, so that saved models do not depend on the crate
//! that fits them.

use ndarray::{Array1, Array2, ArrayView1, Axis};
use rayon::prelude::*;

use crate::classify::standardize::check_dim;
use crate::classify::{Exporter, Model, Tensor, Tensors, loss};
use crate::dataset::{Dataset, Task};
use crate::error::Result;
use crate::models::onnx::proto::Attribute;

/// A node of a tree. The children of an inner node have higher numbers than itself; both are 0 for a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Node {
    /// Number of the feature that is compared.
    pub feature: usize,
    /// Clips with a lower value go to the left child, all others to the right one.
    pub threshold: f32,
    /// Number of the left child within the tree.
    pub left: usize,
    /// Number of the right child within the tree.
    pub right: usize,
    /// Value that a leaf adds to the logit.
    pub value: f32,
}

impl Node {
    pub(crate) fn is_leaf(&self) -> bool {
        self.left == 0
    }
}

/// The nodes of a regression tree; the first one is its root.
#[derive(Debug, Clone, PartialEq)]
pub struct Tree(pub Vec<Node>);

impl Tree {
    /// Creates a tree with a constant value.
    pub(super) fn leaf(value: f32) -> Self {
        Self(vec![Node { value, ..Node::default() }])
    }

    pub(super) fn from_fitted(tree: &forust_ml::tree::Tree) -> Self {
        let nodes = tree.nodes.iter().map(|node| match node.is_leaf {
            true => Node { value: node.weight_value, ..Node::default() },
            false => Node {
                feature: node.split_feature,
                threshold: ceil(node.split_value),
                left: node.left_child,
                right: node.right_child,
                value: 0.0,
            },
        });
        Self(nodes.collect())
    }

    fn value(&self, features: ArrayView1<'_, f32>) -> f32 {
        let mut node = &self.0[0];
        while !node.is_leaf() {
            node = &self.0[if features[node.feature] < node.threshold { node.left } else { node.right }];
        }
        node.value
    }
}

/// Returns the lowest f32 of at least `value`: the same values of type f32 are lower than both.
pub(super) fn ceil(value: f64) -> f32 {
    let nearest = value as f32;
    if f64::from(nearest) < value { nearest.next_up() } else { nearest }
}

/// The fitted model of [`GradientBoosting`](super::GradientBoosting). The logit of a class is the sum, in double precision, of its start and of the values of its
/// trees' leaves; the scores are their softmax (single-label) or the logistic function (multi-label).
#[derive(Debug, Clone, PartialEq)]
pub struct GbdtModel {
    /// Logits before the first tree, one per class.
    pub base: Vec<f32>,
    /// The trees of each class; at least one.
    pub trees: Vec<Vec<Tree>>,
    /// Number of features, D.
    pub dim: usize,
    /// The task it was fitted to.
    pub task: Task,
}

const BASE: &str = "gbdt.base";
const DIM: &str = "gbdt.features";
const TREES: &str = "gbdt.trees";
const SIZES: &str = "gbdt.sizes";
const NODES: &str = "gbdt.nodes";
/// Feature, threshold, left child, right child, value.
const COLUMNS: usize = 5;

impl GbdtModel {
    /// Restores the model from its saved tensors; `task` is the task it was fitted to.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing, has a wrong shape, or does not describe trees.
    pub fn restore(tensors: &Tensors, task: Task) -> Result<Self> {
        let wrong = || tensors.error(format!("{NODES} does not have the trees of {TREES} and {SIZES}"));
        let base = tensors.vector(BASE)?;
        let dim = count(tensors.vector_of(DIM, 1)?[0]).ok_or_else(wrong)?;
        let (counts, sizes) = (tensors.vector_of(TREES, base.len())?, tensors.vector(SIZES)?);
        let nodes = tensors.matrix_of(NODES, COLUMNS)?;
        let (mut rows, mut sizes) = (nodes.rows().into_iter(), sizes.iter());
        let mut tree = || {
            let size = count(*sizes.next()?)?;
            let nodes: Vec<Node> = (0..size).map(|i| node(rows.next()?, i, size, dim)).collect::<Option<_>>()?;
            (size > 0).then_some(Tree(nodes))
        };
        let mut class = |trees: &f32| (0..count(*trees)?).map(|_| tree()).collect::<Option<Vec<Tree>>>();
        let trees: Vec<Vec<Tree>> = counts.iter().map(&mut class).collect::<Option<_>>().ok_or_else(wrong)?;
        if rows.next().is_some() || sizes.next().is_some() || trees.iter().any(Vec::is_empty) {
            return Err(wrong());
        }
        Ok(Self { base: base.to_vec(), trees, dim, task })
    }

    /// Returns the trees with the number of their class, in order of the classes.
    fn all_trees(&self) -> impl Iterator<Item = (usize, &Tree)> {
        self.trees.iter().enumerate().flat_map(|(class, trees)| trees.iter().map(move |tree| (class, tree)))
    }

    /// Returns the attributes of ONNX's TreeEnsembleRegressor, whose sums are the logits.
    fn attributes(&self) -> Vec<Attribute> {
        let trees: Vec<_> = self.all_trees().collect();
        // (number of the tree, number of the node in it, node, class)
        let nodes = || {
            let numbered = trees.iter().enumerate();
            numbered.flat_map(|(t, (class, tree))| tree.0.iter().enumerate().map(move |(i, node)| (t, i, node, *class)))
        };
        let leaves = || nodes().filter(|(_, _, node, _)| node.is_leaf());
        let modes: Vec<&str> =
            nodes().map(|(_, _, node, _)| if node.is_leaf() { "LEAF" } else { "BRANCH_LT" }).collect();
        let ints = |name, values: Vec<usize>| Attribute::ints(name, &values);
        vec![
            Attribute::int("n_targets", self.base.len() as i64),
            Attribute::floats("base_values", &self.base),
            ints("nodes_treeids", nodes().map(|(tree, ..)| tree).collect()),
            ints("nodes_nodeids", nodes().map(|(_, number, ..)| number).collect()),
            ints("nodes_featureids", nodes().map(|(_, _, node, _)| node.feature).collect()),
            Attribute::strings("nodes_modes", &modes),
            Attribute::floats("nodes_values", &nodes().map(|(_, _, node, _)| node.threshold).collect::<Vec<_>>()),
            ints("nodes_truenodeids", nodes().map(|(_, _, node, _)| node.left).collect()),
            ints("nodes_falsenodeids", nodes().map(|(_, _, node, _)| node.right).collect()),
            ints("target_treeids", leaves().map(|(tree, ..)| tree).collect()),
            ints("target_nodeids", leaves().map(|(_, number, ..)| number).collect()),
            ints("target_ids", leaves().map(|(.., class)| class).collect()),
            Attribute::floats("target_weights", &leaves().map(|(_, _, node, _)| node.value).collect::<Vec<_>>()),
        ]
    }
}

/// Returns a number that was saved as f32.
fn count(value: f32) -> Option<usize> {
    (value >= 0.0 && value.fract() == 0.0 && value <= 16_777_216.0).then_some(value as usize)
}

/// Returns node `number` of a tree with `size` nodes, unless it is malformed.
fn node(row: ArrayView1<'_, f32>, number: usize, size: usize, dim: usize) -> Option<Node> {
    let [feature, left, right] = [row[0], row[2], row[3]].map(count);
    let node = Node { feature: feature?, threshold: row[1], left: left?, right: right?, value: row[4] };
    let child = |child: usize| child > number && child < size;
    let valid = if node.is_leaf() { node.right == 0 } else { child(node.left) && child(node.right) };
    (valid && (node.is_leaf() || node.feature < dim)).then_some(node)
}

impl Model for GbdtModel {
    fn scores(&self, data: &Dataset) -> Result<Array2<f32>> {
        check_dim(data.dim(), self.dim)?;
        let vectors = data.vectors()?;
        let mut scores = Array2::zeros((data.len(), self.base.len()));
        let rows = scores.axis_iter_mut(Axis(0)).into_par_iter().zip(vectors.axis_iter(Axis(0)));
        rows.for_each(|(mut logits, features)| {
            for ((logit, base), trees) in logits.iter_mut().zip(&self.base).zip(&self.trees) {
                let sum: f64 = trees.iter().map(|tree| f64::from(tree.value(features))).sum();
                *logit = (f64::from(*base) + sum) as f32;
            }
        });
        loss::scores(self.task, scores.view_mut());
        Ok(scores)
    }

    fn tensors(&self) -> Vec<Tensor> {
        let vector = |name, values: Vec<usize>| {
            Tensor::vector(name, Array1::from_iter(values.into_iter().map(|value| value as f32)).view())
        };
        let nodes: Vec<&Node> = self.all_trees().flat_map(|(_, tree)| &tree.0).collect();
        let values = nodes
            .iter()
            .flat_map(|node| [node.feature as f32, node.threshold, node.left as f32, node.right as f32, node.value]);
        vec![
            Tensor::vector(BASE, ArrayView1::from(&self.base)),
            vector(DIM, vec![self.dim]),
            vector(TREES, self.trees.iter().map(Vec::len).collect()),
            vector(SIZES, self.all_trees().map(|(_, tree)| tree.0.len()).collect()),
            Tensor {
                name: NODES.into(),
                shape: vec![nodes.len(), COLUMNS],
                values: Array1::from_iter(values).into_shared(),
            },
        ]
    }

    /// ONNX Runtime sums the values of leaves in single precision.
    fn export(&self, graph: &mut Exporter, features: &str) -> String {
        let logits = graph.tree_ensemble(features, self.attributes());
        graph.scores(&logits, self.task)
    }
}
