//! Interface between sessions and backends: lanes, options, and checks of inputs and outputs.

use std::sync::Arc;
use std::time::Duration;

use ndarray::Array2;

use crate::error::{Error, Result};
use crate::models::input::{Normalization, NormalizationTable};
use crate::models::{Card, Precision};

/// Shapes of a network and how it is run.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Shape of one item without the batch axis: (3, H, W) or (3, T, H, W).
    pub item: Vec<usize>,
    /// If `Some`, items are [pixels](Items::Pixels), which the session normalizes.
    pub normalization: Option<Normalization>,
    /// Length of one embedding.
    pub dim: usize,
    /// Maximum number of items per run. Backends other than the native one complete smaller batches with zeros, so that results do not
    /// depend on how clips are batched.
    pub batch: usize,
    /// Number of cores that all lanes together may use.
    pub threads: usize,
    /// Name of the output to read; required if the network has several.
    pub output: Option<String>,
    /// Arithmetic precision.
    pub precision: Precision,
}

impl SessionOptions {
    /// Returns the options of the network of a card, which reads pixels and uses all cores.
    pub fn for_card(card: &Card, batch: usize, precision: Precision) -> Self {
        Self {
            item: card.input.shape(1)[1..].to_vec(),
            normalization: Some(card.input.normalization()),
            dim: card.output.dim,
            batch,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            output: Some(card.output.name.clone()),
            precision,
        }
    }

    /// Returns the options of a network with one output that reads floats, in batches of `batch` items and on one core.
    pub fn for_floats(item: Vec<usize>, dim: usize, batch: usize) -> Self {
        Self { item, normalization: None, dim, batch, threads: 1, output: None, precision: Precision::F32 }
    }

    /// Returns the shape of a batch.
    pub(super) fn input_shape(&self) -> Vec<usize> {
        std::iter::once(self.batch).chain(self.item.iter().copied()).collect()
    }

    /// Returns the number of elements of an item.
    pub fn item_len(&self) -> usize {
        self.item.iter().product()
    }
}

/// Consecutive parts of a batch. Each consists of whole items, with channels before positions.
#[derive(Debug, Clone, Copy)]
pub enum Items<'a> {
    /// The network's input.
    Floats(&'a [&'a [f32]]),
    /// Eight-bit values before the normalization.
    Pixels(&'a [&'a [u8]]),
}

impl Items<'_> {
    /// Returns the number of items.
    ///
    /// # Errors
    /// Returns an error if these are not items of the network, or if there are none or more than a batch.
    pub(super) fn count(self, options: &SessionOptions) -> Result<usize> {
        let item_len = options.item_len();
        let (kind, lens): (_, Vec<usize>) = match self {
            Items::Floats(parts) => ("floats", parts.iter().map(|part| part.len()).collect()),
            Items::Pixels(parts) => ("pixels", parts.iter().map(|part| part.len()).collect()),
        };
        let expected = if options.normalization.is_some() { "pixels" } else { "floats" };
        let (len, batch) = (lens.iter().sum::<usize>(), options.batch);
        let count = len / item_len;
        if kind != expected || lens.iter().any(|len| len % item_len != 0) || !(1..=batch).contains(&count) {
            let message = format!("{len} {kind} are not 1 to {batch} items of {item_len} {expected}");
            return Err(Error::Runtime(message));
        }
        Ok(count)
    }
}

/// Writes items as floats for networks without a normalization of their own.
#[derive(Debug, Clone)]
pub(super) struct FloatInput {
    /// Elements per channel of an item.
    positions: usize,
    table: Option<Arc<NormalizationTable>>,
}

impl FloatInput {
    pub fn new(options: &SessionOptions) -> Self {
        let table = options.normalization.map(|normalization| Arc::new(normalization.table()));
        Self { positions: options.item[1..].iter().product(), table }
    }

    /// Writes a batch and completes it with zeros.
    pub fn write(&self, items: Items<'_>, batch: &mut [f32]) {
        let mut written = 0;
        match items {
            Items::Floats(parts) => {
                for part in parts {
                    batch[written..][..part.len()].copy_from_slice(part);
                    written += part.len();
                }
            }
            Items::Pixels(parts) => {
                let table = self.table.as_ref().expect("the session was loaded for pixels");
                for part in parts {
                    for (plane, tables) in part.chunks(self.positions).zip(table.iter().cycle()) {
                        let out = &mut batch[written..][..plane.len()];
                        out.iter_mut().zip(plane).for_each(|(out, &value)| *out = tables[usize::from(value)]);
                        written += plane.len();
                    }
                }
            }
        }
        batch[written..].fill(0.0);
    }
}

/// An execution context of a loaded network. Lanes run concurrently; those of a CPU share the weights.
pub trait Lane: Send {
    /// Runs 1 to `batch` items; returns (items, dim).
    ///
    /// # Errors
    /// Returns an error if these are not items of the network, the run fails, or the output has an unexpected size or contains a
    /// non-finite value.
    fn run(&mut self, items: Items<'_>) -> Result<Array2<f32>>;

    /// Returns the part of the time of all runs in which items were copied into the network's input.
    fn copy_time(&self) -> Duration {
        Duration::ZERO
    }

    /// Returns a message for the user that has not been returned before.
    fn take_warning(&mut self) -> Option<String> {
        None
    }

    /// Sets whether the lane uses the threads of idle lanes, if the backend supports it: latency decreases at the cost of
    /// other work on the same cores.
    fn borrow_idle_threads(&mut self, _: bool) {}
}

/// Converts the output (rows, dim) of a run to (count, dim). The rows of zeros that complete a batch are dropped.
///
/// # Errors
/// Returns an error if a value is not finite or the number of values is wrong.
pub(super) fn embeddings(values: &[f32], (rows, dim): (usize, usize), count: usize) -> Result<Array2<f32>> {
    if values.len() != rows * dim {
        return Err(Error::Runtime(format!("the network returned {} values instead of {rows} × {dim}", values.len())));
    }
    let values = &values[..count * dim];
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(Error::Runtime(format!("the network returned {} at index {index}", values[index])));
    }
    Ok(Array2::from_shape_vec((count, dim), values.to_vec()).expect("the length was checked"))
}

/// Returns `true` if a declared shape, in which negative axes are dynamic, accepts `shape`.
pub(super) fn shape_matches(declared: &[i64], shape: &[usize]) -> bool {
    declared.len() == shape.len() && declared.iter().zip(shape).all(|(&axis, &len)| axis < 0 || axis == len as i64)
}

/// Returns `true` if a declared output shape is (batch, dim), possibly with additional axes of length 1.
pub(super) fn is_embedding(shape: &[i64], dim: usize) -> bool {
    let axes: Vec<i64> = shape.iter().skip(1).copied().filter(|&axis| axis != 1).collect();
    shape.len() >= 2
        && (axes.as_slice() == [dim as i64] || (dim == 1 && axes.is_empty()) || axes.iter().any(|&axis| axis < 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_normalized_and_completed_with_zeros() {
        let normalization = Normalization { scale: 255.0, mean: [0.5, 0.25, 0.0], std: [0.5, 1.0, 2.0] };
        let options =
            SessionOptions { normalization: Some(normalization), ..SessionOptions::for_floats(vec![3, 1, 2], 4, 3) };
        let parts: [&[u8]; 2] = [&[0, 255, 51, 102, 204, 255], &[255; 6]];
        let mut batch = [7.0; 18];
        assert_eq!(Items::Pixels(&parts).count(&options).unwrap(), 2);
        FloatInput::new(&options).write(Items::Pixels(&parts), &mut batch);
        let expected = [-1.0, 1.0, 0.2 - 0.25, 0.4 - 0.25, 0.4, 0.5, 1.0, 1.0, 0.75, 0.75, 0.5, 0.5];
        assert!(batch.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-6), "{batch:?}");
        assert_eq!(batch[12..], [0.0; 6]);
        let parts: [&[u8]; 2] = [&[0; 5], &[0; 7]];
        let error = Items::Pixels(&parts).count(&options).unwrap_err().to_string();
        assert!(error.contains("12 pixels are not 1 to 3 items of 6 pixels"), "{error}");
        assert!(Items::Floats(&[&[0.0; 6]]).count(&options).is_err());
        assert!(Items::Pixels(&[&[0; 24]]).count(&options).is_err());
        assert!(Items::Pixels(&[]).count(&options).is_err());
    }
}
