//! Names of Prefetches: which are allowed, and the one that a command without `--name` chooses.

use std::fmt::Write as _;

use coral_api::{ImageReference, keys};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use sha2::{Digest as _, Sha256};

/// Longest name that is also a DNS label.
const LONGEST_LABEL: usize = 63;
/// Bytes of the hash that the name shows, as two hex digits each.
const HASH_BYTES: usize = 4;
/// Name of a Prefetch whose image has no letter or digit to make a name of.
const FALLBACK: &str = "images";

/// Why a text is not the name of an object.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "a name has lower-case letters, digits, '-' and '.', begins and ends with a letter or digit, and has at most {longest} characters"
)]
pub(crate) struct InvalidName {
    longest: usize,
}

/// Reads the name of a Prefetch: a DNS subdomain.
pub(crate) fn parse_name(text: &str) -> Result<String, InvalidName> {
    if is_dns_subdomain(text) {
        Ok(text.to_owned())
    } else {
        Err(InvalidName { longest: 253 })
    }
}

/// Why a text does not name a Prefetch.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum InvalidPrefetch {
    #[error("{kind:?} is not the type of a Prefetch; write NAME, prefetch/NAME or pf/NAME")]
    Kind { kind: String },
    #[error(transparent)]
    Name(#[from] InvalidName),
}

/// Reads `web`, or `TYPE/web` with any spelling of the type that kubectl knows.
pub(crate) fn parse_prefetch(text: &str) -> Result<String, InvalidPrefetch> {
    let name = match text.split_once('/') {
        None => text,
        Some((kind, name)) => {
            let (short, group) = kind.split_once('.').unwrap_or((kind, ""));
            let is_type = ["prefetch", "prefetches", "pf"].contains(&short.to_ascii_lowercase().as_str());
            if !is_type || !["", keys::GROUP, "v1alpha1.image.stvz.io"].contains(&group) {
                return Err(InvalidPrefetch::Kind { kind: kind.to_owned() });
            }
            name
        }
    };
    Ok(parse_name(name)?)
}

/// Reads `node-1` or `node/node-1`.
pub(crate) fn parse_node(text: &str) -> Result<String, InvalidName> {
    let name = ["node/", "nodes/", "no/"]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix));
    parse_name(name.unwrap_or(text))
}

/// Reads `web-1` or `pod/web-1`.
pub(crate) fn parse_pod(text: &str) -> Result<String, String> {
    let name = match text.split_once('/') {
        None => text,
        Some(("pod" | "pods" | "po", name)) => name,
        Some((kind, _)) => return Err(format!("{kind:?} is not a Pod; write pod/NAME")),
    };
    parse_name(name).map_err(|error| error.to_string())
}

/// Reads the name of a namespace: a DNS label.
pub(crate) fn parse_namespace(text: &str) -> Result<String, InvalidName> {
    if text.len() <= LONGEST_LABEL && is_dns_label(text) {
        Ok(text.to_owned())
    } else {
        Err(InvalidName { longest: LONGEST_LABEL })
    }
}

/// Whether the text is a DNS subdomain as RFC 1123 has it and Kubernetes checks it.
pub(crate) fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label)
}

fn is_dns_label(text: &str) -> bool {
    let is_alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(is_alphanumeric)
        && text.ends_with(is_alphanumeric)
        && text.chars().all(|c| is_alphanumeric(c) || c == '-')
}

/// The name for these images on these nodes: the same request has the same name, whatever the order and spelling, so that the same
/// command twice is one object.
pub(crate) fn default_name(images: &[ImageReference], selector: Option<&LabelSelector>) -> String {
    let base = images.first().map(base_name).unwrap_or_default();
    let base = if base.is_empty() { FALLBACK } else { &base };
    format!("{base}-{}", hash(images, selector))
}

/// The last part of the repository path as a DNS label that leaves room for the hash.
fn base_name(image: &ImageReference) -> String {
    let repository = image.repository();
    let last = repository.rsplit('/').next().unwrap_or(repository);
    let mut name = String::new();
    for character in last.chars() {
        if character.is_ascii_lowercase() || character.is_ascii_digit() {
            name.push(character);
        } else if !name.ends_with('-') {
            name.push('-');
        }
    }
    name.truncate(LONGEST_LABEL - 1 - 2 * HASH_BYTES);
    name.trim_matches('-').to_owned()
}

fn hash(images: &[ImageReference], selector: Option<&LabelSelector>) -> String {
    let mut identities: Vec<String> = images.iter().map(ImageReference::identity).collect();
    identities.sort_unstable();
    identities.dedup();
    let mut digest = Sha256::new();
    for identity in identities {
        digest.update(identity);
        digest.update(b"\n");
    }
    if let Some(selector) = selector {
        digest.update(canonical(selector));
    }
    digest.finalize()[..HASH_BYTES]
        .iter()
        .fold(String::new(), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// One text for all orders of the same requirements.
fn canonical(selector: &LabelSelector) -> String {
    let mut requirements: Vec<String> = selector
        .match_labels
        .iter()
        .flatten()
        .map(|(key, value)| format!("{key} In {value}"))
        .collect();
    for expression in selector.match_expressions.iter().flatten() {
        let mut values = expression.values.clone().unwrap_or_default();
        values.sort_unstable();
        values.dedup();
        requirements.push(format!(
            "{} {} {}",
            expression.key,
            expression.operator,
            values.join(" ")
        ));
    }
    requirements.sort_unstable();
    requirements.dedup();
    requirements.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selector;

    fn name(images: &[&str], selector: Option<&str>) -> String {
        let images: Vec<ImageReference> = images.iter().map(|image| image.parse().unwrap()).collect();
        let selector = selector.map(|text| selector::parse(text).unwrap());
        default_name(&images, selector.as_ref())
    }

    #[test]
    fn the_same_request_has_the_same_name() {
        let first = name(&["nginx", "redis:8"], Some("a=b,zone in (x,y)"));
        assert_eq!(
            first,
            name(
                &["docker.io/library/nginx:latest", "redis:8"],
                Some("zone in (y,x),a=b")
            )
        );
        assert_eq!(
            first,
            name(&["nginx", "redis:8", "redis:8"], Some("a=b,zone in (x,y),a=b"))
        );
        assert_eq!(first, name(&["nginx", "redis:8"], Some("a in (b),zone in (x,y)")));
    }

    #[test]
    fn another_request_has_another_name() {
        let first = name(&["nginx"], None);
        assert_ne!(first, name(&["nginx:1.29"], None));
        assert_ne!(first, name(&["nginx", "redis"], None));
        assert_ne!(first, name(&["nginx"], Some("gpu=true")));
        assert_ne!(name(&["nginx"], Some("gpu")), name(&["nginx"], Some("!gpu")));
    }

    #[test]
    fn names_come_from_the_repository_and_are_dns_labels() {
        let long = format!("ghcr.io/acme/{}", "x".repeat(200));
        for (image, start) in [
            ("nginx:1.29", "nginx-"),
            ("ghcr.io/acme/my_model.big:v7", "my-model-big-"),
            ("localhost:5000/a__b", "a-b-"),
            (long.as_str(), "xxx"),
        ] {
            let name = name(&[image], None);
            assert!(name.starts_with(start), "{name}");
            assert_eq!(parse_namespace(&name), Ok(name.clone()));
        }
    }

    #[test]
    fn the_type_may_stand_before_the_name() {
        for text in [
            "web",
            "pf/web",
            "prefetch/web",
            "Prefetches/web",
            "prefetch.image.stvz.io/web",
        ] {
            assert_eq!(parse_prefetch(text).as_deref(), Ok("web"), "{text}");
        }
        for text in ["pod/web", "pf/web/x", "prefetch.apps/web", "/web", "pf/"] {
            assert!(parse_prefetch(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_that_kubernetes_refuses_are_refused() {
        for good in ["web", "a", "1", "web.v2", "a-b"] {
            assert!(parse_name(good).is_ok(), "{good}");
        }
        let long = "a".repeat(254);
        for bad in ["", "Web", "web_1", "-a", "a-", "a..b", ".a", "ä", "a b", "a/b", &long] {
            assert!(parse_name(bad).is_err(), "{bad}");
        }
        assert!(parse_namespace("a.b").is_err());
    }
}
