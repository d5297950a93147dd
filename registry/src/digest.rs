//! Digests of content: SHA-256, and what else the specification knows.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256, Sha384, Sha512};

/// Makes the digest of content that comes piece by piece.
#[derive(Clone)]
pub(crate) enum Hasher {
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl Hasher {
    /// With the algorithm of `digest` where that is one, else with SHA-256.
    pub(crate) fn like(digest: &str) -> Self {
        match digest.split_once(':') {
            Some(("sha384", _)) => Self::Sha384(Sha384::new()),
            Some(("sha512", _)) => Self::Sha512(Sha512::new()),
            _ => Self::Sha256(Sha256::new()),
        }
    }

    pub(crate) fn update(&mut self, content: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(content),
            Self::Sha384(hasher) => hasher.update(content),
            Self::Sha512(hasher) => hasher.update(content),
        }
    }

    /// The digest of everything so far.
    pub(crate) fn digest(self) -> String {
        match self {
            Self::Sha256(hasher) => hex("sha256", &hasher.finalize()),
            Self::Sha384(hasher) => hex("sha384", &hasher.finalize()),
            Self::Sha512(hasher) => hex("sha512", &hasher.finalize()),
        }
    }
}

/// The digest of content, by the algorithm of `like` where that is a digest, else by SHA-256.
pub(crate) fn digest_like(like: &str, content: &[u8]) -> String {
    let mut hasher = Hasher::like(like);
    hasher.update(content);
    hasher.digest()
}

/// The SHA-256 digest of content.
#[must_use]
pub fn digest(content: &[u8]) -> String {
    digest_like("", content)
}

/// Whether a text is `algorithm:hex`, which a tag cannot be. What a registry says is looked at before it becomes part of an address.
#[must_use]
pub fn is_digest(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, hex)| {
        let length = match algorithm {
            "sha256" => 64,
            "sha384" => 96,
            "sha512" => 128,
            _ => return false,
        };
        hex.len() == length && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

fn hex(algorithm: &str, bytes: &[u8]) -> String {
    bytes.iter().fold(format!("{algorithm}:"), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_has_a_digest_of_each_algorithm() {
        assert_eq!(
            digest_like("latest", b""),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert!(digest_like("sha384:0", b"").starts_with("sha384:38b060a751ac9638"));
        assert!(digest_like("sha512:0", b"").starts_with("sha512:cf83e1357eefb8bd"));
    }

    #[test]
    fn digests_are_told_from_tags_and_paths() {
        for like in ["sha256:", "sha384:", "sha512:"] {
            assert!(is_digest(&digest_like(like, b"x")));
        }
        for other in [
            "latest",
            "sha256:abc",
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            "sha256:../../../../../../../../../../../../../../../../../../../../../../",
            "sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855",
        ] {
            assert!(!is_digest(other), "{other}");
        }
    }
}
