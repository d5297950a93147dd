//! The oldest containerd that is in wide use, the one that Debian ships, and the newest: the agent does its whole job on both.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

#[path = "support/solo.rs"]
mod solo;

use std::time::Duration;

use coral_api::{FailureReason, ImageReference, node_images::ImageState};
use coral_tests::{
    ClusterOptions, NodeOptions,
    cluster::{Containerd, NodeHandle},
    images::{self, PublishedImage},
    relay::Relay,
    wait::{Look, eventually},
};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use solo::{PATIENCE, Solo, agent, open_files};

/// The agent looks every 8 s. The pull that follows takes no time, but on a machine that has other things to do.
const NOTICED: Duration = Duration::from_secs(30);
/// Slow enough to watch a pull, and to break it: the agent writes how many bytes there are every 10 s, if it has nothing else to say,
/// and the first time it may know of none.
const BYTES_PER_SECOND: u64 = 400_000;
const LARGE_BYTES: usize = 12_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn everything_works_with_the_containerd_of_debian_and_the_newest() {
    let options = ClusterOptions {
        nodes: 0,
        ..ClusterOptions::default()
    };
    let mut solo = Solo::start("containerd", options).await;
    solo.start_controller();
    let old = Case::new(&solo, "debian", Containerd::Debian).await;
    let new = Case::new(&solo, "newest", Containerd::Bundled).await;
    tokio::join!(old.run("1.6."), new.run("2."));
    drop((old, new));
    solo.down().await;
}

/// One node with its containerd, and images that only it has.
struct Case<'a> {
    solo: &'a Solo,
    name: &'static str,
    node: NodeHandle,
}

impl<'a> Case<'a> {
    async fn new(solo: &'a Solo, name: &'static str, containerd: Containerd) -> Self {
        let options = NodeOptions {
            containerd,
            agent: Some(agent()),
            ..NodeOptions::default()
        };
        let node = solo.cluster.add_light_node(options).await.unwrap();
        Self { solo, name, node }
    }

    async fn run(&self, version: &str) {
        self.a_pull_tells_how_far_it_is_and_what_it_brought(version).await;
        self.a_runtime_that_dies_in_the_middle_of_a_pull_is_survived().await;
        let app = self.publish("app", 100_000).reference;
        self.an_image_is_labelled_pinned_and_let_go(&app).await;
        self.an_image_that_vanishes_comes_back(&app).await;
        self.a_missing_image_is_called_that().await;
        self.an_image_is_taken_away().await;
    }

    fn publish(&self, name: &str, bytes: usize) -> PublishedImage {
        let name = format!("{}/{name}", self.name);
        images::tiny(&self.solo.cluster.open_registry(), &name, "v1", bytes, &name).unwrap()
    }

    /// Asks for images on this node only.
    async fn prefetch(&self, name: &str, mut spec: Value) {
        spec["nodeSelector"] = json!({"matchLabels": {"kubernetes.io/hostname": self.node.name()}});
        self.solo.prefetch(&format!("{}-{name}", self.name), spec).await;
    }

    async fn delete_prefetch(&self, name: &str) {
        self.solo.delete_prefetch(&format!("{}-{name}", self.name)).await;
    }

    /// An image behind a slow relay.
    async fn slow(&self, published: &PublishedImage) -> (Relay, String) {
        let relay = self.solo.cluster.slow_registry(BYTES_PER_SECOND).await.unwrap();
        let host = self.solo.cluster.registry();
        let image = published.reference.replace(host.as_str(), &relay.host());
        (relay, image)
    }

    async fn a_pull_tells_how_far_it_is_and_what_it_brought(&self, version: &str) {
        let published = self.publish("large", LARGE_BYTES);
        let (_relay, image) = self.slow(&published).await;
        self.prefetch("large", json!({"images": [image]})).await;
        let this = (self.node.name(), image.as_str());
        self.solo
            .says("how far it is", this, PATIENCE, |status| {
                let pull = status.pull.as_ref();
                let bytes = pull.and_then(|pull| pull.done_bytes.zip(pull.total_bytes));
                bytes.is_some_and(|(done, total)| done > 0 && u64::try_from(total).unwrap() == published.size_bytes)
            })
            .await;
        let status = self.solo.present(this.0, this.1, PATIENCE).await;
        assert_eq!(status.digest.as_ref(), Some(&published.digest));
        assert!(
            usize::try_from(status.size_bytes.unwrap()).unwrap() > LARGE_BYTES,
            "{status:?}"
        );
        assert!(self.node.has_image(&image).unwrap());
        let status = self.solo.status(this.0).await.unwrap().unwrap();
        let runtime = status.runtime.unwrap();
        assert_eq!(runtime.name, "containerd");
        assert!(
            runtime.version.trim_start_matches('v').starts_with(version),
            "{runtime:?}"
        );
    }

    async fn a_runtime_that_dies_in_the_middle_of_a_pull_is_survived(&self) {
        let published = self.publish("broken-off", LARGE_BYTES);
        let (_relay, image) = self.slow(&published).await;
        let process = self.node.agent_process().unwrap();
        let files = open_files(process.pid);
        self.prefetch("broken-off", json!({"images": [image]})).await;
        let this = (self.node.name(), image.as_str());
        self.solo
            .says("under way", this, PATIENCE, |status| {
                status.state == ImageState::Pulling
                    && status.pull.as_ref().is_some_and(|pull| pull.done_bytes > Some(0))
            })
            .await;
        self.node.kill_containerd().unwrap();
        self.node.start().await.unwrap();
        let status = self.solo.present(this.0, this.1, PATIENCE).await;
        assert_eq!(status.digest.as_ref(), Some(&published.digest));
        assert_eq!(self.solo.pulls(&image), 2, "it is pulled once more, and only once");
        let unfinished = self.node.ctr(&["content", "active"]).unwrap();
        assert!(!unfinished.contains("layer-sha256:"), "{unfinished}");
        assert_eq!(
            self.node.agent_process().unwrap(),
            process,
            "the agent was started again"
        );
        let files_now = open_files(process.pid);
        assert!(files_now <= files + 4, "{files} files were open, and then {files_now}");
    }

    fn is_pinned(&self, image: &str) -> anyhow::Result<bool> {
        let listed = self.node.ctr(&["images", "list", &format!("name=={image}")])?;
        Ok(listed.contains("io.cri-containerd.pinned=pinned"))
    }

    async fn pinned(&self, image: &str, expected: bool) {
        eventually(&format!("{image} to be pinned: {expected}"), PATIENCE, async || {
            let is = self.is_pinned(image)?;
            Ok(if is == expected {
                Look::Done(())
            } else {
                Look::NotYet(is)
            })
        })
        .await
        .unwrap();
    }

    async fn an_image_is_labelled_pinned_and_let_go(&self, image: &str) {
        self.prefetch("app", json!({"images": [image], "pin": true})).await;
        self.solo.present(self.node.name(), image, PATIENCE).await;
        self.pinned(image, true).await;
        let key = image.parse::<ImageReference>().unwrap().label_key();
        let nodes: Api<Node> = Api::all(self.solo.client.clone());
        eventually("the node to have the image's label", PATIENCE, async || {
            let labels = nodes.get(self.node.name()).await?.labels().clone();
            Ok(if labels.contains_key(&key) {
                Look::Done(())
            } else {
                Look::NotYet(labels)
            })
        })
        .await
        .unwrap();
        self.prefetch("app", json!({"images": [image], "pin": false})).await;
        self.pinned(image, false).await;
        assert!(self.node.has_image(image).unwrap());
    }

    async fn an_image_that_vanishes_comes_back(&self, image: &str) {
        assert_eq!(self.solo.pulls(image), 1);
        self.node.remove_image(image).unwrap();
        let held = self.solo.held(self.node.name(), image, true, NOTICED).await;
        held.unwrap();
        self.solo.present(self.node.name(), image, PATIENCE).await;
        assert_eq!(self.solo.pulls(image), 2);
    }

    async fn a_missing_image_is_called_that(&self) {
        let image = format!("{}/nobody/has/this:{}", self.solo.cluster.registry(), self.name);
        self.prefetch("missing", json!({"images": [image]})).await;
        let this = (self.node.name(), image.as_str());
        let failed = self
            .solo
            .says("failed", this, PATIENCE, |status| status.failure.is_some());
        let failure = failed.await.0.failure.unwrap();
        assert_eq!(failure.reason, FailureReason::NotFound, "{failure:?}");
        self.delete_prefetch("missing").await;
    }

    /// What a Prefetch with `Remove` brought goes with it.
    async fn an_image_is_taken_away(&self) {
        let image = self.publish("brief", 100_000).reference;
        let node = self.node.name();
        self.prefetch("brief", json!({"images": [image], "removalPolicy": "Remove"}))
            .await;
        self.solo.present(node, &image, PATIENCE).await;
        self.delete_prefetch("brief").await;
        self.solo.held(node, &image, false, PATIENCE).await.unwrap();
        eventually("the agent to have nothing to say of it", PATIENCE, async || {
            let status = self.solo.status(node).await?.unwrap_or_default();
            let is_there = status
                .images
                .iter()
                .any(|status| status.image == image && status.state == ImageState::Present);
            Ok(if is_there { Look::NotYet(status) } else { Look::Done(()) })
        })
        .await
        .unwrap();
    }
}
