//! What is on the nodes, by the word of their container runtimes.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result};
use coral_proto::runtime_v1::{ListImagesRequest, image_service_client::ImageServiceClient};
use tonic::transport::Endpoint;

use super::TIMEOUT;
use crate::cluster::Cluster;

/// The most that an answer may have, in bytes: a node can have thousands of images.
const MAX_ANSWER: usize = 64 << 20;

/// The names of images, each with the digests that the runtime has of it.
pub(super) type Images = BTreeMap<String, Vec<String>>;

/// What each node's runtime holds; `None` where it does not answer.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Truth(pub(super) BTreeMap<String, Option<Images>>);

impl Truth {
    /// Asks all nodes of a cluster at once.
    pub(super) async fn ask(cluster: &Cluster) -> Result<Self> {
        let answers = cluster.nodes()?.into_iter().map(|node| async move {
            let answer = tokio::time::timeout(TIMEOUT, list(&node.containerd_socket())).await;
            (node.name().to_owned(), answer.ok().and_then(Result::ok))
        });
        Ok(Self(futures::future::join_all(answers).await.into_iter().collect()))
    }
}

async fn list(socket: &Path) -> Result<Images> {
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).context("name the runtime")?;
    let channel = endpoint.connect().await.context("connect")?;
    let mut service = ImageServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER);
    let answer = service
        .list_images(ListImagesRequest::default())
        .await
        .context("list")?;
    let mut images = Images::new();
    for image in answer.into_inner().images {
        let digests = image.repo_digests.iter().filter_map(|name| name.split_once('@'));
        let digests: Vec<String> = digests.map(|(_, digest)| digest.to_owned()).collect();
        for name in image.repo_tags.into_iter().chain(image.repo_digests) {
            images.insert(name, digests.clone());
        }
    }
    Ok(images)
}
