//! The command line. Exit status: 0 done, 1 failed, 2 misuse.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Runs and watches a Pollux IPsec gateway.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:
  pollux check /etc/pollux/pollux.toml
  pollux up
  pollux sas --json
  pollux explain 10.1.0.10:40000 10.2.0.10:6000 udp
  pollux rekey --child media

Exit status: 0 done, 1 failed, 2 misuse."
)]
pub(crate) struct Arguments {
    /// The configuration file; it also says where the sockets are.
    #[arg(long, global = true, default_value = "/etc/pollux/pollux.toml")]
    pub(crate) config: PathBuf,
    /// Print JSON, with the names of the tables.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Start both daemons and say what was got beside what was asked.
    #[command(after_help = "Example:
  pollux up --config /etc/pollux/pollux.toml")]
    Up,
    /// Stop both daemons and take everything away: XDP program, kernel routes, pollux0. Nothing is protected then.
    #[command(after_help = "Example:
  pollux down")]
    Down,
    /// Close what a configuration protects before the network is up; the data plane takes over, `down` opens it again.
    #[command(after_help = "Examples:
  pollux guard /etc/pollux/pollux.toml
  systemctl enable pollux-guard.service")]
    Guard {
        /// The file; that of `--config` where it is left out.
        file: Option<PathBuf>,
    },
    /// Apply the difference between the configuration file and what runs.
    #[command(after_help = "Examples:
  pollux check && pollux reload
  pollux reload --json")]
    Reload,
    /// Read a configuration and its secrets; every mistake is one line.
    #[command(after_help = "Examples:
  pollux check /etc/pollux/pollux.toml
  pollux check new.toml --json")]
    Check {
        /// The file; that of `--config` where it is left out.
        file: Option<PathBuf>,
    },
    /// Both daemons at a glance.
    #[command(after_help = "Examples:
  pollux status
  pollux status --json | jq .dataplane.frames")]
    Status,
    /// The Security Associations of the data plane, with counters.
    #[command(after_help = "Examples:
  pollux sas
  pollux sas --json | jq '.[] | select(.icv_errors > 0)'")]
    Sas,
    /// The Security Policy Database, in order.
    #[command(after_help = "Example:
  pollux policies")]
    Policies,
    /// The workers: core, packets, CPU time, hand-overs.
    #[command(after_help = "Examples:
  pollux workers
  pollux workers --json | jq .[].handed_over")]
    Workers,
    /// The interfaces and queues: XDP mode, zero-copy, kernel counters.
    #[command(after_help = "Example:
  pollux ports")]
    Ports,
    /// Dropped packets by reason, with the names of /proc/net/xfrm_stat.
    #[command(after_help = "Examples:
  pollux drops
  pollux drops --all --json")]
    Drops {
        /// Also reasons that never happened.
        #[arg(long)]
        all: bool,
    },
    /// What would become of a packet: policy, SA, next hop or drop reason.
    #[command(after_help = "Examples:
  pollux explain 10.1.0.10:40000 10.2.0.10:6000 udp
  pollux explain [fd01::10]:5060 [fd02::10]:5060 tcp --json
  pollux explain 10.1.0.10 10.2.0.10 icmp")]
    Explain(Flow),
    /// Events as they happen, until Ctrl-C.
    #[command(after_help = r#"Examples:
  pollux events --past 20
  pollux events --json | jq -c 'select(.level != "info")'"#)]
    Events {
        /// Print so many past events first.
        #[arg(long, default_value_t = 0)]
        past: u32,
    },
    /// Past events.
    #[command(after_help = "Example:
  pollux log --lines 50")]
    Log {
        /// How many.
        #[arg(long, default_value_t = 200)]
        lines: u32,
    },
    /// IKE connections as configured.
    #[command(after_help = "Example:
  pollux list-conns")]
    ListConns,
    /// IKE SAs and their Child SAs.
    #[command(after_help = "Example:
  pollux list-sas --json")]
    ListSas,
    /// Set up a child, and its IKE SA where there is none.
    #[command(after_help = "Examples:
  pollux initiate --child media
  pollux initiate --child site-b/media --timeout 0")]
    Initiate {
        /// CHILD or CONNECTION/CHILD.
        #[arg(long)]
        child: String,
        /// Seconds to wait for it; 0 does not wait.
        #[arg(long, default_value_t = 15)]
        timeout: u64,
    },
    /// Delete a Child SA, or an IKE SA with all its children.
    #[command(after_help = "Examples:
  pollux terminate --child media
  pollux terminate --ike site-b")]
    Terminate(Which),
    /// Rekey a Child SA or an IKE SA.
    #[command(after_help = "Examples:
  pollux rekey --child media
  pollux rekey --ike site-b")]
    Rekey(Which),
}

/// A child or an IKE SA.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// Child by name.
    #[arg(long)]
    pub(crate) child: Option<String>,
    /// Connection by name.
    #[arg(long)]
    pub(crate) ike: Option<String>,
}

/// A flow, as its packets would arrive.
#[derive(Args, Debug)]
pub(crate) struct Flow {
    /// Source: ADDRESS or ADDRESS:PORT.
    #[arg(value_parser = endpoint)]
    pub(crate) source: (IpAddr, u16),
    /// Destination: ADDRESS or ADDRESS:PORT.
    #[arg(value_parser = endpoint)]
    pub(crate) destination: (IpAddr, u16),
    /// udp, tcp, icmp, icmpv6, sctp, esp, or a number from 0 to 255.
    #[arg(default_value = "udp", value_parser = protocol)]
    pub(crate) protocol: u8,
}

fn endpoint(text: &str) -> Result<(IpAddr, u16), String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok((address, 0));
    }
    let socket = text.parse::<SocketAddr>();
    socket
        .map(|socket| (socket.ip(), socket.port()))
        .map_err(|_| format!("`{text}` is no address; write 10.1.0.10, 10.1.0.10:5060 or [fd01::10]:5060"))
}

fn protocol(text: &str) -> Result<u8, String> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "icmp" => 1,
        "tcp" => 6,
        "udp" => 17,
        "esp" => 50,
        "icmpv6" => 58,
        "sctp" => 132,
        number => {
            return number.parse().map_err(|_| {
                format!("`{text}` is no protocol; write udp, tcp, icmp, icmpv6, sctp, esp or a number from 0 to 255")
            });
        }
    })
}
