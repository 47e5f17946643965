//! IKE_SA_INIT as responder: the one message that makes state for a stranger (RFC 7296 §1.2).

use core::net::SocketAddr;

use super::auth_responder::ExpectAuth;
use super::rekey_ike_initiator::new_spi;
use super::{ke_method, nat, nonce, present};
use crate::endpoint::{Stranger, Turn};
use crate::error::IkeError;
use crate::event::Event;
use crate::message::{
    ExchangeType, Flags, Header, IkeSpi, Ke, MessageId, Notify, NotifyType, PayloadType, Payloads, Protocol,
    Writer,
};
use crate::negotiate::{Chosen, IkeAgreement, proposal, syntax};
use crate::sa::keys::{Contributions, Seed, grow};
use crate::sa::{Channel, IkeSa, Path, State, Timer, Window};

/// Answers IKE_SA_INIT: a half-open IKE SA, with its answer in the window. `proven`: the request brought our cookie.
pub(crate) fn answer(
    turn: &mut Turn<'_>,
    spi_i: IkeSpi,
    (local, remote): (SocketAddr, SocketAddr),
    payloads: &Payloads<'_>,
    request: &[u8],
    proven: bool,
) -> Result<IkeSa, IkeError> {
    let nonce_i = present(payloads.nonce, PayloadType::Nonce)?;
    let theirs = present(payloads.ke, PayloadType::Ke)?;
    let (chosen, encap) = choose(turn, payloads, (local, remote))?;
    let suite = chosen.agreement;
    let provider = turn.shared.provider.clone();
    let (public, shared) = provider.answer_ke(suite.ke, theirs.public, turn.rng)?;
    let spi_r = new_spi(turn);
    let nonce_r = nonce(turn.rng);
    let id = turn.next_ike_id();
    let mut path = Path::new(local, remote);
    path.forced = encap;
    let (nat_local, nat_remote) = nat::detect(&*provider, payloads, (spi_i, IkeSpi::ZERO), local, remote);
    path.nat_local = nat_local;
    path.nat_remote = nat_remote;
    let mut channel = Channel::new(id, (spi_i, spi_r), false, path, turn.now);
    let from = Contributions { shared: &shared, nonce_i, nonce_r: &nonce_r, spi_i, spi_r };
    let mut log = None;
    let mut keep = |keys| log = Some(keys);
    let wanted = turn.shared.config.log_keys;
    let log_to: Option<&mut dyn FnMut(_)> = if wanted { Some(&mut keep) } else { None };
    let (keys, protect) = grow(&*provider, suite, Seed::Initial, from, false, log_to)?;
    if let Some(keys) = log {
        turn.event(Event::Keys(keys));
    }
    channel.protect = Some(protect);
    let mut writer = Writer::new(&channel.header(ExchangeType::IkeSaInit, MessageId(0), true));
    writer.sa(&[chosen.answer(Protocol::Ike, &[])]);
    writer.ke(Ke { method: suite.ke.id(), public: &public });
    writer.nonce(&nonce_r);
    nat::write(&mut writer, &*provider, turn.rng, (spi_i, spi_r), &path, encap);
    let response =
        writer.finish().map_err(|_| IkeError::Internal { what: "IKE_SA_INIT could not be written" })?;
    channel.reply(turn, response.clone());
    // The request was number 0; its repetitions find this IKE SA by address and SPI.
    channel.window = Window::starting_at(MessageId(0), MessageId(1));
    channel.window.answered(response.clone());
    channel.timers.set(Timer::HalfOpen, turn.now + turn.shared.config.limits.half_open_timeout);
    channel.half_open = Some(Stranger { source: remote, spi_i, nonce: nonce_i.into(), proven });
    let expect = ExpectAuth {
        keys,
        suite,
        proposal: super::init_initiator::describe(&chosen.transforms),
        nonce_i: nonce_i.to_vec(),
        nonce_r: nonce_r.to_vec(),
        request: request.to_vec(),
        response,
    };
    Ok(IkeSa::new(channel, State::ExpectAuth(Box::new(expect))))
}

/// The first connection about these addresses whose proposals fit, and whether it forces UDP.
fn choose(
    turn: &Turn<'_>,
    payloads: &Payloads<'_>,
    (local, remote): (SocketAddr, SocketAddr),
) -> Result<(Chosen<IkeAgreement>, bool), IkeError> {
    let sa = present(payloads.sa.as_ref(), PayloadType::Sa)?;
    let theirs = present(payloads.ke, PayloadType::Ke)?;
    sa.check_numbers()?;
    let about = || turn.shared.config.about(local.ip(), remote.ip());
    for connection in about() {
        let key = || format!("connection.{}.proposals", connection.name);
        if let Some(chosen) = proposal::choose_ike(&connection.proposals, sa, ke_method(&theirs), 0) {
            if theirs.method != chosen.agreement.ke.id() {
                let accepted = chosen.agreement.ke.id();
                return Err(IkeError::InvalidKe { offered: theirs.method, accepted, key: key() });
            }
            return Ok((chosen, connection.encap));
        }
    }
    let Some(first) = about().next() else {
        let (identity, wanted) = ("-".to_owned(), "-".to_owned());
        let accepted = turn.shared.config.describe();
        return Err(IkeError::NoConnection {
            local: local.ip(),
            remote: remote.ip(),
            identity,
            wanted,
            accepted,
        });
    };
    Err(IkeError::NoProposalChosen {
        offered: syntax::describe_sa(sa),
        accepted: syntax::describe(&first.proposals),
        key: format!("connection.{}.proposals", first.name),
    })
}

/// An answer in clear to a request that makes no state: one notify (RFC 7296 §2.21.1).
pub(crate) fn stateless(exchange: ExchangeType, to: &Header, notify: Notify<'_>) -> Option<Vec<u8>> {
    // The sender's SPIs and message id come back; we are the original responder as far as anyone knows.
    let flags = Flags { initiator: !to.flags.initiator, higher_version: false, response: true };
    let header = Header::new(to.spi_i, to.spi_r, exchange, flags, to.id);
    let mut writer = Writer::new(&header);
    writer.notify(notify);
    writer.finish().ok()
}

/// The stateless refusal of IKE_SA_INIT. Authentication is no matter yet: who has no connection is told
/// that nothing it could propose would be chosen.
pub(crate) fn refusal(to: &Header, error: &IkeError) -> Option<Vec<u8>> {
    match error {
        IkeError::InvalidKe { accepted, .. } => {
            let data = accepted.to_be_bytes();
            stateless(ExchangeType::IkeSaInit, to, Notify::new(NotifyType::InvalidKePayload, &data))
        }
        IkeError::NoConnection { .. } => {
            stateless(ExchangeType::IkeSaInit, to, Notify::new(NotifyType::NoProposalChosen, &[]))
        }
        IkeError::Malformed(crate::message::Malformed::UnknownCritical(number)) => {
            let notify = Notify::new(NotifyType::UnsupportedCriticalPayload, core::slice::from_ref(number));
            stateless(ExchangeType::IkeSaInit, to, notify)
        }
        IkeError::Internal { .. } => None,
        error => stateless(ExchangeType::IkeSaInit, to, Notify::new(error.notify(), &[])),
    }
}
