//! Identities as peers claim them (RFC 7296 §3.5), and patterns that configuration matches them with.

use core::fmt;
use core::net::IpAddr;

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

    /// An identity as swanctl users write it: an address, a name, `user@host`, `@name` for a name that
    /// looks otherwise, or `keyid:` and any octets.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > IDENTITY_LEN_MAX {
            return None;
        }
        if let Ok(address) = text.parse() {
            return Some(Self::address(address));
        }
        let (id_type, value) = match (text.strip_prefix("keyid:"), text.strip_prefix('@')) {
            (Some(key_id), _) => (IdType::KeyId, key_id),
            (None, Some(name)) => (IdType::Fqdn, name),
            (None, None) if text.contains('@') => (IdType::Rfc822Addr, text),
            (None, None) => (IdType::Fqdn, text),
        };
        (!value.is_empty()).then(|| Self { id_type, value: value.as_bytes().to_vec() })
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

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id_type {
            IdType::Ipv4Addr => match self.value.first_chunk::<4>() {
                Some(octets) if self.value.len() == 4 => write!(f, "{}", IpAddr::from(*octets)),
                _ => write!(f, "ipv4:{}", self.value.escape_ascii()),
            },
            IdType::Ipv6Addr => match self.value.first_chunk::<16>() {
                Some(octets) if self.value.len() == 16 => write!(f, "{}", IpAddr::from(*octets)),
                _ => write!(f, "ipv6:{}", self.value.escape_ascii()),
            },
            IdType::Fqdn | IdType::Rfc822Addr => write!(f, "{}", self.value.escape_ascii()),
            IdType::KeyId => write!(f, "keyid:{}", self.value.escape_ascii()),
            other => write!(f, "{other}:{}", self.value.escape_ascii()),
        }
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
    /// Names that end so: `*.example.org`.
    NameSuffix(String),
}

impl IdentityPattern {
    /// A pattern as swanctl users write it; `None` where it is none.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix('*') {
            _ if text == "%any" || text == "*" => Some(Self::Any),
            Some(suffix) => Some(Self::NameSuffix(suffix.to_ascii_lowercase())),
            None => Identity::parse(text).map(Self::Exactly),
        }
    }

    /// How well `identity` matches: `None` not at all, else the more specific the greater.
    pub fn rank(&self, identity: &Identity) -> Option<u8> {
        match self {
            Self::Any => Some(0),
            Self::Exactly(want) => want.is_same(identity).then_some(2),
            Self::NameSuffix(suffix) => {
                let named = matches!(identity.id_type, IdType::Fqdn | IdType::Rfc822Addr);
                let tail = identity.value.len().checked_sub(suffix.len())?;
                let tail = identity.value.get(tail..)?;
                (named && tail.eq_ignore_ascii_case(suffix.as_bytes())).then_some(1)
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
            Self::NameSuffix(suffix) => write!(f, "*{suffix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_read_and_print_as_operators_write_them() {
        for (text, id_type) in [
            ("192.0.2.1", IdType::Ipv4Addr),
            ("2001:db8::1", IdType::Ipv6Addr),
            ("gw.example", IdType::Fqdn),
            ("a@gw.example", IdType::Rfc822Addr),
        ] {
            let identity = Identity::parse(text).expect("an identity");
            assert_eq!((identity.id_type(), identity.to_string().as_str()), (id_type, text));
        }
        assert_eq!(Identity::parse("keyid:phone").map(|id| id.id_type()), Some(IdType::KeyId));
        assert_eq!(Identity::parse("@192.0.2.1").map(|id| id.id_type()), Some(IdType::Fqdn));
        assert_eq!(Identity::parse(""), None);
    }

    #[test]
    fn patterns_rank_the_exact_identity_above_the_wildcard() {
        let phone = Identity::parse("p1.phones.example").expect("an identity");
        let rank = |text| IdentityPattern::parse(text).expect("a pattern").rank(&phone);
        assert_eq!(rank("P1.phones.EXAMPLE"), Some(2));
        assert_eq!(rank("*.phones.example"), Some(1));
        assert_eq!(rank("%any"), Some(0));
        assert_eq!(rank("p2.phones.example"), None);
        assert_eq!(rank("192.0.2.1"), None);
    }
}
