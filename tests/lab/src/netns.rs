//! Network namespaces and the links between them.

use std::process::Command;

use anyhow::Result;

use crate::command::{output, run, sh};

/// A named network namespace; deleted, with its links, when dropped.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes `<tag>-<role>`, where `tag` is unique to the run.
    ///
    /// # Errors
    /// If `ip netns add` fails.
    pub fn new(tag: &str, role: &str) -> Result<Self> {
        let name = format!("{tag}-{role}");
        sh(&format!("ip netns add {name}"))?;
        let netns = Self { name };
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// The name that `ip netns` knows.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs a command line inside, arguments separated by white space.
    ///
    /// # Errors
    /// As [`run`].
    pub fn sh(&self, line: &str) -> Result<String> {
        sh(&format!("ip netns exec {} {line}", self.name))
    }

    /// Runs a shell script inside.
    ///
    /// # Errors
    /// As [`run`].
    pub fn script(&self, script: &str) -> Result<String> {
        run(self.command("sh").args(["-ec", script]))
    }

    /// `ip -n NAME …`.
    ///
    /// # Errors
    /// As [`run`].
    pub fn ip(&self, line: &str) -> Result<String> {
        sh(&format!("ip -n {} {line}", self.name))
    }

    /// Sets a sysctl inside.
    ///
    /// # Errors
    /// As [`run`].
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.sh(&format!("sysctl -qw {key}={value}")).map(drop)
    }

    /// Makes it a router for IPv4 and IPv6.
    ///
    /// # Errors
    /// As [`run`].
    pub fn forward(&self) -> Result<()> {
        self.sysctl("net.ipv4.ip_forward", "1")?;
        self.sysctl("net.ipv6.conf.all.forwarding", "1")
    }

    /// Loads an nftables ruleset.
    ///
    /// # Errors
    /// As [`run`].
    pub fn nft(&self, ruleset: &str) -> Result<()> {
        self.script(&format!("nft -f - <<'RULES'\n{ruleset}\nRULES")).map(drop)
    }

    /// The packets that the named nftables counter has counted; 0 where there is none.
    pub fn nft_counter(&self, name: &str) -> u64 {
        let text = self.sh("nft list counters").unwrap_or_default();
        let Some((_, rest)) = text.split_once(&format!("counter {name} ")) else { return 0 };
        let words: Vec<&str> = rest.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "packets");
        at.and_then(|at| words.get(at + 1)).and_then(|count| count.parse().ok()).unwrap_or_default()
    }

    /// A counter of `/proc/net/snmp`, such as `Udp` `InCsumErrors`.
    pub fn snmp(&self, protocol: &str, counter: &str) -> u64 {
        let text = self.sh("cat /proc/net/snmp").unwrap_or_default();
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(&format!("{protocol}: ")));
        let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return 0 };
        let found = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == counter);
        found.and_then(|(_, value)| value.parse().ok()).unwrap_or_default()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = output(Command::new("ip").args(["netns", "del", &self.name]));
    }
}

/// One end of a veth pair.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Where it lives.
    pub netns: &'a Netns,
    /// Its name.
    pub device: &'a str,
    /// Its addresses with prefix lengths.
    pub addresses: &'a [&'a str],
}

/// Joins two namespaces by a veth pair with addresses, up on both ends.
///
/// # Errors
/// If `ip` refuses.
pub fn veth(a: End<'_>, b: End<'_>) -> Result<()> {
    veth_with_queues(a, b, 1)
}

/// A veth pair with so many receive and transmit queues on both ends.
///
/// # Errors
/// If `ip` refuses.
pub fn veth_with_queues(a: End<'_>, b: End<'_>, queues: u16) -> Result<()> {
    let size = format!("numrxqueues {queues} numtxqueues {queues}");
    sh(&format!(
        "ip link add {} netns {} {size} type veth peer name {} netns {} {size}",
        a.device, a.netns.name, b.device, b.netns.name
    ))?;
    for end in [a, b] {
        for address in end.addresses {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            end.netns.ip(&format!("addr add {address} dev {} {nodad}", end.device))?;
        }
        end.netns.ip(&format!("link set {} up", end.device))?;
    }
    Ok(())
}
