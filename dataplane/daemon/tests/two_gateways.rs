//! Two data planes with manual SAs, driven over the rings by the test itself.
//!
//! Needs root; prints `skipped: …` without. `support/mod.rs` draws the topology.
#![forbid(unsafe_code)]
#![allow(clippy::print_stderr, reason = "a test says why it skips")]

mod support;

use std::time::Duration;

use pollux_abi::command::Command;
use support::{Control, Gateway, World, install, lacks_rights, sh, succeeds, wait_for};

/// Both gateways with a tunnel between them.
struct Pair {
    // Controls first: their hang-up is no news to data planes that are gone.
    control_a: Option<Control>,
    control_b: Option<Control>,
    a: Option<Gateway>,
    b: Option<Gateway>,
    world: World,
}

impl Pair {
    /// `None` where rights lack.
    fn new(name: &str, queues: u16, encap: bool) -> Option<Self> {
        if let Some(reason) = lacks_rights() {
            eprintln!("skipped: {reason}");
            return None;
        }
        let world = World::new(name, queues);
        let lines = format!("queues = {queues}");
        let (a, b) = (Gateway::start(&world, "ga", &lines), Gateway::start(&world, "gb", &lines));
        let (mut control_a, mut control_b) = (a.attach(), b.attach());
        install(&mut control_a, "a", queues - 1, encap);
        install(&mut control_b, "b", 0, encap);
        let (control_a, control_b) = (Some(control_a), Some(control_b));
        Some(Self { control_a, control_b, a: Some(a), b: Some(b), world })
    }

    fn a(&self) -> &Gateway {
        self.a.as_ref().expect("gateway a runs")
    }

    fn b(&self) -> &Gateway {
        self.b.as_ref().expect("gateway b runs")
    }

    /// Whether pings from a host or gateway come back.
    fn pings(&self, side: &str, to: &str, count: u32) -> bool {
        self.world.try_exec(side, &format!("ping -c {count} -i 0.05 -W 2 {to}"))
    }

    fn assert_pings(&self, side: &str, to: &str) {
        assert!(self.pings(side, to, 5), "{side} to {to}");
    }

    fn end(&self) {
        for gateway in [&self.a, &self.b].into_iter().flatten() {
            gateway.assert_ledger();
        }
    }
}

/// A counter, summed over a gateway's workers.
fn sum(gateway: &Gateway, counter: &str) -> u64 {
    let workers = gateway.ask("\"workers\"");
    workers.as_array().expect("rows").iter().filter_map(|row| row[counter].as_u64()).sum()
}

#[test]
fn pings_cross_two_gateways_under_esp() {
    let Some(pair) = Pair::new("ping", 1, false) else { return };
    pair.assert_pings("ha", "10.2.0.2");
    // The gateway's own packets take the same way, through pollux0, in both directions.
    pair.assert_pings("ga", "10.2.0.2");
    pair.assert_pings("ha", "10.2.0.1");
    pair.assert_pings("ga", "10.2.0.1");
    assert!(sum(pair.b(), "opened") >= 20 && sum(pair.b(), "sealed") >= 20);
    assert_eq!(pair.b().drops("clear_for_protected"), 0);
    // What is too long without fragments is answered, and the sender learns the right size.
    assert!(!pair.world.try_exec("ha", "ping -M do -s 1472 -c 2 -W 1 10.2.0.2"));
    assert!(pair.world.try_exec("ha", "ping -M do -s 1400 -c 2 -W 1 10.2.0.2"));
    assert!(pair.world.try_exec("ha", "ping -M dont -s 1472 -c 2 -W 1 10.2.0.2"), "in fragments");
    let explained = pair.a().ask(
        "\"explain\",\"source\":\"10.1.0.2\",\"destination\":\"10.2.0.2\",\"protocol\":17,\
         \"source_port\":5060,\"destination_port\":5060",
    );
    assert_eq!(explained["verdict"], "protect", "{explained}");
    assert_eq!(explained["spi"], 0x1001);
    pair.end();
}

#[test]
fn esp_in_udp_crosses_too() {
    let Some(pair) = Pair::new("udp", 1, true) else { return };
    pair.assert_pings("ha", "10.2.0.2");
    pair.assert_pings("hb", "10.1.0.2");
    pair.end();
}

#[test]
fn packets_that_arrive_at_another_worker_are_handed_to_the_owner() {
    let Some(pair) = Pair::new("own", 2, false) else { return };
    // Pings of many identifiers spread over the queues of veth by their flow.
    for _ in 0..6 {
        pair.assert_pings("ha", "10.2.0.2");
        pair.assert_pings("hb", "10.1.0.2");
    }
    for gateway in [pair.a(), pair.b()] {
        assert!(sum(gateway, "opened") >= 60, "{}", gateway.ask("\"workers\""));
        wait_for("all that was handed over to be taken over", || {
            sum(gateway, "handed_over") == sum(gateway, "taken_over")
        });
        assert_eq!(gateway.drops("handover_full") + gateway.drops("handover_loop"), 0);
    }
    pair.end();
}

#[test]
fn a_killed_data_plane_lets_nothing_out_and_its_next_life_goes_on() {
    let Some(mut pair) = Pair::new("kill", 1, false) else { return };
    pair.assert_pings("ha", "10.2.0.2");
    pair.control_a = None;
    let killed = pair.a.take().expect("it runs");
    killed.kill();

    // From the LAN, from the gateway itself, in fragments: nothing gets out, in clear or otherwise.
    assert!(!pair.pings("ha", "10.2.0.2", 2));
    assert!(!pair.pings("ga", "10.2.0.2", 2));
    assert!(!pair.world.try_exec("ha", "ping -M dont -s 3000 -c 1 -W 1 10.2.0.2"));
    assert_eq!(pair.b().drops("clear_for_protected"), 0, "nothing came in clear");

    let a = Gateway::start(&pair.world, "ga", "queues = 1");
    assert!(!pair.pings("ha", "10.2.0.2", 1), "shut until control has come back");
    let mut control = a.attach();
    install(&mut control, "a", 0, false);
    pair.a = Some(a);
    pair.assert_pings("ha", "10.2.0.2");
    assert_eq!(pair.b().drops("clear_for_protected"), 0);
    assert_eq!(pair.b().drops("replayed") + pair.b().drops("too_old"), 0, "the numbers went on");
    drop(control);
    pair.end();
}

#[test]
fn control_may_die_and_packets_go_on() {
    let Some(mut pair) = Pair::new("ctl", 1, false) else { return };
    let before = pair.a().ask("\"sas\"");
    pair.control_a = None;
    wait_for("the hang-up to be noticed", || pair.a().ask("\"status\"")["control_pid"].is_null());
    pair.assert_pings("ha", "10.2.0.2");
    let mut again = pair.a().attach();
    let housekeeper = again.housekeeper();
    assert_eq!(again.order(housekeeper, &Command::Barrier), Ok(0));
    assert_eq!(again.order(0, &Command::Barrier), Ok(0));
    let after = pair.a().ask("\"sas\"");
    assert_eq!(before[0]["fingerprint"], after[0]["fingerprint"]);
    assert_eq!(after.as_array().map(Vec::len), Some(2), "what is installed is read back");
    pair.control_a = Some(again);
    pair.end();
}

#[test]
fn ports_that_change_go_or_come_back_are_followed() {
    let Some(pair) = Pair::new("port", 1, false) else { return };
    let (ga, ha) = (pair.world.netns("ga"), pair.world.netns("ha"));
    pair.assert_pings("ha", "10.2.0.2");

    sh(&format!("ip -n {ga} link set wan0 down; ip -n {ga} link set wan0 name wan9"));
    assert!(!pair.pings("ha", "10.2.0.2", 1));
    assert!(pair.a().drops("port_down") + pair.a().drops("no_route") > 0);
    sh(&format!("ip -n {ga} link set wan9 mtu 1300 up"));
    wait_for("the port under its new name", || pair.pings("ha", "10.2.0.2", 1));
    assert!(!pair.world.try_exec("ha", "ping -M do -s 1260 -c 1 -W 1 10.2.0.2"), "the new MTU counts");

    sh(&format!("ip -n {ga} link del lan0"));
    std::thread::sleep(Duration::from_millis(200));
    sh(&format!("ip link add lan0 netns {ga} type veth peer name eth0 netns {ha}"));
    sh(&format!("ip -n {ga} addr add 10.1.0.1/24 dev lan0 && ip -n {ga} link set lan0 up"));
    sh(&format!("ip -n {ha} addr add 10.1.0.2/24 dev eth0 && ip -n {ha} link set eth0 up"));
    sh(&format!("ip -n {ha} route add default via 10.1.0.1"));
    wait_for("the recreated port", || pair.pings("ha", "10.2.0.2", 1));
    assert_eq!(pair.b().drops("clear_for_protected"), 0);
    pair.end();
}

#[test]
fn down_leaves_nothing_behind() {
    let Some(mut pair) = Pair::new("down", 1, false) else { return };
    let netns = pair.world.netns("ga");
    let mut a = pair.a.take().expect("it runs");
    a.stop();
    assert!(succeeds(&format!("ip -n {netns} link show pollux0")), "stopping leaves the locks");
    assert!(sh(&format!("ip -n {netns} route show table all")).contains("pollux0"));
    assert!(!pair.pings("ga", "10.2.0.2", 1));
    Gateway::down(a.config());
    assert!(!succeeds(&format!("ip -n {netns} link show pollux0")));
    assert!(!sh(&format!("ip -n {netns} route show table all")).contains("proto 80"));
    assert!(!sh(&format!("ip -n {netns} rule list")).contains("2055"));
    assert!(!sh(&format!("ip -n {netns} -d link show wan0")).contains("prog/xdp"));
    assert!(!succeeds(&format!("mountpoint -q {}/bpf", a.run_dir.display())));
    drop(pair.control_b.take());
}
