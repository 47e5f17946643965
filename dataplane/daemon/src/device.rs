//! The interfaces that are ports, and the sockets on their queues.

use pollux_abi::{IfIndex, QueueId};
use pollux_config::{Dataplane, XdpMode, ZeroCopy};
use pollux_ebpf::{Attached, Role, SteerError, Steering};
use pollux_packet::{PortSlot, ethernet::Mac};
use pollux_port::{BusyPoll, ModeChoice, Port, PortInfo, RingSizes, Umem, XskConfig, XskPort};
use pollux_worker::housekeeping::{BoxedPort, PortFacts};

use crate::netlink::Link;
use crate::setup::SetupError;

/// An interface that is a port, by name: what is behind the name may come and go.
#[derive(Debug)]
pub struct Device {
    /// Its place among the ports.
    pub slot: PortSlot,
    /// Its name when the data plane started; followed when it is renamed.
    pub name: String,
    /// Which side it is on.
    pub role: Role,
    /// The interface as it is now; `None` while it is gone.
    pub link: Option<Link>,
    /// How the XDP program is attached.
    pub attached: Option<Attached>,
    /// What each queue's socket is.
    pub sockets: Vec<PortInfo>,
    /// Cookies of these sockets, by which the guard at the exit knows them.
    pub cookies: Vec<u64>,
    /// The other end of the host port.
    pub peer: Option<Mac>,
    /// Why it is no port at the moment, as last reported.
    pub complaint: Option<String>,
}

/// The widest MTU that frames of so many octets have room for: the kernel receives 256 octets into a frame, and a link
/// header goes before the packet.
pub fn mtu_max(frame_len: u32) -> u32 {
    frame_len.saturating_sub(256 + 14)
}

impl Device {
    /// A device that is not bound yet.
    pub fn new(slot: PortSlot, name: &str, role: Role) -> Self {
        Self {
            slot,
            name: name.to_owned(),
            role,
            link: None,
            attached: None,
            sockets: Vec::new(),
            cookies: Vec::new(),
            peer: None,
            complaint: None,
        }
    }

    /// What workers have to know of it.
    pub fn facts(&self, frame_len: u32) -> PortFacts {
        let Some(link) = &self.link else { return PortFacts { peer: self.peer, ..PortFacts::default() } };
        PortFacts {
            mac: link.mac,
            peer: self.peer,
            mtu: u16::try_from(link.mtu.min(mtu_max(frame_len))).unwrap_or(u16::MAX),
            up: link.up && link.carrier,
        }
    }

    /// Binds a socket to each queue of `link`, puts them into the map, and only then attaches the program:
    /// from its first frame on everything has its place.
    pub fn bind(
        &mut self,
        link: Link,
        umem: &Umem,
        steering: &mut Steering,
        config: &Dataplane,
    ) -> Result<Vec<BoxedPort>, SetupError> {
        let index = link.index;
        steering.add_port(index, self.role)?;
        steering.set_mac(index, link.mac.0)?;
        let mut ports: Vec<BoxedPort> = Vec::new();
        self.sockets.clear();
        self.cookies.clear();
        for queue in 0..u32::from(config.queues) {
            let port = XskPort::open(umem, xsk_config(&link.name, index, QueueId(queue), self.role, config))?;
            let socket = port.socket().ok_or(SetupError::Closed)?;
            self.cookies.push(rustix::net::sockopt::socket_cookie(socket)?);
            steering.set_xsk(index, QueueId(queue), socket)?;
            self.sockets.push(port.info());
            ports.push(Box::new(port));
        }
        self.attached = Some(steering.attach(index, &link.name, self.role, xdp_mode(config.xdp))?);
        self.name.clone_from(&link.name);
        self.link = Some(link);
        self.complaint = None;
        Ok(ports)
    }

    /// Puts the program onto the interface again, where another program has taken it off.
    pub fn attach_again(&mut self, steering: &mut Steering, config: &Dataplane) -> Result<bool, SteerError> {
        let Some(link) = &self.link else { return Ok(false) };
        if steering.is_attached(link.index) {
            return Ok(false);
        }
        self.attached = Some(steering.attach(link.index, &link.name, self.role, xdp_mode(config.xdp))?);
        Ok(true)
    }

    /// Whether the interface's index is this one.
    pub fn is(&self, index: IfIndex) -> bool {
        self.link.as_ref().is_some_and(|link| link.index == index)
    }
}

pub(crate) fn xdp_mode(mode: XdpMode) -> pollux_ebpf::ModeChoice {
    match mode {
        XdpMode::Auto => pollux_ebpf::ModeChoice::Auto,
        XdpMode::Driver => pollux_ebpf::ModeChoice::Driver,
        XdpMode::Generic => pollux_ebpf::ModeChoice::Generic,
    }
}

/// Microseconds that a socket polls its device in one call, where it does.
const BUSY_POLL_US: u32 = 20;
/// Packets that it takes from the device then: a burst.
const BUSY_POLL_BUDGET: u32 = 64;

fn xsk_config(name: &str, ifindex: IfIndex, queue: QueueId, role: Role, config: &Dataplane) -> XskConfig {
    XskConfig {
        mode: match (role, config.zero_copy) {
            // A veth pair has no zero-copy, whatever the NICs are asked for.
            (Role::Host, _) | (_, ZeroCopy::Copy) => ModeChoice::Copy,
            (_, ZeroCopy::Auto) => ModeChoice::Auto,
            (_, ZeroCopy::Require) => ModeChoice::ZeroCopy,
        },
        rings: RingSizes {
            rx: config.rx_ring,
            tx: config.tx_ring,
            fill: config.fill_ring,
            completion: config.completion_ring,
        },
        busy_poll: (config.busy_poll && role != Role::Host)
            .then_some(BusyPoll { usecs: BUSY_POLL_US, budget: BUSY_POLL_BUDGET }),
        ..XskConfig::new(name, ifindex, queue)
    }
}
