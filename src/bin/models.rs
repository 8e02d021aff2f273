//! kinoprobe-models
fn main() {}
