//! Checkpoints: PyTorch's zip and legacy formats with their pickles, and safetensors.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_readers::readers::checkpoint(&fuzz_readers::file("fuzzed.pth", data)));
