//! Marks: what a cluster tells others that share a destination with it, which copies it needs.
//!
//! A mark is a small artefact in the repository `coral-marks` below the destination's prefix, under the cluster's own name. Each cluster
//! writes its own, and reads those of the others before it removes anything.

use std::collections::BTreeSet;

use bytes::Bytes;
use coral_api::{ImageReference, InvalidReference, mirror::Destination};
use coral_registry::{Document, Error as RegistryError, Manifest, Repository};
use futures::stream;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::destination::place;

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
const EMPTY: &[u8] = b"{}";
/// What a mark is, and its content.
const MARK_TYPE: &str = "application/vnd.stvz.coral.mark.v1+json";
/// Repository of the marks, below the prefix.
const REPOSITORY: &str = "coral-marks";
/// Most bytes of the content of a mark: a hundred thousand names.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// What one cluster needs at a destination.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mark {
    /// Which cluster: the UID of its namespace `kube-system`.
    pub cluster: String,
    /// When it said so.
    pub written_at: Timestamp,
    /// The copies that it needs, as [`spelling`] has them.
    pub references: BTreeSet<String>,
}

/// Why a mark could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What the registry said.
    #[error("failed to read or write the marks of clusters")]
    Registry(#[from] RegistryError),
    /// Something else lies where a mark should be.
    #[error("failed to read the mark {tag}: it is not one that this version knows")]
    NotAMark {
        /// The tag.
        tag: String,
    },
}

/// How marks name a copy: repository and tag. Clusters may reach the registry by different names.
#[must_use]
pub fn spelling(copy: &ImageReference) -> String {
    format!("{}:{}", copy.repository(), copy.tag().unwrap_or_default())
}

/// Where the mark of a cluster is.
pub fn reference(destination: &Destination, cluster: &str) -> Result<ImageReference, InvalidReference> {
    format!("{}/{REPOSITORY}:{cluster}", place(destination)).parse()
}

/// Writes a mark.
pub async fn write(repository: &Repository, mark: &Mark) -> Result<(), Error> {
    let content = Bytes::from(serde_json::to_vec(mark).unwrap_or_default());
    let (digest, size) = (coral_registry::digest(&content), content.len() as u64);
    let empty = coral_registry::digest(EMPTY);
    for (digest, content) in [(&digest, content), (&empty, Bytes::from_static(EMPTY))] {
        if repository.blob_size(digest).await?.is_none() {
            let size = content.len() as u64;
            repository
                .send_blob(None, digest, size, |offset| {
                    let begin = usize::try_from(offset).unwrap_or_default().min(content.len());
                    stream::iter([Ok(content.slice(begin..))])
                })
                .await?;
        }
    }
    let document = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": MARK_TYPE,
        "config": {"mediaType": EMPTY_TYPE, "digest": empty, "size": EMPTY.len()},
        "layers": [{"mediaType": MARK_TYPE, "digest": digest, "size": size}],
    });
    let bytes = Bytes::from(document.to_string());
    let manifest = Manifest {
        media_type: MANIFEST_TYPE.to_owned(),
        digest: coral_registry::digest(&bytes),
        bytes,
    };
    repository.put_manifest(&mark.cluster, &manifest).await?;
    Ok(())
}

/// Reads all marks. Nothing is there where nobody has written any.
pub async fn read_all(repository: &Repository) -> Result<Vec<Mark>, Error> {
    let tags = match repository.tags().await {
        Err(RegistryError::NotFound { .. }) => Vec::new(),
        other => other?,
    };
    let mut marks = Vec::with_capacity(tags.len());
    for tag in tags {
        match read(repository, &tag).await {
            // Somebody has taken it away in the meantime.
            Err(Error::Registry(RegistryError::NotFound { .. })) => {}
            other => marks.push(other?),
        }
    }
    Ok(marks)
}

async fn read(repository: &Repository, tag: &str) -> Result<Mark, Error> {
    let not_a_mark = || Error::NotAMark { tag: tag.to_owned() };
    let manifest = repository.manifest(tag).await?;
    let Some(Document::Image { layers, .. }) = manifest.document() else {
        return Err(not_a_mark());
    };
    let layer = layers
        .into_iter()
        .find(|layer| layer.media_type == MARK_TYPE && layer.size <= MAX_BYTES)
        .ok_or_else(not_a_mark)?;
    let mut blob = repository.blob(&layer.digest, layer.size);
    let mut content = Vec::new();
    while let Some(piece) = blob.chunk().await? {
        content.extend_from_slice(&piece);
    }
    serde_json::from_slice(&content).map_err(|_| not_a_mark())
}

#[cfg(test)]
mod tests {
    use coral_registry::{
        Client, Options,
        fake::{Behaviour, Image, Registry},
    };

    use super::*;

    fn mark(cluster: &str, references: &[&str]) -> Mark {
        Mark {
            cluster: cluster.to_owned(),
            written_at: Timestamp::from_second(1_000).unwrap(),
            references: references.iter().map(|&reference| reference.to_owned()).collect(),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn marks_of_several_clusters_are_read_as_they_were_written() {
        let registry = Registry::start(Behaviour::default()).await;
        let client = Client::new(Options::default()).unwrap();
        let destination =
            serde_json::from_value(json!({"registry": registry.host(), "repositoryPrefix": "m"})).unwrap();
        let place = reference(&destination, "a").unwrap();
        assert_eq!(place.repository(), "m/coral-marks");
        let repository = client.repository(&place, None);
        assert_eq!(read_all(&repository).await.unwrap(), []);

        let (first, second) = (mark("a", &["m/x:1"]), mark("b", &[]));
        write(&repository, &mark("a", &["m/old:1"])).await.unwrap();
        write(&repository, &first).await.unwrap();
        write(&repository, &second).await.unwrap();
        let mut read = read_all(&repository).await.unwrap();
        read.sort_by(|one, other| one.cluster.cmp(&other.cluster));
        assert_eq!(read, [first, second]);

        // What is none must not pass for a cluster that needs nothing.
        Image::new("other", &[10]).push(&registry, "m/coral-marks", Some("c"));
        let error = read_all(&repository).await.unwrap_err();
        assert!(error.to_string().contains("mark c"), "{error}");
    }
}
