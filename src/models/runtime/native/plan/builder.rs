//! Nodes of the graph, one after the other, into steps.

use std::collections::HashMap;

use ndarray::ArrayView3;

use super::{Operation, Order, Planned, Refusal, Step, Value, unknown};
use crate::models::onnx::proto::NodeProto;
use crate::models::runtime::native::convolution::{Convolution, Geometry, Way};
use crate::models::runtime::native::layers::{Activation, Affine, LayerNorm, Shape, filled};
use crate::models::runtime::native::read::{Network, Tensor};
use crate::models::runtime::native::separable::Separable;
use crate::models::runtime::native::weights::{Packed, Unit};

/// The plan as it is made, node after node.
pub(super) struct Builder<'a> {
    network: &'a Network,
    unit: Unit,
    /// Activations by name.
    pub values: HashMap<String, Value>,
    /// How often each name is read.
    readers: HashMap<String, usize>,
    /// The step that makes an activation (by id).
    made_by: HashMap<usize, usize>,
    /// What has to be done.
    pub steps: Vec<Step>,
    next: usize,
}

impl<'a> Builder<'a> {
    /// Nothing but the input, of this shape; `output` is read by who asked.
    pub fn new(network: &'a Network, input: &str, shape: Shape, output: &str, unit: Unit) -> Self {
        let mut readers: HashMap<String, usize> = HashMap::from([(output.into(), 1)]);
        for name in network.nodes.iter().flat_map(|node| &node.input) {
            *readers.entry(name.clone()).or_default() += 1;
        }
        let first = Value { id: 0, shape, order: Order::ChannelsFirst };
        let values = HashMap::from([(input.into(), first)]);
        Self { network, unit, values, readers, made_by: HashMap::new(), steps: Vec::new(), next: 1 }
    }

    /// With all nodes.
    pub fn whole(mut self) -> Planned<Self> {
        let nodes = &self.network.nodes;
        let mut at = 0;
        while at < nodes.len() {
            at += self.node(&nodes[at..])?;
        }
        Ok(self)
    }

    /// Takes up the first of `nodes`, and those that belong to it; gives how many that were.
    fn node(&mut self, nodes: &[NodeProto]) -> Planned<usize> {
        let node = &nodes[0];
        match node.op_type.as_str() {
            "Conv" => self.convolution(node).map(|()| 1),
            "MatMul" => self.linear(node, nodes.get(1)),
            "Relu" => self.activation(node, Activation::Relu).map(|()| 1),
            "Clip" => {
                let bound = |i: usize, value: f32| node.input.get(i).is_some_and(|name| self.is_scalar(name, value));
                match bound(1, 0.0) && bound(2, 6.0) {
                    true => self.activation(node, Activation::Relu6).map(|()| 1),
                    false => unknown("operator Clip with other bounds than 0 and 6"),
                }
            }
            "Div" => self.gelu(nodes),
            "Add" => self.addition(node).map(|()| 1),
            "Mul" => self.scale(node).map(|()| 1),
            "Transpose" => self.transpose(node).map(|()| 1),
            "LayerNormalization" => self.layer_norm(node).map(|()| 1),
            "BatchNormalization" => self.batch_norm(node).map(|()| 1),
            "GlobalAveragePool" => {
                let x = self.activation_of(&node.input[0], Some(Order::ChannelsFirst))?;
                let to = Shape { depth: 1, height: 1, width: 1, ..x.shape };
                self.push(node, Operation::GlobalAverage, &[x], to, x.order);
                Ok(1)
            }
            "Flatten" => {
                let x = self.activation_of(&node.input[0], None)?;
                if x.shape.positions() != x.shape.batch || ints(node, "axis").first().is_some_and(|&axis| axis != 1) {
                    return unknown("operator Flatten of more than one position");
                }
                self.values.insert(node.output[0].clone(), Value { order: Order::Vector, ..x });
                Ok(1)
            }
            other => unknown(format!("operator {other} is not known to it")),
        }
    }

    fn activation_of(&self, name: &str, order: Option<Order>) -> Planned<Value> {
        let Some(&value) = self.values.get(name) else { return unknown(format!("`{name}` is no activation")) };
        match order {
            Some(order) if order != value.order => unknown(format!("`{name}` has its axes in an order not known here")),
            _ => Ok(value),
        }
    }

    fn tensor(&self, name: &str) -> Planned<&'a Tensor> {
        self.network.tensors.get(name).map_or_else(|| unknown(format!("`{name}` is no f32 constant")), Ok)
    }

    fn values(&self, tensor: &Tensor) -> Planned<Vec<f32>> {
        self.network.values(tensor).map_err(Refusal::Unreadable)
    }

    fn is_scalar(&self, name: &str, value: f32) -> bool {
        let tensor = self.network.tensors.get(name).filter(|tensor| tensor.len() == 1);
        tensor.and_then(|tensor| self.values(tensor).ok()).is_some_and(|values| (values[0] - value).abs() < 1e-6)
    }

    /// A constant vector, filled up with zeros.
    fn vector(&self, name: &str, channels: usize) -> Planned<Vec<f32>> {
        let tensor = self.tensor(name)?;
        if tensor.len() != channels {
            return unknown(format!("`{name}` has {} numbers for {channels} channels", tensor.len()));
        }
        let mut values = self.values(tensor)?;
        values.resize(filled(channels), 0.0);
        Ok(values)
    }

    fn push(&mut self, node: &NodeProto, operation: Operation, inputs: &[Value], to: Shape, order: Order) {
        let ids = inputs.iter().map(|x| x.id).collect();
        self.place(node, operation, ids, inputs[0].shape, to, order);
    }

    fn place(
        &mut self,
        node: &NodeProto,
        operation: Operation,
        inputs: Vec<usize>,
        from: Shape,
        to: Shape,
        order: Order,
    ) {
        let id = self.next;
        self.next += 1;
        self.made_by.insert(id, self.steps.len());
        self.steps.push(Step { operation, inputs, output: id, from, to });
        self.values.insert(node.output[0].clone(), Value { id, shape: to, order });
    }

    /// Fuses an activation into the step before, where only it reads that; else it is a step of its own.
    fn fuse(&mut self, name: &str, x: Value, node: &NodeProto, activation: Activation, readings: usize) {
        let alone = self.readers.get(name) == Some(&readings);
        let step = self.made_by.get(&x.id).map(|&step| &mut self.steps[step].operation);
        let slot = match step {
            Some(Operation::Convolution(layer)) if alone => Some(&mut layer.activation),
            Some(Operation::Affine(_, slot) | Operation::Add(slot)) if alone => Some(slot),
            _ => None,
        };
        match slot.filter(|slot| **slot == Activation::None) {
            Some(slot) => {
                *slot = activation;
                self.values.insert(node.output[0].clone(), x);
            }
            None => self.push(node, Operation::Activation(activation), &[x], x.shape, x.order),
        }
    }

    fn activation(&mut self, node: &NodeProto, activation: Activation) -> Planned<()> {
        let x = self.activation_of(&node.input[0], None)?;
        self.fuse(&node.input[0], x, node, activation, 1);
        Ok(())
    }

    /// x/2 · (1 + erf(x/√2)) as Div, Erf, Add, Mul, Mul.
    fn gelu(&mut self, nodes: &[NodeProto]) -> Planned<usize> {
        let not_gelu = || unknown("operator Div that does not begin a GELU");
        let [divide, erf, sum, product, half, ..] = nodes else { return not_gelu() };
        let x = &divide.input[0];
        let is = |name: &str, value: f32| self.is_scalar(name, value);
        let pattern = erf.op_type == "Erf"
            && (sum.op_type == "Add" && product.op_type == "Mul" && half.op_type == "Mul")
            && is(&divide.input[1], std::f32::consts::SQRT_2)
            && erf.input[0] == divide.output[0]
            && (sum.input[0] == erf.output[0] && is(&sum.input[1], 1.0))
            && (product.input[0] == *x && product.input[1] == sum.output[0])
            && (half.input[0] == product.output[0] && is(&half.input[1], 0.5));
        if !pattern {
            return not_gelu();
        }
        let value = self.activation_of(x, None)?;
        // Div and Mul both read it.
        let x = x.clone();
        self.fuse(&x, value, half, Activation::Gelu, 2);
        Ok(5)
    }

    fn convolution(&mut self, node: &NodeProto) -> Planned<()> {
        let x = self.activation_of(&node.input[0], Some(Order::ChannelsFirst))?;
        let weight = self.tensor(&node.input[1])?;
        let axes = weight.shape.len() - 2;
        let spread = |name: &str, usual: usize| -> Planned<[usize; 3]> {
            let given = ints(node, name);
            let given: Vec<usize> =
                if given.is_empty() { vec![usual; axes] } else { given.iter().map(|&i| i as usize).collect() };
            match given[..] {
                [height, width] => Ok([usual, height, width]),
                [depth, height, width] => Ok([depth, height, width]),
                _ => unknown(format!("operator Conv over {} axes", given.len())),
            }
        };
        let attribute = |name: &str| node.attribute.iter().find(|attribute| attribute.name == name);
        if ints(node, "dilations").iter().any(|&step| step != 1) || attribute("auto_pad").is_some() {
            return unknown("operator Conv with dilations or auto_pad");
        }
        let pads = ints(node, "pads");
        let (before, after) = if pads.is_empty() {
            ([0; 3], [0; 3])
        } else {
            let side = |values: &[i64]| -> Planned<[usize; 3]> {
                match *values {
                    [height, width] => Ok([0, height as usize, width as usize]),
                    [depth, height, width] => Ok([depth as usize, height as usize, width as usize]),
                    _ => unknown("operator Conv with padding of another kind"),
                }
            };
            let (before, after) = pads.split_at(pads.len() / 2);
            (side(before)?, side(after)?)
        };
        let kernel = match weight.shape[2..] {
            [height, width] => [1, height, width],
            [depth, height, width] => [depth, height, width],
            _ => return unknown(format!("operator Conv over {axes} axes")),
        };
        let geometry = Geometry { kernel, stride: spread("strides", 1)?, before, after };
        let groups = attribute("group").and_then(|attribute| attribute.i).unwrap_or(1) as usize;
        let outputs = weight.shape[0];
        let Some(to) = geometry.output(x.shape, outputs) else {
            return Err(Refusal::Misfit("its input is smaller than a kernel".into()));
        };
        let way = if groups == 1 && weight.shape[1] == x.shape.channels {
            Way::dense(geometry, &self.values(weight)?, x.shape, to, self.unit)
        } else if groups == x.shape.channels && outputs == groups && kernel[0] == 1 && x.shape.stored == to.stored {
            Way::Separable(Box::new(Separable::new(geometry, &self.values(weight)?, x.shape, to)))
        } else {
            return unknown(format!("operator Conv of {groups} groups"));
        };
        let bias = match node.input.get(2) {
            Some(name) => self.vector(name, outputs)?,
            None => vec![0.0; to.stored],
        };
        let layer = Convolution { way, bias, adds: false, activation: Activation::None };
        let alone = self.readers.get(&node.input[0]) == Some(&1);
        let before = self.steps.pop_if(|before| {
            let Operation::Convolution(first) = &before.operation else { return false };
            alone && before.output == x.id && first.joins(&layer)
        });
        match before {
            Some(Step { operation: Operation::Convolution(first), inputs, from, .. }) => {
                let both = first.join(layer).expect("they join");
                self.place(node, Operation::Convolution(both), inputs, from, to, x.order);
            }
            _ => self.push(node, Operation::Convolution(layer), &[x], to, x.order),
        }
        Ok(())
    }

    /// A product with a constant matrix (channels in, channels out), and the bias where that is what follows.
    fn linear(&mut self, node: &NodeProto, next: Option<&NodeProto>) -> Planned<usize> {
        let x = self.activation_of(&node.input[0], None)?;
        let weight = self.tensor(&node.input[1])?;
        let (&[inputs, outputs], true) = (&weight.shape[..], x.order != Order::ChannelsFirst) else {
            return unknown("operator MatMul over another axis than the channels");
        };
        if inputs != x.shape.channels {
            return unknown(format!("operator MatMul of {inputs} channels with {}", x.shape.channels));
        }
        let to = x.shape.with_channels(outputs);
        let bias = next
            .filter(|next| next.op_type == "Add" && next.input[0] == node.output[0])
            .and_then(|next| self.vector(&next.input[1], outputs).ok().map(|bias| (next, bias)));
        let values = self.values(weight)?;
        let matrix = ArrayView3::from_shape((1, inputs, outputs), &values).expect("the tensor has its shape");
        let packed = Packed::whole(matrix, (x.shape.stored, to.stored), self.unit);
        let (node, bias, taken) = match bias {
            Some((next, bias)) => (next, bias, 2),
            None => (node, vec![0.0; to.stored], 1),
        };
        let layer = Convolution { way: Way::Pointwise(packed), bias, adds: false, activation: Activation::None };
        self.push(node, Operation::Convolution(layer), &[x], to, x.order);
        Ok(taken)
    }

    fn addition(&mut self, node: &NodeProto) -> Planned<()> {
        let (x, y) = (self.activation_of(&node.input[0], None)?, self.activation_of(&node.input[1], None)?);
        if x.shape != y.shape || x.order != y.order {
            return unknown("operator Add of two shapes");
        }
        // A convolution that only this reads is added to the other, where that is there before it.
        for (given, (sum, made)) in node.input.iter().rev().zip([(x, y), (y, x)]) {
            let alone = self.readers.get(given) == Some(&1);
            let (earlier, later) = (self.made_by.get(&sum.id), self.made_by.get(&made.id));
            let Some(step) = later.filter(|later| alone && earlier < Some(later)).map(|&later| &mut self.steps[later])
            else {
                continue;
            };
            if let Operation::Convolution(layer) = &mut step.operation
                && layer.can_add()
            {
                layer.adds = true;
                step.inputs.push(sum.id);
                self.values.insert(node.output[0].clone(), made);
                return Ok(());
            }
        }
        self.push(node, Operation::Add(Activation::None), &[x, y], x.shape, x.order);
        Ok(())
    }

    /// A factor a channel, on the last axis.
    fn scale(&mut self, node: &NodeProto) -> Planned<()> {
        let x = self.activation_of(&node.input[0], None)?;
        if x.order == Order::ChannelsFirst {
            return unknown("operator Mul over another axis than the channels");
        }
        let factor = self.vector(&node.input[1], x.shape.channels)?;
        let affine = Affine { offset: vec![0.0; factor.len()], factor };
        self.push(node, Operation::Affine(affine, Activation::None), &[x], x.shape, x.order);
        Ok(())
    }

    fn transpose(&mut self, node: &NodeProto) -> Planned<()> {
        let x = self.activation_of(&node.input[0], None)?;
        let order = match (ints(node, "perm"), x.order) {
            ([0, 2, 3, 1] | [0, 2, 3, 4, 1], Order::ChannelsFirst) => Order::ChannelsLast,
            ([0, 3, 1, 2] | [0, 4, 1, 2, 3], Order::ChannelsLast) => Order::ChannelsFirst,
            (axes, _) => return unknown(format!("operator Transpose to {axes:?}")),
        };
        // In memory channels are last already.
        let readers = self.readers.get(&node.output[0]).copied().unwrap_or(0);
        let before = self.readers.get(&node.input[0]).copied().unwrap_or(0);
        self.values.insert(node.output[0].clone(), Value { order, ..x });
        // Who reads the transposed reads the same activation: nothing may be fused behind others' backs.
        self.readers.insert(node.output[0].clone(), readers + before - 1);
        Ok(())
    }

    fn layer_norm(&mut self, node: &NodeProto) -> Planned<()> {
        let x = self.activation_of(&node.input[0], None)?;
        if x.order == Order::ChannelsFirst || ints(node, "axis").first().is_some_and(|&axis| axis != -1) {
            return unknown("operator LayerNormalization over another axis than the channels");
        }
        let channels = x.shape.channels;
        let shift = match node.input.get(2) {
            Some(name) => self.vector(name, channels)?,
            None => vec![0.0; x.shape.stored],
        };
        let layer = LayerNorm { scale: self.vector(&node.input[1], channels)?, shift, epsilon: epsilon(node) };
        self.push(node, Operation::LayerNorm(layer), &[x], x.shape, x.order);
        Ok(())
    }

    fn batch_norm(&mut self, node: &NodeProto) -> Planned<()> {
        let x = self.activation_of(&node.input[0], Some(Order::ChannelsFirst))?;
        let channels = x.shape.channels;
        let part = |i: usize| self.vector(&node.input[i], channels);
        let (scale, shift, mean, variance) = (part(1)?, part(2)?, part(3)?, part(4)?);
        let epsilon = f64::from(epsilon(node));
        let factor: Vec<f64> =
            scale.iter().zip(&variance).map(|(s, v)| f64::from(*s) / (f64::from(*v) + epsilon).sqrt()).collect();
        let offset = shift
            .iter()
            .zip(&mean)
            .zip(&factor)
            .map(|((s, m), f)| (f64::from(*s) - f64::from(*m) * f) as f32)
            .collect();
        let affine = Affine { factor: factor.into_iter().map(|f| f as f32).collect(), offset };
        self.push(node, Operation::Affine(affine, Activation::None), &[x], x.shape, x.order);
        Ok(())
    }
}

/// An attribute that is an integer or several; empty where it is not given.
fn ints<'a>(node: &'a NodeProto, name: &str) -> &'a [i64] {
    node.attribute.iter().find(|attribute| attribute.name == name).map_or(&[], |attribute| match &attribute.i {
        Some(value) => std::slice::from_ref(value),
        None => &attribute.ints,
    })
}

fn epsilon(node: &NodeProto) -> f32 {
    node.attribute.iter().find(|attribute| attribute.name == "epsilon").and_then(|a| a.f).unwrap_or(1e-5)
}
