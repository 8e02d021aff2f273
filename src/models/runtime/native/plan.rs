//! Nodes of an ONNX graph → layers in order, with what follows a layer fused into it and buffers used again.

mod builder;

use std::collections::HashMap;

use rayon::ThreadPool;

use super::aligned::Aligned;
use super::convolution::Convolution;
use super::layers::{Activation, Affine, LayerNorm, Shape, add, apply, global_average};
use super::read::Network;
use super::team::Team;
use super::weights::Unit;
use super::winograd::Scratch;
use crate::error::Error;
use crate::models::runtime::{Settings, admits};
use builder::Builder;

/// Why a network cannot run here.
#[derive(Debug)]
pub(super) enum Refusal {
    /// An operator, or a use of one, that these kernels do not know.
    Unknown(String),
    /// It does not have the input or the output that its card states.
    Misfit(String),
    /// Its file cannot be read.
    Unreadable(Error),
}

/// The order of an activation's axes in the ONNX graph; in memory channels are always last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    ChannelsFirst,
    ChannelsLast,
    /// (batch, channels).
    Vector,
}

/// An activation while the plan is made.
#[derive(Debug, Clone, Copy)]
struct Value {
    id: usize,
    shape: Shape,
    order: Order,
}

/// What a step does. Activation ids become buffers once all steps are known.
#[derive(Debug)]
enum Operation {
    Convolution(Convolution),
    LayerNorm(LayerNorm),
    Affine(Affine, Activation),
    Add(Activation),
    Activation(Activation),
    GlobalAverage,
}

impl Operation {
    /// The input that becomes the output where it stands, if one does.
    fn changes(&self) -> Option<usize> {
        match self {
            Operation::Convolution(layer) => layer.adds.then_some(1),
            Operation::GlobalAverage => None,
            _ => Some(0),
        }
    }
}

#[derive(Debug)]
struct Step {
    operation: Operation,
    /// Ids, later buffers.
    inputs: Vec<usize>,
    output: usize,
    from: Shape,
    to: Shape,
}

/// A network ready to run, shared by lanes.
#[derive(Debug)]
pub(super) struct Plan {
    input: Shape,
    steps: Vec<Step>,
    /// Numbers that each buffer must hold; the first is the input's.
    buffers: Vec<usize>,
    /// The buffer of the result.
    result: usize,
    output: Shape,
}

/// The buffers of one lane.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    buffers: Vec<Aligned>,
    scratches: Vec<Scratch>,
    result: Vec<f32>,
}

type Planned<T> = Result<T, Refusal>;

fn unknown<T>(what: impl Into<String>) -> Planned<T> {
    Err(Refusal::Unknown(what.into()))
}

impl Plan {
    /// The plan of a network for items as `settings` states them, on a unit that this processor has.
    pub fn new(network: &Network, settings: &Settings, unit: Unit) -> Planned<Self> {
        let [(input, declared)] = &network.inputs[..] else {
            return Err(Refusal::Misfit(format!(
                "a network needs exactly one input, this one has {}",
                network.inputs.len()
            )));
        };
        if !admits(declared, &settings.input_shape()) {
            let wanted = settings.input_shape();
            return Err(Refusal::Misfit(format!(
                "its input `{input}` is {declared:?}, the card states f32 {wanted:?}"
            )));
        }
        let (batch, channels) = (settings.batch, settings.item[0]);
        let shape = match settings.item[1..] {
            [height, width] => Shape { batch, depth: 1, height, width, channels, stored: channels },
            [depth, height, width] => Shape { batch, depth, height, width, channels, stored: channels },
            _ => return unknown(format!("an input of {} axes", settings.item.len() + 1)),
        };
        let output = match &settings.output {
            Some(name) if network.outputs.contains(name) => name.clone(),
            Some(name) => return Err(Refusal::Misfit(format!("it has no output `{name}`"))),
            None => match &network.outputs[..] {
                [name] => name.clone(),
                names => {
                    let names = names.join(", ");
                    return Err(Refusal::Misfit(format!(
                        "it has several outputs, {names}: name one in its card, [output] name"
                    )));
                }
            },
        };
        let builder = Builder::new(network, input, shape, &output, unit).whole()?;
        let Some(&result) = builder.values.get(&output) else {
            return unknown(format!("no layer known here makes its output `{output}`"));
        };
        if result.shape.positions() != settings.batch || result.shape.channels != settings.dim {
            let mut shape = vec![result.shape.channels, result.shape.depth, result.shape.height, result.shape.width];
            shape.retain(|&axis| axis > 1);
            return Err(Refusal::Misfit(format!(
                "its output `{output}` is f32 [batch, {}], the card states f32 [batch, {}]",
                shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", "),
                settings.dim
            )));
        }
        Ok(Self::placed(shape, builder.steps, result))
    }

    /// Gives every activation a buffer; one that nobody reads any more is used again.
    fn placed(input: Shape, mut steps: Vec<Step>, result: Value) -> Self {
        let mut last_read: HashMap<usize, usize> = HashMap::from([(result.id, usize::MAX)]);
        for (at, step) in steps.iter().enumerate() {
            for id in &step.inputs {
                let last = last_read.entry(*id).or_insert(at);
                *last = (*last).max(at);
            }
        }
        let mut buffers = vec![input.len()];
        let mut free: Vec<usize> = Vec::new();
        let mut place: HashMap<usize, usize> = HashMap::from([(0, 0)]);
        for (at, step) in steps.iter_mut().enumerate() {
            let dies = |id: &usize| last_read[id] <= at;
            let ids = std::mem::take(&mut step.inputs);
            step.inputs = ids.iter().map(|id| place[id]).collect();
            let changed = step.operation.changes().map(|i| ids[i]).filter(dies);
            let buffer =
                if let Some(changed) = changed.filter(|id| ids.iter().filter(|other| *other == id).count() == 1) {
                    place[&changed]
                } else {
                    // The smallest that is large enough, else the largest grows.
                    let needed = step.to.len();
                    free.sort_by_key(|&buffer| buffers[buffer]);
                    match free.iter().position(|&buffer| buffers[buffer] >= needed).or(free.len().checked_sub(1)) {
                        Some(found) => free.remove(found),
                        None => {
                            buffers.push(0);
                            buffers.len() - 1
                        }
                    }
                };
            buffers[buffer] = buffers[buffer].max(step.to.len());
            for id in &ids {
                if dies(id) && place[id] != buffer && !free.contains(&place[id]) {
                    free.push(place[id]);
                }
            }
            place.insert(step.output, buffer);
            step.output = buffer;
        }
        Self { input, buffers, result: place[&result.id], output: result.shape, steps }
    }

    /// Runs a batch of items, each channels first, one after the other, on `threads` threads, those beside this one of
    /// `helpers`; the result is (batch, channels) and does not depend on them.
    pub fn run<'w>(
        &self,
        items: &[f32],
        threads: usize,
        helpers: Option<&ThreadPool>,
        workspace: &'w mut Workspace,
    ) -> &'w [f32] {
        let Workspace { buffers, scratches, result } = workspace;
        scratches.resize_with(scratches.len().max(threads), Scratch::default);
        if buffers.is_empty() {
            *buffers = self.buffers.iter().map(|&length| Aligned::zeros(length)).collect();
        }
        channels_last(self.input, items, &mut buffers[0]);
        Team::with(helpers, &mut scratches[..threads], |team| self.steps(buffers, team));
        result.clear();
        for position in buffers[self.result][..self.output.len()].chunks_exact(self.output.stored) {
            result.extend_from_slice(&position[..self.output.channels]);
        }
        result
    }

    fn steps(&self, buffers: &mut [Aligned], mut team: Team<'_>) {
        for step in &self.steps {
            let mut output = std::mem::take(&mut buffers[step.output]);
            let values = &mut output[..step.to.len()];
            if let Some(changed) = step.operation.changes().map(|i| step.inputs[i]).filter(|&from| from != step.output)
            {
                values.copy_from_slice(&buffers[changed][..step.to.len()]);
            }
            let first = step.inputs[0];
            match &step.operation {
                Operation::Convolution(layer) => {
                    layer.run(step.from, &buffers[first][..step.from.len()], step.to, values, &mut team);
                }
                Operation::GlobalAverage => global_average(step.from, &buffers[first][..step.from.len()], values),
                Operation::LayerNorm(layer) => {
                    layer.run(values, step.to.channels);
                }
                Operation::Affine(layer, activation) => {
                    layer.run(values, *activation);
                }
                Operation::Activation(activation) => {
                    apply(values, *activation);
                }
                Operation::Add(activation) => {
                    add(values, &buffers[step.inputs[1]][..step.to.len()], *activation);
                }
            }
            buffers[step.output] = output;
        }
    }
}

/// (batch, channel, positions) → (batch, positions, channel).
fn channels_last(shape: Shape, items: &[f32], output: &mut [f32]) {
    let positions = shape.depth * shape.height * shape.width;
    let length = positions * shape.channels;
    for (item, output) in items.chunks_exact(length).zip(output.chunks_exact_mut(length)) {
        for (channel, plane) in item.chunks_exact(positions).enumerate() {
            for (value, position) in plane.iter().zip(output.chunks_exact_mut(shape.channels)) {
                position[channel] = *value;
            }
        }
    }
}
