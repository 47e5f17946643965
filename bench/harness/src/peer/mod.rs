//! Other people's AEADs behind one trait, and ours.

#[cfg(ipsec_mb)]
pub mod ipsec_mb;
pub mod libraries;
pub mod ours;

/// Frames of one size or of a mix, as the data plane has them: the ESP header 34 octets into the frame.
pub struct Pool {
    octets: Vec<u8>,
    stride: usize,
    /// Octets of each packet, from SPI to ICV.
    lens: Vec<usize>,
}

/// Ethernet and IPv4 headers, which make everything behind them misaligned.
const OFFSET: usize = 34;

/// SPI, sequence number, IV.
pub const TEXT_AT: usize = 16;

/// Octets of ICV in every suite measured here.
pub const ICV_LEN: usize = 16;

/// The keying material of every SA: contexts differ in place, not in value, so that any can open any packet.
pub const KEY: [u8; 32] = [0x42; 32];

/// The salt of every SA.
pub const SALT: [u8; 4] = [1, 2, 3, 4];

impl Pool {
    /// Packets with texts of these lengths.
    pub fn new(text_lens: &[usize]) -> Self {
        let lens: Vec<_> = text_lens.iter().map(|len| TEXT_AT + len + ICV_LEN).collect();
        // One cache line more than needed keeps frames from sharing lines.
        let stride = (OFFSET + lens.iter().max().unwrap_or(&0)).next_multiple_of(64) + 64;
        let mut pool = Self { octets: vec![0; stride * lens.len()], stride, lens };
        pool.each(|i, packet| {
            packet.fill(u8::try_from(i % 251).unwrap_or(0));
            packet[..8].copy_from_slice(&[0xc0, 0, 0, 1, 0, 0, 0, 9]);
        });
        pool
    }

    /// Packets in the pool.
    pub fn count(&self) -> usize {
        self.lens.len()
    }

    /// The packets, in order.
    pub fn packets(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let frames = self.octets.chunks_exact_mut(self.stride);
        frames.zip(&self.lens).map(|(frame, &len)| &mut frame[OFFSET..OFFSET + len])
    }

    /// Calls back with every packet.
    #[inline]
    pub fn each(&mut self, mut call: impl FnMut(usize, &mut [u8])) {
        for (i, packet) in self.packets().enumerate() {
            call(i, packet);
        }
    }

    /// Makes this pool's octets those of another of the same shape.
    pub fn restore(&mut self, from: &Self) {
        self.octets.copy_from_slice(&from.octets);
    }

    /// Whether both hold the same octets.
    pub fn same(&self, other: &Self) -> bool {
        self.octets == other.octets
    }
}

/// The nonce that every contender gives packet `i`.
#[inline]
pub fn nonce(i: usize) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&SALT);
    nonce[4..].copy_from_slice(&(i as u64).to_be_bytes());
    nonce
}

/// An AEAD with a table of key contexts.
pub trait Contender {
    /// The name in tables.
    fn name(&self) -> &'static str;

    /// Seals every packet; `sas` says with which context each.
    fn seal(&mut self, pool: &mut Pool, sas: &[u32]);

    /// Opens every packet and returns how many were authentic.
    fn open(&mut self, pool: &mut Pool, sas: &[u32]) -> usize;
}
