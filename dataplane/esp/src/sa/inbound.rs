//! The hot half of an inbound SA.

use pollux_packet::IpVersion;

use super::lifetime::Limits;
use crate::replay::Window;

/// What every packet of an inbound SA touches.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct InboundSa {
    // hot, written
    pub(crate) window: Window,
    /// Bits of [`super::flag`].
    pub(crate) flags: u8,
    // hot, read
    pub(crate) version: IpVersion,
    pub(crate) encap: bool,
    pub(crate) esn: bool,
    /// Octets of SPI, sequence number and IV.
    pub(crate) header_len: u8,
    pub(crate) icv_len: u8,
    /// The peer's UDP port where it is fixed by configuration.
    pub(crate) remote_port: u16,
    /// Our outer address.
    pub(crate) local: u128,
    /// The peer's outer address.
    pub(crate) remote: u128,
    pub(crate) limits: Limits,
    /// Slot of the counter file, `u32::MAX` for none.
    pub(crate) checkpoint: u32,
}

const _: () = assert!(size_of::<InboundSa>() <= 128);

impl Default for InboundSa {
    fn default() -> Self {
        Self {
            window: Window::default(),
            flags: 0,
            version: IpVersion::V4,
            encap: false,
            esn: false,
            header_len: 0,
            icv_len: 0,
            remote_port: 0,
            local: 0,
            remote: 0,
            limits: Limits::NONE,
            checkpoint: u32::MAX,
        }
    }
}
