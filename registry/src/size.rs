//! What an image weighs.

use coral_api::ImageReference;

use crate::{
    digest::is_digest,
    error::{Error, Result},
    manifest::{Descriptor, Document, distinct},
    platform::Platform,
    repository::Repository,
};

/// Most indexes in one another.
const MAX_INDEX_DEPTH: usize = 3;

/// What an image weighs in its registry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ImageSize {
    /// Digest of what the reference names: the index, where there is one.
    pub digest: String,
    /// Configuration and layers of the image for the platform, each content once.
    pub blobs: Vec<Descriptor>,
}

impl ImageSize {
    /// Bytes that are to be fetched by a node that has none of it. Layers are compressed; unpacked they are larger.
    #[must_use]
    pub fn compressed_bytes(&self) -> u64 {
        self.blobs.iter().fold(0, |sum, blob| sum.saturating_add(blob.size))
    }
}

impl Repository {
    /// What `image`, of this repository, weighs on a platform.
    pub async fn image_size(&self, image: &ImageReference, platform: &Platform) -> Result<ImageSize> {
        self.patiently(|| self.fetch_image_size(image, platform)).await
    }

    async fn fetch_image_size(&self, image: &ImageReference, platform: &Platform) -> Result<ImageSize> {
        let reference = image.digest().or(image.tag()).unwrap_or_default();
        let mut manifest = self.fetch_manifest(reference).await?;
        let digest = manifest.digest.clone();
        for _ in 0..=MAX_INDEX_DEPTH {
            match manifest.document() {
                Some(Document::Image { config, layers }) => {
                    return Ok(ImageSize {
                        digest,
                        blobs: distinct(config, layers),
                    });
                }
                Some(Document::Index { manifests }) => {
                    let chosen = platform.choose(&manifests).ok_or_else(|| Error::NoPlatform {
                        platform: platform.to_string(),
                    })?;
                    if !is_digest(&chosen.digest) {
                        return Err(self.malformed("an index with something else than digests"));
                    }
                    manifest = self.fetch_manifest(&chosen.digest).await?;
                }
                None => return Err(self.malformed("something that is no image")),
            }
        }
        Err(self.malformed("indexes of indexes without end"))
    }
}
