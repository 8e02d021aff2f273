//! Model cards (models/*.toml).
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_readers::readers::card(&fuzz_readers::file("fuzzed.toml", data)));
