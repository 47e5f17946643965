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
    Up,
    /// Stop both daemons and take everything away: XDP program, kernel routes, pollux0. Nothing is protected then.
    Down,
    /// Apply the difference between the configuration file and what runs.
    Reload,
    /// Read a configuration and its secrets; every mistake is one line.
    Check {
        /// The file; that of `--config` where it is left out.
        file: Option<PathBuf>,
    },
    /// Both daemons at a glance.
    Status,
    /// The Security Associations of the data plane, with counters.
    Sas,
    /// The Security Policy Database, in order.
    Policies,
    /// The workers: core, packets, CPU time, hand-overs.
    Workers,
    /// The interfaces and queues: XDP mode, zero-copy, kernel counters.
    Ports,
    /// Dropped packets by reason, with the names of /proc/net/xfrm_stat.
    Drops {
        /// Also reasons that never happened.
        #[arg(long)]
        all: bool,
    },
    /// What would become of a packet: policy, SA, next hop or drop reason.
    Explain(Flow),
    /// Events as they happen, until Ctrl-C.
    Events {
        /// Print so many past events first.
        #[arg(long, default_value_t = 0)]
        past: u32,
    },
    /// Past events.
    Log {
        /// How many.
        #[arg(long, default_value_t = 200)]
        lines: u32,
    },
    /// IKE connections as configured.
    ListConns,
    /// IKE SAs and their Child SAs.
    ListSas,
    /// Set up a child, and its IKE SA where there is none.
    Initiate {
        /// CHILD or CONNECTION/CHILD.
        #[arg(long)]
        child: String,
        /// Seconds to wait for it; 0 does not wait.
        #[arg(long, default_value_t = 15)]
        timeout: u64,
    },
    /// Delete a Child SA, or an IKE SA with all its children.
    Terminate(Which),
    /// Rekey a Child SA or an IKE SA.
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
    /// udp, tcp, icmp, icmpv6, sctp, esp, or a number.
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
    Ok(match text {
        "icmp" => 1,
        "tcp" => 6,
        "udp" => 17,
        "esp" => 50,
        "icmpv6" => 58,
        "sctp" => 132,
        number => {
            return number
                .parse()
                .map_err(|_| format!("`{text}` is no protocol; write udp, tcp or a number"));
        }
    })
}
