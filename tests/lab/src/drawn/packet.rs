//! Drawn packets, and who sends them.

use std::net::IpAddr;

use pollux_pair::Seeded;
use serde_json::{Value, json};

use super::policy::pick;

/// Where a packet is sent from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sender {
    /// A host on the LAN.
    Lan,
    /// A host behind an interface that is no port of the gateway.
    Third,
    /// The gateway itself.
    Gateway,
}

impl Sender {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Lan, Self::Third, Self::Gateway];

    /// For tables and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Third => "third",
            Self::Gateway => "gateway",
        }
    }
}

/// How it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A UDP socket.
    Socket,
    /// A raw socket with an IP header of its own.
    Raw,
    /// A packet socket.
    Frame,
}

/// A packet in clear.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Eight characters that every fragment carries.
    pub id: String,
    /// From where.
    pub sender: Sender,
    /// How.
    pub way: Way,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub target: IpAddr,
    /// IP protocol.
    protocol: u8,
    ports: [u16; 2],
    device: &'static str,
    headers: Vec<&'static str>,
    cut: &'static str,
    user: u32,
}

/// A user without rights.
const NOBODY: u32 = 65_534;

/// What the gateway sends from: addresses of its own, inside and outside.
pub const OWN: [&str; 10] = [
    "192.0.2.2",
    "10.1.0.1",
    "10.1.9.1",
    "10.9.0.1",
    "203.0.113.2",
    "2001:db8:a::2",
    "fd01::1",
    "fd01:0:0:9::1",
    "fd09::1",
    "2001:db8:c::2",
];
const LAN_SOURCES: [&str; 4] = ["10.1.0.10", "10.1.0.77", "fd01::10", "fd01::77"];
const THIRD_SOURCES: [&str; 6] =
    ["10.1.9.10", "10.9.0.10", "10.1.0.99", "fd01:0:0:9::10", "fd09::10", "fd01::99"];
/// Destinations inside and outside of the drawn selectors, for many and for one.
const TARGETS: [&str; 14] = [
    "10.2.0.10",
    "10.2.0.77",
    "10.2.7.7",
    "10.3.0.5",
    "198.51.100.77",
    "239.1.2.3",
    "169.254.7.7",
    "fd02::10",
    "fd02::77",
    "fd02:0:0:7::7",
    "fd03::5",
    "2001:db8:b::77",
    "ff0e::1:2",
    "2001:db8:77::7",
];

const PROTOCOLS_V4: [u8; 6] = [17, 17, 6, 1, 132, 50];
const PROTOCOLS_V6: [u8; 6] = [17, 17, 6, 58, 132, 50];
const PORTS: [u16; 5] = [500, 4500, 68, 5060, 16_384];
const HEADERS: [&str; 3] = ["hop", "destination", "routing"];
const CUTS: [&str; 6] = ["whole", "whole", "whole", "first", "later", "big"];

impl Packet {
    /// A packet of this sender.
    pub fn draw(chance: &mut Seeded, sender: Sender, id: String) -> Self {
        let way = match sender {
            Sender::Lan | Sender::Third => Way::Frame,
            Sender::Gateway => pick(chance, &[Way::Socket, Way::Socket, Way::Raw, Way::Frame]),
        };
        let address =
            |text: &str| -> IpAddr { text.parse().unwrap_or_else(|_| unreachable!("`{text}` is one")) };
        let source = address(match sender {
            Sender::Lan => pick(chance, &LAN_SOURCES),
            Sender::Third => pick(chance, &THIRD_SOURCES),
            // Raw sockets may claim to be a host of the LAN.
            Sender::Gateway if way != Way::Socket && chance.below(3) == 0 => pick(chance, &LAN_SOURCES),
            Sender::Gateway => pick(chance, &OWN),
        });
        let target = loop {
            let target = address(pick(chance, &TARGETS));
            if target.is_ipv4() == source.is_ipv4() {
                break target;
            }
        };
        let v4 = source.is_ipv4();
        let made_by_hand = way != Way::Socket;
        let protocol =
            if made_by_hand { pick(chance, if v4 { &PROTOCOLS_V4 } else { &PROTOCOLS_V6 }) } else { 17 };
        let headers = if !v4 && made_by_hand && chance.below(2) == 0 {
            (0..chance.between(1, 3)).map(|at| HEADERS[usize::try_from(at).unwrap_or_default()]).collect()
        } else {
            Vec::new()
        };
        let cut = match pick(chance, &CUTS) {
            "big" if way == Way::Frame => "first",
            "first" | "later" if !made_by_hand => "big",
            // The kernel does not cut what comes with a header of its own.
            "big" if way == Way::Raw => "whole",
            cut => cut,
        };
        let device = match (sender, way) {
            (Sender::Lan | Sender::Third, _) => "eth0",
            (Sender::Gateway, Way::Frame) => pick(chance, &["wan0", "up1"]),
            (Sender::Gateway, _) => pick(chance, &["", "wan0", "up1"]),
        };
        let user = if way == Way::Socket && chance.below(2) == 0 { NOBODY } else { 0 };
        // A port below 1024 is root's.
        let own_port = if user == 0 { pick(chance, &PORTS) } else { pick(chance, &PORTS[1..]).max(4500) };
        let ports = [own_port, pick(chance, &[9, 500, 4500, 67])];
        Self { id, sender, way, source, target, protocol, ports, device, headers, cut, user }
    }

    /// Whether the gateway sends it from an address of its own.
    pub fn is_own(&self) -> bool {
        self.sender == Sender::Gateway && OWN.iter().any(|own| own.parse() == Ok(self.source))
    }

    /// Whether the kernel looks up its route without a source address: a raw socket has none, whatever its packets say.
    pub fn is_unbound(&self) -> bool {
        self.way == Way::Raw
    }

    /// Whether it is what the gateway's own DHCP client sends: excepted by name (docs/guard.md).
    pub fn is_dhcp(&self) -> bool {
        self.is_own() && self.protocol == 17 && self.ports == [68, 67]
    }

    /// As `send.py` reads it; `mac` is the next hop of its frames.
    pub fn json(&self, mac: &str) -> Value {
        json!({
            "id": self.id,
            "way": match self.way { Way::Socket => "socket", Way::Raw => "raw", Way::Frame => "frame" },
            "source": self.source.to_string(),
            "target": self.target.to_string(),
            "protocol": self.protocol,
            "ports": self.ports,
            "device": self.device,
            "mac": mac,
            "headers": self.headers,
            "cut": self.cut,
            "user": self.user,
        })
    }

    /// The device of its frames.
    pub const fn device(&self) -> &'static str {
        self.device
    }

    /// Its kind, for the table of what was covered.
    pub fn kind(&self) -> String {
        let mut kind = self.sender.name().to_owned();
        kind.push_str(match self.way {
            Way::Socket => " socket",
            Way::Raw => " raw",
            Way::Frame => " frame",
        });
        if self.way != Way::Frame && !self.device.is_empty() {
            kind.push_str(" bound to a device");
        }
        if self.user != 0 {
            kind.push_str(" of nobody");
        }
        if self.way == Way::Socket && matches!(self.ports[0], 500 | 4500) {
            kind.push_str(" on an IKE port");
        }
        if self.target.is_multicast() {
            kind.push_str(", multicast");
        } else if self.target == IpAddr::from([169, 254, 7, 7]) {
            kind.push_str(", link-local");
        }
        if self.cut != "whole" {
            kind.push_str(", ");
            kind.push_str(if self.cut == "big" { "fragments" } else { self.cut });
        }
        if !self.headers.is_empty() {
            kind.push_str(", extension headers");
        }
        kind
    }
}
