//! Why an image is not on a node.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why an image is not on a node, or still is, as a word that programs can match on. The sentence for people stands beside it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub enum FailureReason {
    /// The registry has no such repository, tag or digest.
    NotFound,
    /// The registry wants credentials, or refused those it was given.
    Unauthorized,
    /// The registry could not be reached, or answered with a server error or with something else than what was asked for.
    RegistryUnavailable,
    /// The registry asked for fewer requests (HTTP 429).
    RateLimited,
    /// The attempt took longer than the Prefetch's `timeout`.
    Timeout,
    /// The node is under disk pressure, so nothing is pulled.
    DiskPressure,
    /// The image filesystem has no room for the image.
    NoSpace,
    /// The reference is not an image reference.
    InvalidReference,
    /// The image has no variant for the node's platform.
    PlatformMismatch,
    /// A pull secret does not exist, or the agent may not read it.
    PullSecretUnreadable,
    /// The container runtime does not answer.
    RuntimeUnavailable,
    /// An image that is to be taken away stays, because something still needs it.
    RemovalRefused,
    /// Anything else; the message has the runtime's own words.
    Unknown,
}

impl FailureReason {
    /// Every reason.
    pub const ALL: [Self; 13] = [
        Self::NotFound,
        Self::Unauthorized,
        Self::RegistryUnavailable,
        Self::RateLimited,
        Self::Timeout,
        Self::DiskPressure,
        Self::NoSpace,
        Self::InvalidReference,
        Self::PlatformMismatch,
        Self::PullSecretUnreadable,
        Self::RuntimeUnavailable,
        Self::RemovalRefused,
        Self::Unknown,
    ];

    /// The reason as it is written in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "NotFound",
            Self::Unauthorized => "Unauthorized",
            Self::RegistryUnavailable => "RegistryUnavailable",
            Self::RateLimited => "RateLimited",
            Self::Timeout => "Timeout",
            Self::DiskPressure => "DiskPressure",
            Self::NoSpace => "NoSpace",
            Self::InvalidReference => "InvalidReference",
            Self::PlatformMismatch => "PlatformMismatch",
            Self::PullSecretUnreadable => "PullSecretUnreadable",
            Self::RuntimeUnavailable => "RuntimeUnavailable",
            Self::RemovalRefused => "RemovalRefused",
            Self::Unknown => "Unknown",
        }
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_displayed_as_the_api_shows_it() {
        for reason in FailureReason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.to_string());
        }
        let schema = schemars::schema_for!(FailureReason);
        let variants = schema.as_value()["oneOf"].as_array().unwrap();
        let in_schema: Vec<&str> = variants
            .iter()
            .filter_map(|variant| variant["const"].as_str())
            .collect();
        assert_eq!(in_schema, FailureReason::ALL.map(FailureReason::as_str));
    }
}
