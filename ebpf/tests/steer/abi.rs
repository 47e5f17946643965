//! C and Rust say the same.

use pollux_abi::{SaIndex, Spi};
use pollux_ebpf::{
    ABI_VERSION, CLASS_WIDE, IPV6_HEADERS_MAX, LOCAL_INSIDE, PORT_SLOTS, QUEUES_PER_PORT, Role, SPI_TOP_BITS,
    SPI_TOP_SHIFT, VLAN_TAGS_MAX, XdpVerdict,
};

const ABI_H: &str = include_str!("../../bpf/abi.h");
const VERDICTS_H: &str = include_str!("../../bpf/verdicts.h");
const STEERING_MD: &str = include_str!("../../../docs/steering.md");

#[test]
fn every_constant_of_the_header_equals_the_rust_one() {
    let rust = [
        ("ABI_VERSION", ABI_VERSION),
        ("ROLE_NONE", 0),
        ("ROLE_WAN", Role::Wan as u32),
        ("ROLE_LAN", Role::Lan as u32),
        ("ROLE_HOST", Role::Host as u32),
        ("ROLE_COUNT", Role::COUNT),
        ("PORT_SLOTS", PORT_SLOTS),
        ("QUEUES_PER_PORT", QUEUES_PER_PORT),
        ("SPI_TOP_SHIFT", SPI_TOP_SHIFT),
        ("SPI_TOP_BITS", SPI_TOP_BITS),
        ("LOCAL_INSIDE", LOCAL_INSIDE),
        ("CLASS_WIDE", CLASS_WIDE),
        ("VLAN_TAGS_MAX", VLAN_TAGS_MAX),
        ("IPV6_HEADERS_MAX", IPV6_HEADERS_MAX),
    ];
    let c: Vec<(&str, u32)> = ABI_H
        .lines()
        .filter_map(|line| line.strip_prefix("#define ")?.split_once(' '))
        .filter(|(name, _)| *name != "POLLUX_ABI_H")
        .map(|(name, value)| (name, number(value.trim())))
        .collect();
    assert_eq!(c, rust);
}

fn number(text: &str) -> u32 {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).expect("a hexadecimal literal"),
        None => text.parse().expect("a decimal literal"),
    }
}

#[test]
fn the_verdicts_of_the_header_are_those_of_rust_in_the_same_order() {
    let c: Vec<String> = VERDICTS_H
        .lines()
        .filter_map(|line| line.trim().split_once(',').map(|(name, _)| name.to_lowercase()))
        .filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        .collect();
    let rust: Vec<String> = XdpVerdict::ALL.iter().map(|verdict| verdict.name().to_owned()).collect();
    assert_eq!(c.last().map(String::as_str), Some("verdict_count"));
    assert_eq!(c[..c.len() - 1], rust);
}

#[test]
fn the_documentation_lists_every_verdict_with_its_text() {
    let table: Vec<&str> = STEERING_MD.lines().filter(|line| line.starts_with("| `")).collect();
    let rust: Vec<String> =
        XdpVerdict::ALL.iter().map(|verdict| format!("| `{verdict}` | {} |", verdict.text())).collect();
    assert_eq!(table, rust);
}

#[test]
fn spis_that_control_gives_begin_with_the_bits_that_the_program_knows() {
    for (index, random) in [(0, 0), (0, u32::MAX), (1023, 0), (1023, u32::MAX)] {
        let spi = Spi::with_index(SaIndex(index), 10, random).expect("1,024 indices");
        assert_eq!(spi.get() >> SPI_TOP_SHIFT, SPI_TOP_BITS);
    }
}
