//! The links of a gateway change while it runs: it follows them, and its SAs stay.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pollux_lab::gateway::{Config, Gateway};
use pollux_lab::netns::{self, End};
use pollux_lab::skip_unless;
use pollux_lab::tunnel::{Tunnel, configs};
use pollux_lab::wait::wait_for;
use pollux_lab::world::{Family, Side, World};

const V4: Family = Family::V4;

/// Two gateways with one tunnel between them.
struct Pair {
    a: Gateway,
    b: Gateway,
    world: World,
}

impl Pair {
    fn new(name: &str) -> Result<Self> {
        Self::with(World::new(name)?, configs(&[Tunnel::new(1, V4, V4)?]))
    }

    fn with(world: World, [config_a, config_b]: [Config; 2]) -> Result<Self> {
        let b = Gateway::start(&world, Side::B, &config_b)?;
        let a = Gateway::start(&world, Side::A, &config_a)?;
        Ok(Self { a, b, world })
    }

    fn ping(&self) -> bool {
        self.world.caller.sh(&format!("ping -c1 -W1 {}", Side::B.host(V4))).is_ok()
    }

    fn works(&self, when: &str) -> Result<()> {
        wait_for("a ping", Duration::from_secs(15), || Ok(self.ping())).map_err(|error| {
            error.context(format!(
                "{when}: {:?} {:?}\n{}\n{}",
                self.a.drops(),
                self.b.drops(),
                self.a.logs(),
                self.b.logs()
            ))
        })
    }

    fn end(&self) -> Result<()> {
        self.a.check_ledger()?;
        self.b.check_ledger()
    }
}

/// The kernel forgets the routes of a device that goes down.
fn restore_default_route(world: &World) -> Result<()> {
    world.gateway_a.ip("route replace default via 192.0.2.1").map(drop)
}

#[test]
fn ports_that_go_down_come_back_with_their_links() -> Result<()> {
    skip_unless!("ip", "ping");
    let pair = Pair::new("lnd")?;
    pair.works("at first")?;
    let gateway = &pair.world.gateway_a;
    for device in ["lan0", "wan0"] {
        gateway.ip(&format!("link set {device} down"))?;
        wait_for("the loss of the link", Duration::from_secs(5), || Ok(!pair.ping()))?;
        gateway.ip(&format!("link set {device} up"))?;
        restore_default_route(&pair.world)?;
        pair.works(&format!("{device} down and up"))?;
    }
    pair.end()
}

#[test]
fn renamed_ports_stay_in_use_and_are_shown_by_their_new_names() -> Result<()> {
    skip_unless!("ip", "ping");
    let pair = Pair::new("lnr")?;
    pair.works("at first")?;
    let gateway = &pair.world.gateway_a;
    gateway.script("ip link set lan0 down && ip link set lan0 name inside && ip link set inside up")?;
    gateway.script("ip link set wan0 down && ip link set wan0 name outside && ip link set outside up")?;
    restore_default_route(&pair.world)?;
    pair.works("renamed")?;
    wait_for("the new names", Duration::from_secs(5), || {
        let ports = pair.a.json("ports")?.to_string();
        Ok(ports.contains("\"inside\"") && ports.contains("\"outside\""))
    })
    .map_err(|error| error.context(format!("{:?}", pair.a.json("ports"))))?;
    pair.end()
}

#[test]
fn recreated_ports_are_taken_again() -> Result<()> {
    skip_unless!("ip", "ping");
    let pair = Pair::new("lnc")?;
    pair.works("at first")?;
    let (gateway, internet) = (&pair.world.gateway_a, &pair.world.internet);
    gateway.ip("link del wan0")?;
    ensure!(!pair.ping(), "a ping crossed without a wan port");
    netns::veth(
        End { netns: gateway, device: "wan0", addresses: &["192.0.2.2/24", "2001:db8:a::2/64"] },
        End { netns: internet, device: "a0", addresses: &["192.0.2.1/24", "2001:db8:a::1/64"] },
    )?;
    restore_default_route(&pair.world)?;
    pair.works("wan recreated")?;
    gateway.ip("link del lan0")?;
    ensure!(!pair.ping(), "a ping crossed without a lan port");
    netns::veth(
        End { netns: &pair.world.caller, device: "eth0", addresses: &["10.1.0.10/24"] },
        End { netns: gateway, device: "lan0", addresses: &["10.1.0.1/24"] },
    )?;
    pair.world.caller.ip("route add default via 10.1.0.1")?;
    pair.works("lan recreated")?;
    pair.end()
}

#[test]
fn a_smaller_mtu_is_told_to_the_sender() -> Result<()> {
    skip_unless!("ip", "ping");
    let pair = Pair::new("lnm")?;
    pair.works("at first")?;
    let unfragmented = |size: usize| {
        pair.world.caller.ip("route flush cache")?;
        pair.world
            .caller
            .script(&format!("ping -c2 -i0.2 -W1 -M do -s{size} {} 2>&1 || true", Side::B.host(V4)))
    };
    // 1,400 octets of IPv4 with ESP around them: 20 + 8 + 8 + padding to 4 + 2 + 16 more.
    ensure!(unfragmented(1372)?.contains(" 0% packet loss"), "{}", unfragmented(1372)?);
    pair.world.gateway_a.ip("link set wan0 mtu 1400")?;
    pair.world.internet.ip("link set a0 mtu 1400")?;
    wait_for("the new number", Duration::from_secs(5), || Ok(unfragmented(1372)?.contains("mtu"))).map_err(
        |error| error.context(format!("{:?} {:?}\n{}", unfragmented(1372), pair.a.drops(), pair.a.logs())),
    )?;
    // What fits 1,400 octets outside: 1,400 - 20 - 8 - 8 - 16 = 1,348, of which the trailer takes 2.
    let text = unfragmented(1372)?;
    ensure!(text.contains("mtu = 1346") || text.contains("mtu=1346"), "{text}");
    ensure!(unfragmented(1346 - 28)?.contains(" 0% packet loss"), "{}", unfragmented(1346 - 28)?);
    pair.end()
}

#[test]
fn esp_for_an_address_is_taken_once_the_gateway_has_the_address() -> Result<()> {
    skip_unless!("ip", "ping");
    let world = World::new("lna")?;
    let moved = configs(&[Tunnel::new(1, V4, V4)?]).map(|mut config| {
        config.tables = config.tables.replace("\"192.0.2.2\"", "\"192.0.2.9\"");
        config
    });
    let pair = Pair::with(world, moved)?;
    ensure!(!pair.ping(), "a ping crossed to an address that nobody has");
    pair.world.gateway_a.ip("addr add 192.0.2.9/24 dev wan0")?;
    pair.works("with the address")?;
    pair.world.gateway_a.ip("addr del 192.0.2.9/24 dev wan0")?;
    wait_for("the loss of the address", Duration::from_secs(5), || Ok(!pair.ping()))?;
    pair.end()
}

#[test]
fn ports_go_by_altnames_and_what_is_no_ethernet_is_refused_by_its_link_type() -> Result<()> {
    skip_unless!("ip", "ping");
    let world = World::new("lnn")?;
    let [mut config, _] = configs(&[Tunnel::new(1, Family::V4, Family::V4)?]);
    world.gateway_a.ip("link property add dev lan0 altname lan-of-the-offices-on-floor-seven")?;
    config.set("lan", "\"lan-of-the-offices-on-floor-seven\"");
    let mut a = Gateway::start(&world, Side::A, &config)?;
    ensure!(a.cli("ports")?.contains("lan0"), "{}", a.cli("ports")?);
    world.caller.sh("ping -c1 -W1 10.2.0.10").err();
    wait_for("a packet from the LAN to be sealed", Duration::from_secs(5), || {
        let _ = world.caller.sh("ping -c1 -W0.1 10.2.0.10");
        let rows = a.json("sas")?;
        Ok(rows.as_array().is_some_and(|rows| rows.iter().any(|row| row["packets"].as_u64() > Some(0))))
    })?;
    a.down()?;
    world.gateway_a.ip("tuntap add tun7 mode tun")?;
    config.set("lan", "\"tun7\"");
    a.configure(&config)?;
    let refused = a.start_dataplane().err().context("a TUN device was taken for a port")?;
    let refused = format!("{refused:#}");
    ensure!(refused.contains("interface tun7 (lan) has the link type none"), "{refused}");
    Ok(())
}

#[test]
fn an_mtu_beyond_what_frames_hold_is_said_at_the_start() -> Result<()> {
    skip_unless!("ip");
    let world = World::new("lnm")?;
    world.gateway_a.ip("link set lan0 mtu 9000")?;
    let [config, _] = configs(&[Tunnel::new(1, Family::V4, Family::V4)?]);
    let a = Gateway::start(&world, Side::A, &config)?;
    let status = a.cli("status")?;
    let row = status.lines().find(|line| line.contains("mtu lan0")).with_context(|| status.clone())?;
    ensure!(row.contains("9000") && row.contains("3826") && row.contains("xsk_rx_dropped"), "{row}");
    ensure!(a.logs().contains("mtu lan0: requested 9000"), "{}", a.logs());
    Ok(())
}
