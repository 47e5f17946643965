//! What became of the calls, in words and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;
use pollux_lab::gateway::Gateway;
use pollux_lab::rtp;
use pollux_lab::sipp::Calls;
use serde_json::{Value, json};

use crate::keying;
use crate::media::Counters;
use crate::outside::{Count, dscp_name};

/// One worker's work.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    packets: u64,
    cpu_s: f64,
}

/// One gateway's work.
#[derive(Clone, Debug)]
pub(crate) struct GatewaySummary {
    workers: Vec<Worker>,
    drops: BTreeMap<String, u64>,
}

/// All that the demo has to say.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    pub(crate) asked: u64,
    pub(crate) calls: Calls,
    pub(crate) media: Counters,
    pub(crate) rtp: rtp::Summary,
    pub(crate) outside: Count,
    pub(crate) keying: keying::Summary,
    pub(crate) gateways: [GatewaySummary; 2],
}

/// Reads a gateway's counters.
pub(crate) fn gateway(gateway: &Gateway) -> Result<GatewaySummary> {
    let rows = gateway.json("workers")?;
    let workers = rows.as_array().map_or(&[] as &[Value], Vec::as_slice);
    Ok(GatewaySummary {
        workers: workers
            .iter()
            .map(|row| Worker {
                packets: row["rx_packets"].as_u64().unwrap_or_default(),
                cpu_s: row["cpu_s"].as_f64().unwrap_or_default(),
            })
            .collect(),
        drops: gateway.drops()?,
    })
}

impl Summary {
    /// Every call completed, no RTP lost, nothing in clear.
    pub(crate) fn succeeded(&self) -> bool {
        self.calls.ok == self.asked
            && self.calls.failed == 0
            && self.lost() == 0
            && self.media.udp_errors == 0
            && self.outside.clear == 0
            && self.outside.esp > 0
    }

    fn lost(&self) -> u64 {
        self.media.rtp_sent.saturating_sub(self.media.rtp_received)
    }

    /// The summary in words.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, what: String| {
            let _ = writeln!(text, "{name:<12}{what}");
        };
        line("calls", format!("{} of {} completed, {} failed", self.calls.ok, self.asked, self.calls.failed));
        line(
            "rtp",
            format!(
                "{} packets sent, {} received, {} lost; {} refused by the hosts",
                self.media.rtp_sent,
                self.media.rtp_received,
                self.lost(),
                self.media.udp_errors
            ),
        );
        line(
            "jitter",
            format!(
                "{:.2} ms mean, {:.2} ms worst, over {} streams at the callee",
                self.rtp.jitter_ms_mean, self.rtp.jitter_ms_max, self.rtp.streams
            ),
        );
        let dscp: Vec<String> =
            self.outside.dscp.iter().map(|(dscp, count)| format!("{} {count}", dscp_name(*dscp))).collect();
        line(
            "outside",
            format!(
                "{} ESP packets ({} in UDP), {} IKE messages, {} packets in clear; DSCP: {}",
                self.outside.esp,
                self.outside.in_udp,
                self.outside.ike,
                self.outside.clear,
                dscp.join(", ")
            ),
        );
        for (what, value) in self.keying.lines() {
            line(what, value);
        }
        for (name, gateway) in ["gateway a", "gateway b"].iter().zip(&self.gateways) {
            for (index, worker) in gateway.workers.iter().enumerate() {
                line(name, format!("worker {index}: {} packets, {:.2} CPU s", worker.packets, worker.cpu_s));
            }
            let drops: Vec<String> =
                gateway.drops.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
            line(
                "",
                format!("drops: {}", if drops.is_empty() { "none".to_owned() } else { drops.join(", ") }),
            );
        }
        text
    }

    /// The summary as one JSON object.
    pub(crate) fn json(&self) -> Value {
        let mut drops: BTreeMap<&str, u64> = BTreeMap::new();
        for (reason, count) in self.gateways.iter().flat_map(|gateway| &gateway.drops) {
            *drops.entry(reason).or_default() += count;
        }
        json!({
            "calls_ok": self.calls.ok,
            "calls_failed": self.calls.failed,
            "rtp_sent": self.media.rtp_sent,
            "rtp_received": self.media.rtp_received,
            "rtp_lost": self.lost(),
            "jitter_ms": self.rtp.jitter_ms_mean,
            "clear_outside": self.outside.clear,
            "esp_outside": self.outside.esp,
            "drops": drops,
            "keying": self.keying.name,
            "child_rekeys": self.keying.child_rekeys,
            "ike_rekeys": self.keying.ike_rekeys,
            "lost_to_rekey": self.keying.lost_to_rekey,
            "rekey_gap_us": self.keying.rekey_gap_us,
        })
    }
}
