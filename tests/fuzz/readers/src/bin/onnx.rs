//! ONNX files: their external data; for the native kernels, reading, planning, and one run.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_readers::readers::onnx(&fuzz_readers::file("fuzzed.onnx", data)));
