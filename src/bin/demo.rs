//! kinoprobe-demo
fn main() {}
