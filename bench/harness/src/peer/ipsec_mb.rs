//! Intel's multi-buffer library, by its direct calls, which beat its job interface at these sizes.
#![allow(unsafe_code, reason = "a C library")]

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;

use pollux_aead::Suite;

use super::{Contender, ICV_LEN, KEY, Pool, TEXT_AT, nonce};

/// The library's functions for one instruction set.
#[repr(C)]
struct Manager {
    opaque: [u8; 0],
}

type Gcm = unsafe extern "C" fn(
    key: *const c_void,
    context: *mut c_void,
    out: *mut u8,
    text: *const u8,
    len: u64,
    iv: *const u8,
    aad: *const u8,
    aad_len: u64,
    tag: *mut u8,
    tag_len: u64,
);

unsafe extern "C" {
    fn pollux_imb_new(arch: c_int) -> Option<NonNull<Manager>>;
    safe fn pollux_imb_key_size() -> usize;
    fn pollux_imb_gcm_pre(manager: *const Manager, key: *const u8, key_len: usize, out: *mut c_void);
    fn pollux_imb_gcm(manager: *const Manager, key_len: usize, direction: c_int) -> Gcm;
    fn pollux_imb_chacha(
        manager: *const Manager,
        direction: c_int,
        key: *const u8,
        nonce: *const u8,
        aad: *const u8,
        aad_len: usize,
        text: *mut u8,
        len: usize,
        tag: *mut u8,
    );
}

/// Room for the library's largest key context (its header says how much it uses).
#[repr(C, align(64))]
#[derive(Clone)]
struct KeyData([u8; 1536]);

/// Room for a context of a message under way, 88 octets in the library's header.
#[repr(C, align(64))]
struct Message([u8; 256]);

/// The library on one instruction set, with its keys.
pub struct IpsecMb {
    name: &'static str,
    manager: NonNull<Manager>,
    suite: Suite,
    keys: Vec<KeyData>,
    seal: Gcm,
    open: Gcm,
}

/// Which code of the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// AES-NI and SSE.
    Sse,
    /// AES-NI and AVX2.
    Avx2,
    /// AVX-512, with VAES where the CPU has it.
    Avx512,
}

impl IpsecMb {
    /// With so many contexts; `None` where the CPU cannot.
    pub fn new(arch: Arch, suite: Suite, contexts: usize) -> Option<Self> {
        let (name, number, runs) = match arch {
            Arch::Sse => ("ipsec-mb sse", 0, true),
            Arch::Avx2 => ("ipsec-mb avx2", 2, std::arch::is_x86_feature_detected!("avx2")),
            Arch::Avx512 => ("ipsec-mb avx512", 1, std::arch::is_x86_feature_detected!("avx512bw")),
        };
        if !runs {
            return None;
        }
        // SAFETY: the number is one that the bridge knows; it checks allocation and the library's own errors.
        let manager = unsafe { pollux_imb_new(number) }?;
        if pollux_imb_key_size() > size_of::<KeyData>() {
            return None;
        }
        let mut key = KeyData([0; 1536]);
        let key_len = suite.key_len();
        // SAFETY: the manager is live; the key has 32 octets, as many as any length asked for; the context has
        // the size just checked and the alignment of the library's type.
        unsafe { pollux_imb_gcm_pre(manager.as_ptr(), KEY.as_ptr(), key_len, key.0.as_mut_ptr().cast()) };
        // SAFETY: the manager is live, and the bridge maps any key length to one of its two functions.
        let seal = unsafe { pollux_imb_gcm(manager.as_ptr(), key_len, 0) };
        // SAFETY: as above.
        let open = unsafe { pollux_imb_gcm(manager.as_ptr(), key_len, 1) };
        Some(Self { name, manager, suite, keys: vec![key; contexts], seal, open })
    }

    #[inline]
    fn gcm(&self, call: Gcm, i: usize, sa: u32, packet: &mut [u8]) -> [u8; 16] {
        let key = &self.keys[sa as usize];
        let mut message = Message([0; 256]);
        let mut tag = [0; 16];
        let nonce = nonce(i);
        let (head, text) = packet.split_at_mut(TEXT_AT);
        let len = text.len() - ICV_LEN;
        let at = text.as_mut_ptr();
        // SAFETY: key and message contexts are as large and aligned as the library's types; `at` has `len` octets
        // for reading and writing, the nonce 12, the AAD 8, the tag 16; the function is for this CPU.
        unsafe {
            call(
                key.0.as_ptr().cast(),
                message.0.as_mut_ptr().cast(),
                at,
                at,
                len as u64,
                nonce.as_ptr(),
                head.as_ptr(),
                8,
                tag.as_mut_ptr(),
                16,
            );
        }
        tag
    }

    #[inline]
    fn chacha(&self, direction: c_int, i: usize, sa: u32, packet: &mut [u8]) -> [u8; 16] {
        // The library expands nothing of a ChaCha20 key; the context stands for the memory of an SA.
        let key = &self.keys[sa as usize].0;
        let mut tag = [0; 16];
        let nonce = nonce(i);
        let (head, text) = packet.split_at_mut(TEXT_AT);
        let len = text.len() - ICV_LEN;
        // SAFETY: the manager is live; key and nonce are long enough, the AAD has 8 octets, the text `len` for
        // reading and writing, the tag 16.
        unsafe {
            pollux_imb_chacha(
                self.manager.as_ptr(),
                direction,
                key.as_ptr(),
                nonce.as_ptr(),
                head.as_ptr(),
                8,
                text.as_mut_ptr(),
                len,
                tag.as_mut_ptr(),
            );
        }
        tag
    }

    #[inline]
    fn run(&self, direction: c_int, i: usize, sa: u32, packet: &mut [u8]) -> [u8; 16] {
        match self.suite {
            Suite::ChaCha20Poly1305 => self.chacha(direction, i, sa, packet),
            _ => self.gcm(if direction == 0 { self.seal } else { self.open }, i, sa, packet),
        }
    }
}

impl Contender for IpsecMb {
    fn name(&self) -> &'static str {
        self.name
    }

    fn seal(&mut self, pool: &mut Pool, sas: &[u32]) {
        pool.each(|i, packet| {
            packet[8..16].copy_from_slice(&(i as u64).to_be_bytes());
            let tag = self.run(0, i, sas[i], packet);
            let at = packet.len() - ICV_LEN;
            packet[at..].copy_from_slice(&tag);
        });
    }

    fn open(&mut self, pool: &mut Pool, sas: &[u32]) -> usize {
        let mut authentic = 0;
        pool.each(|i, packet| {
            let tag = self.run(1, i, sas[i], packet);
            authentic += usize::from(packet[packet.len() - ICV_LEN..] == tag);
        });
        authentic
    }
}
