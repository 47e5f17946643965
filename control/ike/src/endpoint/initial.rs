//! The way of a datagram to its IKE SA, and IKE_SA_INIT, which has none yet.

use core::net::SocketAddr;
use core::time::Duration;

use super::admission::{Admitted, Request};
use super::cookie::Claim;
use super::{Endpoint, Transmit, Turn};
use crate::crypto::Rng;
use crate::error::IkeError;
use crate::event::Event;
use crate::exchange::init_responder::{answer, refusal, stateless};
use crate::message::{
    ExchangeType, Header, IkeSpi, Malformed, Message, Notify, NotifyType, PayloadType, Payloads,
};
use crate::sa::{IkeSa, Judged, State};
use crate::time::Instant;

/// Where a datagram came from and to.
type Ends = (SocketAddr, SocketAddr);

impl Endpoint {
    /// Takes one datagram to the IKE SA that it belongs to.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        bytes: &[u8],
        rng: &mut dyn Rng,
    ) {
        let Ok(header) = Header::parse(bytes) else { return };
        let ends = (local, remote);
        let message = match Message::parse(bytes) {
            Ok(message) => message,
            Err(malformed) => return self.refuse_malformed(now, ends, &header, malformed),
        };
        match (header.exchange, header.flags.response) {
            (ExchangeType::IkeSaInit, false) => self.init_request(now, ends, &message, bytes, rng),
            (ExchangeType::IkeSaInit, true) => self.init_reply(now, &message, bytes, rng),
            _ => self.protected(now, ends, &message, bytes, rng),
        }
    }

    /// What does not parse is not authentic either: at most a request for a new IKE SA is answered.
    fn refuse_malformed(&mut self, now: Instant, ends: Ends, header: &Header, malformed: Malformed) {
        let damaged = matches!(malformed, Malformed::Header { .. } | Malformed::MessageLength { .. });
        let new = header.exchange == ExchangeType::IkeSaInit && header.spi_r.is_zero();
        let version = matches!(malformed, Malformed::MajorVersion(major) if major > Header::MAJOR);
        if !damaged && header.major < Header::MAJOR {
            // IKEv1 is not answered: its peer would not understand. The operator sees why nothing comes up.
            return self.tell_stranger(now, ends, malformed.into());
        }
        if damaged || header.flags.response || !(new || version) {
            return;
        }
        let reply = if version {
            stateless(header.exchange, header, Notify::new(NotifyType::InvalidMajorVersion, &[]))
        } else {
            refusal(header, &malformed.into())
        };
        self.reply_stateless(ends, reply);
        self.tell_stranger(now, ends, malformed.into());
    }

    fn reply_stateless(&mut self, (local, remote): Ends, reply: Option<Vec<u8>>) {
        if let Some(bytes) = reply {
            self.shared.out.push_back(super::Output::Transmit(Transmit {
                local,
                remote,
                bytes,
                keepalive: false,
            }));
        }
    }

    /// Tells the operator of a stranger, at most once a second: anyone can be a stranger.
    fn tell_stranger(&mut self, now: Instant, (_, remote): Ends, error: IkeError) {
        if self.admission.may_tell(now) {
            let event = Event::Refused { ike: None, connection: None, remote, error, authenticated: false };
            self.shared.out.push_back(super::Output::Event(event));
        }
    }

    /// A request for a new IKE SA.
    fn init_request(
        &mut self,
        now: Instant,
        ends: Ends,
        message: &Message<'_>,
        bytes: &[u8],
        rng: &mut dyn Rng,
    ) {
        let (header, payloads) = (&message.header, &message.payloads);
        let fits = header.spi_r.is_zero()
            && !header.spi_i.is_zero()
            && header.id.0 == 0
            && header.flags.initiator
            && message.encrypted.is_none()
            // Our own request, sent back to us.
            && self.demux.by_spi(header.spi_i).is_none();
        if !fits {
            return;
        }
        let Some(nonce) = payloads.nonce else {
            let error = Malformed::Missing(PayloadType::Nonce).into();
            self.reply_stateless(ends, refusal(header, &error));
            return self.tell_stranger(now, ends, error);
        };
        let claim = Claim { nonce, source: ends.1, spi_i: header.spi_i };
        let proven = self.is_proven(now, claim, payloads);
        if let Some(known) = self.demux.initial(ends.1, header.spi_i, nonce) {
            if self.repeat_init_answer(known, ends, bytes) || !proven {
                return;
            }
            // The initiator's AUTH will cover this request, with its cookie, and not the copy without (§2.6).
            self.turn(now, known, rng, |sa, _| sa.state = State::Gone);
            self.reindex(known);
        }
        if !self.admitted(now, ends, header, claim, proven, rng) {
            return;
        }
        let mut turn = Turn { now, rng, shared: &mut self.shared };
        match answer(&mut turn, header.spi_i, ends, payloads, bytes, proven) {
            Ok(sa) => self.adopt(sa),
            Err(error) => {
                let reply = refusal(header, &error);
                self.reply_stateless(ends, reply);
                self.tell_stranger(now, ends, error);
            }
        }
    }

    /// The same request again gets the same answer. Whether it is the same, or its state is beyond change.
    fn repeat_init_answer(&mut self, known: crate::sa::IkeSaId, ends: Ends, bytes: &[u8]) -> bool {
        let Some(IkeSa { channel, state: State::ExpectAuth(expect), .. }) = self.sas.get(&known) else {
            return true;
        };
        if expect.request != bytes {
            return false;
        }
        if let Judged::Repeated(Some(answer)) = channel.window.judge(crate::message::MessageId(0)) {
            let answer = answer.to_vec();
            self.reply_stateless(ends, Some(answer));
        }
        true
    }

    /// Whether a request brought our cookie: its sender receives what is sent to its address.
    fn is_proven(&self, now: Instant, claim: Claim<'_>, payloads: &Payloads<'_>) -> bool {
        let shown = payloads.notify(NotifyType::Cookie);
        shown.is_some_and(|shown| self.cookies.holds(&*self.shared.provider, now, claim, shown.data))
    }

    /// Whether a stranger may make state.
    fn admitted(
        &mut self,
        now: Instant,
        ends: Ends,
        header: &Header,
        claim: Claim<'_>,
        proven: bool,
        rng: &mut dyn Rng,
    ) -> bool {
        let limits = self.shared.config.limits;
        let full = self.sas.len() >= limits.ike_sas_max as usize;
        let provider = self.shared.provider.clone();
        let mark = if proven { None } else { self.cookies.mark(&*provider, claim) };
        let request = Request {
            source: ends.1.ip(),
            proven,
            is_peer: self.shared.config.is_peer(ends.1.ip()),
            demanded: mark.is_some_and(|mark| self.admission.demanded().has(&mark)),
        };
        let judged = if full { Admitted::No } else { self.admission.judge(&limits, request) };
        match judged {
            Admitted::Yes => true,
            Admitted::No => {
                if let Some(dropped) = self.admission.dropped(now) {
                    let half_open = self.admission.half_open();
                    self.shared.out.push_back(super::Output::Event(Event::Overload { half_open, dropped }));
                }
                false
            }
            Admitted::WithCookie => {
                let cookie = self.cookies.make(&*provider, rng, now, claim).ok();
                if let Some(mark) = self.cookies.mark(&*provider, claim) {
                    self.admission.demanded().add(mark);
                }
                let reply = cookie.and_then(|cookie| {
                    stateless(ExchangeType::IkeSaInit, header, Notify::new(NotifyType::Cookie, &cookie))
                });
                self.reply_stateless(ends, reply);
                false
            }
        }
    }

    /// An answer to a request of ours for a new IKE SA.
    fn init_reply(&mut self, now: Instant, message: &Message<'_>, bytes: &[u8], rng: &mut dyn Rng) {
        let header = &message.header;
        if header.flags.initiator || message.encrypted.is_some() {
            return;
        }
        let Some(id) = self.demux.by_spi(header.spi_i) else { return };
        let (spi_r, payloads): (IkeSpi, &Payloads<'_>) = (header.spi_r, &message.payloads);
        self.turn(now, id, rng, |sa, turn| {
            if !sa.channel.initiator || !sa.channel.window.awaits(header.id) {
                return;
            }
            let state = core::mem::replace(&mut sa.state, State::Gone);
            sa.state = match state {
                State::ExpectInitReply(expect) => {
                    expect.on_reply(&mut sa.channel, turn, spi_r, payloads, bytes)
                }
                state => state,
            };
        });
        self.reindex(id);
    }

    /// A message under the keys of an IKE SA.
    fn protected(
        &mut self,
        now: Instant,
        ends: Ends,
        message: &Message<'_>,
        bytes: &[u8],
        rng: &mut dyn Rng,
    ) {
        let header = &message.header;
        let Some(encrypted) = &message.encrypted else { return self.hint(now, ends, message, rng) };
        // The sender is the original initiator: then we are the responder, and ours is SPIr.
        let (ours, theirs) =
            if header.flags.initiator { (header.spi_r, header.spi_i) } else { (header.spi_i, header.spi_r) };
        let Some(id) = self.demux.by_spi(ours) else {
            // A message of ours that comes back to us is nobody's question.
            if self.demux.by_spi(theirs).is_none() {
                self.unknown_ike_spi(now, ends, header, bytes.len());
            }
            return;
        };
        let header = *header;
        let encrypted = *encrypted;
        let mut bytes = bytes.to_vec();
        self.turn(now, id, rng, |sa, turn| {
            let channel = &sa.channel;
            if channel.initiator != header.flags.initiator && channel.peer_spi() == theirs {
                sa.on_message(turn, &header, &encrypted, &mut bytes, ends);
            }
        });
        self.reindex(id);
    }

    /// Tells a configured peer that we have no such IKE SA (RFC 7296 §2.21.4): it may have to begin anew, and learns it
    /// sooner than by silence. Never to anybody else, never more than it has sent, never in answer to an answer.
    fn unknown_ike_spi(&mut self, now: Instant, ends: Ends, header: &Header, len: usize) {
        let peer = ends.1.ip();
        let asks = !header.flags.response && !header.spi_r.is_zero();
        if asks && self.shared.config.is_peer(peer) && self.admission.may_hint(now, peer) {
            let reply = stateless(header.exchange, header, Notify::new(NotifyType::InvalidIkeSpi, &[]));
            self.reply_stateless(ends, reply.filter(|reply| reply.len() <= len));
        }
    }

    /// A notify in clear about an SPI can be anybody's. From where the path leads to it is a reason to ask the peer
    /// whether it lives, now and then, and nothing more (RFC 7296 §2.21.4, §3.10.1).
    fn hint(&mut self, now: Instant, (_, remote): Ends, message: &Message<'_>, rng: &mut dyn Rng) {
        let header = &message.header;
        let is_about_spi = message
            .payloads
            .notifies()
            .any(|notify| matches!(notify.kind, NotifyType::InvalidIkeSpi | NotifyType::InvalidSpi));
        let ours = if header.flags.initiator { header.spi_r } else { header.spi_i };
        let Some(id) = self.demux.by_spi(ours).filter(|_| is_about_spi) else { return };
        self.turn(now, id, rng, |sa, turn| {
            if let Some((channel, established)) = sa.established_mut()
                && channel.path.remote == remote
                && turn.now.since(channel.heard) >= HINT_EVERY
            {
                established.doubt_path(channel, turn);
            }
            sa.after(turn);
        });
        self.reindex(id);
    }
}

/// After an authentic message of the peer, hints that nobody has authenticated count for nothing so long.
const HINT_EVERY: Duration = Duration::from_secs(10);
