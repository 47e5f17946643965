//! Drawn policies, and what they say about a packet.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use pollux_pair::Seeded;

use super::packet::Packet;
use crate::gateway::Config;
use crate::tunnel::random_hex;

/// A prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    address: IpAddr,
    len: u8,
}

impl Prefix {
    const fn v4(octets: [u8; 4], len: u8) -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3])), len }
    }

    /// The last octets may be those of a host; all between is 0.
    const fn v6(network: [u16; 4], host: u16, len: u8) -> Self {
        let address = Ipv6Addr::new(network[0], network[1], network[2], network[3], 0, 0, 0, host);
        Self { address: IpAddr::V6(address), len }
    }

    /// Whether it covers the address.
    pub fn covers(self, address: IpAddr) -> bool {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, 32),
            IpAddr::V6(v6) => (u128::from(v6), 128),
        };
        let ((own, width), (other, other_width)) = (bits(self.address), bits(address));
        width == other_width && (self.len == 0 || (own ^ other) >> (128 - u32::from(self.len)) == 0)
    }

    /// Whether it is long enough to name a network, as docs/guard.md has it.
    fn is_narrow(self) -> bool {
        self.len >= if self.address.is_ipv4() { 8 } else { 7 }
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

const LOCALS: [Prefix; 9] = [
    Prefix::v4([10, 1, 0, 0], 16),
    Prefix::v4([10, 1, 0, 0], 24),
    Prefix::v4([10, 1, 9, 0], 24),
    Prefix::v4([10, 0, 0, 0], 9),
    Prefix::v4([0, 0, 0, 0], 0),
    Prefix::v6([0xfd01, 0, 0, 0], 0, 48),
    Prefix::v6([0xfd01, 0, 0, 0], 0, 64),
    Prefix::v6([0xfd01, 0, 0, 9], 0, 64),
    Prefix::v6([0, 0, 0, 0], 0, 0),
];

const REMOTES: [Prefix; 9] = [
    Prefix::v4([10, 2, 0, 0], 16),
    Prefix::v4([10, 2, 0, 0], 24),
    Prefix::v4([10, 2, 0, 10], 32),
    Prefix::v4([198, 51, 100, 64], 26),
    Prefix::v4([0, 0, 0, 0], 0),
    Prefix::v6([0xfd02, 0, 0, 0], 0, 48),
    Prefix::v6([0xfd02, 0, 0, 0], 0, 64),
    Prefix::v6([0xfd02, 0, 0, 0], 0x10, 128),
    Prefix::v6([0, 0, 0, 0], 0, 0),
];

/// What a policy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// ESP or nothing.
    Protect,
    /// Nothing.
    Discard,
    /// In clear.
    Bypass,
}

impl Action {
    const fn name(self) -> &'static str {
        match self {
            Self::Protect => "protect",
            Self::Discard => "discard",
            Self::Bypass => "bypass",
        }
    }
}

/// One entry of the list.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// What it does.
    pub action: Action,
    /// Our side.
    pub local: Prefix,
    /// The peer's.
    pub remote: Prefix,
}

/// What a list of policies says about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It leaves as ESP or not at all.
    Closed,
    /// It leaves as the kernel alone would have it.
    Open,
    /// It may leave in clear, and may be held: a bypass entry that shares its pair with an entry that closes, and what
    /// the exceptions against lock-out let through.
    Either,
}

/// A drawn list of policies.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    list: Vec<Policy>,
}

impl Policies {
    /// One to four entries.
    pub fn draw(chance: &mut Seeded) -> Self {
        let count = chance.between(1, 4);
        let list = (0..count).map(|_| Self::draw_one(chance)).collect();
        Self { list }
    }

    fn draw_one(chance: &mut Seeded) -> Policy {
        let action = match chance.below(10) {
            0 | 1 => Action::Bypass,
            2 => Action::Discard,
            _ => Action::Protect,
        };
        let local = pick(chance, &LOCALS);
        loop {
            let remote = pick(chance, &REMOTES);
            if remote.address.is_ipv4() == local.address.is_ipv4() {
                return Policy { action, local, remote };
            }
        }
    }

    /// Adds them to a configuration, each protect with an SA each way.
    ///
    /// # Errors
    /// If there is no randomness.
    pub fn configure(&self, config: &mut Config) -> Result<()> {
        config.secrets.push_str("[keys]\n");
        for (policy, number) in self.list.iter().zip(1_u32..) {
            let Policy { action, local, remote } = policy;
            let mut table = format!(
                "[[policy]]\nname = \"drawn-{number}\"\naction = \"{}\"\nlocal_ts = \"{local}\"\nremote_ts = \"{remote}\"\n",
                action.name()
            );
            if *action == Action::Protect {
                let _ = writeln!(table, "reqid = {number}");
                for (direction, spi) in [("out", 0x1000 + 2 * number), ("in", 0x1001 + 2 * number)] {
                    let name = format!("drawn-{number}-{direction}");
                    let _ = writeln!(config.secrets, "{name} = \"{}\"", random_hex(20)?);
                    let _ = writeln!(
                        table,
                        "[[sa]]\nname = \"{name}\"\ndirection = \"{direction}\"\nspi = {spi:#x}\nlocal = \"192.0.2.2\"\n\
                         remote = \"198.51.100.2\"\nsuite = \"aes128gcm16\"\nkey = \"{name}\"\nreqid = {number}"
                    );
                }
            }
            config.table(&table);
        }
        Ok(())
    }

    /// The first entry that a packet matches.
    fn first(&self, source: IpAddr, target: IpAddr) -> Option<&Policy> {
        self.list.iter().find(|policy| policy.local.covers(source) && policy.remote.covers(target))
    }

    /// What the list says about a packet; `own` where the gateway sends it from an address of its own.
    pub fn verdict(&self, source: IpAddr, target: IpAddr, own: bool) -> Verdict {
        let Some(policy) = self.first(source, target) else { return Verdict::Open };
        let closes = |policy: &Policy| policy.action != Action::Bypass;
        let named =
            |policy: &Policy| closes(policy) && policy.local.is_narrow() && policy.local.covers(source);
        if policy.action == Action::Bypass {
            // Where an entry that closes has the pair too, a worker has to tell the two apart, and there may be none.
            let covers = |other: &&Policy| other.local.covers(source) && other.remote.covers(target);
            let shared = self.list.iter().filter(covers).any(closes);
            return if shared { Verdict::Either } else { Verdict::Open };
        }
        if own && !policy.remote.is_narrow() && !self.list.iter().any(named) {
            // The operator's SSH. What another entry names as its remote side is nobody's way to the operator.
            let held = self.steers_unbound(target);
            return if held { Verdict::Either } else { Verdict::Open };
        }
        Verdict::Closed
    }

    /// Whether a narrow remote side that closes covers an address: what the gateway sends there without a source address
    /// of its socket takes an inside one, and is steered into `pollux0` (docs/operating.md).
    pub fn steers_unbound(&self, target: IpAddr) -> bool {
        let steers = |policy: &Policy| {
            policy.action != Action::Bypass && policy.remote.is_narrow() && policy.remote.covers(target)
        };
        self.list.iter().any(steers)
    }

    /// The kind of the entry that decides about a packet, for the table of what was covered.
    pub fn kind(&self, packet: &Packet) -> String {
        let family = if packet.source.is_ipv4() { "v4" } else { "v6" };
        let Some(policy) = self.first(packet.source, packet.target) else {
            return format!("{family} no policy");
        };
        let width = |prefix: Prefix| if prefix.is_narrow() { "narrow" } else { "all" };
        format!("{family} {} {}→{}", policy.action.name(), width(policy.local), width(policy.remote))
    }
}

impl std::fmt::Display for Policies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text =
            |Policy { action, local, remote }: &Policy| format!("{} {local} → {remote}", action.name());
        write!(f, "[{}]", self.list.iter().map(text).collect::<Vec<_>>().join("; "))
    }
}

/// One of several.
pub fn pick<T: Copy>(chance: &mut Seeded, of: &[T]) -> T {
    let at = usize::try_from(chance.below(of.len() as u64)).unwrap_or_default();
    of[at]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(Action, Prefix, Prefix)]) -> Policies {
        Policies {
            list: entries.iter().map(|&(action, local, remote)| Policy { action, local, remote }).collect(),
        }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_first_entry_that_matches_decides() {
        let (site, all) = (LOCALS[0], REMOTES[4]);
        let policies = list(&[(Action::Bypass, site, REMOTES[0]), (Action::Protect, site, all)]);
        let verdict = |source: &str, target: &str| policies.verdict(address(source), address(target), false);
        assert_eq!(verdict("10.1.0.10", "10.2.0.10"), Verdict::Either);
        assert_eq!(verdict("10.1.0.10", "10.3.0.10"), Verdict::Closed);
        assert_eq!(verdict("10.9.0.10", "10.3.0.10"), Verdict::Open);
    }

    #[test]
    fn the_gateway_itself_is_not_locked_out_by_selectors_of_everything() {
        let policies = list(&[(Action::Protect, LOCALS[4], REMOTES[4])]);
        assert_eq!(policies.verdict(address("192.0.2.2"), address("10.3.0.1"), true), Verdict::Open);
        assert_eq!(policies.verdict(address("192.0.2.2"), address("10.3.0.1"), false), Verdict::Closed);
        let policies = list(&[(Action::Protect, LOCALS[4], REMOTES[0])]);
        assert_eq!(policies.verdict(address("192.0.2.2"), address("10.2.0.1"), true), Verdict::Closed);
    }
}
