//! `[[sa]]` and `[[policy]]`.

use std::net::IpAddr;

use pollux_abi::command::{Direction, EncapPorts, Lifetimes};
use pollux_abi::dscp::{DfMark, DscpMark, EcnMode};
use pollux_abi::layout::SELECTORS_MAX;
use toml::de::DeValue;

use crate::document::Section;
use crate::model::{Action, ManualSa, Policy};
use crate::values::{self, Wrong, boolean, count, duration, number, some, word};

pub(super) const ECN: &[(&str, EcnMode)] = &[("normal", EcnMode::Normal), ("off", EcnMode::Off)];
pub(super) const DF: &[(&str, DfMark)] =
    &[("copy", DfMark::Copy), ("set", DfMark::Set), ("clear", DfMark::Clear)];
/// RFC 6479 windows that the data plane has.
pub(super) const WINDOW: std::ops::RangeInclusive<u32> = pollux_abi::command::WINDOW_PACKETS;
pub(super) const WINDOW_DEFAULT: u32 = 1_024;
/// ESP-in-UDP where the file says `encap = true`.
const ENCAP_DEFAULT: EncapPorts = EncapPorts { local: 4500, remote: 4500 };

pub(super) fn sa(section: Section<'_, '_>) -> Option<ManualSa> {
    let s = &section;
    let name = s.required("name", "write name = \"to-b\": reloads know the SA again by it", values::name);
    let direction = s.required(
        "direction",
        "write direction = \"out\" for packets that we send, \"in\" for packets that we receive",
        word(&[("in", Direction::Inbound), ("out", Direction::Outbound)]),
    );
    let spi = s.required("spi", "write spi = 0x1001, the number that both ends share", values::spi);
    let suite = s.required("suite", "write suite = \"aes128gcm16\"", values::suite);
    let key = s.required("key", "write key = \"NAME\", a name under [keys] in the secrets file", key_name);
    let local = s.required("local", "write local = \"ADDRESS\", our outer address", values::address);
    let remote =
        s.required("remote", "write remote = \"ADDRESS\", the peer's outer address", values::address);
    let reqid = s.required("reqid", "write reqid = 1, the number that a [[policy]] has too", values::reqid);
    let sa = ManualSa {
        name: String::new(),
        line: s.line(),
        direction: direction.unwrap_or(Direction::Outbound),
        spi: spi.unwrap_or_default(),
        suite: suite.unwrap_or(pollux_abi::EspSuite::Aes128Gcm16),
        key: String::new(),
        esn: s.or("esn", false, boolean),
        window_packets: s.or("window", WINDOW_DEFAULT, window),
        seq: s.or("seq", u64::from(direction != Some(Direction::Inbound)), number(0..=i64::MAX as u64)),
        local: IpAddr::from([0; 4]),
        remote: IpAddr::from([0; 4]),
        encap: s.optional("encap", encap).flatten(),
        reqid: reqid.unwrap_or_default(),
        worker: s.optional("worker", number(0..=pollux_abi::layout::WORKERS_MAX - 1)),
        dscp: s.or("dscp", DscpMark::Copy, values::dscp),
        ecn: s.or("ecn", EcnMode::Normal, word(ECN)),
        df: s.or("df", DfMark::Copy, word(DF)),
        lifetimes: Lifetimes {
            soft_bytes: s.or("soft_bytes", 0, count),
            hard_bytes: s.or("hard_bytes", 0, count),
            soft_packets: s.or("soft_packets", 0, count),
            hard_packets: s.or("hard_packets", 0, count),
            soft_age: s.or("soft_time", 0, life),
            hard_age: s.or("hard_time", 0, life),
        },
        local_ts: s.or("local_ts", Vec::new(), some(values::selector)),
        remote_ts: s.or("remote_ts", Vec::new(), some(values::selector)),
    };
    by_itself(s, &sa, direction);
    if let (Some(local), Some(remote)) = (local, remote) {
        outer_addresses(s, local, remote);
    }
    section.finish();
    Some(ManualSa { name: name?, spi: spi?, suite: suite?, key: key?, local: local?, remote: remote?, ..sa })
        .filter(|_| direction.is_some() && reqid.is_some())
}

/// Packets of the replay window: 0 for none.
fn window(value: &DeValue<'_>) -> Result<u32, Wrong> {
    match number(0..=*WINDOW.end())(value) {
        Ok(packets) if packets == 0 || WINDOW.contains(&packets) => Ok(packets),
        // The line names what a window may be.
        Ok(_) | Err(_) => number(WINDOW)(value),
    }
}

/// What is to be said of an inbound SA that has no replay window.
fn without_window(s: &Section<'_, '_>, sa: &ManualSa) {
    if sa.esn {
        let reason = "0 leaves no replay window, and ESN tells the upper half of a number by it";
        s.wrong("window", reason, "write window = 1024, or leave esn out");
    } else {
        let reason = "0 switches replay protection off: whoever records a packet can send it again";
        s.warn("window", reason, "write window = 1024, or leave the key out");
    }
}

/// Mistakes that one SA shows without looking at others.
fn by_itself(s: &Section<'_, '_>, sa: &ManualSa, direction: Option<Direction>) {
    if direction == Some(Direction::Outbound) && s.has("seq") && sa.seq == 0 {
        s.wrong("seq", "the first number that is sent cannot be 0", "write 1 or leave the key out");
    }
    if direction == Some(Direction::Outbound) && s.has("window") {
        s.wrong("window", "is about packets that arrive", "put it on the inbound SA");
    }
    if direction == Some(Direction::Inbound) {
        for key in ["dscp", "df"] {
            if s.has(key) {
                s.wrong(key, "marks are written on outer headers that we send", "put it on the outbound SA");
            }
        }
    }
    if direction == Some(Direction::Inbound)
        && sa.encap.is_some_and(|ports| ports.local != ENCAP_DEFAULT.local)
    {
        s.wrong(
            "encap",
            "names a local port that is not served: XDP program and packet parser know ESP in UDP by port 4500 alone",
            "write local = 4500; the peer's port may be any",
        );
    }
    if direction == Some(Direction::Inbound) && sa.window_packets == 0 {
        without_window(s, sa);
    }
    if !sa.esn && sa.seq > u64::from(u32::MAX) {
        s.wrong(
            "seq",
            format!("{} needs more than 32 bits", sa.seq),
            "write esn = true, or a number below 2^32",
        );
    }
    if sa.suite.has_implicit_iv() {
        s.wrong(
            "suite",
            format!("`{}` takes the sequence number as IV, and manual keys outlive their numbers", sa.suite),
            format!("write `{}`", sa.suite.name().trim_end_matches("iiv")),
        );
    }
    let limits = &sa.lifetimes;
    let pairs = [
        ("soft_bytes", limits.soft_bytes, limits.hard_bytes),
        ("soft_packets", limits.soft_packets, limits.hard_packets),
        ("soft_time", limits.soft_age.into(), limits.hard_age.into()),
    ];
    for (key, soft, hard) in pairs {
        if hard != 0 && soft >= hard {
            s.wrong(
                key,
                format!("{soft} is not below the hard limit {hard}"),
                "warn earlier than the SA stops",
            );
        }
    }
    if sa.local_ts.is_empty() != sa.remote_ts.is_empty() {
        let key = if sa.local_ts.is_empty() { "local_ts" } else { "remote_ts" };
        s.wrong(
            key,
            "is missing beside the other side's",
            "write both, or neither to take them from the policies",
        );
    }
    selector_lists(s, &sa.local_ts, &sa.remote_ts, SELECTORS_MAX);
}

/// A lifetime in whole seconds, a part of one counted as one. None at all would end the SA as it begins.
fn life(value: &DeValue<'_>) -> Result<u32, Wrong> {
    let time = duration(value)?;
    if time.is_zero() {
        return Err(Wrong::new(
            "ends the SA as it begins",
            "leave the key out for no limit, or write \"8h\"",
        ));
    }
    u32::try_from(time.as_millis().div_ceil(1_000))
        .map_err(|_| Wrong::new("is longer than a century", "leave the key out for no limit"))
}

/// Lists that are too long, or have no family in common.
pub(super) fn selector_lists(
    s: &Section<'_, '_>,
    local: &[pollux_abi::TrafficSelector],
    remote: &[pollux_abi::TrafficSelector],
    most: usize,
) {
    for (key, list) in [("local_ts", local), ("remote_ts", remote)] {
        if list.len() > most {
            s.wrong(
                key,
                format!("{} selectors, and {most} fit", list.len()),
                "join neighbouring prefixes, or split",
            );
        }
    }
    if !local.is_empty()
        && !remote.is_empty()
        && !local.iter().any(|l| remote.iter().any(|r| r.is_ipv4() == l.is_ipv4()))
    {
        s.wrong(
            "remote_ts",
            "is of another IP version than local_ts",
            "give both sides a prefix of the same IP version",
        );
    }
}

/// What of a policy is behind both gateways at once: the first selector that stands on both sides.
pub(super) fn on_both_sides(
    local: &[pollux_abi::TrafficSelector],
    remote: &[pollux_abi::TrafficSelector],
) -> Option<(String, &'static str)> {
    let both = local.iter().find(|selector| !is_everything(selector) && remote.contains(selector))?;
    Some((
        format!("{both} is also a local selector: it would be behind both gateways"),
        "write what is behind the peer",
    ))
}

/// Whether a selector takes every address: then it may stand on both sides.
fn is_everything(selector: &pollux_abi::TrafficSelector) -> bool {
    selector.first().is_unspecified()
        && match selector.last() {
            IpAddr::V4(last) => last.is_broadcast(),
            IpAddr::V6(last) => u128::from(last) == u128::MAX,
        }
}

fn outer_addresses(s: &Section<'_, '_>, local: IpAddr, remote: IpAddr) {
    if local.is_ipv4() != remote.is_ipv4() {
        s.wrong(
            "remote",
            format!("{remote} is of another IP version than local {local}"),
            "use one version for both",
        );
    } else if local == remote {
        s.wrong("remote", format!("{remote} is also the local address"), "write the peer's address");
    }
    for (key, address) in [("local", local), ("remote", remote)] {
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
            s.wrong(
                key,
                format!("{address} can't be an outer address"),
                "write the gateway's own unicast address",
            );
        }
    }
}

fn key_name(value: &DeValue<'_>) -> Result<String, Wrong> {
    let found = values::name(value)?;
    if values::hex(&found).is_some_and(|octets| octets.len() >= 16) {
        return Err(Wrong::new(
            "holds a key, which everyone may read here",
            "move it to [keys] in the secrets file (mode 600) and write its name; make a new key, too",
        ));
    }
    Ok(found)
}

/// `true`, or `{ local = 4500, remote = 4500 }`.
fn encap(value: &DeValue<'_>) -> Result<Option<EncapPorts>, Wrong> {
    let wrong = || Wrong::new("is no encapsulation", "write true, or { local = 4500, remote = 4500 }");
    if let Some(on) = value.as_bool() {
        return Ok(on.then_some(ENCAP_DEFAULT));
    }
    let table = value.as_table().ok_or_else(wrong)?;
    let mut ports = ENCAP_DEFAULT;
    for (key, value) in table {
        let port = number(1..=u16::MAX)(value.get_ref())?;
        match key.get_ref().as_ref() {
            "local" => ports.local = port,
            "remote" => ports.remote = port,
            _ => return Err(wrong()),
        }
    }
    Ok(Some(ports))
}

pub(super) fn policy(section: Section<'_, '_>) -> Option<Policy> {
    let s = &section;
    let name = s.required("name", "write name = \"voice-to-b\"", values::name);
    let directions = s.or("direction", 3, word(&[("in", 1), ("out", 2), ("both", 3)]));
    let action = s.required(
        "action",
        "write action = \"protect\", \"bypass\" or \"discard\"",
        word(&[("protect", 0), ("bypass", 1), ("discard", 2)]),
    );
    let reqid = s.optional("reqid", values::reqid);
    let local_ts = s.required("local_ts", "write local_ts = [\"10.1.0.0/16\"]", some(values::selector));
    let remote_ts = s.required("remote_ts", "write remote_ts = [\"10.2.0.0/16\"]", some(values::selector));
    match (action, reqid) {
        (Some(0), None) if !s.has("reqid") => {
            s.wrong(
                "reqid",
                "is missing, and protect needs it",
                "write the reqid of the SAs that protect this traffic",
            );
        }
        (Some(1 | 2), Some(_)) => {
            s.wrong("reqid", "belongs to protect alone", "leave it out, or write action = \"protect\"");
        }
        _ => {}
    }
    selector_lists(
        s,
        local_ts.as_deref().unwrap_or_default(),
        remote_ts.as_deref().unwrap_or_default(),
        POLICY_SELECTORS_MAX,
    );
    if let (Some(local), Some(remote)) = (&local_ts, &remote_ts)
        && let Some((reason, fix)) = on_both_sides(local, remote)
    {
        s.wrong("remote_ts", reason, fix);
    }
    let line = s.line();
    section.finish();
    let action = match action? {
        0 => Action::Protect(reqid?),
        1 => Action::Bypass,
        _ => Action::Discard,
    };
    let directions = match directions {
        1 => vec![Direction::Inbound],
        2 => vec![Direction::Outbound],
        _ => vec![Direction::Outbound, Direction::Inbound],
    };
    Some(Policy { name: name?, line, directions, action, local_ts: local_ts?, remote_ts: remote_ts? })
}

/// A policy becomes an entry for each pair of its selectors: 64 × 64 at the most.
const POLICY_SELECTORS_MAX: usize = 64;
