//! Bursts as a hostile sender makes them: true packets cut, stretched and bent, any lengths, any suites. Every kernel
//! must come to the portable path's verdict and leave the same octets.

#[path = "../../../tests/fuzz/harness.rs"]
mod harness;
mod oracle;

use harness::{Random, fuzz, mutate};
use oracle::Material;
use pollux_aead::{Engine, Key, OpenJob, OpenVerdict, SealJob, Suite};

/// Rounds of an ordinary test run: about a second.
const ROUNDS: u64 = 1_500;

/// A sealed packet, or what became of one on a bad way.
fn packet(material: &Material, key: &Key, random: &mut Random) -> Vec<u8> {
    let blocks = if random.once_in(8) { random.below(400) } else { random.below(60) } + 1;
    let mut packet = random.octets(material.packet_len(blocks * material.suite.block_len()));
    let iv = random.next();
    Engine::portable().seal_burst(&mut [SealJob { key, packet: &mut packet, seq_high: 0, iv }]);
    match random.below(4) {
        0 => {}
        1 => mutate(&mut packet, random),
        2 => packet.truncate(random.below(packet.len())),
        _ => {
            let len = random.below(200);
            packet = random.octets(len);
        }
    }
    packet
}

fn open(engine: Engine, keys: &[Key], packets: &mut [(usize, Vec<u8>)]) -> Vec<OpenVerdict> {
    let mut jobs: Vec<_> =
        packets.iter_mut().map(|(sa, packet)| OpenJob { key: &keys[*sa], packet, seq_high: 0 }).collect();
    let mut verdicts = vec![OpenVerdict::Malformed; jobs.len()];
    engine.open_burst(&mut jobs, &mut verdicts);
    verdicts
}

#[test]
fn fuzz_every_kernel_opens_as_the_portable_path_does() {
    let engines: Vec<_> = Engine::variants().collect();
    let mut authentic = 0;
    fuzz(ROUNDS, |random| {
        let count = random.below(6) + 1;
        let materials: Vec<_> = (0..count)
            .map(|_| Material::new(*random.pick(&Suite::ALL), random.once_in(2), random.next()))
            .collect();
        let portable: Vec<_> = materials.iter().map(|material| material.key(Engine::portable())).collect();
        let burst: Vec<_> = (0..=random.below(64))
            .map(|_| {
                let sa = random.below(count);
                (sa, packet(&materials[sa], &portable[sa], random))
            })
            .collect();
        let mut expected = burst.clone();
        let verdicts = open(Engine::portable(), &portable, &mut expected);
        authentic += verdicts.iter().filter(|&&verdict| verdict == OpenVerdict::Authentic).count();
        for &engine in &engines {
            let keys: Vec<_> = materials.iter().map(|material| material.key(engine)).collect();
            let mut opened = burst.clone();
            assert_eq!(open(engine, &keys, &mut opened), verdicts, "{}", engine.name());
            assert!(opened == expected, "{} leaves other octets", engine.name());
        }
    });
    assert!(authentic > 0, "some packets are left as they were");
}
