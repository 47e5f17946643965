//! What the tests of several modules need.

use pollux_ike::crypto::Rng;

/// Octets from hexadecimal digits; anything else between them is ignored.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let octet = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).expect("digits");
        u8::from_str_radix(text, 16).expect("two digits")
    };
    digits.chunks(2).map(octet).collect()
}

/// "Randomness" that is what the test says.
pub(crate) struct Fixed(pub(crate) Vec<u8>);

impl Rng for Fixed {
    fn fill(&mut self, out: &mut [u8]) {
        out.copy_from_slice(&self.0[..out.len()]);
    }
}
