//! The hot half of an outbound SA.

use pollux_abi::dscp::{DfMark, DscpMark, EcnMode};
use pollux_abi::{DropReason, EspSuite};
use pollux_packet::{Flow, esp};

use super::lifetime::{Limits, flag};
use super::outer_template::OuterTemplate;

/// What every packet of an outbound SA touches.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct OutboundSa {
    // hot, written
    /// The next sequence number; 64 bits, of which 32 count without ESN.
    pub(crate) next_seq: u64,
    /// The next IV.
    pub(crate) next_iv: u64,
    /// The first number that the counter file does not yet reserve.
    pub(crate) reserved: u64,
    /// Bits of [`super::flag`].
    pub(crate) flags: u8,
    // hot, read
    pub(crate) esn: bool,
    pub(crate) iv_len: u8,
    pub(crate) icv_len: u8,
    /// What payload, padding and trailer are a multiple of.
    pub(crate) block: u8,
    pub(crate) dscp: DscpMark,
    pub(crate) df: DfMark,
    pub(crate) ecn: EcnMode,
    /// The longest inner packet.
    pub(crate) inner_mtu: u16,
    /// Path MTU of the outer packet.
    pub(crate) mtu: u16,
    /// Slot of the counter file, `u32::MAX` for none.
    pub(crate) checkpoint: u32,
    pub(crate) limits: Limits,
    /// The outer packets' own flow.
    pub(crate) outer: Flow,
    /// Their headers.
    pub(crate) template: OuterTemplate,
}

const _: () = assert!(size_of::<OutboundSa>() <= 192);

impl Default for OutboundSa {
    fn default() -> Self {
        Self {
            next_seq: 1,
            next_iv: 1,
            reserved: 0,
            flags: 0,
            esn: false,
            iv_len: 0,
            icv_len: 0,
            block: 4,
            dscp: DscpMark::Copy,
            df: DfMark::Copy,
            ecn: EcnMode::Normal,
            inner_mtu: 0,
            mtu: 0,
            checkpoint: u32::MAX,
            limits: Limits::NONE,
            outer: Flow::default(),
            template: OuterTemplate::default(),
        }
    }
}

impl OutboundSa {
    /// The last sequence number (RFC 4303 §3.3.3: the counter must not cycle).
    #[inline]
    pub(crate) const fn last_seq(&self) -> u64 {
        // The last 64-bit number stays unused, so that "the next" can always be named.
        if self.esn { u64::MAX - 1 } else { u32::MAX as u64 }
    }

    /// Why the SA takes no more packets, if so.
    #[inline]
    pub(crate) const fn refusal(&self) -> Option<DropReason> {
        if self.flags & flag::STOPPED != 0 {
            Some(DropReason::OutSaExpired)
        } else if self.flags & flag::EXHAUSTED != 0 {
            Some(DropReason::SequenceExhausted)
        } else {
            None
        }
    }

    /// Octets that go before the inner packet.
    #[inline]
    pub(crate) const fn front_len(&self) -> usize {
        self.template.l4() + esp::HEADER_LEN + self.iv_len as usize
    }

    /// Takes a path MTU and what it leaves for inner packets.
    pub(crate) fn set_mtu(&mut self, mtu: u16) {
        self.mtu = mtu;
        self.inner_mtu =
            crate::mtu::inner(mtu, self.front_len(), usize::from(self.icv_len), usize::from(self.block));
    }

    /// Takes the sizes of a suite.
    #[expect(clippy::cast_possible_truncation, reason = "no size of a suite is beyond 32 octets")]
    pub(crate) const fn set_suite(&mut self, suite: EspSuite) {
        self.iv_len = suite.iv_len() as u8;
        self.icv_len = suite.icv_len() as u8;
        self.block = suite.block_len() as u8;
    }
}
