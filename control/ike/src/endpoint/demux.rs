//! Which IKE SA a datagram belongs to.

use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::admission::Stranger;
use crate::message::IkeSpi;
use crate::sa::{IkeSa, IkeSaId};

/// A request as its sender tells it apart: address, port, SPI and nonce.
type Initial = (SocketAddr, IkeSpi, Arc<[u8]>);

/// SPIs of ours, and the strangers whose IKE_SA_INIT was answered.
#[derive(Debug, Default)]
pub(crate) struct Demux {
    by_spi: BTreeMap<IkeSpi, IkeSaId>,
    initial: BTreeMap<Initial, IkeSaId>,
}

impl Demux {
    pub(crate) fn insert(&mut self, sa: &IkeSa) {
        self.by_spi.insert(sa.channel.our_spi(), sa.channel.id);
        if let Some(stranger) = &sa.channel.half_open {
            self.initial.insert(key(stranger), sa.channel.id);
        }
    }

    /// The IKE SA with this SPI of ours.
    pub(crate) fn by_spi(&self, ours: IkeSpi) -> Option<IkeSaId> {
        self.by_spi.get(&ours).copied()
    }

    /// The half-open IKE SA that an IKE_SA_INIT from there has made.
    pub(crate) fn initial(&self, source: SocketAddr, spi_i: IkeSpi, nonce: &[u8]) -> Option<IkeSaId> {
        self.initial.get(&(source, spi_i, nonce.into())).copied()
    }

    /// A half-open IKE SA is established or gone.
    pub(crate) fn no_longer_initial(&mut self, stranger: &Stranger) {
        self.initial.remove(&key(stranger));
    }

    pub(crate) fn forget(&mut self, sa: &IkeSa) {
        self.by_spi.remove(&sa.channel.our_spi());
    }

    /// Entries, for the proof that nothing is left behind.
    pub(crate) fn len(&self) -> usize {
        self.by_spi.len() + self.initial.len()
    }
}

fn key(stranger: &Stranger) -> Initial {
    (stranger.source, stranger.spi_i, stranger.nonce.clone())
}
