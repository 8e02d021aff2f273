//! Bindings to functions of ONNX Runtime that `ort` does not wrap yet, and to NVIDIA's driver.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::mem::ManuallyDrop;
use std::path::Path;
use std::ptr;

use libloading::Library;
use ort::AsPointer;
use ort::session::Session;

use super::library;

/// Returns the execution providers that the session's nodes are assigned to, without duplicates. The session must have been
/// built with `session.record_ep_graph_assignment_info=1`.
///
/// # Errors
/// Returns the message of ONNX Runtime.
pub(super) fn assigned_providers(session: &Session) -> Result<Vec<String>, String> {
    let api = ort::api();
    let mut subgraphs: *const *const ort::sys::OrtEpAssignedSubgraph = ptr::null();
    let mut count = 0;
    // SAFETY: the session is alive during the call; both output pointers are valid for writing.
    check(unsafe { (api.Session_GetEpGraphAssignmentInfo)(session.ptr(), &mut subgraphs, &mut count) })?;
    let mut names: Vec<String> = Vec::new();
    for i in 0..count {
        let mut name = ptr::null();
        // SAFETY: ONNX Runtime returned `count` subgraphs, which the session owns.
        check(unsafe { (api.EpAssignedSubgraph_GetEpName)(*subgraphs.add(i), &mut name) })?;
        // SAFETY: the name is a NUL-terminated string that the session owns.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// What NVIDIA's driver reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Driver {
    /// The newest version of CUDA that it supports: major and minor.
    pub cuda: (c_int, c_int),
    /// The GPUs that CUDA may use, in its order. The driver applies `CUDA_VISIBLE_DEVICES`; the device files of the machine do not tell.
    pub gpus: Vec<Gpu>,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gpu {
    pub name: String,
    /// Its memory in bytes.
    pub memory: usize,
    /// Its compute capability: major and minor.
    pub capability: (c_int, c_int),
}

impl Driver {
    /// Loads the library of the driver, and initializes it.
    ///
    /// # Errors
    /// Returns a message if there is no driver, or it reports an error.
    pub fn load() -> Result<Self, String> {
        const LIBRARY: &str = "libcuda.so.1";
        /// Result of a function if there are no GPUs.
        const NO_DEVICE: c_int = 100;
        const CAPABILITY_MAJOR: c_int = 75;
        const CAPABILITY_MINOR: c_int = 76;
        let missing =
            |e: libloading::Error| format!("the NVIDIA driver lacks a library or function: {}", library::message(&e));
        // SAFETY: the initialization of the driver's library has no preconditions. It remains loaded, since ONNX Runtime uses it too.
        let driver = ManuallyDrop::new(unsafe { Library::new(LIBRARY) }.map_err(missing)?);
        let check = |function: &str, code: c_int| match code {
            0 => Ok(()),
            code => Err(format!("the NVIDIA driver reports error {code} of {function}")),
        };
        // SAFETY: the types are those of cuda.h.
        let (init, get_version, get_count, get_name, get_memory, get_attribute) = unsafe {
            (
                driver.get::<unsafe extern "C" fn(c_uint) -> c_int>("cuInit").map_err(missing)?,
                driver.get::<unsafe extern "C" fn(*mut c_int) -> c_int>("cuDriverGetVersion").map_err(missing)?,
                driver.get::<unsafe extern "C" fn(*mut c_int) -> c_int>("cuDeviceGetCount").map_err(missing)?,
                driver
                    .get::<unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int>("cuDeviceGetName")
                    .map_err(missing)?,
                driver
                    .get::<unsafe extern "C" fn(*mut usize, c_int) -> c_int>("cuDeviceTotalMem_v2")
                    .map_err(missing)?,
                driver
                    .get::<unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int>("cuDeviceGetAttribute")
                    .map_err(missing)?,
            )
        };
        let mut version = 0;
        // SAFETY: the pointer is valid for writing; this function needs no initialization.
        check("cuDriverGetVersion", unsafe { get_version(&mut version) })?;
        let cuda = (version / 1000, version % 1000 / 10);
        // SAFETY: the only valid value of the flags is 0.
        match unsafe { init(0) } {
            NO_DEVICE => return Ok(Self { cuda, gpus: Vec::new() }),
            code => check("cuInit", code)?,
        }
        let mut count = 0;
        // SAFETY: the pointer is valid for writing.
        check("cuDeviceGetCount", unsafe { get_count(&mut count) })?;
        let attribute = |attribute, index| {
            let mut value = 0;
            // SAFETY: the pointer is valid for writing; a device is its index.
            check("cuDeviceGetAttribute", unsafe { get_attribute(&mut value, attribute, index) }).map(|()| value)
        };
        let gpu = |index: c_int| {
            let (mut buffer, mut memory) = ([0; 256], 0);
            // SAFETY: the driver writes at most the given number of bytes, with a NUL at the end.
            check("cuDeviceGetName", unsafe { get_name(buffer.as_mut_ptr(), buffer.len() as c_int, index) })?;
            // SAFETY: the pointer is valid for writing.
            check("cuDeviceTotalMem", unsafe { get_memory(&mut memory, index) })?;
            let bytes = buffer.map(|byte| byte as u8);
            let name = CStr::from_bytes_until_nul(&bytes).map_err(|e| e.to_string())?;
            let capability = (attribute(CAPABILITY_MAJOR, index)?, attribute(CAPABILITY_MINOR, index)?);
            Ok(Gpu { name: name.to_string_lossy().into_owned(), memory, capability })
        };
        let gpus = (0..count).map(gpu).collect::<Result<_, String>>()?;
        Ok(Self { cuda, gpus })
    }
}

/// A function of a library that returns its version.
#[derive(Debug, Clone, Copy)]
pub(super) enum VersionFunction {
    /// `int f()`: 10000 major + 100 minor + patch.
    Int(&'static str),
    /// `size_t f()`, as [`Int`](Self::Int).
    Size(&'static str),
    /// `int f(int *)` of CUDA: 1000 major + 10 minor.
    Cuda(&'static str),
    /// That of ONNX Runtime.
    OnnxRuntime,
}

/// Returns the version of a library, which must be loaded; `None` if the library does not have the function.
pub(super) fn version(path: &Path, function: VersionFunction) -> Option<String> {
    let dotted = |n: usize| format!("{}.{}.{}", n / 10_000, n / 100 % 100, n % 100);
    // SAFETY: the library is loaded already, so that this runs no initializer.
    let library = unsafe { Library::new(path) }.ok()?;
    // SAFETY: the types are those of the libraries' headers; the functions have no preconditions.
    unsafe {
        match function {
            VersionFunction::Int(name) => {
                Some(dotted(usize::try_from(library.get::<unsafe extern "C" fn() -> c_int>(name).ok()?()).ok()?))
            }
            VersionFunction::Size(name) => Some(dotted(library.get::<unsafe extern "C" fn() -> usize>(name).ok()?())),
            VersionFunction::Cuda(name) => {
                let mut version = 0;
                let get = library.get::<unsafe extern "C" fn(*mut c_int) -> c_int>(name).ok()?;
                (get(&mut version) == 0).then(|| format!("{}.{}", version / 1000, version % 1000 / 10))
            }
            VersionFunction::OnnxRuntime => {
                let get = library.get::<unsafe extern "C" fn() -> *const ort::sys::OrtApiBase>("OrtGetApiBase").ok()?;
                let version = get().as_ref().map(|base| (base.GetVersionString)())?;
                Some(CStr::from_ptr(version).to_string_lossy().into_owned())
            }
        }
    }
}

fn check(status: ort::sys::OrtStatusPtr) -> Result<(), String> {
    // SAFETY: the status comes from ONNX Runtime and is consumed exactly once.
    unsafe { ort::Error::result_from_status(status) }.map_err(|e| e.to_string())
}
