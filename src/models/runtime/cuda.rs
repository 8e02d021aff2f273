//! What ONNX Runtime needs for CUDA and TensorRT: a GPU, its driver, and the libraries of CUDA and cuDNN.

use std::path::PathBuf;

use super::device::{Device, Gpus};
use super::ffi::Driver;
use super::library;
use crate::error::{Error, Result};

/// The library of ONNX Runtime's CUDA provider.
pub(super) const PROVIDER: &str = "libonnxruntime_providers_cuda.so";
/// The version of CUDA that ONNX Runtime is built for, and the oldest driver for it:
/// <https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html>.
const CUDA: (i32, i32) = (13, 0);
const OLDEST_DRIVER: u32 = 580;
/// The lowest compute capability that the libraries of CUDA 13 support: Turing.
const LOWEST_CAPABILITY: (i32, i32) = (7, 5);

/// A shared library that others load by its name.
struct SharedLibrary {
    /// Its directory in third_party.
    directory: &'static str,
    name: &'static str,
    /// Whether every network needs it.
    required: bool,
}

/// The libraries of CUDA and cuDNN, each after those that it depends on. The CUDA provider is linked to some and loads others by name:
/// cuDNN and cuFFT, which in turn load NVRTC and nvJitLink.
const CUDA_LIBRARIES: [SharedLibrary; 9] = {
    const fn library(directory: &'static str, name: &'static str, required: bool) -> SharedLibrary {
        SharedLibrary { directory, name, required }
    }
    [
        library("nvidia-cuda-runtime", "libcudart.so.13", true),
        library("nvidia-cuda-nvrtc", "libnvrtc-builtins.so.13", false),
        library("nvidia-cuda-nvrtc", "libnvrtc.so.13", false),
        library("nvidia-nvjitlink", "libnvJitLink.so.13", false),
        library("nvidia-cublas", "libcublasLt.so.13", true),
        library("nvidia-cublas", "libcublas.so.13", true),
        library("nvidia-curand", "libcurand.so.10", true),
        library("nvidia-cufft", "libcufft.so.12", false),
        library("nvidia-cudnn-cu13", "libcudnn.so.9", true),
    ]
};

/// The libraries of TensorRT, which `make setup` does not install.
const TENSORRT_LIBRARIES: [SharedLibrary; 2] = [
    SharedLibrary { directory: "tensorrt", name: "libnvinfer.so.10", required: true },
    SharedLibrary { directory: "tensorrt", name: "libnvonnxparser.so.10", required: true },
];

/// Returns `true` if the driver of an NVIDIA GPU has created its device files (WSL: `/dev/dxg`). ONNX Runtime lists CUDA
/// wherever it was compiled in.
pub(super) fn has_gpu() -> bool {
    let is_gpu = |name: &str| match name.strip_prefix("nvidia") {
        Some(index) => !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit()),
        None => name == "dxg",
    };
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    entries.into_iter().any(|entry| is_gpu(&entry.file_name().to_string_lossy()))
}

/// Returns `true` if ONNX Runtime for CUDA is installed.
pub(super) fn is_installed() -> bool {
    library::find("onnxruntime-gpu", PROVIDER).is_some()
}

/// Returns `true` if TensorRT is installed.
pub(super) fn has_tensorrt() -> bool {
    load_all(&TENSORRT_LIBRARIES, locate).is_ok()
}

/// Checks that the machine has the GPUs of a device, a driver for them and the libraries, and loads these. Nothing is loaded twice.
///
/// # Errors
/// Returns an error with the remedy.
pub(super) fn prepare(device: Device, gpus: Gpus) -> Result<Vec<u32>> {
    let failed = |message: String| Error::Runtime(format!("device {device} {message}"));
    if !has_gpu() {
        let message = "needs an NVIDIA GPU with its driver: this machine has no /dev/nvidia0; use --device auto, or run \
                       `make setup DEVICE=cuda`, which says what is missing";
        return Err(failed(message.into()));
    }
    library::require("onnxruntime-gpu", PROVIDER, "run `make setup DEVICE=cuda`")?;
    let driver = Driver::load().map_err(|message| {
        failed(format!(
            "cannot be used: {message}; check nvidia-smi, or run `make setup DEVICE=cuda`, which says what is missing"
        ))
    })?;
    let indices = check(&driver, gpus).map_err(|message| {
        let visible = match std::env::var("CUDA_VISIBLE_DEVICES") {
            Ok(visible) => format!(" (with CUDA_VISIBLE_DEVICES={visible})"),
            Err(_) => String::new(),
        };
        failed(format!("cannot be used: {message}{visible}"))
    })?;
    let needs = |what: &'static str, remedy: &'static str| {
        move |error: String| failed(format!("needs {what}: {error}; {remedy}"))
    };
    load_all(&CUDA_LIBRARIES, locate).map_err(needs(
        "CUDA 13 and cuDNN 9",
        "run `make setup DEVICE=cuda`, or add their directory to LD_LIBRARY_PATH",
    ))?;
    if matches!(device, Device::TensorRt(_)) {
        load_all(&TENSORRT_LIBRARIES, locate).map_err(needs(
            "TensorRT 10 for CUDA 13",
            "install it, which `make setup` does not, and add its directory to LD_LIBRARY_PATH, or use --device cuda",
        ))?;
    }
    Ok(indices)
}

/// Returns the numbers of the GPUs, if the driver and they support CUDA 13.
fn check(driver: &Driver, gpus: Gpus) -> Result<Vec<u32>, String> {
    if driver.cuda < CUDA {
        let version = driver_version().map_or(String::new(), |version| format!(" {version}"));
        let (major, minor) = driver.cuda;
        return Err(format!(
            "the NVIDIA driver{version} is too old: it supports CUDA {major}.{minor}, but CUDA {} needs driver {OLDEST_DRIVER} or newer; \
             update it (https://www.nvidia.com/drivers)",
            CUDA.0
        ));
    }
    let names: Vec<String> = driver.gpus.iter().map(|gpu| gpu.name.clone()).collect();
    let indices = gpus.indices(&names)?;
    for &index in &indices {
        let gpu = &driver.gpus[index as usize];
        if gpu.capability < LOWEST_CAPABILITY {
            return Err(format!(
                "GPU {index} ({}) has compute capability {}.{}, but CUDA {} supports {}.{} and higher",
                gpu.name, gpu.capability.0, gpu.capability.1, CUDA.0, LOWEST_CAPABILITY.0, LOWEST_CAPABILITY.1
            ));
        }
    }
    Ok(indices)
}

/// Returns the version of the driver, such as 580.65.06. Under WSL, only Windows knows it.
pub(super) fn driver_version() -> Option<String> {
    let version = std::fs::read_to_string("/sys/module/nvidia/version").ok().or_else(|| {
        let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
        let is_version = |word: &&str| word.contains('.') && word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        text.lines().next()?.split_whitespace().find(is_version).map(String::from)
    })?;
    Some(version.trim().to_string())
}

/// Loads libraries in this order, each from the path that `locate` returns, else from where the dynamic linker finds it.
fn load_all(libraries: &[SharedLibrary], locate: impl Fn(&SharedLibrary) -> Option<PathBuf>) -> Result<(), String> {
    for library in libraries {
        let result = library::load(&locate(library).unwrap_or_else(|| library.name.into()));
        if library.required {
            result?;
        }
    }
    Ok(())
}

/// Returns the path of a library in third_party, or in `KINOPROBE_RUNTIME`.
fn locate(library: &SharedLibrary) -> Option<PathBuf> {
    library::find(library.directory, library.name)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use super::super::ffi::Gpu;
    use super::*;

    fn driver(cuda: (i32, i32), capabilities: &[(i32, i32)]) -> Driver {
        let gpu = |&capability| Gpu { name: "GPU".into(), memory: 1 << 34, capability };
        Driver { cuda, gpus: capabilities.iter().map(gpu).collect() }
    }

    #[test]
    fn old_drivers_and_gpus_are_refused() {
        assert_eq!(check(&driver((13, 0), &[(9, 0)]), Gpus::First), Ok(vec![0]));
        assert_eq!(check(&driver((14, 1), &[(6, 1), (7, 5)]), Gpus::Listed(2)), Ok(vec![1]));
        let error = check(&driver((12, 2), &[(9, 0)]), Gpus::First).unwrap_err();
        assert!(error.contains("supports CUDA 12.2, but CUDA 13 needs driver 580 or newer; update it"), "{error}");
        let error = check(&driver((13, 0), &[(9, 0), (7, 0)]), Gpus::All).unwrap_err();
        assert_eq!(error, "GPU 1 (GPU) has compute capability 7.0, but CUDA 13 supports 7.5 and higher");
        let error = check(&driver((13, 0), &[]), Gpus::First).unwrap_err();
        assert_eq!(error, "there is no GPU 0; CUDA finds: none");
    }

    #[test]
    fn libraries_are_those_of_the_setup() {
        let setup = Path::new(env!("CARGO_MANIFEST_DIR")).join("setup");
        let pins = fs::read_to_string(setup.join("runtime-cuda-libraries-x86_64.txt")).unwrap();
        let mut pinned: Vec<&str> = pins.lines().filter_map(|line| line.split_once("==")).map(|pin| pin.0).collect();
        let mut directories: Vec<&str> = CUDA_LIBRARIES.iter().map(|library| library.directory).collect();
        pinned.sort();
        directories.sort();
        directories.dedup();
        assert_eq!(directories, pinned);
        let script = fs::read_to_string(setup.join("runtime.sh")).unwrap();
        for library in &CUDA_LIBRARIES {
            assert_eq!(script.contains(&format!(" {} ", library.name)), library.required, "{}", library.name);
        }
        assert!(fs::read_to_string(setup.join("gpu.sh")).unwrap().contains(&format!("\nneeded={OLDEST_DRIVER}\n")));
    }

    #[test]
    fn libraries_that_depend_on_each_other_are_loaded_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let library = |directory, name| SharedLibrary { directory, name, required: true };
        let libraries = [library("base", "libkinoprobe_base.so.1"), library("top", "libkinoprobe_top.so.1")];
        let path = |library: &SharedLibrary| directory.path().join(library.directory).join(library.name);
        let source = directory.path().join("source.c");
        fs::write(&source, "int kinoprobe_base(void) { return 1; }").unwrap();
        for (index, library) in libraries.iter().enumerate() {
            fs::create_dir(directory.path().join(library.directory)).unwrap();
            let mut compiler = Command::new("cc");
            compiler.args(["-shared", "-fPIC", "-Wl,--no-as-needed", "-o"]).arg(path(library)).arg(&source);
            compiler.arg(format!("-Wl,-soname,{}", library.name)).args(libraries[..index].iter().map(path));
            assert!(compiler.status().unwrap().success());
            fs::write(&source, "int kinoprobe_base(void);\nint kinoprobe_top(void) { return kinoprobe_base(); }")
                .unwrap();
        }
        let located = |library: &SharedLibrary| Some(path(library));
        let error = load_all(&libraries[1..], located).unwrap_err();
        assert!(error.starts_with("libkinoprobe_base.so.1: cannot open"), "{error}");
        load_all(&libraries, located).unwrap();
        // Loaded libraries are found by their names.
        load_all(&libraries, |_| None).unwrap();
        let optional = SharedLibrary { directory: "", name: "libkinoprobe_missing.so", required: false };
        load_all(&[optional], |_| None).unwrap();
    }
}
