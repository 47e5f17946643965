//! A NAT in front of either initiator, and two clients behind one NAPT.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pollux_lab::capture::{Capture, Kind};
use pollux_lab::flow::{End, Flow};
use pollux_lab::gateway::{Config, Gateway};
use pollux_lab::ike::{Connection, NAME};
use pollux_lab::netns::{self, Netns, veth};
use pollux_lab::peer::strongswan::{Setup, Swan, Version};
use pollux_lab::skip_unless;
use pollux_lab::wait::{sleep, wait_for};
use pollux_lab::world::{Family, Side, World};

use super::{Initiator, Pair};

/// Everything that leaves by `device` gets the router's address and another port.
fn masquerade(router: &Netns, device: &str) -> Result<()> {
    masquerade_to(router, device, "20000-30000")
}

fn masquerade_to(router: &Netns, device: &str, ports: &str) -> Result<()> {
    router.nft(&format!(
        "table ip nat
delete table ip nat
table ip nat {{
  chain post {{
    type nat hook postrouting priority 100;
    oifname \"{device}\" udp sport {{ 500, 4500 }} masquerade to :{ports}
    oifname \"{device}\" masquerade
  }}
}}"
    ))
}

#[test]
fn we_come_up_from_behind_a_nat() -> Result<()> {
    skip_unless!("ip", "ping", "swanctl", "nft", "tcpdump");
    let ours = Connection::new("aes128gcm16-prfsha256-x25519", "aes128gcm16");
    let pair = Pair::start("nau", Version::Trixie, &Connection { any_remote: true, ..ours.clone() })?;
    let mut config = ours.pollux(Side::A, "none");
    config.set_control("keepalive", "\"1s\"");
    pair.a.configure(&config)?;
    pair.a.reload()?;
    masquerade(&pair.world.internet, "b0")?;
    let capture = Capture::start(&pair.world.internet, "b0", pair.world.folder(), "beyond")?;
    pair.initiate(Initiator::Pollux).with_context(|| pair.story())?;
    pair.check_traffic()?;
    let frames = capture.stop()?;
    ensure!(frames.iter().any(|frame| frame.kind() == Kind::EspInUdp), "no ESP in UDP beyond the NAT");
    ensure!(!frames.iter().any(|frame| frame.kind() == Kind::Esp), "raw ESP beyond the NAT");
    let keepalives = frames.iter().filter(|frame| frame.kind() == Kind::Keepalive);
    ensure!(keepalives.count() >= 2, "the NAT is not kept from forgetting us");
    Ok(())
}

#[test]
fn they_come_up_from_behind_a_nat() -> Result<()> {
    skip_unless!("ip", "ping", "swanctl", "nft");
    let connection = Connection::new("aes128gcm16-prfsha256-x25519", "aes128gcm16");
    let pair = Pair::start("nat", Version::Trixie, &connection)?;
    let any = Connection { any_remote: true, ..connection };
    pair.a.configure(&any.pollux(Side::A, "none"))?;
    pair.a.reload()?;
    masquerade(&pair.world.internet, "a0")?;
    pair.initiate(Initiator::Swan).with_context(|| pair.story())?;
    pair.check_traffic()
}

/// Two strongSwans with a network each behind one NAPT, and our gateway, which takes whoever has the key.
struct Napt {
    a: Gateway,
    swans: [Swan; 2],
    /// The second client's gateway and phone; the first one's are gateway b and the callee of the world.
    second: [Netns; 2],
    world: World,
}

/// Hosts behind the two clients.
const PHONES: [&str; 2] = ["10.2.0.10", "10.3.0.10"];
const IKE: &str = "aes128gcm16-prfsha256-x25519";
/// What the router has on our side, and both clients seem to have.
const OUTSIDE: &str = "192.0.2.1";

impl Napt {
    fn start(name: &str) -> Result<Self> {
        let world = World::new(name)?;
        let second = [Netns::new(&world.tag, "gwc")?, Netns::new(&world.tag, "phone")?];
        let [gateway, phone] = &second;
        veth(
            netns::End { netns: phone, device: "eth0", addresses: &["10.3.0.10/24"] },
            netns::End { netns: gateway, device: "lan0", addresses: &["10.3.0.1/24"] },
        )?;
        veth(
            netns::End { netns: gateway, device: "wan0", addresses: &["203.0.113.2/24"] },
            netns::End { netns: &world.internet, device: "c0", addresses: &["203.0.113.1/24"] },
        )?;
        gateway.forward()?;
        gateway.ip("route add default via 203.0.113.1")?;
        phone.ip("route add default via 10.3.0.1")?;
        masquerade(&world.internet, "a0")?;
        let first = Connection::new(IKE, "aes128gcm16").swanctl(Side::B);
        let other = [("198.51.100.2", "203.0.113.2"), ("gateway-b", "gateway-c"), ("10.2.0.0", "10.3.0.0")];
        let next = other.iter().fold(first.clone(), |text, (from, to)| text.replace(from, to));
        let start = |netns: &Netns, name: &str, swanctl: &str| {
            let version = Version::Trixie;
            let setup = Setup { name, version, raw_esp: true, options: "keep_alive = 1", swanctl };
            Swan::start(netns, world.folder(), &setup)
        };
        let swans = [start(&world.gateway_b, "first", &first)?, start(&second[0], "second", &next)?];
        let a = Gateway::start(&world, Side::A, &for_anyone())?;
        let napt = Self { a, swans, second, world };
        for (swan, phone) in napt.swans.iter().zip(PHONES) {
            swan.swanctl(&format!("--initiate --child {NAME} --timeout 15")).with_context(|| napt.story())?;
            napt.reaches(phone)?;
        }
        Ok(napt)
    }

    /// Waits for a ping from our side to a phone.
    fn reaches(&self, phone: &str) -> Result<()> {
        wait_for(&format!("a ping to {phone}"), Duration::from_secs(10), || {
            Ok(self.world.caller.sh(&format!("ping -c1 -W1 {phone}")).is_ok())
        })
        .with_context(|| self.story())
    }

    /// The addresses and ports that our gateway has for the clients, that of the first client first.
    fn remotes(&self) -> Result<Vec<String>> {
        let rows = self.a.json("list-sas")?;
        let mut of_client: Vec<(String, String)> = Vec::new();
        for row in rows.as_array().into_iter().flatten().filter(|row| row["state"] == "ESTABLISHED") {
            let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
            of_client.push((text("remote_id"), text("remote")));
        }
        of_client.sort();
        Ok(of_client.into_iter().map(|(_, remote)| remote).collect())
    }

    /// Flows both ways between our host and each phone of `clients`.
    fn flows(&self, clients: &[usize], seconds: f64) -> Result<Vec<Flow>> {
        let ours = End { netns: &self.world.caller, address: Side::A.host(Family::V4) };
        let mut flows = Vec::new();
        for &client in clients {
            let netns = if client == 0 { &self.world.callee } else { &self.second[1] };
            let address: IpAddr = PHONES[client].parse()?;
            let phone = End { netns, address };
            flows.push(Flow::start(&self.world, ours, phone, 200, seconds)?);
            flows.push(Flow::start(&self.world, phone, ours, 200, seconds)?);
        }
        Ok(flows)
    }

    fn whole(&self, flows: Vec<Flow>) -> Result<()> {
        for flow in flows {
            let outcome = flow.finish()?;
            let whole = outcome.lost() == 0 && outcome.duplicates == 0 && outcome.received > 100;
            ensure!(whole, "{outcome:?}\n{}", self.story());
        }
        Ok(())
    }

    /// The router gives every flow another port from here on.
    fn rebind(&self, ports: &str) -> Result<()> {
        masquerade_to(&self.world.internet, "a0", ports)?;
        // IPCTNL_MSG_CT_DELETE without a tuple: every entry of this namespace goes.
        let flush = "import socket,struct\n\
            s=socket.socket(socket.AF_NETLINK,socket.SOCK_RAW,12); s.bind((0,0))\n\
            s.send(struct.pack('=IHHIIBBH',20,0x102,5,1,0,2,0,0))\n\
            e=struct.unpack_from('=i',s.recv(4096),16)[0]; assert e==0,e";
        pollux_lab::command::run(self.world.internet.command("/usr/bin/python3").args(["-c", flush]))?;
        Ok(())
    }

    fn story(&self) -> String {
        let tail = |swan: &Swan| {
            let log = swan.log();
            let lines: Vec<&str> = log.lines().collect();
            lines[lines.len().saturating_sub(25)..].join("\n")
        };
        let [first, second] = self.swans.each_ref().map(tail);
        let sas = self.a.cli("list-sas").unwrap_or_default();
        format!("{sas}\n{}\n{:?}\nfirst:\n{first}\nsecond:\n{second}", self.a.logs(), self.a.drops())
    }
}

/// A connection for every client, whatever its address.
fn for_anyone() -> Config {
    let mut config = Config {
        secrets: "[psk]\nclients = \"correct horse battery staple\"\n".to_owned(),
        ..Config::default()
    };
    config.table(&format!(
        "[[connection]]\nname = \"{NAME}\"\nlocal_addrs = \"{}\"\nproposals = \"{IKE}\"\npsk = \"clients\"\n\n\
         [connection.local]\nid = \"gateway-a.example\"\n\n[connection.remote]\nid = \"*.example\"\n\n\
         [connection.children.{NAME}]\nlocal_ts = \"10.1.0.0/16\"\nremote_ts = \"10.2.0.0/15\"\nesp_proposals = \"aes128gcm16\"\n",
        Side::A.outer(Family::V4)
    ));
    config
}

#[test]
fn two_clients_behind_one_napt_stay_apart() -> Result<()> {
    skip_unless!("ip", "ping", "swanctl", "nft");
    let napt = Napt::start("npt")?;
    let remotes = napt.remotes()?;
    let ports: BTreeSet<&String> = remotes.iter().collect();
    ensure!(ports.len() == 2 && remotes.iter().all(|remote| remote.starts_with(OUTSIDE)), "{remotes:?}");
    // Each is rekeyed by either side, its Child SA and its IKE SA, while datagrams go both ways.
    let flows = napt.flows(&[0, 1], 7.0)?;
    sleep(Duration::from_secs(1))?;
    napt.a.cli(&format!("rekey --child {NAME}")).with_context(|| napt.story())?;
    sleep(Duration::from_secs(1))?;
    napt.a.cli(&format!("rekey --ike {NAME}")).with_context(|| napt.story())?;
    for what in ["child", "ike"] {
        for swan in &napt.swans {
            sleep(Duration::from_secs(1))?;
            swan.swanctl(&format!("--rekey --{what} {NAME}")).with_context(|| napt.story())?;
        }
    }
    napt.whole(flows)?;
    let control = napt.a.status()?["control"].clone();
    ensure!(control["child_rekeys"] == 4 && control["ike_rekeys"] == 4, "{control}\n{}", napt.story());
    ensure!(napt.remotes()? == remotes, "{:?} were {remotes:?}", napt.remotes()?);
    // One hangs up; the other does not notice.
    let flows = napt.flows(&[1], 3.0)?;
    napt.swans[0].swanctl(&format!("--terminate --ike {NAME} --timeout 5")).with_context(|| napt.story())?;
    wait_for("one client to be gone", Duration::from_secs(5), || Ok(napt.remotes()? == remotes[1..]))
        .with_context(|| napt.story())?;
    napt.whole(flows)?;
    ensure!(napt.world.caller.sh(&format!("ping -c1 -W1 {}", PHONES[0])).is_err(), "answered in clear?");
    napt.a.check_ledger()
}

#[test]
fn clients_whose_nat_gives_them_other_ports_are_followed() -> Result<()> {
    skip_unless!("ip", "ping", "swanctl", "nft");
    let napt = Napt::start("nmv")?;
    let before = napt.remotes()?;
    napt.rebind("40000-50000")?;
    // The first client's ESP shows its new port; the second one is heard by a message of IKE alone.
    wait_for("the first client to be answered", Duration::from_secs(10), || {
        Ok(napt.world.callee.sh(&format!("ping -c1 -W1 {}", Side::A.host(Family::V4))).is_ok())
    })
    .with_context(|| napt.story())?;
    napt.swans[1].swanctl(&format!("--rekey --ike {NAME}")).with_context(|| napt.story())?;
    wait_for("both clients to be followed", Duration::from_secs(10), || {
        let now = napt.remotes()?;
        Ok(now.len() == 2 && now.iter().zip(&before).all(|(now, before)| now != before))
    })
    .with_context(|| format!("they were {before:?}\n{}", napt.story()))?;
    let after = napt.remotes()?;
    let moved = after.iter().all(|remote| {
        let port = remote.strip_prefix(OUTSIDE).and_then(|port| port.strip_prefix(':')?.parse::<u16>().ok());
        port.is_some_and(|port| (40_000..=50_000).contains(&port))
    });
    ensure!(moved, "{before:?} became {after:?}");
    for phone in PHONES {
        napt.reaches(phone)?;
    }
    // Our own requests reach them, too.
    napt.a.cli(&format!("rekey --child {NAME}")).with_context(|| napt.story())?;
    napt.a.cli(&format!("rekey --ike {NAME}")).with_context(|| napt.story())?;
    napt.whole(napt.flows(&[0, 1], 2.0)?)?;
    napt.a.check_ledger()
}

#[test]
fn clients_lose_nothing_while_control_is_restarted_and_come_back_when_they_like() -> Result<()> {
    skip_unless!("ip", "ping", "swanctl", "nft");
    let mut napt = Napt::start("nrs")?;
    let flows = napt.flows(&[0, 1], 6.0)?;
    sleep(Duration::from_secs(1))?;
    napt.a.kill_control()?;
    sleep(Duration::from_secs(1))?;
    napt.a.start_control()?;
    // Nobody can begin but the clients, who have noticed nothing: their old SAs go on.
    napt.whole(flows)?;
    ensure!(napt.remotes()?.is_empty(), "IKE SAs out of nothing\n{}", napt.story());
    napt.swans[0].try_swanctl(&format!("--terminate --ike {NAME} --force --timeout 2"))?;
    napt.swans[0]
        .swanctl(&format!("--initiate --child {NAME} --timeout 15"))
        .with_context(|| napt.story())?;
    for phone in PHONES {
        napt.reaches(phone)?;
    }
    ensure!(napt.remotes()?.len() == 1, "{:?}\n{}", napt.remotes()?, napt.story());
    napt.whole(napt.flows(&[0, 1], 2.0)?)?;
    napt.a.check_ledger()
}
