//! Features of other programs: NumPy, Parquet, CSV, MATLAB (version 5) and PyTorch files.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_readers::readers::features(data));
