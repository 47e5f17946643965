//! Nothing outside of a packet is read or written: packets lie against pages that nobody may touch.
#![allow(unsafe_code, reason = "pages without rights can only be mapped by hand")]

mod oracle;

use std::ptr::null_mut;

use oracle::{Material, Octets};
use pollux_aead::{Engine, OpenJob, OpenVerdict, SealJob, Suite};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect};

const PAGE: usize = 4096;

/// Room for a jumbo frame between two pages without rights.
const ROOM: usize = 3 * PAGE;

/// A mapping that faults on both sides; it lives as long as the process.
fn guarded() -> &'static mut [u8] {
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing that exists.
    let start = unsafe { mmap_anonymous(null_mut(), ROOM + 2 * PAGE, ProtFlags::empty(), MapFlags::PRIVATE) }
        .expect("address space for six pages");
    // SAFETY: one page inside the mapping that was just made.
    let room = unsafe { start.byte_add(PAGE) };
    // SAFETY: the pages lie inside the mapping, and nobody refers to them yet.
    unsafe { mprotect(room, ROOM, MprotectFlags::READ | MprotectFlags::WRITE) }.expect("rights on own pages");
    // SAFETY: readable and writable, zeroed by the kernel, never unmapped, and referred to only by this slice.
    unsafe { std::slice::from_raw_parts_mut(room.cast(), ROOM) }
}

#[test]
fn packets_at_the_edge_of_a_page_stay_inside_of_it() {
    let room = guarded();
    for engine in Engine::variants() {
        for suite in Suite::ALL {
            let lens =
                (1..100).chain([150, 230, 256, 300, 352, 355, 356, 375, 500, 1024, 2250]).map(|n| 4 * n);
            for text_len in lens.filter(|len: &usize| len.is_multiple_of(suite.block_len())) {
                let material = Material::new(suite, text_len % 8 == 0, 11);
                let key = material.key(engine);
                let len = material.packet_len(text_len);
                let mut expected = Octets(text_len as u64).take(len);
                let plain = expected.clone();
                material.seal(&mut expected, 3, 4);
                // Against the page behind, against the page before, and with both a little away.
                for at in [ROOM - len, 0, 2] {
                    room[at..at + len].copy_from_slice(&plain);
                    let packet = &mut room[at..at + len];
                    engine.seal_burst(&mut [SealJob { key: &key, packet, seq_high: 3, iv: 4 }]);
                    assert!(room[at..at + len] == expected, "{} {suite} {text_len}", engine.name());
                    let mut verdicts = [OpenVerdict::Malformed];
                    let packet = &mut room[at..at + len];
                    engine.open_burst(&mut [OpenJob { key: &key, packet, seq_high: 3 }], &mut verdicts);
                    assert_eq!(verdicts, [OpenVerdict::Authentic], "{} {suite} {text_len}", engine.name());
                }
            }
        }
    }
}

#[test]
fn bursts_at_the_edge_of_a_page_stay_inside_of_it() {
    let rooms: Vec<_> = (0..8).map(|_| guarded()).collect();
    let mut rooms = rooms;
    for engine in Engine::variants() {
        for suite in [Suite::Aes128Gcm16, Suite::Aes256Gcm8, Suite::Aes128Gcm16Iiv, Suite::ChaCha20Poly1305] {
            let material = Material::new(suite, false, 12);
            let key = material.key(engine);
            for text_len in (1..70).map(|n| 4 * n) {
                let len = material.packet_len(text_len);
                for behind in [true, false] {
                    let at = if behind { ROOM - len } else { 0 };
                    let packets = rooms.iter_mut().map(|room| &mut room[at..at + len]);
                    let mut jobs: Vec<_> =
                        packets.map(|packet| SealJob { key: &key, packet, seq_high: 0, iv: 9 }).collect();
                    engine.seal_burst(&mut jobs);
                    let packets = rooms.iter_mut().map(|room| &mut room[at..at + len]);
                    let mut jobs: Vec<_> =
                        packets.map(|packet| OpenJob { key: &key, packet, seq_high: 0 }).collect();
                    let mut verdicts = [OpenVerdict::Malformed; 8];
                    engine.open_burst(&mut jobs, &mut verdicts);
                    assert_eq!(verdicts, [OpenVerdict::Authentic; 8], "{} {suite} {text_len}", engine.name());
                }
            }
        }
    }
}

#[test]
fn texts_of_any_length_at_the_edge_of_a_page_stay_inside_of_it() {
    let room = guarded();
    for engine in Engine::variants() {
        for suite in [Suite::Aes128Gcm16, Suite::Aes192Gcm16, Suite::Aes256Gcm16, Suite::ChaCha20Poly1305] {
            let material = Material::new(suite, false, 13);
            let key = material.key(engine);
            for len in 0..460 {
                for at in [ROOM - len, 0] {
                    let tag = key.seal_detached(&[1; 12], &[2; 20], &mut room[at..at + len]);
                    let tag = tag.expect("a combined mode");
                    let verdict = key.open_detached(&[1; 12], &[2; 20], &mut room[at..at + len], &tag);
                    assert_eq!(verdict, Some(OpenVerdict::Authentic), "{} {suite} {len}", engine.name());
                }
            }
        }
    }
}
