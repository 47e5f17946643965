//! ChaCha20 with a block in each 32-bit lane.

use arrayvec::ArrayVec;

use super::hash::{Column, Hashes, LANES_MAX, SLOTS};
use super::poly1305::{OneTimeKey, Poly1305, octets_of_two};
use super::{AnyAad, View};
use crate::kernel::isa::Isa;
use crate::verdict::OpenVerdict;

/// Words of a block.
const WORDS: usize = 16;

/// The block of a packet that a lane makes: the first is number 0 and gives the one-time key.
type Deal = (usize, u32);

/// As many packets as a vector has lanes, or fewer, in order of their lengths.
pub(super) struct Group<'o, I: Isa> {
    pub(super) members: &'o [u8],
    /// The inputs of block 0 of each.
    input: [I::V; WORDS],
    keys: [OneTimeKey; LANES_MAX],
    hashes: I::Hashes,
    /// Octets of each text.
    lens: [usize; LANES_MAX],
    /// Columns that are encrypted or decrypted, and hashed.
    done: usize,
}

/// Key stream of all lanes: that of the block in lane `4 k + i` is part `k` of `i`, in `4 / LANES` vectors.
struct Stream<V>([[V; 4]; 4]);

impl<V: Copy> Stream<V> {
    /// The block of a lane.
    #[inline(always)]
    fn block<I: Isa<V = V>>(&self, lane: usize) -> &[V] {
        let parts = 4 / I::LANES;
        &self.0[lane % 4][lane / 4 % I::LANES * parts..][..parts]
    }

    /// Adds the blocks of all lanes to the texts, which have a whole block at `at`. Written so that the compiler
    /// unrolls it and keeps the key stream in registers.
    #[inline(always)]
    fn add_whole<I: Isa<V = V>>(&self, isa: I, texts: &mut [&mut [u8]; LANES_MAX], at: usize) {
        let parts = 4 / I::LANES;
        for (i, rows) in self.0.iter().enumerate() {
            for k in 0..I::LANES {
                if let Some(block) = texts[4 * k + i].get_mut(at..at + 64) {
                    for p in 0..parts {
                        isa.add_whole(&mut block[16 * I::LANES * p..][..16 * I::LANES], rows[parts * k + p]);
                    }
                }
            }
        }
    }
}

impl<'o, I: Isa> Group<'o, I> {
    /// Makes the one-time keys and takes AAD.
    #[inline(always)]
    pub(super) fn new(isa: I, views: &[View<'_>], members: &'o [u8]) -> Self {
        let mut dealt = [(usize::from(members[0]), 0); WORDS];
        let mut aads = [[0; 16]; LANES_MAX];
        let mut lens = [0; LANES_MAX];
        for (((deal, aad), len), &v) in dealt.iter_mut().zip(&mut aads).zip(&mut lens).zip(members) {
            deal.0 = v.into();
            *len = views[usize::from(v)].text.len();
            if let AnyAad::Esp(of) = &views[usize::from(v)].aad {
                *aad = of.padded();
            }
        }
        let input = inputs(isa, views, &dealt);
        let stream = key_stream(isa, &input, None);
        let mut keys = [[[0; 16]; 2]; LANES_MAX];
        for (lane, key) in keys.iter_mut().enumerate().take(4 * I::LANES) {
            *key = isa.front(stream.block::<I>(lane)[0]);
        }
        let hashes = I::Hashes::new(isa, &keys, &aads, lens[members.len() / 2] / 64);
        Self { members, input, keys, hashes, lens, done: 0 }
    }

    /// Goes on, column by column, as long as most lanes have something to do.
    #[inline(always)]
    pub(super) fn columns(&mut self, isa: I, views: &mut [View<'_>], seal: bool) {
        let mut tails = [[0; 64]; LANES_MAX];
        let mut texts: [&mut [u8]; LANES_MAX] = Default::default();
        for (text, &v) in texts.iter_mut().zip(self.members) {
            *text = std::mem::take(&mut views[usize::from(v)].text);
        }
        // Lanes that may be idle are those of the shortest.
        let count = match self.members.len().checked_sub(3 * I::LANES) {
            Some(idle) => self.lens[idle].div_ceil(64),
            None => 0,
        };
        let whole = if self.members.len() == 4 * I::LANES { self.lens[0] / 64 } else { 0 };
        while self.done < count {
            self.input[12] = isa.splat(block_of(self.done));
            let mut column = Column::NONE;
            let stream = if !seal {
                self.fill(&mut column, &texts, self.done, &mut tails);
                key_stream(isa, &self.input, Some((&mut self.hashes, &column)))
            } else if self.done > 0 {
                self.fill(&mut column, &texts, self.done - 1, &mut tails);
                key_stream(isa, &self.input, Some((&mut self.hashes, &column)))
            } else {
                key_stream(isa, &self.input, None)
            };
            if self.done < whole {
                stream.add_whole(isa, &mut texts, 64 * self.done);
            } else {
                for (lane, text) in texts.iter_mut().enumerate() {
                    if let Some(text) = text.get_mut(64 * self.done..) {
                        add(isa, text, stream.block::<I>(lane));
                    }
                }
            }
            self.done += 1;
        }
        if seal && self.done > 0 {
            let mut column = Column::NONE;
            self.fill(&mut column, &texts, self.done - 1, &mut tails);
            take::<I, _>(&mut self.hashes, &column);
        }
        for (text, &v) in texts.iter_mut().zip(self.members) {
            views[usize::from(v)].text = std::mem::take(text);
        }
    }

    /// The tags, after what the columns have left.
    #[inline(always)]
    pub(super) fn tags(&mut self, views: &[View<'_>]) -> [[u8; 16]; LANES_MAX] {
        let mut tails = [[0; 64]; LANES_MAX];
        let mut done = self.done;
        if self.having(done) >= <I::Hashes as Hashes<I>>::FEW {
            let mut texts: [&[u8]; LANES_MAX] = Default::default();
            for (text, &v) in texts.iter_mut().zip(self.members) {
                *text = views[usize::from(v)].text;
            }
            while self.having(done) >= <I::Hashes as Hashes<I>>::FEW {
                let mut column = Column::NONE;
                self.fill(&mut column, &texts, done, &mut tails);
                take::<I, _>(&mut self.hashes, &column);
                done += 1;
            }
        }
        let mut lengths = [[0; 16]; LANES_MAX];
        for (lengths, &v) in lengths.iter_mut().zip(self.members) {
            *lengths = views[usize::from(v)].lengths();
        }
        let other = matches!(views[usize::from(self.members[0])].aad, AnyAad::Other(_));
        let left = if other { self.members.len() } else { self.having(done) };
        let (first, mut alone) = (self.members.len() - left, ArrayVec::<_, LANES_MAX>::new());
        for lane in first..self.members.len() {
            alone.push(match &views[usize::from(self.members[lane])].aad {
                AnyAad::Esp(_) => self.hashes.one(&self.keys, lane),
                AnyAad::Other(aad) => Poly1305::after(self.keys[lane], aad),
            });
        }
        let mut tags = self.hashes.tags(&self.keys, &lengths);
        let rest =
            |lane: usize| views[usize::from(self.members[lane])].text.get(64 * done..).unwrap_or_default();
        let (pairs, last) = alone.as_chunks_mut::<2>();
        for (p, pair) in pairs.iter_mut().enumerate() {
            let lane = first + 2 * p;
            octets_of_two(pair, [rest(lane), rest(lane + 1)]);
            for (i, hash) in pair.iter_mut().enumerate() {
                hash.block(lengths[lane + i]);
                tags[lane + i] = hash.finish();
            }
        }
        if let [hash] = last {
            let lane = self.members.len() - 1;
            hash.octets(rest(lane));
            hash.block(lengths[lane]);
            tags[lane] = hash.finish();
        }
        tags
    }

    /// Adds the key stream to what the columns have left of every text that is not refused.
    #[inline(always)]
    pub(super) fn crypt_rest(&self, isa: I, views: &mut [View<'_>]) {
        let mut dealt: [Deal; WORDS] = [(0, 0); WORDS];
        let mut lane = 0;
        for &v in self.members {
            let v = usize::from(v);
            if views[v].verdict == OpenVerdict::BadIcv {
                continue;
            }
            let len = views[v].text.len();
            let blocks = u32::try_from(len.div_ceil(64)).expect("a text is shorter than 256 GiB");
            let mut first = block_of(self.done);
            // As long as a packet has whole blocks for all lanes, that is quicker to fill.
            while (len / 64).saturating_sub(first as usize - 1) >= 4 * I::LANES {
                let stream = key_stream(isa, &inputs_of_one(isa, &views[v], first), None);
                let text = &mut views[v].text[64 * (first as usize - 1)..];
                for (lane, block) in text.chunks_exact_mut(64).take(4 * I::LANES).enumerate() {
                    add_whole(isa, block, stream.block::<I>(lane));
                }
                first = block_of(first as usize - 1 + 4 * I::LANES);
            }
            for block in first..=blocks {
                dealt[lane % WORDS] = (v, block);
                lane += 1;
                if lane == 4 * I::LANES {
                    let stream = key_stream(isa, &inputs(isa, views, &dealt), None);
                    apply(isa, views, &dealt[..lane], &stream);
                    lane = 0;
                }
            }
        }
        if lane > 0 {
            let stream = key_stream(isa, &inputs(isa, views, &dealt), None);
            apply(isa, views, &dealt[..lane], &stream);
        }
    }

    /// How many packets have text in a column; they are the last ones.
    #[inline(always)]
    fn having(&self, column: usize) -> usize {
        self.lens[..self.members.len()].iter().rev().take_while(|&&len| len > 64 * column).count()
    }

    /// Fills in the text of a column; what is no whole block is copied.
    #[inline(always)]
    fn fill<'c, T: std::ops::Deref<Target = [u8]>>(
        &self,
        column: &mut Column<'c>,
        texts: &'c [T; LANES_MAX],
        number: usize,
        tails: &'c mut [[u8; 64]; LANES_MAX],
    ) {
        let lanes = self.members.len();
        column.active = [u16::MAX >> (LANES_MAX - lanes); 4];
        let places = column.texts.iter_mut().zip(texts).zip(tails).enumerate();
        for (lane, ((part, text), tail)) in places.take(lanes) {
            let rest = text.get(64 * number..).unwrap_or_default();
            if let Some(block) = rest.first_chunk() {
                *part = block;
                continue;
            }
            *tail = [0; 64];
            tail[..rest.len()].copy_from_slice(rest);
            *part = tail;
            for active in &mut column.active[rest.len().div_ceil(16)..] {
                *active &= !(1 << lane);
            }
        }
    }
}

#[inline(always)]
fn take<I: Isa, H: Hashes<I>>(hashes: &mut H, column: &Column<'_>) {
    for slot in 0..SLOTS {
        hashes.take(column, slot);
    }
}

/// The number of the block that encrypts a column: the first is the one-time key's.
#[inline(always)]
fn block_of(column: usize) -> u32 {
    u32::try_from(column + 1).expect("a text is shorter than 256 GiB")
}

/// Adds each lane's key stream to the block that it was dealt.
#[inline(always)]
fn apply<I: Isa>(isa: I, views: &mut [View<'_>], dealt: &[Deal], stream: &Stream<I::V>) {
    for (lane, &(v, block)) in dealt.iter().enumerate() {
        add(isa, &mut views[v].text[64 * (block as usize - 1)..], stream.block::<I>(lane));
    }
}

/// Adds a block of key stream to as much of it as there is.
#[inline(always)]
fn add<I: Isa>(isa: I, text: &mut [u8], stream: &[I::V]) {
    if let Some(block) = text.get_mut(..64) {
        return add_whole(isa, block, stream);
    }
    for (text, stream) in text.chunks_mut(16 * I::LANES).zip(stream) {
        if text.len() == 16 * I::LANES {
            isa.add_whole(text, *stream);
        } else {
            isa.add_part(text, *stream);
        }
    }
}

#[inline(always)]
fn add_whole<I: Isa>(isa: I, block: &mut [u8], stream: &[I::V]) {
    for (text, stream) in block.chunks_exact_mut(16 * I::LANES).zip(stream) {
        isa.add_whole(text, *stream);
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

/// The key stream of all lanes; between the rounds, a column is hashed.
#[inline(always)]
fn key_stream<I: Isa>(
    isa: I,
    input: &[I::V; WORDS],
    mut beside: Option<(&mut I::Hashes, &Column<'_>)>,
) -> Stream<I::V> {
    let (turns, mut state) = (isa.turns(), *input);
    for round in 0..SLOTS / 2 {
        quarters(isa, turns, &mut state, [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]]);
        if let Some((hashes, column)) = &mut beside {
            hashes.take(column, 2 * round);
        }
        quarters(isa, turns, &mut state, [[0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]]);
        if let Some((hashes, column)) = &mut beside {
            hashes.take(column, 2 * round + 1);
        }
    }
    for (word, input) in state.iter_mut().zip(input) {
        *word = isa.add_words(*word, *input);
    }
    let [w0, w1, w2, w3, w4, w5, w6, w7, w8, w9, w10, w11, w12, w13, w14, w15] = state;
    let (a, b) = (isa.transpose([w0, w1, w2, w3]), isa.transpose([w4, w5, w6, w7]));
    let (c, d) = (isa.transpose([w8, w9, w10, w11]), isa.transpose([w12, w13, w14, w15]));
    Stream([
        isa.turn([a[0], b[0], c[0], d[0]]),
        isa.turn([a[1], b[1], c[1], d[1]]),
        isa.turn([a[2], b[2], c[2], d[2]]),
        isa.turn([a[3], b[3], c[3], d[3]]),
    ])
}

/// Four quarter rounds (RFC 8439 §2.1), as many side by side as fit the registers.
#[inline(always)]
fn quarters<I: Isa>(isa: I, turns: I::Turns, state: &mut [I::V; WORDS], of: [[usize; 4]; 4]) {
    if I::ABREAST == 4 {
        abreast(isa, turns, state, of);
    } else {
        let [a, b, c, d] = of;
        abreast(isa, turns, state, [a, b]);
        abreast(isa, turns, state, [c, d]);
    }
}

/// So many quarter rounds side by side. Their number is a constant, so that the state is never indexed at run time.
#[inline(always)]
fn abreast<I: Isa, const N: usize>(isa: I, turns: I::Turns, state: &mut [I::V; WORDS], of: [[usize; 4]; N]) {
    for [a, b, _, d] in of {
        state[a] = isa.add_words(state[a], state[b]);
        state[d] = isa.rotate_16(turns, isa.xor(state[d], state[a]));
    }
    for [_, b, c, d] in of {
        state[c] = isa.add_words(state[c], state[d]);
        state[b] = isa.rotate_12(isa.xor(state[b], state[c]));
    }
    for [a, b, _, d] in of {
        state[a] = isa.add_words(state[a], state[b]);
        state[d] = isa.rotate_8(turns, isa.xor(state[d], state[a]));
    }
    for [_, b, c, d] in of {
        state[c] = isa.add_words(state[c], state[d]);
        state[b] = isa.rotate_7(isa.xor(state[b], state[c]));
    }
}
