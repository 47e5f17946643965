//! ChaCha20-Poly1305 over any [`Isa`]: a vector lane is a block, of whichever packet and key is next.
//!
//! ChaCha20 works on sixteen 32-bit words a block. With word `w` of many blocks in one vector there is not a shuffle
//! in the twenty rounds, and lanes know nothing of each other: the blocks of a burst are dealt to them one after the
//! other, so that short packets fill vectors as well as long ones do. Each packet's first block makes its Poly1305
//! key; those come before all others, so that opening can check before it decrypts.

mod poly1305;

use poly1305::{IN_STEP, Message, Poly1305};

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
    pub(crate) key: &'a [[u8; 16]],
    pub(crate) nonce: [u8; 12],
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
            let mut hashes = one_time_keys(isa, views);
            if seal {
                crypt(isa, views);
                tags(views, &mut hashes, |view, tag| view.icv.copy_from_slice(&tag[..view.icv.len()]));
            } else {
                tags(views, &mut hashes, |view, tag| {
                    view.verdict =
                        if icv_matches(&tag, view.icv) { Verdict::Authentic } else { Verdict::BadIcv };
                });
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

/// The inputs of as many blocks as a vector has lanes: word `w` of lane `l` is `0[w][l]`.
struct Lanes([[u32; WORDS]; WORDS]);

/// Key stream, as the words come out of four-by-four transposition: the quarter `g` of the block in lane `4 k + i` is
/// `0[g][i][k]`.
struct Stream([[[[u8; 16]; 4]; 4]; 4]);

impl Lanes {
    #[inline(always)]
    fn new() -> Self {
        let mut words = [[0; WORDS]; WORDS];
        for (word, constant) in words.iter_mut().zip([0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]) {
            *word = [constant; WORDS];
        }
        Self(words)
    }

    #[inline(always)]
    fn set(&mut self, lane: usize, view: &View<'_>, counter: u32) {
        let key = view.key[..2].as_flattened().as_chunks::<4>().0;
        let nonce = view.nonce.as_chunks::<4>().0;
        for (word, octets) in self.0[4..12].iter_mut().zip(key) {
            word[lane % WORDS] = u32::from_le_bytes(*octets);
        }
        self.0[12][lane % WORDS] = counter;
        for (word, octets) in self.0[13..].iter_mut().zip(nonce) {
            word[lane % WORDS] = u32::from_le_bytes(*octets);
        }
    }

    /// All lanes for one packet, with counters from `counter` on.
    #[inline(always)]
    fn set_all(&mut self, view: &View<'_>, counter: u32) {
        let key = view.key[..2].as_flattened().as_chunks::<4>().0;
        let nonce = view.nonce.as_chunks::<4>().0;
        for (word, octets) in self.0[4..12].iter_mut().zip(key) {
            *word = [u32::from_le_bytes(*octets); WORDS];
        }
        for (lane, word) in (0..).zip(&mut self.0[12]) {
            *word = counter.wrapping_add(lane);
        }
        for (word, octets) in self.0[13..].iter_mut().zip(nonce) {
            *word = [u32::from_le_bytes(*octets); WORDS];
        }
    }

    /// The key stream of all lanes.
    #[inline(always)]
    fn stream<I: Isa>(&self, isa: I, stream: &mut Stream) {
        let input: [I::V; WORDS] = std::array::from_fn(|w| isa.load_words(&self.0[w]));
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
fn one_time_keys<I: Isa>(isa: I, views: &[View<'_>]) -> [Poly1305; BURST] {
    let mut hashes = [Poly1305::default(); BURST];
    let mut lanes = Lanes::new();
    let mut stream = Stream([[[[0; 16]; 4]; 4]; 4]);
    for (views, hashes) in views.chunks(4 * I::LANES).zip(hashes.chunks_mut(4 * I::LANES)) {
        for (lane, view) in views.iter().enumerate() {
            lanes.set(lane, view, 0);
        }
        lanes.stream(isa, &mut stream);
        for (lane, hash) in hashes.iter_mut().enumerate() {
            let [r, s] = [0, 1].map(|g: usize| stream.0[g][lane % 4][lane / 4 % 4]);
            *hash = Poly1305::new(r, s);
        }
    }
    hashes
}

/// Adds the key stream to every text that is not refused.
#[inline(always)]
fn crypt<I: Isa>(isa: I, views: &mut [View<'_>]) {
    let mut lanes = Lanes::new();
    let mut stream = Stream([[[[0; 16]; 4]; 4]; 4]);
    let mut dealt = [(0_usize, 0_usize); WORDS];
    let mut lane = 0;
    for v in 0..views.len() {
        if views[v].verdict == Verdict::BadIcv {
            continue;
        }
        let blocks = views[v].text.len().div_ceil(64);
        let mut first = 0;
        // Long packets have vectors of their own, which are quicker to fill.
        while lane == 0 && blocks - first >= 4 * I::LANES {
            lanes.set_all(&views[v], u32::try_from(first + 1).expect("a text is shorter than 256 GiB"));
            lanes.stream(isa, &mut stream);
            for (lane, dealt) in dealt[..4 * I::LANES].iter_mut().enumerate() {
                *dealt = (v, first + lane);
            }
            apply(views, &dealt[..4 * I::LANES], &stream);
            first += 4 * I::LANES;
        }
        for block in first..blocks {
            lanes.set(lane, &views[v], u32::try_from(block + 1).expect("a text is shorter than 256 GiB"));
            dealt[lane % WORDS] = (v, block);
            lane += 1;
            if lane == 4 * I::LANES {
                lanes.stream(isa, &mut stream);
                apply(views, &dealt[..lane], &stream);
                lane = 0;
            }
        }
    }
    if lane > 0 {
        lanes.stream(isa, &mut stream);
        apply(views, &dealt[..lane], &stream);
    }
}

/// Adds each lane's key stream to the block that it was dealt.
#[inline(always)]
fn apply(views: &mut [View<'_>], dealt: &[(usize, usize)], stream: &Stream) {
    for (lane, &(v, block)) in dealt.iter().enumerate() {
        let text = &mut views[v].text[64 * block..];
        let quarters = [0, 1, 2, 3].map(|g: usize| &stream.0[g][lane % 4][lane / 4 % 4]);
        if let Some((block, _)) = text.split_first_chunk_mut::<64>() {
            for (octets, stream) in block.as_chunks_mut::<16>().0.iter_mut().zip(quarters) {
                *octets = (u128::from_le_bytes(*octets) ^ u128::from_le_bytes(*stream)).to_le_bytes();
            }
        } else {
            for (octet, stream) in text.iter_mut().zip(quarters.into_iter().flatten()) {
                *octet ^= stream;
            }
        }
    }
}

/// Calls back with the tag of every packet's ciphertext as it is now.
#[inline(always)]
fn tags(
    views: &mut [View<'_>],
    hashes: &mut [Poly1305; BURST],
    mut take: impl FnMut(&mut View<'_>, [u8; 16]),
) {
    let (groups, rest) = views.as_chunks_mut::<IN_STEP>();
    let (hash_groups, hash_rest) = hashes.as_chunks_mut::<IN_STEP>();
    let whole = groups.len();
    for (views, hashes) in groups.iter_mut().zip(hash_groups.iter_mut()) {
        let messages = [0, 1, 2, 3].map(|n: usize| views[n].message());
        poly1305::hash(hashes, messages);
        for (view, hash) in views.iter_mut().zip(hashes) {
            take(view, hash.finish());
        }
    }
    let leftover = hash_groups[whole..].iter_mut().flatten().chain(hash_rest);
    for (view, hash) in rest.iter_mut().zip(leftover) {
        let mut alone = [*hash];
        poly1305::hash(&mut alone, [view.message()]);
        take(view, alone[0].finish());
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
