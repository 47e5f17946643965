//! A tunnel with manual keys between the two gateways of a [`crate::world::World`].

use std::fmt::Write as _;
use std::io::Read;

use anyhow::Result;

use crate::gateway::Config;
use crate::oracle::scapy::Sa;
use crate::world::{Family, Side};

/// One SA each way and the policy for it.
#[derive(Clone, Debug)]
pub struct Tunnel {
    /// Distinguishes tunnels in one configuration; names and reqid come from it.
    pub number: u32,
    /// SPI of the SA from a to b, and from b to a.
    pub spis: [u32; 2],
    /// Suite, as the configuration spells it.
    pub suite: &'static str,
    /// Keys with salt of both SAs, in hexadecimal.
    pub keys: [String; 2],
    /// Extended sequence numbers.
    pub esn: bool,
    /// ESP in UDP.
    pub encap: bool,
    /// Family of the outer addresses.
    pub outer: Family,
    /// What a and b protect.
    pub selectors: [String; 2],
    /// More lines for both `[[sa]]` tables.
    pub more: String,
}

impl Tunnel {
    /// AES-128-GCM between the prefixes of `inner`, with random keys.
    ///
    /// # Errors
    /// If there is no randomness.
    pub fn new(number: u32, inner: Family, outer: Family) -> Result<Self> {
        Ok(Self {
            number,
            spis: [0x1000 + 2 * number, 0x1001 + 2 * number],
            suite: "aes128gcm16",
            keys: [random_hex(20)?, random_hex(20)?],
            esn: false,
            encap: false,
            outer,
            selectors: [Side::A, Side::B].map(|side| side.prefix(inner).to_owned()),
            more: String::new(),
        })
    }

    /// Adds one gateway's end of the tunnel to its configuration.
    pub fn add_to(&self, config: &mut Config, side: Side) {
        let forward = (format!("a-to-b-{}", self.number), self.spis[0], &self.keys[0]);
        let back = (format!("b-to-a-{}", self.number), self.spis[1], &self.keys[1]);
        let [out, inn] = if side == Side::A { [forward, back] } else { [back, forward] };
        if config.secrets.is_empty() {
            config.secrets.push_str("[keys]\n");
        }
        for (direction, (name, spi, key)) in [("out", out), ("in", inn)] {
            let _ = writeln!(config.secrets, "{name} = \"{key}\"");
            config.table(&format!(
                "[[sa]]\nname = \"{name}\"\ndirection = \"{direction}\"\nspi = {spi:#x}\nlocal = \"{}\"\nremote = \"{}\"\n\
                 suite = \"{}\"\nkey = \"{name}\"\nesn = {}\nencap = {}\nreqid = {}\n{}",
                side.outer(self.outer),
                side.other().outer(self.outer),
                self.suite,
                self.esn,
                self.encap,
                self.number,
                self.more
            ));
        }
        let [local, remote] = self.ends(side);
        config.table(&format!(
            "[[policy]]\nname = \"tunnel-{0}\"\naction = \"protect\"\nreqid = {0}\nlocal_ts = \"{local}\"\nremote_ts = \"{remote}\"\n",
            self.number
        ));
    }

    /// Our and the peer's selector, as `side` sees them.
    fn ends(&self, side: Side) -> [&str; 2] {
        let [a, b] = [self.selectors[0].as_str(), self.selectors[1].as_str()];
        if side == Side::A { [a, b] } else { [b, a] }
    }

    /// The SA from `side` to the other, as the oracle is told of it.
    pub fn sa(&self, side: Side, inner: [String; 2], lengths: [u32; 2]) -> Sa {
        let index = usize::from(side == Side::B);
        Sa {
            spi: self.spis[index],
            suite: self.suite,
            key: self.keys[index].clone(),
            esn: self.esn,
            encap: self.encap,
            outer: [side, side.other()].map(|end| end.outer(self.outer).to_string()),
            inner,
            lengths,
        }
    }
}

/// Both gateways' configurations for `tunnels`.
pub fn configs(tunnels: &[Tunnel]) -> [Config; 2] {
    [Side::A, Side::B].map(|side| {
        let mut config = Config::default();
        for tunnel in tunnels {
            tunnel.add_to(&mut config, side);
        }
        config
    })
}

/// Random octets in hexadecimal.
///
/// # Errors
/// If there is no randomness.
pub fn random_hex(octets: usize) -> Result<String> {
    let mut bytes = vec![0; octets];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    Ok(digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect())
}
