//! Observation of matrix products during calibration: statistics of their inputs, and their replacement by integer products.

use std::sync::{Mutex, PoisonError, RwLock};

use super::int8::QuantizedMatrix;

/// Distribution of the inputs of a layer.
#[derive(Debug, Clone)]
pub(crate) struct InputStatistics {
    /// Number of values by the upper 16 bits of their f32: sign, exponent and seven bits of the mantissa.
    pub histogram: Vec<u64>,
    /// Smallest value, at most 0.
    pub min: f32,
    /// Largest value, at least 0.
    pub max: f32,
    /// Number of rows.
    pub rows: u64,
    /// Sum per input.
    pub sums: Vec<f64>,
}

impl InputStatistics {
    /// Creates the statistics of no rows of `inputs` values.
    pub fn new(inputs: usize) -> Self {
        Self { histogram: vec![0; 1 << 16], min: 0.0, max: 0.0, rows: 0, sums: vec![0.0; inputs] }
    }

    /// Adds rows.
    pub fn record(&mut self, rows: &[f32]) {
        for row in rows.chunks_exact(self.sums.len()) {
            self.rows += 1;
            for (sum, &value) in self.sums.iter_mut().zip(row) {
                *sum += f64::from(value);
                self.min = self.min.min(value);
                self.max = self.max.max(value);
                self.histogram[(value.to_bits() >> 16) as usize] += 1;
            }
        }
    }

    /// Returns the bins that are not empty, by increasing value: the mean of a bin's bounds and its count. NaN and infinities are left out.
    pub fn bins(&self) -> Vec<(f32, u64)> {
        let value = |bin: usize| f32::from_bits((bin as u32) << 16 | 1 << 15);
        let counts = self.histogram.iter().enumerate().filter(|(_, count)| **count > 0);
        // Zeros have a bin of their own, with tiny values.
        let center = |bin: usize| if bin & 0x7fff == 0 { 0.0 } else { value(bin) };
        let mut bins: Vec<(f32, u64)> = counts.map(|(bin, &count)| (center(bin), count)).collect();
        bins.retain(|(value, _)| value.is_finite());
        bins.sort_by(|a, b| a.0.total_cmp(&b.0));
        bins
    }
}

/// What a probe does.
#[derive(Debug, Default)]
enum State {
    /// Nothing.
    #[default]
    Idle,
    /// Records the input.
    Recording(Mutex<InputStatistics>),
    /// Replaces the product.
    Quantized { matrix: QuantizedMatrix, bias_correction: Vec<f32> },
}

/// Observer of the products of one layer.
#[derive(Debug)]
pub(super) struct Probe {
    /// Inputs per row, with padding.
    inputs: usize,
    state: RwLock<State>,
}

impl Probe {
    /// Creates a probe of a product with `inputs` inputs, including padding.
    pub fn new(inputs: usize) -> Self {
        Self { inputs, state: RwLock::default() }
    }

    /// Returns the number of inputs, including padding.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Starts to record the input.
    pub fn record(&self) {
        self.set(State::Recording(Mutex::new(InputStatistics::new(self.inputs))));
    }

    /// Ends the recording and returns it; `None` if the probe did not record.
    pub fn take_statistics(&self) -> Option<InputStatistics> {
        match self.set(State::Idle) {
            State::Recording(statistics) => Some(statistics.into_inner().unwrap_or_else(PoisonError::into_inner)),
            _ => None,
        }
    }

    /// Replaces the product by one with `matrix`, and adds `bias_correction` to the bias.
    pub fn replace(&self, matrix: QuantizedMatrix, bias_correction: Vec<f32>) {
        self.set(State::Quantized { matrix, bias_correction });
    }

    /// Stops to record or to replace the product.
    pub fn reset(&self) {
        self.set(State::Idle);
    }

    fn set(&self, state: State) -> State {
        std::mem::replace(&mut *self.state.write().unwrap_or_else(PoisonError::into_inner), state)
    }

    /// Observes a product. If it is to be replaced, calls `multiply` with the matrix and the correction of the bias, and returns `true`.
    pub fn observe(&self, input: &[f32], multiply: impl FnOnce(&QuantizedMatrix, &[f32])) -> bool {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Idle => false,
            State::Recording(statistics) => {
                statistics.lock().unwrap_or_else(PoisonError::into_inner).record(input);
                false
            }
            State::Quantized { matrix, bias_correction } => {
                multiply(matrix, bias_correction);
                true
            }
        }
    }
}
