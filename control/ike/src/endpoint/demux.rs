//! Which IKE SA a datagram belongs to.

use core::net::SocketAddr;
use std::collections::BTreeMap;

use crate::message::IkeSpi;
use crate::sa::{IkeSa, IkeSaId};

/// SPIs of ours, and the strangers whose IKE_SA_INIT was answered.
#[derive(Debug, Default)]
pub(crate) struct Demux {
    by_spi: BTreeMap<IkeSpi, IkeSaId>,
    initial: BTreeMap<(SocketAddr, IkeSpi), IkeSaId>,
}

impl Demux {
    pub(crate) fn insert(&mut self, sa: &IkeSa) {
        self.by_spi.insert(sa.channel.our_spi(), sa.channel.id);
        if let Some(source) = sa.channel.half_open {
            self.initial.insert((source, sa.channel.spi_i), sa.channel.id);
        }
    }

    /// The IKE SA with this SPI of ours.
    pub(crate) fn by_spi(&self, ours: IkeSpi) -> Option<IkeSaId> {
        self.by_spi.get(&ours).copied()
    }

    /// The half-open IKE SA that an IKE_SA_INIT from there has made.
    pub(crate) fn initial(&self, source: SocketAddr, spi_i: IkeSpi) -> Option<IkeSaId> {
        self.initial.get(&(source, spi_i)).copied()
    }

    /// A half-open IKE SA is established or gone.
    pub(crate) fn no_longer_initial(&mut self, source: SocketAddr, spi_i: IkeSpi) {
        self.initial.remove(&(source, spi_i));
    }

    pub(crate) fn forget(&mut self, sa: &IkeSa) {
        self.by_spi.remove(&sa.channel.our_spi());
    }

    /// Entries, for the proof that nothing is left behind.
    pub(crate) fn len(&self) -> usize {
        self.by_spi.len() + self.initial.len()
    }
}
