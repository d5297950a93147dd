//! What containerd offers beside CRI: how far downloads are, and labels that protect images.

use std::collections::BTreeMap;

use coral_api::{ImageReference, keys};
use coral_proto::containerd::{
    content_v1::{Info, ListContentRequest, ListStatusesRequest, ReadContentRequest, content_client::ContentClient},
    images_v1::{
        DeleteImageRequest, FieldMask, Image, ListImagesRequest, UpdateImageRequest, images_client::ImagesClient,
    },
};
use serde::Deserialize;
use tonic::{Code, Request, Status, Streaming, transport::Channel};

/// The namespace in which containerd's CRI plugin keeps its images.
const NAMESPACE: &str = "k8s.io";
/// Label of an image record that keeps the kubelet's garbage collector away.
const PINNED_LABEL: &str = "io.cri-containerd.pinned";
const PINNED_VALUE: &str = "pinned";
/// Prefix of the label that says which repositories a blob came from; a host name without port follows.
const SOURCE_LABEL: &str = "containerd.io/distribution.source.";
/// Label of a manifest that names its configuration; nothing but a manifest has it.
const CONFIG_LABEL: &str = "containerd.io/gc.ref.content.config";
/// A manifest is smaller; what is larger is not read.
const MAX_MANIFEST_BYTES: i64 = 4 * 1024 * 1024;

/// Bytes of a pull, as they come over the wire.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Bytes {
    /// Bytes that have arrived.
    pub done: i64,
    /// Bytes in all.
    pub total: i64,
}

/// Names that Coral has pinned, by the digest that they stand for.
pub type Pins = BTreeMap<String, Vec<String>>;

/// A connection to containerd's own services, on the socket that also serves CRI.
#[derive(Clone, Debug)]
pub struct Containerd {
    content: ContentClient<Channel>,
    images: ImagesClient<Channel>,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    digest: String,
    size: i64,
}

impl Containerd {
    /// Speaks over the channel of the runtime.
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        Self {
            content: ContentClient::new(channel.clone()),
            images: ImagesClient::new(channel),
        }
    }

    /// How far the pulls of these images are. An image of which nothing is downloaded at the moment is missing in the answer.
    pub async fn progress(&self, images: &[ImageReference]) -> Result<Vec<(ImageReference, Bytes)>, Status> {
        let mut content = self.content.clone();
        let request = ListStatusesRequest { filters: Vec::new() };
        let statuses = content
            .list_statuses(in_namespace(request))
            .await?
            .into_inner()
            .statuses;
        let running: BTreeMap<String, i64> = statuses
            .into_iter()
            .filter_map(|status| Some((status.r#ref.strip_prefix("layer-")?.to_owned(), status.offset)))
            .collect();
        let mut found = Vec::new();
        if running.is_empty() {
            return Ok(found);
        }
        for image in images {
            let blobs = self.blobs_of(image).await?;
            let manifest = blobs.iter().find(|blob| {
                blob.labels.contains_key(CONFIG_LABEL)
                    && blob.labels.values().any(|digest| running.contains_key(digest))
            });
            if let Some(manifest) = manifest
                && manifest.size <= MAX_MANIFEST_BYTES
            {
                let manifest = self.read(&manifest.digest).await?;
                let layers = serde_json::from_slice::<Manifest>(&manifest)
                    .map_or_else(|_| Vec::new(), |manifest| manifest.layers);
                found.push((image.clone(), bytes(&layers, &running, &blobs)));
            }
        }
        Ok(found)
    }

    /// Protects an image, under all of its names, from the kubelet's garbage collector. Names that somebody else protects stay as they
    /// are.
    pub async fn pin(&self, image: &str) -> Result<(), Status> {
        let records = self.records([format!("name=={image}")]).await?;
        let Some(target) = records.into_iter().find_map(|record| record.target) else {
            return Err(Status::not_found("the image is gone"));
        };
        for record in self.records([format!("target.digest=={}", target.digest)]).await? {
            if !record.labels.contains_key(PINNED_LABEL) {
                self.label(record, PINNED_VALUE, "true").await?;
            }
        }
        Ok(())
    }

    /// Takes the protection of these names away. They must be names that Coral has pinned.
    pub async fn unpin(&self, names: &[String]) -> Result<(), Status> {
        for name in names {
            for record in self.records([format!("name=={name}")]).await? {
                self.label(record, "", "").await?;
            }
        }
        Ok(())
    }

    /// What Coral has pinned, also before this process began.
    pub async fn pins(&self) -> Result<Pins, Status> {
        let mut pins = Pins::new();
        for record in self.records([format!("labels.{:?}", keys::PINNED_IMAGE_LABEL)]).await? {
            let digest = record.target.map(|target| target.digest).unwrap_or_default();
            pins.entry(digest).or_default().push(record.name);
        }
        Ok(pins)
    }

    /// Whether one of these names is pinned, and not by Coral.
    pub async fn is_pinned_by_others(&self, names: &[String]) -> Result<bool, Status> {
        let records = self.records(names.iter().map(|name| format!("name=={name}"))).await?;
        let is_foreign = |record: &Image| {
            record
                .labels
                .get(PINNED_LABEL)
                .is_some_and(|value| value == PINNED_VALUE)
                && !record.labels.contains_key(keys::PINNED_IMAGE_LABEL)
        };
        Ok(records.iter().any(is_foreign))
    }

    /// Takes these names away, and no others. What the names led to stays if another name leads there.
    pub async fn remove_names(&self, names: &[String]) -> Result<(), Status> {
        for record in self.records(names.iter().map(|name| format!("name=={name}"))).await? {
            let mut images = self.images.clone();
            let request = DeleteImageRequest {
                name: record.name,
                sync: false,
                target: record.target,
            };
            match images.delete(in_namespace(request)).await {
                Err(status) if status.code() != Code::NotFound => return Err(status),
                _ => {}
            }
        }
        Ok(())
    }

    /// The records that one of these filters admits.
    async fn records(&self, filters: impl IntoIterator<Item = String>) -> Result<Vec<Image>, Status> {
        let filters: Vec<String> = filters.into_iter().collect();
        // No filter would admit everything.
        if filters.is_empty() {
            return Ok(Vec::new());
        }
        let mut images = self.images.clone();
        let request = ListImagesRequest { filters };
        Ok(images.list(in_namespace(request)).await?.into_inner().images)
    }

    /// Sets the two labels of a record; an empty value takes a label away.
    async fn label(&self, record: Image, pinned: &str, by_coral: &str) -> Result<(), Status> {
        // containerd reads the target of an update although the mask does not name it, and ends with a panic where there is none.
        if record.target.is_none() {
            return Err(Status::failed_precondition("the image record has no target"));
        }
        let mut images = self.images.clone();
        let labels = [(PINNED_LABEL, pinned), (keys::PINNED_IMAGE_LABEL, by_coral)];
        let request = UpdateImageRequest {
            update_mask: Some(FieldMask {
                paths: labels.iter().map(|(key, _)| format!("labels.{key}")).collect(),
            }),
            image: Some(Image {
                name: record.name,
                labels: labels
                    .iter()
                    .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                    .collect(),
                target: record.target,
            }),
        };
        images.update(in_namespace(request)).await?;
        Ok(())
    }

    /// The blobs that came from the repository of the image, as far as they have arrived.
    async fn blobs_of(&self, image: &ImageReference) -> Result<Vec<Info>, Status> {
        let mut content = self.content.clone();
        let filters = vec![source_filter(image)];
        let stream = content
            .list(in_namespace(ListContentRequest { filters }))
            .await?
            .into_inner();
        let answers = all(stream).await?;
        Ok(answers.into_iter().flat_map(|answer| answer.info).collect())
    }

    async fn read(&self, digest: &str) -> Result<Vec<u8>, Status> {
        let mut content = self.content.clone();
        let request = ReadContentRequest {
            digest: digest.to_owned(),
            offset: 0,
            size: 0,
        };
        let stream = content.read(in_namespace(request)).await?.into_inner();
        Ok(all(stream).await?.into_iter().flat_map(|answer| answer.data).collect())
    }
}

async fn all<T>(mut stream: Streaming<T>) -> Result<Vec<T>, Status> {
    let mut answers = Vec::new();
    while let Some(answer) = stream.message().await? {
        answers.push(answer);
    }
    Ok(answers)
}

fn in_namespace<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(
        "containerd-namespace",
        tonic::metadata::MetadataValue::from_static(NAMESPACE),
    );
    request
}

/// A filter for the blobs of the image's repository: the label's value is a list with commas.
fn source_filter(image: &ImageReference) -> String {
    let host = image.registry();
    let host = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    };
    let repository = image.repository().replace('.', "[.]");
    format!("labels.\"{SOURCE_LABEL}{host}\"~=\"(^|,){repository}(,|$)\"")
}

/// How much of these layers has arrived: of those under way what is there so far, of those that are there all.
fn bytes(layers: &[Layer], running: &BTreeMap<String, i64>, blobs: &[Info]) -> Bytes {
    let arrived = |layer: &Layer| match running.get(&layer.digest) {
        Some(offset) => *offset,
        None if blobs.iter().any(|blob| blob.digest == layer.digest) => layer.size,
        None => 0,
    };
    Bytes {
        done: layers
            .iter()
            .map(|layer| arrived(layer).clamp(0, layer.size.max(0)))
            .sum(),
        total: layers.iter().map(|layer| layer.size.max(0)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_are_found_by_host_and_repository() {
        let filter = |image: &str| source_filter(&image.parse().unwrap());
        assert_eq!(
            filter("nginx"),
            r#"labels."containerd.io/distribution.source.docker.io"~="(^|,)library/nginx(,|$)""#
        );
        assert_eq!(
            filter("host:5000/a.b/c"),
            r#"labels."containerd.io/distribution.source.host"~="(^|,)a[.]b/c(,|$)""#
        );
    }

    #[test]
    fn layers_count_as_far_as_they_have_arrived() {
        let layer = |digest: &str, size| Layer {
            digest: digest.to_owned(),
            size,
        };
        let blob = |digest: &str| Info {
            digest: digest.to_owned(),
            ..Info::default()
        };
        let layers = [layer("there", 100), layer("running", 200), layer("to come", 300)];
        let running = BTreeMap::from([("running".to_owned(), 50)]);
        assert_eq!(
            bytes(&layers, &running, &[blob("there")]),
            Bytes { done: 150, total: 600 }
        );
        assert_eq!(bytes(&[], &running, &[]), Bytes::default());
    }
}
