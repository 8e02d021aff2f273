//! Classifier heads on the embedding of a network.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::models::graph::{Graph, Linear, Parameter};
use crate::models::parameters::ParameterList;

/// A classifier head: dropout and a linear layer, or linear, ReLU, dropout and linear. The parameters are named like those of
/// `nn.Linear` (`NAME.weight`) or of `nn.Sequential` with these four modules (`NAME.0.weight`, `NAME.3.weight`), so that
/// torchvision's networks with such a module as NAME load them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Name of the module: [`Architecture::head`](super::Architecture::head) for the classifier of a network.
    pub name: String,
    /// Length of the embedding.
    pub inputs: usize,
    /// Number of units of the hidden layer; `None` for a single linear layer.
    pub hidden: Option<usize>,
    /// Probability of dropout before the last layer.
    pub dropout: f64,
    /// Number of outputs.
    pub outputs: usize,
}

impl Head {
    /// Builds the head on a backend: `(batch, inputs)` → `(batch, outputs)`.
    ///
    /// # Errors
    /// Returns the errors of the backend.
    pub fn build<G: Graph>(&self, g: &mut G, x: G::Value) -> Result<G::Value> {
        let Some(hidden) = self.hidden else {
            let x = g.dropout(x, self.dropout)?;
            return g.linear(&x, &Linear::new(&self.name, self.inputs, self.outputs));
        };
        let mut y = g.linear(&x, &Linear::new(&format!("{}.0", self.name), self.inputs, hidden))?;
        y = g.relu(&y)?;
        y = g.dropout(y, self.dropout)?;
        g.linear(&y, &Linear::new(&format!("{}.3", self.name), hidden, self.outputs))
    }

    /// Returns the parameters in the order in which the layers read them.
    pub fn parameters(&self) -> Vec<Parameter> {
        ParameterList::of(|g| self.build(g, ())).expect("listing parameters never fails")
    }
}
