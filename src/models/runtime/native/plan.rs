//! Execution plan of a network: its steps in order, with activations assigned to shared buffers.

use std::collections::HashMap;

use rayon::ThreadPool;

use super::activation::{AddActivate, ApplyActivation};
use super::aligned::AlignedBuffer;
use super::isa::Isa;
use super::kernel::ScratchBuffers;
use super::onnx_reader::OnnxGraph;
use super::packed::Target;
use super::plan_builder::{BuiltPlan, LayerProbe, PlanBuilder};
use super::pooling::global_average_pool;
use super::shape::TensorShape;
use super::step::{ActivationTensor, Operation, PlanError, PlanResult, Step, unsupported};
use super::thread_pool::Workers;
use super::tokens::first_token;
use crate::models::input::NormalizationTable;
use crate::models::precision::Precision;
use crate::models::runtime::lane::{SessionOptions, shape_matches};

/// An item of the input, (channels, positions).
#[derive(Clone, Copy)]
pub(super) enum Item<'a> {
    Floats(&'a [f32]),
    /// Eight-bit values, with the number for each value of each channel.
    Pixels(&'a [u8], &'a NormalizationTable),
}

/// Executable form of a network, shared by its lanes.
#[derive(Debug)]
pub(super) struct Plan {
    isa: Isa,
    input: TensorShape,
    steps: Vec<Step>,
    /// Number of floats per buffer. Buffer 0 receives the input.
    buffer_lens: Vec<usize>,
    /// Index of the buffer that holds the result.
    output_buffer: usize,
    output: TensorShape,
}

/// Buffers of one lane, allocated on its first run.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    buffers: Vec<AlignedBuffer>,
    /// Scratch buffers per thread.
    scratch: Vec<ScratchBuffers>,
    /// Output of the network without padding channels.
    result: Vec<f32>,
}

impl Plan {
    /// Creates the plan of a network for the input and output declared by `options`.
    ///
    /// # Errors
    /// Returns an error if the network does not match `options`, is malformed, or uses an unsupported operator.
    pub fn new(graph: &OnnxGraph, options: &SessionOptions, isa: Isa) -> PlanResult<Self> {
        Self::build(graph, options, isa, |builder| builder).map(|(plan, _)| plan)
    }

    /// As [`Plan::new`], with probes of the layers that can be quantized (see [`PlanBuilder::with_probes`]).
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn with_probes(
        graph: &OnnxGraph,
        options: &SessionOptions,
        isa: Isa,
        include_winograd: bool,
    ) -> PlanResult<(Self, Vec<LayerProbe>)> {
        Self::build(graph, options, isa, |builder| builder.with_probes(include_winograd))
    }

    fn build<'g>(
        graph: &'g OnnxGraph,
        options: &SessionOptions,
        isa: Isa,
        configure: impl FnOnce(PlanBuilder<'g>) -> PlanBuilder<'g>,
    ) -> PlanResult<(Self, Vec<LayerProbe>)> {
        let [(input, declared)] = &graph.inputs[..] else {
            let count = graph.inputs.len();
            return Err(PlanError::Mismatch(format!("expected exactly one input, found {count}")));
        };
        let expected = options.input_shape();
        if !shape_matches(declared, &expected) {
            return Err(PlanError::Mismatch(format!(
                "input `{input}` is {declared:?}, but the card declares f32 {expected:?}"
            )));
        }
        let batch = options.batch;
        let shape = match options.item[..] {
            [channels, height, width] => {
                TensorShape { batch, depth: 1, height, width, channels, channel_stride: channels }
            }
            [channels, depth, height, width] => {
                TensorShape { batch, depth, height, width, channels, channel_stride: channels }
            }
            _ => return unsupported(format!("an input of {} axes", options.item.len() + 1)),
        };
        if shape.checked_len().is_none_or(|len| len == 0) {
            return Err(PlanError::Mismatch(format!("input `{input}` has an invalid shape {expected:?}")));
        }
        let output = select_output(graph, options)?;
        let target = Target { isa, bf16: options.precision == Precision::Bf16 };
        let builder = configure(PlanBuilder::new(graph, input, shape, output, target));
        let BuiltPlan { steps, tensors, probes } = builder.build()?;
        let Some(&result) = tensors.get(output) else {
            return unsupported(format!("output `{output}` is not computed by any node"));
        };
        if result.shape.positions() != options.batch || result.shape.channels != options.dim {
            let TensorShape { channels, depth, height, width, .. } = result.shape;
            let axes = [channels, depth, height, width].into_iter().filter(|&axis| axis > 1);
            return Err(PlanError::Mismatch(format!(
                "output `{output}` is f32 [batch, {}], but the card declares f32 [batch, {}]",
                axes.map(|axis| axis.to_string()).collect::<Vec<_>>().join(", "),
                options.dim
            )));
        }
        Ok((Self::allocate(isa, shape, steps, result), probes))
    }

    /// Assigns a buffer to every activation. A buffer is reused after the last read of its activation.
    fn allocate(isa: Isa, input: TensorShape, mut steps: Vec<Step>, result: ActivationTensor) -> Self {
        let mut last_read: HashMap<usize, usize> = HashMap::from([(result.id, usize::MAX)]);
        for (index, step) in steps.iter().enumerate() {
            for id in &step.inputs {
                let last = last_read.entry(*id).or_insert(index);
                *last = (*last).max(index);
            }
        }
        let mut buffer_lens = vec![input.len()];
        let mut free: Vec<usize> = Vec::new();
        let mut buffer_of_id: HashMap<usize, usize> = HashMap::from([(0, 0)]);
        for (index, step) in steps.iter_mut().enumerate() {
            let is_last_read = |id: &usize| last_read[id] <= index;
            let ids = std::mem::take(&mut step.inputs);
            step.inputs = ids.iter().map(|id| buffer_of_id[id]).collect();
            // The output overwrites an input only if nothing else reads that input, now or later.
            let in_place = (step.operation.in_place_input().map(|i| ids[i]))
                .filter(is_last_read)
                .filter(|id| ids.iter().filter(|other| *other == id).count() == 1);
            let buffer = match in_place {
                Some(id) => buffer_of_id[&id],
                None => {
                    // The smallest free buffer that is large enough; otherwise the largest one is enlarged.
                    let needed = step.output_shape.len();
                    free.sort_by_key(|&buffer| buffer_lens[buffer]);
                    let fitting = free.iter().position(|&buffer| buffer_lens[buffer] >= needed);
                    match fitting.or(free.len().checked_sub(1)) {
                        Some(found) => free.remove(found),
                        None => {
                            buffer_lens.push(0);
                            buffer_lens.len() - 1
                        }
                    }
                }
            };
            buffer_lens[buffer] = buffer_lens[buffer].max(step.output_shape.len());
            for id in &ids {
                if is_last_read(id) && buffer_of_id[id] != buffer && !free.contains(&buffer_of_id[id]) {
                    free.push(buffer_of_id[id]);
                }
            }
            buffer_of_id.insert(step.output, buffer);
            step.output = buffer;
        }
        Self { isa, input, buffer_lens, output_buffer: buffer_of_id[&result.id], output: result.shape, steps }
    }

    /// Returns the shape of the input.
    pub fn input(&self) -> TensorShape {
        self.input
    }

    /// Returns the steps in the order in which they run.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Runs an item, (channels, positions), and returns its embedding. Uses `threads` threads: the calling one and threads of `pool`. The
    /// result does not depend on their number.
    pub fn run<'w>(
        &self,
        item: Item<'_>,
        threads: usize,
        pool: Option<&ThreadPool>,
        workspace: &'w mut Workspace,
    ) -> &'w [f32] {
        self.run_observed(item, threads, pool, workspace, || ())
    }

    /// As [`Self::run`]. Calls `observe` when the buffers exist, when the input has been converted, and after each step.
    pub fn run_observed<'w>(
        &self,
        item: Item<'_>,
        threads: usize,
        pool: Option<&ThreadPool>,
        workspace: &'w mut Workspace,
        mut observe: impl FnMut(),
    ) -> &'w [f32] {
        let Workspace { buffers, scratch, result } = workspace;
        scratch.resize_with(scratch.len().max(threads), ScratchBuffers::default);
        if buffers.is_empty() {
            *buffers = self.buffer_lens.iter().map(|&len| AlignedBuffer::zeros(len)).collect();
        }
        observe();
        self.write_input(item, &mut buffers[0]);
        observe();
        Workers::scope(pool, &mut scratch[..threads], |workers| {
            for step in &self.steps {
                self.run_step(step, buffers, workers);
                observe();
            }
        });
        result.clear();
        let output = &buffers[self.output_buffer][..self.output.len()];
        for position in output.chunks_exact(self.output.channel_stride) {
            result.extend_from_slice(&position[..self.output.channels]);
        }
        result
    }

    fn write_input(&self, item: Item<'_>, output: &mut [f32]) {
        match item {
            Item::Floats(values) => to_channels_last(self.input, values, output, |_, value| value),
            Item::Pixels(values, table) => {
                to_channels_last(self.input, values, output, |channel, value| table[channel][usize::from(value)]);
            }
        }
    }

    fn run_step(&self, step: &Step, buffers: &mut [AlignedBuffer], workers: &mut Workers<'_>) {
        let mut buffer = std::mem::take(&mut buffers[step.output]);
        let output = &mut buffer[..step.output_shape.len()];
        let in_place = step.operation.in_place_input().map(|i| step.inputs[i]);
        // An in-place operation whose input is still needed works on a copy.
        if let Some(source) = in_place.filter(|&source| source != step.output) {
            output.copy_from_slice(&buffers[source][..step.output_shape.len()]);
        }
        let first = step.inputs[0];
        match &step.operation {
            Operation::Convolution(layer) => {
                layer.run(
                    step.input_shape,
                    &buffers[first][..step.input_shape.len()],
                    step.output_shape,
                    output,
                    workers,
                );
            }
            Operation::GlobalAveragePool => {
                global_average_pool(step.input_shape, &buffers[first][..step.input_shape.len()], output);
            }
            Operation::MaxPool(layer) => {
                let input = &buffers[first][..step.input_shape.len()];
                layer.run(self.isa, (step.input_shape, input), (step.output_shape, output), workers);
            }
            Operation::Attention(layer) => {
                let qkv = [0, 1, 2].map(|i| &buffers[step.inputs[i]][..step.input_shape.len()]);
                layer.run(self.isa, step.input_shape, qkv, output, workers);
            }
            Operation::TokenEmbedding(layer) => {
                layer.run(step.input_shape, &buffers[first][..step.input_shape.len()], output);
            }
            Operation::FirstToken => first_token(step.input_shape, &buffers[first][..step.input_shape.len()], output),
            Operation::LayerNorm(layer) => layer.run(self.isa, output, step.output_shape.channels),
            Operation::Affine(layer, activation) => layer.run(self.isa, output, *activation),
            Operation::Activation(activation) => {
                self.isa.dispatch(ApplyActivation { values: output, activation: *activation });
            }
            Operation::Add(activation) => {
                let other = &buffers[step.inputs[1]][..step.output_shape.len()];
                self.isa.dispatch(AddActivate { sum: output, other, activation: *activation });
            }
        }
        buffers[step.output] = buffer;
    }
}

/// Returns the name of the output that the card selects; without a selection, of the only output.
fn select_output<'a>(graph: &'a OnnxGraph, options: &'a SessionOptions) -> PlanResult<&'a str> {
    match (&options.output, &graph.outputs[..]) {
        (Some(name), outputs) if outputs.contains(name) => Ok(name),
        (Some(name), _) => Err(PlanError::Mismatch(format!("it has no output `{name}`"))),
        (None, [name]) => Ok(name),
        (None, names) => Err(PlanError::Mismatch(format!(
            "it has {} outputs ({}): name one in its card, [output] name",
            names.len(),
            names.join(", ")
        ))),
    }
}

/// Converts an item from (channels, positions) to (positions, channels). `number` converts a value of a channel.
#[inline(always)]
fn to_channels_last<T: Copy>(shape: TensorShape, item: &[T], output: &mut [f32], number: impl Fn(usize, T) -> f32) {
    let positions = shape.depth * shape.height * shape.width;
    for (channel, plane) in item.chunks_exact(positions).enumerate() {
        for (value, position) in plane.iter().zip(output.chunks_exact_mut(shape.channels)) {
            position[channel] = number(channel, *value);
        }
    }
}
