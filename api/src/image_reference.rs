//! How an image is named.
//!
//! A name is parsed once, at the edge, by the grammar of the distribution project's `reference` package, after Docker's
//! rules for short names (`nginx` is `docker.io/library/nginx:latest`). The container runtimes normalise the same way,
//! so what is compared here is what they store.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
};

use sha2::{Digest as _, Sha256};

use crate::keys;

/// Longest repository path that registries accept.
const MAX_PATH_LENGTH: usize = 255;
/// Longest tag that registries accept.
const MAX_TAG_LENGTH: usize = 128;
/// Registry of a name that has none.
const DEFAULT_REGISTRY: &str = "docker.io";
/// What Docker Hub was called before; clients still write it.
const LEGACY_DEFAULT_REGISTRY: &str = "index.docker.io";
/// Where Docker Hub keeps the repositories that have no owner.
const OFFICIAL_PREFIX: &str = "library/";
/// Tag of a name that has neither tag nor digest.
const DEFAULT_TAG: &str = "latest";
/// Hex digits of the SHA-256 of the identity that a label key carries: 128 bits, and within the 63 characters of a label name.
const LABEL_HEX_DIGITS: usize = 32;

/// A normalised image reference.
///
/// Two references are equal when they mean the same image: with a digest the tag is kept for people and plays no part.
///
/// ```
/// use coral_api::ImageReference;
///
/// let image: ImageReference = "nginx".parse()?;
/// assert_eq!(image.to_string(), "docker.io/library/nginx:latest");
/// assert_eq!(image.familiar(), "nginx:latest");
/// assert_eq!(image, "index.docker.io/library/nginx:latest".parse()?);
/// # Ok::<(), coral_api::InvalidReference>(())
/// ```
#[derive(Clone, Debug)]
pub struct ImageReference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// Why a text is not an image reference.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{} is not an image reference: {reason}", quoted(.reference))]
pub struct InvalidReference {
    /// The text as it was given.
    pub reference: String,
    /// What is wrong with it.
    pub reason: InvalidReason,
}

/// The rule that a text breaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidReason {
    /// Nothing is there.
    #[error("it is empty")]
    Empty,
    /// A blank, a tab or a line break.
    #[error("it contains white space")]
    WhiteSpace,
    /// `https://…`.
    #[error("an image reference has no scheme; leave out what stands before the host")]
    Scheme,
    /// The host is not a host name, an IPv4 address or an IPv6 address in brackets.
    #[error("the registry host is malformed")]
    Host,
    /// The port is not a number from 1 to 65535.
    #[error("the registry port must be a number from 1 to 65535")]
    Port,
    /// `Nginx`.
    #[error("the repository path must be lower case")]
    UpperCase,
    /// The path is missing or has a character or separator that it must not have.
    #[error(
        "the repository path must be lower-case letters and digits, joined by single '.', '_', '__', or dashes, in parts divided by '/'"
    )]
    Path,
    /// The path is too long.
    #[error("the repository path must have at most {MAX_PATH_LENGTH} characters")]
    PathLength,
    /// 64 hex digits alone: an image ID.
    #[error("64 hex digits are an image ID, and an ID cannot be pulled")]
    ImageId,
    /// The tag has a character that it must not have.
    #[error("the tag must be letters, digits, '_', '.' and '-', and must not begin with '.' or '-'")]
    Tag,
    /// The tag is too long.
    #[error("the tag must have at most {MAX_TAG_LENGTH} characters")]
    TagLength,
    /// The digest is not `algorithm:hex` of the right length.
    #[error(
        "the digest must be sha256:, sha384: or sha512: and as many lower-case hex digits as that algorithm gives (64, 96, 128)"
    )]
    Digest,
}

impl ImageReference {
    /// Registry host with its port if one was given, e.g. `docker.io` or `[::1]:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Path of the repository in its registry, e.g. `library/nginx`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag. Absent only where there is a digest.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, e.g. `sha256:…`.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// Registry and repository, without tag and digest.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The one spelling of this image: name and digest, or name and tag where there is no digest.
    ///
    /// This is what is asked of the runtime, and what runtimes list. containerd and CRI-O, too, drop the tag where there is a digest.
    #[must_use]
    pub fn identity(&self) -> String {
        self.identity_parts().concat()
    }

    fn identity_parts(&self) -> [&str; 5] {
        let (separator, version) = match (&self.digest, &self.tag) {
            (Some(digest), _) => ("@", digest),
            (None, Some(tag)) => (":", tag),
            (None, None) => unreachable!("a reference without a digest has a tag"),
        };
        [&self.registry, "/", &self.repository, separator, version]
    }

    /// The short form that people know: without `docker.io` and `library`, where leaving them out says the same.
    #[must_use]
    pub fn familiar(&self) -> String {
        let suffix = self.suffix();
        let mut candidates = Vec::with_capacity(2);
        if self.registry == DEFAULT_REGISTRY {
            if let Some(official) = self.repository.strip_prefix(OFFICIAL_PREFIX) {
                candidates.push(format!("{official}{suffix}"));
            }
            candidates.push(format!("{}{suffix}", self.repository));
        }
        candidates
            .into_iter()
            .find(|candidate| candidate.parse::<Self>().is_ok_and(|parsed| parsed == *self))
            .unwrap_or_else(|| self.to_string())
    }

    /// Key of the node label that says that the image is there: `image.stvz.io/` and the first 32 hex digits of the SHA-256 of
    /// the [identity](Self::identity).
    #[must_use]
    pub fn label_key(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hash = Sha256::new();
        for part in self.identity_parts() {
            hash.update(part);
        }
        let mut key = String::with_capacity(keys::PREFIX.len() + LABEL_HEX_DIGITS);
        key.push_str(keys::PREFIX);
        for byte in &hash.finalize()[..LABEL_HEX_DIGITS / 2] {
            for digit in [byte >> 4, byte & 15] {
                key.push(char::from(DIGITS[usize::from(digit)]));
            }
        }
        key
    }

    /// Everything behind the name, e.g. `:1.29` or `:1.29@sha256:…`.
    fn suffix(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}"));
        let digest = self.digest.as_ref().map(|digest| format!("@{digest}"));
        tag.unwrap_or_default() + &digest.unwrap_or_default()
    }

    /// What equality, order and hash are about.
    fn key(&self) -> (&str, &str, &str, bool) {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => (&self.registry, &self.repository, digest, true),
            (None, tag) => (
                &self.registry,
                &self.repository,
                tag.as_deref().unwrap_or_default(),
                false,
            ),
        }
    }
}

impl FromStr for ImageReference {
    type Err = InvalidReference;

    fn from_str(reference: &str) -> Result<Self, Self::Err> {
        parse(reference).map_err(|reason| InvalidReference {
            reference: reference.to_owned(),
            reason,
        })
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}{}", self.registry, self.repository, self.suffix())
    }
}

impl PartialEq for ImageReference {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for ImageReference {}

impl PartialOrd for ImageReference {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ImageReference {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl Hash for ImageReference {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

/// The text between quotes, cut where it is too long for a sentence, with control characters made visible.
fn quoted(reference: &str) -> String {
    const LONGEST: usize = 100;
    if reference.chars().count() <= LONGEST {
        return format!("{reference:?}");
    }
    let start: String = reference.chars().take(LONGEST).collect();
    format!("{:?}", start + "…")
}

fn parse(text: &str) -> Result<ImageReference, InvalidReason> {
    if text.is_empty() {
        return Err(InvalidReason::Empty);
    }
    if text.contains(char::is_whitespace) {
        return Err(InvalidReason::WhiteSpace);
    }
    if text.contains("://") {
        return Err(InvalidReason::Scheme);
    }
    if text.len() == 64 && text.bytes().all(is_lower_hex) {
        return Err(InvalidReason::ImageId);
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(parse_digest(digest)?)),
        None => (text, None),
    };
    let (registry, rest) = split_registry(rest)?;
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) => (path, Some(parse_tag(tag)?)),
        None => (rest, None),
    };
    let mut repository = parse_path(path)?;
    if registry == DEFAULT_REGISTRY && !repository.contains('/') {
        repository.insert_str(0, OFFICIAL_PREFIX);
    }
    if repository.len() > MAX_PATH_LENGTH {
        return Err(InvalidReason::PathLength);
    }
    Ok(ImageReference {
        registry,
        repository,
        tag: match (&digest, tag) {
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            (_, tag) => tag,
        },
        digest,
    })
}

/// Docker's rule: what stands before the first slash is a host when it is `localhost`, has a dot or a colon, or an upper-case letter.
fn split_registry(text: &str) -> Result<(String, &str), InvalidReason> {
    let Some((first, rest)) = text.split_once('/') else {
        return Ok((DEFAULT_REGISTRY.to_owned(), text));
    };
    let is_host =
        first == "localhost" || first.contains(['.', ':']) || first.contains(|c: char| c.is_ascii_uppercase());
    if !is_host {
        return Ok((DEFAULT_REGISTRY.to_owned(), text));
    }
    if first == LEGACY_DEFAULT_REGISTRY {
        return Ok((DEFAULT_REGISTRY.to_owned(), rest));
    }
    check_host(first)?;
    Ok((first.to_owned(), rest))
}

fn check_host(host_and_port: &str) -> Result<(), InvalidReason> {
    let (host, port) = if let Some(bracketed) = host_and_port.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']').ok_or(InvalidReason::Host)?;
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(InvalidReason::Host);
        }
        match port.strip_prefix(':') {
            Some(port) => (None, Some(port)),
            None if port.is_empty() => (None, None),
            None => return Err(InvalidReason::Host),
        }
    } else {
        match host_and_port.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(host_and_port), None),
        }
    };
    if host.is_some_and(|host| !host.split('.').all(is_host_component)) {
        return Err(InvalidReason::Host);
    }
    match port {
        Some(port) if !is_port(port) => Err(InvalidReason::Port),
        _ => Ok(()),
    }
}

fn is_host_component(component: &str) -> bool {
    let bytes = component.as_bytes();
    matches!((bytes.first(), bytes.last()), (Some(first), Some(last)) if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric())
        && bytes.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0)
}

fn parse_path(path: &str) -> Result<String, InvalidReason> {
    if path.contains(|c: char| c.is_ascii_uppercase()) {
        return Err(InvalidReason::UpperCase);
    }
    if path.split('/').all(is_path_component) {
        Ok(path.to_owned())
    } else {
        Err(InvalidReason::Path)
    }
}

/// `alpha-numeric [separator alpha-numeric]*` with the separators `.`, `_`, `__` and any number of dashes.
fn is_path_component(component: &str) -> bool {
    let is_alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    component.starts_with(is_alphanumeric)
        && component.ends_with(is_alphanumeric)
        && component
            .split(is_alphanumeric)
            .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-'))
}

fn parse_tag(tag: &str) -> Result<String, InvalidReason> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut bytes = tag.bytes();
    if !bytes.next().is_some_and(is_word) || !bytes.all(|byte| is_word(byte) || matches!(byte, b'.' | b'-')) {
        return Err(InvalidReason::Tag);
    }
    if tag.len() > MAX_TAG_LENGTH {
        return Err(InvalidReason::TagLength);
    }
    Ok(tag.to_owned())
}

fn parse_digest(digest: &str) -> Result<String, InvalidReason> {
    let (algorithm, hex) = digest.split_once(':').ok_or(InvalidReason::Digest)?;
    let digits = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err(InvalidReason::Digest),
    };
    if hex.len() == digits && hex.bytes().all(is_lower_hex) {
        Ok(digest.to_owned())
    } else {
        Err(InvalidReason::Digest)
    }
}

const fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests;
