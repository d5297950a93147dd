//! Why a registry did not give what was asked for.

use std::{io, time::Duration};

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};

/// Longest pause that a registry may ask for; more is taken for a mistake.
pub(crate) const MAX_RETRY_AFTER: Duration = Duration::from_hours(24);
/// Most characters of a registry's own words that are told.
const MAX_SAID_CHARACTERS: usize = 200;
/// Most characters of the detail among them.
const MAX_DETAIL_CHARACTERS: usize = 120;

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
    /// The registry wants other credentials, or some at all. Some say so, too, when a quota is used up.
    #[error("{host} refuses access{}", words(.said.as_ref()))]
    Unauthorized {
        /// The registry, or the server that gives its tokens.
        host: String,
        /// Its own words.
        said: Option<String>,
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
    #[error("{host} failed with {status}{}", words(.said.as_ref()))]
    Unavailable {
        /// Who failed.
        host: String,
        /// Its HTTP status.
        status: u16,
        /// When to come again, where it says so.
        retry_after: Option<Duration>,
        /// Its own words.
        said: Option<String>,
    },
    /// A status that has no place in this protocol.
    #[error("{host} answered with {status}{}", words(.said.as_ref()))]
    Unexpected {
        /// Who answered.
        host: String,
        /// Its HTTP status.
        status: u16,
        /// Its own words.
        said: Option<String>,
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

    /// Whether the same may do well a little later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            // A certificate that is not trusted is not trusted a second later either.
            Self::Unreachable { source, .. } => !is_about_tls(source.as_ref()),
            Self::Timeout { .. } | Self::RateLimited { .. } => true,
            Self::Unavailable { status, .. } => matches!(status, 500 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// Whether the registry, or a proxy in front of it, does not take so much in one piece.
    #[must_use]
    pub const fn wants_smaller_pieces(&self) -> bool {
        matches!(
            self,
            Self::Unexpected {
                status: 405 | 411 | 413 | 416,
                ..
            }
        )
    }

    /// Who failed: the registry, or a server that it pointed to. `None` if it is nobody's fault.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Unreachable { host, .. }
            | Self::Timeout { host, .. }
            | Self::Unauthorized { host, .. }
            | Self::NotFound { host, .. }
            | Self::RateLimited { host, .. }
            | Self::Unavailable { host, .. }
            | Self::Unexpected { host, .. }
            | Self::Malformed { host, .. }
            | Self::TooLarge { host, .. }
            | Self::DigestMismatch { host, .. }
            | Self::Redirect { host, .. } => Some(host),
            Self::NoPlatform { .. } => None,
        }
    }

    /// When the registry wants to be asked again.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } | Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Whether a server could not be trusted.
fn is_about_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    causes(error).any(<dyn std::error::Error>::is::<rustls::Error>)
}

/// An error, what caused it, and so on.
pub(crate) fn causes<'error>(
    error: &'error (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'error (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| match error.downcast_ref::<io::Error>() {
        // An `io::Error` hides the error that it was made of from `source`.
        Some(error) => error.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static)),
        None => error.source(),
    })
}

/// What a registry said, behind a colon.
fn words(said: Option<&String>) -> String {
    said.map_or_else(String::new, |said| format!(": {said}"))
}

/// The words in the body of an answer other than success: one line of plain text, cut where it is too long for a sentence.
pub(crate) fn said(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<Entry>,
    }
    #[derive(serde::Deserialize)]
    struct Entry {
        code: Option<String>,
        message: Option<String>,
        detail: Option<serde_json::Value>,
    }
    let Errors { errors } = serde_json::from_slice(body).ok()?;
    let Entry { code, message, detail } = errors.into_iter().next()?;
    // What is wrong with a disk stands in here, at the end.
    let detail = detail.as_ref().and_then(serde_json::Value::as_str).map(|detail| {
        let surplus = detail.chars().count().saturating_sub(MAX_DETAIL_CHARACTERS);
        detail.chars().skip(surplus).collect()
    });
    let parts: Vec<String> = [code, message, detail]
        .into_iter()
        .flatten()
        .filter(|part| !part.is_empty())
        .collect();
    let line: String = parts
        .join(", ")
        .chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .take(MAX_SAID_CHARACTERS)
        .collect();
    (!line.trim().is_empty()).then(|| line.trim().to_owned())
}

/// The error that a status other than success says.
pub(crate) fn of_status(
    host: &str,
    status: StatusCode,
    headers: &HeaderMap,
    said: Option<String>,
    what: &str,
) -> Error {
    let host = host.to_owned();
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Unauthorized { host, said },
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
            said,
        },
        _ => Error::Unexpected {
            host,
            status: status.as_u16(),
            said,
        },
    }
}

/// `Retry-After`, in seconds or as a date.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
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

    #[test]
    fn words_of_a_registry_are_one_short_line() {
        let cases = [
            (
                r#"{"errors": [{"code": "DENIED", "message": "quota\nused \u001b[1mup"}, {"code": "X"}]}"#,
                Some("DENIED, quota used  [1mup"),
            ),
            (r#"{"errors": [{"code": "DENIED"}]}"#, Some("DENIED")),
            (r#"{"errors": [{"code": "", "message": " "}]}"#, None),
            (
                r#"{"errors": [{"code": "UNKNOWN", "message": "unknown error", "detail": "write /data: no space left on device"}]}"#,
                Some("UNKNOWN, unknown error, write /data: no space left on device"),
            ),
            (
                r#"{"errors": [{"code": "UNKNOWN", "detail": {"Name": "app"}}]}"#,
                Some("UNKNOWN"),
            ),
            (r#"{"errors": []}"#, None),
            ("<html>", None),
            ("", None),
        ];
        for (body, expected) in cases {
            assert_eq!(said(body.as_bytes()).as_deref(), expected, "{body}");
        }
        let path = "x".repeat(1000);
        let full =
            format!(r#"{{"errors": [{{"code": "UNKNOWN", "detail": "write {path}: no space left on device"}}]}}"#);
        assert!(said(full.as_bytes()).is_some_and(|said| said.ends_with("x: no space left on device")));
        let long = format!(r#"{{"errors": [{{"message": "{}"}}]}}"#, "x".repeat(1000));
        assert_eq!(said(long.as_bytes()).map(|said| said.len()), Some(MAX_SAID_CHARACTERS));
    }

    #[test]
    fn a_server_that_is_not_trusted_is_not_asked_again() {
        let unreachable = |source: io::Error| Error::Unreachable {
            host: "registry".to_owned(),
            source: source.into(),
        };
        let untrusted = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        assert!(!unreachable(io::Error::new(io::ErrorKind::InvalidData, untrusted)).is_transient());
        assert!(unreachable(io::ErrorKind::ConnectionReset.into()).is_transient());
    }
}
