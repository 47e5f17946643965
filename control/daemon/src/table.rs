//! What the data plane has, as control knows it: one record for each SA, and the places of both tables.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use pollux_abi::command::{Direction, SaSpec};
use pollux_abi::{SaCounters, SaId, SaIndex, Spi};
use pollux_config::api::{Fingerprint, SaRow};
use pollux_ike::endpoint::SaAllocator;

use crate::index::IndexPool;

/// How far an SA has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// On its way in.
    Installing,
    /// Owner and every worker have it.
    Installed,
    /// Wanted no more; an inbound SA that goes on decrypting for a while.
    Lingering,
    /// On its way out.
    Removing,
}

/// One SA.
#[derive(Clone, Debug)]
pub(crate) struct SaEntry {
    /// All that can be read back of it.
    pub(crate) row: SaRow,
    /// How far it has come.
    pub(crate) state: State,
}

impl SaEntry {
    pub(crate) fn new(spec: &SaSpec, fingerprint: Fingerprint, name: Option<String>) -> Self {
        let mut row = SaRow::new(spec, fingerprint, 0, 0, &SaCounters::default());
        row.name = name;
        Self { row, state: State::Installing }
    }

    /// Manual SAs have a slot of the counter file; negotiated ones live one life and need none.
    pub(crate) fn is_manual(&self) -> bool {
        self.row.checkpoint.is_some()
    }

    pub(crate) fn is_inbound(&self) -> bool {
        self.row.direction == "in"
    }

    pub(crate) fn direction(&self) -> Direction {
        if self.is_inbound() { Direction::Inbound } else { Direction::Outbound }
    }
}

/// Places of both directions and names, shared with the IKE core, which draws SPIs in the middle of a message.
#[derive(Debug)]
struct Places {
    inbound: IndexPool,
    outbound: IndexPool,
    width: u32,
    ids: u64,
}

/// A handle on the places.
#[derive(Clone, Debug)]
pub(crate) struct Allocator(Arc<Mutex<Places>>);

impl Allocator {
    /// `life` sets the names of this process apart from those that an earlier one has given out.
    pub(crate) fn new(life: u32) -> Self {
        Self(Arc::new(Mutex::new(Places {
            inbound: IndexPool::new(0),
            outbound: IndexPool::new(0),
            width: 0,
            ids: u64::from(life) << 32,
        })))
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts over with the tables of a data plane.
    pub(crate) fn reset(&self, capacity: u32, width: u32) {
        let mut places = self.places();
        places.inbound = IndexPool::new(capacity);
        places.outbound = IndexPool::new(capacity);
        places.width = width;
    }

    /// A name that no SA has had.
    pub(crate) fn id(&self) -> SaId {
        let mut places = self.places();
        places.ids += 1;
        SaId(places.ids)
    }

    /// A place for an SA whose SPI is not of our making. What place such an SPI seems to name says nothing: the data
    /// plane looks it up by the whole SPI.
    pub(crate) fn place(&self, direction: Direction, now: Instant) -> Option<SaIndex> {
        let mut places = self.places();
        match direction {
            Direction::Outbound => places.outbound.allocate(now),
            Direction::Inbound => places.inbound.allocate(now),
        }
    }

    /// Takes the place of an SA that is installed already.
    pub(crate) fn claim(&self, direction: Direction, index: SaIndex) {
        let mut places = self.places();
        match direction {
            Direction::Inbound => places.inbound.claim(index),
            Direction::Outbound => places.outbound.claim(index),
        };
    }

    /// Gives a place back.
    pub(crate) fn free(&self, direction: Direction, index: SaIndex) {
        let mut places = self.places();
        match direction {
            Direction::Inbound => places.inbound.release(index, Instant::now()),
            Direction::Outbound => places.outbound.release(index, Instant::now()),
        }
    }

    /// The place that an SPI of ours names.
    pub(crate) fn index_of(&self, spi: Spi) -> Option<SaIndex> {
        spi.index(self.places().width)
    }
}

impl SaAllocator for Allocator {
    fn inbound_spi(&mut self, random: u32) -> Option<Spi> {
        let mut places = self.places();
        let width = places.width;
        let index = places.inbound.allocate(Instant::now())?;
        Spi::with_index(index, width, random)
    }

    fn release(&mut self, spi: Spi) {
        if let Some(index) = self.index_of(spi) {
            self.free(Direction::Inbound, index);
        }
    }

    fn sa_id(&mut self) -> SaId {
        self.id()
    }
}

/// Every SA that the data plane has, gets or loses.
pub(crate) type Table = HashMap<SaId, SaEntry>;
