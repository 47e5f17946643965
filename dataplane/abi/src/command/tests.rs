use core::net::{IpAddr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::dscp::Dscp;
use crate::selector::{PortRange, TrafficSelector};

fn largest_spec() -> SaSpec {
    let v6: IpAddr = Ipv6Addr::LOCALHOST.into();
    let mut selector = TrafficSelector::any_v6();
    selector.protocol = Some(17);
    selector.ports = PortRange { first: 16_384, last: 32_767 };
    let selectors = Selectors::new(&[selector; crate::layout::SELECTORS_MAX]).expect("as many as fit");
    SaSpec {
        id: SaId(7),
        direction: Direction::Inbound,
        index: SaIndex(3),
        spi: Spi::new(0xc000_0101).expect("not reserved"),
        suite: EspSuite::Aes256CbcSha512,
        esn: true,
        window_packets: 1024,
        local: v6,
        remote: v6,
        encap: Some(EncapPorts { local: 4500, remote: 61_000 }),
        reqid: Reqid(9),
        owner: WorkerId(1),
        dscp: DscpMark::Fixed(Dscp::EF),
        ecn: EcnMode::Off,
        df: DfMark::Clear,
        lifetimes: Lifetimes {
            soft_bytes: 1,
            hard_bytes: 2,
            soft_packets: 3,
            hard_packets: 4,
            soft_age: 5,
            hard_age: 6,
        },
        seq_start: 5,
        iv_start: 6,
        checkpoint: Some(8),
        local_ts: selectors,
        remote_ts: selectors,
    }
}

#[test]
fn largest_sa_survives_the_slot() {
    let key = KeyMaterial::new(&[0x5a; 96]).expect("fits");
    let slot = Command::SaAdd(largest_spec(), key).encode(Ticket(42));
    let (ticket, command) = Command::decode(&slot);
    assert_eq!(ticket, Ticket(42));
    let Ok(Command::SaAdd(spec, key)) = command else { panic!("decoded to {command:?}") };
    assert_eq!(spec, largest_spec());
    assert_eq!(key.as_bytes(), &[0x5a; 96]);
}

#[test]
fn only_a_replacement_may_come_without_keys() {
    let (_, command) = Command::decode(&Command::SaReplace(largest_spec(), None).encode(Ticket(1)));
    let command = command.expect("sound");
    assert!(!command.has_keys());
    assert!(matches!(command, Command::SaReplace(spec, None) if spec == largest_spec()));
    let none = KeyMaterial::new(&[]).expect("fits");
    let (_, command) = Command::decode(&Command::SaAdd(largest_spec(), none).encode(Ticket(1)));
    assert_eq!(command.err(), Some(CommandError::KeyLength));
}

#[test]
fn wrong_fields_are_refused_one_by_one() {
    let refuse = |change: fn(&mut SaSpec), want: CommandError| {
        let mut spec = largest_spec();
        change(&mut spec);
        let key = KeyMaterial::new(&[1; 96]).expect("fits");
        let (_, result) = Command::decode(&Command::SaAdd(spec, key).encode(Ticket(1)));
        assert_eq!(result.err(), Some(want));
    };
    refuse(|s| s.id = SaId(0), CommandError::Field);
    refuse(|s| s.suite = EspSuite::Aes128Gcm16, CommandError::KeyLength);
    refuse(|s| s.window_packets = 31, CommandError::Field);
    refuse(|s| (s.window_packets, s.esn) = (0, true), CommandError::Field);
    refuse(|s| s.window_packets = 65_537, CommandError::Field);
    refuse(|s| s.owner = WorkerId(crate::layout::WORKERS_MAX), CommandError::Field);
    refuse(|s| s.local_ts = Selectors::default(), CommandError::Field);
    refuse(|s| s.remote = IpAddr::from([192, 0, 2, 1]), CommandError::Field);
    refuse(|s| s.encap = Some(EncapPorts { local: 0, remote: 1 }), CommandError::Field);
    refuse(
        |s| {
            s.direction = Direction::Outbound;
            s.seq_start = 0;
        },
        CommandError::Field,
    );
}

#[test]
fn policies_and_small_commands_survive_the_slot() {
    let policy = PolicySpec {
        id: PolicyId(3),
        direction: Direction::Outbound,
        selectors: SelectorPair { local: TrafficSelector::any_v4(), remote: TrafficSelector::any_v4() },
        action: PolicyAction::Protect(Reqid(11)),
    };
    let (_, decoded) = Command::decode(&Command::PolicyAdd(policy).encode(Ticket(2)));
    assert!(matches!(decoded, Ok(Command::PolicyAdd(got)) if got == policy));
    let (_, decoded) = Command::decode(&Command::SaDelete(SaId(5)).encode(Ticket(2)));
    assert!(matches!(decoded, Ok(Command::SaDelete(SaId(5)))));
    assert!(matches!(Command::decode(&CommandSlot::zeroed()).1, Err(CommandError::Kind)));
}

proptest! {
    #[test]
    fn random_slots_never_panic(bytes in proptest::collection::vec(any::<u8>(), COMMAND_SLOT_LEN), kind in 0u16..12) {
        let mut slot = CommandSlot::zeroed();
        slot.bytes.copy_from_slice(&bytes);
        slot.bytes[8..10].copy_from_slice(&kind.to_le_bytes());
        let _ = Command::decode(&slot);
    }

    /// One flipped octet decodes to something valid or to an error, and never panics.
    #[test]
    fn damaged_slots_never_panic(at in 0usize..COMMAND_SLOT_LEN, value: u8) {
        let key = KeyMaterial::new(&[1; 96]).expect("fits");
        let mut slot = Command::SaAdd(largest_spec(), key).encode(Ticket(1));
        slot.bytes[at] = value;
        let _ = Command::decode(&slot);
    }
}
