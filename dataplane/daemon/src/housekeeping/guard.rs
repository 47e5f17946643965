//! What other programs undo comes back: the guard at the exit, rules and routes, the XDP program, `pollux0`.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use pollux_abi::{Event, LostThing};
use pollux_config::api::{DropRow, DropSite};
use pollux_ebpf::Role;
use pollux_shm::Attachment;
use pollux_worker::housekeeping::ToWorker;
use rustix::net::sockopt::{socket_cookie, socket_protocol};
use rustix::net::{getsockname, ipproto};

use super::Housekeeper;
use crate::guard_at_exit;
use crate::host_port::HostPort;
use crate::locks::IKE_MARK;

/// How often the links are looked at: the kernel tells nobody that one was detached.
const PACE: Duration = Duration::from_secs(1);

/// How often rules and routes are compared with the kernel's at most: our own changes are announced as well.
const RULES_PACE: Duration = Duration::from_millis(200);

impl Housekeeper {
    /// Follows the interfaces: a new one is guarded as soon as netlink names it; until then, netfilter's layer is.
    pub(super) fn guard_exits(&mut self) {
        if let Err(error) = self.guard.set_host_link(guard_at_exit::host_link(&self.mirror)) {
            tracing::error!(%error, "guard-not-told-of-pollux0");
        }
        match self.guard.attach_egress(&guard_at_exit::exits(self.mirror.links())) {
            Ok(renewed) => {
                for interface in renewed {
                    tracing::info!(interface, "interface-guarded");
                }
            }
            Err(error) => tracing::error!(%error, "guard-not-attached"),
        }
    }

    /// Hears whether somebody has touched rules or routes of ours, and compares with what they should be.
    pub(super) fn follow_rules(&mut self) {
        match self.rules.changed() {
            Ok(changed) => self.rules_touched |= changed,
            Err(error) => {
                tracing::error!(%error, "netlink-failed");
                self.rules_touched = true;
            }
        }
        if self.rules_touched && self.rules_seen.elapsed() >= RULES_PACE {
            self.rules_touched = false;
            self.rules_seen = Instant::now();
            self.renew_locks();
        }
    }

    /// Looks once a second after what others can take away without a word to us, and puts it back: the guard, the XDP
    /// program of each port, `pollux0` and its settings.
    pub(super) fn look_after(&mut self) {
        if self.looked_after.elapsed() < PACE {
            return;
        }
        self.looked_after = Instant::now();
        self.watch_ages();
        match self.guard.attach_netfilter() {
            Ok(restored) => self.report_lost(LostThing::Guard, u32::from(restored)),
            Err(error) => tracing::error!(%error, "guard-not-attached"),
        }
        match self.guard.attach_egress(&guard_at_exit::exits(self.mirror.links())) {
            Ok(renewed) => {
                self.report_lost(LostThing::Guard, u32::try_from(renewed.len()).unwrap_or(u32::MAX));
            }
            Err(error) => tracing::error!(%error, "guard-not-attached"),
        }
        for at in 0..self.devices.len() {
            match self.devices[at].attach_again(&mut self.steering, &self.config.dataplane) {
                Ok(restored) => self.report_lost(LostThing::XdpProgram, u32::from(restored)),
                Err(error) => self.complain(at, &error.to_string()),
            }
        }
        self.look_after_host_port();
    }

    /// Tells the owners of SAs that have become too old: no control process is needed for that.
    fn watch_ages(&mut self) {
        for (owner, sa, hard) in self.registry.aged(Instant::now()) {
            if let Some(worker) = self.workers.get_mut(usize::from(owner.0)) {
                worker.send(ToWorker::Age { sa, hard });
            }
        }
    }

    fn complain(&mut self, at: usize, text: &str) {
        let device = &mut self.devices[at];
        if device.complaint.as_deref() != Some(text) {
            tracing::error!(port = %device.name, error = %text, "xdp-program-not-restored");
            device.complaint = Some(text.to_owned());
        }
    }

    fn look_after_host_port(&mut self) {
        let Some(host) = &self.host else { return };
        let (mtu, known) = (host.kernel.mtu, host.kernel.index);
        let is_up = |index| self.mirror.link(index).is_some_and(|link| link.up);
        if is_up(known) && is_up(host.ours.index) {
            let restored = HostPort::restore_settings();
            self.report_lost(LostThing::Settings, restored);
            return;
        }
        match HostPort::ensure(&mut self.rtnl, u32::from(self.config.dataplane.queues), mtu) {
            Ok(host) => {
                let mac = host.kernel.mac;
                self.host = Some(host);
                if let Some(device) = self.devices.iter_mut().find(|device| device.role == Role::Host) {
                    device.peer = Some(mac);
                }
                self.report_lost(LostThing::HostPort, 1);
            }
            Err(error) => tracing::error!(%error, "pollux0-not-restored"),
        }
    }

    /// Says that something of ours had been taken away by another program, and is back.
    pub(super) fn report_lost(&mut self, what: LostThing, count: u32) {
        if count == 0 {
            return;
        }
        tracing::warn!(what = what.text(), count, "restored-what-another-program-removed");
        if self.ring.is_some() {
            self.events.push_back(Event::Restored { what, count });
        }
    }

    /// Takes control's IKE sockets: they are marked, so that routes lead them past our tables, and the guard learns
    /// their cookies and ports from the kernel.
    pub(super) fn take_ike_sockets(&mut self) {
        let Some(sockets) = self.attachment.as_ref().and_then(Attachment::take_sockets) else { return };
        let known: Vec<(u64, u16)> = sockets.iter().filter_map(ike_socket).collect();
        for socket in &sockets {
            if let Err(error) = setsockopt(socket, sockopt::Mark, &IKE_MARK) {
                tracing::warn!(%error, "ike-socket-not-marked");
            }
        }
        tracing::info!(sockets = known.len(), "ike-sockets-known");
        if let Err(error) = self.guard.set_ike_sockets(&known) {
            tracing::error!(%error, "guard-not-told-of-sockets");
        }
    }

    /// What the guard has dropped, summed over its layers.
    pub(super) fn guard_rows(&self) -> Vec<DropRow> {
        let counts = match self.guard.counts() {
            Ok(counts) => counts,
            Err(error) => {
                tracing::error!(%error, "guard-counters-not-read");
                return Vec::new();
            }
        };
        let mut rows: Vec<DropRow> = Vec::new();
        for count in counts.iter().filter(|count| count.verdict.is_drop()) {
            let name = count.verdict.name();
            match rows.iter_mut().find(|row| row.reason == name) {
                Some(row) => row.packets += count.packets,
                None => rows.push(DropRow {
                    reason: name.to_owned(),
                    site: DropSite::Guard,
                    packets: count.packets,
                    xfrm: None,
                    text: count.verdict.text().to_owned(),
                }),
            }
        }
        rows
    }
}

/// Cookie and port of a UDP socket; nothing of any other.
fn ike_socket(socket: &OwnedFd) -> Option<(u64, u16)> {
    let is_udp = socket_protocol(socket).ok()? == Some(ipproto::UDP);
    let port = SocketAddr::try_from(getsockname(socket).ok()?).ok()?.port();
    let cookie = socket_cookie(socket).ok()?;
    (is_udp && port != 0).then_some((cookie, port))
}
