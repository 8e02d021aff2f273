//! What the server counts, as Prometheus reads it.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram};
use prometheus_client::registry::{Registry, Unit};

use super::queue::Observer;

/// Upper ends of the histogram of request times, in seconds.
const SECONDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];
/// Upper ends of the histogram of pictures a batch.
const PICTURES: [f64; 6] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0];

/// What tells requests apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    route: String,
    status: u16,
}

/// Everything that is counted.
pub struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    seconds: Histogram,
    pictures: Histogram,
    abandoned: Counter,
    free_places: Gauge,
    resident: Gauge,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("kinoprobe");
        let requests = Family::default();
        registry.register("requests", "Requests answered, by route and status", requests.clone());
        let seconds = Histogram::new(SECONDS);
        let help = "Time from a prediction's request to its answer";
        registry.register_with_unit("predict", help, Unit::Seconds, seconds.clone());
        let pictures = Histogram::new(PICTURES);
        registry.register("batch_pictures", "Pictures that the network ran at once", pictures.clone());
        let abandoned = Counter::default();
        registry.register("abandoned", "Pictures left out because their client had gone", abandoned.clone());
        let free_places = Gauge::default();
        registry.register("free_places", "Pictures that could be taken in now", free_places.clone());
        let resident = Gauge::default();
        registry.register_with_unit("resident_memory", "Memory of the process", Unit::Bytes, resident.clone());
        Arc::new(Self { registry, requests, seconds, pictures, abandoned, free_places, resident })
    }

    /// A request was answered.
    pub fn answered(&self, route: &str, status: u16) {
        self.requests.get_or_create(&Request { route: route.into(), status }).inc();
    }

    /// A prediction took so long.
    pub fn predicted(&self, time: Duration) {
        self.seconds.observe(time.as_secs_f64());
    }

    /// The text that Prometheus reads.
    pub fn text(&self, free_places: usize) -> String {
        self.free_places.set(free_places as i64);
        if let Some(bytes) = resident_bytes() {
            self.resident.set(bytes);
        }
        let mut out = String::new();
        text::encode(&mut out, &self.registry).expect("a string takes all that is written to it");
        out
    }
}

impl Observer for Metrics {
    fn ran(&self, pictures: usize) {
        self.pictures.observe(pictures as f64);
    }

    fn abandoned(&self) {
        self.abandoned.inc();
    }
}

/// Resident memory in bytes, where the system tells it (Linux).
fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
