//! The one corner with `unsafe`: a question that ONNX Runtime answers and `ort` does not yet ask.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::ptr;

use ort::AsPointer;
use ort::session::Session;

/// The execution providers that nodes of the session were given to, without repeats.
///
/// The session must have been built with `session.record_ep_graph_assignment_info=1`.
pub(super) fn assigned_providers(session: &Session) -> Result<Vec<String>, String> {
    let api = ort::api();
    let mut subgraphs: *const *const ort::sys::OrtEpAssignedSubgraph = ptr::null();
    let mut count = 0;
    // SAFETY: the session lives through the call; both outputs are valid for writing.
    check(unsafe { (api.Session_GetEpGraphAssignmentInfo)(session.ptr(), &mut subgraphs, &mut count) })?;
    let mut names: Vec<String> = Vec::new();
    for i in 0..count {
        let mut name = ptr::null();
        // SAFETY: ONNX Runtime gave `count` subgraphs, which the session owns.
        check(unsafe { (api.EpAssignedSubgraph_GetEpName)(*subgraphs.add(i), &mut name) })?;
        // SAFETY: the name is a C string that the session owns.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

fn check(status: ort::sys::OrtStatusPtr) -> Result<(), String> {
    // SAFETY: the status comes from ONNX Runtime and is handed over exactly once.
    unsafe { ort::Error::result_from_status(status) }.map_err(|e| e.to_string())
}
