//! The guard at the exit: programs that drop what would leave in clear though its pair is protected.
//!
//! ```text
//!   kernel's IP ── POSTROUTING: guard_nf.bpf.c ── source NAT ── egress of the device: guard.bpf.c ──► wire
//!   packet sockets, bridged frames ───────────────────────────────┘
//! ```
//!
//! Both share the pinned maps of the XDP program, and are pinned beside it:
//!
//! - `link-tcx-<namespace>-<ifindex>` for each interface but `lo` and `pollux0`,
//! - `link-nf4-<namespace>-<slot>`, `link-nf6-<namespace>-<slot>`. A netfilter link cannot change its program, and
//!   a priority holds one BPF program: a new data plane takes the next slot, and removes the old link then.
//!
//! A netfilter link keeps its network namespace alive until it is removed.

mod netfilter;
pub(crate) mod sys;
mod verdicts;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::maps::{HashMap as BpfHash, MapData, PerCpuArray};
use aya::programs::{ProgramError, SchedClassifier, TestRun as _, TestRunOptions};
use pollux_abi::IfIndex;

pub use verdicts::{GuardCount, GuardLayer, GuardVerdict};

use crate::bpffs;
use crate::error::SteerError;
use crate::maps::{absent_is_fine, take};
use crate::object::{self, unpin};
use crate::steering::Steering;

const ETHERNET: &str = "guard_ethernet";
const LAYER3: &str = "guard_layer3";

/// `NFPROTO_IPV4` and `NFPROTO_IPV6`, with the word of their pins.
const FAMILIES: [(u32, &str); 2] = [(2, "nf4"), (10, "nf6")];

/// The first of [`SLOTS`] priorities, right after `NF_IP_PRI_FIRST`, which the kernel keeps to itself: no rule at
/// POSTROUTING may change the addresses before the guard has seen them.
const FIRST_PRIORITY: i32 = i32::MIN + 1;
const SLOTS: i32 = 8;

/// Kinds of `struct guard_socket`.
const SOCKET_XSK: u16 = 1;
const SOCKET_IKE: u16 = 2;

/// Key of `host_links` that says that no address of the gateway is known yet.
const ADDRESSES_UNKNOWN: u32 = 0;

/// An interface as the guard sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Its index.
    pub ifindex: IfIndex,
    /// Its name, for messages.
    pub name: String,
    /// Its frames begin with an Ethernet header; otherwise with an IP header.
    pub ethernet: bool,
}

/// What the guard has or lacks, in words for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The layer.
    pub layer: GuardLayer,
    /// Where: `all interfaces` or a name.
    pub place: String,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}: {}", self.layer, self.place, self.reason)
    }
}

/// The guard's programs, loaded, with their links.
pub struct Guard {
    ebpf: Ebpf,
    netfilter: Result<OwnedFd, String>,
    sockets: BpfHash<MapData, u64, [u8; 4]>,
    host_links: BpfHash<MapData, u32, u8>,
    counts: PerCpuArray<MapData, u64>,
    dir: PathBuf,
    netns: u32,
    families: [Option<FamilyLink>; 2],
    egress: BTreeMap<IfIndex, OwnedFd>,
    /// Interfaces that the program could not be attached to, with the reason.
    refused: BTreeMap<IfIndex, (String, String)>,
}

/// A netfilter link.
struct FamilyLink {
    link: OwnedFd,
    slot: i32,
    pin: PathBuf,
}

impl Guard {
    /// Loads the programs over the maps of `steering`. Nothing is attached yet.
    pub fn open(steering: &Steering) -> Result<Self, SteerError> {
        let dir = steering.dir.clone();
        let mut ebpf = object::load_guard(&dir, &steering.capacity)?;
        for name in [ETHERNET, LAYER3] {
            program(&mut ebpf, name)?.load().map_err(|source| SteerError::Load { program: name, source })?;
        }
        let netfilter = netfilter::load(&dir).map_err(|error| error.to_string());
        Ok(Self {
            netfilter,
            sockets: take(&mut ebpf, "guard_sockets")?,
            host_links: take(&mut ebpf, "host_links")?,
            counts: take(&mut ebpf, "guard_counts")?,
            ebpf,
            dir,
            netns: bpffs::net_namespace()?,
            families: [None, None],
            egress: BTreeMap::new(),
            refused: BTreeMap::new(),
        })
    }

    /// Puts the netfilter program in force in the calling thread's network namespace, in place of an earlier
    /// process's; and again where somebody has detached it. Whether anything was missing.
    pub fn attach_netfilter(&mut self) -> Result<bool, SteerError> {
        let Ok(program) = &self.netfilter else { return Ok(false) };
        let mut renewed = false;
        for (at, (family, word)) in FAMILIES.into_iter().enumerate() {
            if let Some(known) = &self.families[at] {
                match sys::link_netfilter(program.as_fd(), family, FIRST_PRIORITY + known.slot) {
                    // The priority is taken: by our own link.
                    Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                        if !known.pin.exists() {
                            pin(&known.link, &known.pin)?;
                            renewed = true;
                        }
                        continue;
                    }
                    // Somebody has detached ours, and this one takes its place.
                    Ok(link) => {
                        unpin(known.pin.clone())?;
                        pin(&link, &known.pin)?;
                        self.families[at] =
                            Some(FamilyLink { link, slot: known.slot, pin: known.pin.clone() });
                        renewed = true;
                        continue;
                    }
                    Err(source) => return Err(SteerError::Guard { layer: GuardLayer::Netfilter, source }),
                }
            }
            self.families[at] = Some(attach_family(&self.dir, self.netns, program, family, word)?);
            renewed = true;
        }
        Ok(renewed)
    }

    /// Puts the egress program onto each of `exits`, which are all interfaces but `lo` and `pollux0`, and again
    /// where it has been detached; forgets those that are gone. Names of the interfaces on which it was missing.
    pub fn attach_egress(&mut self, exits: &[Exit]) -> Result<Vec<String>, SteerError> {
        let gone = |index: &IfIndex| !exits.iter().any(|exit| exit.ifindex == *index);
        for index in self.egress.keys().copied().filter(gone).collect::<Vec<_>>() {
            self.egress.remove(&index);
            unpin(self.egress_pin(index))?;
        }
        self.refused.retain(|index, _| !gone(index));
        let mut renewed = Vec::new();
        for exit in exits {
            let pin_path = self.egress_pin(exit.ifindex);
            if let Some(link) = self.egress.get(&exit.ifindex)
                && sys::link_ifindex(link.as_fd()).is_ok_and(|index| index == exit.ifindex.0)
            {
                if !pin_path.exists() {
                    pin(link, &pin_path)?;
                    renewed.push(exit.name.clone());
                }
                continue;
            }
            match self.attach_exit(exit, &pin_path) {
                Ok(link) => {
                    self.refused.remove(&exit.ifindex);
                    self.egress.insert(exit.ifindex, link);
                    renewed.push(exit.name.clone());
                }
                // It went while we looked; netlink's next word says so.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => {
                    self.refused.insert(exit.ifindex, (exit.name.clone(), error.to_string()));
                }
            }
        }
        Ok(renewed)
    }

    fn attach_exit(&mut self, exit: &Exit, pin_path: &Path) -> io::Result<OwnedFd> {
        let name = if exit.ethernet { ETHERNET } else { LAYER3 };
        let program = program(&mut self.ebpf, name).map_err(io::Error::other)?;
        let program = program.fd().map_err(io::Error::other)?.as_fd();
        if let Ok(link) = sys::open_pin(pin_path) {
            let alive = sys::link_ifindex(link.as_fd()).is_ok_and(|index| index == exit.ifindex.0);
            if alive && sys::update_link(link.as_fd(), program).is_ok() {
                return Ok(link);
            }
        }
        let link = sys::link_egress(program, exit.ifindex.0)?;
        unpin(pin_path.to_owned()).map_err(io::Error::other)?;
        sys::pin(link.as_fd(), pin_path)?;
        Ok(link)
    }

    fn egress_pin(&self, index: IfIndex) -> PathBuf {
        self.dir.join(format!("link-tcx-{}-{index}", self.netns))
    }

    /// Removes pinned links of interfaces and namespaces that [`Self::attach_egress`] was not told of.
    pub fn forget_others(&self) -> Result<(), SteerError> {
        let ours: Vec<PathBuf> = self.egress.keys().map(|&index| self.egress_pin(index)).collect();
        let pin_dir = self.dir.parent().unwrap_or(&self.dir);
        for dir in bpffs::version_dirs(pin_dir)? {
            for path in bpffs::list(&dir)?.into_iter().filter(|path| has_prefix(path, "link-tcx-")) {
                if !ours.contains(&path) {
                    unpin(path)?;
                }
            }
        }
        Ok(())
    }

    /// What is not in place.
    pub fn missing(&self) -> Vec<Missing> {
        let netfilter = self.netfilter.as_ref().err().map(|reason| Missing {
            layer: GuardLayer::Netfilter,
            place: "all interfaces".to_owned(),
            reason: format!("{reason} (BPF netfilter links need Linux 6.4)"),
        });
        let egress = self.refused.values().map(|(name, reason)| Missing {
            layer: GuardLayer::Egress,
            place: name.clone(),
            reason: format!("{reason} (TCX needs Linux 6.6)"),
        });
        netfilter.into_iter().chain(egress).collect()
    }

    /// How many interfaces have the egress program.
    pub fn exits(&self) -> usize {
        self.egress.len()
    }

    /// Names the kernel's end of `pollux0`: what comes from there is a worker's, what goes there stays here.
    pub fn set_host_link(&mut self, link: Option<IfIndex>) -> Result<(), SteerError> {
        let present: Vec<u32> =
            self.host_links.keys().collect::<Result<_, _>>().map_err(SteerError::map("host_links"))?;
        if let Some(link) = link
            && !present.contains(&link.0)
        {
            self.host_links.insert(link.0, 1, 0).map_err(SteerError::map("host_links"))?;
        }
        for index in present {
            if index != ADDRESSES_UNKNOWN && link.is_none_or(|link| link.0 != index) {
                absent_is_fine(self.host_links.remove(&index)).map_err(SteerError::map("host_links"))?;
            }
        }
        Ok(())
    }

    /// Says whether the addresses of the gateway are known. While they are not, what the machine itself sends from a
    /// source that no narrow local selector covers counts as the gateway's.
    pub fn set_addresses_known(&mut self, known: bool) -> Result<(), SteerError> {
        if known {
            absent_is_fine(self.host_links.remove(&ADDRESSES_UNKNOWN))
        } else {
            self.host_links.insert(ADDRESSES_UNKNOWN, 1, 0)
        }
        .map_err(SteerError::map("host_links"))
    }

    /// Makes these the cookies of our AF_XDP sockets.
    pub fn set_xsk_cookies(&mut self, cookies: &[u64]) -> Result<(), SteerError> {
        self.set_sockets(SOCKET_XSK, &cookies.iter().map(|&cookie| (cookie, 0)).collect::<Vec<_>>())
    }

    /// Makes these the cookies and UDP ports of control's IKE sockets.
    pub fn set_ike_sockets(&mut self, sockets: &[(u64, u16)]) -> Result<(), SteerError> {
        self.set_sockets(SOCKET_IKE, sockets)
    }

    fn set_sockets(&mut self, kind: u16, sockets: &[(u64, u16)]) -> Result<(), SteerError> {
        let mut stale = Vec::new();
        for entry in &self.sockets {
            let (cookie, [k0, k1, ..]) = entry.map_err(SteerError::map("guard_sockets"))?;
            if u16::from_ne_bytes([k0, k1]) == kind && !sockets.iter().any(|(known, _)| *known == cookie) {
                stale.push(cookie);
            }
        }
        for cookie in stale {
            absent_is_fine(self.sockets.remove(&cookie)).map_err(SteerError::map("guard_sockets"))?;
        }
        for &(cookie, port) in sockets {
            let ([k0, k1], [p0, p1]) = (kind.to_ne_bytes(), port.to_ne_bytes());
            self.sockets.insert(cookie, [k0, k1, p0, p1], 0).map_err(SteerError::map("guard_sockets"))?;
        }
        Ok(())
    }

    /// Every counter of both layers, zeros included.
    pub fn counts(&self) -> Result<Vec<GuardCount>, SteerError> {
        let mut counts = Vec::new();
        for layer in GuardLayer::ALL {
            for verdict in GuardVerdict::ALL {
                let per_cpu =
                    self.counts.get(&verdict.counter(layer), 0).map_err(SteerError::map("guard_counts"))?;
                counts.push(GuardCount { layer, verdict, packets: per_cpu.iter().sum() });
            }
        }
        Ok(counts)
    }

    /// Runs the egress program once on an Ethernet frame, as if it left through `lo`; whether it was dropped.
    pub fn test_run(&mut self, frame: &[u8], came_in: IfIndex) -> Result<bool, SteerError> {
        let mut context = [0; SKB_CONTEXT_LEN];
        context[INGRESS_IFINDEX..INGRESS_IFINDEX + 4].copy_from_slice(&came_in.0.to_ne_bytes());
        let failed = |source| SteerError::TestRun { len: frame.len(), source };
        let options = TestRunOptions { data_in: Some(frame), ctx_in: Some(&context), ..Default::default() };
        let run = program(&mut self.ebpf, ETHERNET)?.test_run(options).map_err(failed)?;
        match run.return_value {
            2 => Ok(true),
            u32::MAX => Ok(false),
            value => Err(SteerError::UnknownAction { value }),
        }
    }
}

/// `struct __sk_buff`, and in it the index of the interface that the packet came in on.
const SKB_CONTEXT_LEN: usize = 192;
const INGRESS_IFINDEX: usize = 36;

fn attach_family(
    dir: &Path,
    netns: u32,
    program: &OwnedFd,
    family: u32,
    word: &str,
) -> Result<FamilyLink, SteerError> {
    let failed = |source| SteerError::Guard { layer: GuardLayer::Netfilter, source };
    let mut last = io::Error::from_raw_os_error(libc::EBUSY);
    for slot in 0..SLOTS {
        let pin_path = dir.join(format!("link-{word}-{netns}-{slot}"));
        match sys::link_netfilter(program.as_fd(), family, FIRST_PRIORITY + slot) {
            Ok(link) => {
                // A pin of this slot whose link holds no priority belongs to a dead namespace of the same number.
                unpin(pin_path.clone())?;
                pin(&link, &pin_path)?;
                let pin_dir = dir.parent().unwrap_or(dir);
                for dir in bpffs::version_dirs(pin_dir)? {
                    let links = bpffs::list(&dir)?.into_iter();
                    for old in links.filter(|path| has_prefix(path, &format!("link-{word}-"))) {
                        if old != pin_path {
                            unpin(old)?;
                        }
                    }
                }
                return Ok(FamilyLink { link, slot, pin: pin_path });
            }
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => last = error,
            Err(error) => return Err(failed(error)),
        }
    }
    Err(failed(last))
}

fn pin(link: &OwnedFd, path: &Path) -> Result<(), SteerError> {
    sys::pin(link.as_fd(), path).map_err(|source| SteerError::File {
        what: "cannot pin",
        path: path.to_owned(),
        source,
    })
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, SteerError> {
    let program = ebpf.program_mut(name).ok_or(SteerError::Missing { name })?;
    program.try_into().map_err(|source: ProgramError| SteerError::Load { program: name, source })
}

fn has_prefix(path: &Path, prefix: &str) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(prefix))
}
