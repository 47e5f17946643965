//! Which pre-shared key belongs to a connection and two identities.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::config::PreSharedKey;
use crate::endpoint::ConnectionIndex;
use crate::error::IkeError;
use crate::identity::Identity;
use crate::message::AuthMethod;

/// The authentication methods that we speak, as the operator reads them.
pub(crate) const METHODS: &str = "a pre-shared key";

/// The key that the connection names; else the one whose owners fit best: the peer's identity counts more than
/// ours, and anyone's key is the last resort. Between equals the first one of the file wins.
pub(crate) fn find(
    connection_index: &ConnectionIndex,
    connection: &str,
    local: &Identity,
    remote: &Identity,
) -> Result<Arc<Zeroizing<Vec<u8>>>, IkeError> {
    let secret = best(connection_index.secrets_of(connection, local, remote), connection, local, remote);
    let secret = secret.ok_or_else(|| {
        let key = decides(connection);
        IkeError::NoSecret { local: local.clone(), remote: remote.clone(), key }
    })?;
    Ok(secret.key.clone())
}

/// An AUTH that does not prove what it should.
pub(crate) fn wrong_auth(connection: &str, identity: &Identity, method: AuthMethod) -> IkeError {
    IkeError::AuthenticationFailed {
        offered: format!("to be {identity}, by {method}"),
        accepted: "the pre-shared key that we have for it".to_owned(),
        key: decides(connection),
    }
}

/// What in the configuration says which key belongs to a connection.
pub(crate) fn decides(connection: &str) -> String {
    format!("connection.{connection}.psk, or else ids in the secrets file,")
}

/// The one of `secrets` that fits best.
pub(crate) fn best<'s>(
    secrets: impl IntoIterator<Item = &'s PreSharedKey>,
    connection: &str,
    local: &Identity,
    remote: &Identity,
) -> Option<&'s PreSharedKey> {
    let mut best: Option<(u32, &PreSharedKey)> = None;
    for secret in secrets {
        let rank = |identity| secret.owners.iter().filter_map(|owner| owner.rank(identity)).max();
        let named = secret.connection.as_deref();
        let score = match (rank(remote), rank(local)) {
            _ if named.is_some_and(|name| name != connection) => continue,
            _ if named.is_some() => NAMED,
            (Some(remote), ours) => 10 + 10 * u32::from(remote) + ours.map_or(0, |ours| 1 + u32::from(ours)),
            (None, Some(_)) if secret.owners.len() == 1 => 5,
            (None, _) if secret.owners.is_empty() => 1,
            (None, _) => continue,
        };
        if best.is_none_or(|(known, _)| score > known) {
            best = Some((score, secret));
        }
    }
    best.map(|(_, secret)| secret)
}

/// More than any owner counts.
const NAMED: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::IdentityPattern;

    fn secret(owners: &[&str], key: u8) -> PreSharedKey {
        let owners = owners.iter().map(|owner| IdentityPattern::parse(owner).expect("a pattern")).collect();
        PreSharedKey { connection: None, owners, key: Arc::new(Zeroizing::new(vec![key])) }
    }

    #[test]
    fn the_best_fitting_key_is_found() {
        let secrets = [
            secret(&[], 0),
            secret(&["*.phones.example"], 1),
            secret(&["gw.example", "p1.phones.example"], 2),
            secret(&["gw.example"], 3),
        ];
        let gateway = Identity::parse("gw.example").expect("an identity");
        for (remote, key) in [("p1.phones.example", 2), ("p2.phones.example", 1), ("other.example", 3)] {
            let remote = Identity::parse(remote).expect("an identity");
            let found = best(&secrets, "c", &gateway, &remote).expect("a key");
            assert_eq!(found.key.as_slice(), [key], "{remote}");
        }
        let stranger = Identity::parse("x.example").expect("an identity");
        assert_eq!(best(&secrets, "c", &stranger, &stranger).expect("a key").key.as_slice(), [0]);
        assert!(best(&secrets[1..], "c", &stranger, &stranger).is_none());
    }

    #[test]
    fn a_key_that_a_connection_names_is_its_own_and_no_others() {
        let named =
            |connection: &str, key| PreSharedKey { connection: Some(connection.into()), ..secret(&[], key) };
        let secrets = [secret(&["b.example"], 0), named("one", 1), named("two", 2)];
        let [a, b] = ["a.example", "b.example"].map(|name| Identity::parse(name).expect("an identity"));
        for (connection, key) in [("one", 1), ("two", 2), ("three", 0)] {
            let found = best(&secrets, connection, &a, &b).expect("a key");
            assert_eq!(found.key.as_slice(), [key], "{connection}");
        }
        assert!(best(&secrets[1..], "three", &a, &b).is_none());
    }
}
