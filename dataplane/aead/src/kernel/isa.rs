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

/// Vectors of 16-octet blocks, AES on each lane, and carry-less products.
///
/// Blocks are bytes as they lie in memory, except where a method says "reversed": there a lane is the
/// little-endian number whose big-endian form lies in memory, which is what GHASH is computed on.
pub(crate) trait Isa: Copy {
    /// `LANES` blocks.
    type V: Copy;
    /// One block.
    type Block: Copy;
    /// A sum of carry-less products, not yet reduced.
    type Sum: Copy;
    /// Where octets of a packet sit in a vector that has other things too.
    type Part: Copy;

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
    /// In every lane a counter block whose counter is zero. Salt and IV are as they lie in memory.
    fn nonce(self, salt: u32, iv: u64) -> Self::V;
    /// The vector at this place in a table of blocks.
    fn counters(self, table: &[[u8; 16]], at: usize) -> Self::V;

    /// A whole vector of a packet.
    fn load(self, packet: &[u8], at: usize) -> Self::V;
    /// Writes a whole vector.
    fn store(self, packet: &mut [u8], at: usize, v: Self::V);
    /// All lanes after lane `pad`, which has the AAD, and the lanes before that are zero.
    fn head(self, pad: usize) -> Self::Part;
    /// The first `len` octets, at most all lanes but the last, which has the lengths.
    fn tail(self, len: usize) -> Self::Part;
    /// `len` octets between the AAD in lane `pad` and the lengths in the last lane.
    fn only(self, pad: usize, len: usize) -> Self::Part;
    /// The part's octets from `at` in the packet, zero around them; nothing outside of the packet is read.
    fn load_part(self, packet: &[u8], at: usize, part: Self::Part) -> Self::V;
    /// Writes the part's octets to `at` in the packet, and leaves everything else as it was.
    fn store_part(self, packet: &mut [u8], at: usize, part: Self::Part, v: Self::V);
    /// `inside` in the part, `around` elsewhere.
    fn select(self, part: Self::Part, inside: Self::V, around: Self::V) -> Self::V;
    /// Replaces one lane by a block, given as its two halves as they lie in memory.
    fn insert(self, v: Self::V, lane: usize, first: u64, second: u64) -> Self::V;
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
            fn nonce(salt: u32, iv: u64) -> Self::V;
            fn counters(table: &[[u8; 16]], at: usize) -> Self::V;
            fn load(packet: &[u8], at: usize) -> Self::V;
            fn store(packet: &mut [u8], at: usize, v: Self::V);
            fn head(pad: usize) -> Self::Part;
            fn tail(len: usize) -> Self::Part;
            fn only(pad: usize, len: usize) -> Self::Part;
            fn load_part(packet: &[u8], at: usize, part: Self::Part) -> Self::V;
            fn store_part(packet: &mut [u8], at: usize, part: Self::Part, v: Self::V);
            fn select(part: Self::Part, inside: Self::V, around: Self::V) -> Self::V;
            fn insert(v: Self::V, lane: usize, first: u64, second: u64) -> Self::V;
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
