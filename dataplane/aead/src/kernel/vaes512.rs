//! VAES and VPCLMULQDQ on 512-bit vectors: four blocks a vector, head and tail by byte mask.
#![allow(
    unsafe_code,
    reason = "intrinsics: loads and stores by pointer, and the calls into compiled-for code"
)]

use std::arch::is_x86_feature_detected;
use std::arch::x86_64::{__m128i, __m512i};
use std::marker::PhantomData;

use super::ifma::Multipliers;
use super::isa::{Isa, Task, forward_all};
use crate::key::POWERS;
use crate::packet::Form;

/// Proof that the CPU has VAES, VPCLMULQDQ, BMI2 and AVX-512 with BW, DQ, VL, IFMA and VBMI2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vaes512(());

impl Vaes512 {
    /// Asks the CPU; the error names what is missing.
    pub(crate) fn detect() -> Result<Self, Vec<&'static str>> {
        let features = [
            ("avx512f", is_x86_feature_detected!("avx512f")),
            ("avx512bw", is_x86_feature_detected!("avx512bw")),
            ("avx512vl", is_x86_feature_detected!("avx512vl")),
            ("avx512dq", is_x86_feature_detected!("avx512dq")),
            ("avx512ifma", is_x86_feature_detected!("avx512ifma")),
            ("avx512vbmi2", is_x86_feature_detected!("avx512vbmi2")),
            ("bmi2", is_x86_feature_detected!("bmi2")),
            ("aes", is_x86_feature_detected!("aes")),
            ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
            ("vaes", is_x86_feature_detected!("vaes")),
            ("vpclmulqdq", is_x86_feature_detected!("vpclmulqdq")),
        ];
        let missing: Vec<_> = features.iter().filter(|(_, has)| !has).map(|(name, _)| *name).collect();
        if missing.is_empty() { Ok(Self(())) } else { Err(missing) }
    }
}

/// Lane-wise 256-bit products as three 128-bit columns.
#[derive(Clone, Copy)]
pub(crate) struct Sum {
    low: __m512i,
    mid: __m512i,
    high: __m512i,
}

/// A packet's text as vectors of 64 octets that follow each other from `base` on. The first begins up to 64 octets
/// before the text, the last ends up to 64 octets after it; `head` and `tail` have a bit for each octet of them that
/// is text, and all others between are text throughout.
pub(crate) struct Window<'p> {
    base: *mut u8,
    vectors: usize,
    /// 0 to 3.
    pad: usize,
    /// Octets of the packet before the text.
    front: usize,
    head: u64,
    tail: u64,
    /// All of what comes after the text.
    icv: *mut u8,
    /// A bit for each octet of it, up to 16.
    icv_mask: u16,
    text_len: usize,
    packet: PhantomData<&'p mut [u8]>,
}

impl Isa for Vaes512 {
    type V = __m512i;
    type Block = __m128i;
    type Sum = Sum;
    type Window<'p> = Window<'p>;
    type Hashes = Multipliers;

    type Turns = ();

    const LANES: usize = 4;

    const ABREAST: usize = 4;

    #[inline(always)]
    fn enter<T: Task>(self, task: T) -> T::Out {
        // SAFETY: `self` is only made by `detect`, which has found every feature that `enter` is compiled for.
        unsafe { ops::enter(self, task) }
    }

    forward_all!();
}

/// The operations, compiled for the instruction set.
mod ops {
    use std::arch::x86_64::{
        __m128i, __m512i, __mmask8, _bzhi_u64, _mm_bslli_si128, _mm_cvtsi32_si128, _mm_cvtsi64_si128,
        _mm_loadu_si128, _mm_mask_cmpneq_epi8_mask, _mm_mask_storeu_epi8, _mm_maskz_loadu_epi8, _mm_or_si128,
        _mm_set_epi8, _mm_set_epi64x, _mm_shuffle_epi8, _mm_storeu_si128, _mm_xor_si128,
        _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_storeu_si256, _mm256_xor_si256, _mm512_add_epi32, _mm512_shuffle_i32x4,
        _mm512_aesenc_epi128, _mm512_aesenclast_epi128, _mm512_broadcast_i32x4, _mm512_castsi128_si512,
        _mm512_castsi512_si256, _mm512_clmulepi64_epi128, _mm512_cmpeq_epi8_mask, _mm512_extracti64x4_epi64,
        _mm512_inserti32x4, _mm512_loadu_si512, _mm512_mask_broadcast_i32x4, _mm512_mask_mov_epi8,
        _mm512_mask_set1_epi64, _mm512_mask_storeu_epi8, _mm512_maskz_loadu_epi8, _mm512_rol_epi32,
        _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set4_epi32, _mm512_setr_epi32, _mm512_setzero_si512,
        _mm512_shuffle_epi8, _mm512_shuffle_epi32, _mm512_storeu_si512, _mm512_ternarylogic_epi64,
        _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
        _mm512_xor_si512,
    };

    use super::{Form, PhantomData, Sum, Task, Vaes512, Window};
    use crate::kernel::gcm::{BEFORE, COUNTERS, POLYNOMIAL_HIGH, TABLE};
    use crate::key::POWERS;

    type V = __m512i;

    /// The most vectors that the table has counters for.
    const VECTORS_MAX: usize = (TABLE - BEFORE - 1) / 4;

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2,aes,pclmulqdq,vaes,vpclmulqdq")]
    #[inline(never)]
    pub(super) fn enter<T: Task>(isa: Vaes512, task: T) -> T::Out {
        task.run(isa)
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    pub(super) fn equal(octets: &[u8; 64], octet: u8) -> u64 {
        // SAFETY: the reference covers the 64 octets that are read, and the load needs no alignment.
        let octets = unsafe { _mm512_loadu_si512(octets.as_ptr().cast()) };
        _mm512_cmpeq_epi8_mask(octets, _mm512_set1_epi8(octet.cast_signed()))
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn zero() -> V {
        _mm512_setzero_si512()
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn xor(a: V, b: V) -> V {
        _mm512_xor_si512(a, b)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn broadcast(block: &[u8; 16]) -> V {
        // SAFETY: the reference covers the 16 octets that are read, and the load needs no alignment.
        _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(block.as_ptr().cast()) })
    }

    #[target_feature(enable = "avx512f,vaes")]
    #[inline]
    pub(super) fn aesenc(state: V, key: V) -> V {
        _mm512_aesenc_epi128(state, key)
    }

    #[target_feature(enable = "avx512f,vaes")]
    #[inline]
    pub(super) fn aesenclast(state: V, key: V) -> V {
        _mm512_aesenclast_epi128(state, key)
    }

    #[target_feature(enable = "ssse3")]
    #[inline]
    fn reversal() -> __m128i {
        _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    pub(super) fn reverse(v: V) -> V {
        _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(reversal()))
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn nonce(salt: u32, iv: u64) -> V {
        let iv = _mm_bslli_si128::<4>(_mm_cvtsi64_si128(iv.cast_signed()));
        _mm512_broadcast_i32x4(_mm_or_si128(iv, _mm_cvtsi32_si128(salt.cast_signed())))
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn sent_start(front: &[u8; 20], round_key: &[u8; 16]) -> V {
        // SAFETY: the reference covers the 16 octets from the fourth on; the load needs no alignment.
        let block = unsafe { _mm_loadu_si128(front[4..].as_ptr().cast()) };
        // Of sequence number, IV and what follows, the two words of IV.
        let iv = _mm512_set4_epi32(0, -1, -1, 0);
        _mm512_ternarylogic_epi64::<0x78>(broadcast(round_key), _mm512_broadcast_i32x4(block), iv)
    }

    #[target_feature(enable = "avx512f,bmi2")]
    #[inline]
    pub(super) fn window(packet: &mut [u8], form: Form, vectors: usize) -> Window<'_> {
        let Form { packet_len, text, .. } = form;
        let text_len = text.end.wrapping_sub(text.start);
        let pad = (4 * vectors - 2).wrapping_sub(text_len.wrapping_add(15) / 16);
        assert!(
            text.start <= text.end && text.end <= packet_len && pad < 4 && vectors <= VECTORS_MAX,
            "{MISFIT}"
        );
        assert!(packet.len() == packet_len, "{MISFIT}");
        let first = 16 * (pad + 1);
        let (head, tail) = if vectors == 1 {
            // In two steps: with three pad lanes nothing is left, and a shift by 64 is none.
            let head = ones(text_len) << (first - 1) << 1;
            (head, head)
        } else {
            // Of two vectors and more, the first is full, and the last has what is left, 1 to 48 octets.
            (u64::MAX << (first - 1) << 1, ones(text_len + first - 64 * (vectors - 1)))
        };
        let icv_mask = (ones(packet_len - text.end) & 0xffff) as u16;
        let start = packet.as_mut_ptr().wrapping_add(text.start);
        Window {
            base: start.wrapping_sub(first),
            vectors,
            pad,
            front: text.start,
            head,
            tail,
            icv: start.wrapping_add(text_len),
            icv_mask,
            text_len,
            packet: PhantomData,
        }
    }

    const MISFIT: &str = "a text lies inside its packet and makes as many vectors as are said";

    /// That many bits; 64 and more are all.
    #[target_feature(enable = "bmi2")]
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the instruction takes the low octet; texts of one vector are shorter"
    )]
    fn ones(len: usize) -> u64 {
        _bzhi_u64(u64::MAX, len as u32)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn pad(window: &Window<'_>) -> usize {
        window.pad
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn counters(window: &Window<'_>, v: usize) -> V {
        assert!(v < window.vectors, "a vector of the window");
        let table = (&raw const COUNTERS).cast::<__m128i>();
        let blocks = table.wrapping_add(BEFORE + 1 - window.pad + 4 * v);
        // SAFETY: `v` is less than `VECTORS_MAX` and the pad at most `BEFORE`, so four entries follow in the table.
        unsafe { _mm512_loadu_si512(blocks.cast()) }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    pub(super) fn load_head(window: &Window<'_>) -> V {
        // SAFETY: the mask's bits are octets of the text; others are not touched.
        unsafe { _mm512_maskz_loadu_epi8(window.head, window.base.cast()) }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    pub(super) fn load_sent_head(window: &Window<'_>) -> V {
        assert!(window.front >= 16, "SPI, sequence number and IV come before the text");
        let mask = window.head | 0xff << (16 * window.pad);
        // SAFETY: the mask's bits are octets of the text and the first half of the block before it, which is in the
        // packet, as just checked; others are not touched.
        unsafe { _mm512_maskz_loadu_epi8(mask, window.base.cast()) }
    }

    /// The start of a vector that is text throughout.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn middle(window: &Window<'_>, v: usize) -> *mut u8 {
        assert!(v > 0 && v + 1 < window.vectors, "a vector between the first and the last");
        window.base.wrapping_add(64 * v)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn load_middle(window: &Window<'_>, v: usize) -> V {
        let octets = middle(window, v);
        // SAFETY: all vectors between the first and the last are text throughout.
        unsafe { _mm512_loadu_si512(octets.cast()) }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn tail(window: &Window<'_>) -> *mut u8 {
        window.base.wrapping_add(64 * window.vectors).wrapping_sub(64)
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    pub(super) fn load_tail(window: &Window<'_>) -> V {
        let octets = tail(window);
        // SAFETY: the mask's bits are octets of the text; others are not touched.
        unsafe { _mm512_maskz_loadu_epi8(window.tail, octets.cast()) }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    pub(super) fn store_head(window: &mut Window<'_>, v: V) {
        // SAFETY: the mask's bits are octets of the text, which the window borrows; others are not touched.
        unsafe { _mm512_mask_storeu_epi8(window.base.cast(), window.head, v) }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn store_middle(window: &mut Window<'_>, v: usize, data: V) {
        let octets = middle(window, v);
        // SAFETY: all vectors between the first and the last are text throughout, which the window borrows.
        unsafe { _mm512_storeu_si512(octets.cast(), data) }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    pub(super) fn store_tail(window: &mut Window<'_>, v: V) {
        let octets = tail(window);
        // SAFETY: the mask's bits are octets of the text, which the window borrows; others are not touched.
        unsafe { _mm512_mask_storeu_epi8(octets.cast(), window.tail, v) }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    pub(super) fn select_head(window: &Window<'_>, inside: V, around: V) -> V {
        _mm512_mask_mov_epi8(around, window.head, inside)
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    pub(super) fn select_tail(window: &Window<'_>, inside: V, around: V) -> V {
        _mm512_mask_mov_epi8(around, window.tail, inside)
    }

    #[target_feature(enable = "avx512bw,avx512vl")]
    #[inline]
    pub(super) fn put_icv(window: &mut Window<'_>, tag: __m128i) {
        // SAFETY: the mask has as many bits as there are octets after the text, which the window borrows.
        unsafe { _mm_mask_storeu_epi8(window.icv.cast(), window.icv_mask, tag) }
    }

    #[target_feature(enable = "avx512bw,avx512vl,bmi2")]
    #[inline]
    pub(super) fn icv(window: &Window<'_>) -> __m128i {
        // SAFETY: the mask has as many bits as there are octets after the text.
        unsafe { _mm_maskz_loadu_epi8(window.icv_mask, window.icv.cast()) }
    }

    #[target_feature(enable = "avx512bw,avx512vl,bmi2")]
    #[inline]
    pub(super) fn icv_matches(window: &Window<'_>, tag: __m128i, received: __m128i) -> bool {
        _mm_mask_cmpneq_epi8_mask(window.icv_mask, received, tag) == 0
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn wipe(window: &mut Window<'_>) {
        // SAFETY: the text's octets, which the window borrows.
        unsafe { zero_octets(window.icv.wrapping_sub(window.text_len), window.text_len) }
    }

    /// Apart from its caller, which so need not have its window in memory.
    ///
    /// # Safety
    /// `len` octets from `octets` on belong to the caller.
    #[cold]
    #[inline(never)]
    unsafe fn zero_octets(octets: *mut u8, len: usize) {
        // SAFETY: the caller's duty.
        unsafe { octets.write_bytes(0, len) }
    }

    /// Two broadcasts from general registers or memory cost less than a block built for one.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn insert(v: V, lane: usize, first: u64, second: u64) -> V {
        let bit: __mmask8 = 1 << (2 * (lane & 3));
        _mm512_mask_set1_epi64(
            _mm512_mask_set1_epi64(v, bit, first.cast_signed()),
            bit << 1,
            second.cast_signed(),
        )
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn insert_last(v: V, block: &[u8; 16]) -> V {
        // SAFETY: the reference covers the 16 octets that are read, and the load needs no alignment.
        let block = unsafe { _mm_loadu_si128(block.as_ptr().cast()) };
        _mm512_mask_broadcast_i32x4(v, 0xf000, block)
    }

    /// By way of memory: a store of 64 octets forwards to a load within it, and no shuffle port is used.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn lane(v: V, lane: usize) -> __m128i {
        let mut blocks = [[0_u8; 16]; 4];
        // SAFETY: the array has the 64 octets that are written, and the store needs no alignment.
        unsafe { _mm512_storeu_si512((&raw mut blocks).cast(), v) };
        let block = &blocks[lane];
        // SAFETY: the reference covers the 16 octets that are read, and the load needs no alignment.
        unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
    }

    pub(super) use super::super::aesni::blocks::{block_of, load_block as block};

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn octets(block: __m128i) -> [u8; 16] {
        let mut octets = [0; 16];
        // SAFETY: the array has the 16 octets that are written, and the store needs no alignment.
        unsafe { _mm_storeu_si128(octets.as_mut_ptr().cast(), block) };
        octets
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn join([b0, b1, b2, b3]: [__m128i; 4]) -> V {
        let v = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(b0), b1);
        _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(v, b2), b3)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn splat(word: u32) -> V {
        _mm512_set1_epi32(word.cast_signed())
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn counting() -> V {
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn add_words(a: V, b: V) -> V {
        _mm512_add_epi32(a, b)
    }

    /// Vectors are rotated by any distance.
    #[inline(always)]
    pub(super) fn turns() {}

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn rotate_16((): (), v: V) -> V {
        _mm512_rol_epi32::<16>(v)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn rotate_12(v: V) -> V {
        _mm512_rol_epi32::<12>(v)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn rotate_8((): (), v: V) -> V {
        _mm512_rol_epi32::<8>(v)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn rotate_7(v: V) -> V {
        _mm512_rol_epi32::<7>(v)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn transpose(rows: [V; 4]) -> [V; 4] {
        let [a, b, c, d] = rows;
        let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        [
            _mm512_unpacklo_epi64(ab_low, cd_low),
            _mm512_unpackhi_epi64(ab_low, cd_low),
            _mm512_unpacklo_epi64(ab_high, cd_high),
            _mm512_unpackhi_epi64(ab_high, cd_high),
        ]
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn turn([a, b, c, d]: [V; 4]) -> [V; 4] {
        let (ab_low, ab_high) =
            (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0xee>(a, b));
        let (cd_low, cd_high) =
            (_mm512_shuffle_i32x4::<0x44>(c, d), _mm512_shuffle_i32x4::<0xee>(c, d));
        [
            _mm512_shuffle_i32x4::<0x88>(ab_low, cd_low),
            _mm512_shuffle_i32x4::<0xdd>(ab_low, cd_low),
            _mm512_shuffle_i32x4::<0x88>(ab_high, cd_high),
            _mm512_shuffle_i32x4::<0xdd>(ab_high, cd_high),
        ]
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn front(v: V) -> [[u8; 16]; 2] {
        let mut front = [[0; 16]; 2];
        // SAFETY: the array has the 32 octets that are written, and the store needs no alignment.
        unsafe { _mm256_storeu_si256(front.as_mut_ptr().cast(), _mm512_castsi512_si256(v)) };
        front
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn add_whole(text: &mut [u8], v: V) {
        let at: *mut __m512i = text[..64].as_mut_ptr().cast();
        // SAFETY: the slice has the 64 octets that are read, and the load needs no alignment.
        let before = unsafe { _mm512_loadu_si512(at) };
        // SAFETY: the slice has the 64 octets that are written, and the store needs no alignment.
        unsafe { _mm512_storeu_si512(at, xor(before, v)) };
    }

    #[target_feature(enable = "avx512f,avx512bw,bmi2")]
    #[inline]
    pub(super) fn add_part(text: &mut [u8], v: V) {
        assert!(text.len() < 64, "the part of a vector");
        #[expect(clippy::cast_possible_truncation, reason = "less than 64")]
        let mask = _bzhi_u64(u64::MAX, text.len() as u32);
        let at: *mut i8 = text.as_mut_ptr().cast();
        // SAFETY: the mask lets through as many octets as the slice has.
        let before = unsafe { _mm512_maskz_loadu_epi8(mask, at) };
        // SAFETY: the mask lets through as many octets as the slice has.
        unsafe { _mm512_mask_storeu_epi8(at, mask, xor(before, v)) };
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn no_sum() -> Sum {
        Sum { low: zero(), mid: zero(), high: zero() }
    }

    #[target_feature(enable = "avx512f,vpclmulqdq")]
    #[inline]
    pub(super) fn mul_add(sum: Sum, x: V, power: V) -> Sum {
        let cross =
            xor(_mm512_clmulepi64_epi128::<0x01>(x, power), _mm512_clmulepi64_epi128::<0x10>(x, power));
        Sum {
            low: xor(sum.low, _mm512_clmulepi64_epi128::<0x00>(x, power)),
            mid: xor(sum.mid, cross),
            high: xor(sum.high, _mm512_clmulepi64_epi128::<0x11>(x, power)),
        }
    }

    /// Folds the low column into the middle one, and that into the high one, by the field's polynomial.
    #[target_feature(enable = "avx512f,vpclmulqdq")]
    #[inline]
    pub(super) fn reduce(sum: Sum) -> V {
        let polynomial = _mm512_broadcast_i32x4(_mm_set_epi64x(POLYNOMIAL_HIGH.cast_signed(), 1));
        let folded = _mm512_clmulepi64_epi128::<0x01>(polynomial, sum.low);
        let mid = xor(xor(sum.mid, _mm512_shuffle_epi32::<0x4e>(sum.low)), folded);
        let folded = _mm512_clmulepi64_epi128::<0x01>(polynomial, mid);
        xor(xor(sum.high, _mm512_shuffle_epi32::<0x4e>(mid)), folded)
    }

    /// Lanes are hashed apart until the last batch, so every lane has the same power.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn stride_power(powers: &[[u8; 16]; POWERS], k: usize) -> V {
        broadcast(&powers[POWERS - 4 * k])
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn last_power(powers: &[[u8; 16]; POWERS], k: usize) -> V {
        let powers: &[[u8; 16]; 4] = powers[POWERS - 4 * k..].first_chunk().expect("k is 1 to 4");
        // SAFETY: the reference covers the 64 octets that are read, and the load needs no alignment.
        unsafe { _mm512_loadu_si512(powers.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vpclmulqdq")]
    #[inline]
    pub(super) fn tag(sum: Sum, mask: __m128i) -> __m128i {
        _mm_xor_si128(_mm_shuffle_epi8(sum_lanes(reduce(sum)), reversal()), mask)
    }

    /// The lane is added before the lanes are added up, so that it need not be brought into place.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vpclmulqdq")]
    #[inline]
    pub(super) fn tag_beside(window: &Window<'_>, sum: Sum, stream: V) -> __m128i {
        let lanes = reverse(reduce(sum));
        // Lanes plus what of the stream the mask lets through. A mask of octets from memory costs less than one in a
        // mask register, which is made on the port of the products.
        sum_lanes(_mm512_ternarylogic_epi64::<0x78>(lanes, stream, lane_mask(window.pad)))
    }

    /// Ones in one lane.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn lane_mask(lane: usize) -> V {
        static MASKS: Masks = {
            let mut masks = [[0; 64]; 4];
            let mut i = 0;
            while i < 64 {
                masks[i / 16][i] = 0xff;
                i += 1;
            }
            Masks(masks)
        };
        let mask = &MASKS.0[lane];
        // SAFETY: the reference covers the 64 octets that are read, and the load needs no alignment.
        unsafe { _mm512_loadu_si512(mask.as_ptr().cast()) }
    }

    /// On cache lines of their own.
    #[repr(align(64))]
    struct Masks([[u8; 64]; 4]);

    #[target_feature(enable = "avx512f,avx512vl")]
    #[inline]
    fn sum_lanes(v: V) -> __m128i {
        let halves = _mm256_xor_si256(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64::<1>(v));
        _mm_xor_si128(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves))
    }
}
