//! Single blocks and parts of them, which the kernels of one and two blocks a vector share.
#![allow(unsafe_code, reason = "intrinsics: loads and stores by pointer")]

use std::arch::x86_64::{
    __m128i, _mm_and_si128, _mm_andnot_si128, _mm_bslli_si128, _mm_cmpeq_epi8, _mm_cvtsi32_si128,
    _mm_cvtsi64_si128, _mm_loadu_si128, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi8, _mm_set_epi32,
    _mm_set_epi64x, _mm_set1_epi8, _mm_storeu_si128,
};

use super::window2::{Frame, Window};
use crate::packet::PacketClass;

/// Sixteen ones, then sixteen zeros: a load at `16 - len` is the mask of the first `len` octets.
static MASKS: [u8; 32] = {
    let mut masks = [0; 32];
    let mut i = 0;
    while i < 16 {
        masks[i] = 0xff;
        i += 1;
    }
    masks
};

#[target_feature(enable = "ssse3")]
#[inline]
pub(super) fn reversal() -> __m128i {
    _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
}

#[target_feature(enable = "sse2")]
#[inline]
pub(super) fn load_block(block: &[u8; 16]) -> __m128i {
    // SAFETY: the reference covers the 16 octets that are read, and the load needs no alignment.
    unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
}

#[target_feature(enable = "sse2")]
#[inline]
pub(super) fn block_of(first: u64, second: u64) -> __m128i {
    _mm_set_epi64x(second.cast_signed(), first.cast_signed())
}

/// Salt, IV and a counter of zero.
#[target_feature(enable = "sse2")]
#[inline]
pub(super) fn nonce_block(salt: u32, iv: u64) -> __m128i {
    let iv = _mm_bslli_si128::<4>(_mm_cvtsi64_si128(iv.cast_signed()));
    _mm_or_si128(iv, _mm_cvtsi32_si128(salt.cast_signed()))
}

/// The IV of a packet, with zeros where salt and counter are to be.
#[target_feature(enable = "sse2")]
#[inline]
pub(super) fn sent_iv_block(window: &Window<'_>) -> __m128i {
    let before = window.text().start - 12;
    let block = window.packet()[before..].first_chunk().expect("12 octets and the text");
    _mm_and_si128(load_block(block), _mm_set_epi32(0, -1, -1, 0))
}

/// SPI and sequence number, where an IV of 8 octets follows and then the text.
#[target_feature(enable = "sse2")]
#[inline]
pub(super) fn sent_aad(window: &Window<'_>) -> __m128i {
    let front =
        window.packet()[window.text().start - 16..].first_chunk::<8>().expect("16 octets and the text");
    _mm_cvtsi64_si128(i64::from_le_bytes(*front))
}

#[target_feature(enable = "sse2")]
#[inline]
fn store_block(octets: &mut [u8; 16], block: __m128i) {
    // SAFETY: the reference covers the 16 octets that are written, and the store needs no alignment.
    unsafe { _mm_storeu_si128(octets.as_mut_ptr().cast(), block) }
}

#[target_feature(enable = "sse2")]
#[inline]
pub(super) fn octets(block: __m128i) -> [u8; 16] {
    let mut octets = [0; 16];
    store_block(&mut octets, block);
    octets
}

/// Ones for the first `len` octets.
#[target_feature(enable = "sse2")]
#[inline]
pub(super) fn mask(len: usize) -> __m128i {
    let (ones_from, _) = MASKS[16 - len..].split_first_chunk().expect("16 octets follow any of the first 17");
    load_block(ones_from)
}

/// `len` octets, at most 16, and zero behind them. Where the packet goes on for long enough, as it does with
/// an ICV of 16, the whole block is read and masked.
#[target_feature(enable = "sse2")]
#[inline]
pub(super) fn load_octets(packet: &[u8], at: usize, len: usize) -> __m128i {
    if let Some((block, _)) = packet.get(at..).and_then(<[u8]>::split_first_chunk) {
        return _mm_and_si128(load_block(block), mask(len));
    }
    let mut block = [0; 16];
    block[..len].copy_from_slice(&packet[at..at + len]);
    load_block(&block)
}

/// Writes the first `len` octets of a block. Where the packet goes on for long enough, what follows is read
/// and written back as it was.
#[target_feature(enable = "sse2")]
#[inline]
pub(super) fn store_octets(packet: &mut [u8], at: usize, len: usize, block: __m128i) {
    if let Some((place, _)) = packet.get_mut(at..).and_then(<[u8]>::split_first_chunk_mut) {
        let mask = mask(len);
        let before = load_block(place);
        store_block(place, _mm_or_si128(_mm_and_si128(mask, block), _mm_andnot_si128(mask, before)));
    } else {
        packet[at..at + len].copy_from_slice(&octets(block)[..len]);
    }
}

#[target_feature(enable = "sse2")]
#[inline]
pub(super) fn equal(octets: &[u8; 64], octet: u8) -> u64 {
    let octet = _mm_set1_epi8(octet.cast_signed());
    let (blocks, _) = octets.as_chunks::<16>();
    blocks.iter().rev().fold(0, |bits, block| {
        let equal = _mm_movemask_epi8(_mm_cmpeq_epi8(load_block(block), octet));
        (bits << 16) | u64::from(equal.cast_unsigned())
    })
}

#[target_feature(enable = "sse2")]
#[inline]
pub(super) fn frame(form: PacketClass, vectors: usize) -> Frame {
    Frame::new(form, vectors)
}

#[target_feature(enable = "sse2")]
#[inline]
pub(super) fn window<'p>(packet: &'p mut [u8], frame: &Frame) -> Window<'p> {
    Window::new(packet, frame)
}

#[target_feature(enable = "sse2")]
#[inline]
pub(super) fn pad(window: &Window<'_>) -> usize {
    window.pad()
}

#[target_feature(enable = "sse2")]
#[inline]
pub(super) fn wipe(window: &mut Window<'_>) {
    window.wipe();
}

#[target_feature(enable = "sse2")]
#[inline]
pub(super) fn put_icv(window: &mut Window<'_>, tag: __m128i) {
    let (end, len) = (window.text().end, window.icv_len());
    store_octets(window.packet_mut(), end, len, tag);
}

#[target_feature(enable = "sse2")]
#[inline]
pub(super) fn icv(window: &Window<'_>) -> __m128i {
    load_octets(window.packet(), window.text().end, window.icv_len())
}

/// Where the octets of every 32-bit lane come from when it is turned left by 16 and by 8 bits.
#[target_feature(enable = "sse2")]
#[inline]
pub(super) fn turn_patterns() -> [__m128i; 2] {
    [
        _mm_set_epi8(13, 12, 15, 14, 9, 8, 11, 10, 5, 4, 7, 6, 1, 0, 3, 2),
        _mm_set_epi8(14, 13, 12, 15, 10, 9, 8, 11, 6, 5, 4, 7, 2, 1, 0, 3),
    ]
}

/// Exclusive or with the octets of a text, of which there are fewer.
#[target_feature(enable = "sse2")]
#[inline]
pub(super) fn add_octets(text: &mut [u8], stream: &[[u8; 16]; 2]) {
    assert!(text.len() < 32, "the part of a vector");
    let (words, rest) = text.as_chunks_mut::<4>();
    let (stream, stream_rest) = stream.as_flattened().as_chunks::<4>().0.split_at(words.len());
    for (word, stream) in words.iter_mut().zip(stream) {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(*stream)).to_ne_bytes();
    }
    for (octet, stream) in rest.iter_mut().zip(stream_rest.as_flattened()) {
        *octet ^= stream;
    }
}

/// All octets are compared before any branch.
#[target_feature(enable = "sse2")]
#[inline]
pub(super) fn icv_matches(window: &Window<'_>, tag: __m128i, received: __m128i) -> bool {
    let tag = _mm_and_si128(tag, mask(window.icv_len()));
    _mm_movemask_epi8(_mm_cmpeq_epi8(received, tag)) == 0xffff
}
