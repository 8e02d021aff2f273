//! Manifests: CSV files and lists. The first byte selects the extension, which decides the format.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((format, text)) = data.split_first() else { return };
    let name = if format % 2 == 0 { "fuzzed.csv" } else { "fuzzed.txt" };
    fuzz_readers::readers::manifest(&fuzz_readers::file(name, text));
});
