//! Checks what networks can run on: a small network is run on each device, in a process of its own.
//!
//! A process can load only one library of ONNX Runtime, and a faulty library or driver can end the process: the doctor runs its own program
//! for each device.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::ffi::{self, Driver, VersionFunction};
use super::{Device, Items, Session, SessionOptions, cuda, native};
use crate::error::{Error, Result};
use crate::memory;
use crate::models::Precision;
use crate::models::onnx::builder::GraphBuilder;
use crate::models::onnx::proto::{Attribute, TensorProto, ValueInfo};

/// Environment variables that change what networks run on.
const VARIABLES: [&str; 5] =
    ["KINOPROBE_RUNTIME", "KINOPROBE_SIMD", "KINOPROBE_CACHE", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH"];
/// Libraries that are listed if a device has loaded them: the beginning of the file name, and the function that returns the version.
const LIBRARIES: [(&str, Option<VersionFunction>); 11] = [
    ("libonnxruntime.so", Some(VersionFunction::OnnxRuntime)),
    ("libonnxruntime_providers_cuda.so", None),
    ("libonnxruntime_providers_tensorrt.so", None),
    ("libopenvino_c.so", None),
    ("libcuda.so", None),
    ("libcudart.so", Some(VersionFunction::Cuda("cudaRuntimeGetVersion"))),
    ("libcublas.so", None),
    ("libcublasLt.so", Some(VersionFunction::Size("cublasLtGetVersion"))),
    ("libcurand.so", None),
    ("libcudnn.so", Some(VersionFunction::Size("cudnnGetVersion"))),
    ("libnvinfer.so", Some(VersionFunction::Int("getInferLibVersion"))),
];
/// Lines of a crashed process's output that are shown.
const CRASH_LINES: usize = 3;

/// The devices that are examined if none is named.
pub fn devices() -> impl Iterator<Item = Device> {
    Device::NAMES.into_iter().map(|(_, device)| device).filter(|device| *device != Device::Auto)
}

/// What the machine has, and how its environment is configured.
pub struct Machine {
    lines: Vec<(&'static str, String)>,
    /// The problem of its configuration, if there is one.
    pub problem: Option<String>,
}

impl Machine {
    /// Describes this machine. Loads no library.
    pub fn read() -> Self {
        let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let value = |text: &str, key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            Some(line.trim_start_matches(['\t', ' ', ':', '=']).trim().trim_matches('"').to_string())
        };
        let system = value(&file("/etc/os-release"), "PRETTY_NAME").unwrap_or_else(|| std::env::consts::OS.into());
        let kernel = file("/proc/sys/kernel/osrelease");
        let processor = value(&file("/proc/cpuinfo"), "model name").unwrap_or_else(|| "processor".into());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let memory = memory::available().map_or("unknown".into(), |bytes| format!("{} available", gibibytes(bytes)));
        let gpu = match (cuda::has_gpu(), cuda::driver_version()) {
            (true, Some(version)) => format!("NVIDIA, driver {version}"),
            (true, None) => "NVIDIA, driver of unknown version".into(),
            (false, Some(version)) => format!("no /dev/nvidia0, but driver {version} is loaded"),
            (false, None) => "no NVIDIA GPU".into(),
        };
        let mut lines = vec![
            ("system", format!("{system}, {} {}", kernel.trim(), std::env::consts::ARCH)),
            ("processor", format!("{processor}, {cores} cores, {}", native::instruction_sets().join(" "))),
            ("memory", memory),
            ("gpu", gpu),
        ];
        let set = VARIABLES.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        let set: Vec<String> = set.map(|(name, value)| format!("{name}={}", value.to_string_lossy())).collect();
        lines.push((
            "variables",
            if set.is_empty() { format!("none of {}", VARIABLES.join(", ")) } else { set.join(", ") },
        ));
        Self {
            lines,
            problem: std::env::var_os("KINOPROBE_RUNTIME").and_then(|path| problem_of_runtime(path.as_ref())),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "kinoprobe {}", env!("CARGO_PKG_VERSION"))?;
        for (name, text) in &self.lines {
            writeln!(f, "{name:<9}  {text}")?;
        }
        self.problem.iter().try_for_each(|problem| writeln!(f, "{:<9}  FAILED  {problem}", ""))
    }
}

/// Returns why the directory `KINOPROBE_RUNTIME` has no effect: its libraries precede those in third_party, but it has none.
fn problem_of_runtime(directory: &Path) -> Option<String> {
    let is_library = |name: &str| LIBRARIES.iter().any(|(stem, _)| name.starts_with(stem));
    let reason = match std::fs::read_dir(directory) {
        Ok(mut entries) => {
            if entries.any(|entry| entry.is_ok_and(|entry| is_library(&entry.file_name().to_string_lossy()))) {
                return None;
            }
            "it has no libonnxruntime.so and no libopenvino_c.so".into()
        }
        Err(error) => error.to_string(),
    };
    Some(format!(
        "KINOPROBE_RUNTIME={}: {reason}; unset it, or name the directory of the libraries",
        directory.display()
    ))
}

/// What a device did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Outcome {
    /// The network ran, and the result is right.
    Works {
        provider: String,
        load: Duration,
        run: Duration,
    },
    /// The machine does not have the device, or it is not set up for it.
    Absent(String),
    Failed(String),
}

/// A shared library that was loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct LoadedLibrary {
    path: PathBuf,
    version: Option<String>,
}

/// The result of running the small network on a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    device: String,
    outcome: Outcome,
    /// The version of CUDA of the driver, and the GPUs.
    gpus: Vec<String>,
    libraries: Vec<LoadedLibrary>,
}

impl Finding {
    /// Returns `true` if the device should work, but does not.
    pub fn failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed(_))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (state, text) = match &self.outcome {
            Outcome::Works { provider, load, run } => {
                let milliseconds = |time: &Duration| time.as_secs_f64() * 1e3;
                ("ok", format!("{provider}: load {:.1} ms, run {:.2} ms", milliseconds(load), milliseconds(run)))
            }
            Outcome::Absent(reason) => ("-", reason.clone()),
            Outcome::Failed(reason) => ("FAILED", reason.clone()),
        };
        write!(f, "{:<9}  {state:<6}  {}", self.device, text.trim_end().replace('\n', "\n  "))?;
        self.gpus.iter().try_for_each(|gpu| write!(f, "\n{:<17}  {gpu}", ""))?;
        self.libraries.iter().try_for_each(|LoadedLibrary { path, version }| {
            let version = version.as_ref().map_or(String::new(), |version| format!(" ({version})"));
            write!(f, "\n{:<17}  {}{version}", "", path.display())
        })
    }
}

/// Runs the small network on a device in a process of its own: `program`, which prints what [`probe`] returns as JSON. If the device is
/// `requested`, it must work; else it may be absent.
///
/// # Errors
/// Returns an error if the program cannot be started.
pub fn examine(device: Device, requested: bool, program: &mut Command) -> Result<Finding> {
    let output = program.output().map_err(Error::io(program.get_program()))?;
    let mut finding = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        let signal = output.status.signal().and_then(signal_hook::low_level::signal_name);
        let cause = signal.map_or_else(|| output.status.to_string(), |name| format!("crashed with {name}"));
        let printed = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = printed.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines[lines.len().saturating_sub(CRASH_LINES)..].iter().map(|line| format!("\n{line}"));
        let message = format!("its process {cause}{}", last.collect::<String>());
        Finding { device: device.to_string(), outcome: Outcome::Failed(message), gpus: vec![], libraries: vec![] }
    });
    if let Outcome::Absent(reason) = &finding.outcome
        && requested
    {
        finding.outcome = Outcome::Failed(reason.clone());
    }
    Ok(finding)
}

/// Runs the small network on a device, in this process.
pub fn probe(device: Device) -> Finding {
    let outcome = match absent(device) {
        Some(reason) => Outcome::Absent(reason),
        None => run(device).unwrap_or_else(|error| Outcome::Failed(error.to_string())),
    };
    let gpus = if device.gpus().is_some() && cuda::has_gpu() { describe_gpus() } else { Vec::new() };
    Finding { device: device.to_string(), outcome, gpus, libraries: loaded_libraries() }
}

/// Returns why a machine need not have this device.
fn absent(device: Device) -> Option<String> {
    let reason = match device {
        Device::OpenVino if !cfg!(target_arch = "x86_64") => "`make setup` installs OpenVINO on x86-64 only",
        Device::Cuda(_) | Device::TensorRt(_) if !cuda::has_gpu() => {
            "no NVIDIA GPU with its driver (no /dev/nvidia0): `make setup DEVICE=cuda` says what is missing"
        }
        Device::Cuda(_) | Device::TensorRt(_) if !cuda::is_installed() => "not set up: run `make setup DEVICE=cuda`",
        Device::TensorRt(gpus) if cuda::prepare(Device::Cuda(gpus), gpus).is_ok() && !cuda::has_tensorrt() => {
            "TensorRT 10 for CUDA 13 is not installed, or LD_LIBRARY_PATH does not name its directory"
        }
        _ => return None,
    };
    Some(reason.into())
}

fn run(device: Device) -> Result<Outcome> {
    let network = TestNetwork::default();
    let cannot_write = |source| Error::Io { path: std::env::temp_dir(), source };
    let mut file = tempfile::Builder::new().suffix(".onnx").tempfile().map_err(cannot_write)?;
    file.write_all(&network.onnx()).map_err(cannot_write)?;
    let item = vec![TestNetwork::INPUTS, TestNetwork::SIZE, TestNetwork::SIZE];
    let options = SessionOptions {
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        precision: Precision::Auto,
        ..SessionOptions::for_floats(item, TestNetwork::OUTPUTS, 1)
    };
    let start = Instant::now();
    let mut session = Session::load(file.path(), device, options)?;
    let (load, start) = (start.elapsed(), Instant::now());
    let output = session.run(&network.input)?;
    let run = start.elapsed();
    // The other lanes, also of other GPUs.
    let items = [&network.input[..]];
    let others =
        session.lanes.iter_mut().skip(1).map(|lane| lane.run(Items::Floats(&items))).collect::<Result<Vec<_>>>()?;
    let expected = network.expected();
    for output in std::iter::once(&output).chain(&others) {
        if !is_right(output, &expected) {
            let message = format!("device {device} computes wrong results: {output} instead of {expected:?}");
            return Ok(Outcome::Failed(message));
        }
    }
    Ok(Outcome::Works { provider: session.provider, load, run })
}

fn is_right(output: &Array2<f32>, expected: &[f32]) -> bool {
    let is_close = |(a, b): (&f32, &f32)| (a - b).abs() <= TestNetwork::TOLERANCE;
    output.len() == expected.len() && output.iter().zip(expected).all(is_close)
}

/// Describes the driver and the GPUs that CUDA finds.
fn describe_gpus() -> Vec<String> {
    let Ok(driver) = Driver::load() else { return Vec::new() };
    let version = cuda::driver_version().map_or(String::new(), |version| format!(" {version}"));
    let driver_line = format!("driver{version}, for CUDA {}.{} and older", driver.cuda.0, driver.cuda.1);
    let gpus = driver.gpus.iter().enumerate().map(|(index, gpu)| {
        let (memory, (major, minor)) = (gibibytes(gpu.memory as u64), gpu.capability);
        format!("GPU {index}: {}, {memory}, compute capability {major}.{minor}", gpu.name)
    });
    std::iter::once(driver_line).chain(gpus).collect()
}

/// Returns the [`LIBRARIES`] that this process has loaded.
fn loaded_libraries() -> Vec<LoadedLibrary> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let paths: BTreeSet<&Path> = maps.lines().filter_map(|line| Some(Path::new(&line[line.find('/')?..]))).collect();
    let is_library =
        |path: &Path, stem: &str| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(stem));
    let loaded = LIBRARIES.iter().filter_map(|(stem, function)| {
        let path = *paths.iter().find(|path| is_library(path, stem))?;
        let version = match function {
            Some(function) => ffi::version(path, *function),
            None if *stem == "libopenvino_c.so" => openvino::version().build_number.split('-').next().map(String::from),
            None => None,
        };
        Some(LoadedLibrary { path: path.to_path_buf(), version })
    });
    loaded.collect()
}

fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

/// A convolution, ReLU and mean over the positions. All values are multiples of 1/8, so that products and sums are exact also in TF32.
struct TestNetwork {
    /// (inputs, SIZE, SIZE).
    input: Vec<f32>,
    /// (outputs, inputs, KERNEL, KERNEL).
    weight: Vec<f32>,
    /// One per output.
    bias: Vec<f32>,
}

impl TestNetwork {
    const INPUTS: usize = 3;
    const OUTPUTS: usize = 8;
    const KERNEL: usize = 3;
    const SIZE: usize = 10;
    /// For the rounding of convolutions by Winograd's algorithms.
    const TOLERANCE: f32 = 1e-4;

    /// Returns an ONNX file.
    fn onnx(&self) -> Vec<u8> {
        let mut graph = GraphBuilder::default();
        let kernel = [Self::KERNEL, Self::KERNEL];
        let weight = TensorProto::floats("weight", &[Self::OUTPUTS, Self::INPUTS, kernel[0], kernel[1]], &self.weight);
        let (weight, bias) =
            (graph.initializer(weight), graph.initializer(TensorProto::floats("bias", &[Self::OUTPUTS], &self.bias)));
        graph.node("Conv", &["x", &weight, &bias], "convolution", vec![Attribute::ints("kernel_shape", &kernel)]);
        graph.node("Relu", &["convolution"], "relu", vec![]);
        graph.node("GlobalAveragePool", &["relu"], "mean", vec![]);
        graph.node("Flatten", &["mean"], "y", vec![Attribute::int("axis", 1)]);
        let size = Self::SIZE as i64;
        let input = ValueInfo::batched("x", &[Self::INPUTS as i64, size, size]);
        graph.finish("test", input, ValueInfo::batched("y", &[Self::OUTPUTS as i64]))
    }

    /// Returns the output, computed by its definition.
    fn expected(&self) -> Vec<f32> {
        let (kernel, positions) = (Self::KERNEL, Self::SIZE - Self::KERNEL + 1);
        let position = |output: usize, y: usize, x: usize| {
            let mut sum = self.bias[output];
            for input in 0..Self::INPUTS {
                for (dy, dx) in (0..kernel).flat_map(|dy| (0..kernel).map(move |dx| (dy, dx))) {
                    let weight = self.weight[((output * Self::INPUTS + input) * kernel + dy) * kernel + dx];
                    sum += weight * self.input[(input * Self::SIZE + y + dy) * Self::SIZE + x + dx];
                }
            }
            sum.max(0.0)
        };
        let mean = |output| {
            let places = (0..positions).flat_map(|y| (0..positions).map(move |x| (y, x)));
            places.map(|(y, x)| position(output, y, x)).sum::<f32>() / (positions * positions) as f32
        };
        (0..Self::OUTPUTS).map(mean).collect()
    }
}

impl Default for TestNetwork {
    fn default() -> Self {
        // Multiples of 1/8 in [-1, 1), without a pattern.
        let values = |count: usize, factor: usize| -> Vec<f32> {
            (0..count).map(|i| ((i * i * factor + 5 * i) % 17 % 16) as f32 / 8.0 - 1.0).collect()
        };
        let weights = Self::OUTPUTS * Self::INPUTS * Self::KERNEL * Self::KERNEL;
        Self {
            input: values(Self::INPUTS * Self::SIZE * Self::SIZE, 3),
            weight: values(weights, 7),
            bias: values(Self::OUTPUTS, 2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_differ_and_are_not_zero() {
        let expected = TestNetwork::default().expected();
        let distinct: BTreeSet<u32> = expected.iter().map(|value| value.to_bits()).collect();
        assert_eq!(distinct.len(), TestNetwork::OUTPUTS, "{expected:?}");
        assert!(expected.iter().all(|value| *value > 0.0), "{expected:?}");
        for (offset, right) in [(0.0, true), (1e-5, true), (1e-3, false), (f32::NAN, false)] {
            let mut output = Array2::from_shape_vec((1, TestNetwork::OUTPUTS), expected.clone()).unwrap();
            output[[0, 5]] += offset;
            assert_eq!(is_right(&output, &expected), right, "{offset}");
        }
    }

    #[test]
    fn crashes_are_failures_of_the_device() {
        let examine =
            |requested, script: &str| examine(Device::Cpu, requested, Command::new("sh").args(["-c", script]));
        let finding = examine(false, "echo first >&2; echo 'cannot do it' >&2; kill -SEGV $$").unwrap();
        assert!(finding.failed());
        let text = finding.to_string();
        assert!(
            text.starts_with("cpu        FAILED  its process crashed with SIGSEGV\n  first\n  cannot do it"),
            "{text}"
        );
        assert!(examine(false, "exit 3").unwrap().to_string().contains("its process exit status: 3"));
        let absent =
            Finding { device: "cpu".into(), outcome: Outcome::Absent("no".into()), gpus: vec![], libraries: vec![] };
        let script = format!("echo '{}'", serde_json::to_string(&absent).unwrap());
        assert_eq!(examine(false, &script).unwrap(), absent);
        assert!(examine(true, &script).unwrap().failed());
    }

    #[test]
    fn a_runtime_directory_without_libraries_is_a_problem() {
        let directory = tempfile::tempdir().unwrap();
        assert!(problem_of_runtime(&directory.path().join("missing")).unwrap().contains("No such file"));
        std::fs::write(directory.path().join("README"), "").unwrap();
        assert!(problem_of_runtime(directory.path()).unwrap().contains("it has no libonnxruntime.so"));
        std::fs::write(directory.path().join("libopenvino_c.so.2641"), "").unwrap();
        assert_eq!(problem_of_runtime(directory.path()), None);
    }
}
