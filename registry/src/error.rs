//! Why a registry did not give what was asked for.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};

/// Longest pause that a registry may ask for; more is taken for a mistake.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(24);

/// Result of a question to a registry.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a registry did not give what was asked for. Hosts are named, never paths with queries, tokens or credentials.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection, or one that broke.
    #[error("the registry {host} cannot be reached")]
    Unreachable {
        /// Host and port that were tried.
        host: String,
        /// What went wrong below HTTP.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No whole answer in time.
    #[error("the registry {host} gave no answer in {} s", .after.as_secs())]
    Timeout {
        /// The registry.
        host: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The registry wants other credentials, or some at all.
    #[error("{host} refuses access")]
    Unauthorized {
        /// The registry, or the server that gives its tokens.
        host: String,
    },
    /// There is no such repository or manifest, or it is hidden from those credentials.
    #[error("the registry {host} has no {what}")]
    NotFound {
        /// The registry.
        host: String,
        /// Repository and tag or digest.
        what: String,
    },
    /// Too many requests (429).
    #[error("{host} wants fewer requests")]
    RateLimited {
        /// Who said so.
        host: String,
        /// When to come again, where it says so.
        retry_after: Option<Duration>,
    },
    /// The server failed (5xx).
    #[error("{host} failed with {status}")]
    Unavailable {
        /// Who failed.
        host: String,
        /// Its HTTP status.
        status: u16,
        /// When to come again, where it says so.
        retry_after: Option<Duration>,
    },
    /// A status that has no place in this protocol.
    #[error("{host} answered with {status}")]
    Unexpected {
        /// Who answered.
        host: String,
        /// Its HTTP status.
        status: u16,
    },
    /// An answer that is not what the specification says.
    #[error("{host} sent {what}")]
    Malformed {
        /// Who sent it.
        host: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An answer that is larger than anything that makes sense.
    #[error("{host} sent more than {limit} bytes")]
    TooLarge {
        /// Who sent it.
        host: String,
        /// The most that is read, in bytes.
        limit: usize,
    },
    /// The content is not what its digest says.
    #[error("{host} sent something else than {digest}")]
    DigestMismatch {
        /// The registry.
        host: String,
        /// What was asked for.
        digest: String,
    },
    /// A redirect, or the address of a token server, that is not followed.
    #[error("{host} points to a place that is not gone to: {why}")]
    Redirect {
        /// Who pointed there.
        host: String,
        /// Why it is not followed.
        why: RedirectRefusal,
    },
    /// The index has no image for the platform.
    #[error("the image has nothing for {platform}")]
    NoPlatform {
        /// What was looked for, e.g. `linux/arm64`.
        platform: String,
    },
}

/// Why the place that a registry points to is not gone to.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RedirectRefusal {
    /// No `Location`, or not an address of HTTP.
    #[error("it is not an HTTP address")]
    Malformed,
    /// From HTTPS to HTTP.
    #[error("it leaves HTTPS")]
    Downgrade,
    /// An address of this machine or of this link, where metadata services are.
    #[error("it is an address of this machine or of this link")]
    Local,
    /// One redirect after the other.
    #[error("there are too many redirects")]
    TooMany,
}

impl Error {
    /// Whether other credentials could change the answer. Registries hide what one may not see behind "not found".
    #[must_use]
    pub const fn may_be_about_credentials(&self) -> bool {
        matches!(self, Self::Unauthorized { .. } | Self::NotFound { .. })
    }

    /// Whether the connection is at fault, and another one may do.
    pub(crate) const fn is_interruption(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Timeout { .. })
    }
}

/// The error that a status other than success says.
pub(crate) fn of_status(host: &str, status: StatusCode, headers: &HeaderMap, what: &str) -> Error {
    let host = host.to_owned();
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Unauthorized { host },
        StatusCode::NOT_FOUND => Error::NotFound {
            host,
            what: what.to_owned(),
        },
        StatusCode::TOO_MANY_REQUESTS => Error::RateLimited {
            host,
            retry_after: retry_after(headers),
        },
        _ if status.is_server_error() => Error::Unavailable {
            host,
            status: status.as_u16(),
            retry_after: retry_after(headers),
        },
        _ => Error::Unexpected {
            host,
            status: status.as_u16(),
        },
    }
}

/// `Retry-After`, in seconds or as a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(value)
            .ok()?
            .duration_since(std::time::SystemTime::now())
            .unwrap_or_default(),
    };
    Some(pause.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn told(value: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, value.parse().unwrap());
        retry_after(&headers)
    }

    #[test]
    fn a_pause_is_a_number_or_a_date() {
        assert_eq!(told("17"), Some(Duration::from_secs(17)));
        assert_eq!(told("999999999"), Some(MAX_RETRY_AFTER));
        assert_eq!(told("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let in_a_minute = httpdate::fmt_http_date(SystemTime::now() + Duration::from_mins(1));
        assert!(told(&in_a_minute).is_some_and(|pause| pause > Duration::from_secs(50)));
        assert_eq!(told("soon"), None);
        assert_eq!(told("-1"), None);
    }
}
