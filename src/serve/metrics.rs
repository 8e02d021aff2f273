//! Metrics of the server in the OpenMetrics format, for Prometheus.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram};
use prometheus_client::registry::{Registry, Unit};

use super::queue::QueueObserver;

/// Upper bounds of the buckets of prediction times, in seconds.
const SECONDS_BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];
/// Upper bounds of the buckets of images per batch.
const IMAGES_BUCKETS: [f64; 6] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0];

/// Labels of the request counter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    status: u16,
}

/// The registry and its metrics.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    prediction_seconds: Histogram,
    batch_images: Histogram,
    abandoned: Counter,
    free_slots: Gauge,
    resident_memory: Gauge,
}

impl Metrics {
    /// Registers all metrics.
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("kinoprobe");
        let requests = Family::default();
        registry.register("requests", "Completed requests by route and status", requests.clone());
        let prediction_seconds = Histogram::new(SECONDS_BUCKETS);
        let help = "Time from receiving a prediction request to its response";
        registry.register_with_unit("predict", help, Unit::Seconds, prediction_seconds.clone());
        let batch_images = Histogram::new(IMAGES_BUCKETS);
        registry.register("batch_images", "Images per batch of the network", batch_images.clone());
        let abandoned = Counter::default();
        registry.register("abandoned", "Images dropped because the client disconnected", abandoned.clone());
        let free_slots = Gauge::default();
        registry.register("free_slots", "Free slots of the image queue", free_slots.clone());
        let resident_memory = Gauge::default();
        let help = "Resident memory of the process";
        registry.register_with_unit("resident_memory", help, Unit::Bytes, resident_memory.clone());
        Arc::new(Self { registry, requests, prediction_seconds, batch_images, abandoned, free_slots, resident_memory })
    }

    /// Counts a response.
    pub fn count_response(&self, route: &str, status: u16) {
        self.requests.get_or_create(&RequestLabels { route: route.into(), status }).inc();
    }

    /// Records the time that a successful prediction request took.
    pub fn observe_prediction(&self, time: Duration) {
        self.prediction_seconds.observe(time.as_secs_f64());
    }

    /// Returns all metrics as OpenMetrics text. Gauges are updated first.
    pub fn encode(&self, free_slots: usize) -> String {
        self.free_slots.set(free_slots as i64);
        if let Some(bytes) = resident_bytes() {
            self.resident_memory.set(bytes);
        }
        let mut out = String::new();
        text::encode(&mut out, &self.registry).expect("writing to a String does not fail");
        out
    }
}

impl QueueObserver for Metrics {
    fn batch_started(&self, images: usize) {
        self.batch_images.observe(images as f64);
    }

    fn job_abandoned(&self) {
        self.abandoned.inc();
    }
}

/// Returns the resident memory in bytes, or `None` on systems other than Linux.
fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
