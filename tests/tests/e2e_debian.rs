//! The containerd that Debian ships, years behind the newest: the agent does its job on it all the same.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

#[path = "support/solo.rs"]
mod solo;

use std::time::Duration;

use coral_api::{FailureReason, ImageReference, node_images::ImageState};
use coral_tests::{
    ClusterOptions,
    cluster::Containerd,
    images,
    wait::{Look, eventually},
};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt as _};
use serde_json::json;
use solo::{PATIENCE, Solo, agent};

const NODE: &str = "light-1";
/// The agent looks every 10 s, and what it sees is written at once or 2 s after the last write.
const NOTICED: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread")]
async fn everything_works_with_the_containerd_of_debian() {
    let mut solo = Solo::start(
        "debian",
        ClusterOptions {
            nodes: 0,
            light_nodes: 1,
            containerd: Containerd::Debian,
            agent: Some(agent()),
            ..ClusterOptions::default()
        },
    )
    .await;
    solo.start_controller();
    let registry = solo.cluster.open_registry();
    let publish = |name: &str, bytes: usize| images::tiny(&registry, name, "v1", bytes, name).unwrap();

    a_pull_tells_how_far_it_is_and_what_it_brought(&solo, &publish("large", 12_000_000)).await;
    let app = publish("app", 100_000).reference;
    an_image_is_labelled_pinned_and_let_go(&solo, &app).await;
    an_image_that_vanishes_comes_back(&solo, &app).await;
    a_missing_image_is_called_that(&solo).await;
    an_image_is_taken_away(&solo, &publish("brief", 100_000).reference).await;
    solo.down().await;
}

async fn a_pull_tells_how_far_it_is_and_what_it_brought(solo: &Solo, published: &images::PublishedImage) {
    let relay = solo.cluster.slow_registry(1_000_000).await.unwrap();
    let image = published
        .reference
        .replace(solo.cluster.registry().as_str(), &relay.host());
    solo.prefetch("large", json!({"images": [image]})).await;
    solo.says("how far it is", (NODE, &image), PATIENCE, |status| {
        let pull = status.pull.as_ref();
        let bytes = pull.and_then(|pull| pull.done_bytes.zip(pull.total_bytes));
        bytes.is_some_and(|(done, total)| done > 0 && u64::try_from(total).unwrap() == published.size_bytes)
    })
    .await;
    let status = solo.present(NODE, &image, PATIENCE).await;
    assert_eq!(status.digest.as_ref(), Some(&published.digest));
    assert!(status.size_bytes.unwrap() > 12_000_000, "{status:?}");
    assert!(solo.cluster.node(NODE).unwrap().has_image(&image).unwrap());
    let runtime = solo.status(NODE).await.unwrap().unwrap().runtime.unwrap();
    assert_eq!(runtime.name, "containerd");
    assert!(runtime.version.starts_with("1."), "{runtime:?}");
}

async fn an_image_is_labelled_pinned_and_let_go(solo: &Solo, image: &str) {
    let node = solo.cluster.node(NODE).unwrap();
    let is_pinned = |expected: bool| {
        let node = node.clone();
        let image = image.to_owned();
        async move {
            eventually(&format!("{image} to be pinned: {expected}"), PATIENCE, async || {
                let listed = node.ctr(&["images", "list", &format!("name=={image}")])?;
                let is = listed.contains("io.cri-containerd.pinned=pinned");
                Ok(if is == expected {
                    Look::Done(())
                } else {
                    Look::NotYet(listed)
                })
            })
            .await
            .unwrap();
        }
    };
    solo.prefetch("app", json!({"images": [image], "pin": true})).await;
    solo.present(NODE, image, PATIENCE).await;
    is_pinned(true).await;
    let key = image.parse::<ImageReference>().unwrap().label_key();
    let nodes: Api<Node> = Api::all(solo.client.clone());
    eventually("the node to have the image's label", PATIENCE, async || {
        let labels = nodes.get(NODE).await?.labels().clone();
        Ok(if labels.contains_key(&key) {
            Look::Done(())
        } else {
            Look::NotYet(labels)
        })
    })
    .await
    .unwrap();
    solo.prefetch("app", json!({"images": [image], "pin": false})).await;
    is_pinned(false).await;
    assert!(node.has_image(image).unwrap());
}

async fn an_image_that_vanishes_comes_back(solo: &Solo, image: &str) {
    let pulls = solo.pulls(image);
    let node = solo.cluster.node(NODE).unwrap();
    node.remove_image(image).unwrap();
    solo.held(NODE, image, true, NOTICED).await.unwrap();
    solo.present(NODE, image, PATIENCE).await;
    assert_eq!((pulls, solo.pulls(image)), (1, 2));
}

async fn a_missing_image_is_called_that(solo: &Solo) {
    let image = format!("{}/nobody/has/this:v1", solo.cluster.registry());
    solo.prefetch("missing", json!({"images": [image]})).await;
    let (status, _) = solo
        .says("failed", (NODE, &image), PATIENCE, |status| status.failure.is_some())
        .await;
    let failure = status.failure.unwrap();
    assert_eq!(failure.reason, FailureReason::NotFound, "{failure:?}");
    solo.delete_prefetch("missing").await;
}

/// What a Prefetch with `Remove` brought goes with it.
async fn an_image_is_taken_away(solo: &Solo, image: &str) {
    solo.prefetch("brief", json!({"images": [image], "removalPolicy": "Remove"}))
        .await;
    solo.present(NODE, image, PATIENCE).await;
    solo.delete_prefetch("brief").await;
    solo.held(NODE, image, false, PATIENCE).await.unwrap();
    eventually("the agent to have nothing to say of it", PATIENCE, async || {
        let status = solo.status(NODE).await?.unwrap_or_default();
        let is_there = status
            .images
            .iter()
            .any(|status| status.image == image && status.state == ImageState::Present);
        Ok(if is_there { Look::NotYet(status) } else { Look::Done(()) })
    })
    .await
    .unwrap();
}
