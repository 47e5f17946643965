//! Message ids: each is used once, and each request that is taken is answered.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use pollux_ike::Instant;
use pollux_ike::endpoint::{DATA_PLANE_DEADLINE, IkeStatus};
use pollux_ike::message::{ExchangeType, IkeSpi, Message};

/// A request waits for the data plane at most, which may have two halves of a Child SA to install.
const ANSWER: Duration = DATA_PLANE_DEADLINE.saturating_mul(3);

/// A life of one gateway.
pub(crate) type Life = (usize, u32);

/// An IKE SA as its SPIs name it.
pub(crate) type Spis = (IkeSpi, IkeSpi);

/// What was sent, and what waits for its answer.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    sent: BTreeMap<(Life, Spis, u32, bool), u64>,
    /// Requests that have arrived whole, by who has to answer.
    waiting: BTreeMap<(Life, Spis, u32), Instant>,
    answered: BTreeSet<(Life, Spis, u32)>,
}

impl Requests {
    /// A datagram leaves. IKE_SA_INIT may change under one id, by cookies and other groups; refusals in clear
    /// belong to no IKE SA.
    pub(crate) fn sent(&mut self, life: Life, bytes: &[u8]) -> Result<(), String> {
        let message = Message::parse(bytes).map_err(|error| error.to_string())?;
        let header = message.header;
        if header.exchange == ExchangeType::IkeSaInit || message.encrypted.is_none() {
            return Ok(());
        }
        let (spis, id) = ((header.spi_i, header.spi_r), header.id.0);
        let print =
            bytes.iter().fold(7u64, |hash, octet| (hash ^ u64::from(*octet)).wrapping_mul(0x100_0000_01b3));
        if header.flags.response {
            self.waiting.remove(&(life, spis, id));
            self.answered.insert((life, spis, id));
        }
        let known = *self.sent.entry((life, spis, id, header.flags.response)).or_insert(print);
        if known == print { Ok(()) } else { Err(format!("message id {id} of {spis:?} is used twice")) }
    }

    /// A datagram of the other end arrives as it was sent. `status`: the IKE SAs there are.
    pub(crate) fn arrived(&mut self, life: Life, bytes: &[u8], status: &[IkeStatus], now: Instant) {
        let Ok(message) = Message::parse(bytes) else { return };
        let header = message.header;
        let (spis, id) = ((header.spi_i, header.spi_r), header.id.0);
        let asks = !header.flags.response && message.encrypted.is_some();
        if asks && serves(status, spis) && !self.answered.contains(&(life, spis, id)) {
            self.waiting.entry((life, spis, id)).or_insert(now);
        }
    }

    /// Whether a request waits for too long. `status`: the IKE SAs of that gateway.
    pub(crate) fn look(&mut self, life: Life, status: &[IkeStatus], now: Instant) -> Result<(), String> {
        self.waiting.retain(|(of, spis, _), _| of.0 != life.0 || *of == life && knows(status, *spis));
        let late = self.waiting.iter().find(|((of, ..), since)| *of == life && now.since(**since) > ANSWER);
        match late {
            None => Ok(()),
            Some(((_, spis, id), since)) => {
                Err(format!("request {id} of {spis:?}, which arrived at {since}, has no answer"))
            }
        }
    }
}

/// Whether an IKE SA can be asked. Before it is established it has not authenticated the peer; and an IKE_SA_INIT that was
/// damaged on its way has made keys that the peer does not have.
fn serves(status: &[IkeStatus], spis: Spis) -> bool {
    status.iter().any(|ike| (ike.spi_i, ike.spi_r) == spis && ike.state != "CONNECTING")
}

fn knows(status: &[IkeStatus], spis: Spis) -> bool {
    status.iter().any(|ike| (ike.spi_i, ike.spi_r) == spis)
}
