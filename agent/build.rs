//! Says how the agent's program is linked: small in memory.

fn main() {
    // The same code of several types becomes one function, and relocations take a few bytes for each 64 pointers: they are
    // read at every start, and stay resident. Needs glibc 2.36.
    println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    println!("cargo::rerun-if-changed=build.rs");
}
