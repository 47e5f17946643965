//! Why a test can't run here, said aloud.

use std::path::Path;

use nix::unistd::Uid;

/// The reason why the privileged tests can't run on this machine, if there is one.
pub fn reason(programs: &[&str]) -> Option<String> {
    if !Uid::effective().is_root() {
        return Some("needs root for network namespaces and AF_XDP".to_owned());
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Some("needs a kernel with BTF".to_owned());
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let found = |program: &&&str| !path.split(':').any(|folder| Path::new(folder).join(program).is_file());
    programs.iter().find(found).map(|program| format!("needs `{program}`, which is not installed"))
}

/// Returns from the test, printing why, where [`reason`] has one.
#[macro_export]
macro_rules! skip_unless {
    ($($program:literal),*) => {
        if let Some(reason) = $crate::skip::reason(&[$($program),*]) {
            println!("skipped: {}: {reason}", module_path!());
            return Ok(());
        }
    };
}
