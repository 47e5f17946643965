//! Compiles the BPF programs with clang; `-g` because the maps are declared in BTF.

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// What is compiled, each to an object of its own.
const PROGRAMS: [&str; 3] = ["steer", "guard", "guard_nf"];
const HEADERS: [&str; 7] =
    ["abi.h", "guard.h", "guard_verdicts.h", "lookup.h", "maps.h", "parse.h", "verdicts.h"];

fn main() {
    for header in HEADERS {
        println!("cargo::rerun-if-changed=bpf/{header}");
    }
    println!("cargo::rerun-if-env-changed=CLANG");
    for program in PROGRAMS {
        println!("cargo::rerun-if-changed=bpf/{program}.bpf.c");
        if let Err(problem) = compile(program) {
            println!("cargo::error=cannot build {program}.bpf.c: {problem}; it needs clang and libbpf-dev");
        }
    }
}

fn compile(program: &str) -> Result<(), String> {
    let variable = |name: &str| env::var(name).map_err(|error| format!("{name}: {error}"));
    let object = PathBuf::from(variable("OUT_DIR")?).join(format!("{program}.o"));
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    // Debian keeps asm/types.h in the multiarch folder, which clang does not search for the BPF target.
    let multiarch = format!("/usr/include/{}-linux-gnu", variable("CARGO_CFG_TARGET_ARCH")?);
    let status = Command::new(&clang)
        .args(["-g", "-O2", "-Wall", "-Wextra", "-Werror", "-target", "bpf", "-mcpu=v3"])
        .args(["-isystem", &multiarch, "-c"])
        .arg(format!("bpf/{program}.bpf.c"))
        .arg("-o")
        .arg(&object)
        .status()
        .map_err(|error| format!("{clang}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{clang} ended with {status}")) }
}
