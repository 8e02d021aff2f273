//! The device that libtorch computes on.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;

use kinoprobe::error::{Error, Result};
use kinoprobe::models::runtime::library;
use tch::{Cuda, Device};

/// Returns the device `cpu` or `cuda`. For `cuda`, loads libtorch's libraries for CUDA, to which programs are not linked; call
/// this before any other function of libtorch.
///
/// # Errors
/// Returns an error with the remedy if the name is unknown, or if the libraries or a GPU are missing.
pub fn device(name: &str) -> Result<Device> {
    match name {
        "cpu" => Ok(Device::Cpu),
        "cuda" => {
            load_cuda()?;
            if Cuda::is_available() {
                return Ok(Device::Cuda(0));
            }
            Err(Error::Runtime("device cuda: libtorch finds no GPU: check nvidia-smi, or use --device cpu".into()))
        }
        _ => Err(Error::Runtime(format!("unknown device {name}: choose cpu or cuda"))),
    }
}

/// Loads libtorch_cuda.so, which registers its operators when it is loaded.
pub(super) fn load_cuda() -> Result<()> {
    let remedy = "run make setup TRAIN=1 DEVICE=cuda";
    let path = library::require("libtorch-cuda/lib", "libtorch_cuda.so", remedy)?;
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|e| Error::Runtime(e.to_string()))?;
    // Initializes libtorch_cpu.so, on which the library depends.
    tch::get_num_threads();
    // SAFETY: `name` is a C string, and the library's initializers have no preconditions. It is never unloaded.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if !handle.is_null() {
        return Ok(());
    }
    // SAFETY: dlerror returns null or a C string that is valid until the next call of a dl function on this thread.
    let message = unsafe {
        let message = libc::dlerror();
        if message.is_null() { String::new() } else { CStr::from_ptr(message).to_string_lossy().into_owned() }
    };
    Err(Error::Runtime(format!("{message}: {remedy}")))
}
