//! Sizes and versions that both processes agree on before they share memory.

/// First word of the shared memory: "POLX".
pub const MAGIC: u32 = 0x504f_4c58;

/// Version of the slots and of their meaning; both processes must have the same.
pub const ABI_VERSION: u32 = 3;

/// Octets in a command slot.
pub const COMMAND_SLOT_LEN: usize = 1024;

/// Octets in an event slot.
pub const EVENT_SLOT_LEN: usize = 128;

/// Slots in each command and each event ring; a power of two.
pub const RING_SLOTS: u32 = 1024;

/// Widest table index that an SPI can carry and still hold ten random bits after the leading 11.
pub const SPI_INDEX_WIDTH_MAX: u32 = 20;

/// Traffic selectors of one side that an SA can carry; more are refused by configuration and by IKE.
pub const SELECTORS_MAX: usize = 8;

/// Workers that one data plane can have; bounds the size of the shared memory.
pub const WORKERS_MAX: u16 = 64;
