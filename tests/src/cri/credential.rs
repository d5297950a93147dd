//! Credentials, told apart but never kept.

use std::fmt;

use coral_proto::runtime_v1::AuthConfig;
use sha2::{Digest as _, Sha256};

/// What is kept of credentials: enough to see whether two are the same, not enough to show them.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct CredentialPrint([u8; 32]);

impl CredentialPrint {
    /// The print of a user's password.
    #[must_use]
    pub fn of(username: &str, password: &str) -> Self {
        let mut hasher = Sha256::new();
        // The length keeps `ab` + `c` and `a` + `bc` apart.
        hasher.update(username.len().to_le_bytes());
        hasher.update(username);
        hasher.update(password);
        Self(hasher.finalize().into())
    }

    /// The print of what a client sent; none for an anonymous pull.
    pub(super) fn received(auth: &AuthConfig) -> Self {
        let password = if auth.password.is_empty() {
            &auth.identity_token
        } else {
            &auth.password
        };
        Self::of(&auth.username, password)
    }
}

impl fmt::Debug for CredentialPrint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CredentialPrint")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_tell_credentials_apart_and_show_nothing() {
        let print = CredentialPrint::of("user", "word");
        assert_eq!(print, CredentialPrint::of("user", "word"));
        for (username, password) in [("use", "rword"), ("user", "Word"), ("", "")] {
            assert_ne!(print, CredentialPrint::of(username, password));
        }
        let received = AuthConfig {
            username: "user".to_owned(),
            identity_token: "word".to_owned(),
            ..AuthConfig::default()
        };
        assert_eq!(CredentialPrint::received(&received), print);
        assert_eq!(format!("{print:?}"), "CredentialPrint");
    }
}
