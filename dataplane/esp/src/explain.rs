//! What would become of a packet, for the operator.

use pollux_abi::command::PolicyAction;
use pollux_abi::{DropReason, PolicyId, SaId, SaIndex, Spi, WorkerId};

/// What would become of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It would be encrypted, or (inbound) is expected to arrive so.
    Protected,
    /// It would pass in clear.
    Bypassed,
    /// It would be dropped.
    Dropped(DropReason),
}

/// Which policy and SA a flow meets, and what comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The first matching policy and what it says.
    pub policy: Option<(PolicyId, PolicyAction)>,
    /// The SA that would be used.
    pub sa: Option<ExplainedSa>,
    /// What becomes of the packet.
    pub outcome: Outcome,
}

/// The SA of an [`Explanation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExplainedSa {
    /// Control's name for it.
    pub id: SaId,
    /// Its SPI.
    pub spi: Spi,
    /// Its place in the table.
    pub index: SaIndex,
    /// Who encrypts.
    pub owner: WorkerId,
    /// The longest inner packet that fits its path; `None` on workers that don't own the SA.
    pub inner_mtu: Option<u16>,
}
