//! Answers for the operator, and for a control process that reads back what is installed.

use std::time::{Duration, Instant};

use pollux_abi::command::{Direction, PolicyAction};
use pollux_abi::layout::ABI_VERSION;
use pollux_abi::{DropReason, SaCounters};
use pollux_config::api::{
    DataplaneRequest, DataplaneStatus, DropRow, DropSite, Explanation, FlowQuery, FrameLedger, Latency,
    PolicyRow, PortRow, Reply, SaRow, Step, WorkerRow, XskStats,
};
use pollux_ebpf::Disposition;
use pollux_esp::Outcome;
use pollux_packet::Flow;
use pollux_port::{CopyMode, PortStats};
use pollux_worker::forward::fib::{Fib, NextHop};
use pollux_worker::housekeeping::ToWorker;
use pollux_worker::monotonic_ns;
use pollux_worker::stats::{PortCounters, WorkerLedger};
use serde::Serialize;

use super::Housekeeper;
use crate::registry::Installed;

/// How long a worker may take to answer a question; it looks at its queue in every round.
const ANSWER_PATIENCE: Duration = Duration::from_millis(500);

impl Housekeeper {
    /// Answers what the operator asks.
    pub(super) fn answer_queries(&mut self) {
        // Taken out so that answers can borrow the rest.
        let Some(mut queries) = self.queries.take() else { return };
        queries.serve(|request| match request {
            Ok(request) => self.answer(&request),
            Err(error) => text(&Reply::<()>::Error(error)),
        });
        self.queries = Some(queries);
    }

    fn answer(&mut self, request: &DataplaneRequest) -> String {
        match request {
            DataplaneRequest::Status => text(&Reply::Ok(self.status())),
            DataplaneRequest::Workers => text(&Reply::Ok(self.worker_rows())),
            DataplaneRequest::Ports => text(&Reply::Ok(self.port_rows())),
            DataplaneRequest::Drops => text(&Reply::Ok(self.drop_rows())),
            DataplaneRequest::Sas => text(&Reply::Ok(self.sa_rows())),
            DataplaneRequest::Policies => {
                text(&Reply::Ok(self.policies.iter().map(PolicyRow::from).collect::<Vec<_>>()))
            }
            DataplaneRequest::Explain(query) => match self.explain(query) {
                Ok(explanation) => text(&Reply::Ok(explanation)),
                Err(error) => text(&Reply::<()>::Error(error)),
            },
            DataplaneRequest::Stop => {
                self.stopping = true;
                text(&Reply::Ok(()))
            }
        }
    }

    fn status(&self) -> DataplaneStatus {
        DataplaneStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            abi_version: ABI_VERSION,
            pid: std::process::id(),
            instance: self.instance,
            uptime_s: self.since.elapsed().as_secs(),
            netns: self.config.dataplane.netns.clone(),
            control_pid: self.attachment.as_ref().map(pollux_shm::Attachment::pid),
            workers: self.attach_reply.workers,
            spi_index_width: self.attach_reply.spi_index_width,
            sa_capacity: self.attach_reply.sa_capacity,
            sas_inbound: self.registry.count(Direction::Inbound),
            sas_outbound: self.registry.count(Direction::Outbound),
            policies: u32::try_from(self.policies.len()).unwrap_or(u32::MAX),
            aead: self.aead.to_owned(),
            effective: self.effective.clone(),
            frames: ledger(self.workers.iter().map(|worker| worker.counters.ledger())),
            drops: self.drop_rows().iter().map(|row| row.packets).sum(),
        }
    }

    fn worker_rows(&self) -> Vec<WorkerRow> {
        let owned = |id| {
            let all = self.registry.sorted();
            u32::try_from(all.iter().filter(|one| one.spec.owner.0 == id).count()).unwrap_or(u32::MAX)
        };
        let row = |(worker, id): (&super::WorkerLink, u16)| {
            let counters = &worker.counters;
            WorkerRow {
                worker: id,
                core: worker.core.map(|core| core.0),
                numa_node: worker.core.and_then(crate::affinity::numa_node),
                state: worker.state().to_owned(),
                cpu_s: worker.cpu_s(),
                rounds: counters.rounds.value(),
                idle_rounds: counters.idle_rounds.value(),
                rx_packets: counters.rx_packets.value(),
                tx_packets: counters.tx_packets.value(),
                sealed: worker.engine.encapsulated.value(),
                opened: worker.engine.decapsulated.value(),
                handed_over: worker.engine.handed_over.value(),
                taken_over: counters.taken_over.value(),
                held_early: counters.held_early.value(),
                csum_completed: worker.engine.csum_completed.value(),
                consumed: worker.engine.icmp_errors.value(),
                drops: all_drops(&counters.drops),
                stalls: worker.stalls + counters.stalls.value(),
                sas: owned(id),
                frames: ledger(std::iter::once(counters.ledger())),
                round: Latency {
                    p50_ns: counters.round_ns.quantile(500),
                    p99_ns: counters.round_ns.quantile(990),
                    p999_ns: counters.round_ns.quantile(999),
                    max_ns: counters.round_ns.max(),
                },
            }
        };
        self.workers.iter().zip(0u16..).map(row).collect()
    }

    fn port_rows(&self) -> Vec<PortRow> {
        let mut rows = Vec::new();
        for device in &self.devices {
            for (worker, id) in self.workers.iter().zip(0u16..) {
                let stats = worker.counters.ports[usize::from(device.slot.0)].stats();
                let socket = device.sockets.get(usize::from(id));
                let link = device.link.as_ref();
                rows.push(PortRow {
                    name: device.name.clone(),
                    ifindex: link.map_or(0, |link| link.index.0),
                    role: device.role.name().to_owned(),
                    queue: u32::from(id),
                    worker: id,
                    up: link.is_some_and(|link| link.up && link.carrier) && socket.is_some(),
                    mtu: link.map_or(0, |link| link.mtu),
                    mac: link.map_or_else(String::new, |link| mac_text(link.mac.0)),
                    xdp: device.attached.as_ref().map_or_else(String::new, |xdp| xdp.mode.to_string()),
                    zero_copy: socket
                        .and_then(|socket| socket.copy_mode.as_ref())
                        .is_some_and(|mode| mode.effective == CopyMode::ZeroCopy),
                    napi_id: socket.and_then(|socket| socket.napi_id).unwrap_or(0),
                    rx_packets: stats.rx_packets,
                    rx_bytes: stats.rx_bytes,
                    tx_packets: stats.tx_packets,
                    tx_bytes: stats.tx_bytes,
                    kicks: stats.kicks,
                    xsk: xsk_stats(&stats),
                });
            }
        }
        rows
    }

    fn drop_rows(&self) -> Vec<DropRow> {
        let mut rows: Vec<DropRow> = DropReason::ALL
            .iter()
            .map(|&reason| DropRow {
                reason: reason.name().to_owned(),
                site: DropSite::Worker,
                packets: self.workers.iter().map(|worker| worker.counters.drops.value(reason)).sum(),
                xfrm: reason.xfrm_name().map(str::to_owned),
                text: reason.text().to_owned(),
            })
            .collect();
        let all = self.workers.iter().flat_map(|worker| &worker.counters.ports).map(PortCounters::stats);
        let sum = all.fold(PortStats::default(), |mut sum, stats| {
            // The kernel counts a frame that found no buffer there too (`__xsk_rcv`).
            sum.xsk_rx_dropped += stats.xsk_rx_dropped.saturating_sub(stats.xsk_rx_fill_ring_empty);
            sum.xsk_rx_invalid_descs += stats.xsk_rx_invalid_descs;
            sum.xsk_rx_ring_full += stats.xsk_rx_ring_full;
            sum.xsk_rx_fill_ring_empty += stats.xsk_rx_fill_ring_empty;
            sum.xsk_tx_invalid_descs += stats.xsk_tx_invalid_descs;
            sum
        });
        for (name, packets, text) in [
            (
                "xsk_rx_dropped",
                sum.xsk_rx_dropped,
                "The socket could not take the frame: too long for a UMEM chunk",
            ),
            ("xsk_rx_invalid_descs", sum.xsk_rx_invalid_descs, "The fill ring named no frame"),
            (
                "xsk_rx_ring_full",
                sum.xsk_rx_ring_full,
                "The receive ring was full: the worker is too slow or stalled",
            ),
            (
                "xsk_rx_fill_ring_empty_descs",
                sum.xsk_rx_fill_ring_empty,
                "No frame to receive into: the worker stalled, or its frames are all in use",
            ),
            ("xsk_tx_invalid_descs", sum.xsk_tx_invalid_descs, "The kernel refused a frame to send"),
        ] {
            rows.push(DropRow {
                reason: name.to_owned(),
                site: DropSite::Xsk,
                packets,
                xfrm: None,
                text: text.to_owned(),
            });
        }
        rows.extend(self.xdp_rows());
        rows.extend(self.guard_rows());
        rows
    }

    /// What the XDP program drops, summed over the roles of interfaces.
    fn xdp_rows(&self) -> Vec<DropRow> {
        let verdicts = match self.steering.verdicts() {
            Ok(verdicts) => verdicts,
            Err(error) => {
                tracing::error!(%error, "verdicts-not-read");
                return Vec::new();
            }
        };
        let mut rows: Vec<DropRow> = Vec::new();
        for count in verdicts.iter().filter(|count| count.verdict.disposition() == Disposition::Dropped) {
            let name = count.verdict.name();
            match rows.iter_mut().find(|row| row.reason == name) {
                Some(row) => row.packets += count.frames,
                None => rows.push(DropRow {
                    reason: name.to_owned(),
                    site: DropSite::Xdp,
                    packets: count.frames,
                    xfrm: None,
                    text: count.verdict.text().to_owned(),
                }),
            }
        }
        rows
    }

    fn sa_rows(&self) -> Vec<SaRow> {
        let now_ns = monotonic_ns();
        let none = SaCounters::default();
        let row = |installed: &Installed| {
            let spec = &installed.spec;
            let counters = self.sa_counters.row(spec.direction, spec.index).unwrap_or(&none);
            SaRow::new(spec, installed.fingerprint, installed.since.elapsed().as_secs(), now_ns, counters)
        };
        self.registry.sorted().into_iter().map(row).collect()
    }

    fn ask(&mut self, worker: usize, flow: Flow, direction: Direction) -> Option<pollux_esp::Explanation> {
        self.explained = None;
        self.workers.get_mut(worker)?.send(ToWorker::Explain(Box::new(flow), direction));
        let requested = Instant::now();
        while self.explained.is_none() && requested.elapsed() < ANSWER_PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
            self.hear_workers();
        }
        self.explained.take()
    }

    fn explain(&mut self, query: &FlowQuery) -> Result<Explanation, String> {
        let flow = Flow::new(
            query.source,
            query.destination,
            query.protocol,
            query.source_port,
            query.destination_port,
        )
        .ok_or("source and destination have different IP versions")?;
        let silent = "worker 0 did not answer; `pollux workers` says what it is doing";
        let mut direction = Direction::Outbound;
        let mut found = self.ask(0, flow, direction).ok_or(silent)?;
        if found.policy.is_none() {
            let inbound = self.ask(0, flow, Direction::Inbound).ok_or(silent)?;
            if inbound.policy.is_some() {
                (direction, found) = (Direction::Inbound, inbound);
            }
        }
        if let Some(owner) = found.sa.map(|sa| usize::from(sa.owner.0)).filter(|&owner| owner != 0) {
            found = self.ask(owner, flow, direction).unwrap_or(found);
        }
        Ok(self.in_words(&flow, direction, &found))
    }

    fn in_words(&self, flow: &Flow, direction: Direction, found: &pollux_esp::Explanation) -> Explanation {
        let mut words = Explanation {
            direction: pollux_config::api::direction_name(direction).to_owned(),
            policy: found.policy.map(|(id, _)| id.0),
            sa: found.sa.map(|sa| sa.id.0),
            spi: found.sa.map(|sa| sa.spi.get()),
            ..Explanation::default()
        };
        let mut step = |stage: &str, text: String| words.steps.push(Step { stage: stage.to_owned(), text });
        let (inside, outside) = match direction {
            Direction::Outbound => (flow.source(), flow.destination()),
            Direction::Inbound => (flow.destination(), flow.source()),
        };
        let held =
            self.pairs.iter().find(|(local, remote)| local.contains(&inside) && remote.contains(&outside));
        step(
            "xdp",
            match held {
                Some((local, remote)) => {
                    format!("{local} and {remote} are held: to a worker, never to the kernel")
                }
                None => "no held pair of prefixes: left to the kernel".to_owned(),
            },
        );
        if held.is_some() && is_routed_multicast(flow.destination()) {
            let verdict = pollux_ebpf::XdpVerdict::DropMulticast;
            step("drop", format!("{verdict}: {}", verdict.text()));
            "drop".clone_into(&mut words.verdict);
            words.drop = Some(verdict.name().to_owned());
            return words;
        }
        if let Some((_, action)) = found.policy {
            step("policy", action_in_words(action));
            if direction == Direction::Inbound {
                step("clear", self.in_clear(action, flow));
            }
        } else {
            step("policy", "no policy matches".to_owned());
        }
        let mut towards = flow.destination();
        if let Some(sa) = found.sa {
            let mtu = sa.inner_mtu.map_or(String::new(), |mtu| format!(", inner packets up to {mtu} octets"));
            step("sa", format!("SPI {} on worker {}{mtu}", sa.spi, sa.owner));
            if let (Direction::Outbound, Some(installed)) = (direction, self.registry.get(sa.id)) {
                towards = installed.spec.remote;
            }
        }
        let way = self.way_to(towards);
        let verdict = match (held, found.outcome) {
            (None, _) => "kernel",
            (_, Outcome::Protected) => "protect",
            (_, Outcome::Bypassed) => "bypass",
            (_, Outcome::Dropped(reason)) => {
                step("drop", format!("{reason}: {}", reason.text()));
                words.drop = Some(reason.name().to_owned());
                "drop"
            }
        };
        words.verdict.push_str(verdict);
        if words.drop.is_none() {
            words.steps.push(Step { stage: "route".to_owned(), text: format!("{towards}: {way}") });
            words.next_hop = Some(way);
        }
        words
    }

    /// What becomes of a packet from the peer's side, as it is and without ESP around it.
    fn in_clear(&self, action: PolicyAction, flow: &Flow) -> String {
        let PolicyAction::Protect(reqid) = action else {
            return match action {
                PolicyAction::Bypass => "may arrive in clear".to_owned(),
                _ => format!("dropped: {}", DropReason::InPolicyDiscard),
            };
        };
        let inbound = |installed: &&Installed| {
            installed.spec.direction == Direction::Inbound && installed.spec.reqid == reqid
        };
        let spis: Vec<String> =
            self.registry.sorted().into_iter().filter(inbound).map(|sa| sa.spec.spi.to_string()).collect();
        let under = if spis.is_empty() {
            "no SA is installed".to_owned()
        } else {
            format!("SPI {}", spis.join(", "))
        };
        let reason = DropReason::ClearForProtected;
        format!("{} must arrive in ESP ({under}); in clear it is dropped: {reason}", flow.source())
    }

    fn way_to(&self, destination: std::net::IpAddr) -> String {
        let slot = |link| self.devices.iter().find(|device| device.is(link)).map(|device| device.slot);
        let name = |slot| {
            let device = self.devices.iter().find(|device| device.slot == slot);
            device.map_or("a port that is gone", |device| device.name.as_str())
        };
        match Fib::compile(&self.mirror.forwarding(slot)).lookup(destination) {
            NextHop::Local => "the gateway itself, through pollux0".to_owned(),
            NextHop::Kernel => "through pollux0 to the kernel, which forwards it".to_owned(),
            NextHop::OnLink(port) => format!("{} directly", name(port)),
            NextHop::Via(port, router) => format!("{} via {router}", name(port)),
            NextHop::Unreachable => "no route".to_owned(),
        }
    }
}

/// Multicast that routers forward: the XDP program drops it inside a protected pair.
fn is_routed_multicast(group: std::net::IpAddr) -> bool {
    match group {
        std::net::IpAddr::V4(group) => group.is_multicast() && group.octets()[..3] != [224, 0, 0],
        // The scope (RFC 4291 §2.7): 1 is the interface, 2 the link.
        std::net::IpAddr::V6(group) => group.is_multicast() && group.octets()[1] & 0xf > 2,
    }
}

fn text<T: Serialize>(reply: &Reply<T>) -> String {
    serde_json::to_string(reply).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
}

fn mac_text(octets: [u8; 6]) -> String {
    octets.map(|octet| format!("{octet:02x}")).join(":")
}

fn all_drops(drops: &pollux_abi::DropCounters) -> u64 {
    DropReason::ALL.iter().map(|&reason| drops.value(reason)).sum()
}

fn xsk_stats(stats: &PortStats) -> XskStats {
    XskStats {
        rx_dropped: stats.xsk_rx_dropped,
        rx_invalid_descs: stats.xsk_rx_invalid_descs,
        tx_invalid_descs: stats.xsk_tx_invalid_descs,
        rx_ring_full: stats.xsk_rx_ring_full,
        rx_fill_ring_empty_descs: stats.xsk_rx_fill_ring_empty,
        tx_ring_empty_descs: stats.xsk_tx_ring_empty,
    }
}

/// The frames of some workers together. What one worker has handed to another is in the other's queue, so
/// that only all workers together must come out even.
fn ledger(ledgers: impl Iterator<Item = WorkerLedger>) -> FrameLedger {
    let mut sum = WorkerLedger::default();
    for one in ledgers {
        sum.pool = sum.pool.plus(&one.pool);
        sum.held += one.held;
    }
    let rings = u64::try_from(sum.pool.in_rings).unwrap_or(0);
    let (total, free) = (u64::from(sum.pool.home), u64::from(sum.pool.free));
    let in_flight = sum.held + u64::from(sum.pool.foreign);
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    FrameLedger {
        total,
        free,
        rings,
        in_flight,
        missing: signed(total) - signed(free) - sum.pool.in_rings - signed(in_flight),
    }
}

fn action_in_words(action: PolicyAction) -> String {
    match action {
        PolicyAction::Protect(reqid) => format!("protect with reqid {reqid}"),
        PolicyAction::Bypass => "bypass".to_owned(),
        PolicyAction::Discard => "discard".to_owned(),
    }
}
