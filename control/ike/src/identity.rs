//! Identities as peers claim them (RFC 7296 §3.5), and patterns that configuration matches them with.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::message::IdType;

/// The longest identity that is taken from a peer, in octets; a distinguished name stays below this.
pub const IDENTITY_LEN_MAX: usize = 1024;

/// One identity: ID type and identification data of an IDi or IDr payload.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    id_type: IdType,
    value: Vec<u8>,
}

impl Identity {
    /// An identity as it came; `None` where it is longer than [`IDENTITY_LEN_MAX`].
    pub fn new(id_type: IdType, value: &[u8]) -> Option<Self> {
        (value.len() <= IDENTITY_LEN_MAX).then(|| Self { id_type, value: value.to_vec() })
    }

    /// An address.
    pub fn address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self { id_type: IdType::Ipv4Addr, value: v4.octets().to_vec() },
            IpAddr::V6(v6) => Self { id_type: IdType::Ipv6Addr, value: v6.octets().to_vec() },
        }
    }

    /// An identity as users of swanctl and libreswan write it: an address, a name, `user@host`; `@name` for a name
    /// that looks otherwise, `@@user@host`, `@#` and the hexadecimal octets of a key id; or a type of [`TYPES`], a
    /// colon, and a value of that type or `#` and its octets in hexadecimal. `None` for what is none of these, an
    /// unknown type among them: a type never becomes a part of the value.
    pub fn parse(text: &str) -> Option<Self> {
        let (id_type, value) = match typed(text) {
            Some((id_type, written)) => (id_type, value_of(id_type, written)?),
            None if text.contains([':', '=', '*']) || text.starts_with(['%', '#']) => {
                return text.parse().ok().map(Self::address);
            }
            None => match text.parse() {
                Ok(address) => return Some(Self::address(address)),
                Err(_) if text.contains('@') => (IdType::Rfc822Addr, value_of(IdType::Rfc822Addr, text)?),
                Err(_) => (IdType::Fqdn, value_of(IdType::Fqdn, text)?),
            },
        };
        (!value.is_empty() && value.len() <= IDENTITY_LEN_MAX).then_some(Self { id_type, value })
    }

    /// The ID type.
    pub const fn id_type(&self) -> IdType {
        self.id_type
    }

    /// The same identity with the case of its name taken away: those that are [the same](Self::is_same)
    /// are equal.
    pub(crate) fn folded(&self) -> Self {
        let mut folded = self.clone();
        if matches!(self.id_type, IdType::Fqdn | IdType::Rfc822Addr) {
            folded.value.make_ascii_lowercase();
        }
        folded
    }

    /// The identification data.
    pub fn value(&self) -> &[u8] {
        &self.value
    }
}

/// Types as they are written before a colon; the first word of each is the one that we write.
pub const TYPES: &[(&str, IdType)] = &[
    ("ipv4", IdType::Ipv4Addr),
    ("ipv6", IdType::Ipv6Addr),
    ("fqdn", IdType::Fqdn),
    ("dns", IdType::Fqdn),
    ("email", IdType::Rfc822Addr),
    ("rfc822", IdType::Rfc822Addr),
    ("userfqdn", IdType::Rfc822Addr),
    ("keyid", IdType::KeyId),
    ("asn1dn", IdType::DerAsn1Dn),
];

/// The type that a text names, and what follows.
fn typed(text: &str) -> Option<(IdType, &str)> {
    if text.starts_with("@#") {
        return Some((IdType::KeyId, &text[1..]));
    }
    if let Some(user) = text.strip_prefix("@@") {
        return Some((IdType::Rfc822Addr, user));
    }
    if let Some(name) = text.strip_prefix('@') {
        // libreswan's @~ and @[ are of other types.
        return (!name.starts_with(['~', '['])).then_some((IdType::Fqdn, name));
    }
    let (word, value) = text.split_once(':')?;
    let (_, id_type) = TYPES.iter().find(|(known, _)| known.eq_ignore_ascii_case(word))?;
    Some((*id_type, value))
}

/// Identification data of a type, as text or as `#` and hexadecimal octets.
fn value_of(id_type: IdType, written: &str) -> Option<Vec<u8>> {
    if let Some(digits) = written.strip_prefix('#') {
        let octets = octets(digits)?;
        let fits = match id_type {
            IdType::Ipv4Addr => octets.len() == 4,
            IdType::Ipv6Addr => octets.len() == 16,
            _ => true,
        };
        return fits.then_some(octets);
    }
    let plain = written.chars().all(|c| c.is_ascii_graphic() || c.is_alphanumeric());
    let fits = plain
        && match id_type {
            IdType::Ipv4Addr => return written.parse::<Ipv4Addr>().ok().map(|v4| v4.octets().to_vec()),
            IdType::Ipv6Addr => return written.parse::<Ipv6Addr>().ok().map(|v6| v6.octets().to_vec()),
            // Names beyond ASCII are written in their ASCII form (RFC 7296 §3.5, RFC 5890).
            IdType::Fqdn => written.is_ascii() && !written.contains('*'),
            IdType::Rfc822Addr => {
                written.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty())
                    && !written.contains('*')
            }
            IdType::KeyId => true,
            _ => false,
        };
    fits.then(|| written.as_bytes().to_vec())
}

/// Pairs of hexadecimal digits.
fn octets(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    let octet = |pair: &[u8]| {
        let [high, low] = [char::from(pair[0]).to_digit(16)?, char::from(pair[1]).to_digit(16)?];
        u8::try_from(high << 4 | low).ok()
    };
    digits.len().is_multiple_of(2).then(|| digits.chunks_exact(2).map(octet).collect())?
}

/// Two identities of different types or values never read the same: what is shown is what [`Identity::parse`] reads as
/// this very identity, as short as that can be.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = TYPES.iter().find(|(_, id_type)| *id_type == self.id_type).map(|(word, _)| *word);
        let text = match (self.id_type, self.value.len()) {
            (IdType::Ipv4Addr, 4) => {
                self.value.first_chunk::<4>().map(|octets| IpAddr::from(*octets).to_string())
            }
            (IdType::Ipv6Addr, 16) => {
                self.value.first_chunk::<16>().map(|octets| IpAddr::from(*octets).to_string())
            }
            _ => core::str::from_utf8(&self.value).ok().map(ToOwned::to_owned),
        };
        let mut written =
            text.into_iter().flat_map(|text| [Some(text.clone()), word.map(|word| format!("{word}:{text}"))]);
        if let Some(written) =
            written.find_map(|text| text.filter(|text| Self::parse(text).as_ref() == Some(self)))
        {
            return f.write_str(&written);
        }
        match word {
            Some(word) => write!(f, "{word}:#")?,
            None => write!(f, "{}:#", self.id_type)?,
        }
        self.value.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which identities a key of the configuration accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityPattern {
    /// Whatever the peer says, as long as its key fits: `%any`.
    Any,
    /// This one.
    Exactly(Identity),
    /// Names of this type that end so: `*.example.org`, `*@example.org` (RFC 4301 §4.4.3.1).
    NameSuffix(IdType, String),
}

impl IdentityPattern {
    /// A pattern as swanctl users write it: `%any`, or an identity whose name may begin with a `*`; `None` where it is
    /// none.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "%any" || text == "*" {
            return Some(Self::Any);
        }
        let (id_type, written) = match typed(text) {
            Some(typed) => typed,
            None if text.contains('@') => (IdType::Rfc822Addr, text),
            None => (IdType::Fqdn, text),
        };
        match written.strip_prefix('*') {
            Some(suffix) if matches!(id_type, IdType::Fqdn | IdType::Rfc822Addr) => {
                let fits =
                    |c: char| c.is_ascii_graphic() || c.is_alphanumeric() && id_type == IdType::Rfc822Addr;
                let named = text.starts_with('@') || written.len() < text.len() || !text.contains([':', '=']);
                (named
                    && suffix.len() <= IDENTITY_LEN_MAX
                    && suffix.chars().all(fits)
                    && !suffix.contains('*'))
                .then(|| Self::NameSuffix(id_type, suffix.to_ascii_lowercase()))
            }
            _ => Identity::parse(text).map(Self::Exactly),
        }
    }

    /// How well `identity` matches: `None` not at all, else the more specific the greater.
    pub fn rank(&self, identity: &Identity) -> Option<u8> {
        match self {
            Self::Any => Some(0),
            Self::Exactly(want) => want.is_same(identity).then_some(2),
            Self::NameSuffix(id_type, suffix) => {
                let tail = identity.value.len().checked_sub(suffix.len())?;
                let tail = identity.value.get(tail..)?;
                (identity.id_type == *id_type && tail.eq_ignore_ascii_case(suffix.as_bytes())).then_some(1)
            }
        }
    }
}

impl Identity {
    /// Whether both name the same: equal, or equal names except for case (RFC 4343).
    pub fn is_same(&self, other: &Self) -> bool {
        self.id_type == other.id_type
            && match self.id_type {
                IdType::Fqdn | IdType::Rfc822Addr => self.value.eq_ignore_ascii_case(&other.value),
                _ => self.value == other.value,
            }
    }
}

impl fmt::Display for IdentityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("%any"),
            Self::Exactly(identity) => fmt::Display::fmt(identity, f),
            Self::NameSuffix(id_type, suffix) => match id_type {
                IdType::Rfc822Addr if !suffix.contains('@') => write!(f, "email:*{suffix}"),
                IdType::Fqdn if suffix.is_empty() || suffix.contains(['@', ':', '=']) => {
                    write!(f, "fqdn:*{suffix}")
                }
                IdType::Rfc822Addr if suffix.contains([':', '=']) => write!(f, "email:*{suffix}"),
                _ => write!(f, "*{suffix}"),
            },
        }
    }
}

#[cfg(test)]
mod tests;
