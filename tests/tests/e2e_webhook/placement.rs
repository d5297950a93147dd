//! Where pods run, and what they do until they can.

use coral_api::keys;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::{
    WEBHOOK, key, node_of, pull_policy, selector,
    support::{Scene, on},
    workload::{example, kubectl, webhook_is_up},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_runs_only_where_its_image_is_and_moves_with_it() {
    let _webhook = WEBHOOK.read().await;
    let scene = Scene::new("placed").await;
    webhook_is_up(&scene).await;
    let (one, two) = (scene.image("one"), scene.image("two"));
    scene
        .prefetch("one", json!({"images": [one], "nodeSelector": on(&["node-2"])}))
        .await;
    scene.ready("one").await;
    let manifest = example("required", &[("nginx:1.29", &one)]);
    assert_eq!(scene.apply(&manifest), "", "a covered image is nothing to warn of");
    let pods = scene.running("app=web", 2, &one).await;
    assert!(pods.iter().all(|pod| node_of(pod) == "node-2"), "{pods:?}");
    assert!(pods.iter().all(|pod| pull_policy(pod) == "Never"));
    scene.started_without_a_pull(&one).await;
    assert_eq!(selector(&scene, "web").await, json!({key(&one): "available"}));
    let generation = scene.deployment("web").await.metadata.generation;
    scene.apply(&manifest);
    assert_eq!(
        scene.deployment("web").await.metadata.generation,
        generation,
        "applying again changes nothing"
    );

    // A roll-out to an image that is elsewhere.
    scene
        .prefetch("two", json!({"images": [two], "nodeSelector": on(&["node-1"])}))
        .await;
    scene.ready("two").await;
    scene.apply(&example("required", &[("nginx:1.29", &two)]));
    assert_eq!(selector(&scene, "web").await, json!({key(&two): "available"}));
    let pods = scene.running("app=web", 2, &two).await;
    assert!(pods.iter().all(|pod| node_of(pod) == "node-1"), "{pods:?}");
    scene.started_without_a_pull(&two).await;
    // Back, as people do it in a hurry.
    kubectl(&scene, &["rollout", "undo", "deployment/web"]).succeeded();
    assert_eq!(selector(&scene, "web").await, json!({key(&one): "available"}));
    scene.running("app=web", 2, &one).await;

    // Without the annotation everything is as it was.
    kubectl(&scene, &["annotate", "deployment/web", "image.stvz.io/inject-"]).succeeded();
    let deployment = scene.deployment("web").await;
    assert!(!deployment.annotations().contains_key(keys::INJECTED_ANNOTATION));
    let spec = deployment.spec.template.spec.unwrap();
    assert_eq!(spec.node_selector.unwrap_or_default().len(), 0);
    assert_eq!(spec.containers[0].image_pull_policy.as_deref(), Some("IfNotPresent"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_waits_for_its_image_and_starts_without_a_pull() {
    let _webhook = WEBHOOK.read().await;
    let scene = Scene::new("waiting").await;
    webhook_is_up(&scene).await;
    let image = scene.image("app");
    let warnings = scene.apply(&example("template", &[("nginx:1.29", &image)]));
    assert_eq!(
        warnings, "",
        "the annotations act on the pods, and nobody sees what is said of those"
    );
    let pod = scene.pod("app=store", |pod| {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.is_some_and(|conditions| {
            conditions
                .iter()
                .any(|condition| condition.reason.as_deref() == Some("Unschedulable"))
        })
    });
    let pod = pod.await;
    assert_eq!(
        pod.spec.as_ref().unwrap().node_selector.as_ref().unwrap()[&key(&image)],
        "available"
    );
    assert!(pod.annotations().contains_key(keys::INJECTED_ANNOTATION));

    scene
        .prefetch("late", json!({"images": [image], "nodeSelector": on(&["node-1"])}))
        .await;
    let pods = scene.running("app=store", 1, &image).await;
    assert_eq!((node_of(&pods[0]), pods[0].uid()), ("node-1", pod.uid()));
    scene.started_without_a_pull(&image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn preferred_placement_prefers_and_never_waits() {
    let _webhook = WEBHOOK.read().await;
    let scene = Scene::new("preferred").await;
    webhook_is_up(&scene).await;
    let (nowhere, somewhere) = (scene.image("nowhere"), scene.image("somewhere"));
    let warnings = scene.apply(&example("preferred", &[("nginx:1.29", &nowhere)]));
    assert!(
        warnings.contains("no Prefetch covers") && !warnings.contains("Pending"),
        "{warnings}"
    );
    let pods = scene.running("app=worker", 1, &nowhere).await;
    assert_eq!(pull_policy(&pods[0]), "IfNotPresent");
    assert_eq!(selector(&scene, "worker").await, Value::Null);

    scene
        .prefetch("some", json!({"images": [somewhere], "nodeSelector": on(&["node-2"])}))
        .await;
    scene.ready("some").await;
    scene.apply(&example("preferred", &[("nginx:1.29", &somewhere)]));
    let pods = scene.running("app=worker", 1, &somewhere).await;
    assert_eq!(node_of(&pods[0]), "node-2");
}
