//! Every engine of this CPU against the RustCrypto crates: lengths, alignments, bursts, mixed keys and suites.

mod oracle;

use oracle::{Material, Octets};
use pollux_aead::{Engine, Key, OpenJob, OpenVerdict, SealJob, Suite};
use proptest::prelude::*;

const GCM: [Suite; 3] = [Suite::Aes128Gcm16, Suite::Aes192Gcm16, Suite::Aes256Gcm16];

/// One call outside of ESP, both ways, against the oracle.
fn detached(engine: Engine, suite: Suite, len: usize, aad_len: usize) {
    let material = Material::new(suite, false, len as u64);
    let key = material.key(engine);
    let mut octets = Octets(len as u64);
    let nonce: [u8; 12] = octets.take(12).try_into().expect("12 octets");
    let (aad, plain) = (octets.take(aad_len), octets.take(len));
    let mut expected = plain.clone();
    let expected_tag = material.aead(&nonce, &aad, &mut expected);
    let mut text = plain.clone();
    let tag = key.seal_detached(&nonce, &aad, &mut text);
    let case = format!("{} {suite}, {len} octets, AAD of {aad_len}", engine.name());
    assert!(text == expected, "ciphertext: {case}");
    assert_eq!(tag, Some(expected_tag), "tag: {case}");
    assert_eq!(
        key.open_detached(&nonce, &aad, &mut text, &expected_tag),
        Some(OpenVerdict::Authentic),
        "{case}"
    );
    assert!(text == plain, "plaintext: {case}");
}

#[test]
fn every_length_up_to_many_batches_agrees_with_the_oracle() {
    for engine in Engine::variants() {
        for len in 0..700 {
            for suite in GCM {
                detached(engine, suite, len, 8);
            }
        }
        for len in 0..260 {
            detached(engine, Suite::ChaCha20Poly1305, len, 8);
        }
    }
}

#[test]
fn counters_carry_through_jumbo_frames() {
    for engine in Engine::variants() {
        for len in [4000, 4040, 4048, 4064, 4080, 4096, 8999, 9000, 65_537, 1_100_000] {
            detached(engine, Suite::Aes128Gcm16, len, 12);
            detached(engine, Suite::Aes256Gcm16, len, 12);
            detached(engine, Suite::ChaCha20Poly1305, len, 12);
        }
    }
}

#[test]
fn aad_of_any_length_agrees_with_the_oracle() {
    for engine in Engine::variants() {
        for aad_len in (0..70).chain([1000, 4096]) {
            detached(engine, Suite::Aes128Gcm16, 5 * aad_len % 97, aad_len);
            detached(engine, Suite::ChaCha20Poly1305, 7 * aad_len % 97, aad_len);
        }
    }
}

/// A burst as the data plane makes it: packets in one area at any alignment, several SAs of any suite.
#[derive(Debug)]
struct Burst {
    materials: Vec<Material>,
    /// SA, blocks of text, octets of slack before the packet.
    packets: Vec<(usize, usize, usize)>,
    seed: u64,
}

/// Lengths of media, of small frames, of full ones and of jumbo frames, in octets of text before alignment.
fn text_len() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 1..120_usize, 3 => 120..300_usize, 2 => 300..1500_usize, 1 => 1500..9000_usize]
}

fn burst() -> impl Strategy<Value = Burst> {
    let sa = (0..Suite::ALL.len(), any::<bool>(), any::<u64>(), any::<bool>());
    let packet = (any::<prop::sample::Index>(), text_len(), 0..70_usize);
    // Flows have one SA, or packets of one length, or both, and ways of their own through the kernels.
    let (one_sa, one_len) = (any::<bool>(), any::<bool>());
    let packets = prop::collection::vec(packet, 1..=64);
    (prop::collection::vec(sa, 1..12), packets, any::<u64>(), one_sa, one_len).prop_map(
        |(sas, packets, seed, one_sa, one_len)| {
            let materials: Vec<_> = sas
                .into_iter()
                .map(|(suite, esn, seed, gcm)| {
                    // Half of the SAs have the suites that the kernels are made for.
                    let suite = if gcm { GCM[suite % 3] } else { Suite::ALL[suite] };
                    Material::new(suite, esn, seed)
                })
                .collect();
            let (first_sa, first_len, _) = packets[0];
            let packets = packets
                .into_iter()
                .map(|(sa, len, slack)| {
                    let sa = if one_sa { first_sa } else { sa }.index(materials.len());
                    let len = if one_len { first_len } else { len };
                    (sa, len.next_multiple_of(materials[sa].suite.block_len()), slack)
                })
                .collect();
            Burst { materials, packets, seed }
        },
    )
}

/// What is written in one area must not touch its neighbours: the slack is compared too.
struct Area {
    octets: Vec<u8>,
    /// Start and length of each packet.
    places: Vec<(usize, usize)>,
    seq_high: Vec<u32>,
    ivs: Vec<u64>,
}

impl Area {
    fn new(burst: &Burst) -> Self {
        let mut random = Octets(burst.seed);
        let mut places = Vec::new();
        let mut at = 0;
        for &(sa, text_len, slack) in &burst.packets {
            let len = burst.materials[sa].packet_len(text_len);
            places.push((at + slack, len));
            at += slack + len;
        }
        let octets = random.take(at + 64);
        let seq_high =
            places.iter().map(|_| u32::try_from(random.below(1 << 30)).expect("30 bits")).collect();
        let ivs = places.iter().map(|_| random.next()).collect();
        Self { octets, places, seq_high, ivs }
    }

    /// The packets, apart from each other.
    fn packets(&mut self) -> Vec<&mut [u8]> {
        let mut rest = &mut self.octets[..];
        let mut end = 0;
        let mut packets = Vec::new();
        for &(at, len) in &self.places {
            let (packet, after) = rest.split_at_mut(at - end).1.split_at_mut(len);
            packets.push(packet);
            rest = after;
            end = at + len;
        }
        packets
    }
}

fn seal(engine: Engine, keys: &[Key], burst: &Burst, area: &mut Area) {
    let (seq_high, ivs) = (area.seq_high.clone(), area.ivs.clone());
    let packets = area.packets();
    let mut jobs: Vec<_> = packets
        .into_iter()
        .enumerate()
        .map(|(i, packet)| SealJob {
            key: &keys[burst.packets[i].0],
            packet,
            seq_high: seq_high[i],
            iv: ivs[i],
        })
        .collect();
    engine.seal_burst(&mut jobs);
}

fn open(engine: Engine, keys: &[Key], burst: &Burst, area: &mut Area) -> Vec<OpenVerdict> {
    let seq_high = area.seq_high.clone();
    let packets = area.packets();
    let mut jobs: Vec<_> = packets
        .into_iter()
        .enumerate()
        .map(|(i, packet)| OpenJob { key: &keys[burst.packets[i].0], packet, seq_high: seq_high[i] })
        .collect();
    let mut verdicts = vec![OpenVerdict::Malformed; jobs.len()];
    engine.open_burst(&mut jobs, &mut verdicts);
    verdicts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn bursts_of_any_mix_agree_with_the_oracle(burst in burst(), broken in any::<u64>()) {
        let plain = Area::new(&burst);
        let mut expected = Area::new(&burst);
        let (seq_high, ivs) = (expected.seq_high.clone(), expected.ivs.clone());
        for (i, packet) in expected.packets().into_iter().enumerate() {
            burst.materials[burst.packets[i].0].seal(packet, seq_high[i], ivs[i]);
        }
        for engine in Engine::variants() {
            let keys: Vec<_> = burst.materials.iter().map(|material| material.key(engine)).collect();
            let mut area = Area::new(&burst);
            seal(engine, &keys, &burst, &mut area);
            prop_assert!(area.octets == expected.octets, "{} seals otherwise", engine.name());
            // Some packets are tampered with, each in one bit after the header.
            let mut random = Octets(broken);
            let tampered: Vec<_> = (0..burst.packets.len()).map(|_| random.below(4) == 0).collect();
            for (packet, tampered) in area.packets().into_iter().zip(&tampered) {
                let bit = random.below(8 * packet.len());
                packet[bit / 8] ^= u8::from(*tampered) << (bit % 8);
            }
            let sealed = area.octets.clone();
            let verdicts = open(engine, &keys, &burst, &mut area);
            for (i, &(at, len)) in area.places.iter().enumerate() {
                let suite = burst.materials[burst.packets[i].0].suite;
                let (start, end) = (at + 8 + suite.iv_len(), at + len - suite.icv_len());
                let text = &area.octets[start..end];
                if tampered[i] {
                    prop_assert_eq!(verdicts[i], OpenVerdict::BadIcv, "{} {}", engine.name(), suite);
                    prop_assert!(text.iter().all(|&octet| octet == 0), "{} {} leaves text", engine.name(), suite);
                } else {
                    prop_assert_eq!(verdicts[i], OpenVerdict::Authentic, "{} {}", engine.name(), suite);
                    prop_assert!(text == &plain.octets[start..end], "{} {} opens otherwise", engine.name(), suite);
                }
            }
            // Nothing but the text has changed.
            let mut around = area.octets.clone();
            for (i, &(at, len)) in area.places.iter().enumerate() {
                let suite = burst.materials[burst.packets[i].0].suite;
                let text = at + 8 + suite.iv_len()..at + len - suite.icv_len();
                around[text.clone()].copy_from_slice(&sealed[text]);
            }
            prop_assert!(around == sealed, "{} writes outside of the text", engine.name());
        }
    }
}

#[test]
fn a_key_of_one_engine_works_on_every_other() {
    for maker in Engine::variants() {
        for engine in Engine::variants() {
            for suite in Suite::ALL {
                let material = Material::new(suite, true, 7);
                let key = material.key(maker);
                let mut packet = Octets(3).take(material.packet_len(160));
                let mut expected = packet.clone();
                material.seal(&mut expected, 9, 11);
                engine.seal_burst(&mut [SealJob { key: &key, packet: &mut packet, seq_high: 9, iv: 11 }]);
                assert!(packet == expected, "{suite} of {} on {}", maker.name(), engine.name());
                let mut verdicts = [OpenVerdict::Malformed];
                engine.open_burst(
                    &mut [OpenJob { key: &key, packet: &mut packet, seq_high: 9 }],
                    &mut verdicts,
                );
                assert_eq!(
                    verdicts,
                    [OpenVerdict::Authentic],
                    "{suite} of {} on {}",
                    maker.name(),
                    engine.name()
                );
            }
        }
    }
}

#[test]
fn packets_longer_than_any_frame_agree_with_the_oracle() {
    for engine in Engine::variants() {
        for suite in Suite::ALL {
            for (esn, text_len) in [(false, 10_112), (true, 10_128), (false, 12_000), (false, 70_000)] {
                let material = Material::new(suite, esn, 13);
                let key = material.key(engine);
                let plain = Octets(17).take(material.packet_len(text_len));
                let (mut packet, mut expected) = (plain.clone(), plain);
                material.seal(&mut expected, 9, 11);
                engine.seal_burst(&mut [SealJob { key: &key, packet: &mut packet, seq_high: 9, iv: 11 }]);
                let case = format!("{} {suite}, {text_len} octets, ESN {esn}", engine.name());
                assert!(packet == expected, "{case}");
                let mut verdicts = [OpenVerdict::Malformed];
                let mut jobs = [OpenJob { key: &key, packet: &mut packet, seq_high: 9 }];
                engine.open_burst(&mut jobs, &mut verdicts);
                assert_eq!(verdicts, [OpenVerdict::Authentic], "{case}");
            }
        }
    }
}

#[test]
fn packets_that_cannot_be_esp_are_malformed_and_untouched() {
    for engine in Engine::variants() {
        for suite in Suite::ALL {
            let material = Material::new(suite, false, 1);
            let key = material.key(engine);
            for len in 0..material.packet_len(64) {
                let text_len = len.checked_sub(material.packet_len(0)).unwrap_or(1);
                let well_formed = text_len > 0 && text_len.is_multiple_of(suite.block_len());
                let mut packet = Octets(5).take(len);
                let before = packet.clone();
                let mut verdicts = [OpenVerdict::Authentic];
                engine.open_burst(
                    &mut [OpenJob { key: &key, packet: &mut packet, seq_high: 0 }],
                    &mut verdicts,
                );
                let expected = if well_formed { OpenVerdict::BadIcv } else { OpenVerdict::Malformed };
                assert_eq!(verdicts, [expected], "{} {suite} of {len} octets", engine.name());
                assert!(
                    well_formed || packet == before,
                    "{} {suite} of {len} octets is changed",
                    engine.name()
                );
            }
        }
    }
}
