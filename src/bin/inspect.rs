//! kinoprobe-inspect
fn main() {}
