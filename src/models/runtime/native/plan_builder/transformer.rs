//! Layers of transformers, recognized from the nodes that they consist of: attention, QuickGELU, class token and position
//! embedding.

use super::super::activation::{Activation, QUICK_GELU_FACTOR};
use super::super::attention::Attention;
use super::super::step::{ActivationTensor, AxisOrder, Operation, PlanError, PlanResult, unsupported};
use super::super::tokens::TokenEmbedding;
use super::PlanBuilder;
use super::node::{attribute, input, ints, optional_input, output};
use crate::models::onnx::proto::NodeProto;

/// Permutation of (batch, tokens, heads, channels) to (batch, heads, tokens, channels). It is its own inverse.
const HEADS_FIRST: [i64; 4] = [0, 2, 1, 3];

/// Permutation of (batch, tokens, heads, channels) to (batch, heads, channels, tokens).
const HEADS_FIRST_TRANSPOSED: [i64; 4] = [0, 2, 3, 1];

impl PlanBuilder<'_> {
    /// Adds a Reshape that merges all positions into one axis, or the attention that starts with it.
    pub(super) fn add_reshape(&mut self, nodes: &[NodeProto]) -> PlanResult<usize> {
        let node = &nodes[0];
        let shape = self.integers(input(node, 1)?)?;
        if attribute(node, "allowzero").is_some() {
            return unsupported("operator Reshape with allowzero");
        }
        match shape[..] {
            [0, 0, -1] => {
                let from = input(node, 0)?;
                let x = self.padded_tensor(from, Some(AxisOrder::ChannelsFirst))?;
                let mut shape = x.shape;
                shape.width *= shape.depth * shape.height;
                (shape.depth, shape.height) = (1, 1);
                self.add_alias(from, output(node)?, ActivationTensor { shape, order: AxisOrder::Flattened, ..x });
                Ok(1)
            }
            [0, 0, heads, head_channels] => self.add_attention(nodes, heads, head_channels),
            _ => unsupported(format!("operator Reshape to {shape:?}")),
        }
    }

    /// Recognizes multi-head attention. Query, key and value are each split into heads by Reshape and Transpose; Mul
    /// (scale), MatMul, Softmax and MatMul compute the heads; Transpose and Reshape merge them.
    fn add_attention(&mut self, nodes: &[NodeProto], heads: i64, head_channels: i64) -> PlanResult<usize> {
        const OPERATORS: [&str; 12] = [
            "Reshape",
            "Transpose",
            "Reshape",
            "Transpose",
            "Reshape",
            "Transpose",
            "Mul",
            "MatMul",
            "Softmax",
            "MatMul",
            "Transpose",
            "Reshape",
        ];
        let not_attention = || unsupported("operator Reshape into heads that is not part of an attention");
        let Some(nodes) = nodes
            .first_chunk::<12>()
            .filter(|nodes| nodes.iter().zip(OPERATORS).all(|(node, operator)| node.op_type == operator))
        else {
            return not_attention();
        };
        let [split_query, query, split_key, key, split_value, value, tail @ ..] = nodes;
        let [scale, scores, softmax, weighted_values, heads_last, merge] = tail;
        let splits = [split_query, split_key, split_value];
        for ((split, node), axes) in
            splits.into_iter().zip([query, key, value]).zip([HEADS_FIRST, HEADS_FIRST_TRANSPOSED, HEADS_FIRST])
        {
            let is_split = self.integers(input(split, 1)?)? == [0, 0, heads, head_channels]
                && attribute(split, "allowzero").is_none()
                && input(node, 0)? == output(split)?
                && ints(node, "perm") == axes;
            if !is_split {
                return not_attention();
            }
        }
        let matches = input(scale, 0)? == output(query)?
            && (input(scores, 0)? == output(scale)? && input(scores, 1)? == output(key)?)
            && (input(softmax, 0)? == output(scores)? && matches!(ints(softmax, "axis"), [] | [-1] | [3]))
            && (input(weighted_values, 0)? == output(softmax)? && input(weighted_values, 1)? == output(value)?)
            && (input(heads_last, 0)? == output(weighted_values)? && ints(heads_last, "perm") == HEADS_FIRST)
            && (input(merge, 0)? == output(heads_last)? && attribute(merge, "allowzero").is_none());
        let (Some(factor), true) = (self.scalar(input(scale, 1)?), matches) else { return not_attention() };

        let tensor = |node| self.padded_tensor(input(node, 0)?, Some(AxisOrder::Tokens));
        let [q, k, v] = [tensor(split_query)?, tensor(split_key)?, tensor(split_value)?];
        if k.shape != q.shape || v.shape != q.shape {
            return unsupported("attention between sequences of different shapes");
        }
        let size = usize::try_from(heads).ok().zip(usize::try_from(head_channels).ok());
        let (channels, merged_shape) = (q.shape.channels, self.integers(input(merge, 1)?)?);
        let Some((heads, head_channels)) =
            size.filter(|&(heads, head_channels)| heads.checked_mul(head_channels) == Some(channels))
        else {
            return unsupported(format!("attention of {channels} channels in {heads} heads of {head_channels}"));
        };
        if merged_shape != [0, 0, channels as i64] {
            return unsupported(format!("attention with a result of shape {merged_shape:?}"));
        }
        let attention = Attention::new(q.shape.width, heads, head_channels, factor);
        self.push(merge, Operation::Attention(attention), &[q, k, v], q.shape, q.order)?;
        Ok(nodes.len())
    }

    /// Recognizes x·σ(1.702·x) written as Mul, Sigmoid, Mul.
    pub(super) fn add_quick_gelu(&mut self, nodes: &[NodeProto]) -> PlanResult<usize> {
        let not_quick_gelu = || unsupported("operator Sigmoid that is not part of a QuickGELU");
        let [scaled, gate, product, ..] = nodes else { return not_quick_gelu() };
        let name = input(scaled, 0)?;
        let matches = self.is_scalar(input(scaled, 1)?, QUICK_GELU_FACTOR)
            && input(gate, 0)? == output(scaled)?
            && product.op_type == "Mul"
            && (input(product, 0)? == name && input(product, 1)? == output(gate)?);
        if !matches {
            return not_quick_gelu();
        }
        let x = self.padded_tensor(name, None)?;
        // Both Mul nodes read x.
        self.fuse_activation(name, x, product, Activation::QuickGelu, 2)?;
        Ok(3)
    }

    /// Recognizes the class token and position embedding: a Pad that adds a zero before the tokens, and an Add with a
    /// constant (tokens, channels).
    pub(super) fn add_token_embedding(&mut self, nodes: &[NodeProto]) -> PlanResult<usize> {
        let not_embedding = || unsupported("operator Pad that is not part of a token embedding");
        let [pad, add, ..] = nodes else { return not_embedding() };
        let x = self.padded_tensor(input(pad, 0)?, Some(AxisOrder::Tokens))?;
        let matches = self.integers(input(pad, 1)?)? == [0, 1, 0, 0, 0, 0]
            && (optional_input(pad, 2).is_none() && optional_input(pad, 3).is_none())
            && attribute(pad, "mode").is_none()
            && add.op_type == "Add"
            && input(add, 0)? == output(pad)?;
        if !matches {
            return not_embedding();
        }
        let mut to = x.shape;
        to.width += 1;
        let table = self.initializer(input(add, 1)?)?;
        if table.shape != [to.width, to.channels] {
            return unsupported(format!("a position embedding of shape {:?}", table.shape));
        }
        let mut padded = vec![0.0; to.width * to.channel_stride];
        let values = self.read(table)?;
        for (padded, row) in padded.chunks_exact_mut(to.channel_stride).zip(values.chunks_exact(to.channels)) {
            padded[..to.channels].copy_from_slice(row);
        }
        let embedding = TokenEmbedding { table: padded };
        self.push(add, Operation::TokenEmbedding(embedding), &[x], to, x.order)?;
        Ok(2)
    }

    /// Adds a Gather of the first token.
    pub(super) fn add_first_token(&mut self, node: &NodeProto) -> PlanResult<()> {
        let x = self.padded_tensor(input(node, 0)?, Some(AxisOrder::Tokens))?;
        // A vector of indices would keep the axis.
        let index = self.graph.integers.get(input(node, 1)?).filter(|tensor| tensor.shape.is_empty());
        let index = index.map(|tensor| self.graph.read_integers(tensor)).transpose().map_err(PlanError::Read)?;
        if index.as_deref() != Some(&[0]) || ints(node, "axis") != [1] {
            return unsupported("operator Gather of anything but the first token");
        }
        let mut to = x.shape;
        to.width = 1;
        self.push(node, Operation::FirstToken, &[x], to, AxisOrder::Vector)
    }
}
