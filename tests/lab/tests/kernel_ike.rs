//! IKEv2 with peers whose ESP Linux does: strongSwan and libreswan in a VM, in both roles; one boot for all cases.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pollux_lab::capture::Capture;
use pollux_lab::command::echoes;
use pollux_lab::gateway::{Config, Gateway};
use pollux_lab::ike::{Connection, NAME};
use pollux_lab::oracle::tshark::{self, Keys};
use pollux_lab::peer::libreswan::{Pluto, Proposals};
use pollux_lab::peer::vm::Vm;
use pollux_lab::skip_unless;
use pollux_lab::wait::wait_for;
use pollux_lab::world::{Family, Side, World};

const GUEST: &str = "203.0.113.2";
const HOST: &str = "10.2.0.10";
const IKE: &str = "aes128gcm16-prfsha256-x25519";

/// strongSwan with the kernel's ESP.
const CHARON: &str = "charon-systemd {
  load = random nonce pem pkcs1 pkcs8 x509 pubkey constraints openssl sha1 sha2 hmac kdf gcm curve25519 \
    kernel-netlink socket-default updown vici counters
  retransmit_timeout = 1
  retransmit_tries = 3
  filelog { l { path = /tmp/charon.log
    default = 1
    ike = 2
    flush_line = yes
  } }
}
";

const START: &str = "setsid charon-systemd >/tmp/out 2>&1 </dev/null &
for i in $(seq 100); do [ -S /run/charon.vici ] && break; sleep .1; done
swanctl --load-all";

/// Raw with extended sequence numbers, in UDP without, and CBC with perfect forward secrecy.
fn cases() -> [(Connection, bool); 3] {
    let case = |esp, encap| Connection { encap, ..Connection::new(IKE, esp) };
    [
        (case("aes128gcm16-esn", false), true),
        (case("aes256gcm16-noesn", true), false),
        (case("aes256-sha256-x25519", false), false),
    ]
}

/// Pollux, and the machine that its peers run in.
struct Lab {
    a: Gateway,
    vm: Vm,
    world: World,
}

#[test]
fn linux_carries_what_strongswan_or_libreswan_and_we_agree_on_in_both_roles() -> Result<()> {
    skip_unless!("ip", "ping", "qemu-system-x86_64", "tcpdump", "tshark");
    let world = World::new("kik")?;
    let vm = Vm::start(&world.internet, "t0", world.folder())?;
    world.internet.ip("addr add 203.0.113.1/24 dev t0")?;
    vm.sh(&format!("ip addr add {GUEST}/24 dev eth0; ip addr add {HOST}/32 dev lo"))?;
    vm.sh("ip route add default via 203.0.113.1")?;
    let [(first, _), ..] = cases();
    let lab = Lab { a: Gateway::start(&world, Side::A, &ours(&first))?, vm, world };
    strongswan(&lab).with_context(|| lab.story("/tmp/charon.log"))?;
    libreswan(&lab).with_context(|| lab.story("/tmp/pluto.log"))?;
    let errors = lab.vm.sh("grep -v '[[:space:]]0$' /proc/net/xfrm_stat || true")?;
    let serious = errors.lines().filter(|line| !line.contains("NoStates") && !line.contains("AcquireError"));
    ensure!(serious.count() == 0, "Linux counts errors: {errors}\n{}", lab.story("/tmp/pluto.log"));
    lab.a.check_ledger()
}

fn ours(connection: &Connection) -> Config {
    let mut config = connection.pollux(Side::A, "none");
    config.tables = config.tables.replace("198.51.100.2", GUEST);
    config
}

fn strongswan(lab: &Lab) -> Result<()> {
    let Lab { a, vm, .. } = lab;
    vm.write("/etc/strongswan.conf", CHARON)?;
    for (at, (connection, esn)) in cases().into_iter().enumerate() {
        let swanctl = connection.swanctl(Side::B).replace("198.51.100.2", GUEST);
        vm.write("/etc/swanctl/conf.d/peer.conf", &swanctl)?;
        vm.sh(if at == 0 { START } else { "swanctl --load-all" })?;
        a.configure(&ours(&connection))?;
        a.reload()?;
        for by_us in [true, false] {
            if by_us {
                a.cli(&format!("initiate --child {NAME}"))?;
            } else {
                vm.sh(&format!("swanctl --initiate --child {NAME} --timeout 15"))?;
            }
            lab.carries(esn)?;
            if by_us {
                vm.sh(&format!("swanctl --rekey --child {NAME}"))?;
                a.cli(&format!("rekey --ike {NAME}"))?;
            } else {
                a.cli(&format!("rekey --child {NAME}"))?;
                vm.sh(&format!("swanctl --rekey --ike {NAME}"))?;
            }
            lab.carries(esn)?;
            a.cli(&format!("terminate --ike {NAME}"))?;
            lab.empties(|| Ok(vm.sh("swanctl --list-sas")?.trim().is_empty()))?;
        }
    }
    // The next one wants its ports and its policies.
    vm.sh("kill $(pidof charon-systemd); while pidof charon-systemd; do sleep .1; done; ip xfrm policy flush")
        .map(drop)
}

/// Raw with extended sequence numbers; in UDP without, and with perfect forward secrecy.
fn libreswan(lab: &Lab) -> Result<()> {
    let Lab { a, vm, world } = lab;
    let pluto = Pluto::start(vm)?;
    let cases = [("aes128gcm16-esn", "aes_gcm128", true), ("aes256gcm16-x25519-noesn", "aes_gcm256", false)];
    for (esp, theirs, esn) in cases {
        let (pfs, encap) = (!esn, !esn);
        let ike = "aes_gcm128-sha2_256-dh31";
        pluto.load(GUEST, Proposals { ike, esp: theirs, pfs, esn, encap })?;
        a.configure(&ours(&Connection { encap, ..Connection::new(IKE, esp) }))?;
        a.reload()?;
        for by_us in [true, false] {
            if by_us {
                // strongSwan asks for no cookie in so small a world; libreswan does when told to.
                pluto.demand_cookies(true)?;
                let capture = Capture::start(&world.internet, "t0", world.folder(), "cookie")?;
                let initiated = a.cli(&format!("initiate --child {NAME} --timeout 50"));
                pluto.demand_cookies(false)?;
                initiated?;
                let file = capture.file().to_owned();
                capture.stop()?;
                cookie_was_asked_for(&file)?;
            } else {
                pluto.up()?;
            }
            lab.carries(esn)?;
            if by_us {
                pluto.rekey("child")?;
                a.cli(&format!("rekey --ike {NAME}"))?;
            } else {
                a.cli(&format!("rekey --child {NAME}"))?;
                pluto.rekey("ike")?;
            }
            lab.carries(esn)?;
            if by_us {
                a.cli(&format!("terminate --ike {NAME}"))?;
            } else {
                pluto.down()?;
            }
            lab.empties(|| pluto.is_empty())?;
        }
    }
    Ok(())
}

/// N(COOKIE) from the guest, and again from us.
fn cookie_was_asked_for(capture: &std::path::Path) -> Result<()> {
    for source in [GUEST.to_owned(), Side::A.outer(Family::V4).to_string()] {
        let filter = format!("isakmp.notify.msgtype == 16390 && ip.src == {source}");
        let rows = tshark::fields(capture, &Keys::default(), &[], &filter, &["frame.number"])?;
        ensure!(!rows.is_empty(), "no COOKIE from {source}");
    }
    Ok(())
}

impl Lab {
    fn story(&self, log: &str) -> String {
        let log = self
            .vm
            .sh(&format!("tail -30 {log}; ip xfrm state; cat /proc/net/xfrm_stat"))
            .unwrap_or_default();
        let sas = self.a.cli("list-sas").unwrap_or_default();
        format!("{sas}\n{}\n{:?}\n{log}", self.a.logs(), self.a.drops())
    }

    /// Waits until nothing is left on either end.
    fn empties(&self, peer_is_empty: impl Fn() -> Result<bool>) -> Result<()> {
        wait_for("both ends to be empty", Duration::from_secs(10), || {
            Ok(self.a.json("list-sas")?.as_array().is_some_and(Vec::is_empty) && peer_is_empty()?)
        })
    }

    /// Echoes of every size come back, from either side, under the sequence numbers that were agreed on.
    fn carries(&self, esn: bool) -> Result<()> {
        wait_for("a ping through Linux", Duration::from_secs(10), || {
            Ok(self.world.caller.sh(&format!("ping -c1 -W1 {HOST}")).is_ok())
        })?;
        for size in [0, 56, 1300] {
            let text = self.world.caller.sh(&format!("ping -c10 -i0.05 -w10 -s{size} {HOST}"))?;
            ensure!(echoes(&text) >= 10, "{text}");
        }
        let caller = Side::A.host(Family::V4);
        let text = self.vm.sh(&format!("ping -c5 -i0.05 -w10 -I {HOST} {caller}"))?;
        ensure!(echoes(&text) >= 5, "{text}");
        let sas = self.a.json("list-sas")?;
        let children: Vec<_> =
            sas.as_array().into_iter().flatten().filter_map(|sa| sa["children"].as_array()).collect();
        let installed = children.into_iter().flatten().find(|child| child["state"] == "INSTALLED");
        ensure!(installed.is_some_and(|child| child["esn"] == esn), "{sas}");
        Ok(())
    }
}
