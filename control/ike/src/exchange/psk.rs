//! Which pre-shared key belongs to two identities.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::config::PreSharedKey;
use crate::endpoint::Book;
use crate::error::IkeError;
use crate::identity::Identity;

/// The key whose owners fit best: the peer's identity counts more than ours, and anyone's key is the last
/// resort. Between equals the first one of the file wins.
pub(crate) fn find(
    book: &Book,
    local: &Identity,
    remote: &Identity,
) -> Result<Arc<Zeroizing<Vec<u8>>>, IkeError> {
    match best(book.secrets_of(local, remote), local, remote) {
        Some(secret) => Ok(secret.key.clone()),
        None => Err(IkeError::NoSecret { local: local.clone(), remote: remote.clone() }),
    }
}

/// The one of `secrets` that fits best.
pub(crate) fn best<'s>(
    secrets: impl IntoIterator<Item = &'s PreSharedKey>,
    local: &Identity,
    remote: &Identity,
) -> Option<&'s PreSharedKey> {
    let mut best: Option<(u32, &PreSharedKey)> = None;
    for secret in secrets {
        let rank = |identity| secret.owners.iter().filter_map(|owner| owner.rank(identity)).max();
        let score = match (rank(remote), rank(local)) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::IdentityPattern;

    fn secret(owners: &[&str], key: u8) -> PreSharedKey {
        let owners = owners.iter().map(|owner| IdentityPattern::parse(owner).expect("a pattern")).collect();
        PreSharedKey { owners, key: Arc::new(Zeroizing::new(vec![key])) }
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
            let found = best(&secrets, &gateway, &remote).expect("a key");
            assert_eq!(found.key.as_slice(), [key], "{remote}");
        }
        let stranger = Identity::parse("x.example").expect("an identity");
        assert_eq!(best(&secrets, &stranger, &stranger).expect("a key").key.as_slice(), [0]);
        assert!(best(&secrets[1..], &stranger, &stranger).is_none());
    }
}
