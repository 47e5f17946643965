//! strongSwan in a network namespace, with ESP in user space (its `kernel-libipsec` plugin).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{cached, recipe};
use crate::command::{output, run};
use crate::netns::Netns;
use crate::process::Process;
use crate::wait::wait_for;

/// Which strongSwan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 5.9.8, Debian 12's own package; ESP in UDP only.
    Host,
    /// 6.0.1, from a tree of Debian 13; raw ESP too.
    Trixie,
}

/// How one charon is set up.
#[derive(Clone, Debug)]
pub struct Setup<'a> {
    /// Distinguishes instances in one folder.
    pub name: &'a str,
    /// Which strongSwan.
    pub version: Version,
    /// Raw ESP instead of UDP encapsulation by force (6.0.1).
    pub raw_esp: bool,
    /// More lines for its `charon-systemd` section.
    pub options: &'a str,
    /// The whole swanctl.conf.
    pub swanctl: &'a str,
}

/// A running charon with its own configuration, socket and log.
#[derive(Debug)]
pub struct Swan {
    process: Process,
    netns: String,
    root: PathBuf,
    folder: PathBuf,
}

const PLUGINS: &str = "random nonce drbg pem pkcs1 pkcs7 pkcs8 pkcs12 x509 pubkey revocation constraints openssl ml \
    aes sha1 sha2 md5 mgf1 hmac cmac xcbc kdf gcm ccm ctr chapoly curve25519 gmp kernel-libipsec kernel-netlink \
    socket-default updown vici eap-identity eap-md5 eap-mschapv2 counters error-notify";

impl Swan {
    /// Starts charon in `netns` and loads its configuration.
    ///
    /// # Errors
    /// If the tree is missing, charon does not start, or swanctl refuses the configuration.
    pub fn start(netns: &Netns, folder: &Path, setup: &Setup<'_>) -> Result<Self> {
        let root = match setup.version {
            Version::Host => PathBuf::from("/"),
            Version::Trixie => cached("root-trixie")?,
        };
        let own = folder.join(setup.name);
        std::fs::create_dir_all(own.join("swanctl"))?;
        std::fs::write(own.join("swanctl/swanctl.conf"), setup.swanctl)?;
        std::fs::write(own.join("strongswan.conf"), configuration(&own, setup))?;
        std::fs::write(own.join("empty.conf"), "")?;
        let mut command = in_root(netns.name(), &root, &own, "charon-systemd");
        command.env("STRONGSWAN_CONF", own.join("strongswan.conf"));
        let process = Process::start(setup.name, &mut command, &own.join("out.log"))?;
        let mut swan = Self { process, netns: netns.name().to_owned(), root, folder: own };
        let socket = swan.folder.join("vici");
        wait_for("charon's socket", Duration::from_secs(15), || {
            Ok(socket.exists() || !swan.process.is_running())
        })?;
        swan.swanctl("--load-all").with_context(|| swan.log())?;
        Ok(swan)
    }

    /// Runs swanctl against this charon.
    ///
    /// # Errors
    /// If swanctl fails.
    pub fn swanctl(&self, arguments: &str) -> Result<String> {
        run(&mut self.swanctl_command(arguments))
    }

    /// Runs swanctl, whatever it returns.
    ///
    /// # Errors
    /// If swanctl can't be started.
    pub fn try_swanctl(&self, arguments: &str) -> Result<String> {
        let output = output(&mut self.swanctl_command(arguments))?;
        Ok(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
    }

    /// charon's log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("charon.log")).unwrap_or_default()
    }

    /// Kills it, so that the peer finds out by itself.
    ///
    /// # Errors
    /// If it is gone already.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    fn swanctl_command(&self, arguments: &str) -> Command {
        let mut command = in_root(&self.netns, &self.root, &self.folder, "swanctl");
        command.args(arguments.split_whitespace());
        command.arg("--uri").arg(format!("unix://{}", self.folder.join("vici").display()));
        command.env("SWANCTL_DIR", self.folder.join("swanctl"));
        command.env("STRONGSWAN_CONF", self.folder.join("empty.conf"));
        command
    }
}

fn in_root(netns: &str, root: &Path, folder: &Path, program: &str) -> Command {
    let mut command = Command::new(recipe("inroot.sh"));
    command.arg(netns).arg(root).arg(folder).arg(program);
    command
}

fn configuration(folder: &Path, setup: &Setup<'_>) -> String {
    let folder = folder.display();
    let raw_esp = if setup.raw_esp { "yes" } else { "no" };
    let options = setup.options;
    format!(
        "charon-systemd {{
  load = {PLUGINS}
  retransmit_tries = 3
  retransmit_timeout = 1
  filelog {{ l {{ path = {folder}/charon.log
    default = 1
    ike = 2
    chd = 2
    flush_line = yes
  }} }}
  {options}
  plugins {{
    vici {{ socket = unix://{folder}/vici }}
    kernel-libipsec {{ load = 100
      raw_esp = {raw_esp} }}
  }}
}}
"
    )
}
