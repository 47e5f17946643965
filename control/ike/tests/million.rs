//! A million datagrams that are nothing, or nearly something: in a process of its own, so that its memory is theirs.

use pollux_ike::config::Limits;
use pollux_ike::crypto::Rng;
use pollux_ike::endpoint::Transmit;
use pollux_pair::{Pair, Seeded, config};

const DATAGRAMS: u32 = 1_000_000;
/// After so many everything has been allocated that there is to allocate.
const WARM: u32 = 100_000;
/// Growth from there to the end that is the allocator's business: a leak of nine octets a datagram is more.
const SLACK_KIB: u64 = 8 * 1024;

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn a_million_random_and_mutated_datagrams_leave_state_and_memory_as_they_were() {
    let mut pair = Pair::new(config("a"), config("b"));
    pair.initiate(0);
    pair.run(2_000);
    let sent = pair.sent.clone();
    let mut chance = Seeded::new(99);
    let mut draw = || {
        let mut octets = [0; 8];
        chance.fill(&mut octets);
        u64::from_be_bytes(octets)
    };
    let mut warm_kib = 0;
    for n in 0..DATAGRAMS {
        let (end, transmit) = &sent[usize::try_from(draw()).unwrap_or(0) % sent.len()];
        let mut bytes = transmit.bytes.clone();
        if n % 4 == 0 {
            bytes = (0..draw() % 300).map(|_| draw().to_be_bytes()[0]).collect();
        } else {
            for _ in 0..=draw() % 6 {
                let at = usize::try_from(draw()).unwrap_or(0) % bytes.len();
                bytes[at] = draw().to_be_bytes()[1];
            }
        }
        pair.deliver(1 - end, &Transmit { bytes, ..transmit.clone() });
        pair.sent.truncate(sent.len());
        pair.events.clear();
        pair.clear_network();
        if n == WARM {
            warm_kib = resident_kib();
        }
    }
    let grown_kib = resident_kib().saturating_sub(warm_kib);
    assert!(grown_kib < SLACK_KIB, "{grown_kib} KiB more than after {WARM} datagrams");
    let limits = Limits::default();
    for end in 0..2 {
        assert!(pair.state_len(end) <= 1 + limits.half_open_per_source as usize);
        assert_eq!((pair.children(end).len(), pair.tables[end].len()), (1, 2));
    }
}
