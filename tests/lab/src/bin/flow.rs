//! A numbered UDP flow: what was sent, what arrived, what was lost, doubled or late. Prints one JSON object.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::json;

/// A numbered UDP flow.
#[derive(Debug, Parser)]
enum Flow {
    /// Sends numbered datagrams at an even rate.
    Send {
        /// Our address.
        from: SocketAddr,
        /// The receiver's.
        to: SocketAddr,
        /// Datagrams in a second.
        #[arg(long, default_value_t = 500)]
        rate: u32,
        /// How long.
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
        /// Octets of payload, at least 8.
        #[arg(long, default_value_t = 160)]
        bytes: usize,
    },
    /// Receives until nothing has come for a while.
    Receive {
        /// Our address.
        on: SocketAddr,
        /// End after so many seconds of silence, once the first datagram has come.
        #[arg(long, default_value_t = 2.0)]
        idle: f64,
        /// Seconds to wait for the first.
        #[arg(long, default_value_t = 30.0)]
        first: f64,
    },
}

/// Seconds of a fast flow: the kernel counts some 800 octets for a datagram of 160.
const RECEIVE_BUFFER: usize = 128 << 20;

fn main() -> Result<()> {
    match Flow::parse() {
        Flow::Send { from, to, rate, seconds, bytes } => send(from, to, rate, seconds, bytes.max(8)),
        Flow::Receive { on, idle, first } => receive(on, idle, first),
    }
}

fn send(from: SocketAddr, to: SocketAddr, rate: u32, seconds: f64, bytes: usize) -> Result<()> {
    let socket = UdpSocket::bind(from)?;
    socket.connect(to)?;
    let started = Instant::now();
    let mut payload = vec![0; bytes];
    let (mut number, mut sent, mut refused) = (0_u64, 0_u64, 0_u64);
    while started.elapsed().as_secs_f64() < seconds {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a few million datagrams"
        )]
        let due = (started.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        while number < due {
            payload[..8].copy_from_slice(&number.to_be_bytes());
            match socket.send(&payload) {
                Ok(_) => sent += 1,
                // An ICMP error for an earlier datagram, or a full queue: the number is used, the receiver misses it.
                Err(_) => refused += 1,
            }
            number += 1;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    println!("{}", json!({ "sent": sent, "refused": refused }));
    Ok(())
}

fn receive(on: SocketAddr, idle: f64, first: f64) -> Result<()> {
    let socket = UdpSocket::bind(on)?;
    // A receiver that does not get the processor for a while must not lose what the gateways have delivered.
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
    socket.set_read_timeout(Some(Duration::from_secs_f64(first)))?;
    let mut seen = HashSet::new();
    let (mut duplicates, mut reordered, mut highest) = (0_u64, 0_u64, 0_u64);
    let (mut last, mut longest) = (None::<Instant>, Duration::ZERO);
    let mut buffer = [0; 2048];
    while let Ok(len) = socket.recv(&mut buffer) {
        let now = Instant::now();
        match last.replace(now) {
            None => socket.set_read_timeout(Some(Duration::from_secs_f64(idle)))?,
            Some(before) => longest = longest.max(now - before),
        }
        let Some(number) = buffer[..len].first_chunk().map(|octets| u64::from_be_bytes(*octets)) else {
            continue;
        };
        if !seen.insert(number) {
            duplicates += 1;
        }
        reordered += u64::from(number < highest);
        highest = highest.max(number);
    }
    let received = seen.len() as u64;
    let lost = if seen.is_empty() { 0 } else { highest + 1 - received };
    println!(
        "{}",
        json!({
            "received": received, "lost": lost, "duplicates": duplicates, "reordered": reordered,
            "longest_gap_ms": longest.as_secs_f64() * 1000.0,
        })
    );
    Ok(())
}
