//! What went wrong, from the words of the container runtime.
//!
//! CRI has no error codes for pulls: containerd answers `Unknown` to every failed one, so the text decides.

use std::error::Error as _;

use coral_api::{FailureReason, node_images::MAX_MESSAGE_LENGTH};
use tonic::Code;

/// Why an attempt failed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// The kind of failure.
    pub reason: FailureReason,
    /// A sentence for people; at most [`MAX_MESSAGE_LENGTH`] characters.
    pub message: String,
}

/// Words of runtimes and registries, most telling first: the first row of which a word occurs gives the reason.
const WORDS: &[(FailureReason, &[&str])] = &[
    (
        FailureReason::NoSpace,
        &["no space left on device", "disk quota exceeded"],
    ),
    (
        FailureReason::PlatformMismatch,
        &[
            "no match for platform in manifest",
            "no matching manifest for",
            "no image found in image index for architecture",
            "no image found in manifest list for architecture",
        ],
    ),
    (
        FailureReason::RateLimited,
        &[
            "429 too many requests",
            "toomanyrequests",
            "too many requests",
            "rate limit",
        ],
    ),
    (
        FailureReason::Unauthorized,
        &[
            "401 unauthorized",
            "403 forbidden",
            "unauthorized",
            "authentication required",
            "authorization failed",
            "pull access denied",
            "insufficient_scope",
            "no basic auth credentials",
            "denied:",
            "access to the resource is denied",
        ],
    ),
    (
        FailureReason::RegistryUnavailable,
        &[
            "connection refused",
            "connection reset",
            "no such host",
            "no route to host",
            "network is unreachable",
            "i/o timeout",
            "tls handshake timeout",
            "x509:",
            "tls:",
            "server gave http response to https client",
            "500 internal server error",
            "502 bad gateway",
            "503 service unavailable",
            "504 gateway timeout",
            "unexpected eof",
            ": eof",
            "server misbehaving",
            "temporary failure in name resolution",
        ],
    ),
    (
        FailureReason::NotFound,
        &[
            "not found",
            "manifest unknown",
            "name unknown",
            "repository does not exist",
            "404",
        ],
    ),
    (
        FailureReason::InvalidReference,
        &[
            "invalid reference format",
            "failed to parse image reference",
            "could not parse reference",
        ],
    ),
    (
        FailureReason::Timeout,
        &[
            "context deadline exceeded",
            "deadline exceeded",
            "client.timeout exceeded",
        ],
    ),
];

/// The failure that a runtime's answer to a call means.
#[must_use]
pub fn classify(status: &tonic::Status) -> Failure {
    // tonic reports a socket that is not there, or a connection that breaks, with an error of its transport as source.
    let is_transport = status.source().is_some();
    let reason = if is_transport || status.code() == Code::Unavailable {
        FailureReason::RuntimeUnavailable
    } else {
        classify_text(status.message())
    };
    let message = if is_transport {
        format!("the container runtime does not answer: {}", innermost(status))
    } else {
        shorten(status.message())
    };
    Failure { reason, message }
}

/// The reason that the words of a runtime mean.
#[must_use]
pub fn classify_text(text: &str) -> FailureReason {
    let text = text.to_lowercase();
    WORDS
        .iter()
        .find(|(_, words)| words.iter().any(|word| text.contains(word)))
        .map_or(FailureReason::Unknown, |(reason, _)| *reason)
}

fn innermost(status: &tonic::Status) -> String {
    let mut source = status.source();
    let mut message = status.message().to_owned();
    while let Some(error) = source {
        message = error.to_string();
        source = error.source();
    }
    shorten(&message)
}

/// What tells most stands at the end of a runtime's message, so a long one loses its middle. Credentials in URLs go.
fn shorten(message: &str) -> String {
    let message = without_userinfo(message.trim());
    let characters: Vec<char> = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if characters.len() <= MAX_MESSAGE_LENGTH {
        return characters.into_iter().collect();
    }
    let half = (MAX_MESSAGE_LENGTH - 3) / 2;
    let start: String = characters[..half].iter().collect();
    let end: String = characters[characters.len() - half..].iter().collect();
    format!("{start} … {end}")
}

/// Takes `user:password@` and query strings, which carry tokens, out of the URLs of a message.
fn without_userinfo(message: &str) -> String {
    let mut shown = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(position) = rest.find("://") {
        let (before, after) = rest.split_at(position + "://".len());
        shown.push_str(before);
        let end = after
            .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ')' | '>'))
            .unwrap_or(after.len());
        let (url, tail) = after.split_at(end);
        let authority = url.find('/').unwrap_or(url.len());
        let url = match url[..authority].rfind('@') {
            Some(at) => &url[at + 1..],
            None => url,
        };
        match url.split_once('?') {
            Some((path, query)) => {
                shown.push_str(path);
                shown.push_str("?…");
                // The colon that ends a URL in Go's error chains is not part of the query.
                if query.ends_with(':') {
                    shown.push(':');
                }
            }
            None => shown.push_str(url),
        }
        rest = tail;
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_runtimes_have_a_reason() {
        let cases = [
            (
                r#"failed to pull and unpack image "h:5000/a:b": failed to resolve reference "h:5000/a:b": h:5000/a:b: not found"#,
                FailureReason::NotFound,
            ),
            (
                r#"failed to pull and unpack image "docker.io/library/nope:1": failed to resolve reference "docker.io/library/nope:1": pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed"#,
                FailureReason::Unauthorized,
            ),
            (
                r#"failed to resolve reference "h/a:b": unexpected status from HEAD request to https://h/v2/a/manifests/b: 401 Unauthorized"#,
                FailureReason::Unauthorized,
            ),
            (
                r#"failed to do request: Head "https://h:1/v2/a/manifests/b": dial tcp 127.0.0.1:1: connect: connection refused"#,
                FailureReason::RegistryUnavailable,
            ),
            (
                r#"failed to do request: Head "https://no.example/v2/": dial tcp: lookup no.example on 10.0.0.10:53: no such host"#,
                FailureReason::RegistryUnavailable,
            ),
            (
                r#"failed to do request: Head "https://h/v2/": tls: failed to verify certificate: x509: certificate signed by unknown authority"#,
                FailureReason::RegistryUnavailable,
            ),
            (
                "failed to copy: httpReadSeeker: failed open: unexpected status code https://registry-1.docker.io/v2/library/nginx/manifests/1: 429 Too Many Requests - Server message: toomanyrequests: You have reached your pull rate limit.",
                FailureReason::RateLimited,
            ),
            (
                "failed to extract layer sha256:0: write /var/lib/x: no space left on device: unknown",
                FailureReason::NoSpace,
            ),
            (
                r#"failed to pull and unpack image "a": no match for platform in manifest: not found"#,
                FailureReason::PlatformMismatch,
            ),
            (
                "unexpected status from HEAD request to https://h/v2/a/manifests/b: 503 Service Unavailable",
                FailureReason::RegistryUnavailable,
            ),
            ("something new", FailureReason::Unknown),
        ];
        for (text, reason) in cases {
            assert_eq!(classify_text(text), reason, "{text}");
        }
    }

    #[test]
    fn urls_lose_their_credentials() {
        assert_eq!(
            without_userinfo(r#"Get "https://user:secret@h:5000/v2/?token=abc": EOF, see https://h/x?sig=abc: no"#),
            r#"Get "https://h:5000/v2/?…": EOF, see https://h/x?…: no"#
        );
        assert_eq!(without_userinfo("nothing to see"), "nothing to see");
        assert_eq!(without_userinfo("https://"), "https://");
    }

    #[test]
    fn long_messages_keep_both_ends() {
        let shown = shorten(&format!("start{}\nend", "x".repeat(5_000)));
        assert!(shown.chars().count() <= MAX_MESSAGE_LENGTH);
        assert!(shown.starts_with("start") && shown.ends_with("end"));
    }
}
