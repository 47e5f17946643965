//! Compiles the XDP program with clang; `-g` because the maps are declared in BTF.

use std::env;
use std::path::PathBuf;
use std::process::Command;

const SOURCES: [&str; 5] = ["steer.bpf.c", "abi.h", "maps.h", "parse.h", "verdicts.h"];

fn main() {
    for source in SOURCES {
        println!("cargo::rerun-if-changed=bpf/{source}");
    }
    println!("cargo::rerun-if-env-changed=CLANG");
    if let Err(problem) = compile() {
        println!("cargo::error=cannot build the XDP program: {problem}; it needs clang and libbpf-dev");
    }
}

fn compile() -> Result<(), String> {
    let variable = |name: &str| env::var(name).map_err(|error| format!("{name}: {error}"));
    let object = PathBuf::from(variable("OUT_DIR")?).join("steer.o");
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    // Debian keeps asm/types.h in the multiarch folder, which clang does not search for the BPF target.
    let multiarch = format!("/usr/include/{}-linux-gnu", variable("CARGO_CFG_TARGET_ARCH")?);
    let status = Command::new(&clang)
        .args(["-g", "-O2", "-Wall", "-Wextra", "-Werror", "-target", "bpf", "-mcpu=v3"])
        .args(["-isystem", &multiarch, "-c", "bpf/steer.bpf.c", "-o"])
        .arg(&object)
        .status()
        .map_err(|error| format!("{clang}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{clang} ended with {status}")) }
}
