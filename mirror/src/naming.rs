//! What copies are called.

use std::{fmt::Write as _, net::Ipv6Addr, str::FromStr};

use coral_api::{ImageReference, InvalidReference};
use sha2::{Digest as _, Sha256};

/// Longest part of a flat name that people read.
const FLAT_LENGTH: usize = 100;
/// Bytes of the hash in a flat name.
const FLAT_HASH_BYTES: usize = 8;
/// A name below a place, to see what the place is. One with two levels is never one of Docker Hub's official images.
const PROBE: &str = "x/x";

/// How the name of a copy is made from that of the original.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Naming {
    /// Host and path are kept: `docker.io/library/nginx`. Two images never have one name, and people see where a copy is from.
    #[default]
    Path,
    /// One level, with a hash of the name: `docker.io-library-nginx-1f0c…`. For registries without nested repositories.
    Flat,
}

/// Where copies are put: a registry, and a part of its repositories.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    registry: String,
    /// Path that all copies have in front of theirs; empty for none.
    prefix: String,
    naming: Naming,
}

/// The name of a copy would break the rules of registries.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("failed to name the copy of {image}")]
pub struct InvalidName {
    /// The original.
    pub image: String,
    /// The rule.
    #[source]
    pub source: InvalidReference,
}

impl Place {
    /// A place such as `registry.example:5000/mirror`. A `/` at the end is left out.
    pub fn new(text: &str, naming: Naming) -> Result<Self, InvalidReference> {
        let probe: ImageReference = format!("{}/{PROBE}", text.trim_end_matches('/')).parse()?;
        let prefix = probe.repository().strip_suffix(PROBE).unwrap_or_default();
        Ok(Self {
            registry: probe.registry().to_owned(),
            prefix: prefix.trim_end_matches('/').to_owned(),
            naming,
        })
    }

    /// The registry.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// What the copy of an image is called here. Tag and digest stay.
    pub fn copy_of(&self, image: &ImageReference) -> Result<ImageReference, InvalidName> {
        let name = match self.naming {
            Naming::Path => path(image),
            Naming::Flat => flat(image),
        };
        let mut copy = self.below(&name);
        if let Some(tag) = image.tag() {
            let _ = write!(copy, ":{tag}");
        }
        if let Some(digest) = image.digest() {
            let _ = write!(copy, "@{digest}");
        }
        copy.parse().map_err(|source| InvalidName {
            image: image.familiar(),
            source,
        })
    }

    fn below(&self, name: &str) -> String {
        let Self { registry, prefix, .. } = self;
        if prefix.is_empty() {
            format!("{registry}/{name}")
        } else {
            format!("{registry}/{prefix}/{name}")
        }
    }
}

fn path(image: &ImageReference) -> String {
    format!("{}/{}", host(image.registry()), image.repository())
}

fn flat(image: &ImageReference) -> String {
    let path = path(image);
    let hash = Sha256::digest(&path);
    let readable = path.replace('/', "-");
    let readable = readable.get(..FLAT_LENGTH).unwrap_or(&readable);
    let readable = readable.trim_end_matches(|character: char| !character.is_ascii_alphanumeric());
    let mut name = format!("{readable}-");
    for byte in &hash[..FLAT_HASH_BYTES] {
        let _ = write!(name, "{byte:02x}");
    }
    name
}

/// A host as a part of a path. No host has an underscore, so that no two hosts become one.
fn host(registry: &str) -> String {
    let lower = registry.to_ascii_lowercase();
    let Some((address, port)) = lower.strip_prefix('[').and_then(|rest| rest.split_once(']')) else {
        return lower.replace(':', "_");
    };
    let port = port.replace(':', "_");
    let groups = Ipv6Addr::from_str(address).map_or_else(
        |_| address.replace(':', "-"),
        |address| address.segments().map(|group| format!("{group:x}")).join("-"),
    );
    format!("ip6__{groups}{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn copy(place: &str, naming: Naming, image: &str) -> String {
        let place = Place::new(place, naming).unwrap();
        place.copy_of(&image.parse().unwrap()).unwrap().to_string()
    }

    #[test]
    fn paths_keep_host_and_path() {
        let with_digest = format!("ghcr.io/acme/app:v1@{DIGEST}");
        let digest_alone = format!("ghcr.io/acme/app@{DIGEST}");
        // Place, image, copy.
        let cases = [
            (
                "r.lan:5000",
                "nginx:1.29",
                "r.lan:5000/docker.io/library/nginx:1.29".to_owned(),
            ),
            (
                "r.lan:5000/",
                "nginx",
                "r.lan:5000/docker.io/library/nginx:latest".to_owned(),
            ),
            (
                "r.lan/mirror",
                "ghcr.io/acme/app:v1",
                "r.lan/mirror/ghcr.io/acme/app:v1".to_owned(),
            ),
            ("r.lan/a/b//", "quay.io/x/y:z", "r.lan/a/b/quay.io/x/y:z".to_owned()),
            ("r.lan", &with_digest, format!("r.lan/ghcr.io/acme/app:v1@{DIGEST}")),
            ("r.lan", &digest_alone, format!("r.lan/ghcr.io/acme/app@{DIGEST}")),
            ("r.lan", "o.lan:5000/a:b", "r.lan/o.lan_5000/a:b".to_owned()),
            (
                "r.lan",
                "[::1]:5000/a:b",
                "r.lan/ip6__0-0-0-0-0-0-0-1_5000/a:b".to_owned(),
            ),
            (
                "[fd00::1]:5000/m",
                "localhost/a:b",
                "[fd00::1]:5000/m/localhost/a:b".to_owned(),
            ),
            ("localhost:5000", "a/b:c", "localhost:5000/docker.io/a/b:c".to_owned()),
        ];
        for (place, image, expected) in cases {
            assert_eq!(copy(place, Naming::Path, image), expected, "{image} at {place}");
        }
    }

    #[test]
    fn flat_names_have_one_level_and_never_collide() {
        let images = [
            "nginx:1",
            "docker.io/library-nginx/x:1",
            "docker.io/library/nginx-x:1",
            "ghcr.io/library/nginx:1",
            "ghcr.io:443/library/nginx:1",
            "ghcr.io/library/nginx-443:1",
        ];
        let mut names: Vec<String> = images.map(|image| copy("r.lan/m", Naming::Flat, image)).to_vec();
        for name in &names {
            assert_eq!(name.matches('/').count(), 2, "{name}");
        }
        assert_eq!(names[0], "r.lan/m/docker.io-library-nginx-7e59ad64326bc321:1");
        names.sort();
        names.dedup();
        assert_eq!(names.len(), images.len());
        // The same name whatever the tag.
        let other = copy("r.lan/m", Naming::Flat, "nginx:2");
        assert!(names.contains(&other.replace(":2", ":1")), "{other}");
    }

    #[test]
    fn long_names_are_flattened_and_otherwise_refused() {
        let long = format!("ghcr.io/{}:1", ["a"; 120].join("/"));
        assert!(copy("r.lan", Naming::Flat, &long).len() < 140);
        let place = Place::new(&format!("r.lan/{}", "b".repeat(100)), Naming::Path).unwrap();
        let error = place.copy_of(&long.parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("ghcr.io/a"), "{error}");
    }

    #[test]
    fn places_are_registries_with_or_without_a_path() {
        for bad in [
            "",
            "/",
            "https://r.lan",
            "r.lan/Upper",
            "r.lan/a b",
            "r.lan:port/x",
            "-.lan",
        ] {
            assert!(Place::new(bad, Naming::Path).is_err(), "{bad}");
        }
        // As in the names of images, a first part without a dot is a part of the path.
        let hub = Place::new("acme/mirror", Naming::Path).unwrap();
        assert_eq!(hub.registry(), "docker.io");
        assert_eq!(
            copy("acme", Naming::Flat, "quay.io/x/y:z").rsplit_once('-').unwrap().0,
            "docker.io/acme/quay.io-x-y"
        );
        assert!(copy("docker.io/acme", Naming::Flat, "quay.io/x:z").starts_with("docker.io/acme/quay.io-x-"));
    }
}
