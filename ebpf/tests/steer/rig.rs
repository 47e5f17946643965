//! A loaded program over a bpffs of its own, and the check of one row.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use pollux_abi::{IfIndex, QueueId, Spi};
use pollux_ebpf::{Capacity, Disposition, IpNet, Role, Steering, TestRun, XdpAction, XdpVerdict};

use crate::run_dir::RunDir;

/// `BPF_PROG_TEST_RUN` says that frames came in on `lo`.
pub(crate) const LO: IfIndex = IfIndex(1);

/// An SPI that begins with our bits, one of a manual SA that the program was told, one of nobody.
pub(crate) const OUR_SPI: u32 = 0xc000_1234;
pub(crate) const MANUAL_SPI: u32 = 0x0000_1001;
pub(crate) const FOREIGN_SPI: u32 = 0x0000_2002;

/// The port's MAC address, to which [`crate::frame::ether`] sends.
pub(crate) const PORT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// The pairs and addresses that most tables use: one site behind the gateway, one behind the peer.
pub(crate) const SITE_PAIRS: &[(&str, &str)] =
    &[("10.1.0.0/16", "10.2.0.0/16"), ("fd00:1::/32", "fd00:2::/32")];
/// Everything, on both sides.
pub(crate) const ALL_PAIRS: &[(&str, &str)] = &[("0.0.0.0/0", "0.0.0.0/0"), ("::/0", "::/0")];
/// Outside and inside addresses of the gateway.
pub(crate) const GATEWAY: &[&str] = &["203.0.113.1", "10.1.0.1", "2001:db8:f::1", "fd00:1::1"];

pub(crate) struct Rig {
    pub(crate) steering: Steering,
    pub(crate) run: RunDir,
    socket: OwnedFd,
}

impl Rig {
    /// The program with `pairs`, [`GATEWAY`]'s addresses and a socket on queue 0.
    pub(crate) fn new(pairs: &[(&str, &str)]) -> Option<Self> {
        let run = RunDir::new()?;
        let mut steering = Steering::open(&run.pins, Capacity::default()).expect("the program loads");
        steering.set_local_addrs(&addresses(GATEWAY)).expect("addresses");
        steering.set_protected(&prefixes(pairs)).expect("pairs");
        steering.add_spi(Spi::new(MANUAL_SPI).expect("no reserved SPI")).expect("an SPI");
        steering.add_port(LO, Role::Wan).expect("a slot");
        steering.set_mac(LO, PORT_MAC).expect("the port is there");
        let socket = xdp_socket();
        steering.set_xsk(LO, QueueId(0), socket.as_fd()).expect("an unbound socket goes into the XSKMAP");
        Some(Self { steering, run, socket })
    }

    pub(crate) fn set_role(&mut self, role: Role) {
        self.steering.add_port(LO, role).expect("the port is there");
    }

    /// Takes the socket away, as the end of the data plane does.
    pub(crate) fn kill_socket(&mut self) {
        self.socket = xdp_socket();
    }

    /// Runs `frame` and returns the one verdict that counted it.
    pub(crate) fn judge(&mut self, role: Role, frame: &[u8]) -> (XdpVerdict, TestRun) {
        self.set_role(role);
        let before = self.steering.verdicts().expect("counters");
        let run = self.steering.test_run(frame).expect("a frame of 14 octets or more");
        let after = self.steering.verdicts().expect("counters");
        let counted: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
        let [(before, after)] = counted[..] else { panic!("{} counters moved", counted.len()) };
        assert_eq!(after.frames, before.frames + 1);
        assert_eq!(after.role, Some(role));
        let action = match after.verdict.disposition() {
            Disposition::Kernel => XdpAction::Pass,
            Disposition::Worker => XdpAction::Redirect,
            Disposition::Dropped => XdpAction::Drop,
        };
        assert_eq!(run.action, action, "{} went elsewhere than it was counted", after.verdict);
        (after.verdict, run)
    }

    /// Checks one row after another: what it is, where it comes in, the frame, what becomes of it.
    pub(crate) fn check(&mut self, rows: &[(&str, Role, Vec<u8>, XdpVerdict)]) {
        for (description, role, frame, expected) in rows {
            let (verdict, run) = self.judge(*role, frame);
            assert_eq!(verdict, *expected, "{role}: {description}");
            assert_eq!(run.frame, *frame, "{role}: {description}: the frame was changed");
        }
    }
}

pub(crate) fn xdp_socket() -> OwnedFd {
    use rustix::net::{AddressFamily, SocketType, socket};
    socket(AddressFamily::XDP, SocketType::RAW, None).expect("the kernel has AF_XDP")
}

pub(crate) fn addresses(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|address| address.parse().expect("the table's address")).collect()
}

pub(crate) fn prefixes(list: &[(&str, &str)]) -> Vec<(IpNet, IpNet)> {
    let parse = |prefix: &str| prefix.parse().expect("the table's prefix");
    list.iter().map(|(local, remote)| (parse(local), parse(remote))).collect()
}
