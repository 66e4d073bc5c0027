//! Entry point of `steward`.

fn main() {}
