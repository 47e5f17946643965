//! The outcome of opening one packet.

/// What became of one packet of an [`crate::Engine::open_burst`].
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OpenVerdict {
    /// The ICV is right and the payload is plaintext now.
    Authentic,
    /// The ICV is wrong; the payload is zeroed.
    BadIcv,
    /// Too short for header, IV, one aligned block and ICV, or not aligned: left as it was, never decrypted.
    #[default]
    Malformed,
}
