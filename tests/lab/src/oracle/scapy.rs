//! Scapy, by way of `tests/lab/oracle/esp.py`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::command::run;
use crate::netns::Netns;

/// An SA as scapy is told of it.
#[derive(Clone, Debug)]
pub struct Sa {
    /// SPI.
    pub spi: u32,
    /// Suite, as in our configuration.
    pub suite: &'static str,
    /// Key with the salt at its end, in hexadecimal.
    pub key: String,
    /// Extended sequence numbers.
    pub esn: bool,
    /// UDP encapsulation on port 4500.
    pub encap: bool,
    /// Outer source and destination.
    pub outer: [String; 2],
    /// Inner source and destination.
    pub inner: [String; 2],
    /// UDP payload lengths, inclusive.
    pub lengths: [u32; 2],
}

/// Source and destination port of every datagram that the scripts send, as `esp.py` has them.
pub const PORTS: [u16; 2] = [40_000, 40_001];

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle/esp.py")
}

/// Writes the SAs as the scripts of `tests/lab/oracle` read them.
///
/// # Errors
/// If that fails.
pub fn job(folder: &Path, sas: &[Sa]) -> Result<PathBuf> {
    let list: Vec<Value> = sas
        .iter()
        .map(|sa| {
            json!({
                "spi": sa.spi, "suite": sa.suite, "key": sa.key, "esn": sa.esn, "encap": sa.encap,
                "outer": sa.outer, "inner": sa.inner, "from": sa.lengths[0], "to": sa.lengths[1],
            })
        })
        .collect();
    let path = folder.join("job.json");
    std::fs::write(&path, serde_json::to_string(&list)?)?;
    Ok(path)
}

fn answer(command: &mut Command) -> Result<Value> {
    let text = run(command)?;
    serde_json::from_str(&text).with_context(|| format!("scapy said: {text}"))
}

/// Lets scapy authenticate and decrypt every ESP packet of a capture; its counts by SPI.
///
/// # Errors
/// If scapy fails.
pub fn verify(capture: &Path, folder: &Path, sas: &[Sa]) -> Result<Value> {
    answer(Command::new(script()).arg("verify").arg(capture).arg(job(folder, sas)?))
}

/// Lets scapy make ESP packets and send them from `device` in `netns` to the link-layer address `mac`.
///
/// # Errors
/// If scapy fails.
pub fn send(netns: &Netns, device: &str, mac: &str, folder: &Path, sas: &[Sa]) -> Result<u64> {
    let mut command = netns.command(script().to_str().context("a path in UTF-8")?);
    let value = answer(command.arg("send").arg(device).arg(mac).arg(job(folder, sas)?))?;
    value["sent"].as_u64().context("scapy did not say how many it sent")
}

/// Sends plain datagrams with the payloads that [`verify`] expects.
///
/// # Errors
/// If they can't be sent.
pub fn pattern(netns: &Netns, source: &str, destination: &str, lengths: [u32; 2]) -> Result<u64> {
    let mut command = netns.command(script().to_str().context("a path in UTF-8")?);
    let [first, last] = lengths.map(|length| length.to_string());
    let value = answer(command.args(["pattern", source, destination, &first, &last]))?;
    value["sent"].as_u64().context("scapy did not say how many it sent")
}
