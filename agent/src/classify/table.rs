//! The words that tell the reason of a failure.

use coral_api::FailureReason;

use super::message::without_artifact;

/// Words of runtimes and registries, in lower case. The first row of which words occur gives the reason, so that what is more
/// special stands above what is more general; `Unknown` rows are decisions, which keep words below them from being heard.
const WORDS: &[(FailureReason, &[&str])] = &[
    (
        FailureReason::InvalidReference,
        &["invalid reference format", "failed to parse image reference"],
    ),
    (
        FailureReason::NoSpace,
        &["no space left on device", "disk quota exceeded"],
    ),
    // A part of the runtime, such as a remote snapshotter. Registries are never behind a socket.
    (
        FailureReason::RuntimeUnavailable,
        &[
            "transport: error while dialing",
            "dial unix",
            "server is not initialized yet",
        ],
    ),
    (
        FailureReason::PlatformMismatch,
        &[
            "no match for platform in manifest",
            "no matching manifest for",
            "no image found in image index for architecture",
            "no image found in manifest list for architecture",
            "image architecture mismatch",
        ],
    ),
    // A policy of the node refuses the image, which no registry and no credential changes.
    (
        FailureReason::Unknown,
        &["signaturevalidationfailed", "source image rejected"],
    ),
    (
        FailureReason::RateLimited,
        &[
            "too many requests",
            "toomanyrequests",
            "statuscode: 429",
            "rate limit",
            "rate exceeded",
        ],
    ),
    // Google's registries say it in the words of a file system.
    (FailureReason::Unauthorized, &["denied: permission denied for"]),
    // What is wrong on the node itself; its "not found", "denied" and "EOF" are not the registry's.
    (
        FailureReason::Unknown,
        &[
            "failed to extract layer",
            "failed to prepare extraction snapshot",
            "parent snapshot",
            "content digest",
            "permission denied",
            "read-only file system",
            "input/output error",
            "locked for",
        ],
    ),
    // A proxy between node and registry, whose password is no pull secret; and a mirror that is full.
    (
        FailureReason::RegistryUnavailable,
        &[
            "proxyconnect tcp",
            "proxy authentication required",
            "quota has been exceeded",
        ],
    ),
    (
        FailureReason::Unauthorized,
        &[
            "403 forbidden",
            "statuscode: 401",
            "statuscode: 403",
            "unauthorized",
            "authentication required",
            "authorization failed",
            "pull access denied",
            "insufficient_scope",
            "no basic auth credentials",
            "access to the resource is denied",
            "denied:",
            ": denied",
        ],
    ),
    // It cannot be reached, or what it says makes no sense: also bytes that are not those of their digest.
    (
        FailureReason::RegistryUnavailable,
        &[
            "registryunavailable:",
            "dial tcp",
            "connection refused",
            "connection reset",
            "connection timed out",
            "connection broken",
            "broken pipe",
            "no such host",
            "no route to host",
            "network is unreachable",
            "server misbehaving",
            "temporary failure in name resolution",
            "i/o timeout",
            "tls handshake timeout",
            "client.timeout exceeded",
            "x509:",
            "tls:",
            "http2:",
            "stream error: stream id",
            "server gave http response to https client",
            "malformed http response",
            "stopped after 10 redirects",
            "400 bad request",
            "408 request timeout",
            "500 internal server error",
            "502 bad gateway",
            "503 service unavailable",
            "504 gateway timeout",
            "statuscode: 5",
            "unable to decode token response",
            "invalid character '<'",
            "text/html",
            "unexpected commit digest",
            "digest did not match",
            "short read",
            "unexpected eof",
            ": eof",
        ],
    ),
    (
        FailureReason::NotFound,
        &[
            "statuscode: 404",
            "not found",
            "manifest unknown",
            "name unknown",
            "blob unknown",
            "repository does not exist",
        ],
    ),
    // The attempt's own end is not told by the runtime: these are its own limits, such as containerd's on pulls without progress.
    (FailureReason::Timeout, &["deadline exceeded", "context canceled"]),
];

/// Words with a slash that are no names, paths or URLs.
const SLASHED_WORDS: &[&str] = &["i/o", "input/output", "text/html"];

/// The reason that the words of a runtime mean, if they mean one.
pub(super) fn reason(text: &str) -> Option<FailureReason> {
    let text = words(without_artifact(text));
    WORDS
        .iter()
        .find(|(_, needles)| needles.iter().any(|needle| contains(&text, needle)))
        .map(|(reason, _)| *reason)
}

/// Whether gRPC gave up on a message, on either side, because of its size.
pub(super) fn is_too_large(text: &str) -> bool {
    ["message larger than max", "message length too large"]
        .iter()
        .any(|needle| text.contains(needle))
}

/// The text in lower case without what people name: images, paths and URLs, in which any word can occur. Parentheses go, too, so that
/// `404 Not Found` and `404 (Not Found)` are the same.
fn words(text: &str) -> String {
    let words: Vec<String> = text
        .split_whitespace()
        .map(|word| word.trim_matches(['(', ')', '"', '\\']).to_lowercase())
        .map(|word| match word {
            name if name.contains('/') && !SLASHED_WORDS.contains(&name.trim_end_matches(':')) => {
                // In Go's chains of errors the colon tells that a cause follows.
                if name.ends_with(':') {
                    ":".to_owned()
                } else {
                    String::new()
                }
            }
            word => word,
        })
        .filter(|word| !word.is_empty())
        .collect();
    words.join(" ")
}

/// Whether the needle occurs as whole words, so that neither `1404 not found` nor `unauthorized.example.com` is heard. A needle that
/// ends with a digit is the beginning of a number.
fn contains(text: &str, needle: &str) -> bool {
    let is_inner = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_');
    let starts_with_word = needle.starts_with(is_inner);
    let ends_with_word = needle.ends_with(char::is_alphabetic);
    text.match_indices(needle).any(|(position, _)| {
        let before = text[..position].chars().next_back();
        let mut after = text[position + needle.len()..].chars();
        let is_start = !starts_with_word || !before.is_some_and(|c| is_inner(c) || c == '.');
        let is_end = !ends_with_word
            || match after.next() {
                Some('.') => !after.next().is_some_and(is_inner),
                next => !next.is_some_and(is_inner),
            };
        is_start && is_end
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_not_words() {
        let names = [
            r#"failed to resolve reference "h:429/too-many-requests/unauthorized:403": something new"#,
            "fetch h/unauthorized: something new",
            "Get https://h/denied: something new",
            "lookup unauthorized.example.com: something new",
            "sha256:404404404 something new",
            "1404 not foundation",
            "port :404: something new",
        ];
        for name in names {
            assert_eq!(reason(name), None, "{name}");
        }
    }

    #[test]
    fn words_are_heard_at_either_end_and_in_parentheses() {
        for text in [
            "unauthorized",
            "h/a: unauthorized",
            "unauthorized: h/a",
            "(unauthorized)",
            "Unauthorized.",
        ] {
            assert_eq!(reason(text), Some(FailureReason::Unauthorized), "{text}");
        }
        for text in [
            "status 404 (Not Found)",
            "StatusCode: 404, <html>",
            "h/a:404: not found",
        ] {
            assert_eq!(reason(text), Some(FailureReason::NotFound), "{text}");
        }
        assert_eq!(reason("StatusCode: 502, x"), Some(FailureReason::RegistryUnavailable));
    }

    #[test]
    fn table_is_in_lower_case_and_has_no_word_twice() {
        let mut seen = std::collections::HashSet::new();
        for needle in WORDS.iter().flat_map(|(_, needles)| *needles) {
            assert_eq!(*needle, needle.to_lowercase());
            assert!(seen.insert(needle), "{needle}");
        }
    }

    #[test]
    fn no_row_hides_all_words_of_a_later_one() {
        for (index, (expected, needles)) in WORDS.iter().enumerate() {
            for needle in *needles {
                let earlier = WORDS[..index]
                    .iter()
                    .find(|(_, earlier)| earlier.iter().any(|other| contains(needle, other)));
                assert_eq!(earlier.map(|(reason, _)| *reason), None, "{needle} of {expected}");
            }
        }
    }
}
