//! The container runtime, over CRI.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use coral_api::{FailureReason, ImageReference, node_images::RuntimeInfo};
use coral_proto::runtime_v1::{
    AuthConfig, Image, ImageFsInfoRequest, ImageSpec, ImageStatusRequest, ListContainersRequest, ListImagesRequest,
    PullImageRequest, RemoveImageRequest, StatusRequest, VersionRequest, image_service_client::ImageServiceClient,
    runtime_service_client::RuntimeServiceClient,
};
use coral_registry::Credential;
use serde::Deserialize;
use tonic::transport::{Channel, Endpoint};

use crate::{
    classify::{Failure, classify},
    containerd::Containerd,
    discovery::connect_lazy,
};

/// A list of a few thousand images is larger than tonic's limit of 4 MiB.
const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// Any error.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How long a call that only asks may take. A pull has the timeout of its image instead.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(20);

/// What the runtime says of an image that it holds.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HeldImage {
    /// Digest of the manifest or index under the name that was asked for.
    pub digest: Option<String>,
    /// Bytes on the node.
    pub size_bytes: i64,
    /// Whether the kubelet's garbage collector passes over it.
    pub pinned: bool,
}

/// The images of a node, by each of the names that the runtime gives them.
pub type Inventory = BTreeMap<String, HeldImage>;

/// An image as the runtime lists it, with all of its names.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Listing {
    /// ID of the image: containerd's begins with `sha256:`, CRI-O's does not.
    pub id: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// `repository@digest`.
    pub digests: Vec<String>,
    /// Whether the kubelet's garbage collector passes over it.
    pub is_pinned: bool,
}

impl Listing {
    /// Every name, also the ID.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let names = self.tags.iter().chain(&self.digests).chain([&self.id]);
        names.cloned().collect()
    }

    /// Whether this is one of its names, however it is spelled.
    #[must_use]
    pub fn is_named(&self, name: &str) -> bool {
        fn bare(id: &str) -> &str {
            id.strip_prefix("sha256:").unwrap_or(id)
        }
        let has = |name: &str| self.tags.iter().chain(&self.digests).any(|own| own == name);
        !name.is_empty()
            && (bare(name) == bare(&self.id)
                || has(name)
                || name
                    .parse()
                    .is_ok_and(|reference: ImageReference| has(&reference.identity())))
    }
}

/// A container, running or not.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Container {
    /// Namespace of its pod.
    pub namespace: String,
    /// Name of its pod.
    pub pod: String,
    /// Its name in the pod.
    pub name: String,
    /// Names or IDs of its image.
    pub images: Vec<String>,
}

impl fmt::Display for Container {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "container {}", self.name)?;
        // What somebody ran without a kubelet has no pod.
        if self.pod.is_empty() {
            return Ok(());
        }
        write!(formatter, " of pod {}/{}", self.namespace, self.pod)
    }
}

/// Where the images lie.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ImageFilesystem {
    /// A folder of the node on that file system.
    pub folder: String,
    /// Bytes that images take.
    pub used_bytes: i64,
}

/// What is read of a runtime's configuration.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    sandbox_image: Option<String>,
}

/// The endpoint is no unix socket.
#[derive(Debug, thiserror::Error)]
#[error(
    "failed to use the runtime endpoint {endpoint:?}: it must be an absolute path of a unix socket, such as unix:///run/containerd/containerd.sock"
)]
pub struct InvalidEndpoint {
    endpoint: String,
}

/// A connection to the container runtime of the node. It connects when it is first used, and again after a restart of the runtime.
#[derive(Clone, Debug)]
pub struct Runtime {
    channel: Channel,
    images: ImageServiceClient<Channel>,
    service: RuntimeServiceClient<Channel>,
}

impl Runtime {
    /// A connection to `endpoint`, `unix:///…` or an absolute path.
    pub fn new(endpoint: &str) -> Result<Self, InvalidEndpoint> {
        let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
        let channel = Some(path)
            .filter(|path| path.starts_with('/'))
            .and_then(|path| Endpoint::from_shared(format!("unix://{path}")).ok())
            .ok_or_else(|| InvalidEndpoint {
                endpoint: endpoint.to_owned(),
            })?
            .connect_timeout(QUESTION_TIMEOUT)
            .connect_lazy();
        Ok(Self::over(channel))
    }

    /// A connection to the runtime of the node whose `/run` is at `folder`; see [`SOCKETS`](crate::discovery::SOCKETS).
    #[must_use]
    pub fn discover(folder: impl Into<PathBuf>) -> Self {
        Self::over(connect_lazy(folder.into()))
    }

    fn over(channel: Channel) -> Self {
        Self {
            images: ImageServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            service: RuntimeServiceClient::new(channel.clone()),
            channel,
        }
    }

    /// What containerd offers beside CRI, on the same socket.
    #[must_use]
    pub fn containerd(&self) -> Containerd {
        Containerd::new(self.channel.clone())
    }

    /// Which runtime answers.
    pub async fn version(&self) -> Result<RuntimeInfo, Failure> {
        let mut service = self.service.clone();
        let answer = question(service.version(VersionRequest {
            version: "v1".to_owned(),
        }))
        .await?;
        Ok(RuntimeInfo {
            name: answer.runtime_name,
            version: answer.runtime_version,
        })
    }

    /// Every image that the runtime holds.
    pub async fn inventory(&self) -> Result<Inventory, Failure> {
        let mut images = self.images.clone();
        let answer = question(images.list_images(ListImagesRequest { filter: None })).await?;
        let mut inventory = Inventory::new();
        for image in &answer.images {
            for name in image.repo_tags.iter().chain(&image.repo_digests) {
                inventory.insert(name.clone(), held(image, name));
            }
        }
        Ok(inventory)
    }

    /// One image, by its [identity](coral_api::ImageReference::identity).
    pub async fn image(&self, identity: &str) -> Result<Option<HeldImage>, Failure> {
        let image = self.status(identity).await?;
        Ok(image.map(|image| held(&image, identity)))
    }

    async fn status(&self, identity: &str) -> Result<Option<Image>, Failure> {
        let mut images = self.images.clone();
        let request = ImageStatusRequest {
            image: Some(spec(identity)),
            verbose: false,
        };
        Ok(question(images.image_status(request)).await?.image)
    }

    /// One image with all of its names, by one of them.
    pub async fn listing(&self, identity: &str) -> Result<Option<Listing>, Failure> {
        let image = self.status(identity).await?;
        Ok(image.map(|image| Listing {
            id: image.id,
            tags: image.repo_tags,
            digests: image.repo_digests,
            is_pinned: image.pinned,
        }))
    }

    /// Removes an image: with containerd all of its names, with CRI-O this name, and the image with its last.
    pub async fn remove(&self, identity: &str) -> Result<(), Failure> {
        let mut images = self.images.clone();
        let request = RemoveImageRequest {
            image: Some(spec(identity)),
        };
        images.remove_image(request).await.map_err(|status| classify(&status))?;
        Ok(())
    }

    /// Every container, running or not.
    pub async fn containers(&self) -> Result<Vec<Container>, Failure> {
        let mut service = self.service.clone();
        let answer = question(service.list_containers(ListContainersRequest {})).await?;
        let containers = answer.containers.into_iter().map(|mut container| {
            let mut label = |key| container.labels.remove(key).unwrap_or_default();
            Container {
                namespace: label("io.kubernetes.pod.namespace"),
                pod: label("io.kubernetes.pod.name"),
                name: container.metadata.map_or(container.id, |metadata| metadata.name),
                images: container
                    .image
                    .map(|spec| spec.image)
                    .into_iter()
                    .chain([container.image_ref, container.image_id])
                    .collect(),
            }
        });
        Ok(containers.collect())
    }

    /// The image of which every pod has a container that holds its namespaces. containerd from 2.0 does not tell, but has it pinned.
    pub async fn sandbox_image(&self) -> Result<Option<String>, Failure> {
        let mut service = self.service.clone();
        let answer = question(service.status(StatusRequest { verbose: true })).await?;
        let config = answer.info.get("config");
        let config: Config = config
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        Ok(config.sandbox_image)
    }

    /// Pulls an image, anonymously where there is no credential. Dropping the future ends the pull.
    pub async fn pull(&self, identity: &str, credential: Option<&Credential>) -> Result<(), Failure> {
        let mut images = self.images.clone();
        let request = PullImageRequest {
            image: Some(spec(identity)),
            auth: credential.map(auth),
        };
        images.pull_image(request).await.map_err(|status| classify(&status))?;
        Ok(())
    }

    /// The file system that holds the images; containerd names that of its default snapshotter first.
    pub async fn filesystem(&self) -> Result<Option<ImageFilesystem>, Failure> {
        let mut images = self.images.clone();
        let answer = question(images.image_fs_info(ImageFsInfoRequest {})).await?;
        Ok(answer
            .image_filesystems
            .into_iter()
            .next()
            .map(|usage| ImageFilesystem {
                folder: usage.fs_id.unwrap_or_default().mountpoint,
                used_bytes: usage.used_bytes.map_or(0, |bytes| saturating(bytes.value)),
            }))
    }
}

/// Waits for the answer of a call that only asks.
async fn question<T>(call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>) -> Result<T, Failure> {
    match tokio::time::timeout(QUESTION_TIMEOUT, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(classify(&status)),
        Err(_) => Err(Failure {
            reason: FailureReason::RuntimeUnavailable,
            message: format!(
                "the container runtime gave no answer in {} s",
                QUESTION_TIMEOUT.as_secs()
            ),
        }),
    }
}

fn spec(identity: &str) -> ImageSpec {
    ImageSpec {
        image: identity.to_owned(),
        ..ImageSpec::default()
    }
}

fn auth(credential: &Credential) -> AuthConfig {
    AuthConfig {
        username: credential.username.to_string(),
        password: credential.password.to_string(),
        identity_token: credential.identity_token.to_string(),
        ..AuthConfig::default()
    }
}

fn held(image: &Image, name: &str) -> HeldImage {
    HeldImage {
        digest: digest_of(name, &image.repo_digests),
        size_bytes: saturating(image.size),
        pinned: image.pinned,
    }
}

/// The digest among `repo_digests` that belongs to the repository of `name`, or else any: an image that was loaded from a file has none.
fn digest_of(name: &str, repo_digests: &[String]) -> Option<String> {
    // CRI-O lists the digest of the index and that of the platform's manifest; the one that was asked for is the one to tell.
    if let Some((_, digest)) = name.split_once('@') {
        return Some(digest.to_owned());
    }
    let repository = name.rsplit_once(':').map_or(name, |(repository, _)| repository);
    let digests = || {
        repo_digests
            .iter()
            .filter_map(|repo_digest| repo_digest.split_once('@'))
    };
    digests()
        .find(|(repo, _)| *repo == repository)
        .or_else(|| digests().next())
        .map(|(_, digest)| digest.to_owned())
}

fn saturating(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_is_that_of_the_named_repository() {
        let digests = ["other/app@sha256:1".to_owned(), "host:5000/app@sha256:2".to_owned()];
        assert_eq!(digest_of("host:5000/app:v1", &digests).as_deref(), Some("sha256:2"));
        assert_eq!(
            digest_of("host:5000/app@sha256:2", &digests).as_deref(),
            Some("sha256:2")
        );
        assert_eq!(digest_of("third/app:v1", &digests).as_deref(), Some("sha256:1"));
        assert_eq!(digest_of("third/app:v1", &[]), None);
        let both = ["r/app@sha256:index".to_owned(), "r/app@sha256:manifest".to_owned()];
        assert_eq!(
            digest_of("r/app@sha256:manifest", &both).as_deref(),
            Some("sha256:manifest")
        );
    }

    #[tokio::test]
    async fn endpoints_are_unix_sockets() {
        assert!(Runtime::new("unix:///run/containerd/containerd.sock").is_ok());
        assert!(Runtime::new("/run/crio/crio.sock").is_ok());
        for endpoint in ["", "run/x.sock", "tcp://127.0.0.1:1", "unix://run/x.sock"] {
            let error = Runtime::new(endpoint).unwrap_err();
            assert!(error.to_string().contains("absolute path"), "{endpoint}");
        }
    }

    #[tokio::test]
    async fn a_missing_socket_is_an_unavailable_runtime() {
        let runtime = Runtime::new("/nonexistent/containerd.sock").unwrap();
        let failure = runtime.inventory().await.unwrap_err();
        assert_eq!(failure.reason, FailureReason::RuntimeUnavailable, "{failure:?}");
    }
}
