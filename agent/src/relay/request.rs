//! What of a client's request goes to the registry, and what of the answer comes back.

use http::{HeaderMap, HeaderName, Method, header};

/// Why a request is not passed on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Refusal {
    /// It would change something, or is no question.
    Method,
    /// It is about something that nodes do not need.
    Path,
}

/// What a registry needs to know of a client. Credentials are not among it: the relay has its own.
const ASKED: [HeaderName; 4] = [
    header::ACCEPT,
    header::RANGE,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
];

/// What a client needs to know of the answer.
const ANSWERED: [HeaderName; 14] = [
    header::ACCEPT_RANGES,
    header::CACHE_CONTROL,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::ETAG,
    header::LAST_MODIFIED,
    header::LINK,
    header::LOCATION,
    header::RETRY_AFTER,
    HeaderName::from_static("docker-content-digest"),
    HeaderName::from_static("docker-distribution-api-version"),
    HeaderName::from_static("oci-filters-applied"),
    HeaderName::from_static("oci-subject"),
];

/// Whether a request is passed on: a question for the registry itself, a manifest, a blob or referrers. Lists of repositories and tags are
/// not: no container runtime asks for them.
pub(super) fn check(method: &Method, path: &str) -> Result<(), Refusal> {
    let rest = path.strip_prefix("/v2/").ok_or(Refusal::Path)?;
    let parts: Vec<&str> = rest.split('/').collect();
    let is_wanted = match parts.as_slice() {
        [""] => true,
        [repository @ .., kind, reference] => {
            ["manifests", "blobs", "referrers"].contains(kind)
                && !repository.is_empty()
                && repository.iter().all(|part| is_name(part))
                && is_name(reference)
        }
        _ => false,
    };
    if !is_wanted {
        return Err(Refusal::Path);
    }
    if matches!(*method, Method::GET | Method::HEAD) {
        Ok(())
    } else {
        Err(Refusal::Method)
    }
}

/// A part of a repository's name, a tag or a digest, as far as it matters here: nothing that means another path to somebody.
fn is_name(part: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '+');
    !part.is_empty() && !part.starts_with('.') && part.chars().all(is_plain)
}

/// The headers with which the registry is asked.
pub(super) fn asked(client: &HeaderMap) -> HeaderMap {
    only(client, &ASKED)
}

/// The headers with which the client is answered.
pub(super) fn answered(registry: &HeaderMap) -> HeaderMap {
    only(registry, &ANSWERED)
}

fn only(headers: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    let mut kept = HeaderMap::with_capacity(names.len());
    for name in names {
        for value in headers.get_all(name) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_questions_for_images_are_passed_on() {
        let digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
        let blob = format!("/v2/mirror/docker.io/library/nginx/blobs/{digest}");
        let referrers = format!("/v2/a/referrers/{digest}");
        for path in [
            "/v2/",
            "/v2/mirror/docker.io/library/nginx/manifests/1.29",
            "/v2/a/manifests/latest",
            &blob,
            &referrers,
        ] {
            for method in [Method::GET, Method::HEAD] {
                assert_eq!(check(&method, path), Ok(()), "{path}");
            }
            for method in [
                Method::POST,
                Method::PUT,
                Method::PATCH,
                Method::DELETE,
                Method::OPTIONS,
                Method::CONNECT,
            ] {
                assert_eq!(check(&method, path), Err(Refusal::Method), "{method} {path}");
            }
        }
        for path in [
            "/",
            "/v1/",
            "/v2",
            "/v2/_catalog",
            "/v2/a/tags/list",
            "/v2/a/blobs/uploads/",
            "/v2/manifests/latest",
            "/v2//manifests/latest",
            "/v2/../admin/manifests/latest",
            "/v2/a/%2e%2e/manifests/latest",
            "/v2/a/manifests/",
            "/v2/a/manifests/..",
            "/debug/vars",
        ] {
            assert_eq!(check(&Method::GET, path), Err(Refusal::Path), "{path}");
        }
    }

    #[test]
    fn credentials_and_hops_stay_where_they_are() {
        let mut client = HeaderMap::new();
        for (name, value) in [
            ("accept", "a"),
            ("accept", "b"),
            ("range", "bytes=5-"),
            ("authorization", "Basic x"),
            ("cookie", "x"),
            ("host", "elsewhere"),
            ("connection", "upgrade"),
        ] {
            client.append(name, value.parse().unwrap());
        }
        let asked = asked(&client);
        assert_eq!(asked.get_all("accept").iter().count(), 2);
        assert_eq!(asked.len(), 3, "{asked:?}");
        let mut registry = HeaderMap::new();
        for name in [
            "docker-content-digest",
            "content-length",
            "www-authenticate",
            "set-cookie",
            "transfer-encoding",
        ] {
            registry.append(name, "1".parse().unwrap());
        }
        assert_eq!(answered(&registry).len(), 2);
    }
}
