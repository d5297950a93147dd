//! Manifests and indexes, of OCI's and of Docker's types.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::Deserialize;

use crate::platform::Platform;

/// The media types that are asked for.
pub(crate) const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// A manifest or an index, byte for byte as the registry has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Manifest {
    /// Media type that the registry gives it.
    pub media_type: String,
    /// Digest of the bytes.
    pub digest: String,
    /// The document.
    pub bytes: Bytes,
}

/// What a registry says of a manifest or index without sending it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ManifestHead {
    /// Its digest, where the registry tells it.
    pub digest: Option<String>,
    /// Its media type.
    pub media_type: String,
    /// Its size in bytes, where the registry tells it.
    pub size: Option<u64>,
}

/// What a manifest or index says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Document {
    /// One image.
    Image {
        /// Its configuration.
        config: Descriptor,
        /// Its layers, the lowest first.
        layers: Vec<Descriptor>,
    },
    /// Images for several platforms, or an index of indexes.
    Index {
        /// What it lists.
        manifests: Vec<Descriptor>,
    },
}

/// A pointer to content.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of the content.
    #[serde(default)]
    pub media_type: String,
    /// Digest of the content.
    pub digest: String,
    /// Size of the content in bytes.
    pub size: u64,
    /// What kind of artefact a manifest is, in an index.
    #[serde(default)]
    pub artifact_type: Option<String>,
    /// What the content runs on, in an index.
    #[serde(default)]
    pub platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Raw {
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

impl Manifest {
    /// What it says. `None` if that is neither an image nor an index, or both at once: such a document means different things to
    /// different readers. The oldest form, schema 1, is not read either; it names no sizes.
    #[must_use]
    pub fn document(&self) -> Option<Document> {
        let raw: Raw = serde_json::from_slice(&self.bytes).ok()?;
        match (raw.config, raw.layers, raw.manifests) {
            (Some(config), Some(layers), None) => Some(Document::Image { config, layers }),
            (None, None, Some(manifests)) => Some(Document::Index { manifests }),
            _ => None,
        }
    }
}

/// Configuration and layers, each content once.
pub(crate) fn distinct(config: Descriptor, layers: Vec<Descriptor>) -> Vec<Descriptor> {
    let mut seen = BTreeSet::new();
    std::iter::once(config)
        .chain(layers)
        .filter(|descriptor| seen.insert(descriptor.digest.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &'static str) -> Option<Document> {
        Manifest {
            media_type: String::new(),
            digest: String::new(),
            bytes: Bytes::from_static(text.as_bytes()),
        }
        .document()
    }

    #[test]
    fn images_and_indexes_are_told_apart() {
        assert!(matches!(
            document(r#"{"config": {"digest": "a", "size": 1}, "layers": []}"#),
            Some(Document::Image { .. })
        ));
        assert!(matches!(
            document(r#"{"manifests": [{"digest": "a", "size": 1, "platform": {"os": "linux"}}]}"#),
            Some(Document::Index { .. })
        ));
        for other in [
            "",
            "[]",
            "{}",
            "nonsense",
            r#"{"layers": []}"#,
            r#"{"config": {"digest": "a", "size": 1}, "layers": [], "manifests": []}"#,
            r#"{"config": {"digest": "a", "size": -1}, "layers": []}"#,
            r#"{"config": {"digest": "a"}, "layers": []}"#,
            r#"{"schemaVersion": 1, "fsLayers": []}"#,
        ] {
            assert_eq!(document(other), None, "{other}");
        }
    }

    #[test]
    fn shared_layers_count_once() {
        let blob = |digest: &str| Descriptor {
            digest: digest.to_owned(),
            ..Descriptor::default()
        };
        let blobs = distinct(blob("c"), vec![blob("a"), blob("b"), blob("a")]);
        let digests: Vec<_> = blobs.iter().map(|blob| blob.digest.as_str()).collect();
        assert_eq!(digests, ["c", "a", "b"]);
    }
}
