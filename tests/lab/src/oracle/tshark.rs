//! tshark: authenticates and decrypts ESP and IKE of a capture, given the keys.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::scapy::Sa;
use crate::command::run;

/// Keys, as records of tshark's own tables.
#[derive(Clone, Debug, Default)]
pub struct Keys(Vec<String>);

/// One ESP packet as tshark reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Esp {
    /// SPI.
    pub spi: u32,
    /// Sequence number on the wire.
    pub sequence: u32,
    /// Names of all layers, from the outermost to the innermost.
    pub layers: String,
    /// Whether the ICV holds; `None` where tshark has no key.
    pub authentic: Option<bool>,
    /// The innermost payload, empty where there is none.
    pub payload: Vec<u8>,
}

impl Keys {
    /// Keys of these SAs. tshark 4.0 has no word for ESN: SAs with it are left out.
    pub fn of_sas(sas: &[Sa]) -> Self {
        Self(sas.iter().filter(|sa| !sa.esn).map(record).collect())
    }

    /// Keys as `key_log` of our configuration writes them: a table's name and a record on each line.
    ///
    /// # Errors
    /// If the file can't be read, or has another form.
    pub fn of_log(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
        let record = |line: &str| {
            line.split_once(' ')
                .map(|(table, record)| format!("uat:{table}:{record}"))
                .with_context(|| format!("a line without a table: {line}"))
        };
        Ok(Self(text.lines().map(record).collect::<Result<_>>()?))
    }
}

fn record(sa: &Sa) -> String {
    let [source, destination] = &sa.outer;
    let family = if source.contains(':') { "IPv6" } else { "IPv4" };
    format!(
        "uat:esp_sa:\"{family}\",\"{source}\",\"{destination}\",\"0x{:08x}\",\
         \"AES-GCM with 16 octet ICV [RFC4106]\",\"0x{}\",\"NULL\",\"\"",
        sa.spi, sa.key
    )
}

/// The fields called `names` of every packet that `filter` selects; several values of one field are joined by
/// commas, a field that a packet has not is empty.
///
/// # Errors
/// If tshark fails.
pub fn fields(
    capture: &Path,
    keys: &Keys,
    arguments: &[&str],
    filter: &str,
    names: &[&str],
) -> Result<Vec<Vec<String>>> {
    let mut command = Command::new("tshark");
    command.arg("-n").arg("-r").arg(capture).args(arguments).args(["-Y", filter]);
    for preference in ["esp.enable_encryption_decode:TRUE", "esp.enable_authentication_check:TRUE"] {
        command.args(["-o", preference]);
    }
    for record in &keys.0 {
        command.arg("-o").arg(record);
    }
    command.args(["-T", "fields", "-E", "occurrence=a"]);
    for name in names {
        command.args(["-e", name]);
    }
    let text = run(&mut command)?;
    Ok(text.lines().map(|line| line.split('\t').map(ToOwned::to_owned).collect()).collect())
}

/// Every ESP packet of a capture. Payloads to the UDP port `opaque` are octets without a meaning: left to
/// itself, tshark guesses at protocols by their first octets, and takes some patterns for RTCP.
///
/// Packets that ICMP errors quote are not counted: a gateway that is not there is told of by its router.
///
/// # Errors
/// If tshark fails, or prints what is not expected.
pub fn esp(capture: &Path, keys: &Keys, opaque: u16) -> Result<Vec<Esp>> {
    let port = format!("udp.port=={opaque},data");
    let names = ["esp.spi", "esp.sequence", "frame.protocols", "esp.icv_good", "esp.icv_bad", "data.data"];
    let rows = fields(capture, keys, &["-d", &port], "esp && !icmp && !icmpv6", &names)?;
    rows.iter().map(|row| packet(row)).collect()
}

fn packet(row: &[String]) -> Result<Esp> {
    let [spi, sequence, layers, good, bad, payload] = row else { anyhow::bail!("{row:?}") };
    let says_yes = |text: &str| matches!(text, "1" | "True");
    ensure!(!says_yes(good) || !says_yes(bad), "good and bad at once: {row:?}");
    let octets = payload.as_bytes().chunks(2).map(|digits| {
        let digits = std::str::from_utf8(digits)?;
        u8::from_str_radix(digits, 16).with_context(|| format!("`{digits}` in {row:?}"))
    });
    let spi = u32::from_str_radix(spi.trim_start_matches("0x"), 16);
    Ok(Esp {
        spi: spi.with_context(|| format!("{row:?}"))?,
        sequence: sequence.parse().with_context(|| format!("{row:?}"))?,
        layers: layers.clone(),
        authentic: (says_yes(good) || says_yes(bad)).then_some(says_yes(good)),
        payload: octets.collect::<Result<_>>()?,
    })
}
