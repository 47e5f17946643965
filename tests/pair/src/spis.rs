//! Inbound SPIs and names of SAs, one after the other.

use pollux_abi::layout::SPI_INDEX_WIDTH_MAX;
use pollux_abi::{SaId, SaIndex, Spi};
use pollux_ike::endpoint::SaAllocator;

/// Indices and names that are never given twice.
#[derive(Debug, Default)]
pub struct Counting {
    index: u32,
    id: u64,
}

impl Counting {
    /// Begins behind these numbers, as a new control process does whose data plane has SAs already.
    pub const fn behind(index: u32, id: u64) -> Self {
        Self { index, id }
    }
}

impl SaAllocator for Counting {
    fn inbound_spi(&mut self, random: u32) -> Option<Spi> {
        self.index += 1;
        Spi::with_index(SaIndex(self.index), SPI_INDEX_WIDTH_MAX, random)
    }

    fn release(&mut self, _: Spi) {}

    fn sa_id(&mut self) -> SaId {
        self.id += 1;
        SaId(self.id)
    }
}
