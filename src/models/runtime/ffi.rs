//! Bindings to functions of ONNX Runtime that `ort` does not wrap yet.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::ptr;

use ort::AsPointer;
use ort::session::Session;

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

fn check(status: ort::sys::OrtStatusPtr) -> Result<(), String> {
    // SAFETY: the status comes from ONNX Runtime and is consumed exactly once.
    unsafe { ort::Error::result_from_status(status) }.map_err(|e| e.to_string())
}
