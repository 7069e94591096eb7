//! Placeholder until the program is wired.
fn main() {}
