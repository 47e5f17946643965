//! A virtual machine with Debian's kernel: ESP that Linux wrote.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{cached, recipe};
use crate::command::run;
use crate::netns::Netns;

/// A running guest on a tap; powered off when dropped.
#[derive(Debug)]
pub struct Vm {
    socket: PathBuf,
}

impl Vm {
    /// Boots a guest with one NIC on `tap`, which is made in `netns` and has no address yet. The guest's end is `eth0`.
    ///
    /// # Errors
    /// If the image is missing or the guest does not answer.
    pub fn start(netns: &Netns, tap: &str, folder: &Path) -> Result<Self> {
        let image = cached("vm-trixie")?;
        netns.ip(&format!("tuntap add {tap} mode tap"))?;
        netns.ip(&format!("link set {tap} up"))?;
        let socket = folder.join("vm");
        let mut command = netns.command(recipe("vm.py").to_str().context("a path in UTF-8")?);
        command.arg("start").arg(&socket).arg(image).arg("--nic").arg(tap);
        run(&mut command)?;
        let vm = Self { socket };
        // Without this, frames that XDP sees carry half-made checksums.
        vm.sh("ip link set eth0 up; ethtool -K eth0 tx off >/dev/null")?;
        vm.sh("modprobe -a esp4 esp6 xfrm_user aesni_intel ghash_clmulni_intel")?;
        Ok(vm)
    }

    /// Runs a shell script in the guest.
    ///
    /// # Errors
    /// If it fails; the error holds its output.
    pub fn sh(&self, script: &str) -> Result<String> {
        run(Command::new(recipe("vm.py")).arg("exec").arg(&self.socket).arg(script))
    }

    /// Writes a file in the guest.
    ///
    /// # Errors
    /// If that fails.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let local = self.socket.with_extension("put");
        std::fs::write(&local, text)?;
        run(Command::new(recipe("vm.py")).arg("put").arg(&self.socket).arg(&local).arg(path)).map(drop)
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = run(Command::new(recipe("vm.py")).arg("stop").arg(&self.socket));
    }
}
