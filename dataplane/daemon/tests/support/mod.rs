//! Two gateways between two hosts, and a control process in a few lines.
//!
//! ```text
//!   host-a ── 10.1.0.0/24 ── gw-a ══ 192.0.2.0/24 ══ gw-b ── 10.2.0.0/24 ── host-b
//!       .2              .1       .1              .2       .1             .2
//! ```

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use std::io::{BufRead, BufReader, Write};

use pollux_abi::command::{
    Command as Order, Direction, EncapPorts, Lifetimes, PolicyAction, PolicySpec, SaSpec,
};
use pollux_abi::dscp::{DfMark, DscpMark, EcnMode};
use pollux_abi::selector::SelectorPair;
use pollux_abi::{
    CommandError, EspSuite, Event, KeyMaterial, PolicyId, Reqid, SaId, SaIndex, Selectors, Spi, Ticket,
    TrafficSelector, WorkerId,
};
use pollux_shm::Session;
use serde_json::Value;

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a shell line; its output, or a panic with what it said.
pub(crate) fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().expect("sh runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{line}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Whether a shell line succeeds.
pub(crate) fn succeeds(line: &str) -> bool {
    let quiet = Command::new("sh").args(["-c", line]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}

/// Why privileged tests cannot run here, if they can't.
pub(crate) fn lacks_rights() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root");
    }
    if !succeeds("ip netns list") {
        return Some("ip netns does not work here");
    }
    (!succeeds("ping -V")).then_some("needs ping (iputils-ping)")
}

/// Waits until `done`.
pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The four namespaces and the folder; gone when dropped.
pub(crate) struct World {
    tag: String,
    /// Configurations, sockets and logs.
    pub(crate) folder: PathBuf,
}

impl World {
    /// Builds the topology with `queues` queues on the gateways' interfaces.
    pub(crate) fn new(name: &str, queues: u16) -> Self {
        let tag = format!("px{}{name}", std::process::id());
        let folder = std::env::temp_dir().join(&tag);
        fs::create_dir_all(&folder).expect("a folder");
        let world = Self { tag, folder };
        for side in ["ha", "ga", "gb", "hb"] {
            let netns = world.netns(side);
            sh(&format!("ip netns add {netns} && ip -n {netns} link set lo up"));
            sh(&format!("ip netns exec {netns} sysctl -qw net.ipv4.ip_forward=1"));
        }
        let q = format!("numtxqueues {queues} numrxqueues {queues}");
        for (side, host, n) in [("ga", "ha", 1), ("gb", "hb", 2)] {
            let (gateway, host) = (world.netns(side), world.netns(host));
            sh(&format!("ip link add lan0 netns {gateway} {q} type veth peer name eth0 netns {host} {q}"));
            sh(&format!(
                "ip -n {gateway} addr add 10.{n}.0.1/24 dev lan0 && ip -n {gateway} link set lan0 up"
            ));
            sh(&format!("ip -n {host} addr add 10.{n}.0.2/24 dev eth0 && ip -n {host} link set eth0 up"));
            sh(&format!("ip -n {host} route add default via 10.{n}.0.1"));
        }
        let (a, b) = (world.netns("ga"), world.netns("gb"));
        sh(&format!("ip link add wan0 netns {a} {q} type veth peer name wan0 netns {b} {q}"));
        sh(&format!("ip -n {a} addr add 192.0.2.1/24 dev wan0 && ip -n {a} link set wan0 up"));
        sh(&format!("ip -n {b} addr add 192.0.2.2/24 dev wan0 && ip -n {b} link set wan0 up"));
        world
    }

    /// A namespace: `ha`, `ga`, `gb` or `hb`.
    pub(crate) fn netns(&self, side: &str) -> String {
        format!("{}-{side}", self.tag)
    }

    /// Runs a line in a namespace.
    pub(crate) fn exec(&self, side: &str, line: &str) -> String {
        sh(&format!("ip netns exec {} {line}", self.netns(side)))
    }

    /// Whether a line in a namespace succeeds.
    pub(crate) fn try_exec(&self, side: &str, line: &str) -> bool {
        succeeds(&format!("ip netns exec {} {line}", self.netns(side)))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for side in ["ha", "ga", "gb", "hb"] {
            succeeds(&format!("ip netns del {}", self.netns(side)));
        }
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// A data plane.
pub(crate) struct Gateway {
    child: Child,
    config: PathBuf,
    /// Its run directory.
    pub(crate) run_dir: PathBuf,
    log: PathBuf,
}

impl Gateway {
    /// Starts one in the namespace `side`, with more lines for `[dataplane]`; waits until it answers.
    pub(crate) fn start(world: &World, side: &str, lines: &str) -> Self {
        let folder = world.folder.join(side);
        fs::create_dir_all(&folder).expect("a folder");
        let (config, log) = (folder.join("pollux.toml"), folder.join("log"));
        let text = format!(
            "[paths]\nrun_dir = \"{0}/run\"\nstate_dir = \"{0}/state\"\n[dataplane]\nnetns = \"{1}\"\n\
             wan = \"wan0\"\nlan = \"lan0\"\nidle = \"adaptive\"\nhuge_pages = false\n{lines}\n",
            folder.display(),
            world.netns(side)
        );
        fs::write(&config, text).expect("written");
        let out = fs::OpenOptions::new().create(true).append(true).open(&log).expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_pollux-dataplane"))
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("a log"))
            .stderr(out)
            .spawn()
            .expect("it runs");
        let mut gateway = Self { child, config, run_dir: folder.join("run"), log };
        wait_for("the data plane to answer", || {
            assert!(gateway.child.try_wait().expect("a child").is_none(), "{}", gateway.log());
            gateway.try_ask("\"status\"").is_some()
        });
        gateway
    }

    /// What it has written.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn try_ask(&self, op: &str) -> Option<Value> {
        let mut stream = UnixStream::connect(self.run_dir.join("dataplane.sock")).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.write_all(format!("{{\"op\":{op}}}\n").as_bytes()).ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        let mut reply: Value = serde_json::from_str(&line).ok()?;
        Some(reply["ok"].take())
    }

    /// Asks the statistics socket; `op` is JSON, with more fields after it if need be.
    pub(crate) fn ask(&self, op: &str) -> Value {
        self.try_ask(op).expect("an answer")
    }

    /// Packets dropped for a reason.
    pub(crate) fn drops(&self, reason: &str) -> u64 {
        let rows = self.ask("\"drops\"");
        let row = rows.as_array().expect("rows").iter().find(|row| row["reason"] == reason);
        row.and_then(|row| row["packets"].as_u64()).expect("a known reason")
    }

    /// Every frame is accounted for, if not now then soon.
    pub(crate) fn assert_ledger(&self) {
        wait_for("the ledger to balance", || {
            let frames = &self.ask("\"status\"")["frames"];
            frames["missing"] == 0 && frames["in_flight"] == 0
        });
    }

    /// The control process's end of the rings.
    pub(crate) fn attach(&self) -> Control {
        let session = Session::attach(&self.run_dir.join("attach.sock")).expect("it attaches");
        Control { session, tickets: 0, heard: Vec::new() }
    }

    /// kill -9.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }

    /// SIGTERM, and the end.
    pub(crate) fn stop(&mut self) {
        sh(&format!("kill -TERM {}", self.child.id()));
        wait_for("the data plane to end", || self.child.try_wait().expect("a child").is_some());
    }

    /// `pollux-dataplane down`.
    pub(crate) fn down(config: &Path) {
        let done = Command::new(env!("CARGO_BIN_EXE_pollux-dataplane"))
            .arg("--config")
            .arg(config)
            .arg("down")
            .status()
            .expect("it runs");
        assert!(done.success());
    }

    /// Its configuration file.
    pub(crate) fn config(&self) -> &Path {
        &self.config
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let down = Command::new(env!("CARGO_BIN_EXE_pollux-dataplane"))
            .arg("--config")
            .arg(&self.config)
            .arg("down")
            .stderr(Stdio::null())
            .status();
        if std::thread::panicking() {
            eprintln!("{}\n{down:?}", self.log());
        }
    }
}

/// A control process.
pub(crate) struct Control {
    /// The rings.
    pub(crate) session: Session,
    tickets: u64,
    heard: Vec<(usize, Event)>,
}

impl Control {
    /// Sends a command to ring `ring` and waits for its acknowledgement.
    pub(crate) fn order(&mut self, ring: usize, command: &Order) -> Result<u32, CommandError> {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let commands = &mut self.session.rings[ring].commands;
        commands.write(&command.encode(ticket)).expect("room in the ring");
        commands.wake();
        let begun = Instant::now();
        loop {
            while let Some(slot) = self.session.rings[ring].events.read().expect("a sound ring") {
                match Event::decode(&slot).expect("an event") {
                    Event::Ack { ticket: of, result } if of == ticket => return result,
                    other => self.heard.push((ring, other)),
                }
            }
            assert!(begun.elapsed() < PATIENCE, "no acknowledgement of {command:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The housekeeper's ring.
    pub(crate) fn housekeeper(&self) -> usize {
        self.session.rings.len() - 1
    }

    /// Installs an SA: housekeeper, owner, and word of it to the other workers.
    pub(crate) fn add(&mut self, mut spec: SaSpec, keys: &[u8]) {
        let keys = || KeyMaterial::new(keys).expect("a key");
        let housekeeper = self.housekeeper();
        let slot = self.order(housekeeper, &Order::SaAdd(spec.clone(), keys())).expect("noted");
        spec.checkpoint = spec.checkpoint.map(|_| slot);
        let owner = usize::from(spec.owner.0);
        self.order(owner, &Order::SaAdd(spec.clone(), keys())).expect("installed");
        for worker in (0..housekeeper).filter(|&worker| worker != owner) {
            let route = pollux_abi::command::SaRoute {
                id: spec.id,
                direction: spec.direction,
                index: spec.index,
                spi: spec.spi,
                reqid: spec.reqid,
                owner: spec.owner,
                local_ts: spec.local_ts,
                remote_ts: spec.remote_ts,
            };
            self.order(worker, &Order::SaRoute(route)).expect("routed");
        }
    }

    /// Puts policies in force.
    pub(crate) fn policies(&mut self, list: &[PolicySpec]) {
        let housekeeper = self.housekeeper();
        self.order(housekeeper, &Order::PolicyBegin).expect("begun");
        for policy in list {
            self.order(housekeeper, &Order::PolicyAdd(*policy)).expect("added");
        }
        let count = self.order(housekeeper, &Order::PolicyCommit).expect("in force");
        assert_eq!(count as usize, list.len());
    }
}

/// A prefix as a selector.
pub(crate) fn net(text: &str) -> TrafficSelector {
    let (address, len) = text.split_once('/').expect("a prefix");
    TrafficSelector::prefix(address.parse().expect("an address"), len.parse().expect("a length"))
        .expect("a prefix")
}

/// Protects what goes between two prefixes, under reqid 1.
pub(crate) fn protect(id: u32, local: &str, remote: &str) -> PolicySpec {
    PolicySpec {
        id: PolicyId(id),
        direction: Direction::Outbound,
        selectors: SelectorPair { local: net(local), remote: net(remote) },
        action: PolicyAction::Protect(Reqid(1)),
    }
}

/// One of two SAs between the gateways, as the side with `local` sees it.
pub(crate) fn sa(
    direction: Direction,
    spi: u32,
    local: &str,
    remote: &str,
    owner: u16,
    encap: bool,
) -> SaSpec {
    let side = |address: &str| if address.ends_with(".1") { net("10.1.0.0/16") } else { net("10.2.0.0/16") };
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    SaSpec {
        id: SaId(u64::from(spi) << 1 | u64::from(direction == Direction::Outbound)),
        direction,
        index: SaIndex(spi & 0xff),
        spi: Spi::new(spi).expect("not reserved"),
        suite: EspSuite::Aes128Gcm16,
        esn: false,
        window_packets: 1024,
        local: address(local),
        remote: address(remote),
        encap: encap.then_some(EncapPorts { local: 4500, remote: 4500 }),
        reqid: Reqid(1),
        owner: WorkerId(owner),
        dscp: DscpMark::Copy,
        ecn: EcnMode::Normal,
        df: DfMark::Copy,
        lifetimes: Lifetimes::default(),
        seq_start: u64::from(direction == Direction::Outbound),
        iv_start: u64::from(std::process::id()) << 32 ^ u64::from(spi),
        checkpoint: Some(0),
        local_ts: Selectors::new(&[side(local)]).expect("one"),
        remote_ts: Selectors::new(&[side(remote)]).expect("one"),
    }
}

/// Keys of the SA with this SPI.
pub(crate) fn keys(spi: u32) -> [u8; 20] {
    core::array::from_fn(|at| at.to_le_bytes()[0] ^ spi.to_le_bytes()[0])
}

/// Installs the pair of SAs and the policy on one side: `a` or `b`.
pub(crate) fn install(control: &mut Control, side: &str, owner: u16, encap: bool) {
    const A_TO_B: u32 = 0x1001;
    const B_TO_A: u32 = 0x1002;
    let (local, remote, out, inbound, mine, theirs) = match side {
        "a" => ("192.0.2.1", "192.0.2.2", A_TO_B, B_TO_A, "10.1.0.0/16", "10.2.0.0/16"),
        _ => ("192.0.2.2", "192.0.2.1", B_TO_A, A_TO_B, "10.2.0.0/16", "10.1.0.0/16"),
    };
    control.add(sa(Direction::Inbound, inbound, local, remote, owner, encap), &keys(inbound));
    control.add(sa(Direction::Outbound, out, local, remote, owner, encap), &keys(out));
    control.policies(&[protect(1, mine, theirs)]);
}
