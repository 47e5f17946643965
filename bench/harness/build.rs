//! Looks for Intel's library and builds the bridge to it where it is installed.

use std::path::Path;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(ipsec_mb)");
    println!("cargo::rerun-if-changed=src/peer/ipsec_mb.c");
    println!("cargo::rerun-if-changed=/usr/include/intel-ipsec-mb.h");
    let installed = Path::new("/usr/include/intel-ipsec-mb.h").exists();
    if installed && std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("x86_64") {
        println!("cargo::rustc-cfg=ipsec_mb");
        cc::Build::new().file("src/peer/ipsec_mb.c").opt_level(2).compile("pollux_ipsec_mb");
        println!("cargo::rustc-link-lib=IPSec_MB");
    }
}
