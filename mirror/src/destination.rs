//! What copies are called at the destinations of a Mirror.

use coral_api::{
    ImageReference, InvalidReference,
    mirror::{self, Destination},
};

use crate::naming::{InvalidName, Naming, Place};

/// Hex digits of a digest in the tag of a copy that was asked for by digest.
const TAG_DIGITS: usize = 64;

/// The names of one copy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Names {
    /// As Coral reaches it; always with a tag.
    pub reference: ImageReference,
    /// As nodes reach it.
    pub node_reference: ImageReference,
}

/// Why a copy has no name.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Nameless {
    /// The destination is none.
    #[error("failed to understand the destination {destination}")]
    Destination {
        /// Its registry and prefix.
        destination: String,
        /// The rule that it breaks.
        #[source]
        source: InvalidReference,
    },
    /// The name would break the rules of registries.
    #[error(transparent)]
    Name(#[from] InvalidName),
}

/// Registry and prefix of a destination, as in `registry.example:5000/mirror`.
#[must_use]
pub fn place(destination: &Destination) -> String {
    below(&destination.registry, destination)
}

/// What the copy of an image is called at a destination.
///
/// An image that is asked for by digest has a copy with a tag made of that digest, whatever its own tag: `app:v1@sha256:…` must not
/// move the tag of the copy of `app:v1`, and a copy without a tag would be rubbish to the registry's collector.
pub fn names(destination: &Destination, image: &ImageReference) -> Result<Names, Nameless> {
    let node_address = destination.node_address.as_ref().unwrap_or(&destination.registry);
    let node_reference = copy_of(&below(node_address, destination), destination.naming, image)?;
    let mut reference = copy_of(&place(destination), destination.naming, image)?;
    if let Some(digest) = image.digest() {
        let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
        let tag = &hex[..hex.len().min(TAG_DIGITS)];
        let text = format!("{}:digest-{tag}@{digest}", reference.name());
        reference = text.parse().map_err(|source| InvalidName {
            image: image.familiar(),
            source,
        })?;
    }
    Ok(Names {
        reference,
        node_reference,
    })
}

/// Whether an image lies at this destination, by whichever of its addresses: then it is a copy, and no copy is made of it.
#[must_use]
pub fn holds(destination: &Destination, image: &ImageReference) -> bool {
    let addresses = [Some(&destination.registry), destination.node_address.as_ref()];
    let prefix = destination.repository_prefix.trim_matches('/');
    let is_below = prefix.is_empty()
        || image
            .repository()
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.starts_with('/'));
    is_below
        && addresses
            .into_iter()
            .flatten()
            .any(|address| address == image.registry())
}

fn below(registry: &str, destination: &Destination) -> String {
    let prefix = destination.repository_prefix.trim_matches('/');
    if prefix.is_empty() {
        registry.to_owned()
    } else {
        format!("{registry}/{prefix}")
    }
}

fn copy_of(place: &str, naming: mirror::Naming, image: &ImageReference) -> Result<ImageReference, Nameless> {
    let naming = match naming {
        mirror::Naming::Path => Naming::Path,
        mirror::Naming::Flat => Naming::Flat,
    };
    let parsed = Place::new(place, naming).map_err(|source| Nameless::Destination {
        destination: place.to_owned(),
        source,
    })?;
    Ok(parsed.copy_of(image)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn destination(node_address: Option<&str>, prefix: &str) -> Destination {
        let object = json!({"registry": "r.lan:5000", "nodeAddress": node_address, "repositoryPrefix": prefix});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_copy_is_called_after_its_original_here_and_on_nodes() {
        let relayed = destination(Some("localhost:7439"), "mirror");
        let with_digest = format!("nginx:1.29@{DIGEST}");
        let hex = &DIGEST[7..];
        for (image, reference, node_reference) in [
            (
                "nginx:1.29",
                "r.lan:5000/mirror/docker.io/library/nginx:1.29".to_owned(),
                "localhost:7439/mirror/docker.io/library/nginx:1.29".to_owned(),
            ),
            (
                &with_digest,
                format!("r.lan:5000/mirror/docker.io/library/nginx:digest-{hex}@{DIGEST}"),
                format!("localhost:7439/mirror/docker.io/library/nginx@{DIGEST}"),
            ),
        ] {
            let names = names(&relayed, &image.parse().unwrap()).unwrap();
            assert_eq!(names.reference.to_string(), reference);
            assert_eq!(names.node_reference.identity(), node_reference);
        }
    }

    #[test]
    fn copies_are_known_by_where_they_are() {
        let relayed = destination(Some("localhost:7439"), "mirror");
        for (image, expected) in [
            ("r.lan:5000/mirror/docker.io/library/nginx:1", true),
            ("localhost:7439/mirror/x:1", true),
            ("r.lan:5000/mirrored/x:1", false),
            ("r.lan:5000/x:1", false),
            ("nginx:1", false),
        ] {
            assert_eq!(holds(&relayed, &image.parse().unwrap()), expected, "{image}");
        }
        assert!(holds(&destination(None, ""), &"r.lan:5000/x:1".parse().unwrap()));
    }
}
