//! What a kernel asks of an instruction set.
//!
//! The algorithms (`gcm/`) are written once, in safe code, over this trait; an implementation is one file of
//! intrinsics. An implementing value is the proof that the CPU has the instructions, so calling a method is safe.
//! Everything here must be inlined into [`Isa::enter`], the one function that is compiled for the instruction set.

use crate::key::POWERS;

/// Work to be compiled for an instruction set.
pub(crate) trait Task {
    /// What comes out.
    type Out;

    /// The work; implementations are `#[inline(always)]`.
    fn run<I: Isa>(self, isa: I) -> Self::Out;
}

/// Up to one vector's worth of octets of a packet, and the lane where the first of them sits in the vector.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    /// Offset in the packet.
    pub(crate) at: usize,
    /// Octets.
    pub(crate) len: usize,
    /// Lane of the first; `lane * 16 + len` is at most the vector's length, and with `len == 0` any lane is.
    pub(crate) lane: usize,
}

/// Vectors of 16-octet blocks, AES on each lane, and carry-less products.
///
/// Blocks are bytes as they lie in memory, except where a method says "reversed": there a lane is the
/// little-endian number whose big-endian form lies in memory, which is what GHASH and counters are computed on.
pub(crate) trait Isa: Copy {
    /// `LANES` blocks.
    type V: Copy;
    /// One block.
    type Block: Copy;
    /// A sum of carry-less products, not yet reduced.
    type Sum: Copy;

    /// Blocks in a vector.
    const LANES: usize;
    /// Vectors that short packets may fill side by side.
    const IN_FLIGHT: usize;

    /// Runs `task` compiled for this instruction set.
    fn enter<T: Task>(self, task: T) -> T::Out;

    /// All lanes zero.
    fn zero(self) -> Self::V;
    /// Exclusive or.
    fn xor(self, a: Self::V, b: Self::V) -> Self::V;
    /// The block in every lane.
    fn broadcast(self, block: &[u8; 16]) -> Self::V;
    /// One round of AES in every lane.
    fn aesenc(self, state: Self::V, key: Self::V) -> Self::V;
    /// The last round of AES in every lane.
    fn aesenclast(self, state: Self::V, key: Self::V) -> Self::V;
    /// Turns the octets of every lane round.
    fn reverse(self, v: Self::V) -> Self::V;
    /// Reversed counter blocks: lane `i` has `first + i` in its low 32 bits, wrapping.
    fn counters(self, first_high: u64, first_low: u64) -> Self::V;
    /// Adds to the low 32 bits of every lane, wrapping.
    fn add_counter(self, counters: Self::V, n: u32) -> Self::V;

    /// A whole vector of a packet.
    fn load(self, packet: &[u8], at: usize) -> Self::V;
    /// Writes a whole vector.
    fn store(self, packet: &mut [u8], at: usize, v: Self::V);
    /// A part of a packet, zero around it; nothing outside of the packet is read.
    fn load_part(self, packet: &[u8], part: Part) -> Self::V;
    /// Writes the part and leaves the rest of the packet as it was.
    fn store_part(self, packet: &mut [u8], part: Part, v: Self::V);
    /// Zeroes what is not in the part.
    fn keep(self, v: Self::V, part: Part) -> Self::V;
    /// Replaces one lane by a (reversed) block, given as two halves.
    fn insert(self, v: Self::V, lane: usize, high: u64, low: u64) -> Self::V;
    /// One lane.
    fn lane(self, v: Self::V, lane: usize) -> Self::Block;
    /// The octets of a block.
    fn octets(self, block: Self::Block) -> [u8; 16];

    /// The sum of no products.
    fn no_sum(self) -> Self::Sum;
    /// Adds the products of the (reversed) lanes of `x` with those of `power`.
    fn mul_add(self, sum: Self::Sum, x: Self::V, power: Self::V) -> Self::Sum;
    /// Brings a sum back to one (reversed) vector.
    fn reduce(self, sum: Self::Sum) -> Self::V;
    /// What a vector is multiplied by that has `k - 1` others after it in its batch, and further batches after.
    fn stride_power(self, powers: &[[u8; 16]; POWERS], k: usize) -> Self::V;
    /// What a vector is multiplied by that has `k - 1` others after it, and nothing more.
    fn last_power(self, powers: &[[u8; 16]; POWERS], k: usize) -> Self::V;
    /// The sum over all lanes, reduced, as it lies in memory, exclusive-or `mask`.
    fn tag(self, sum: Self::Sum, mask: Self::Block) -> [u8; 16];
}

/// Implements the methods of [`Isa`] by the functions of the same name in `ops`, which are compiled for the
/// instruction set that the implementing type proves.
macro_rules! forward {
    ($($vis:vis fn $name:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)?;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $ty),*) $(-> $ret)? {
            // SAFETY: a value of this type is only made by `detect`, which has found every feature that `ops` is
            // compiled for.
            unsafe { ops::$name($($arg),*) }
        }
    )*};
}
pub(crate) use forward;

/// The methods that every instruction set forwards.
macro_rules! forward_all {
    () => {
        crate::kernel::isa::forward! {
            fn zero() -> Self::V;
            fn xor(a: Self::V, b: Self::V) -> Self::V;
            fn broadcast(block: &[u8; 16]) -> Self::V;
            fn aesenc(state: Self::V, key: Self::V) -> Self::V;
            fn aesenclast(state: Self::V, key: Self::V) -> Self::V;
            fn reverse(v: Self::V) -> Self::V;
            fn counters(first_high: u64, first_low: u64) -> Self::V;
            fn add_counter(counters: Self::V, n: u32) -> Self::V;
            fn load(packet: &[u8], at: usize) -> Self::V;
            fn store(packet: &mut [u8], at: usize, v: Self::V);
            fn load_part(packet: &[u8], part: Part) -> Self::V;
            fn store_part(packet: &mut [u8], part: Part, v: Self::V);
            fn keep(v: Self::V, part: Part) -> Self::V;
            fn insert(v: Self::V, lane: usize, high: u64, low: u64) -> Self::V;
            fn lane(v: Self::V, lane: usize) -> Self::Block;
            fn octets(block: Self::Block) -> [u8; 16];
            fn no_sum() -> Self::Sum;
            fn mul_add(sum: Self::Sum, x: Self::V, power: Self::V) -> Self::Sum;
            fn reduce(sum: Self::Sum) -> Self::V;
            fn stride_power(powers: &[[u8; 16]; POWERS], k: usize) -> Self::V;
            fn last_power(powers: &[[u8; 16]; POWERS], k: usize) -> Self::V;
            fn tag(sum: Self::Sum, mask: Self::Block) -> [u8; 16];
        }
    };
}
pub(crate) use forward_all;
