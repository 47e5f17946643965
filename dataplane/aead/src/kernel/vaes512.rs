//! VAES and VPCLMULQDQ on 512-bit vectors: four blocks a vector, head and tail by byte mask.
#![allow(
    unsafe_code,
    reason = "intrinsics: loads and stores by pointer, an empty asm!, and the calls into compiled-for code"
)]

use std::arch::is_x86_feature_detected;
use std::arch::x86_64::{__cpuid, __m128i, __m512i};

use super::ifma::Multipliers;
use super::isa::{Isa, Task, forward_all};
use super::masked::{Frame, Window};
use super::vl256::Vl256;
use crate::key::POWERS;
use crate::packet::PacketClass;

/// Proof that the CPU has VAES, VPCLMULQDQ, BMI2 and AVX-512 with BW, DQ, VL, IFMA and VBMI2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vaes512 {
    /// Whether the CPU does the two halves of a vector one after the other.
    in_halves: bool,
}

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
        if missing.is_empty() { Ok(Self { in_halves: is_zen_4() }) } else { Err(missing) }
    }

    /// As on a CPU that is of the other sort.
    pub(crate) fn detect_otherwise() -> Result<Self, Vec<&'static str>> {
        Self::detect().map(|Self { in_halves }| Self { in_halves: !in_halves })
    }
}

/// Whether this is the first AMD family with AVX-512, whose vector units have 256 bits.
fn is_zen_4() -> bool {
    let vendor = __cpuid(0);
    let is_amd = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD";
    let signature = __cpuid(1).eax;
    let family = ((signature >> 8) & 0xf) + ((signature >> 20) & 0xff);
    is_amd && family == 0x19
}

/// Lane-wise 256-bit products as three 128-bit columns.
#[derive(Clone, Copy)]
pub(crate) struct Sum {
    low: __m512i,
    mid: __m512i,
    high: __m512i,
}

/// With each lane's halves added up for Karatsuba's product.
#[derive(Clone, Copy)]
pub(crate) struct Power {
    whole: __m512i,
    folded: __m512i,
}

impl Isa for Vaes512 {
    type V = __m512i;
    type Block = __m128i;
    type Sum = Sum;
    type Frame = Frame<4>;
    type Power = Power;
    type Window<'p> = Window<'p, 4>;
    type Narrow = Vl256;
    type Hashes = Multipliers;
    type Turns = ();

    const LANES: usize = 4;

    const SHORT: usize = 6;

    const REGISTERS: usize = 32;

    const ABREAST: usize = 4;

    #[inline(always)]
    fn narrow(self) -> Option<Vl256> {
        self.in_halves.then(|| Vl256::beside(self))
    }

    #[inline(always)]
    fn enter<T: Task>(self, task: T) -> T::Out {
        // SAFETY: `self` is only made by `detect`, which has found every feature that `enter` is compiled for.
        unsafe { ops::enter(self, task) }
    }

    forward_all!();
}

/// The operations, compiled for the instruction set.
pub(super) mod ops {
    use std::arch::x86_64::{
        __m128i, __m512i, __mmask8, _bzhi_u64, _mm_bslli_si128, _mm_cvtsi32_si128, _mm_cvtsi64_si128,
        _mm_loadu_si128, _mm_or_si128, _mm_set_epi8, _mm_set_epi64x, _mm_shuffle_epi8, _mm_xor_si128,
        _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_storeu_si256, _mm256_xor_si256,
        _mm512_add_epi32, _mm512_aesenc_epi128, _mm512_aesenclast_epi128, _mm512_broadcast_i32x4,
        _mm512_castsi128_si512, _mm512_castsi512_si256, _mm512_clmulepi64_epi128, _mm512_cmpeq_epi8_mask,
        _mm512_extracti64x4_epi64, _mm512_inserti32x4, _mm512_loadu_si512, _mm512_mask_broadcast_i32x4,
        _mm512_mask_loadu_epi8, _mm512_mask_mov_epi8, _mm512_mask_set1_epi64, _mm512_mask_storeu_epi8,
        _mm512_maskz_loadu_epi8, _mm512_rol_epi32, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set4_epi32,
        _mm512_setr_epi32, _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_shuffle_epi32,
        _mm512_shuffle_i32x4, _mm512_storeu_si512, _mm512_ternarylogic_epi64, _mm512_unpackhi_epi32,
        _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64, _mm512_xor_si512,
    };

    pub(super) use super::super::masked::{icv, icv_matches, put_icv, wipe};
    use super::{Frame, PacketClass, Power, Sum, Task, Vaes512};
    use crate::kernel::gcm::POLYNOMIAL_HIGH;
    use crate::kernel::isa::pin;
    use crate::key::POWERS;

    type V = __m512i;

    type Window<'p> = super::Window<'p, 4>;

    #[target_feature(
        enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2,bmi2,aes,pclmulqdq,vaes,vpclmulqdq"
    )]
    #[inline(never)]
    pub(super) fn enter<T: Task>(isa: Vaes512, task: T) -> T::Out {
        task.run(isa)
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    pub(in super::super) fn equal(octets: &[u8; 64], octet: u8) -> u64 {
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
    pub(super) fn sent_start(window: &Window<'_>, round_key: V) -> V {
        let octets = window.before_iv();
        // SAFETY: the packet has 16 octets from there on.
        let block = unsafe { _mm_loadu_si128(octets.cast()) };
        // Of sequence number, IV and what follows, the two words of IV.
        let iv = _mm512_set4_epi32(0, -1, -1, 0);
        _mm512_ternarylogic_epi64::<0x78>(round_key, _mm512_broadcast_i32x4(block), iv)
    }

    #[target_feature(enable = "bmi2")]
    #[inline]
    pub(super) fn frame(form: PacketClass, vectors: usize) -> Frame<4> {
        Frame::new(form, vectors)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn window<'p>(packet: &'p mut [u8], frame: &Frame<4>) -> Window<'p> {
        Window::new(packet, frame)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn pad(window: &Window<'_>) -> usize {
        window.frame.pad
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn counters(window: &Window<'_>, v: usize) -> V {
        let blocks = window.counters(v);
        // SAFETY: the reference covers the 64 octets that are read, and the load needs no alignment.
        unsafe { _mm512_loadu_si512(blocks.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    pub(super) fn load_head(window: &Window<'_>, around: V) -> V {
        // SAFETY: the mask's bits are octets of the text; others are not touched.
        unsafe { _mm512_mask_loadu_epi8(around, window.frame.head, window.first().cast()) }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    pub(super) fn load_sent_head(window: &Window<'_>, around: V) -> V {
        let mask = window.sent_head();
        // SAFETY: the mask's bits are octets of the packet; others are not touched.
        unsafe { _mm512_mask_loadu_epi8(around, mask, window.first().cast()) }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn load_middle(window: &Window<'_>, v: usize) -> V {
        let octets = window.middle(v);
        // SAFETY: all vectors between the first and the last are text throughout.
        unsafe { _mm512_loadu_si512(octets.cast()) }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    pub(super) fn load_tail(window: &Window<'_>, around: V) -> V {
        let octets = window.last();
        // SAFETY: the mask's bits are octets of the text; others are not touched.
        unsafe { _mm512_mask_loadu_epi8(around, window.frame.tail, octets.cast()) }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    pub(super) fn store_head(window: &mut Window<'_>, v: V) {
        // SAFETY: the mask's bits are octets of the text, which the window borrows; others are not touched.
        unsafe { _mm512_mask_storeu_epi8(window.first().cast(), window.frame.head, v) }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn store_middle(window: &mut Window<'_>, v: usize, data: V) {
        let octets = window.middle(v);
        // SAFETY: all vectors between the first and the last are text throughout, which the window borrows.
        unsafe { _mm512_storeu_si512(octets.cast(), data) }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    pub(super) fn store_tail(window: &mut Window<'_>, v: V) {
        let octets = window.last();
        // SAFETY: the mask's bits are octets of the text, which the window borrows; others are not touched.
        unsafe { _mm512_mask_storeu_epi8(octets.cast(), window.frame.tail, v) }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    pub(super) fn select_head(window: &Window<'_>, inside: V, around: V) -> V {
        _mm512_mask_mov_epi8(around, window.frame.head, inside)
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    pub(super) fn select_tail(window: &Window<'_>, inside: V, around: V) -> V {
        _mm512_mask_mov_epi8(around, window.frame.tail, inside)
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

    pub(super) use super::super::blocks::{block_of, load_block as block, octets};

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
    #[target_feature(enable = "avx512f")]
    #[inline]
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
        let (ab_low, ab_high) = (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0xee>(a, b));
        let (cd_low, cd_high) = (_mm512_shuffle_i32x4::<0x44>(c, d), _mm512_shuffle_i32x4::<0xee>(c, d));
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
        let (mut front, half) = ([[0; 16]; 2], _mm512_castsi512_si256(v));
        // SAFETY: the array has the 32 octets that are written, and the store needs no alignment.
        unsafe { _mm256_storeu_si256(front.as_mut_ptr().cast(), half) };
        front
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn add_whole(text: &mut [u8], v: V) {
        let at: *mut __m512i = text[..64].as_mut_ptr().cast();
        // SAFETY: the slice has the 64 octets that are read, and the load needs no alignment.
        let before = unsafe { _mm512_loadu_si512(at) };
        let after = xor(before, v);
        // SAFETY: the slice has the 64 octets that are written, and the store needs no alignment.
        unsafe { _mm512_storeu_si512(at, after) };
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
        let after = xor(before, v);
        // SAFETY: as above.
        unsafe { _mm512_mask_storeu_epi8(at, mask, after) };
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn no_sum() -> Sum {
        Sum { low: zero(), mid: zero(), high: zero() }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn pin(v: V, sum: Sum) -> (V, Sum) {
        let (mut v, Sum { mut low, mut mid, mut high }) = (v, sum);
        pin!(zmm_reg: v, low, mid, high);
        (v, Sum { low, mid, high })
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn pin_lanes(mut v: V, mut lanes: V) -> (V, V) {
        pin!(zmm_reg: v, lanes);
        (v, lanes)
    }

    #[target_feature(enable = "avx512f,vpclmulqdq")]
    #[inline]
    pub(super) fn mul_add(sum: Sum, x: V, power: Power) -> Sum {
        Sum {
            low: xor(sum.low, _mm512_clmulepi64_epi128::<0x00>(x, power.whole)),
            mid: xor(sum.mid, _mm512_clmulepi64_epi128::<0x00>(folded(x), power.folded)),
            high: xor(sum.high, _mm512_clmulepi64_epi128::<0x11>(x, power.whole)),
        }
    }

    /// In each half of a lane the sum of both halves.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn folded(v: V) -> V {
        xor(v, _mm512_shuffle_epi32::<0x4e>(v))
    }

    /// Folds the low column into the middle one, and that into the high one, by the field's polynomial.
    #[target_feature(enable = "avx512f,vpclmulqdq")]
    #[inline]
    pub(super) fn reduce(sum: Sum) -> V {
        let polynomial = _mm512_broadcast_i32x4(_mm_set_epi64x(POLYNOMIAL_HIGH.cast_signed(), 1));
        let folded = _mm512_clmulepi64_epi128::<0x01>(polynomial, sum.low);
        let mid = xor(sum.mid, xor(sum.low, sum.high));
        let mid = xor(xor(mid, _mm512_shuffle_epi32::<0x4e>(sum.low)), folded);
        let folded = _mm512_clmulepi64_epi128::<0x01>(polynomial, mid);
        xor(xor(sum.high, _mm512_shuffle_epi32::<0x4e>(mid)), folded)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn power(v: V) -> Power {
        Power { whole: v, folded: folded(v) }
    }

    /// Lanes are hashed apart until the last batch, so every lane has the same power.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn stride_power(powers: &[[u8; 16]; POWERS], k: usize) -> Power {
        power(broadcast(&powers[POWERS - 4 * k]))
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn last_power(powers: &[[u8; 16]; POWERS], k: usize) -> Power {
        let powers: &[[u8; 16]; 4] = powers[POWERS - 4 * k..].first_chunk().expect("k is 1 to 4");
        // SAFETY: the reference covers the 64 octets that are read, and the load needs no alignment.
        power(unsafe { _mm512_loadu_si512(powers.as_ptr().cast()) })
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vpclmulqdq")]
    #[inline]
    pub(super) fn tag(lanes: V, mask: __m128i) -> __m128i {
        _mm_xor_si128(_mm_shuffle_epi8(sum_lanes(lanes), reversal()), mask)
    }

    /// Lanes are loads: shuffles would wait for the port of the products.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vpclmulqdq")]
    #[inline]
    pub(super) fn tag_beside(frame: &Frame<4>, lanes: &V, stream: &V) -> __m128i {
        let lane = |v: &V, lane: usize| {
            let block = (&raw const *v).cast::<__m128i>().wrapping_add(lane & 3);
            // SAFETY: the reference covers four blocks, of which one is read.
            unsafe { _mm_loadu_si128(block) }
        };
        let halves =
            [_mm_xor_si128(lane(lanes, 0), lane(lanes, 1)), _mm_xor_si128(lane(lanes, 2), lane(lanes, 3))];
        let digest = _mm_shuffle_epi8(_mm_xor_si128(halves[0], halves[1]), reversal());
        _mm_xor_si128(digest, lane(stream, frame.pad))
    }

    #[target_feature(enable = "avx512f,avx512vl")]
    #[inline]
    fn sum_lanes(v: V) -> __m128i {
        let halves = _mm256_xor_si256(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64::<1>(v));
        _mm_xor_si128(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves))
    }
}
