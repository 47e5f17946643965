//! SIP calls with media by SIPp, Debian's `sip-tester`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::netns::Netns;
use crate::process::Process;

/// What became of the calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Calls that ran to their end.
    pub ok: u64,
    /// Calls that failed.
    pub failed: u64,
}

/// The callee: answers and echoes the media.
///
/// # Errors
/// If SIPp does not start.
pub fn callee(netns: &Netns, address: IpAddr, folder: &Path) -> Result<Process> {
    let ip = address.to_string();
    let mut command = netns.command("sipp");
    command.current_dir(folder);
    command.args(["-sn", "uas", "-i", &ip, "-mi", &ip, "-mp", "6000", "-rtp_echo", "-nostdin"]);
    Process::start("callee", &mut command, &folder.join("callee.log"))
}

/// A running caller.
#[derive(Debug)]
pub struct Caller {
    process: Process,
    statistics: PathBuf,
    limit: Duration,
}

impl Caller {
    /// Starts `calls` calls at once from `from` to `to`, each playing SIPp's own `g711a.pcap`.
    ///
    /// # Errors
    /// If SIPp does not start.
    pub fn start(netns: &Netns, from: IpAddr, to: IpAddr, calls: u32, folder: &Path) -> Result<Self> {
        let statistics = folder.join("calls.csv");
        // The built-in scenario opens its media relative to the working directory.
        let media = folder.join("pcap");
        std::fs::create_dir_all(&media)?;
        // The built-in scenario also plays a DTMF digit from the same place.
        let recording = recording()?;
        for name in ["g711a.pcap", "dtmf_2833_1.pcap"] {
            std::fs::copy(recording.with_file_name(name), media.join(name))?;
        }
        let (ip, count) = (from.to_string(), calls.to_string());
        let target = if to.is_ipv6() { format!("[{to}]") } else { to.to_string() };
        let mut command = netns.command("sipp");
        command.current_dir(folder);
        command.args([
            "-sn", "uac_pcap", &target, "-i", &ip, "-mi", &ip, "-m", &count, "-r", &count, "-l", &count,
        ]);
        command.args(["-nostdin", "-timeout", "60", "-trace_stat", "-stf"]).arg(&statistics);
        let process = Process::start("caller", &mut command, &folder.join("caller.log"))?;
        let limit = Duration::from_secs(60 + u64::from(calls) / 10);
        Ok(Self { process, statistics, limit })
    }

    /// Whether calls are still going on.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Waits for the last call and reads SIPp's statistics.
    ///
    /// # Errors
    /// If SIPp does not end, or leaves no statistics.
    pub fn finish(mut self) -> Result<Calls> {
        self.process.wait(self.limit)?;
        let text = std::fs::read_to_string(&self.statistics)
            .with_context(|| format!("no statistics from SIPp:\n{}", self.process.tail()))?;
        let mut lines = text.lines();
        let names: Vec<&str> = lines.next().unwrap_or_default().split(';').collect();
        let values: Vec<&str> = lines.next_back().unwrap_or_default().split(';').collect();
        let column = |name: &str| -> Result<u64> {
            let at = names.iter().position(|column| *column == name);
            let value = at.and_then(|at| values.get(at)).and_then(|value| value.parse().ok());
            value.with_context(|| format!("SIPp's statistics have no {name}"))
        };
        Ok(Calls { ok: column("SuccessfulCall(C)")?, failed: column("FailedCall(C)")? })
    }
}

/// SIPp's recording of ten seconds of G.711, as Debian packages it.
fn recording() -> Result<PathBuf> {
    const PLACES: [&str; 3] = [
        "/usr/share/sip-tester/g711a.pcap",
        "/usr/share/sip-tester/pcap/g711a.pcap",
        "/usr/share/sipp/pcap/g711a.pcap",
    ];
    match PLACES.iter().map(PathBuf::from).find(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => bail!("g711a.pcap is in none of {PLACES:?}: is Debian's sip-tester installed?"),
    }
}
