//! The command `ring`.
fn main() {}
