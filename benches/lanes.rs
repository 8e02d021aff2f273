//! Simulation of a GPU: how much of the speed of decoding and of the network the pipeline reaches. Run it with `cargo bench --bench lanes`.
//!
//! Decode workers and the network sleep as long as was measured on an H100 with 16 cores; items are really copied. The network computes one
//! batch at a time.

use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use kinoprobe::cancel::CancellationToken;
use kinoprobe::error::Result;
use kinoprobe::extract::decoded::{DecodeFn, DecodedClip};
use kinoprobe::extract::pipeline::Pipeline;
use kinoprobe::extract::timings::Clocks;
use kinoprobe::manifest::{Clip, Manifest};
use kinoprobe::models::runtime::{Items, Lane, Session, SessionOptions};
use kinoprobe::progress::NoProgress;
use kinoprobe::store::{Journal, Payload, Provenance, RowSource};
use ndarray::Array2;

const CLIPS: usize = 540;
const WORKERS: usize = 16;
/// Seconds of a worker per clip: 70 CPU seconds for 1080 clips.
const DECODE: f64 = 70.0 / 1080.0;
/// Bytes per second of a copy from pinned memory to the GPU (PCIe 5.0).
const BUS: f64 = 25e9;

/// A network and how it is run.
struct Case {
    name: &'static str,
    /// Items per clip.
    rows: usize,
    item: Vec<usize>,
    dim: usize,
    batch: usize,
    /// Items per second of the network.
    rate: f64,
}

/// A lane of the simulated GPU.
struct SimulatedLane {
    gpu: Arc<Mutex<()>>,
    input: Vec<u8>,
    item_len: usize,
    dim: usize,
    /// Seconds per batch.
    seconds: f64,
    copy_time: Duration,
}

impl Lane for SimulatedLane {
    fn run(&mut self, items: Items<'_>) -> Result<Array2<f32>> {
        let Items::Pixels(parts) = items else { unreachable!("the pipeline passes pixels") };
        let start = Instant::now();
        let mut len = 0;
        for part in parts {
            self.input[len..][..part.len()].copy_from_slice(part);
            len += part.len();
        }
        self.copy_time += start.elapsed();
        sleep(Duration::from_secs_f64(len as f64 / BUS));
        let _computing = self.gpu.lock().unwrap();
        sleep(Duration::from_secs_f64(self.seconds));
        Ok(Array2::zeros((len / self.item_len, self.dim)))
    }

    fn copy_time(&self) -> Duration {
        self.copy_time
    }
}

fn main() {
    let case =
        |name, rows, item: &[usize], dim, batch, rate| Case { name, rows, item: item.to_vec(), dim, batch, rate };
    let (window, frame) = ([3, 16, 112, 112], [3, 224, 224]);
    for case in [
        case("R(2+1)D-18, TF32, 5 windows", 5, &window, 512, 32, 829.0),
        case("R(2+1)D-18, fp16, 5 windows", 5, &window, 512, 32, 1310.0),
        case("ConvNeXt-base, TF32, 8 frames", 8, &frame, 1024, 64, 2849.0),
        case("ConvNeXt-base, fp16, 8 frames", 8, &frame, 1024, 64, 3599.0),
    ] {
        for lanes in [1, 2] {
            let (seconds, timings) = run(&case, lanes);
            let clips = CLIPS as f64 / seconds;
            let ceiling = (WORKERS as f64 / DECODE).min(case.rate / case.rows as f64);
            let share = 100.0 * clips / ceiling;
            println!(
                "{}, lanes: {lanes}: {clips:.0} clips/s, {share:.0} % of the lower ceiling {ceiling:.0}",
                case.name
            );
            println!("{timings}");
        }
    }
}

/// Returns the seconds of the run and the timings of its stages.
fn run(case: &Case, lanes: usize) -> (f64, String) {
    let Case { rows, dim, batch, rate, .. } = *case;
    let options = SessionOptions::for_floats(case.item.clone(), dim, batch);
    let (item_len, gpu) = (options.item_len(), Arc::new(Mutex::new(())));
    let lane = |_| -> Box<dyn Lane> {
        let (gpu, input, seconds) = (gpu.clone(), vec![0; batch * item_len], batch as f64 / rate);
        Box::new(SimulatedLane { gpu, input, item_len, dim, seconds, copy_time: Duration::ZERO })
    };
    let network = Session { provider: "cuda".into(), lanes: (0..lanes).map(lane).collect(), options };
    let decode = move |_: &Clip| -> Result<DecodedClip<Vec<u8>>> {
        sleep(Duration::from_secs_f64(DECODE));
        let row = RowSource { start_frame: 0, start_seconds: 0.0, end_seconds: 0.0, padded: false, scale: 1.0 };
        Ok(DecodedClip {
            frame_count: 100,
            fps: 25.0,
            duration_seconds: 4.0,
            full: None,
            version: String::new(),
            rows: vec![row; rows],
            frames: rows,
            warnings: Vec::new(),
            content: vec![128; rows * item_len],
        })
    };
    let clip =
        |i: usize| Clip { id: i.to_string(), path: i.to_string(), file: i.to_string().into(), ..Clip::default() };
    let clips = (0..CLIPS).map(clip).collect();
    let manifest = Manifest { source: "simulation".into(), clips, warnings: Vec::new(), sha256: String::new() };
    let pending: Vec<usize> = (0..CLIPS).collect();
    let directory = tempfile::tempdir().expect("the temporary directory can be written");
    let (clocks, cancel) = (Clocks::default(), CancellationToken::default());
    let pipeline =
        Pipeline { manifest: &manifest, pending: &pending, progress: &NoProgress, cancel: &cancel, clocks: &clocks };
    let store = directory.path().join("simulation.h5");
    let load = || Ok((network, Journal::open(&store, Payload::Features { dim }, &Provenance::default())?));
    let workers = (0..WORKERS).map(|_| Box::new(decode) as DecodeFn<'_, Vec<u8>>).collect();
    let start = Instant::now();
    pipeline.extract_embeddings(workers, load).expect("the simulation does not fail");
    let seconds = start.elapsed().as_secs_f64();
    (seconds, clocks.timings(seconds, WORKERS, lanes).to_string())
}
