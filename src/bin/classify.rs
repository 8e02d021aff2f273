//! kinoprobe-classify
fn main() {}
