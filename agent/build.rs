//! Says how the agent's program is linked: small in memory.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=order.ld");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    // Elsewhere the linker is another one, and knows no `--icf`.
    let knows = is("CARGO_CFG_TARGET_ARCH", "x86_64") && is("CARGO_CFG_TARGET_ENV", "gnu");
    if !(knows && is("PROFILE", "release")) {
        return;
    }
    let dir = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    for argument in [
        // The same code of several types becomes one function.
        "-Wl,--icf=all".to_owned(),
        // A few bytes for each 64 pointers: they are read at every start, and stay resident. Needs glibc 2.36.
        "-Wl,-z,pack-relative-relocs".to_owned(),
        // The kernel maps 64 KiB around every byte of a program that is touched.
        format!("-Wl,-T,{dir}/order.ld"),
    ] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
