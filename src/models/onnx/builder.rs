//! Writer of ONNX graphs, shared by networks and classifiers: collects nodes and initializers, and serializes the model.
//!
//! Format: <https://onnx.ai/onnx/repo-docs/IR.html>.

use std::collections::HashSet;

use prost::Message;

use super::proto::{Attribute, GraphProto, ModelProto, NodeProto, OperatorSet, TensorProto, ValueInfo};

/// Operator set of all files. LayerNormalization requires 17 or later.
const OPSET: i64 = 18;
/// IR version that corresponds to the operator set.
const IR_VERSION: i64 = 8;

/// Nodes and initializers of a graph. Values are referred to by name.
#[derive(Debug, Default)]
pub struct GraphBuilder {
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    /// Names of the initializers that were added by [`Self::shared_initializer`].
    shared: HashSet<String>,
}

impl GraphBuilder {
    /// Adds a node with one output. The node and its output are both named `output`.
    pub fn node(&mut self, operator: &str, inputs: &[&str], output: &str, attributes: Vec<Attribute>) {
        self.node_with_outputs(output, operator, inputs, &[output], attributes);
    }

    /// Adds a node with any number of outputs.
    pub fn node_with_outputs(
        &mut self,
        name: &str,
        operator: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: Vec<Attribute>,
    ) {
        let owned = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        self.nodes.push(NodeProto {
            input: owned(inputs),
            output: owned(outputs),
            name: name.into(),
            op_type: operator.into(),
            attribute: attributes,
        });
    }

    /// Adds a constant tensor and returns its name.
    pub fn initializer(&mut self, tensor: TensorProto) -> String {
        let name = tensor.name.clone();
        self.initializers.push(tensor);
        name
    }

    /// Adds a constant tensor unless one of the same name was added before, and returns its name.
    pub fn shared_initializer(&mut self, tensor: TensorProto) -> String {
        if self.shared.insert(tensor.name.clone()) { self.initializer(tensor) } else { tensor.name }
    }

    /// Returns the number of nodes so far.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Returns the number of initializers so far.
    pub fn initializer_count(&self) -> usize {
        self.initializers.len()
    }

    /// Returns the bytes of an ONNX file with this graph.
    pub fn finish(self, name: &str, input: ValueInfo, output: ValueInfo) -> Vec<u8> {
        let graph = GraphProto {
            node: self.nodes,
            name: name.into(),
            initializer: self.initializers,
            input: vec![input],
            output: vec![output],
        };
        let model = ModelProto {
            ir_version: IR_VERSION,
            producer_name: "kinoprobe".into(),
            graph: Some(graph),
            opset_import: vec![OperatorSet { domain: String::new(), version: OPSET }],
        };
        model.encode_to_vec()
    }
}
