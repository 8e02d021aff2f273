//! Journals (NAME.h5.partial).
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_readers::readers::journal(data));
