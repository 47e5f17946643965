//! Who gives way when both ends do the same thing at once (RFC 7296 §2.8.1, §2.8.2).

/// The lowest nonce of one exchange.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lowest(Vec<u8>);

/// The lower of the two nonces of an exchange, compared as the RFC says: octet by octet, and where one is
/// the beginning of the other, the shorter one is lower.
pub(crate) fn lowest_nonce(nonce_i: &[u8], nonce_r: &[u8]) -> Lowest {
    Lowest(nonce_i.min(nonce_r).to_vec())
}

impl Lowest {
    /// Whether the exchange of `self` made the SA that has to go: the one with the lowest of four nonces.
    pub(crate) fn loses_to(&self, other: &Self) -> bool {
        self < other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_of_four_nonces_loses() {
        let a = lowest_nonce(&[1, 9], &[7, 7]);
        let b = lowest_nonce(&[2, 0], &[1, 8]);
        assert!(b.loses_to(&a) && !a.loses_to(&b));
        assert!(lowest_nonce(&[1], &[3]).loses_to(&lowest_nonce(&[1, 0], &[3])));
    }
}
