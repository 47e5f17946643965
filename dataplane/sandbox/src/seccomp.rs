//! What a thread may ask of the kernel: a list of system calls, each with its reason. Anything else fails with
//! `EPERM`.
//!
//! The list is Rust, not a file: the reason is a field that can't be left out, and the numbers come from `libc`.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};
use thiserror::Error;

/// Why a thread could not be confined. What it is to do must not begin then.
#[derive(Debug, Error)]
pub enum SeccompError {
    /// The filter could not be made or put in force.
    #[error(transparent)]
    Filter(#[from] seccompiler::Error),
    /// The filter could not be made.
    #[error(transparent)]
    Backend(#[from] seccompiler::BackendError),
}

/// A system call that a thread makes, and why.
pub type Allowed = (i64, &'static str);

/// All that a thread may ask.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// With any arguments.
    pub calls: &'static [Allowed],
    /// Only without `PROT_EXEC`, their third argument.
    pub without_exec: &'static [Allowed],
}

impl Rules {
    /// Confines the calling thread, and the threads that it starts, for good. It needs `no_new_privs`, or the
    /// right to do without.
    ///
    /// # Errors
    /// If the kernel does not take the filter.
    pub fn confine(self) -> Result<(), SeccompError> {
        Ok(apply_filter(&self.filter()?)?)
    }

    /// System calls that are listed twice, or whose reason is none: a test of each list wants it empty.
    pub fn faults(self) -> Vec<Allowed> {
        let mut seen = BTreeMap::new();
        let listed = self.calls.iter().chain(self.without_exec).copied();
        listed.filter(|&(number, reason)| seen.insert(number, reason).is_some() || reason.len() < 5).collect()
    }

    fn filter(self) -> Result<BpfProgram, SeccompError> {
        let no_exec = SeccompCondition::new(
            2,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::MaskedEq(u64::from(libc::PROT_EXEC.unsigned_abs())),
            0,
        )?;
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
            self.calls.iter().map(|&(number, _)| (number, Vec::new())).collect();
        for &(number, _) in self.without_exec {
            rules.insert(number, vec![SeccompRule::new(vec![no_exec.clone()])?]);
        }
        let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
        let arch = std::env::consts::ARCH.try_into()?;
        Ok(SeccompFilter::new(rules, refuse, SeccompAction::Allow, arch)?.try_into()?)
    }
}
