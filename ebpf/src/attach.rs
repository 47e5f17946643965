//! The program on an interface: in the driver where that works, replaced in place where a link is pinned.

use std::error::Error;
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpLinkId};
use aya::programs::{ProgramError, Xdp, XdpMode};
use pollux_abi::IfIndex;

use crate::abi::{Mode, PortEntry, Role};
use crate::bpffs;
use crate::error::SteerError;
use crate::ethtool::switch_off_merging;
use crate::guard::sys;
use crate::object::unpin;
use crate::steering::{PROGRAM, PROGRAM_FRAGS, Steering};

/// How long a removed link may take to leave its device, which waits for an RCU grace period or two.
const DETACH_PATIENCE: Duration = Duration::from_secs(2);
const DETACH_POLL: Duration = Duration::from_millis(1);

/// How often a load that a signal interrupted is tried, as in libbpf.
const LOAD_ATTEMPTS: u32 = 5;

/// Which XDP mode the operator wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ModeChoice {
    /// Driver mode, or generic mode with the reason told.
    #[default]
    Auto,
    /// Driver mode or failure.
    Driver,
    /// Generic mode.
    Generic,
}

/// What [`Steering::attach`] got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The mode.
    pub mode: Mode,
    /// Why it is not driver mode, where that was wanted.
    pub reason: Option<String>,
    /// The program was replaced through the pinned link of an earlier process, without a gap.
    pub reused_link: bool,
    /// The variant for frames in several buffers runs: the interface's MTU asks for it. AF_XDP sockets see
    /// such frames only if they were opened with `XDP_USE_SG`.
    pub multi_buffer: bool,
    /// Offloads that merge packets, which generic mode cannot take and which were switched off. They stay off
    /// after [`Steering::detach`]; `ethtool -K` brings them back.
    pub switched_off: Vec<&'static str>,
}

impl Attached {
    /// What is left for the operator to do.
    pub fn advice(&self) -> Option<&'static str> {
        let merges_elsewhere = self.mode == Mode::Generic;
        merges_elsewhere.then_some(
            "generic mode drops frames above the MTU: where the other end is a veth, switch its `tso` and `gso` off",
        )
    }
}

impl Steering {
    /// Puts the program onto an interface of the calling thread's network namespace and pins its link.
    ///
    /// The role is declared first ([`Self::add_port`]). A link that an earlier process pinned gets the new
    /// program in one step; one whose device is gone, whose namespace is another, whose mode is not the wanted
    /// one or that belongs to another version of the maps is removed, and the program attached anew.
    pub fn attach(
        &mut self,
        ifindex: IfIndex,
        name: &str,
        role: Role,
        choice: ModeChoice,
    ) -> Result<Attached, SteerError> {
        self.add_port(ifindex, role)?;
        let mut attached = if let Some(attached) = self.replace(ifindex, name, choice)? {
            attached
        } else {
            let leaving = self.remove_links(ifindex)?;
            self.attach_once_free(ifindex, name, choice, leaving)?
        };
        let entry = self.port_entry(ifindex)?.ok_or(SteerError::UnknownPort { ifindex })?;
        self.write_port(ifindex, PortEntry { mode: Some(attached.mode), ..entry })?;
        if attached.mode == Mode::Generic {
            attached.switched_off = switch_off_merging(name)
                .map_err(|source| SteerError::Offload { name: name.to_owned(), source })?;
        }
        Ok(attached)
    }

    /// Takes the program off an interface and forgets the port with its sockets.
    pub fn detach(&mut self, ifindex: IfIndex) -> Result<(), SteerError> {
        self.remove_links(ifindex)?;
        self.remove_port(ifindex)
    }

    /// Whether the program that [`Self::attach`] put onto an interface is there still: another program with enough rights
    /// can detach the link or remove its pin.
    pub fn is_attached(&self, ifindex: IfIndex) -> bool {
        let link = sys::open_pin(&bpffs::link_pin(&self.dir, ifindex));
        link.and_then(|link| sys::link_ifindex(link.as_fd())).is_ok_and(|index| index == ifindex.0)
    }

    /// Exchanges the program behind a pinned link; `None` where there is no link that would do.
    fn replace(
        &mut self,
        ifindex: IfIndex,
        name: &str,
        choice: ModeChoice,
    ) -> Result<Option<Attached>, SteerError> {
        let pin = bpffs::link_pin(&self.dir, ifindex);
        let known_mode = self.port_entry(ifindex)?.and_then(|entry| entry.mode);
        let mode = match (known_mode, choice) {
            (Some(mode), ModeChoice::Auto) => mode,
            (Some(Mode::Driver), ModeChoice::Driver) => Mode::Driver,
            (Some(Mode::Generic), ModeChoice::Generic) => Mode::Generic,
            _ => return Ok(None),
        };
        if !pin.exists() {
            return Ok(None);
        }
        let mut last = None;
        for program in [PROGRAM, PROGRAM_FRAGS] {
            match update_link(self.program(program)?, &pin) {
                Ok(()) => {
                    let fallback = mode == Mode::Generic && choice == ModeChoice::Auto;
                    let reason = fallback.then(|| "the link of the last run is in generic mode".to_owned());
                    let multi_buffer = program == PROGRAM_FRAGS;
                    return Ok(Some(Attached {
                        mode,
                        reason,
                        reused_link: true,
                        multi_buffer,
                        switched_off: vec![],
                    }));
                }
                Err(error) if is_stale(&error) => return Ok(None),
                Err(error) => last = last.or(Some(error)),
            }
        }
        let reason = last.map(|error| chain(&error)).unwrap_or_default();
        Err(SteerError::Attach { name: name.to_owned(), ifindex, mode, reason })
    }

    /// Attaches anew. The kernel frees a link that lost its pin in the background, so that the device of one
    /// just removed (`leaving`) may seem occupied for a moment.
    fn attach_once_free(
        &mut self,
        ifindex: IfIndex,
        name: &str,
        choice: ModeChoice,
        leaving: bool,
    ) -> Result<Attached, SteerError> {
        let deadline = Instant::now() + if leaving { DETACH_PATIENCE } else { Duration::ZERO };
        loop {
            match self.attach_anew(ifindex, name, choice) {
                Err(SteerError::Occupied { .. }) if Instant::now() < deadline => thread::sleep(DETACH_POLL),
                disposition => return disposition,
            }
        }
    }

    fn attach_anew(
        &mut self,
        ifindex: IfIndex,
        name: &str,
        choice: ModeChoice,
    ) -> Result<Attached, SteerError> {
        let tries: &[(&'static str, Mode)] = match choice {
            ModeChoice::Driver => &[(PROGRAM, Mode::Driver), (PROGRAM_FRAGS, Mode::Driver)],
            ModeChoice::Generic => &[(PROGRAM, Mode::Generic)],
            ModeChoice::Auto => {
                &[(PROGRAM, Mode::Driver), (PROGRAM_FRAGS, Mode::Driver), (PROGRAM, Mode::Generic)]
            }
        };
        let mut reason = None;
        let mut tried = Mode::Driver;
        for &(program, mode) in tries {
            tried = mode;
            match attach_to_device(self.program(program)?, ifindex, mode) {
                Ok(id) => {
                    self.pin_link(program, id, ifindex, name)?;
                    let multi_buffer = program == PROGRAM_FRAGS;
                    let reason = reason.filter(|_| mode == Mode::Generic);
                    return Ok(Attached {
                        mode,
                        reason,
                        reused_link: false,
                        multi_buffer,
                        switched_off: vec![],
                    });
                }
                Err(error) => {
                    if let Some(mode) = occupant(&error, mode) {
                        return Err(SteerError::Occupied { name: name.to_owned(), ifindex, mode });
                    }
                    // The first failure is the telling one: the multi-buffer variant is asked for less often.
                    reason = reason.or_else(|| Some(chain(&error)));
                }
            }
        }
        let reason = reason.unwrap_or_default();
        Err(SteerError::Attach { name: name.to_owned(), ifindex, mode: tried, reason })
    }

    /// Pins a fresh link; from here on, the program stays without this process.
    fn pin_link(
        &mut self,
        program: &'static str,
        id: XdpLinkId,
        ifindex: IfIndex,
        name: &str,
    ) -> Result<(), SteerError> {
        let no_link = |source: LinkError| SteerError::NoLink { name: name.to_owned(), ifindex, source };
        let path = bpffs::link_pin(&self.dir, ifindex);
        let link =
            self.program(program)?.take_link(id).map_err(|source| SteerError::Load { program, source })?;
        let link = FdLink::try_from(link).map_err(no_link)?;
        link.pin(&path).map_err(|source| SteerError::Pin { path, source })?;
        Ok(())
    }

    /// Removes the links of `ifindex` in the pin folders of every version; whether there was one.
    fn remove_links(&self, ifindex: IfIndex) -> Result<bool, SteerError> {
        let pin_dir = self.dir.parent().unwrap_or(&self.dir);
        let mut any = false;
        for dir in bpffs::version_dirs(pin_dir)? {
            any |= unpin(bpffs::link_pin(&dir, ifindex))?;
        }
        Ok(any)
    }

    /// A program of the object, loaded into the kernel.
    pub(crate) fn program(&mut self, name: &'static str) -> Result<&mut Xdp, SteerError> {
        let program = self.ebpf.program_mut(name).ok_or(SteerError::Missing { name })?;
        let xdp: &mut Xdp =
            program.try_into().map_err(|source| SteerError::Load { program: name, source })?;
        for attempts_left in (0..LOAD_ATTEMPTS).rev() {
            if xdp.fd().is_ok() {
                break;
            }
            match xdp.load() {
                Err(error) if is_interrupted(&error) && attempts_left > 0 => {}
                disposition => disposition.map_err(|source| SteerError::Load { program: name, source })?,
            }
        }
        Ok(xdp)
    }
}

fn attach_to_device(program: &mut Xdp, ifindex: IfIndex, mode: Mode) -> Result<XdpLinkId, ProgramError> {
    let mode = match mode {
        Mode::Driver => XdpMode::Driver,
        Mode::Generic => XdpMode::Skb,
    };
    program.attach_to_if_index(ifindex.0, mode)
}

/// Replaces the program behind a pinned link. The descriptor closes again; the pin holds the link.
fn update_link(program: &mut Xdp, pin: &Path) -> Result<(), ProgramError> {
    let link = XdpLink::try_from(FdLink::from(PinnedLink::from_pin(pin).map_err(link_error)?))
        .map_err(link_error)?;
    let id = program.attach_to_link(link)?;
    program.take_link(id).map(drop)
}

fn link_error(error: LinkError) -> ProgramError {
    match error {
        LinkError::SyscallError(error) => ProgramError::SyscallError(error),
        _ => ProgramError::NotAttached,
    }
}

/// The verifier gives up with EAGAIN when a signal is pending.
fn is_interrupted(error: &ProgramError) -> bool {
    matches!(error, ProgramError::LoadError { io_error, .. } if io_error.raw_os_error() == Some(libc::EAGAIN))
}

/// The device of the link is gone (ENOLINK), or the pin is no XDP link at all.
fn is_stale(error: &ProgramError) -> bool {
    errno(error) == Some(libc::ENOLINK) || matches!(error, ProgramError::NotAttached)
}

/// The mode of the program that was in the way of one in mode `tried`: of the same mode (EBUSY), or of the other, since
/// the kernel has one of them at a time (EEXIST).
fn occupant(error: &ProgramError, tried: Mode) -> Option<Mode> {
    match (errno(error)?, tried) {
        (libc::EBUSY, same) => Some(same),
        (libc::EEXIST, Mode::Driver) => Some(Mode::Generic),
        (libc::EEXIST, Mode::Generic) => Some(Mode::Driver),
        _ => None,
    }
}

fn errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    }
}

/// An error with its causes in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
