//! kinoprobe-evaluate
fn main() {}
