//! kinoprobe-compare
fn main() {}
