//! Where the keys come from: IKEv2, or the configuration (`--static`).

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use pollux_lab::capture::{Capture, Frame};
use pollux_lab::gateway::{Config, Gateway};
use pollux_lab::tunnel::{self, Tunnel, random_hex};
use pollux_lab::wait::wait_for;
use pollux_lab::world::{Side, World};

use crate::arguments::Arguments;
use crate::{say, trace};

/// Both gateways' configurations.
pub(crate) struct Configs {
    pub(crate) a: Config,
    pub(crate) b: Config,
}

/// What is said of keying at the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Summary {
    /// `ikev2` or `static`.
    pub(crate) name: &'static str,
    pub(crate) child_rekeys: u64,
    pub(crate) ike_rekeys: u64,
    pub(crate) lost_to_rekey: u64,
    /// Longest silence on the outside around a change of SPI, in microseconds.
    pub(crate) rekey_gap_us: u64,
}

impl Summary {
    /// Lines for the summary in words.
    pub(crate) fn lines(&self) -> Vec<(&'static str, String)> {
        if self.name == "static" {
            return vec![("keying", "static: keys from the configuration".to_owned())];
        }
        vec![(
            "keying",
            format!(
                "IKEv2: {} Child SA and {} IKE SA rekeyed in the middle of the calls; {} packets lost to it; longest gap {} µs",
                self.child_rekeys, self.ike_rekeys, self.lost_to_rekey, self.rekey_gap_us
            ),
        )]
    }
}

/// The configurations that the command line asks for.
pub(crate) fn configs(arguments: &Arguments) -> Result<Configs> {
    if arguments.r#static { static_configs(arguments) } else { ike_configs(arguments) }
}

fn static_configs(arguments: &Arguments) -> Result<Configs> {
    let family = arguments.family();
    let tunnel = Tunnel { esn: true, encap: arguments.udp_encap, ..Tunnel::new(1, family, family)? };
    let [a, b] = tunnel::configs(&[tunnel]);
    Ok(Configs { a, b })
}

fn ike_configs(arguments: &Arguments) -> Result<Configs> {
    let secrets = format!("[psk]\nmedia = \"{}\"\n", random_hex(32)?);
    let config = |side: Side| {
        let mut config = Config { secrets: secrets.clone(), ..Config::default() };
        let family = arguments.family();
        let (local, remote) = (side.outer(family), side.other().outer(family));
        // Behind the NAT, b sees another address, and only a can begin.
        let remote_addrs = if arguments.nat && side == Side::B {
            String::new()
        } else {
            format!("remote_addrs = \"{remote}\"\n")
        };
        let start = if side == Side::A { "start" } else { "none" };
        config.table(&format!(
            "[[connection]]\nname = \"media\"\nlocal_addrs = \"{local}\"\n{remote_addrs}proposals = \"aes128gcm16-prfsha256-x25519\"\npsk = \"media\"\n\
             encap = {encap}\n\n[connection.local]\nid = \"gateway-{me}.example\"\n\n[connection.remote]\nid = \"gateway-{peer}.example\"\n\n\
             [connection.children.media]\nlocal_ts = \"{}\"\nremote_ts = \"{}\"\nesp_proposals = \"aes128gcm16-x25519-esn\"\nstart_action = \"{start}\"\n",
            side.prefix(family),
            side.other().prefix(family),
            encap = arguments.udp_encap,
            me = side.name(),
            peer = side.other().name(),
        ));
        config
    };
    Ok(Configs { a: config(Side::A), b: config(Side::B) })
}

/// Waits until traffic can flow, and shows how it came to that.
pub(crate) fn wait_up(
    arguments: &Arguments,
    a: &Gateway,
    b: &Gateway,
    world: &World,
    handshake: Capture,
) -> Result<()> {
    if !arguments.r#static {
        wait_for("the tunnel to come up", Duration::from_secs(15), || {
            Ok([a, b]
                .iter()
                .all(|gateway| gateway.status().is_ok_and(|status| status["control"]["child_sas"] == 1)))
        })
        .with_context(|| format!("{}\n{}", a.logs(), b.logs()))?;
        say("the handshake, as the outside saw it:");
        for line in trace::lines(&handshake.stop()?) {
            say(&format!("  {line}"));
        }
        say("and as gateway a saw it:");
        for line in a.cli("log")?.lines() {
            say(&format!("  {line}"));
        }
    }
    let target = Side::B.host(arguments.family());
    wait_for("the callee to answer a ping through the tunnel", Duration::from_secs(15), || {
        Ok(world.caller.sh(&format!("ping -c1 -W1 {target}")).is_ok())
    })
    .with_context(|| format!("{:?} {:?}\n{}\n{}", a.drops(), b.drops(), a.logs(), b.logs()))
}

/// Rekeys the Child SA and then the IKE SA while the calls go on.
pub(crate) struct Rekeys {
    due: Vec<(Duration, &'static str)>,
    started: Instant,
}

impl Rekeys {
    pub(crate) fn new(arguments: &Arguments) -> Self {
        let due = if arguments.r#static {
            vec![]
        } else {
            vec![
                (Duration::from_secs(5), "rekey --ike media"),
                (Duration::from_secs(3), "rekey --child media"),
            ]
        };
        Self { due, started: Instant::now() }
    }

    /// Does what has come due.
    pub(crate) fn drive(&mut self, gateway: &Gateway) -> Result<()> {
        if let Some((_, verb)) = self.due.pop_if(|(at, _)| *at <= self.started.elapsed()) {
            say(&format!("pollux {verb}"));
            gateway.cli(verb)?;
        }
        Ok(())
    }
}

/// Reads the counters of keying.
pub(crate) fn summary(arguments: &Arguments, a: &Gateway, b: &Gateway, outside: &[Frame]) -> Result<Summary> {
    if arguments.r#static {
        return Ok(Summary { name: "static", ..Summary::default() });
    }
    let (at_a, at_b) = (a.status()?, b.status()?);
    let count = |key: &str| at_a["control"][key].as_u64().unwrap_or_default();
    let lost_at_b = at_b["control"]["lost_to_rekey"].as_u64().unwrap_or_default();
    Ok(Summary {
        name: "ikev2",
        child_rekeys: count("child_rekeys"),
        ike_rekeys: count("ike_rekeys"),
        lost_to_rekey: count("lost_to_rekey") + lost_at_b,
        rekey_gap_us: rekey_gap_us(outside),
    })
}

/// The longest time between the last packet before a new SPI and that SPI's first packet, in either direction.
fn rekey_gap_us(outside: &[Frame]) -> u64 {
    let mut last: HashMap<IpAddr, (u32, Duration)> = HashMap::new();
    let mut longest = Duration::ZERO;
    for frame in outside {
        let (Some((spi, _)), Some(ip)) = (frame.esp(), frame.ip()) else { continue };
        if let Some((last_spi, time)) = last.insert(ip.source, (spi, frame.time))
            && last_spi != spi
        {
            longest = longest.max(frame.time.saturating_sub(time));
        }
    }
    u64::try_from(longest.as_micros()).unwrap_or(u64::MAX)
}
