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
    /// `registry/repository:tag@digest`, in one piece: there are many references, and most are only compared.
    text: String,
    registry_end: usize,
    repository_end: usize,
    /// The same where there is no tag.
    tag_end: usize,
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
        &self.text[..self.registry_end]
    }

    /// Path of the repository in its registry, e.g. `library/nginx`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.text[self.registry_end + 1..self.repository_end]
    }

    /// The tag. Absent only where there is a digest.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.text[self.repository_end..self.tag_end].strip_prefix(':')
    }

    /// The digest, e.g. `sha256:…`.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        self.text[self.tag_end..].strip_prefix('@')
    }

    /// Registry and repository, without tag and digest.
    #[must_use]
    pub fn name(&self) -> String {
        self.text[..self.repository_end].to_owned()
    }

    /// The one spelling of this image: name and digest, or name and tag where there is no digest.
    ///
    /// This is what is asked of the runtime, and what runtimes list. containerd and CRI-O, too, drop the tag where there is a digest.
    #[must_use]
    pub fn identity(&self) -> String {
        self.identity_parts().concat()
    }

    /// The name, and the version with the character before it.
    fn identity_parts(&self) -> [&str; 2] {
        let (name, suffix) = self.text.split_at(self.repository_end);
        let digest = &self.text[self.tag_end..];
        [name, if digest.is_empty() { suffix } else { digest }]
    }

    /// The short form that people know: without `docker.io` and `library`, where leaving them out says the same.
    #[must_use]
    pub fn familiar(&self) -> String {
        let suffix = self.suffix();
        let mut candidates = Vec::with_capacity(2);
        if self.registry() == DEFAULT_REGISTRY {
            if let Some(official) = self.repository().strip_prefix(OFFICIAL_PREFIX) {
                candidates.push(format!("{official}{suffix}"));
            }
            candidates.push(format!("{}{suffix}", self.repository()));
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
        let mut hex = [0; LABEL_HEX_DIGITS];
        for (digits, byte) in hex.as_chunks_mut::<2>().0.iter_mut().zip(hash.finalize()) {
            *digits = [byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)]);
        }
        let hex = std::str::from_utf8(&hex).expect("digits are ASCII");
        [keys::PREFIX, hex].concat()
    }

    /// Everything behind the name, e.g. `:1.29` or `:1.29@sha256:…`.
    fn suffix(&self) -> &str {
        &self.text[self.repository_end..]
    }

    /// What equality, order and hash are about.
    fn key(&self) -> (&str, &str, &str, bool) {
        let (registry, repository) = (self.registry(), self.repository());
        match self.digest() {
            Some(digest) => (registry, repository, digest, true),
            None => (registry, repository, self.tag().unwrap_or_default(), false),
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
        formatter.write_str(&self.text)
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
    // The grammar has no place for these. That they are there says more than which part of it is broken.
    normalised(text).map_err(|reason| match text {
        "" => InvalidReason::Empty,
        _ if text.contains(char::is_whitespace) => InvalidReason::WhiteSpace,
        _ if text.contains("://") => InvalidReason::Scheme,
        _ => reason,
    })
}

fn normalised(text: &str) -> Result<ImageReference, InvalidReason> {
    if text.len() == 64 && text.bytes().all(is_lower_hex) {
        return Err(InvalidReason::ImageId);
    }
    let (rest, digest) = match split_once(text, b'@') {
        Some((rest, digest)) => (rest, Some(check_digest(digest)?)),
        None => (text, None),
    };
    let (registry, rest) = split_registry(rest)?;
    let (path, tag) = match split_once(rest, b':') {
        Some((path, tag)) => (path, Some(check_tag(tag)?)),
        None => (rest, None),
    };
    check_path(path)?;
    let is_official = registry == DEFAULT_REGISTRY && !path.contains('/');
    let owner = if is_official { OFFICIAL_PREFIX } else { "" };
    if owner.len() + path.len() > MAX_PATH_LENGTH {
        return Err(InvalidReason::PathLength);
    }
    let tag = if digest.is_none() {
        tag.or(Some(DEFAULT_TAG))
    } else {
        tag
    };
    Ok(put_together(registry, [owner, path], tag, digest))
}

fn put_together(registry: &str, repository: [&str; 2], tag: Option<&str>, digest: Option<&str>) -> ImageReference {
    let parts = [Some(registry), Some(repository[0]), Some(repository[1]), tag, digest];
    let length = parts.into_iter().flatten().map(|part| part.len() + 1).sum();
    let mut text = String::with_capacity(length);
    text.push_str(registry);
    let registry_end = text.len();
    text.push('/');
    text.push_str(repository[0]);
    text.push_str(repository[1]);
    let repository_end = text.len();
    if let Some(tag) = tag {
        text.push(':');
        text.push_str(tag);
    }
    let tag_end = text.len();
    if let Some(digest) = digest {
        text.push('@');
        text.push_str(digest);
    }
    ImageReference {
        text,
        registry_end,
        repository_end,
        tag_end,
    }
}

/// The parts before and behind an ASCII character. Names are short: to look for it byte by byte is quicker than what is made for long texts.
fn split_once(text: &str, character: u8) -> Option<(&str, &str)> {
    let at = text.bytes().position(|byte| byte == character)?;
    Some((&text[..at], &text[at + 1..]))
}

/// Docker's rule: what stands before the first slash is a host when it is `localhost`, has a dot or a colon, or an upper-case letter.
fn split_registry(text: &str) -> Result<(&str, &str), InvalidReason> {
    let Some((first, rest)) = split_once(text, b'/') else {
        return Ok((DEFAULT_REGISTRY, text));
    };
    let is_host = first == "localhost" || first.bytes().any(|byte| is(byte, DOT | COLON | UPPER));
    if !is_host {
        return Ok((DEFAULT_REGISTRY, text));
    }
    if first == LEGACY_DEFAULT_REGISTRY {
        return Ok((DEFAULT_REGISTRY, rest));
    }
    check_host(first)?;
    Ok((first, rest))
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
        match split_once(host_and_port, b':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(host_and_port), None),
        }
    };
    if host.is_some_and(|host| !host.as_bytes().split(|&byte| byte == b'.').all(is_host_component)) {
        return Err(InvalidReason::Host);
    }
    match port {
        Some(port) if !is_port(port) => Err(InvalidReason::Port),
        _ => Ok(()),
    }
}

fn is_host_component(bytes: &[u8]) -> bool {
    matches!((bytes.first(), bytes.last()), (Some(&first), Some(&last)) if is(first, ALPHANUMERIC) && is(last, ALPHANUMERIC))
        && bytes.iter().all(|&byte| is(byte, ALPHANUMERIC | DASH))
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0)
}

fn check_path(path: &str) -> Result<(), InvalidReason> {
    if path.as_bytes().split(|&byte| byte == b'/').all(is_path_component) {
        Ok(())
    } else if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Err(InvalidReason::UpperCase)
    } else {
        Err(InvalidReason::Path)
    }
}

/// `alpha-numeric [separator alpha-numeric]*` with the separators `.`, `_`, `__` and any number of dashes.
fn is_path_component(bytes: &[u8]) -> bool {
    let is_alphanumeric = |byte: &u8| is(*byte, LOWER | DIGIT);
    let is_separator = |run: &[u8]| matches!(run, b"." | b"_" | b"__") || run.iter().all(|&byte| byte == b'-');
    let mut rest = bytes;
    loop {
        let word = rest.iter().position(|byte| !is_alphanumeric(byte));
        let (word, behind) = rest.split_at(word.unwrap_or(rest.len()));
        if word.is_empty() || behind.is_empty() {
            return !word.is_empty();
        }
        let separator = behind.iter().position(is_alphanumeric);
        let (separator, behind) = behind.split_at(separator.unwrap_or(behind.len()));
        if !is_separator(separator) {
            return false;
        }
        rest = behind;
    }
}

fn check_tag(tag: &str) -> Result<&str, InvalidReason> {
    const WORD: u8 = ALPHANUMERIC | UNDERSCORE;
    let mut bytes = tag.bytes();
    if !bytes.next().is_some_and(|byte| is(byte, WORD)) || !bytes.all(|byte| is(byte, WORD | DOT | DASH)) {
        return Err(InvalidReason::Tag);
    }
    if tag.len() > MAX_TAG_LENGTH {
        return Err(InvalidReason::TagLength);
    }
    Ok(tag)
}

fn check_digest(digest: &str) -> Result<&str, InvalidReason> {
    let (algorithm, hex) = digest.split_once(':').ok_or(InvalidReason::Digest)?;
    let digits = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err(InvalidReason::Digest),
    };
    if hex.len() == digits && hex.bytes().all(is_lower_hex) {
        Ok(digest)
    } else {
        Err(InvalidReason::Digest)
    }
}

const LOWER: u8 = 1;
const UPPER: u8 = 1 << 1;
const DIGIT: u8 = 1 << 2;
const DOT: u8 = 1 << 3;
const DASH: u8 = 1 << 4;
const UNDERSCORE: u8 = 1 << 5;
const COLON: u8 = 1 << 6;
const ALPHANUMERIC: u8 = LOWER | UPPER | DIGIT;

/// What each byte is.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 128 {
        classes[byte as usize] = match byte {
            b'a'..=b'z' => LOWER,
            b'A'..=b'Z' => UPPER,
            b'0'..=b'9' => DIGIT,
            b'.' => DOT,
            b'-' => DASH,
            b'_' => UNDERSCORE,
            b':' => COLON,
            _ => 0,
        };
        byte += 1;
    }
    classes
};

/// Whether a byte is of one of these classes.
const fn is(byte: u8, classes: u8) -> bool {
    CLASSES[byte as usize] & classes != 0
}

const fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests;
