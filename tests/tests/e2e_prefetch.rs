//! The main job on a real cluster. What is on a node is asked of its containerd, never of Coral.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

mod support;

use std::time::Duration;

use coral_api::{FailureReason, ImageReference};
use coral_tests::{
    NodeOptions,
    wait::{Look, eventually},
};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, PostParams},
};
use serde_json::json;
use support::{LABELS_FOLLOW, PATIENCE, Scene, on};

#[tokio::test(flavor = "multi_thread")]
async fn images_are_on_exactly_the_selected_nodes() {
    let scene = Scene::new("selected").await;
    let (one, two) = (scene.image("one"), scene.image("two"));
    scene
        .prefetch("web", json!({"images": [one, two], "nodeSelector": on(&["node-1"])}))
        .await;
    let status = scene.ready("web").await.status.unwrap();
    assert_eq!(
        (status.nodes.desired, status.nodes.ready, status.image_count),
        (1, 1, 2)
    );
    for image in [&one, &two] {
        assert!(scene.holds("node-1", image));
        assert!(!scene.holds("node-2", image));
        scene.label("node-1", image, true, LABELS_FOLLOW).await;
        scene.label("node-2", image, false, Duration::ZERO).await;
    }

    // Without a Prefetch the label goes, and the image stays.
    scene.delete_prefetch("web").await;
    scene.label("node-1", &one, false, LABELS_FOLLOW).await;
    assert!(scene.holds("node-1", &one));
    let object = scene.node_images("node-1").await;
    assert!(object.is_none_or(|object| object.spec.images.iter().all(|entry| entry.image != one)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_gets_the_images() {
    let scene = Scene::new("joining").await;
    let image = scene.image("app");
    scene
        .prefetch("web", json!({"images": [image], "parallelism": "100%"}))
        .await;
    scene.ready("web").await;
    let node = scene.cluster.add_node(NodeOptions::default()).await.unwrap();
    scene.held(node.name(), &image).await;
    scene.label(node.name(), &image, true, LABELS_FOLLOW).await;
    let name = node.name().to_owned();
    scene.cluster.remove_node(&name).await.unwrap();
    // What belongs to a node goes with it.
    eventually("the NodeImages object to go with its node", PATIENCE, async || {
        let object = scene.node_images(&name).await;
        Ok(object.map_or(Look::Done(()), |object| Look::NotYet(object.metadata)))
    })
    .await
    .unwrap();
    scene.ready("web").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_deleted_behind_our_back_comes_back() {
    let scene = Scene::new("deleted").await;
    let image = scene.image("app");
    scene
        .prefetch("web", json!({"images": [image], "nodeSelector": on(&["node-2"])}))
        .await;
    scene.ready("web").await;
    let node = scene.cluster.node("node-2").unwrap();
    node.remove_image(&image).unwrap();
    assert!(!node.has_image(&image).unwrap());
    scene.held("node-2", &image).await;
    scene.ready("web").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_follow_the_image_both_ways() {
    let scene = Scene::new("labels").await;
    let image = scene.image("app");
    scene
        .prefetch("web", json!({"images": [image], "nodeSelector": on(&["node-1"])}))
        .await;
    scene.label("node-1", &image, true, LABELS_FOLLOW).await;

    // Gone from the registry, too, so that it cannot come back.
    scene.delete_image(&image);
    scene.cluster.node("node-1").unwrap().remove_image(&image).unwrap();
    scene.label("node-1", &image, false, LABELS_FOLLOW).await;
    let failure = scene.fails_with("web", FailureReason::NotFound).await;
    assert_eq!(
        (failure.node.as_str(), failure.image.as_str()),
        ("node-1", image.as_str())
    );

    assert_eq!(scene.image("app"), image);
    scene.label("node-1", &image, true, LABELS_FOLLOW).await;
    assert!(scene.holds("node-1", &image));
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_one_of_two_that_share_an_image_changes_nothing_for_the_other() {
    let scene = Scene::new("shared").await;
    let (shared, own) = (scene.image("both"), scene.image("own"));
    scene
        .prefetch("one", json!({"images": [shared, own], "nodeSelector": on(&["node-1"])}))
        .await;
    scene
        .prefetch("two", json!({"images": [shared], "nodeSelector": on(&["node-1"])}))
        .await;
    scene.ready("one").await;
    let before = scene.ready("two").await;
    scene.delete_prefetch("one").await;
    scene.label("node-1", &own, false, LABELS_FOLLOW).await;

    let after = scene.prefetches().get("two").await.unwrap();
    assert_eq!(after.metadata.resource_version, before.metadata.resource_version);
    scene.label("node-1", &shared, true, Duration::ZERO).await;
    assert!(scene.holds("node-1", &shared));
    let object = scene.node_images("node-1").await.unwrap();
    let entry = object.spec.images.iter().find(|entry| entry.image == shared).unwrap();
    assert_eq!(entry.requested_by, [format!("{}/two", scene.namespace.name())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_starts_where_its_image_is_without_a_pull() {
    let scene = Scene::new("warm").await;
    let image = scene.image("app");
    scene
        .prefetch("web", json!({"images": [image], "nodeSelector": on(&["node-2"])}))
        .await;
    scene.ready("web").await;
    let key = image.parse::<ImageReference>().unwrap().label_key();
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "app"},
        "spec": {
            "nodeSelector": {key: "available"},
            "containers": [{"name": "app", "image": image, "imagePullPolicy": "Never"}],
            "terminationGracePeriodSeconds": 0,
        },
    }))
    .unwrap();
    let pods: Api<Pod> = scene.namespace.api();
    scene.label("node-2", &image, true, LABELS_FOLLOW).await;
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let running = eventually("the pod to run", PATIENCE, async || {
        let pod = pods.get("app").await?;
        let phase = pod.status.as_ref().and_then(|status| status.phase.clone());
        Ok(if phase.as_deref() == Some("Running") {
            Look::Done(pod)
        } else {
            Look::NotYet(phase)
        })
    })
    .await
    .unwrap();
    assert_eq!(running.spec.unwrap().node_name.as_deref(), Some("node-2"));
    let events: Api<Event> = scene.namespace.api();
    eventually("the kubelet to say that the image was there", PATIENCE, async || {
        let events = events.list(&ListParams::default()).await?.items;
        let messages: Vec<String> = events.into_iter().filter_map(|event| event.message).collect();
        Ok(
            if messages
                .iter()
                .any(|message| message.contains("already present on machine"))
            {
                Look::Done(())
            } else {
                Look::NotYet(messages)
            },
        )
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_have_the_right_reason_and_the_other_images_go_on() {
    let scene = Scene::new("failing").await;
    let good = scene.image("good");
    let registry = scene.cluster.registry();
    let private = format!("{}/private/app:v1", scene.cluster.registry_auth().host);
    let cases = [
        (
            "unknown",
            format!("{registry}/nothing/here:v1"),
            FailureReason::NotFound,
        ),
        (
            "unreachable",
            format!("{}:1/nothing/here:v1", scene.cluster.address()),
            FailureReason::RegistryUnavailable,
        ),
        ("private", private, FailureReason::Unauthorized),
    ];
    for (name, image, _) in &cases {
        let spec = json!({"images": [good, image], "nodeSelector": on(&["node-1"]), "backoffLimit": 2});
        scene.prefetch(name, spec).await;
    }
    for (name, image, reason) in &cases {
        let failure = scene.fails_with(name, *reason).await;
        assert_eq!((failure.node.as_str(), &failure.image), ("node-1", image));
        let stalled = eventually(&format!("Prefetch {name} to be Stalled"), PATIENCE, async || {
            let status = scene.prefetches().get(name).await?.status.unwrap_or_default();
            let is_stalled = coral_api::conditions::is_true(&status.conditions, coral_api::conditions::STALLED);
            Ok(if is_stalled {
                Look::Done(status)
            } else {
                Look::NotYet(status)
            })
        })
        .await
        .unwrap();
        assert_eq!((stalled.nodes.failed, stalled.nodes.ready), (1, 0));
    }
    assert!(scene.holds("node-1", &good));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_runtime_is_survived() {
    let scene = Scene::new("restart").await;
    let image = scene.image("app");
    scene
        .prefetch("web", json!({"images": [image], "nodeSelector": on(&["node-2"])}))
        .await;
    scene.ready("web").await;
    let node = scene.cluster.node("node-2").unwrap();
    node.kill_containerd().unwrap();
    node.start().await.unwrap();
    // A new image shows that the agent has found the runtime again.
    let next = scene.image("next");
    scene
        .prefetch("next", json!({"images": [next], "nodeSelector": on(&["node-2"])}))
        .await;
    scene.held("node-2", &next).await;
    scene.ready("web").await;
    scene.label("node-2", &image, true, LABELS_FOLLOW).await;
    let restarts: i32 = agent_restarts(&scene).await;
    assert_eq!(restarts, 0, "the agent was started again");
}

async fn agent_restarts(scene: &Scene) -> i32 {
    let pods: Api<Pod> = Api::namespaced(scene.cluster.client(), "coral-system");
    let agents = pods
        .list(&ListParams::default().labels("app.kubernetes.io/name=coral-agent"))
        .await
        .unwrap();
    let on_node = agents
        .items
        .iter()
        .filter(|pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some("node-2"));
    on_node
        .flat_map(|pod| {
            pod.status
                .iter()
                .flat_map(|status| status.container_statuses.iter().flatten())
        })
        .map(|container| container.restart_count)
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_of_coral_s_keeps_to_its_own_prefix() {
    let scene = Scene::new("prefix").await;
    let image = scene.image("app");
    scene
        .prefetch("web", json!({"images": [image], "nodeSelector": on(&["node-1"])}))
        .await;
    scene.ready("web").await;
    scene.label("node-1", &image, true, LABELS_FOLLOW).await;
    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(scene.cluster.client());
    let node = nodes.get("node-1").await.unwrap();
    let of_coral: Vec<String> = node
        .managed_fields()
        .iter()
        .filter(|entry| entry.manager.as_deref() == Some("coral-controller"))
        .filter_map(|entry| entry.fields_v1.as_ref())
        .flat_map(|fields| {
            fields.0["f:metadata"]["f:labels"]
                .as_object()
                .cloned()
                .unwrap_or_default()
        })
        .map(|(key, _)| key)
        .filter(|key| key != ".")
        .collect();
    assert!(!of_coral.is_empty());
    assert!(
        of_coral.iter().all(|key| key.starts_with("f:image.stvz.io/")),
        "{of_coral:?}"
    );
}
