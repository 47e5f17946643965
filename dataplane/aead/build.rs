//! Which kernels are compiled: all of them, or with `POLLUX_AEAD_KERNELS=native` the fastest that the building machine
//! runs. They are most of the workspace's build time, and a demonstration runs where it was built.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=POLLUX_AEAD_KERNELS");
    println!("cargo::rustc-check-cfg=cfg(kernel, values(\"vaes512\", \"vaes256\", \"aesni\"))");
    let native = std::env::var_os("POLLUX_AEAD_KERNELS").is_some_and(|kernels| kernels == "native");
    let kernels = if native { fastest() } else { &["vaes512", "vaes256", "aesni"] };
    for kernel in kernels {
        println!("cargo::rustc-cfg=kernel=\"{kernel}\"");
    }
}

/// The kernel that the engine `auto` picks here; none where only the portable one runs.
#[cfg(target_arch = "x86_64")]
fn fastest() -> &'static [&'static str] {
    use std::arch::is_x86_feature_detected as has;
    if !(has!("aes") && has!("pclmulqdq") && has!("ssse3") && has!("sse4.1")) {
        return &[];
    }
    let vaes = has!("vaes") && has!("vpclmulqdq") && has!("avx2");
    let avx512 = has!("avx512f")
        && has!("avx512bw")
        && has!("avx512vl")
        && has!("avx512dq")
        && has!("avx512ifma")
        && has!("avx512vbmi2")
        && has!("bmi2");
    match (vaes, avx512) {
        (true, true) => &["vaes512"],
        (true, false) => &["vaes256"],
        (false, _) => &["aesni"],
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn fastest() -> &'static [&'static str] {
    &[]
}
