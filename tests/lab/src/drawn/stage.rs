//! A world to send packets in, and the capture of what leaves it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::packet::{Packet, Sender};
use crate::capture::{Capture, Frame, Kind};
use crate::netns::{self, Netns};
use crate::process::Process;
use crate::wait::{poll, sleep};
use crate::world::World;

/// Sends what a list says; see there.
const SEND: &str = include_str!("send.py");

/// How long a batch may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A world, with a third interface and a second uplink at gateway a:
///
/// ```text
///   caller eth0 ─── lan0          wan0 ─── a0
///                        gateway            internet
///   third  eth0 ─ third0          up1  ─── u0
/// ```
///
/// `third0` has a network inside of the drawn local selectors and one outside; both uplinks are captured.
#[derive(Debug)]
pub struct Stage {
    /// Gateways and hosts.
    pub world: World,
    /// The host on the third interface.
    pub third: Netns,
    captures: Vec<Capture>,
    script: PathBuf,
    batches: u64,
}

/// What has left since the last look.
#[derive(Clone, Debug, Default)]
pub struct Left {
    /// Frames in clear that carry the id of a drawn packet, by id.
    pub drawn: BTreeMap<String, Vec<Frame>>,
    /// Other frames in clear.
    pub others: Vec<Frame>,
    /// ESP packets.
    pub esp: u64,
}

impl Left {
    /// Adds what left later.
    pub fn extend(&mut self, later: Self) {
        for (id, frames) in later.drawn {
            self.drawn.entry(id).or_default().extend(frames);
        }
        self.others.extend(later.others);
        self.esp += later.esp;
    }
}

impl Stage {
    /// Makes the world and starts to capture.
    ///
    /// # Errors
    /// If anything can't be made.
    pub fn new(name: &str) -> Result<Self> {
        let world = World::new(name)?;
        let third = Netns::new(&world.tag, "third")?;
        netns::veth(
            netns::End {
                netns: &third,
                device: "eth0",
                addresses: &["10.1.9.10/24", "10.9.0.10/24", "fd01:0:0:9::10/64", "fd09::10/64"],
            },
            netns::End {
                netns: &world.gateway_a,
                device: "third0",
                addresses: &["10.1.9.1/24", "10.9.0.1/24", "fd01:0:0:9::1/64", "fd09::1/64"],
            },
        )?;
        netns::veth(
            netns::End { netns: &world.gateway_a, device: "up1", addresses: &[] },
            netns::End {
                netns: &world.internet,
                device: "u0",
                addresses: &["203.0.113.1/24", "2001:db8:c::1/64"],
            },
        )?;
        // Whatever arrives outside ends there.
        world.internet.sysctl("net.ipv4.ip_forward", "0")?;
        world.internet.sysctl("net.ipv6.conf.all.forwarding", "0")?;
        let script = world.folder().join("send.py");
        fs::write(&script, SEND)?;
        let mut stage = Self { world, third, captures: Vec::new(), script, batches: 0 };
        stage.settle(false)?;
        for device in ["a0", "u0"] {
            let capture = Capture::start(&stage.world.internet, device, stage.world.folder(), device)?;
            stage.captures.push(capture);
        }
        Ok(stage)
    }

    /// Puts links, addresses, routes and neighbours of the gateway back after links came and went: the same in every world.
    ///
    /// # Errors
    /// If `ip` refuses.
    pub fn settle(&mut self, on_second_uplink: bool) -> Result<()> {
        let (first, second) = (mac(&self.world.internet, "a0")?, mac(&self.world.internet, "u0")?);
        let (v4, v6, device) = if on_second_uplink {
            ("203.0.113.1", "2001:db8:c::1", "up1")
        } else {
            ("192.0.2.1", "2001:db8:a::1", "wan0")
        };
        let script = format!(
            "for d in wan0 up1 lan0 third0; do ip link set $d up; done
             for a in 203.0.113.2/24 2001:db8:c::2/64; do ip addr replace $a dev up1 nodad; done
             ip addr replace 2001:db8:a::2/64 dev wan0 nodad
             for a in fd01:0:0:9::1/64 fd09::1/64; do ip addr replace $a dev third0 nodad; done
             ip addr replace fd01::1/64 dev lan0 nodad
             ip route replace default via {v4} dev {device}
             ip -6 route replace default via {v6} dev {device}
             for a in 192.0.2.1 2001:db8:a::1; do ip neigh replace $a lladdr {first} dev wan0 nud permanent; done
             for a in 203.0.113.1 2001:db8:c::1; do ip neigh replace $a lladdr {second} dev up1 nud permanent; done"
        );
        self.world.gateway_a.script(&script).map(drop)
    }

    fn host(&self, sender: Sender) -> &Netns {
        match sender {
            Sender::Lan => &self.world.caller,
            Sender::Third => &self.third,
            Sender::Gateway => &self.world.gateway_a,
        }
    }

    /// Starts to send a batch, `rounds` times with a short pause between; the processes that do it.
    ///
    /// # Errors
    /// If they can't be started.
    pub fn send(&mut self, packets: &[Packet], rounds: u32) -> Result<Vec<Process>> {
        self.batches += 1;
        let next_hop = |device: &str, sender: Sender| -> Result<String> {
            match (sender, device) {
                (Sender::Lan, _) => mac(&self.world.gateway_a, "lan0"),
                (Sender::Third, _) => mac(&self.world.gateway_a, "third0"),
                (Sender::Gateway, "up1") => mac(&self.world.internet, "u0"),
                (Sender::Gateway, _) => mac(&self.world.internet, "a0"),
            }
        };
        let mut macs = BTreeMap::new();
        let mut processes = Vec::new();
        for sender in Sender::ALL {
            let mut list = Vec::new();
            for packet in packets.iter().filter(|packet| packet.sender == sender) {
                let key = (packet.device(), sender);
                let mac = match macs.entry(key) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(unknown) => unknown.insert(next_hop(packet.device(), sender)?),
                };
                list.push(packet.json(mac));
            }
            if list.is_empty() {
                continue;
            }
            let name = format!("{}-{}", sender.name(), self.batches % 8);
            let file = self.world.folder().join(format!("{name}.json"));
            fs::write(&file, Value::from(list).to_string())?;
            let mut command = self.host(sender).command("/usr/bin/python3");
            command.arg(&self.script).arg(&file).arg(rounds.to_string());
            let log = self.world.folder().join(format!("{name}.log"));
            processes.push(Process::start("send.py", &mut command, &log)?);
        }
        Ok(processes)
    }

    /// What the processes of a batch have printed: refusals of the kernel.
    ///
    /// # Errors
    /// If one of them failed.
    pub fn sent(processes: Vec<Process>) -> Result<Vec<String>> {
        let mut refused = Vec::new();
        for mut process in processes {
            let status = process.wait(PATIENCE)?;
            ensure!(status.success(), "send.py: {}", process.tail());
            refused.extend(process.log().lines().map(str::to_owned));
        }
        Ok(refused)
    }

    /// What has left since the last look.
    ///
    /// # Errors
    /// If a capture can't be read.
    pub fn left(&mut self) -> Result<Left> {
        let mut left = Left::default();
        for capture in &mut self.captures {
            for frame in capture.read_on()? {
                left.add(frame);
            }
        }
        Ok(left)
    }

    /// What has left, read until `enough` or for two seconds.
    ///
    /// # Errors
    /// If a capture can't be read.
    pub fn left_until(&mut self, enough: impl Fn(&Left) -> bool) -> Result<Left> {
        // Half a dozen packets on a veth pair.
        sleep(Duration::from_millis(60))?;
        let mut left = Left::default();
        let mut failure = None;
        poll(Duration::from_secs(2), || match self.left() {
            Ok(more) => {
                left.extend(more);
                enough(&left)
            }
            Err(error) => {
                failure = Some(error);
                true
            }
        });
        failure.map_or(Ok(left), Err)
    }
}

impl Left {
    fn add(&mut self, frame: Frame) {
        if let Some(id) = id_in(&frame.bytes) {
            self.drawn.entry(id).or_default().push(frame);
            return;
        }
        match frame.kind() {
            Kind::Esp | Kind::EspInUdp => self.esp += 1,
            Kind::Clear => self.others.push(frame),
            Kind::Ike | Kind::Keepalive | Kind::Neighbour | Kind::Other => {}
        }
    }
}

/// How an id begins. Its eight characters are repeated through the payload.
pub const ID_START: &[u8] = b"#!";

/// The id that a frame carries.
fn id_in(bytes: &[u8]) -> Option<String> {
    let at =
        bytes.windows(10).position(|window| window.starts_with(ID_START) && window.ends_with(ID_START))?;
    String::from_utf8(bytes.get(at..at + 8)?.to_vec()).ok()
}

/// The MAC address of a device.
fn mac(netns: &Netns, device: &str) -> Result<String> {
    let text = netns.ip(&format!("-j link show {device}"))?;
    let value: Value = serde_json::from_str(&text)?;
    Ok(value[0]["address"].as_str().context("no MAC address")?.to_owned())
}
