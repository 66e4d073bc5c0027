//! Says how the agent's program is linked: small in memory.
//!
//! It knows what `order.txt` names, and not why; that is for `.ci/order`.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{self, Error},
    path::Path,
};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=order.txt");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    // Elsewhere the linker is another one, and knows no `--icf`.
    let knows = is("CARGO_CFG_TARGET_ARCH", "x86_64") && is("CARGO_CFG_TARGET_ENV", "gnu");
    if !(knows && is("PROFILE", "release")) {
        return Ok(());
    }
    let dir = env::var("CARGO_MANIFEST_DIR").map_err(Error::other)?;
    let order = format!("{dir}/order.txt");
    let script = Path::new(&env::var("OUT_DIR").map_err(Error::other)?).join("order.ld");
    fs::write(&script, sections(&fs::read_to_string(&order)?))?;
    for argument in [
        // The same code of several types becomes one function.
        "-Wl,--icf=all".to_owned(),
        // A few bytes for each 64 pointers: they are read at every start, and stay resident. Needs glibc 2.36.
        "-Wl,-z,pack-relative-relocs".to_owned(),
        // The kernel maps 64 KiB around every byte of a program that is touched: what runs until an idle agent is welcomed
        // stands side by side.
        format!("-Wl,-T,{}", script.display()),
        format!("-Wl,--symbol-ordering-file={order}"),
        "-Wl,--no-warn-symbol-ordering".to_owned(),
    ] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    Ok(())
}

/// Returns a linker script that puts the functions named first. With another compiler or library a name has another end, and
/// each stands for all functions that are called so but for that; the linker orders those it knows exactly in front of them.
fn sections(order: &str) -> String {
    let patterns: BTreeSet<String> = order.lines().map(pattern).collect();
    let mut script = "SECTIONS {\n  .text.first : {\n    *(\n".to_owned();
    for pattern in patterns {
        script += &format!("      .text.{pattern}\n");
    }
    script + "    )\n  }\n}\nINSERT BEFORE .text;\n"
}

/// Returns a name without what changes with every version of a compiler or a library.
fn pattern(name: &str) -> String {
    let name = name.split(".llvm.").next().unwrap_or_default();
    if let Some((path, hash)) = name.rsplit_once("17h")
        && hash.len() == "0123456789abcdefE".len()
    {
        return format!("{path}17h*");
    }
    let mut parts = name.split("Cs");
    let mut pattern = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (between, rest) = match part.split_once('_') {
            Some((hash, rest)) if hash.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                ("Cs*_", rest)
            }
            _ => ("Cs", part),
        };
        pattern += between;
        pattern += rest;
    }
    pattern
}
