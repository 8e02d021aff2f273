//! Flags of the programs that decode clips.

use crate::value_parsers;

/// Resources of decoding.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct DecodingFlags {
    /// Number of decode threads [default: depends on the number of cores and the device]
    #[arg(long, value_parser = value_parsers::between(1, value_parsers::MAX_THREADS))]
    pub workers: Option<usize>,
    /// Memory that the decode threads share, such as 8G or 512M; huge frames wait for it [default: half of the available memory]
    #[arg(long, value_name = "BYTES", value_parser = value_parsers::bytes)]
    pub memory: Option<u64>,
}
