//! Short names for long contents.

use sha2::{Digest, Sha256};

/// The first `digits` hex digits of the SHA-256 of some bytes.
pub(crate) fn fingerprint(bytes: impl AsRef<[u8]>, digits: usize) -> String {
    let digest = Sha256::digest(bytes);
    let halves = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    halves
        .take(digits)
        .filter_map(|half| char::from_digit(u32::from(half), 16))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprint_is_the_beginning_of_the_digest() {
        assert_eq!(fingerprint("abc", 8), "ba7816bf");
    }
}
