//! kinoprobe-extract
fn main() {}
