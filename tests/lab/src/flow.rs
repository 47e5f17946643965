//! Runs `flow`, the numbered UDP flow, at both ends of a tunnel.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::netns::Netns;
use crate::process::{Process, built};
use crate::wait::wait_for;
use crate::world::World;

/// A flow that is under way.
#[derive(Debug)]
pub struct Flow {
    sender: Process,
    receiver: Process,
    limit: Duration,
}

/// What became of a flow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Datagrams handed to the kernel.
    pub sent: u64,
    /// Distinct datagrams that arrived.
    pub received: u64,
    /// Arrived again.
    pub duplicates: u64,
    /// Longest time between two arrivals.
    pub longest_gap_ms: f64,
}

impl Outcome {
    /// Sent and not received.
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }
}

/// One end of a flow.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Where it runs.
    pub netns: &'a Netns,
    /// Its address.
    pub address: IpAddr,
}

impl Flow {
    /// Starts a flow of `rate` datagrams a second for `seconds`. Receiver first.
    ///
    /// # Errors
    /// If either end does not start.
    pub fn start(world: &World, from: End<'_>, to: End<'_>, rate: u32, seconds: f64) -> Result<Self> {
        static NEXT_PORT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(20_000);
        let port = NEXT_PORT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let program = built("flow")?;
        let program = program.to_str().context("a path in UTF-8")?;
        let (source, target) = (SocketAddr::new(from.address, port), SocketAddr::new(to.address, port));
        let log = |role: &str| world.folder().join(format!("flow-{port}-{role}.log"));

        let mut command = to.netns.command(program);
        command.args(["receive", &target.to_string()]);
        let receiver = Process::start("flow receive", &mut command, &log("receive"))?;
        // Addresses and ports stand there in hexadecimal.
        let listens = format!(":{port:04X} ");
        wait_for("the flow's receiver to listen", Duration::from_secs(10), || {
            Ok(to.netns.sh("cat /proc/net/udp /proc/net/udp6")?.contains(&listens))
        })?;
        let mut command = from.netns.command(program);
        command.args(["send", &source.to_string(), &target.to_string()]);
        command.args(["--rate", &rate.to_string(), "--seconds", &seconds.to_string()]);
        let sender = Process::start("flow send", &mut command, &log("send"))?;
        Ok(Self { sender, receiver, limit: Duration::from_secs_f64(seconds + 40.0) })
    }

    /// Waits for the flow's end.
    ///
    /// # Errors
    /// If either end fails.
    pub fn finish(mut self) -> Result<Outcome> {
        self.sender.wait(self.limit)?;
        self.receiver.wait(self.limit)?;
        let parse = |process: &Process| -> Result<Value> {
            serde_json::from_str(process.log().trim()).with_context(|| process.tail())
        };
        let (sent, received) = (parse(&self.sender)?, parse(&self.receiver)?);
        let count = |value: &Value, key: &str| value[key].as_u64().unwrap_or_default();
        Ok(Outcome {
            sent: count(&sent, "sent") + count(&sent, "refused"),
            received: count(&received, "received"),
            duplicates: count(&received, "duplicates"),
            longest_gap_ms: received["longest_gap_ms"].as_f64().unwrap_or_default(),
        })
    }
}
