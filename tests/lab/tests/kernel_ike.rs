//! IKEv2 with a peer whose ESP Linux does: strongSwan in a VM, in both roles; one boot for all cases.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pollux_lab::command::echoes;
use pollux_lab::gateway::Gateway;
use pollux_lab::ike::{Connection, NAME};
use pollux_lab::peer::vm::Vm;
use pollux_lab::skip_unless;
use pollux_lab::wait::wait_for;
use pollux_lab::world::{Side, World};

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

#[test]
fn linux_carries_what_strongswan_and_we_agree_on_in_both_roles() -> Result<()> {
    skip_unless!("ip", "ping", "qemu-system-x86_64");
    let world = World::new("kik")?;
    let vm = Vm::start(&world.internet, "t0", world.folder())?;
    world.internet.ip("addr add 203.0.113.1/24 dev t0")?;
    vm.sh(&format!("ip addr add {GUEST}/24 dev eth0; ip addr add {HOST}/32 dev lo"))?;
    vm.sh("ip route add default via 203.0.113.1")?;
    vm.write("/etc/strongswan.conf", CHARON)?;
    let [(first, _), ..] = cases();
    let config = |connection: &Connection| {
        let mut config = connection.pollux(Side::A, "none");
        config.tables = config.tables.replace("198.51.100.2", GUEST);
        config
    };
    let a = Gateway::start(&world, Side::A, &config(&first))?;
    let story = || {
        let log =
            vm.sh("tail -30 /tmp/charon.log; ip xfrm state; cat /proc/net/xfrm_stat").unwrap_or_default();
        format!("{}\n{}\n{:?}\n{log}", a.cli("list-sas").unwrap_or_default(), a.logs(), a.drops())
    };
    for (at, (connection, esn)) in cases().into_iter().enumerate() {
        let swanctl = connection.swanctl(Side::B).replace("198.51.100.2", GUEST);
        vm.write("/etc/swanctl/conf.d/peer.conf", &swanctl)?;
        vm.sh(if at == 0 { START } else { "swanctl --load-all" }).with_context(story)?;
        a.configure(&config(&connection))?;
        a.reload()?;
        for ours in [true, false] {
            if ours {
                a.cli(&format!("initiate --child {NAME}")).with_context(story)?;
            } else {
                vm.sh(&format!("swanctl --initiate --child {NAME} --timeout 15")).with_context(story)?;
            }
            carries(&world, &a, esn).with_context(story)?;
            if ours {
                vm.sh(&format!("swanctl --rekey --child {NAME}")).with_context(story)?;
                a.cli(&format!("rekey --ike {NAME}")).with_context(story)?;
            } else {
                a.cli(&format!("rekey --child {NAME}")).with_context(story)?;
                vm.sh(&format!("swanctl --rekey --ike {NAME}")).with_context(story)?;
            }
            carries(&world, &a, esn).with_context(story)?;
            a.cli(&format!("terminate --ike {NAME}")).with_context(story)?;
            wait_for("both ends to be empty", Duration::from_secs(10), || {
                Ok(a.json("list-sas")?.as_array().is_some_and(Vec::is_empty)
                    && vm.sh("swanctl --list-sas")?.trim().is_empty())
            })
            .with_context(story)?;
        }
    }
    let errors = vm.sh("grep -v '[[:space:]]0$' /proc/net/xfrm_stat || true")?;
    let serious = errors.lines().filter(|line| !line.contains("NoStates") && !line.contains("AcquireError"));
    ensure!(serious.count() == 0, "Linux counts errors: {errors}\n{}", story());
    a.check_ledger()
}

/// Echoes of every size come back, under the sequence numbers that were agreed on.
fn carries(world: &World, a: &Gateway, esn: bool) -> Result<()> {
    wait_for("a ping through Linux", Duration::from_secs(10), || {
        Ok(world.caller.sh(&format!("ping -c1 -W1 {HOST}")).is_ok())
    })?;
    for size in [0, 56, 1300] {
        let text = world.caller.sh(&format!("ping -c10 -i0.05 -w10 -s{size} {HOST}"))?;
        ensure!(echoes(&text) >= 10, "{text}");
    }
    let sas = a.json("list-sas")?;
    let children: Vec<_> =
        sas.as_array().into_iter().flatten().filter_map(|sa| sa["children"].as_array()).collect();
    let installed = children.into_iter().flatten().find(|child| child["state"] == "INSTALLED");
    ensure!(installed.is_some_and(|child| child["esn"] == esn), "{sas}");
    Ok(())
}
