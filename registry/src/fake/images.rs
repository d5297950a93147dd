//! Images for a registry to have.

use axum::body::Bytes;
use serde_json::{Value, json};

use super::Registry;
use crate::digest;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An image to be.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// What its layers hold.
    pub layers: Vec<Bytes>,
    /// What its configuration says, so that images differ.
    pub note: String,
    /// Digest of the manifest that it refers to, if it is a signature or the like.
    pub subject: Option<String>,
}

/// An index to be: images with their platforms, such as `linux/amd64`.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// The images.
    pub images: Vec<(&'static str, Image)>,
}

impl Image {
    /// An image with layers of so many bytes, all of them different.
    #[must_use]
    pub fn new(note: &str, layers: &[usize]) -> Self {
        let layer = |(index, size): (usize, &usize)| {
            let seed = format!("{note} {index} ");
            Bytes::from(seed.bytes().cycle().take(*size).collect::<Vec<u8>>())
        };
        Self {
            layers: layers.iter().enumerate().map(layer).collect(),
            note: note.to_owned(),
            subject: None,
        }
    }

    /// Puts the image into a repository, and gives its digest.
    #[expect(clippy::must_use_candidate, reason = "the digest is not always wanted")]
    pub fn push(&self, registry: &Registry, repository: &str, tag: Option<&str>) -> String {
        let config = Bytes::from(json!({"note": self.note}).to_string());
        let blobs: Vec<Value> = [&config]
            .into_iter()
            .chain(&self.layers)
            .map(|blob| json!({"mediaType": "application/octet-stream", "digest": digest(blob), "size": blob.len()}))
            .collect();
        for blob in [&config].into_iter().chain(&self.layers) {
            registry.insert_blob(repository, blob.clone());
        }
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": blobs[0],
            "layers": blobs[1..],
        });
        if let Some(subject) = &self.subject {
            manifest["subject"] = json!({"mediaType": MANIFEST, "digest": subject, "size": 1});
            manifest["artifactType"] = json!("application/example");
        }
        registry.insert_manifest(repository, tag, MANIFEST, &Bytes::from(manifest.to_string()))
    }
}

impl Index {
    /// Puts the index and its images into a repository, and gives its digest and those of the images.
    #[expect(clippy::must_use_candidate, reason = "the digests are not always wanted")]
    pub fn push(&self, registry: &Registry, repository: &str, tag: Option<&str>) -> (String, Vec<String>) {
        let mut entries = Vec::new();
        let mut digests = Vec::new();
        for (platform, image) in &self.images {
            let digest = image.push(registry, repository, None);
            let size = registry.manifest(repository, &digest).map_or(0, |bytes| bytes.len());
            let (os, architecture) = platform.split_once('/').unwrap();
            entries.push(json!({
                "mediaType": MANIFEST,
                "digest": digest,
                "size": size,
                "platform": {"os": os, "architecture": architecture},
            }));
            digests.push(digest);
        }
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
        let digest = registry.insert_manifest(repository, tag, INDEX, &Bytes::from(index.to_string()));
        (digest, digests)
    }
}
