//! Single values: parsed into their types, or refused with a reason and a fix.

use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use pollux_abi::dscp::{Dscp, DscpMark};
use pollux_abi::{EspSuite, PortRange, Reqid, Spi, TrafficSelector};
use toml::de::DeValue;
use zeroize::Zeroizing;

/// Why a value is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) reason: String,
    pub(crate) fix: String,
}

impl Wrong {
    pub(crate) fn new(reason: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { reason: reason.into(), fix: fix.into() }
    }

    fn kind(value: &DeValue<'_>, wanted: &str, fix: impl Into<String>) -> Self {
        Self::new(format!("is {}, not {wanted}", kind_name(value)), fix)
    }
}

fn kind_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// What users of iproute2 and ipsec.conf write, and our name for it.
const SYNONYMS: &[(&str, &str)] = &[
    ("dir", "direction"),
    ("src", "local"),
    ("dst", "remote"),
    ("replay_window", "window"),
    ("enc", "suite"),
    ("aead", "suite"),
    ("dpd", "dpd_delay"),
    ("dpdaction", "dpd_action"),
    ("left", "local_addrs"),
    ("right", "remote_addrs"),
    ("leftsubnet", "local_ts"),
    ("rightsubnet", "remote_ts"),
    ("ike", "proposals"),
    ("esp", "esp_proposals"),
    ("auto", "start_action"),
    ("keyexchange", "version"),
    ("secret", "psk"),
    ("lifetime", "life_time"),
];

/// The known name that is nearest to what was written, if one is near.
pub(crate) fn closest<'k>(written: &str, known: &[&'k str]) -> Option<&'k str> {
    let written = written.to_lowercase().replace('-', "_");
    let ours = SYNONYMS.iter().find(|(theirs, _)| *theirs == written);
    if let Some(ours) = ours.and_then(|(_, ours)| known.iter().find(|name| *name == ours)) {
        return Some(ours);
    }
    known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&written, &name.replace('-', "_")), *name))
        .filter(|&(distance, name)| distance <= 1 + name.len().max(written.len()) / 4)
        .min()
        .map(|(_, name)| name)
}

pub(crate) fn text(value: &DeValue<'_>) -> Result<String, Wrong> {
    match value.as_str() {
        Some("") => Err(Wrong::new("is empty", "write something between the quotes, or leave the key out")),
        Some(text) => Ok(text.to_owned()),
        None => Err(Wrong::kind(value, "text", "put it in double quotes")),
    }
}

/// What is logged: a level, or levels of parts as in `info,pollux_control::udp=debug`.
pub(crate) fn log_filter(value: &DeValue<'_>) -> Result<String, Wrong> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let filter = text(value)?;
    for part in filter.split(',') {
        let (target, level) =
            part.split_once('=').map_or((None, part), |(target, level)| (Some(target), level));
        let is_path = |target: &str| {
            target
                .split("::")
                .all(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
        };
        let level = level.to_lowercase();
        if target.is_some_and(|target| !is_path(target)) || !LEVELS.contains(&level.as_str()) {
            let fix = match closest(&level, &LEVELS) {
                Some(near) if target.is_none() => format!("did you mean `{near}`? "),
                _ => String::new(),
            };
            return Err(Wrong::new(
                format!("`{part}` is no level of the log"),
                format!(
                    "{fix}write one of: {}; or a level for a part, as in \"info,pollux_control::udp=debug\"",
                    LEVELS.join(", ")
                ),
            ));
        }
    }
    Ok(filter)
}

/// A name that appears in tables and commands.
pub(crate) fn name(value: &DeValue<'_>) -> Result<String, Wrong> {
    let name = text(value)?;
    if name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c)) {
        Ok(name)
    } else {
        Err(Wrong::new(format!("`{name}` is no name"), "use up to 64 letters, digits, - _ . :"))
    }
}

pub(crate) fn boolean(value: &DeValue<'_>) -> Result<bool, Wrong> {
    value.as_bool().ok_or_else(|| Wrong::kind(value, "true or false", "write true or false, without quotes"))
}

fn whole(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(&integer.as_str().replace('_', ""), integer.radix()).ok()
}

/// A whole number within a range.
pub(crate) fn number<T>(range: RangeInclusive<T>) -> impl Fn(&DeValue<'_>) -> Result<T, Wrong>
where
    T: TryFrom<u64> + PartialOrd + Display,
{
    move |value| {
        let fix = || format!("write a number from {} to {}", range.start(), range.end());
        if !value.is_integer() {
            return Err(Wrong::kind(value, "a whole number", fix()));
        }
        whole(value)
            .and_then(|number| T::try_from(number).ok())
            .filter(|number| range.contains(number))
            .ok_or_else(|| Wrong::new(format!("{} is out of range", shown(value)), fix()))
    }
}

/// What ties SAs and policies together; those that control gives to peers are nobody else's.
pub(crate) fn reqid(value: &DeValue<'_>) -> Result<Reqid, Wrong> {
    let reqid = Reqid(number(1..=u32::MAX)(value)?);
    if reqid.is_of_peer() {
        let (first, last) = (Reqid::OF_PEERS.start(), Reqid::OF_PEERS.end());
        let reason = format!(
            "{reqid} is one of those that peers of connections for many are given, {first} to {last}"
        );
        return Err(Wrong::new(reason, "write another number, best a small one"));
    }
    Ok(reqid)
}

fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Integer(integer) => integer.to_string(),
        DeValue::String(text) => format!("`{text}`"),
        other => kind_name(other).to_owned(),
    }
}

/// A power of two within a range.
pub(crate) fn power_of_two(range: RangeInclusive<u32>) -> impl Fn(&DeValue<'_>) -> Result<u32, Wrong> {
    move |value| {
        let found = number(range.clone())(value)?;
        if found.is_power_of_two() {
            return Ok(found);
        }
        let near = found.next_power_of_two().min(*range.end());
        Err(Wrong::new(format!("{found} is no power of two"), format!("write {near}")))
    }
}

/// One of a few words.
pub(crate) fn word<T: Copy>(
    words: &'static [(&'static str, T)],
) -> impl Fn(&DeValue<'_>) -> Result<T, Wrong> {
    move |value| {
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        let fix = || format!("write one of: {}", names.join(", "));
        let Some(written) = value.as_str() else { return Err(Wrong::kind(value, "text", fix())) };
        match words.iter().find(|(name, _)| *name == written) {
            Some((_, found)) => Ok(*found),
            None => Err(Wrong::new(
                format!("`{written}` is unknown"),
                match closest(written, &names) {
                    Some(near) => format!("did you mean `{near}`? Known: {}", names.join(", ")),
                    None => fix(),
                },
            )),
        }
    }
}

/// Splits `12ms` into number and unit.
fn with_unit(text: &str) -> Option<(u64, &str)> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    Some((digits.parse().ok()?, unit.trim()))
}

/// Seconds as a number, or text with a unit: `200ms`, `30s`, `10m`, `4h`, `1d`.
pub(crate) fn duration(value: &DeValue<'_>) -> Result<Duration, Wrong> {
    const FIX: &str = "write seconds, or text such as \"200ms\", \"30s\", \"10m\", \"4h\", \"1d\"";
    if let Some(seconds) = whole(value) {
        return Ok(Duration::from_secs(seconds));
    }
    let wrong = || Wrong::new(format!("{} is no duration", shown(value)), FIX);
    let (count, unit) = value.as_str().and_then(with_unit).ok_or_else(wrong)?;
    let millis = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    count.checked_mul(millis).map(Duration::from_millis).ok_or_else(wrong)
}

/// A duration as the file has it.
fn time(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("\"{}s\"", duration.as_secs()),
        _ => format!("\"{}ms\"", duration.as_millis()),
    }
}

/// A duration within bounds.
pub(crate) fn duration_in(
    range: RangeInclusive<Duration>,
) -> impl Fn(&DeValue<'_>) -> Result<Duration, Wrong> {
    move |value| {
        let found = duration(value)?;
        if range.contains(&found) {
            return Ok(found);
        }
        Err(Wrong::new(
            format!("{} is out of range", time(found)),
            format!("write {} to {}", time(*range.start()), time(*range.end())),
        ))
    }
}

/// A count, or text with a decimal unit: `500k`, `2M`, `10G`, `1T`.
pub(crate) fn count(value: &DeValue<'_>) -> Result<u64, Wrong> {
    if let Some(count) = whole(value) {
        return Ok(count);
    }
    let wrong = || {
        Wrong::new(
            format!("{} is no count", shown(value)),
            "write a number, or text such as \"500k\", \"2M\", \"10G\", \"1T\"",
        )
    };
    let (count, unit) = value.as_str().and_then(with_unit).ok_or_else(wrong)?;
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" => 1,
        "k" => 1_000,
        "m" => 1_000_000,
        "g" => 1_000_000_000,
        "t" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    count.checked_mul(factor).ok_or_else(wrong)
}

/// A list whose elements are parsed one by one; a single value counts as a list of one.
pub(crate) fn list<T>(
    parse: impl Fn(&DeValue<'_>) -> Result<T, Wrong>,
) -> impl Fn(&DeValue<'_>) -> Result<Vec<T>, Wrong> {
    move |value| match value.as_array() {
        Some(array) => array.iter().map(|item| parse(item.get_ref())).collect(),
        None => Ok(vec![parse(value).map_err(|wrong| separated(value).unwrap_or(wrong))?]),
    }
}

/// What swanctl.conf separates by commas is a list here.
fn separated(value: &DeValue<'_>) -> Option<Wrong> {
    let parts: Vec<&str> =
        value.as_str()?.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    (parts.len() > 1).then(|| {
        Wrong::new(
            format!(
                "`{}` is one text, and lists are not separated inside a text",
                value.as_str().unwrap_or_default()
            ),
            format!("write a list: [\"{}\"]", parts.join("\", \"")),
        )
    })
}

/// A list with at least one element.
pub(crate) fn some<T>(
    parse: impl Fn(&DeValue<'_>) -> Result<T, Wrong>,
) -> impl Fn(&DeValue<'_>) -> Result<Vec<T>, Wrong> {
    let parse = list(parse);
    move |value| {
        let found = parse(value)?;
        if found.is_empty() {
            return Err(Wrong::new("is an empty list", "name at least one"));
        }
        Ok(found)
    }
}

pub(crate) fn address(value: &DeValue<'_>) -> Result<IpAddr, Wrong> {
    let written = text(value)?;
    if let Ok(address) = written.parse::<IpAddr>() {
        return Ok(address);
    }
    let fix = match written.split_once('/') {
        Some((address, _)) if address.parse::<IpAddr>().is_ok() => {
            format!("write {address} without the prefix")
        }
        _ => "write an IPv4 or IPv6 address such as \"203.0.113.1\" or \"2001:db8::1\"".to_owned(),
    };
    Err(Wrong::new(format!("`{written}` is no IP address"), fix))
}

/// An address or a prefix.
pub(crate) fn prefix(value: &DeValue<'_>) -> Result<ipnet::IpNet, Wrong> {
    let written = text(value)?;
    if let Ok(address) = written.parse::<IpAddr>() {
        return Ok(address.into());
    }
    written.parse::<ipnet::IpNet>().map(|net| net.trunc()).map_err(|_| {
        Wrong::new(
            format!("`{written}` is no address and no prefix"),
            "write an address such as \"203.0.113.1\" or a prefix such as \"203.0.113.0/24\"",
        )
    })
}

/// IP protocols that have a name in selectors.
const PROTOCOLS: &[(&str, u8)] = &[
    ("icmp", 1),
    ("tcp", 6),
    ("udp", 17),
    ("gre", 47),
    ("ipv6-icmp", 58),
    ("icmpv6", 58),
    ("ospf", 89),
    ("sctp", 132),
];

/// A selector as swanctl writes it: `10.1.0.0/16`, `10.1.0.0/16[udp/16384-32767]`, `10.1.0.1-10.1.0.9[tcp]`.
pub(crate) fn selector(value: &DeValue<'_>) -> Result<TrafficSelector, Wrong> {
    let written = text(value)?;
    let selector = parse_selector(&written)?;
    if selector.first().is_multicast() && selector.last().is_multicast() {
        return Err(Wrong::new(
            format!("`{written}` names multicast groups, and tunnels carry unicast alone"),
            "leave it out; multicast between protected prefixes is dropped, never sent in clear",
        ));
    }
    Ok(selector)
}

/// See [`selector`].
pub(crate) fn parse_selector(written: &str) -> Result<TrafficSelector, Wrong> {
    const FIX: &str =
        "write a prefix such as \"10.1.0.0/16\", with protocol and ports as \"10.1.0.0/16[udp/16384-32767]\"";
    let wrong = |what: String| Wrong::new(what, FIX);
    let (addresses, rest) = match written.split_once('[') {
        Some((addresses, rest)) => {
            let inner = rest.strip_suffix(']').ok_or_else(|| wrong(format!("`{written}` lacks its ]")))?;
            (addresses, Some(inner))
        }
        None => (written, None),
    };
    let mut selector = address_range(addresses.trim())?;
    if let Some(rest) = rest {
        let (protocol, ports) = rest.split_once('/').map_or((rest, None), |(p, ports)| (p, Some(ports)));
        selector.protocol = match protocol.trim() {
            "" | "any" => None,
            number_or_name => Some(
                number_or_name
                    .parse()
                    .ok()
                    .or_else(|| PROTOCOLS.iter().find(|(name, _)| *name == number_or_name).map(|p| p.1))
                    .ok_or_else(|| wrong(format!("`{number_or_name}` is no IP protocol")))?,
            ),
        };
        if let Some(ports) = ports {
            selector.ports = port_range(ports.trim())?;
            if selector.ports != PortRange::ANY
                && !matches!(selector.protocol, Some(1 | 6 | 17 | 33 | 58 | 132 | 136))
            {
                return Err(Wrong::new(
                    format!("`{written}` names ports of a protocol that has none"),
                    "name the protocol too, as in \"10.1.0.0/16[udp/5060]\"",
                ));
            }
        }
    }
    Ok(selector)
}

fn address_range(written: &str) -> Result<TrafficSelector, Wrong> {
    let wrong = || {
        Wrong::new(
            format!("`{written}` is no prefix"),
            "write a prefix such as \"10.1.0.0/16\" or \"2001:db8:1::/48\"",
        )
    };
    if let Some((first, last)) = written.split_once('-') {
        let (first, last) =
            (first.trim().parse().map_err(|_| wrong())?, last.trim().parse().map_err(|_| wrong())?);
        return TrafficSelector::new(first, last, None, PortRange::ANY).ok_or_else(|| {
            Wrong::new(format!("`{written}` is no range"), "put the lower address first, both of one family")
        });
    }
    if let Ok(address) = written.parse::<IpAddr>() {
        return Ok(TrafficSelector::host(address));
    }
    let (address, len) = written.split_once('/').ok_or_else(wrong)?;
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let longest: u8 = if address.is_ipv4() { 32 } else { 128 };
    let len: u8 = len.parse().ok().filter(|&len| len <= longest).ok_or_else(|| {
        Wrong::new(
            format!("`/{len}` is no prefix length"),
            format!("write a length from 0 to {longest}; netmasks are not taken"),
        )
    })?;
    let selector = TrafficSelector::prefix(address, len).ok_or_else(wrong)?;
    if selector.first() != address {
        return Err(Wrong::new(
            format!("`{written}` has bits beyond its prefix"),
            format!("write {}/{len}, or {address}/{longest} for the one host", selector.first()),
        ));
    }
    Ok(selector)
}

fn port_range(written: &str) -> Result<PortRange, Wrong> {
    let wrong = || {
        Wrong::new(
            format!("`{written}` is no port range"),
            "write a port such as 5060, a range such as 16384-32767, or any",
        )
    };
    match written {
        "any" | "" => return Ok(PortRange::ANY),
        "opaque" => return Ok(PortRange::OPAQUE),
        _ => {}
    }
    let (first, last) = written.split_once('-').unwrap_or((written, written));
    let first = first.trim().parse().map_err(|_| wrong())?;
    let last = last.trim().parse().map_err(|_| wrong())?;
    if first > last { Err(wrong()) } else { Ok(PortRange { first, last }) }
}

/// An SPI: a number, or text such as `0xc0ffee01`.
pub(crate) fn spi(value: &DeValue<'_>) -> Result<Spi, Wrong> {
    const FIX: &str = "write a number from 0x100 to 0xffffffff";
    let number = match value.as_str() {
        Some(text) => text
            .strip_prefix("0x")
            .map_or_else(|| text.parse().ok(), |digits| u64::from_str_radix(digits, 16).ok()),
        None => whole(value),
    };
    let number = number
        .and_then(|number| u32::try_from(number).ok())
        .ok_or_else(|| Wrong::new(format!("{} is no SPI", shown(value)), FIX))?;
    Spi::new(number).ok_or_else(|| Wrong::new(format!("SPI {number} is reserved (RFC 4303 §2.1)"), FIX))
}

/// An ESP suite by the name of `esp_proposals`.
pub(crate) fn suite(value: &DeValue<'_>) -> Result<EspSuite, Wrong> {
    let written = text(value)?;
    let names: Vec<&str> = EspSuite::ALL.iter().map(|suite| suite.name()).collect();
    EspSuite::from_name(&written).ok_or_else(|| {
        let near = xfrm_suite(&written).or_else(|| closest(&written, &names));
        let fix = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("write one of: {}", names.join(", ")),
        };
        Wrong::new(format!("`{written}` is no ESP suite"), fix)
    })
}

/// What users of other tools write, and our name for it.
fn xfrm_suite(written: &str) -> Option<&'static str> {
    let written = written.to_lowercase();
    Some(match written.as_str() {
        "rfc4106(gcm(aes))" | "aes-gcm" | "aes-128-gcm" | "aes128-gcm" | "aes128gcm" | "gcm" | "aes_gcm" => {
            "aes128gcm16"
        }
        "aes-256-gcm" | "aes256-gcm" | "aes256gcm" => "aes256gcm16",
        "rfc7539esp(chacha20,poly1305)" | "chacha20-poly1305" => "chacha20poly1305",
        "cbc(aes)" | "aes" | "aes-cbc" => "aes128-sha256",
        _ => return None,
    })
}

/// Classes with a name, beside the numbers.
const DSCP_NAMES: &[(&str, u8)] = &[
    ("be", 0),
    ("cs0", 0),
    ("cs1", 8),
    ("cs2", 16),
    ("cs3", 24),
    ("cs4", 32),
    ("cs5", 40),
    ("cs6", 48),
    ("cs7", 56),
    ("af11", 10),
    ("af12", 12),
    ("af13", 14),
    ("af21", 18),
    ("af22", 20),
    ("af23", 22),
    ("af31", 26),
    ("af32", 28),
    ("af33", 30),
    ("af41", 34),
    ("af42", 36),
    ("af43", 38),
    ("va", 44),
    ("ef", 46),
];

/// `"copy"`, a class name or a number from 0 to 63.
pub(crate) fn dscp(value: &DeValue<'_>) -> Result<DscpMark, Wrong> {
    const FIX: &str = "write \"copy\", a class such as \"ef\", or a number from 0 to 63";
    let code = match value.as_str() {
        Some("copy") => return Ok(DscpMark::Copy),
        Some(written) => {
            DSCP_NAMES.iter().find(|(name, _)| *name == written.to_lowercase()).map(|class| class.1)
        }
        None => whole(value).and_then(|number| u8::try_from(number).ok()),
    };
    code.and_then(Dscp::new)
        .map(DscpMark::Fixed)
        .ok_or_else(|| Wrong::new(format!("{} is no DSCP", shown(value)), FIX))
}

/// An absolute path.
pub(crate) fn absolute(value: &DeValue<'_>) -> Result<PathBuf, Wrong> {
    let path = PathBuf::from(text(value)?);
    if path.is_absolute() {
        return Ok(path);
    }
    Err(Wrong::new(format!("`{}` is relative", path.display()), "write the whole path, beginning with /"))
}

/// Octets written as hexadecimal digits, with or without `0x`. They are written into one allocation, so that no
/// part of a key stays behind in another.
pub(crate) fn hex(written: &str) -> Option<Zeroizing<Vec<u8>>> {
    let digits = written.strip_prefix("0x").unwrap_or(written).as_bytes();
    if digits.is_empty() || !digits.len().is_multiple_of(2) {
        return None;
    }
    let mut octets = Zeroizing::new(vec![0; digits.len() / 2]);
    for (octet, pair) in octets.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *octet = u8::try_from(high << 4 | low).ok()?;
    }
    Some(octets)
}

pub(crate) mod identity;
#[cfg(test)]
mod tests;
