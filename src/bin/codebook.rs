//! kinoprobe-codebook
fn main() {}
