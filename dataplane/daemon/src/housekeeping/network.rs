//! What changes in the network: told to the workers, the XDP program and the locks.

use std::collections::BTreeSet;
use std::net::IpAddr;

use pollux_abi::IfIndex;
use pollux_ebpf::Role;
use pollux_packet::PortSlot;
use pollux_worker::forward::fib::Fib;
use pollux_worker::forward::neighbour::NeighbourKey;
use pollux_worker::housekeeping::ToWorker;

use super::Housekeeper;
use crate::device::mtu_max;
use crate::host_port::HostPort;
use crate::netlink::Neighbour;
use crate::netlink::mirror::Changes;

impl Housekeeper {
    /// The first word to the workers: all that is known.
    pub(super) fn tell_everything(&mut self) {
        self.tell_routes();
        self.tell_error_sources();
        let neighbours: Vec<Neighbour> = self.mirror.neighbours().copied().collect();
        self.tell_neighbours(&neighbours);
    }

    /// Takes in what the kernel has said.
    pub(super) fn follow_network(&mut self) {
        let changes = match self.mirror.update() {
            Ok(changes) => changes,
            Err(error) => {
                tracing::error!(%error, "netlink-failed");
                return;
            }
        };
        if changes.resynchronised {
            tracing::warn!("netlink-resynchronised");
        }
        self.follow_changes(&changes);
    }

    fn follow_changes(&mut self, changes: &Changes) {
        if changes.links {
            self.guard_exits();
            self.follow_links();
        }
        if changes.addresses {
            if let Err(error) = self.steering.set_local_addrs(&self.mirror.addresses()) {
                tracing::error!(%error, "local-addresses-not-written");
            }
            self.tell_error_sources();
        }
        if changes.links || changes.addresses {
            self.renew_locks();
        }
        if changes.routes || changes.links {
            self.tell_routes();
        }
        for &(link, address) in &changes.neighbours_gone {
            if let Some(port) = self.slot_of(link) {
                let key = NeighbourKey { port, address };
                self.tell_all(|| ToWorker::NeighbourGone { key, failed: false });
            }
        }
        self.tell_neighbours(&changes.neighbours);
    }

    fn slot_of(&self, link: IfIndex) -> Option<PortSlot> {
        self.devices.iter().find(|device| device.is(link)).map(|device| device.slot)
    }

    pub(super) fn tell_all(&mut self, message: impl Fn() -> ToWorker) {
        for worker in &mut self.workers {
            worker.send(message());
        }
    }

    fn tell_routes(&mut self) {
        let routes = self.mirror.forwarding(|link| self.slot_of(link));
        self.tell_all(|| ToWorker::Fib(Box::new(Fib::compile(&routes))));
    }

    fn tell_neighbours(&mut self, neighbours: &[Neighbour]) {
        for neighbour in neighbours {
            let Some(port) = self.slot_of(neighbour.link) else { continue };
            let key = NeighbourKey { port, address: neighbour.address };
            let (mac, failed) = (neighbour.mac, neighbour.failed);
            self.tell_all(|| match mac {
                Some(mac) => ToWorker::Neighbour(key, mac),
                None => ToWorker::NeighbourGone { key, failed },
            });
        }
    }

    /// The kernel resolves or confirms what a worker uses.
    pub(super) fn use_neighbour(&mut self, key: &NeighbourKey) {
        let device = self.devices.iter().find(|device| device.slot == key.port);
        let Some(index) = device.and_then(|device| device.link.as_ref()).map(|link| link.index) else {
            return;
        };
        if let Err(error) = self.rtnl.use_neighbour(index, key.address) {
            tracing::debug!(%error, "neighbour-not-asked-for");
        }
    }

    /// ICMP errors to inside senders come from an address that they know: one of a LAN port first.
    fn tell_error_sources(&mut self) {
        let lan: BTreeSet<IfIndex> = self
            .devices
            .iter()
            .filter(|device| device.role == Role::Lan)
            .filter_map(|device| device.link.as_ref().map(|link| link.index))
            .collect();
        let addresses = self.mirror.addresses_by_link();
        for is_ipv4 in [true, false] {
            let fits = |address: &IpAddr| {
                address.is_ipv4() == is_ipv4 && !address.is_loopback() && !is_link_local(address)
            };
            let inside = addresses.iter().find(|(link, address)| lan.contains(link) && fits(address));
            let any = || addresses.iter().find(|(_, address)| fits(address));
            if let Some(&(_, address)) = inside.or_else(any) {
                self.tell_all(|| ToWorker::ErrorSource(address));
            }
        }
    }

    /// The kernel's end of `pollux0`, while it can be routed to.
    pub(super) fn host_link(&self) -> Option<IfIndex> {
        let index = self.host.as_ref().map(HostPort::kernel_index)?;
        self.mirror.link(index).is_some_and(|link| link.up).then_some(index)
    }

    /// Interfaces came, went or changed.
    fn follow_links(&mut self) {
        for at in 0..self.devices.len() {
            self.follow_link(at);
        }
    }

    fn follow_link(&mut self, at: usize) {
        let device = &mut self.devices[at];
        let slot = device.slot;
        let known = device.link.as_ref().map(|link| link.index);
        if let Some(now) = known.and_then(|index| self.mirror.link(index)) {
            if device.link.as_ref() == Some(now) {
                return;
            }
            tracing::info!(port = %now.name, up = now.up && now.carrier, mtu = now.mtu, "port-changed");
            device.name.clone_from(&now.name);
            device.link = Some(now.clone());
            if let Err(error) = self.steering.set_mac(now.index, now.mac.0) {
                tracing::warn!(%error, port = %now.name, "mac-not-told");
            }
            let room = mtu_max(self.umem.info().frame_len);
            if now.mtu > room {
                tracing::warn!(port = %now.name, mtu = now.mtu, room, "mtu-beyond-frames");
            }
            let facts = device.facts(self.umem.info().frame_len);
            self.tell_all(|| ToWorker::Facts(slot, facts));
            return;
        }
        if let Some(index) = known {
            tracing::warn!(port = %device.name, ifindex = index.0, "port-gone");
            device.link = None;
            device.sockets.clear();
            let facts = device.facts(self.umem.info().frame_len);
            self.tell_all(|| ToWorker::Facts(slot, facts));
            self.tell_all(|| ToWorker::PortGone(slot));
            // What was there has taken its sockets along; the map must not keep its role.
            if let Err(error) = self.steering.detach(index) {
                tracing::debug!(%error, "port-not-detached");
            }
        }
        self.bind_again(at);
    }

    /// A device of the name that we want has appeared, perhaps for the second time.
    fn bind_again(&mut self, at: usize) {
        let device = &mut self.devices[at];
        let Some(link) = self.mirror.link_named(&device.name).cloned() else { return };
        let (slot, index) = (device.slot, link.index);
        match device.bind(link, &self.umem, &mut self.steering, &self.config.dataplane) {
            Ok(ports) => {
                tracing::info!(port = %device.name, ifindex = index.0, "port-bound");
                let cookies: Vec<u64> =
                    self.devices.iter().flat_map(|device| &device.cookies).copied().collect();
                if let Err(error) = self.guard.set_xsk_cookies(&cookies) {
                    tracing::error!(%error, "guard-not-told-of-sockets");
                }
                let device = &self.devices[at];
                let facts = device.facts(self.umem.info().frame_len);
                for (worker, port) in self.workers.iter_mut().zip(ports) {
                    worker.send(ToWorker::Port(slot, port));
                }
                self.tell_all(|| ToWorker::Facts(slot, facts));
                let known: Vec<Neighbour> =
                    self.mirror.neighbours().filter(|neighbour| neighbour.link == index).copied().collect();
                self.tell_neighbours(&known);
            }
            Err(error) => {
                let text = error.to_string();
                if device.complaint.as_ref() != Some(&text) {
                    tracing::warn!(port = %device.name, error = %text, "port-not-bound");
                    device.complaint = Some(text);
                }
            }
        }
    }

    /// A worker has closed a port; a device that came back meanwhile may be bound now.
    pub(super) fn note_port_closed(&mut self, slot: PortSlot) {
        let gone = self.devices.iter().position(|device| device.slot == slot && device.link.is_none());
        if let Some(at) = gone {
            self.bind_again(at);
        }
    }
}

fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}
