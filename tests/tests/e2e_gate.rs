//! Nodes whose kubelet registers with Coral's startup taint, and pods that wait for it to go.
//!
//! The tests change the controller and add nodes that all Prefetches of the other would select, so they take turns.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

mod support;

use std::time::{Duration, SystemTime};

use coral_api::keys::STARTUP_TAINT;
use coral_tests::{
    NodeOptions, images,
    wait::{Look, eventually},
};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Event, Node, Pod},
};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use support::{PATIENCE, Scene};
use tokio::sync::Mutex;

static TURN: Mutex<()> = Mutex::const_new(());

/// What the gate's timeout is made for one of the tests.
const SHORT: Duration = Duration::from_secs(20);

/// A node that registers with the startup taint.
fn gated() -> NodeOptions {
    NodeOptions {
        register_with_taints: vec![format!("{STARTUP_TAINT}:NoSchedule")],
        ..NodeOptions::default()
    }
}

fn nodes(scene: &Scene) -> Api<Node> {
    Api::all(scene.cluster.client())
}

/// A selector of all nodes but those that are there.
async fn on_new_nodes(scene: &Scene) -> Value {
    let there = nodes(scene).list(&ListParams::default()).await.unwrap().items;
    let names: Vec<String> = there.iter().map(Node::name_any).collect();
    json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "NotIn", "values": names}]})
}

fn has_taint(node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.into_iter().any(|taint| taint.key == STARTUP_TAINT)
}

/// Waits until the node has lost its startup taint; returns when it became Ready.
async fn untainted(scene: &Scene, name: &str, patience: Duration) -> SystemTime {
    eventually(&format!("{name} to lose its startup taint"), patience, async || {
        let node = nodes(scene).get(name).await?;
        Ok(if has_taint(&node) {
            Look::NotYet("it is there")
        } else {
            Look::Done(ready_since(&node))
        })
    })
    .await
    .unwrap()
}

fn ready_since(node: &Node) -> SystemTime {
    let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.find(|condition| condition.type_ == "Ready").unwrap();
    ready.last_transition_time.clone().unwrap().0.into()
}

/// A pod that only the new nodes could run, and that no pull may start.
async fn make_pod(scene: &Scene, image: &str, selector: Value) -> Api<Pod> {
    let terms = json!([{"matchExpressions": selector["matchExpressions"]}]);
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "app"},
        "spec": {
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}},
            "containers": [{"name": "app", "image": image, "imagePullPolicy": "Never"}],
            "terminationGracePeriodSeconds": 0,
        },
    }))
    .unwrap();
    let pods: Api<Pod> = scene.namespace.api();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    pods
}

async fn phase(pods: &Api<Pod>) -> anyhow::Result<String> {
    let status = pods.get("app").await?.status.unwrap_or_default();
    Ok(status.phase.unwrap_or_default())
}

/// Waits for an Event about the node or the Prefetch whose reason and words are these.
async fn told(scene: &Scene, about: &str, reason: &str, words: &str) {
    let events: Api<Event> = Api::all(scene.cluster.client());
    eventually(&format!("an Event {reason} about {about}"), PATIENCE, async || {
        let all = events.list(&ListParams::default()).await?.items;
        let of_it: Vec<String> = all
            .into_iter()
            .filter(|event| event.involved_object.name.as_deref() == Some(about))
            .filter(|event| event.reason.as_deref() == Some(reason))
            .filter_map(|event| event.message)
            .collect();
        Ok(if of_it.iter().any(|message| message.contains(words)) {
            Look::Done(())
        } else {
            Look::NotYet(of_it)
        })
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_takes_pods_when_its_images_are_there() {
    let _turn = TURN.lock().await;
    let scene = Scene::new("gate").await;
    // Nothing passes, so that the node has to wait for as long as the test likes.
    let relay = scene.cluster.slow_registry(0).await.unwrap();
    let repository = format!("{}/app", scene.namespace.name());
    images::tiny(&scene.cluster.open_registry(), &repository, "v1", 100_000, &repository).unwrap();
    let image = format!("{}/{repository}:v1", relay.host());
    let selector = on_new_nodes(&scene).await;
    scene
        .prefetch(
            "web",
            json!({"images": [image], "nodeSelector": selector, "gate": true}),
        )
        .await;
    let pods = make_pod(&scene, &image, selector).await;
    let node = scene.cluster.add_node(gated()).await.unwrap();
    let name = node.name().to_owned();

    // The node is Ready and has run a pod that tolerates everything; this pod does not.
    assert!(has_taint(&nodes(&scene).get(&name).await.unwrap()));
    assert_eq!(phase(&pods).await.unwrap(), "Pending");
    relay.set_bytes_per_second(1_000_000);
    untainted(&scene, &name, PATIENCE).await;
    assert!(node.has_image(&image).unwrap(), "the gate opened too early");
    eventually("the pod to run", PATIENCE, async || {
        let phase = phase(&pods).await?;
        Ok(if phase == "Running" {
            Look::Done(())
        } else {
            Look::NotYet(phase)
        })
    })
    .await
    .unwrap();
    told(&scene, "web", "GateOpened", &name).await;
    // A kubelet that restarts registers anew, and does not put the taint back.
    node.kill_kubelet().unwrap();
    node.start().await.unwrap();
    assert!(!has_taint(&nodes(&scene).get(&name).await.unwrap()));
    scene.delete_prefetch("web").await;
    scene.cluster.remove_node(&name).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_images_do_not_come_takes_pods_after_the_timeout() {
    let _turn = TURN.lock().await;
    let scene = Scene::new("late").await;
    set_gate_timeout(&scene, Some(SHORT)).await;
    let image = format!("{}/nothing/here:v1", scene.cluster.registry());
    let selector = on_new_nodes(&scene).await;
    scene
        .prefetch(
            "web",
            json!({"images": [image], "nodeSelector": selector, "gate": true}),
        )
        .await;
    let node = scene.cluster.add_node(gated()).await.unwrap();
    let name = node.name().to_owned();
    let ready_since = untainted(&scene, &name, SHORT + PATIENCE).await;
    let waited = ready_since.elapsed().unwrap();
    assert!(waited + Duration::from_secs(1) >= SHORT, "only {waited:?}");
    told(&scene, "web", "GateTimedOut", &name).await;
    scene.delete_prefetch("web").await;
    scene.cluster.remove_node(&name).await.unwrap();
    set_gate_timeout(&scene, None).await;
}

/// Gives the controller another timeout, or the usual one, and waits until it runs with it.
async fn set_gate_timeout(scene: &Scene, timeout: Option<Duration>) {
    let api: Api<Deployment> = Api::namespaced(scene.cluster.client(), "coral-system");
    let value = timeout.map(|timeout| format!("{}s", timeout.as_secs()));
    let variable = match value {
        Some(value) => json!({"name": "CORAL_GATE_TIMEOUT", "value": value}),
        None => json!({"name": "CORAL_GATE_TIMEOUT", "$patch": "delete"}),
    };
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "controller", "env": [variable]}]}}}});
    let parameters = PatchParams::default();
    api.patch("coral-controller", &parameters, &Patch::Strategic(patch))
        .await
        .unwrap();
    eventually("the controller to run with its new timeout", PATIENCE, async || {
        let deployment = api.get("coral-controller").await?;
        let status = deployment.status.clone().unwrap_or_default();
        let is_current = status.observed_generation == deployment.metadata.generation;
        let wanted = deployment.spec.replicas;
        let all = [status.replicas, status.updated_replicas, status.available_replicas];
        Ok(if is_current && all.iter().all(|count| *count == wanted) {
            Look::Done(())
        } else {
            Look::NotYet(status)
        })
    })
    .await
    .unwrap();
}
