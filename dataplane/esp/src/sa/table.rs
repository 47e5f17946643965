//! The tables: slots by index, and the ways that lead to an index (SPI, SA id, reqid).

use pollux_abi::command::Direction;
use pollux_abi::{Reqid, SaId, SaIndex, Spi, WorkerId};
use pollux_aead::Key;

use super::{IdMap, InboundSa, OutboundSa, SaRecord, SelectorTable};

/// Who has an SA. Eight octets, so that eight SAs share a cache line in the lookup.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slot {
    /// The SPI; 0 for a free slot.
    pub(crate) spi: u32,
    /// The one worker that holds the keys.
    pub(crate) owner: WorkerId,
    /// Whether that is this worker.
    pub(crate) owned: bool,
}

/// The SAs of one direction, each part in an array of its own.
#[derive(Debug)]
pub(crate) struct DirectionTable<Hot> {
    pub(crate) slots: Box<[Slot]>,
    pub(crate) hot: Box<[Hot]>,
    pub(crate) keys: Box<[Option<Key>]>,
    pub(crate) selectors: SelectorTable,
    pub(crate) records: Box<[Option<SaRecord>]>,
}

impl<Hot: Default> DirectionTable<Hot> {
    fn new(capacity: usize) -> Self {
        Self {
            slots: vec![Slot::default(); capacity].into(),
            hot: std::iter::repeat_with(Hot::default).take(capacity).collect(),
            keys: std::iter::repeat_with(|| None).take(capacity).collect(),
            selectors: SelectorTable::new(capacity),
            records: vec![None; capacity].into(),
        }
    }

    /// Whether the index is in the table and free.
    pub(crate) fn is_free(&self, index: SaIndex) -> bool {
        self.slots.get(place(index)).is_some_and(|slot| slot.spi == 0)
    }

    /// The record of an SA.
    #[inline]
    pub(crate) fn record(&self, index: SaIndex) -> Option<&SaRecord> {
        self.records.get(place(index))?.as_ref()
    }

    /// The record of an SA.
    #[inline]
    pub(crate) fn record_mut(&mut self, index: SaIndex) -> Option<&mut SaRecord> {
        self.records.get_mut(place(index))?.as_mut()
    }

    /// The record and hot half of an SA that this worker owns.
    pub(crate) fn owned_mut(&mut self, index: SaIndex) -> Option<(&mut SaRecord, &mut Hot)> {
        let at = place(index);
        if !self.slots.get(at)?.owned {
            return None;
        }
        Some((self.records.get_mut(at)?.as_mut()?, self.hot.get_mut(at)?))
    }

    /// Frees a slot; its keys are wiped.
    fn clear(&mut self, index: SaIndex) -> Option<SaRecord> {
        let at = place(index);
        *self.slots.get_mut(at)? = Slot::default();
        self.hot[at] = Hot::default();
        self.keys[at] = None;
        self.selectors.clear(at);
        self.records[at].take()
    }
}

/// Every SA that this worker owns or knows the owner of.
#[derive(Debug)]
pub(crate) struct SaTable {
    pub(crate) inbound: DirectionTable<InboundSa>,
    pub(crate) outbound: DirectionTable<OutboundSa>,
    spi_index_width: u32,
    /// Inbound SPIs that do not carry their index.
    manual_spis: IdMap,
    /// SA ids; the value's top bit says outbound.
    ids: IdMap,
    /// The newest outbound SA of each reqid.
    reqids: IdMap,
}

/// Cache lines of a key to be asked for ahead of a packet of `len` octets: of a short one, the cipher asks for the
/// rest itself, in the shadow of the packets before, and sooner would only crowd out other lines.
#[inline]
pub(crate) const fn key_lines(len: usize) -> usize {
    if len <= 128 { 1 } else { 8 }
}

const OUTBOUND_BIT: u32 = 1 << 31;

/// SAs of one reqid that are asked for their selectors at most: rekeying leaves two or three alive, and
/// policies of many narrowed SAs have a reqid for each.
const CHAIN_MAX: usize = 16;

/// Which SA a leaving packet takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// One of ours.
    Own(SaIndex),
    /// One of another worker's, which checks the selectors once more.
    Other(SaIndex, WorkerId),
    /// None.
    None,
}

impl SaTable {
    pub(crate) fn new(capacity: u32, spi_index_width: u32) -> Self {
        let capacity = capacity as usize;
        Self {
            inbound: DirectionTable::new(capacity),
            outbound: DirectionTable::new(capacity),
            spi_index_width,
            manual_spis: IdMap::new(capacity),
            ids: IdMap::new(capacity * 2),
            reqids: IdMap::new(capacity),
        }
    }

    /// The index in the table that an SPI carries, if it is of our own making.
    #[inline]
    pub(crate) fn guess(&self, spi: u32) -> Option<SaIndex> {
        let index = Spi::new(spi)?.index(self.spi_index_width)?;
        (place(index) < self.inbound.slots.len()).then_some(index)
    }

    /// The inbound SA with this SPI: an array access and a full compare; a hash probe where the SPI is not
    /// of our own making.
    #[inline]
    pub(crate) fn find_spi(&self, spi: u32) -> Option<SaIndex> {
        let spi = Spi::new(spi)?;
        if let Some(index) = spi.index(self.spi_index_width)
            && self.inbound.slots.get(place(index)).is_some_and(|slot| slot.spi == spi.get())
        {
            return Some(index);
        }
        if self.manual_spis.is_empty() { None } else { self.manual_spis.find(u64::from(spi.get())) }
    }

    /// Whether an SPI without an SA is one that control may have given out: its index is in the table and
    /// free.
    pub(crate) fn may_come(&self, spi: u32) -> bool {
        Spi::new(spi)
            .and_then(|spi| spi.index(self.spi_index_width))
            .is_some_and(|index| self.inbound.is_free(index))
    }

    /// Where an SA is.
    pub(crate) fn find_id(&self, id: SaId) -> Option<(Direction, SaIndex)> {
        let SaIndex(value) = self.ids.find(id.0)?;
        let direction = if value & OUTBOUND_BIT == 0 { Direction::Inbound } else { Direction::Outbound };
        Some((direction, SaIndex(value & !OUTBOUND_BIT)))
    }

    /// The newest outbound SA of a reqid.
    pub(crate) fn newest(&self, reqid: Reqid) -> Option<SaIndex> {
        self.reqids.find(reqid_key(reqid))
    }

    /// Which SA of a bundle a packet takes: the newest whose selectors accept it. Packets for an SA of
    /// another worker go there.
    #[inline]
    pub(crate) fn choose(&self, newest: Option<SaIndex>, flow: &pollux_packet::Flow) -> Choice {
        let mut next = newest;
        for _ in 0..CHAIN_MAX {
            let Some(index) = next else { return Choice::None };
            let Some(slot) = self.outbound.slots.get(place(index)) else { return Choice::None };
            if self.outbound.selectors.accepts_leaving(place(index), flow) {
                return if slot.owned { Choice::Own(index) } else { Choice::Other(index, slot.owner) };
            }
            next = self.outbound.record(index).and_then(|record| record.older);
        }
        Choice::None
    }

    /// Enters a slot, a record and the ways that lead to it. The caller has checked that the slot is free
    /// and that there is room; it fills in the rest.
    pub(crate) fn enter(&mut self, direction: Direction, index: SaIndex, slot: Slot, record: SaRecord) {
        let (id, reqid, spi) = (record.id, record.reqid, record.spi);
        let at = place(index);
        // All three maps hold as many keys as there are slots, so that none can be full here.
        let entered = match direction {
            Direction::Inbound => {
                self.inbound.slots[at] = slot;
                self.inbound.records[at] = Some(record);
                let carried = spi.index(self.spi_index_width) == Some(index);
                self.ids.insert(id.0, index)
                    && (carried || self.manual_spis.insert(u64::from(spi.get()), index))
            }
            Direction::Outbound => {
                let older = self.newest(reqid);
                self.outbound.slots[at] = slot;
                self.outbound.records[at] = Some(SaRecord { older, ..record });
                if let Some(older) = older.and_then(|older| self.outbound.record_mut(older)) {
                    older.newer = Some(index);
                }
                self.reqids.insert(reqid_key(reqid), index)
                    && self.ids.insert(id.0, SaIndex(index.0 | OUTBOUND_BIT))
            }
        };
        debug_assert!(entered, "the maps are as large as the table");
    }

    /// Removes an SA and gives back its record.
    pub(crate) fn remove(&mut self, direction: Direction, index: SaIndex) -> Option<SaRecord> {
        let record = match direction {
            Direction::Inbound => self.inbound.clear(index)?,
            Direction::Outbound => self.outbound.clear(index)?,
        };
        self.ids.remove(record.id.0);
        match direction {
            Direction::Inbound => {
                if record.spi.index(self.spi_index_width) != Some(index) {
                    self.manual_spis.remove(u64::from(record.spi.get()));
                }
            }
            Direction::Outbound => self.unchain(&record),
        }
        Some(record)
    }

    fn unchain(&mut self, record: &SaRecord) {
        if let Some(older) = record.older.and_then(|older| self.outbound.record_mut(older)) {
            older.newer = record.newer;
        }
        match (record.newer, record.older) {
            (Some(newer), older) => {
                if let Some(newer) = self.outbound.record_mut(newer) {
                    newer.older = older;
                }
            }
            (None, Some(older)) => {
                let replaced = self.reqids.insert(reqid_key(record.reqid), older);
                debug_assert!(replaced, "the key was there");
            }
            (None, None) => self.reqids.remove(reqid_key(record.reqid)),
        }
    }
}

/// An index as a place in the arrays.
#[inline]
pub(crate) const fn place(index: SaIndex) -> usize {
    index.0 as usize
}

/// 0 is a reqid and no key.
const fn reqid_key(reqid: Reqid) -> u64 {
    reqid.0 as u64 + 1
}
