//! Times of the layers of a network on the native kernels.

/// Measured times of one network on one item.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// What ran the network: `native-INSTRUCTION_SET`.
    pub provider: String,
    /// Number of threads that a layer is divided among.
    pub threads: usize,
    /// Floating-point operations per second of independent f32 multiply-adds on registers, on all threads at once, with the vector
    /// instructions of the instruction set. The integer tiles of AMX have no f32 multiply-adds: their peak is that of AVX-512.
    pub peak: f64,
    /// The conversion of the input to channels-last, then the layers in the order in which they run.
    pub layers: Vec<LayerProfile>,
}

/// Measured time of one layer: a step of the network, which may be several fused layers.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerProfile {
    /// The kernels, such as `winograd 3x3 F(4), relu`.
    pub kernel: String,
    /// Names of the ONNX nodes whose outputs it computes.
    pub name: String,
    /// Shape of the output without the batch axis, channels last: (frames, height, width, channels), (height, width, channels), (tokens,
    /// channels) or (channels).
    pub output: Vec<usize>,
    /// Median of the runs, in seconds.
    pub seconds: f64,
    /// Multiply-accumulates of the direct algorithm, also if the kernel needs fewer; 0 for layers that are neither convolutions, linear
    /// layers nor attention.
    pub multiply_accumulates: u64,
}

impl LayerProfile {
    /// Returns the floating-point operations of the direct algorithm: two per multiply-accumulate.
    pub fn flops(&self) -> f64 {
        2.0 * self.multiply_accumulates as f64
    }

    /// Returns the time in seconds beyond that of its operations at `peak` operations per second. Negative for a layer that needs fewer
    /// operations than the direct algorithm and computes them fast enough.
    pub fn lost_seconds(&self, peak: f64) -> f64 {
        self.seconds - self.flops() / peak
    }
}

impl Profile {
    /// Returns the sum of the layers' times in seconds.
    pub fn seconds(&self) -> f64 {
        self.layers.iter().map(|layer| layer.seconds).sum()
    }

    /// Returns the floating-point operations of the network (see [`LayerProfile::flops`]).
    pub fn flops(&self) -> f64 {
        self.layers.iter().map(LayerProfile::flops).sum()
    }

    /// Returns the `count` layers that lose the most time against the peak, the worst first; of equal ones, the first. Layers that lose
    /// none are left out.
    pub fn worst(&self, count: usize) -> Vec<&LayerProfile> {
        let lost = |layer: &LayerProfile| layer.lost_seconds(self.peak);
        let mut layers: Vec<&LayerProfile> = self.layers.iter().filter(|layer| lost(layer) > 0.0).collect();
        layers.sort_by(|a, b| lost(b).total_cmp(&lost(a)));
        layers.truncate(count);
        layers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_layers_lose_the_most_time_against_the_peak() {
        let layer = |name: &str, seconds: f64, multiply_accumulates: u64| LayerProfile {
            kernel: "pointwise".into(),
            name: name.into(),
            output: vec![1],
            seconds,
            multiply_accumulates,
        };
        // At 100 operations per second, the layers take 1, 2, 0 and 4 seconds.
        let layers =
            vec![layer("slow", 4.0, 50), layer("fast", 1.5, 100), layer("copy", 3.0, 0), layer("best", 4.5, 200)];
        let profile = Profile { provider: "native-scalar".into(), threads: 1, peak: 100.0, layers };
        let names = |count| profile.worst(count).iter().map(|layer| layer.name.as_str()).collect::<Vec<_>>();
        assert_eq!(names(3), ["slow", "copy", "best"]);
        assert_eq!(names(9), ["slow", "copy", "best"], "a layer above the peak loses no time");
        assert_eq!((profile.seconds(), profile.flops()), (13.0, 700.0));
        assert_eq!(profile.layers[1].lost_seconds(profile.peak), -0.5);
    }
}
