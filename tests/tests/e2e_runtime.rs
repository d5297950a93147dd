//! What the agent does with a real containerd beside pulling: progress, protection, life beside the kubelet's garbage collector.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

mod support;

use std::time::{Duration, Instant};

use coral_api::node_images::{ImageState, ImageStatus};
use coral_tests::{
    NodeOptions, images,
    wait::{Look, eventually},
};
use serde_json::json;
use support::{PATIENCE, Scene, on};

/// What the agent of a node says of an image.
async fn reported(scene: &Scene, node: &str, image: &str) -> Option<ImageStatus> {
    let status = scene.node_images(node).await?.status?;
    status.images.into_iter().find(|status| status.image == image)
}

/// Whether containerd itself protects the image under this name.
fn is_pinned(scene: &Scene, node: &str, image: &str) -> bool {
    let listed = scene
        .cluster
        .node(node)
        .unwrap()
        .ctr(&["images", "list", &format!("name=={image}")])
        .unwrap();
    listed.contains("io.cri-containerd.pinned=pinned")
}

async fn pinned(scene: &Scene, node: &str, image: &str, expected: bool) {
    eventually(
        &format!("{image} on {node} to be pinned: {expected}"),
        PATIENCE,
        async || {
            let is = is_pinned(scene, node, image);
            Ok(if is == expected {
                Look::Done(())
            } else {
                Look::NotYet(is)
            })
        },
    )
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_pull_tells_how_far_it_is() {
    let scene = Scene::new("progress").await;
    let repository = format!("{}/large", scene.namespace.name());
    let registry = scene.cluster.open_registry();
    let published = images::tiny(&registry, &repository, "v1", 24_000_000, &repository).unwrap();
    let relay = scene.cluster.slow_registry(400_000).await.unwrap();
    let image = format!("{}/{repository}:v1", relay.host());
    scene
        .prefetch("web", json!({"images": [image], "nodeSelector": on(&["node-1"])}))
        .await;
    let progress = eventually("two reports with different numbers of bytes", PATIENCE, {
        let mut first = None;
        async move || {
            let pull = reported(&scene, "node-1", &image).await.and_then(|status| status.pull);
            let Some((done, total)) = pull.and_then(|pull| pull.done_bytes.zip(pull.total_bytes)) else {
                return Ok(Look::NotYet(first));
            };
            let (before, _) = *first.get_or_insert((done, total));
            if done == before {
                return Ok(Look::NotYet(first));
            }
            relay.set_bytes_per_second(1_000_000_000);
            scene.ready("web").await;
            Ok(Look::Done((before, done, total)))
        }
    })
    .await
    .unwrap();
    let (before, done, total) = progress;
    assert!(before < done && done <= total, "{before} {done} {total}");
    assert_eq!(u64::try_from(total).unwrap(), published.size_bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pinned_while_a_prefetch_wants_it_and_no_longer() {
    let scene = Scene::new("pin").await;
    let (image, foreign) = (scene.image("app"), scene.image("foreign"));
    let spec = |pin: bool| json!({"images": [image, foreign], "nodeSelector": on(&["node-2"]), "pin": pin});
    scene.prefetch("loose", spec(false)).await;
    scene.ready("loose").await;
    // Somebody else's protection is not Coral's to take away.
    let node = scene.cluster.node("node-2").unwrap();
    node.label_image(&foreign, "io.cri-containerd.pinned=pinned").unwrap();

    scene.prefetch("web", spec(true)).await;
    pinned(&scene, "node-2", &image, true).await;
    eventually("the agent to say that it is pinned", PATIENCE, async || {
        let status = reported(&scene, "node-2", &image).await;
        Ok(if status.as_ref().is_some_and(|status| status.pinned) {
            Look::Done(())
        } else {
            Look::NotYet(status)
        })
    })
    .await
    .unwrap();

    scene.delete_prefetch("web").await;
    pinned(&scene, "node-2", &image, false).await;
    assert!(scene.holds("node-2", &image));
    assert!(is_pinned(&scene, "node-2", &foreign));
}

/// A node with a small disk fills up: the kubelet collects what no pod uses and reports `DiskPressure`.
#[tokio::test(flavor = "multi_thread")]
async fn the_kubelet_s_garbage_collector_is_lived_with() {
    let scene = Scene::new("collector").await;
    let node = scene
        .cluster
        .add_node(NodeOptions {
            disk: Some("300m".to_owned()),
            ..NodeOptions::default()
        })
        .await
        .unwrap();
    let name = node.name().to_owned();
    let repository = |image: &str| format!("{}/{image}", scene.namespace.name());
    let publish = |image: &str| {
        let repository = repository(image);
        images::tiny(
            &scene.cluster.open_registry(),
            &repository,
            "v1",
            20_000_000,
            &repository,
        )
        .unwrap()
        .reference
    };
    let (kept, loose) = (publish("kept"), publish("loose"));
    scene
        .prefetch(
            "kept",
            json!({"images": [kept], "nodeSelector": on(&[&name]), "pin": true}),
        )
        .await;
    scene
        .prefetch("loose", json!({"images": [loose], "nodeSelector": on(&[&name])}))
        .await;
    scene.ready("kept").await;
    scene.ready("loose").await;
    pinned(&scene, &name, &kept, true).await;

    let filler = node.path("/var/lib/filler").unwrap();
    std::fs::write(&filler, vec![0; 190_000_000]).unwrap();
    eventually(
        "the kubelet to collect the image that is not pinned",
        Duration::from_mins(3),
        async || {
            let images = node.images()?;
            Ok(if images.contains(&loose) {
                Look::NotYet(images)
            } else {
                Look::Done(())
            })
        },
    )
    .await
    .unwrap();
    let gone = Instant::now();
    eventually("the agent to say that it is gone", PATIENCE, async || {
        let status = reported(&scene, &name, &loose).await;
        let is_gone = status
            .as_ref()
            .is_some_and(|status| status.state != ImageState::Present);
        Ok(if is_gone { Look::Done(()) } else { Look::NotYet(status) })
    })
    .await
    .unwrap();
    assert!(gone.elapsed() < Duration::from_secs(15), "it took {:?}", gone.elapsed());
    assert!(scene.holds(&name, &kept), "the pinned image was collected");
    assert!(!scene.holds(&name, &loose), "the agent pulls against the kubelet");

    std::fs::remove_file(&filler).unwrap();
    eventually(
        "the image to come back when there is room",
        Duration::from_mins(3),
        async || {
            let images = node.images()?;
            Ok(if images.contains(&loose) {
                Look::Done(())
            } else {
                Look::NotYet(images)
            })
        },
    )
    .await
    .unwrap();
    assert!(scene.holds(&name, &kept));
    scene.cluster.remove_node(&name).await.unwrap();
}
