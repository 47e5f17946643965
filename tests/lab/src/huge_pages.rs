//! Huge pages for the gateways' UMEM, given back afterwards.

use std::fs;

use anyhow::{Context, Result};

const KNOB: &str = "/proc/sys/vm/nr_hugepages";

/// Pages of 2 MiB that were added to the kernel's pool; taken out of it again when dropped.
#[derive(Debug)]
pub struct HugePages {
    added: u64,
}

impl HugePages {
    /// Asks for so many pages more than there are; a kernel whose memory is in pieces gives fewer, which is no error:
    /// what lacks them says so and falls back.
    ///
    /// # Errors
    /// If the kernel has no huge pages, or refuses to be asked.
    pub fn add(pages: u64) -> Result<Self> {
        let before = pool()?;
        fs::write(KNOB, (before + pages).to_string()).with_context(|| format!("writing {KNOB}"))?;
        Ok(Self { added: pool()?.saturating_sub(before) })
    }

    /// How many were got.
    pub fn added(&self) -> u64 {
        self.added
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        if let Ok(pages) = pool() {
            let _ = fs::write(KNOB, pages.saturating_sub(self.added).to_string());
        }
    }
}

fn pool() -> Result<u64> {
    let text = fs::read_to_string(KNOB).with_context(|| format!("reading {KNOB}"))?;
    text.trim().parse().with_context(|| format!("{KNOB} says `{}`", text.trim()))
}
