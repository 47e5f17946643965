//! What a kernel asks of an instruction set.
//!
//! The algorithms (`gcm/`) are written once, in safe code, over this trait; an implementation is one file of
//! intrinsics. An implementing value is the proof that the CPU has the instructions, so calling a method is safe.
//! Everything here must be inlined into [`Isa::enter`], the one function that is compiled for the instruction set.

use super::chacha::Hashes;
use crate::key::POWERS;
use crate::packet::PacketClass;

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
    /// What a vector is multiplied by, with what products need of it besides.
    type Power: Copy;
    /// Where in packets of one form which octets are: what may be loaded and stored is settled when it is made.
    type Frame: Copy;
    /// A packet's text as vectors, by its frame.
    type Window<'p>;
    /// Poly1305 of `4 * LANES` messages.
    type Hashes: Hashes<Self>;

    /// What [`Isa::rotate_16`] and [`Isa::rotate_8`] have in registers or memory.
    type Turns: Copy;

    /// See [`Isa::narrow`].
    type Narrow: Isa;

    /// Blocks in a vector.
    const LANES: usize;

    /// The most vectors of a packet that is in registers at once, up to 6.
    const SHORT: usize;

    /// Vector registers: 16 or 32.
    const REGISTERS: usize;

    /// Quarter rounds of ChaCha20 that fit the registers side by side: 2 or 4.
    const ABREAST: usize;

    /// One with vectors of half as many blocks, of which fewer are padding, where short packets are quicker in those.
    fn narrow(self) -> Option<Self::Narrow>;

    /// Runs `task` compiled for this instruction set.
    fn enter<T: Task>(self, task: T) -> T::Out;

    /// A bit for each octet that is `octet`.
    fn equal(self, octets: &[u8; 64], octet: u8) -> u64;

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
    /// The first round key, plus [`Isa::nonce`] of a salt of zero and the IV in the 8 octets before the text.
    ///
    /// # Panics
    /// Where the packet does not have 16 octets before the text and 4 after.
    fn sent_start(self, window: &Self::Window<'_>, round_key: Self::V) -> Self::V;

    /// The frame of packets whose text, with AAD and length block, makes `vectors` vectors, of which
    /// [`super::gcm::vectors`] says how many they are.
    ///
    /// # Panics
    /// Where form and count do not fit each other.
    fn frame(self, form: PacketClass, vectors: usize) -> Self::Frame;
    /// A packet by its frame.
    ///
    /// # Panics
    /// Where the packet does not have the frame's length.
    fn window<'p>(self, packet: &'p mut [u8], frame: &Self::Frame) -> Self::Window<'p>;
    /// The lane of the AAD in the first vector; lanes before are zero.
    fn pad(self, window: &Self::Window<'_>) -> usize;
    /// The counters of vector `v`, from the table.
    fn counters(self, window: &Self::Window<'_>, v: usize) -> Self::V;
    /// The text in the first vector, in place of what is there in `around`.
    fn load_head(self, window: &Self::Window<'_>, around: Self::V) -> Self::V;
    /// [`Isa::load_head`], with the 8 octets that come 16 before the text in the lane of the AAD.
    ///
    /// # Panics
    /// Where the packet does not begin so early.
    fn load_sent_head(self, window: &Self::Window<'_>, around: Self::V) -> Self::V;
    /// Vector `v`, neither the first nor the last.
    fn load_middle(self, window: &Self::Window<'_>, v: usize) -> Self::V;
    /// The text in the last vector, in place of what is there in `around`.
    fn load_tail(self, window: &Self::Window<'_>, around: Self::V) -> Self::V;
    /// Writes what [`Isa::load_head`] reads.
    fn store_head(self, window: &mut Self::Window<'_>, v: Self::V);
    /// Writes what [`Isa::load_middle`] reads.
    fn store_middle(self, window: &mut Self::Window<'_>, v: usize, data: Self::V);
    /// Writes what [`Isa::load_tail`] reads.
    fn store_tail(self, window: &mut Self::Window<'_>, v: Self::V);
    /// `inside` where the first vector has text, `around` elsewhere.
    fn select_head(self, window: &Self::Window<'_>, inside: Self::V, around: Self::V) -> Self::V;
    /// `inside` where the last vector has text, `around` elsewhere.
    fn select_tail(self, window: &Self::Window<'_>, inside: Self::V, around: Self::V) -> Self::V;
    /// Writes as much of the tag as the packet has room for after its text.
    fn put_icv(self, window: &mut Self::Window<'_>, tag: Self::Block);
    /// What comes after the text, up to a block, and zeros.
    fn icv(self, window: &Self::Window<'_>) -> Self::Block;
    /// Whether `received` is the tag, as far as the packet has room for one, in a time that does not tell where they
    /// differ.
    fn icv_matches(self, window: &Self::Window<'_>, tag: Self::Block, received: Self::Block) -> bool;
    /// Zeroes the text.
    fn wipe(self, window: &mut Self::Window<'_>);
    /// Replaces one lane by a block, given as its two halves as they lie in memory.
    fn insert(self, v: Self::V, lane: usize, first: u64, second: u64) -> Self::V;
    /// Replaces the last lane by a block.
    fn insert_last(self, v: Self::V, block: &[u8; 16]) -> Self::V;
    /// One lane.
    fn lane(self, v: Self::V, lane: usize) -> Self::Block;
    /// The octets of a block.
    fn octets(self, block: Self::Block) -> [u8; 16];

    /// A block as it lies in memory.
    fn block(self, block: &[u8; 16]) -> Self::Block;
    /// A block, given as its two halves as they lie in memory.
    fn block_of(self, first: u64, second: u64) -> Self::Block;
    /// The first `LANES` of these.
    fn join(self, blocks: [Self::Block; 4]) -> Self::V;
    /// The word in every 32-bit lane.
    fn splat(self, word: u32) -> Self::V;
    /// Each 32-bit lane's number.
    fn counting(self) -> Self::V;
    /// Adds 32-bit lanes, wrapping.
    fn add_words(self, a: Self::V, b: Self::V) -> Self::V;
    /// Made once for many rotations.
    fn turns(self) -> Self::Turns;
    /// Turns every 32-bit lane left.
    fn rotate_16(self, turns: Self::Turns, v: Self::V) -> Self::V;
    /// Turns every 32-bit lane left.
    fn rotate_12(self, v: Self::V) -> Self::V;
    /// Turns every 32-bit lane left.
    fn rotate_8(self, turns: Self::Turns, v: Self::V) -> Self::V;
    /// Turns every 32-bit lane left.
    fn rotate_7(self, v: Self::V) -> Self::V;
    /// In every block, word `i` of row `j` becomes word `j` of row `i`.
    fn transpose(self, rows: [Self::V; 4]) -> [Self::V; 4];
    /// From the first 16-octet blocks of `LANES` strings of four blocks, their second ones and so on: the strings, one
    /// after the other.
    fn turn(self, quarters: [Self::V; 4]) -> [Self::V; 4];
    /// The first two blocks.
    fn front(self, v: Self::V) -> [[u8; 16]; 2];
    /// Exclusive or with as many octets of a text as a vector has.
    ///
    /// # Panics
    /// Where there are fewer.
    fn add_whole(self, text: &mut [u8], v: Self::V);
    /// Exclusive or with a text of fewer octets than that.
    ///
    /// # Panics
    /// Where there are more.
    fn add_part(self, text: &mut [u8], v: Self::V);

    /// The sum of no products.
    fn no_sum(self) -> Self::Sum;
    /// Adds the products of the (reversed) lanes of `x` with those of `power`.
    fn mul_add(self, sum: Self::Sum, x: Self::V, power: Self::Power) -> Self::Sum;
    /// Both as they are, and at hand before either is used further. No instruction comes of it: the compiler, which
    /// likes to put all products behind all rounds of AES, has to keep to the order of the program.
    fn pin(self, v: Self::V, sum: Self::Sum) -> (Self::V, Self::Sum);
    /// As [`Isa::pin`], with a reduced sum.
    fn pin_lanes(self, v: Self::V, lanes: Self::V) -> (Self::V, Self::V);
    /// Brings a sum back to one (reversed) vector.
    fn reduce(self, sum: Self::Sum) -> Self::V;
    /// A (reversed) vector as a power.
    fn power(self, v: Self::V) -> Self::Power;
    /// What a vector is multiplied by that has `k - 1` others after it in its batch, and further batches after.
    fn stride_power(self, powers: &[[u8; 16]; POWERS], k: usize) -> Self::Power;
    /// What a vector is multiplied by that has `k - 1` others after it, and nothing more.
    fn last_power(self, powers: &[[u8; 16]; POWERS], k: usize) -> Self::Power;
    /// The sum over all lanes of a reduced sum, as it lies in memory, exclusive-or `mask`.
    fn tag(self, lanes: Self::V, mask: Self::Block) -> Self::Block;
    /// [`Isa::tag`], with the lane of the AAD in the first vector's key stream as mask.
    fn tag_beside(self, frame: &Self::Frame, lanes: &Self::V, stream: &Self::V) -> Self::Block;
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

/// Registers as they are, and at hand before any is used further: an empty `asm!` that the compiler must put between
/// what it has of them before and after.
macro_rules! pin {
    ($class:ident: $($value:expr),+) => {
        // SAFETY: there is no instruction, and the registers keep what they have.
        unsafe {
            std::arch::asm!(
                concat!("/*", $(crate::kernel::isa::pin!(@place $value),)+ "*/"),
                $(inout($class) $value,)+
                options(pure, nomem, nostack, preserves_flags),
            );
        }
    };
    (@place $value:expr) => {
        " {} "
    };
}
pub(crate) use pin;

/// The methods that every instruction set forwards.
macro_rules! forward_all {
    () => {
        crate::kernel::isa::forward! {
            fn equal(octets: &[u8; 64], octet: u8) -> u64;
            fn zero() -> Self::V;
            fn xor(a: Self::V, b: Self::V) -> Self::V;
            fn broadcast(block: &[u8; 16]) -> Self::V;
            fn aesenc(state: Self::V, key: Self::V) -> Self::V;
            fn aesenclast(state: Self::V, key: Self::V) -> Self::V;
            fn reverse(v: Self::V) -> Self::V;
            fn nonce(salt: u32, iv: u64) -> Self::V;
            fn sent_start(window: &Self::Window<'_>, round_key: Self::V) -> Self::V;
            fn frame(form: PacketClass, vectors: usize) -> Self::Frame;
            fn pad(window: &Self::Window<'_>) -> usize;
            fn counters(window: &Self::Window<'_>, v: usize) -> Self::V;
            fn load_head(window: &Self::Window<'_>, around: Self::V) -> Self::V;
            fn load_sent_head(window: &Self::Window<'_>, around: Self::V) -> Self::V;
            fn load_middle(window: &Self::Window<'_>, v: usize) -> Self::V;
            fn load_tail(window: &Self::Window<'_>, around: Self::V) -> Self::V;
            fn store_head(window: &mut Self::Window<'_>, v: Self::V);
            fn store_middle(window: &mut Self::Window<'_>, v: usize, data: Self::V);
            fn store_tail(window: &mut Self::Window<'_>, v: Self::V);
            fn select_head(window: &Self::Window<'_>, inside: Self::V, around: Self::V) -> Self::V;
            fn select_tail(window: &Self::Window<'_>, inside: Self::V, around: Self::V) -> Self::V;
            fn put_icv(window: &mut Self::Window<'_>, tag: Self::Block);
            fn icv(window: &Self::Window<'_>) -> Self::Block;
            fn icv_matches(window: &Self::Window<'_>, tag: Self::Block, received: Self::Block) -> bool;
            fn wipe(window: &mut Self::Window<'_>);
            fn insert(v: Self::V, lane: usize, first: u64, second: u64) -> Self::V;
            fn insert_last(v: Self::V, block: &[u8; 16]) -> Self::V;
            fn lane(v: Self::V, lane: usize) -> Self::Block;
            fn octets(block: Self::Block) -> [u8; 16];
            fn block(block: &[u8; 16]) -> Self::Block;
            fn block_of(first: u64, second: u64) -> Self::Block;
            fn join(blocks: [Self::Block; 4]) -> Self::V;
            fn splat(word: u32) -> Self::V;
            fn counting() -> Self::V;
            fn add_words(a: Self::V, b: Self::V) -> Self::V;
            fn turns() -> Self::Turns;
            fn rotate_16(turns: Self::Turns, v: Self::V) -> Self::V;
            fn rotate_12(v: Self::V) -> Self::V;
            fn rotate_8(turns: Self::Turns, v: Self::V) -> Self::V;
            fn rotate_7(v: Self::V) -> Self::V;
            fn transpose(rows: [Self::V; 4]) -> [Self::V; 4];
            fn turn(quarters: [Self::V; 4]) -> [Self::V; 4];
            fn front(v: Self::V) -> [[u8; 16]; 2];
            fn add_whole(text: &mut [u8], v: Self::V);
            fn add_part(text: &mut [u8], v: Self::V);
            fn no_sum() -> Self::Sum;
            fn mul_add(sum: Self::Sum, x: Self::V, power: Self::Power) -> Self::Sum;
            fn pin(v: Self::V, sum: Self::Sum) -> (Self::V, Self::Sum);
            fn reduce(sum: Self::Sum) -> Self::V;
            fn power(v: Self::V) -> Self::Power;
            fn stride_power(powers: &[[u8; 16]; POWERS], k: usize) -> Self::Power;
            fn last_power(powers: &[[u8; 16]; POWERS], k: usize) -> Self::Power;
            fn tag(lanes: Self::V, mask: Self::Block) -> Self::Block;
            fn tag_beside(frame: &Self::Frame, lanes: &Self::V, stream: &Self::V) -> Self::Block;
            fn pin_lanes(v: Self::V, lanes: Self::V) -> (Self::V, Self::V);
        }

        #[inline(always)]
        fn window<'p>(self, packet: &'p mut [u8], frame: &Self::Frame) -> Self::Window<'p> {
            // SAFETY: a value of this type is only made by `detect`, which has found every feature that `ops` is
            // compiled for.
            unsafe { ops::window(packet, frame) }
        }
    };
}
pub(crate) use forward_all;
