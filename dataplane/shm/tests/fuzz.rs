//! A control process that writes whatever it likes into the shared memory, while the data plane reads.

#[path = "../../../tests/fuzz/harness.rs"]
mod harness;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

use harness::{Random, fuzz};
use pollux_abi::layout::{COMMAND_SLOT_LEN, RING_SLOTS};
use pollux_abi::{Command, CommandError, Event, SaId, Ticket};
use pollux_shm::{RingError, SharedRings};
use zerocopy::IntoBytes;

/// Rounds of an ordinary test run, fresh memory each: about a second.
const ROUNDS: u64 = 300;
const STEPS: usize = 64;

// Where things lie in the memory, as the essay of `spsc` draws it.
const RING_AT: u64 = 4096;
const PRODUCER_AT: u64 = 0;
const CONSUMER_AT: u64 = 128;
const SLEEPING_AT: u64 = 256;
const SLOTS_AT: u64 = 512;
const EVENTS_AT: u64 = RING_AT + SLOTS_AT + COMMAND_SLOT_LEN as u64 * RING_SLOTS as u64;

/// The memory as the other process has it: a descriptor of its own to the same file.
fn peer_memory(before: &[String]) -> File {
    let fresh = memory_files().into_iter().find(|path| !before.contains(path));
    let path = fresh.expect("the rings' memory file is among this process's descriptors");
    OpenOptions::new().read(true).write(true).open(path).expect("a memory file can be opened again")
}

fn memory_files() -> Vec<String> {
    let list = std::fs::read_dir("/proc/self/fd").expect("/proc is mounted");
    let paths = list.map(|entry| entry.expect("an entry").path());
    paths
        .filter(|path| std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy().contains("pollux-rings")))
        .map(|path| path.to_string_lossy().into_owned())
        .collect()
}

/// One thing that a hostile process might write. `published` is how far it pretends to have come.
fn write_something(memory: &File, published: &mut u32, random: &mut Random) {
    let put = |at: u64, octets: &[u8]| memory.write_all_at(octets, at).expect("inside the file");
    let slot = |random: &mut Random| u64::from(*random.pick(&[0, 1, 2, RING_SLOTS - 1]));
    match random.below(8) {
        0 => put(RING_AT + PRODUCER_AT, &random.next().to_ne_bytes()[..4]),
        1 => put(RING_AT + CONSUMER_AT, &random.next().to_ne_bytes()[..4]),
        2 => put(RING_AT + SLEEPING_AT, &random.next().to_ne_bytes()[..4]),
        3 => put(EVENTS_AT + CONSUMER_AT, &random.next().to_ne_bytes()[..4]),
        4 => {
            let at = RING_AT + SLOTS_AT + slot(random) * COMMAND_SLOT_LEN as u64;
            put(at, &random.octets(COMMAND_SLOT_LEN));
        }
        5 => {
            let good = Command::SaDelete(SaId(random.next())).encode(Ticket(random.next()));
            put(RING_AT + SLOTS_AT + slot(random) * COMMAND_SLOT_LEN as u64, good.as_bytes());
        }
        _ => {
            *published = published.wrapping_add(u32::from(random.octet() & 3));
            put(RING_AT + PRODUCER_AT, &published.to_ne_bytes());
        }
    }
}

#[test]
fn fuzz_rings_under_a_hostile_peer() {
    let (mut read, mut broken) = (0_u64, 0_u64);
    let rounds = fuzz(ROUNDS, |random| {
        let before = memory_files();
        let mut shared = SharedRings::create(1).expect("rings");
        let memory = peer_memory(&before);
        let mut published = 0;
        for _ in 0..STEPS {
            write_something(&memory, &mut published, random);
            let ring = &mut shared.rings[0];
            let mut slots = 0;
            loop {
                match ring.commands.read() {
                    Ok(Some(slot)) => {
                        slots += 1;
                        assert!(slots <= RING_SLOTS, "more slots at once than the ring has");
                        read += 1;
                        if let (_, Err(error)) = Command::decode(&slot) {
                            assert!(CommandError::from_code(error.code()).is_some());
                        }
                    }
                    Ok(None) => break,
                    Err(_) => {
                        broken += 1;
                        break;
                    }
                }
            }
            match ring.events.write(&Event::FirstPacket { sa: SaId(1) }.encode()) {
                Ok(()) | Err(RingError::Full | RingError::Broken(_)) => {}
            }
            if ring.commands.prepare_sleep() {
                ring.commands.awake();
            }
        }
        let other = &mut shared.rings[1];
        assert!(
            other.commands.read().is_ok_and(|slot| slot.is_none()),
            "the housekeeper's ring is untouched"
        );
        assert!(other.events.write(&Event::FirstPacket { sa: SaId(1) }.encode()).is_ok());
    });
    assert!(
        rounds < ROUNDS || read > rounds && broken > rounds / 10,
        "{read}, {broken}: the harness is blunt"
    );
}
