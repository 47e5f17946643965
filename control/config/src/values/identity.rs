//! Identities and patterns of them, as users of swanctl and libreswan write them: the grammar of the IKE core's parser,
//! with a line for each mistake. A test over both holds them together.

use std::net::{Ipv4Addr, Ipv6Addr};

use toml::de::DeValue;

use super::{Wrong, text};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ipv4,
    Ipv6,
    Name,
    User,
    KeyId,
    Dn,
}

/// Types as they are written before a colon.
const KINDS: &[(&str, Kind)] = &[
    ("ipv4", Kind::Ipv4),
    ("ipv6", Kind::Ipv6),
    ("fqdn", Kind::Name),
    ("dns", Kind::Name),
    ("email", Kind::User),
    ("rfc822", Kind::User),
    ("userfqdn", Kind::User),
    ("keyid", Kind::KeyId),
    ("asn1dn", Kind::Dn),
];

/// Our own identity.
pub(crate) fn own(value: &DeValue<'_>) -> Result<String, Wrong> {
    let written = text(value)?;
    if is_pattern(&written) {
        return Err(Wrong::new("we can't be everyone", "write our own identity, such as \"gw-a.example\""));
    }
    exact(&written)?;
    Ok(written)
}

/// An identity that a peer may have, or a pattern of them.
pub(crate) fn pattern(value: &DeValue<'_>) -> Result<String, Wrong> {
    let written = text(value)?;
    if matches!(written.as_str(), "%any" | "*") {
        return Ok(written);
    }
    if let Some((kind, suffix)) = starred(&written) {
        let fits = |c: char| c.is_ascii_graphic() || kind == Kind::User && c.is_alphanumeric();
        if suffix.contains('*') || !suffix.chars().all(fits) || suffix.len() > LEN_MAX {
            return Err(Wrong::new(
                format!("`{}` is no pattern", written.escape_debug()),
                "write one * and what names end with, such as \"*.example.org\" or \"*@example.org\"",
            ));
        }
        return Ok(written);
    }
    exact(&written)?;
    Ok(written)
}

fn is_pattern(written: &str) -> bool {
    written.starts_with('%') || written == "*" || starred(written).is_some()
}

/// Type and suffix of a pattern of names.
fn starred(written: &str) -> Option<(Kind, &str)> {
    let (kind, value) = match typed(written) {
        Ok(Some(typed)) => typed,
        Ok(None) if written.contains([':', '=']) => return None,
        Ok(None) => (if written.contains('@') { Kind::User } else { Kind::Name }, written),
        Err(_) => return None,
    };
    let suffix = value.strip_prefix('*')?;
    matches!(kind, Kind::Name | Kind::User).then_some((kind, suffix))
}

/// The type that a text names, and what follows; `None` where it names none.
fn typed(written: &str) -> Result<Option<(Kind, &str)>, Wrong> {
    if written.starts_with("@#") {
        return Ok(Some((Kind::KeyId, &written[1..])));
    }
    if written.starts_with("@~") || written.starts_with("@[") {
        return Err(Wrong::new(
            format!("`{}` is a way to write identities that only libreswan has", written.escape_debug()),
            "write keyid: and text, or asn1dn:# and the DER octets in hexadecimal",
        ));
    }
    if let Some(user) = written.strip_prefix("@@") {
        return Ok(Some((Kind::User, user)));
    }
    if let Some(name) = written.strip_prefix('@') {
        return Ok(Some((Kind::Name, name)));
    }
    let Some((word, value)) = written.split_once(':') else { return Ok(None) };
    if let Some((_, kind)) = KINDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(word)) {
        return Ok(Some((*kind, value)));
    }
    if written.parse::<Ipv6Addr>().is_ok() {
        return Ok(None);
    }
    let words: Vec<&str> = KINDS.iter().map(|(word, _)| *word).collect();
    let fix = match super::closest(word, &words) {
        Some(near) => format!("did you mean `{near}:`?"),
        None => format!(
            "write one of {}: before the value, as in keyid:{}",
            words.join(": "),
            written.escape_debug()
        ),
    };
    Err(Wrong::new(format!("`{}:` is no type of identities", word.escape_debug()), fix))
}

/// Checks an identity that is no pattern.
fn exact(written: &str) -> Result<(), Wrong> {
    let Some((kind, value)) = typed(written)? else { return untyped(written) };
    if let Some(digits) = value.strip_prefix('#') {
        let octets = super::hex(digits).filter(|_| !digits.starts_with("0x"));
        let fits = octets.is_some_and(|octets| match kind {
            Kind::Ipv4 => octets.len() == 4,
            Kind::Ipv6 => octets.len() == 16,
            _ => octets.len() <= LEN_MAX,
        });
        let fix = "write # and pairs of hexadecimal digits, the octets of the identification data";
        return if fits {
            Ok(())
        } else {
            Err(Wrong::new(format!("`{}` is no identity", written.escape_debug()), fix))
        };
    }
    of_kind(written, kind, value)
}

fn untyped(written: &str) -> Result<(), Wrong> {
    if written.parse::<std::net::IpAddr>().is_ok() {
        return Ok(());
    }
    if written.contains('=') {
        return Err(Wrong::new(
            format!("`{}` is a distinguished name, and these are not read as text", written.escape_debug()),
            "write asn1dn:# and its DER octets in hexadecimal, or keyid: before it if it is no name",
        ));
    }
    if written.starts_with(['%', '#']) {
        return Err(Wrong::new(
            format!("`{}` is no identity", written.escape_debug()),
            "write %any for everyone, or a name, an address, user@name, keyid:NAME or keyid:#OCTETS",
        ));
    }
    of_kind(written, if written.contains('@') { Kind::User } else { Kind::Name }, written)
}

fn of_kind(written: &str, kind: Kind, value: &str) -> Result<(), Wrong> {
    let wrong = |what: &str, fix: &str| Err(Wrong::new(format!("`{}` {what}", written.escape_debug()), fix));
    if value.is_empty() || value.len() > LEN_MAX {
        return wrong("is no identity", "write a value of 1 to 1024 octets");
    }
    if !value.chars().all(|c| c.is_ascii_graphic() || c.is_alphanumeric()) {
        return wrong(
            "has a blank or a character that can't be seen",
            "take it out, or write keyid:# and the octets in hexadecimal",
        );
    }
    match kind {
        Kind::Ipv4 if value.parse::<Ipv4Addr>().is_err() => {
            wrong("is no IPv4 address", "write ipv4:192.0.2.1")
        }
        Kind::Ipv6 if value.parse::<Ipv6Addr>().is_err() => {
            wrong("is no IPv6 address", "write ipv6:2001:db8::1")
        }
        Kind::Dn => wrong(
            "is a distinguished name as text, and these are not read",
            "write asn1dn:# and its DER octets in hexadecimal",
        ),
        Kind::Name | Kind::User if value.contains('*') => wrong(
            "has a * in its midst, and one at the beginning is a pattern",
            "write for the peer \"*.example.org\" or \"*@example.org\", or keyid: before a * that is meant",
        ),
        Kind::Name if !value.is_ascii() => {
            wrong("is no name of ASCII letters", "write it in its ASCII form, xn--… (RFC 5890)")
        }
        Kind::User if value.split_once('@').is_none_or(|(user, host)| user.is_empty() || host.is_empty()) => {
            wrong("is not user@name", "write user@name, or fqdn: before a name")
        }
        _ => Ok(()),
    }
}

/// The longest identification data, as the IKE core takes them.
const LEN_MAX: usize = 1024;
