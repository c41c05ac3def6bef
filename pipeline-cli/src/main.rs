//! (In work.)
fn main() {}
