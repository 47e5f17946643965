//! tshark: authenticates and decrypts ESP (32-bit sequence numbers) and IKE, given the keys.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::scapy::Sa;
use crate::command::run;

/// What tshark says of the ESP packets of a capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// ICVs that hold.
    pub good: u64,
    /// ICVs that do not.
    pub bad: u64,
    /// Packets whose trailer it could read.
    pub decrypted: u64,
}

/// Lets tshark check and decrypt a capture. SAs with ESN are left out: tshark 4.0 has no word for them.
///
/// # Errors
/// If tshark fails.
pub fn verify(capture: &Path, sas: &[Sa]) -> Result<Verdict> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(capture).args(["-o", "esp.enable_encryption_decode:TRUE"]);
    command.args(["-o", "esp.enable_authentication_check:TRUE"]);
    for sa in sas.iter().filter(|sa| !sa.esn) {
        let family = if sa.outer[0].contains(':') { "IPv6" } else { "IPv4" };
        command.arg("-o").arg(format!(
            "uat:esp_sa:\"{family}\",\"{}\",\"{}\",\"0x{:08x}\",\"AES-GCM with 16 octet ICV [RFC4106]\",\"0x{}\",\"NULL\",\"\"",
            sa.outer[0], sa.outer[1], sa.spi, sa.key
        ));
    }
    command.args([
        "-T",
        "fields",
        "-E",
        "separator=;",
        "-e",
        "esp.icv_good",
        "-e",
        "esp.icv_bad",
        "-e",
        "data.len",
    ]);
    let mut verdict = Verdict::default();
    for line in run(&mut command)?.lines() {
        let fields: Vec<&str> = line.split(';').collect();
        verdict.good += u64::from(fields.first() == Some(&"1"));
        verdict.bad += u64::from(fields.get(1) == Some(&"1"));
        verdict.decrypted += u64::from(fields.get(2).is_some_and(|protocol| !protocol.is_empty()));
    }
    Ok(verdict)
}
