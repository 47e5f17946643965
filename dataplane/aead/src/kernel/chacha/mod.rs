//! ChaCha20-Poly1305 over any [`Isa`]: a vector lane is a block, of whichever packet and key is next.
//!
//! ChaCha20 works on sixteen 32-bit words a block. With word `w` of many blocks in one vector there is not a shuffle
//! in the twenty rounds, and lanes know nothing of each other: the blocks of a burst are dealt to them one after the
//! other, so that short packets fill vectors as well as long ones do. Each packet's first block makes its Poly1305
//! key; those come before all others, so that opening can check before it decrypts.

#[cfg(target_arch = "x86_64")]
mod lanes;
pub(crate) mod poly1305;

#[cfg(target_arch = "x86_64")]
pub(crate) use lanes::{Lanes, Multipliers, ends, fronts, steps};

use poly1305::{IN_STEP, Message, OneTimeKey, Poly1305};

use super::isa::{Isa, Task};
use crate::ct::icv_matches;
use crate::packet::Aad;
use crate::verdict::Verdict;

/// AAD as ESP has it, or any other.
pub(crate) enum AnyAad<'a> {
    Esp(Aad),
    Other(&'a [u8]),
}

/// One packet, cut into its parts.
pub(crate) struct View<'a> {
    /// The 32 octets of key, in the first two round keys of the key's tables.
    pub(crate) key: &'a [[u8; 16]; 2],
    /// The first word of the nonce and the other two, as they lie in memory.
    pub(crate) nonce: (u32, u64),
    pub(crate) aad: AnyAad<'a>,
    pub(crate) text: &'a mut [u8],
    /// Written when sealing, compared when opening.
    pub(crate) icv: &'a mut [u8],
    pub(crate) verdict: Verdict,
}

/// Seals or opens packets.
pub(crate) struct ChaChaBurst<'v, 'a> {
    pub(crate) views: &'v mut [View<'a>],
    pub(crate) seal: bool,
}

impl Task for ChaChaBurst<'_, '_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { views, seal } = self;
        for views in views.chunks_mut(BURST) {
            let keys = one_time_keys(isa, views);
            let mut computed = [[0; 16]; BURST];
            if seal {
                crypt(isa, views);
                tags(isa, views, &keys, &mut computed);
                for (view, tag) in views.iter_mut().zip(&computed) {
                    view.icv.copy_from_slice(&tag[..view.icv.len()]);
                }
            } else {
                tags(isa, views, &keys, &mut computed);
                for (view, tag) in views.iter_mut().zip(&computed) {
                    view.verdict =
                        if icv_matches(tag, view.icv) { Verdict::Authentic } else { Verdict::BadIcv };
                }
                for view in views.iter_mut().filter(|view| view.verdict != Verdict::Authentic) {
                    view.text.fill(0);
                }
                crypt(isa, views);
            }
        }
    }
}

/// Packets whose one-time keys are held at once.
const BURST: usize = 64;

/// Words of a block; also the most blocks that a vector has.
const WORDS: usize = 16;

/// The block of a packet that a lane makes: the first is number 0 and gives the one-time key.
type Deal = (usize, u32);

/// Key stream, as the words come out of four-by-four transposition: the quarter `g` of the block in lane `4 k + i` is
/// `0[g][i][k]`.
struct Stream([[[[u8; 16]; 4]; 4]; 4]);

impl Stream {
    /// The block of a lane, in quarters.
    #[inline(always)]
    fn block(&self, lane: usize) -> [&[u8; 16]; 4] {
        [0, 1, 2, 3].map(|g: usize| &self.0[g][lane % 4][lane / 4 % 4])
    }
}

/// The inputs of all lanes: word `w` of the block in lane `l` is word `l` of vector `w`.
#[inline(always)]
fn inputs<I: Isa>(isa: I, views: &[View<'_>], dealt: &[Deal; WORDS]) -> [I::V; WORDS] {
    let mut words = constants(isa);
    // Loops and no `map`s, whose closures would be compiled apart, for another instruction set.
    let mut rows = [[isa.zero(); 4]; 3];
    for i in 0..4 {
        let mut parts = [[isa.lane(isa.zero(), 0); 4]; 3];
        for k in 0..I::LANES {
            let (v, counter) = dealt[4 * k + i];
            let view = &views[v];
            let (first, rest) = view.nonce;
            parts[0][k] = isa.block(&view.key[0]);
            parts[1][k] = isa.block(&view.key[1]);
            parts[2][k] = isa.block_of(u64::from(counter) | u64::from(first) << 32, rest);
        }
        for (rows, parts) in rows.iter_mut().zip(parts) {
            rows[i] = isa.join(parts);
        }
    }
    // Four words at a time, as four rows of which every fourth lane is one, are turned round.
    for (words, rows) in words[4..].chunks_exact_mut(4).zip(rows) {
        words.copy_from_slice(&isa.transpose(rows));
    }
    words
}

/// [`inputs`] where all lanes are blocks of one packet that follow each other.
#[inline(always)]
fn inputs_of_one<I: Isa>(isa: I, view: &View<'_>, counter: u32) -> [I::V; WORDS] {
    let mut words = constants(isa);
    for (word, octets) in words[4..12].iter_mut().zip(view.key.as_flattened().as_chunks().0) {
        *word = isa.splat(u32::from_le_bytes(*octets));
    }
    let (first, rest) = view.nonce;
    words[12] = isa.add_words(isa.splat(counter), isa.counting());
    words[13] = isa.splat(first);
    let [r0, r1, r2, r3, r4, r5, r6, r7] = rest.to_le_bytes();
    words[14] = isa.splat(u32::from_le_bytes([r0, r1, r2, r3]));
    words[15] = isa.splat(u32::from_le_bytes([r4, r5, r6, r7]));
    words
}

/// The first four words, which are the same for all.
#[inline(always)]
fn constants<I: Isa>(isa: I) -> [I::V; WORDS] {
    let mut words = [isa.zero(); WORDS];
    for (word, constant) in words.iter_mut().zip([0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]) {
        *word = isa.splat(constant);
    }
    words
}

/// The key stream of all lanes.
#[inline(always)]
fn key_stream<I: Isa>(isa: I, input: [I::V; WORDS], stream: &mut Stream) {
    let mut state = input;
    for _ in 0..10 {
        quarters(isa, &mut state, [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]]);
        quarters(isa, &mut state, [[0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]]);
    }
    for g in 0..4 {
        let word = |w: usize| isa.add_words(state[4 * g + w], input[4 * g + w]);
        let rows = isa.transpose([word(0), word(1), word(2), word(3)]);
        for (row, place) in rows.into_iter().zip(&mut stream.0[g]) {
            isa.store_lanes(row, place);
        }
    }
}

/// Four quarter rounds side by side (RFC 8439 §2.1).
#[inline(always)]
fn quarters<I: Isa>(isa: I, state: &mut [I::V; WORDS], of: [[usize; 4]; 4]) {
    for [a, b, _, d] in of {
        state[a] = isa.add_words(state[a], state[b]);
        state[d] = isa.rotate_16(isa.xor(state[d], state[a]));
    }
    for [_, b, c, d] in of {
        state[c] = isa.add_words(state[c], state[d]);
        state[b] = isa.rotate_12(isa.xor(state[b], state[c]));
    }
    for [a, b, _, d] in of {
        state[a] = isa.add_words(state[a], state[b]);
        state[d] = isa.rotate_8(isa.xor(state[d], state[a]));
    }
    for [_, b, c, d] in of {
        state[c] = isa.add_words(state[c], state[d]);
        state[b] = isa.rotate_7(isa.xor(state[b], state[c]));
    }
}

/// The first block of every packet, as its Poly1305 key.
#[inline(always)]
fn one_time_keys<I: Isa>(isa: I, views: &[View<'_>]) -> [OneTimeKey; BURST] {
    let mut keys = [[[0; 16]; 2]; BURST];
    let mut stream = Stream([[[[0; 16]; 4]; 4]; 4]);
    for (first, keys) in (0..views.len()).step_by(4 * I::LANES).zip(keys.chunks_mut(4 * I::LANES)) {
        let mut dealt = [(first, 0); WORDS];
        for (deal, v) in dealt.iter_mut().zip(first..views.len()) {
            deal.0 = v;
        }
        key_stream(isa, inputs(isa, views, &dealt), &mut stream);
        for (lane, key) in keys.iter_mut().enumerate() {
            *key = [0, 1].map(|g: usize| stream.0[g][lane % 4][lane / 4 % 4]);
        }
    }
    keys
}

/// Adds the key stream to every text that is not refused.
#[inline(always)]
fn crypt<I: Isa>(isa: I, views: &mut [View<'_>]) {
    let mut stream = Stream([[[[0; 16]; 4]; 4]; 4]);
    let mut dealt: [Deal; WORDS] = [(0, 0); WORDS];
    let mut lane = 0;
    for v in 0..views.len() {
        if views[v].verdict == Verdict::BadIcv {
            continue;
        }
        let len = views[v].text.len();
        let blocks = u32::try_from(len.div_ceil(64)).expect("a text is shorter than 256 GiB");
        let mut first = 1;
        // As long as a packet has whole blocks for all lanes, that is quicker to fill.
        for text in 0..len / (64 * 4 * I::LANES) {
            key_stream(isa, inputs_of_one(isa, &views[v], first), &mut stream);
            let text = &mut views[v].text[64 * 4 * I::LANES * text..];
            for (lane, block) in text.as_chunks_mut().0.iter_mut().take(4 * I::LANES).enumerate() {
                apply_whole(block, stream.block(lane));
                first += 1;
            }
        }
        for block in first..=blocks {
            dealt[lane % WORDS] = (v, block);
            lane += 1;
            if lane == 4 * I::LANES {
                key_stream(isa, inputs(isa, views, &dealt), &mut stream);
                apply(views, &dealt[..lane], &stream);
                lane = 0;
            }
        }
    }
    if lane > 0 {
        key_stream(isa, inputs(isa, views, &dealt), &mut stream);
        apply(views, &dealt[..lane], &stream);
    }
}

/// Adds each lane's key stream to the block that it was dealt.
#[inline(always)]
fn apply(views: &mut [View<'_>], dealt: &[Deal], stream: &Stream) {
    for (lane, &(v, block)) in dealt.iter().enumerate() {
        let text = &mut views[v].text[64 * (block as usize - 1)..];
        if let Some((block, _)) = text.split_first_chunk_mut::<64>() {
            apply_whole(block, stream.block(lane));
        } else {
            for (octet, stream) in text.iter_mut().zip(stream.block(lane).into_iter().flatten()) {
                *octet ^= stream;
            }
        }
    }
}

#[inline(always)]
fn apply_whole(block: &mut [u8; 64], stream: [&[u8; 16]; 4]) {
    for (octets, stream) in block.as_chunks_mut::<16>().0.iter_mut().zip(stream) {
        *octets = (u128::from_le_bytes(*octets) ^ u128::from_le_bytes(*stream)).to_le_bytes();
    }
}

/// The tags of all packets' ciphertext as it is now.
#[inline(always)]
fn tags<I: Isa>(isa: I, views: &[View<'_>], keys: &[OneTimeKey; BURST], tags: &mut [[u8; 16]; BURST]) {
    #[cfg(target_arch = "x86_64")]
    let left = match isa.lanes() {
        Lanes::Eight(ifma) => lanes::tags(ifma, views, keys, tags),
        Lanes::Four(avx2) => lanes::tags(avx2, views, keys, tags),
        Lanes::None => (0..).take(views.len()).collect(),
    };
    #[cfg(not(target_arch = "x86_64"))]
    let (left, _): (arrayvec::ArrayVec<u8, BURST>, _) = ((0..).take(views.len()).collect(), isa);
    in_step(views, keys, tags, &left);
}

/// The tags of those packets, a few at a time.
#[inline(always)]
fn in_step(views: &[View<'_>], keys: &[OneTimeKey; BURST], tags: &mut [[u8; 16]; BURST], which: &[u8]) {
    let (groups, rest) = which.as_chunks::<IN_STEP>();
    for group in groups {
        let group = group.map(usize::from);
        let mut hashes = group.map(|v| Poly1305::new(keys[v]));
        poly1305::hash(&mut hashes, group.map(|v| views[v].message()));
        for (v, hash) in group.into_iter().zip(&hashes) {
            tags[v] = hash.finish();
        }
    }
    for &v in rest {
        let v = usize::from(v);
        let mut alone = [Poly1305::new(keys[v])];
        poly1305::hash(&mut alone, [views[v].message()]);
        tags[v] = alone[0].finish();
    }
}

impl View<'_> {
    #[inline(always)]
    fn message(&self) -> Message<'_> {
        let aad = match &self.aad {
            AnyAad::Esp(aad) => aad.as_slice(),
            AnyAad::Other(aad) => aad,
        };
        Message { aad, text: self.text }
    }
}
