//! Entry point of `steward-agent`.

fn main() {}
