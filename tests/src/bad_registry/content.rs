//! What the images of the registry are made of.

use std::fmt::Write as _;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::Misbehaviour;

pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// The size of the largest layer: more than the disk of any test has.
pub(super) const HUGE: u64 = 1 << 40;

/// Makes the manifests and blobs of each image.
#[derive(Debug)]
pub(super) struct Content {
    seed: String,
}

/// What a manifest of the registry refers to, and the manifest itself.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) manifest: Vec<u8>,
    pub(super) media_type: &'static str,
    pub(super) config: Vec<u8>,
    pub(super) layer: Vec<u8>,
}

impl Content {
    pub(super) const fn new(seed: String) -> Self {
        Self { seed }
    }

    /// The image of this repository, as it would be but for what goes wrong on the way.
    pub(super) fn image(&self, misbehaviour: Misbehaviour) -> Image {
        let layer = self.layer(misbehaviour);
        let config = self.config(misbehaviour, &layer);
        let manifest = image_manifest(misbehaviour, &config, &layer);
        let (media_type, manifest) = match misbehaviour {
            Misbehaviour::ManifestGarbage => (MANIFEST, b"{\"schemaVersion\": 2, \"layers\": [".to_vec()),
            Misbehaviour::ManifestPage => ("text/html", b"<html><body>Please log in</body></html>".to_vec()),
            Misbehaviour::ManifestSchema1 => (SCHEMA_1, schema_1(misbehaviour)),
            Misbehaviour::OtherPlatform => (INDEX, index(&manifest, "windows", "s390x")),
            Misbehaviour::VariantUnknown => (INDEX, index(&manifest, "linux", architecture())),
            _ => (MANIFEST, manifest),
        };
        Image {
            manifest,
            media_type,
            config,
            layer,
        }
    }

    /// An empty archive. What follows the end of an archive nobody reads, but it gives every image a layer of its own.
    fn layer(&self, misbehaviour: Misbehaviour) -> Vec<u8> {
        let mut layer = if misbehaviour == Misbehaviour::LayerNotTar {
            b"This is no archive. ".repeat(100)
        } else {
            vec![0; 1024]
        };
        layer.extend(format!("{} {misbehaviour:?}", self.seed).into_bytes());
        layer.resize(4096, 0);
        layer
    }

    fn config(&self, misbehaviour: Misbehaviour, layer: &[u8]) -> Vec<u8> {
        let diff_ids = match misbehaviour {
            Misbehaviour::NoLayers => Vec::new(),
            Misbehaviour::WrongDiffId => vec![digest(b"another layer")],
            _ => vec![digest(layer)],
        };
        json_bytes(&json!({
            "architecture": architecture(),
            "os": "linux",
            "author": format!("{} {misbehaviour:?}", self.seed),
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }))
    }
}

fn image_manifest(misbehaviour: Misbehaviour, config: &[u8], layer: &[u8]) -> Vec<u8> {
    let (config_type, layer_type) = match misbehaviour {
        Misbehaviour::Artifact => ("application/vnd.acme.model.v1+json", "application/octet-stream"),
        _ => (CONFIG, LAYER),
    };
    let layer_size = match misbehaviour {
        Misbehaviour::HugeLayer => HUGE,
        _ => layer.len() as u64,
    };
    let layers = match misbehaviour {
        Misbehaviour::NoLayers => Vec::new(),
        _ => vec![json!({"mediaType": layer_type, "size": layer_size, "digest": digest(layer)})],
    };
    json_bytes(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": config_type, "size": config.len(), "digest": digest(config)},
        "layers": layers,
    }))
}

fn index(manifest: &[u8], os: &str, architecture: &str) -> Vec<u8> {
    json_bytes(&json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [{
            "mediaType": MANIFEST,
            "size": manifest.len(),
            "digest": digest(manifest),
            "platform": {"os": os, "architecture": architecture},
        }],
    }))
}

fn schema_1(misbehaviour: Misbehaviour) -> Vec<u8> {
    json_bytes(&json!({
        "schemaVersion": 1,
        "name": misbehaviour.repository(),
        "tag": "v1",
        "architecture": architecture(),
        "fsLayers": [{"blobSum": digest(b"")}],
        "history": [{"v1Compatibility": "{}"}],
    }))
}

/// The digest of some bytes, as registries write it.
pub(super) fn digest(bytes: &[u8]) -> String {
    let mut digest = "sha256:".to_owned();
    for byte in Sha256::digest(bytes) {
        // Writing to a String cannot fail.
        let _ = write!(digest, "{byte:02x}");
    }
    digest
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn json_bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}
