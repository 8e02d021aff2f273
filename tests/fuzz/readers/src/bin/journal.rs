//! Journals (NAME.h5.partial).
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_readers::readers::journal(&fuzz_readers::file(
    "fuzzed.h5.partial",
    data
)));
