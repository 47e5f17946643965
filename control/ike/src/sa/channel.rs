//! What carries the messages of one IKE SA: SPIs, addresses, window, ciphers and timers.

use core::net::{IpAddr, SocketAddr};

use pollux_abi::command::EncapPorts;

use super::IkeSaId;
use super::children::Outer;
use super::protect::Protect;
use super::timer::{Timer, Timers};
use super::window::Window;
use crate::config::Ports;
use crate::endpoint::{Stranger, Transmit, Turn};
use crate::error::IkeError;
use crate::event::Event;
use crate::message::{ExchangeType, Flags, Header, IkeSpi, MessageId, Writer};
use crate::time::Instant;

/// The addresses of both ends, and the NATs between them (RFC 7296 §2.23).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) nat_local: bool,
    pub(crate) nat_remote: bool,
    /// ESP goes in UDP although there is no NAT.
    pub(crate) forced: bool,
}

impl Path {
    pub(crate) const fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        Self { local, remote, nat_local: false, nat_remote: false, forced: false }
    }

    /// Outer addresses of ESP.
    pub(crate) fn outer(&self) -> Outer {
        let in_udp = self.nat_local || self.nat_remote || self.forced;
        let ports = EncapPorts { local: self.local.port(), remote: self.remote.port() };
        Outer { local: self.local.ip(), remote: self.remote.ip(), encap: in_udp.then_some(ports) }
    }

    /// Goes to the NAT-T ports. A peer that does not listen on the usual port keeps its own.
    pub(crate) fn float(&mut self, ports: Ports) {
        self.local.set_port(ports.nat_t);
        if self.remote.port() == Ports::default().ike || self.remote.port() == ports.ike {
            let usual = self.remote.port() == Ports::default().ike;
            self.remote.set_port(if usual { Ports::default().nat_t } else { ports.nat_t });
        }
    }
}

/// The line itself.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) id: IkeSaId,
    pub(crate) spi_i: IkeSpi,
    pub(crate) spi_r: IkeSpi,
    /// Whether we began this IKE SA.
    pub(crate) initiator: bool,
    pub(crate) path: Path,
    pub(crate) window: Window,
    pub(crate) timers: Timers,
    pub(crate) protect: Option<Protect>,
    /// When the peer last proved with something authentic and new that the path lives.
    pub(crate) heard: Instant,
    /// Whether the peer's ESP comes from elsewhere than the path leads to: it proves nothing about the path then.
    pub(crate) esp_elsewhere: bool,
    /// Where the last request came from, which its answer goes to (RFC 7296 §2.11).
    pub(crate) reply_to: (SocketAddr, SocketAddr),
    /// The stranger that this half-open IKE SA is counted against.
    pub(crate) half_open: Option<Stranger>,
    /// The peer's address that this IKE SA is counted under, whatever it becomes.
    pub(crate) counted: IpAddr,
    /// When it was begun.
    pub(crate) born: Instant,
}

impl Channel {
    pub(crate) fn new(
        id: IkeSaId,
        spis: (IkeSpi, IkeSpi),
        initiator: bool,
        path: Path,
        now: Instant,
    ) -> Self {
        Self {
            id,
            spi_i: spis.0,
            spi_r: spis.1,
            initiator,
            path,
            window: Window::new(),
            timers: Timers::default(),
            protect: None,
            heard: now,
            esp_elsewhere: false,
            reply_to: (path.local, path.remote),
            half_open: None,
            counted: path.remote.ip(),
            born: now,
        }
    }

    /// The SPI that the peer finds us by.
    pub(crate) const fn our_spi(&self) -> IkeSpi {
        if self.initiator { self.spi_i } else { self.spi_r }
    }

    /// The SPI that we find the peer by.
    pub(crate) const fn peer_spi(&self) -> IkeSpi {
        if self.initiator { self.spi_r } else { self.spi_i }
    }

    /// The header of a message of ours.
    pub(crate) fn header(&self, exchange: ExchangeType, id: MessageId, response: bool) -> Header {
        let flags = Flags { initiator: self.initiator, higher_version: false, response };
        Header::new(self.spi_i, self.spi_r, exchange, flags, id)
    }

    /// Sends an encrypted request. There must be none outstanding.
    pub(crate) fn request(
        &mut self,
        turn: &mut Turn<'_>,
        exchange: ExchangeType,
        body: impl FnOnce(&mut Writer),
    ) -> Result<(), IkeError> {
        let id = self.window.next_request().ok_or(IkeError::Internal { what: "the window is closed" })?;
        let header = self.header(exchange, id, false);
        let protect = self.protect.as_mut().ok_or(IkeError::Internal { what: "there are no keys yet" })?;
        let bytes = protect.seal(turn.rng, &header, body).map_err(unwritten)?;
        self.requested(turn, id, bytes);
        Ok(())
    }

    /// Sends a request that is built already, and starts its retransmission.
    pub(crate) fn requested(&mut self, turn: &mut Turn<'_>, id: MessageId, bytes: Vec<u8>) {
        self.transmit(turn, bytes.clone());
        self.window.requested(id, bytes);
        self.await_response(turn);
    }

    /// Sends IKE_SA_INIT in another form, with the same message id (RFC 7296 §2.6, §2.7).
    pub(crate) fn ask_anew(&mut self, turn: &mut Turn<'_>, bytes: Vec<u8>) {
        self.transmit(turn, bytes.clone());
        self.window.requested_anew(bytes);
        self.await_response(turn);
    }

    /// Sets the retransmission timer to the next wait, with jitter.
    pub(crate) fn await_response(&mut self, turn: &mut Turn<'_>) {
        let rule = turn.shared.config.retransmit;
        let wait = self.window.wait(&rule);
        let jitter = turn.part_of(wait * rule.jitter_percent.min(100) / 100);
        self.timers.set(Timer::Retransmit, turn.now + wait + jitter);
    }

    /// Ends the wait for a response that was accepted.
    pub(crate) fn responded(&mut self) {
        self.window.responded();
        self.timers.stop(Timer::Retransmit);
    }

    /// Sends the outstanding request once more; `false` where that was done often enough.
    pub(crate) fn repeat(&mut self, turn: &mut Turn<'_>) -> bool {
        let rule = turn.shared.config.retransmit;
        let Some((id, bytes, attempt)) = self.window.repeat(&rule) else { return false };
        let bytes = bytes.to_vec();
        let (ike, remote) = (self.id, self.path.remote);
        turn.event(Event::Retransmit { ike, remote, message_id: id.0, attempt });
        self.transmit(turn, bytes);
        self.await_response(turn);
        true
    }

    /// Sends the encrypted answer to the request with `id`, and keeps it for repetition.
    pub(crate) fn respond(
        &mut self,
        turn: &mut Turn<'_>,
        exchange: ExchangeType,
        id: MessageId,
        body: impl FnOnce(&mut Writer),
    ) -> Result<(), IkeError> {
        let header = self.header(exchange, id, true);
        let protect = self.protect.as_mut().ok_or(IkeError::Internal { what: "there are no keys yet" })?;
        let bytes = protect.seal(turn.rng, &header, body).map_err(unwritten)?;
        self.reply(turn, bytes.clone());
        self.window.answered(bytes);
        Ok(())
    }

    /// Sends an answer to where the request came from.
    pub(crate) fn reply(&self, turn: &mut Turn<'_>, bytes: Vec<u8>) {
        let (local, remote) = self.reply_to;
        turn.transmit(Transmit { local, remote, bytes, keepalive: false });
    }

    fn transmit(&self, turn: &mut Turn<'_>, bytes: Vec<u8>) {
        let Path { local, remote, .. } = self.path;
        turn.transmit(Transmit { local, remote, bytes, keepalive: false });
    }
}

fn unwritten(_: crate::message::WriteError) -> IkeError {
    IkeError::Internal { what: "a message could not be sealed" }
}
