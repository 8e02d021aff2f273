//! Choice of the device and the batch size, by short measurements of the network that are remembered beside its file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::device::Device;
use super::ffi::Driver;
use super::lane::{Items, SessionOptions};
use super::{Session, auto_candidates, check_precision, cuda, onnxruntime};
use crate::error::{Error, Result};
use crate::files;
use crate::models::BatchSize;
use crate::progress::{Event, ProgressSink};

/// Batch sizes that are measured on a GPU.
const SIZES: [usize; 5] = [1, 4, 16, 32, 64];
/// A larger batch must be this many times as fast.
const MIN_GAIN: f64 = 1.05;
/// Runs that take longer are not followed by larger ones.
const MAX_SECONDS: f64 = 2.0;
/// Batch size with TensorRT, for which nothing is measured: it takes minutes to prepare a network for a batch size.
const TENSORRT_BATCH: usize = 16;

/// Where a network runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The device. [`Device::Auto`] if there is no GPU, or no device could be measured: the first one that works.
    pub device: Device,
    /// Items per run.
    pub batch: usize,
    /// Why this device, if there was a choice.
    pub reason: Option<String>,
}

/// How fast a network runs on the CPU or on one GPU.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Measurement {
    /// Batch size.
    batch: usize,
    /// Seconds to load the network, including the first run.
    load_seconds: f64,
    items_per_second: f64,
}

impl Measurement {
    /// Returns the estimated time for a number of items.
    fn seconds(&self, items: u64) -> f64 {
        self.load_seconds + items as f64 / self.items_per_second
    }
}

/// Chooses the device of [`Device::Auto`], the one that is estimated to take less time for `items` items, and the size of [`BatchSize::Auto`].
/// On a machine with a GPU, the network is measured unless it has been before.
///
/// # Errors
/// Returns an error if a GPU was requested and cannot be used.
pub fn choose(
    onnx: &Path,
    device: Device,
    batch: BatchSize,
    options: &SessionOptions,
    items: u64,
    progress: &dyn ProgressSink,
) -> Result<Choice> {
    let gpu = match device {
        Device::Auto => auto_candidates().into_iter().find(|candidate| candidate.gpus().is_some()),
        device => Some(device).filter(|device| device.gpus().is_some()),
    };
    let Some(gpu) = gpu.filter(|gpu| check_precision(*gpu, options.precision).is_ok()) else {
        let batch = if let BatchSize::Items(items) = batch { items } else { 1 };
        return Ok(Choice { device, batch, reason: None });
    };
    match (device, batch) {
        (Device::Auto, batch) => {
            let cpu = if check_precision(Device::Native, options.precision).is_ok() {
                remembered_or(onnx, Device::Native, options, progress, || measure_cpu(onnx, options))
            } else {
                Err(Error::Runtime(format!("it does not support precision {}", options.precision)))
            };
            let measured = remembered_or(onnx, gpu, options, progress, || measure_gpu(onnx, gpu, options));
            Ok(faster((gpu, measured), cpu, items, batch))
        }
        (device, BatchSize::Items(batch)) => Ok(Choice { device, batch, reason: None }),
        (device @ Device::TensorRt(_), BatchSize::Auto) => Ok(Choice { device, batch: TENSORRT_BATCH, reason: None }),
        (device, BatchSize::Auto) => {
            let measured = remembered_or(onnx, device, options, progress, || measure_gpu(onnx, device, options))?;
            Ok(Choice { device, batch: measured.batch, reason: None })
        }
    }
}

/// Returns the device that is estimated to take less time.
fn faster(
    (gpu, on_gpu): (Device, Result<Measurement>),
    on_cpu: Result<Measurement>,
    items: u64,
    batch: BatchSize,
) -> Choice {
    let cpu = Device::Native;
    let size = |auto: usize| if let BatchSize::Items(items) = batch { items } else { auto };
    match (on_gpu, on_cpu) {
        (Ok(on_gpu), Ok(on_cpu)) => {
            let (gpu_seconds, cpu_seconds) = (on_gpu.seconds(items), on_cpu.seconds(items));
            let (device, auto) = if gpu_seconds < cpu_seconds { (gpu, on_gpu.batch) } else { (cpu, 1) };
            let reason = format!(
                "device {device}: for {items} items, the network is estimated to take {gpu_seconds:.1} s on {gpu} and {cpu_seconds:.1} s on {cpu}"
            );
            Choice { device, batch: size(auto), reason: Some(reason) }
        }
        (Ok(on_gpu), Err(error)) => {
            let reason = format!("device {gpu}: {cpu} cannot be used ({error})");
            Choice { device: gpu, batch: size(on_gpu.batch), reason: Some(reason) }
        }
        (Err(error), Ok(_)) => {
            let reason = format!("device {cpu}: {gpu} cannot be used ({error})");
            Choice { device: cpu, batch: size(1), reason: Some(reason) }
        }
        // The first that works, or the errors of all.
        (Err(_), Err(_)) => Choice { device: Device::Auto, batch: size(1), reason: None },
    }
}

/// Returns the next batch size to measure after these runs, (batch size, seconds); `None` if a larger one would not be faster.
fn next_size(runs: &[(usize, f64)]) -> Option<usize> {
    let rate = |(batch, seconds): &(usize, f64)| *batch as f64 / seconds;
    match runs {
        [.., before, last] if last.1 > MAX_SECONDS || rate(last) < MIN_GAIN * rate(before) => None,
        runs => SIZES.get(runs.len()).copied(),
    }
}

/// Returns the smallest batch size with a speed that no other exceeds by the minimum gain, and this speed in items per second.
fn saturating(runs: &[(usize, f64)]) -> (usize, f64) {
    let rate = |(batch, seconds): &(usize, f64)| *batch as f64 / seconds;
    let most = runs.iter().map(rate).fold(0.0, f64::max);
    let chosen = runs.iter().find(|run| MIN_GAIN * rate(run) >= most).expect("at least one batch was measured");
    (chosen.0, rate(chosen))
}

fn measure_gpu(onnx: &Path, device: Device, options: &SessionOptions) -> Result<Measurement> {
    let gpus = device.gpus().map_or(Ok(vec![0]), |gpus| cuda::prepare(device, gpus))?;
    let (load_seconds, runs) = onnxruntime::measure(onnx, device, gpus[0], options, next_size)?;
    let (batch, items_per_second) = saturating(&runs);
    Ok(Measurement { batch, load_seconds, items_per_second })
}

/// Measures the network with the native kernels on all cores.
fn measure_cpu(onnx: &Path, options: &SessionOptions) -> Result<Measurement> {
    let start = Instant::now();
    let mut session = Session::load(onnx, Device::Native, SessionOptions { batch: 1, ..options.clone() })?;
    let load_seconds = start.elapsed().as_secs_f64();
    let pixels = vec![0; options.item_len()];
    let mut seconds = f64::INFINITY;
    // The first run allocates buffers.
    for _ in 0..2 {
        let start = Instant::now();
        std::thread::scope(|scope| {
            let lanes = session.lanes.iter_mut();
            let threads: Vec<_> = lanes.map(|lane| scope.spawn(|| lane.run(Items::Pixels(&[&pixels])))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("lanes do not panic").map(|_| ()))
        })?;
        seconds = seconds.min(start.elapsed().as_secs_f64());
    }
    Ok(Measurement { batch: 1, load_seconds, items_per_second: session.lanes.len() as f64 / seconds })
}

/// Measurements by device.
type Measurements = BTreeMap<String, Measurement>;

/// Returns the measurement that is remembered for a device; otherwise measures, and remembers it if the directory can be written to.
fn remembered_or(
    onnx: &Path,
    device: Device,
    options: &SessionOptions,
    progress: &dyn ProgressSink,
    measure: impl FnOnce() -> Result<Measurement>,
) -> Result<Measurement> {
    let (path, key) = (measurements_path(onnx), key(onnx, device, options)?);
    let mut measurements = read(&path);
    if let Some(found) = measurements.get(&key) {
        return Ok(*found);
    }
    progress.report(Event::Info(&format!("measuring the network on {device}, once on this machine")));
    let measured = measure()?;
    measurements.insert(key, measured);
    let text = serde_json::to_vec_pretty(&measurements).expect("measurements serialize to JSON");
    if let Err(error) = files::write_atomic(&path, &text) {
        progress.report(Event::Info(&format!("the measurement is not remembered: {error}")));
    }
    Ok(measured)
}

/// Returns the file of the measurements of a network: `NETWORK.onnx.speed.json`.
fn measurements_path(onnx: &Path) -> PathBuf {
    let mut path = onnx.as_os_str().to_owned();
    path.push(".speed.json");
    path.into()
}

/// Reads a file of measurements. One that is damaged or of another version is as good as none.
fn read(path: &Path) -> Measurements {
    std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Returns what a measurement depends on: the version, the network's file, the hardware and the precision.
fn key(onnx: &Path, device: Device, options: &SessionOptions) -> Result<String> {
    let bytes = std::fs::metadata(onnx).map_err(Error::io(onnx))?.len();
    let hardware = match device.gpus() {
        Some(_) => {
            let gpus = Driver::load().map_or_else(|_| Vec::new(), |driver| driver.gpus);
            gpus.iter().map(|gpu| gpu.name.as_str()).collect::<Vec<_>>().join(", ")
        }
        None => format!("{} cores", options.threads),
    };
    let simd = std::env::var("KINOPROBE_SIMD").unwrap_or_default();
    Ok(format!(
        "{} {bytes} {device} {hardware} {simd} {}",
        env!("CARGO_PKG_VERSION"),
        options.precision.on_provider(device.name())
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Card, Precision};
    use crate::progress::NoProgress;

    const GPU: Measurement = Measurement { batch: 32, load_seconds: 3.0, items_per_second: 1000.0 };
    const CPU: Measurement = Measurement { batch: 1, load_seconds: 0.2, items_per_second: 600.0 };

    fn gpu() -> Device {
        "cuda".parse().unwrap()
    }

    #[test]
    fn the_device_with_the_shorter_time_is_chosen() {
        let choose = |items, batch| faster((gpu(), Ok(GPU)), Ok(CPU), items, batch);
        // 600 posters: 3.6 s with the start of the GPU, 1.2 s on the CPU.
        let few = choose(600, BatchSize::Auto);
        assert_eq!((few.device, few.batch), (Device::Native, 1));
        assert!(
            few.reason
                .unwrap()
                .contains("for 600 items, the network is estimated to take 3.6 s on cuda and 1.2 s on native")
        );
        let many = choose(60_000, BatchSize::Auto);
        assert_eq!((many.device, many.batch), (gpu(), 32));
        assert_eq!(choose(60_000, BatchSize::Items(8)).batch, 8);
        let error = || Err(Error::Runtime("no driver".into()));
        let fallback = faster((gpu(), error()), Ok(CPU), 1, BatchSize::Auto);
        assert_eq!((fallback.device, fallback.batch), (Device::Native, 1));
        assert!(fallback.reason.unwrap().contains("no driver"));
        assert_eq!(faster((gpu(), Ok(GPU)), error(), 1, BatchSize::Auto).device, gpu());
        assert_eq!(faster((gpu(), error()), error(), 1, BatchSize::Auto).device, Device::Auto);
    }

    #[test]
    fn batches_grow_until_the_speed_saturates() {
        // A device with a fixed cost per run and per item.
        let measured = |fixed: f64, per_item: f64| {
            let mut runs = Vec::new();
            while let Some(batch) = next_size(&runs) {
                runs.push((batch, fixed + per_item * batch as f64));
            }
            (runs.len(), saturating(&runs).0)
        };
        assert_eq!(measured(0.0, 0.01), (2, 1));
        assert_eq!(measured(0.02, 0.01), (5, 32));
        assert_eq!(measured(1.0, 0.001), (5, 64));
        // Runs of more than two seconds are not followed by larger ones.
        assert_eq!(measured(1.0, 0.3), (2, 4));
    }

    #[test]
    fn measurements_are_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let onnx = directory.path().join("network.onnx");
        std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/models/tiny.onnx"), &onnx).unwrap();
        let card = Card::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/models"), "tiny").unwrap();
        let options = SessionOptions::for_card(&card, 1, Precision::Auto);
        let measure = || remembered_or(&onnx, Device::Native, &options, &NoProgress, || measure_cpu(&onnx, &options));
        let first = measure().unwrap();
        assert!(first.items_per_second > 0.0 && first.load_seconds > 0.0);
        let remembered = |options: &SessionOptions| {
            remembered_or(&onnx, Device::Native, options, &NoProgress, || Err(Error::Runtime("measured".into())))
        };
        assert_eq!(remembered(&options).unwrap(), first);
        // Other hardware is measured again, and so is a damaged file.
        assert!(remembered(&SessionOptions { threads: options.threads + 1, ..options.clone() }).is_err());
        std::fs::write(measurements_path(&onnx), "{").unwrap();
        assert!(remembered(&options).is_err());
    }

    #[test]
    fn without_a_gpu_nothing_is_measured() {
        let card = Card::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/models"), "tiny").unwrap();
        let options = SessionOptions::for_card(&card, 1, Precision::Auto);
        for (batch, expected) in [(BatchSize::Auto, 1), (BatchSize::Items(4), 4)] {
            let choice = choose(Path::new("missing.onnx"), Device::Cpu, batch, &options, 10, &NoProgress).unwrap();
            assert_eq!(choice, Choice { device: Device::Cpu, batch: expected, reason: None });
        }
    }
}
