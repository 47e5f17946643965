//! Key set-up: round keys and powers of the hash key, without a table look-up.

use super::POLYNOMIAL_HIGH;
use crate::kernel::isa::{Isa, Task};
use crate::key::{POWERS, Tables};

/// Rounds of AES with a key of so many octets (FIPS 197 §5).
pub(crate) const fn aes_rounds(key_len: usize) -> usize {
    key_len / 4 + 6
}

/// Fills the tables of a key of 16, 24 or 32 octets.
pub(crate) struct Derive<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) salt: [u8; 4],
    pub(crate) tables: &'a mut Tables,
}

impl Task for Derive<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        expand(isa, self.key, &mut self.tables.round_keys);
        let rounds = aes_rounds(self.key.len());
        let keys = &self.tables.round_keys;
        let mut state = isa.broadcast(&keys[0]);
        for key in &keys[1..rounds] {
            state = isa.aesenc(state, isa.broadcast(key));
        }
        state = isa.aesenclast(state, isa.broadcast(&keys[rounds]));
        let hash_key = u128::from_be_bytes(isa.octets(isa.lane(state, 0)));
        // Every product in this representation comes out divided by x, so each power is kept times x.
        let polynomial = (u128::from(POLYNOMIAL_HIGH) << 64) | 1;
        let times_x = vector(isa, (hash_key << 1) ^ (polynomial & 0_u128.wrapping_sub(hash_key >> 127)));
        let mut power = times_x;
        for slot in (0..POWERS).rev() {
            // Powers are numbers: little-endian, as a reversed lane is.
            self.tables.powers[slot] = isa.octets(isa.lane(power, 0));
            power = isa.reduce(isa.mul_add(isa.no_sum(), power, isa.power(times_x)));
        }
        for (octet, salt) in self.tables.round_keys[0].iter_mut().zip(self.salt) {
            *octet ^= salt;
        }
    }
}

/// A vector with one number in its first lane.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the low half")]
fn vector<I: Isa>(isa: I, number: u128) -> I::V {
    isa.insert(isa.zero(), 0, number as u64, (number >> 64) as u64)
}

/// The key schedule (FIPS 197 §5.2). S-boxes come from the last round of AES: on four equal columns ShiftRows
/// changes nothing, and with a zero key SubBytes is all that is left.
#[inline(always)]
fn expand<I: Isa>(isa: I, key: &[u8], round_keys: &mut [[u8; 16]]) {
    let sub_word = |word: u32| {
        let column = u128::from(word);
        let state = vector(isa, column | column << 32 | column << 64 | column << 96);
        let [a, b, c, d, ..] = isa.octets(isa.lane(isa.aesenclast(state, isa.zero()), 0));
        u32::from_le_bytes([a, b, c, d])
    };
    let per_key = key.len() / 4;
    let total = 4 * (aes_rounds(key.len()) + 1);
    let mut words = [0_u32; 60];
    for (word, octets) in words.iter_mut().zip(key.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*octets);
    }
    let mut constant = 1_u32;
    for i in per_key..total {
        let mut word = words[i - 1];
        if i % per_key == 0 {
            word = sub_word(word.rotate_right(8)) ^ constant;
            constant = (constant << 1) ^ (0x11b & 0_u32.wrapping_sub(constant >> 7));
        } else if per_key == 8 && i % per_key == 4 {
            word = sub_word(word);
        }
        words[i] = words[i - per_key] ^ word;
    }
    for (i, word) in words[..total].iter().enumerate() {
        round_keys[i / 4][4 * (i % 4)..][..4].copy_from_slice(&word.to_le_bytes());
    }
    zeroize::Zeroize::zeroize(&mut words);
}

/// AAD of any length as the one block that an [`super::PacketText`] has room for: the hash of all but the last block,
/// added to the last. It comes in two strings, of which the first has whole blocks only.
pub(crate) struct Absorb<'a> {
    pub(crate) tables: &'a Tables,
    pub(crate) aad: [&'a [u8]; 2],
}

impl Task for Absorb<'_> {
    type Out = u128;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> u128 {
        let power = isa.power(vector(isa, u128::from_le_bytes(self.tables.powers[POWERS - 1])));
        let mut hash = 0;
        let [first, second] = self.aad;
        for (i, octets) in first.chunks(16).chain(second.chunks(16)).enumerate() {
            if i > 0 {
                let product = isa.mul_add(isa.no_sum(), vector(isa, hash), power);
                hash = u128::from_le_bytes(isa.octets(isa.lane(isa.reduce(product), 0)));
            }
            let mut block = [0; 16];
            block[..octets.len()].copy_from_slice(octets);
            hash ^= u128::from_be_bytes(block);
        }
        hash
    }
}
