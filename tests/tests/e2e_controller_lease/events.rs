//! What people are told in Events.

use std::time::Duration;

use coral_api::{ImageReference, NodeImages, Prefetch};
use coral_tests::hollow::Site;
use k8s_openapi::api::{
    core::v1::{Node, Pod},
    events::v1::Event,
};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::actor::{Actor, seen};

/// How long anything may take that is only a matter of work.
const SOON: Duration = Duration::from_secs(20);
const IMAGE: &str = "registry.example/team/web:v1";

/// Events of an object with a reason, oldest first.
async fn events(site: &Site, kind: &str, name: &str, reason: &str) -> anyhow::Result<Vec<Event>> {
    let api: Api<Event> = Api::default_namespaced(site.client.clone());
    let events = api.list(&ListParams::default()).await?.items.into_iter();
    let is_about = |event: &Event| {
        let regarding = event.regarding.as_ref();
        regarding.is_some_and(|object| object.kind.as_deref() == Some(kind) && object.name.as_deref() == Some(name))
            && event.reason.as_deref() == Some(reason)
    };
    Ok(events.filter(is_about).collect())
}

/// Waits for an Event of a Prefetch.
async fn told(site: &Site, prefetch: &str, reason: &str, has: impl Fn(&str) -> bool) -> Event {
    seen(&format!("{reason} of {prefetch}"), SOON, async || {
        let events = events(site, "Prefetch", prefetch, reason).await?;
        Ok(events
            .into_iter()
            .find(|event| has(event.note.as_deref().unwrap_or_default())))
    })
    .await
}

async fn make_prefetch(site: &Site, name: &str) {
    let prefetches: Api<Prefetch> = Api::default_namespaced(site.client.clone());
    let object = json!({
        "apiVersion": "image.stvz.io/v1alpha1",
        "kind": "Prefetch",
        "metadata": {"name": name},
        "spec": {"images": [IMAGE], "parallelism": "100%"},
    });
    let object = serde_json::from_value(object).unwrap();
    prefetches.create(&PostParams::default(), &object).await.unwrap();
}

/// Makes a node that is Ready, and that nobody looks after.
async fn make_node(site: &Site, name: &str) {
    let nodes: Api<Node> = Api::all(site.client.clone());
    let node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/os": "linux"}},
        // The rest of the control plane leaves it alone for long enough.
        "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Test", "message": ""}]},
    });
    let node = serde_json::from_value(node).unwrap();
    nodes.create(&PostParams::default(), &node).await.unwrap();
}

/// Says of the image on the node what its agent would say.
async fn report(site: &Site, node: &str, image: Value) {
    let api: Api<NodeImages> = Api::all(site.client.clone());
    let object = seen(&format!("{node} to be asked for images"), SOON, async || {
        let object = api.get_opt(node).await?;
        Ok(object.filter(|object| !object.spec.images.is_empty()))
    })
    .await;
    let time = "2026-01-01T00:00:00Z";
    let condition =
        json!({"type": "Ready", "status": "True", "reason": "Test", "message": "", "lastTransitionTime": time});
    let status = json!({
        "apiVersion": "image.stvz.io/v1alpha1",
        "kind": "NodeImages",
        "metadata": {"name": node},
        "status": {
            "observedGeneration": object.metadata.generation,
            "conditions": [condition],
            "images": [image],
        },
    });
    let parameters = PatchParams::apply("coral-agent").force();
    api.patch_status(node, &parameters, &Patch::Apply(&status))
        .await
        .unwrap();
}

pub(crate) async fn a_prefetch_tells_its_story(site: Site) {
    let _controller = Actor::start(&site, "first");
    make_node(&site, "node-1").await;
    make_prefetch(&site, "story").await;
    let started = told(&site, "story", "Started", |_| true).await;
    assert_eq!(started.type_.as_deref(), Some("Normal"));
    assert_eq!(started.reporting_instance.as_deref(), Some("first"));
    report(&site, "node-1", json!({"image": IMAGE, "state": "Present"})).await;
    let ready = told(&site, "story", "Ready", |_| true).await;
    assert_eq!(ready.note.as_deref(), Some("1 node has the image"));
}

pub(crate) async fn a_failure_on_many_nodes_is_one_event(site: Site) {
    let _controller = Actor::start(&site, "first");
    let names = ["node-1", "node-2", "node-3", "node-4"];
    for name in names {
        make_node(&site, name).await;
    }
    make_prefetch(&site, "failing").await;
    for name in names {
        let failure = json!({"reason": "NotFound", "message": "not found", "attempts": 1});
        report(
            &site,
            name,
            json!({"image": IMAGE, "state": "Failed", "failure": failure}),
        )
        .await;
    }
    let event = told(&site, "failing", "ImageFailed", |note| note.contains("NotFound")).await;
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    let prefetches: Api<Prefetch> = Api::default_namespaced(site.client.clone());
    seen("all nodes to have failed", SOON, async || {
        let status = prefetches.get("failing").await?.status.unwrap_or_default();
        Ok((status.nodes.failed == 4).then_some(()))
    })
    .await;
    told(&site, "failing", "Stalled", |_| true).await;
    let events = events(&site, "Prefetch", "failing", "ImageFailed").await.unwrap();
    assert_eq!(events.len(), 1, "{events:?}");
}

pub(crate) async fn pods_that_need_a_lost_label_are_named(site: Site) {
    let _controller = Actor::start(&site, "first");
    make_node(&site, "node-1").await;
    make_prefetch(&site, "labelled").await;
    report(&site, "node-1", json!({"image": IMAGE, "state": "Present"})).await;
    let nodes: Api<Node> = Api::all(site.client.clone());
    let label = IMAGE.parse::<ImageReference>().unwrap().label_key();
    let has_label = async |expected: bool| {
        seen(&format!("the label to be there: {expected}"), SOON, async || {
            let node = nodes.get("node-1").await?;
            Ok((node.labels().contains_key(&label) == expected).then_some(()))
        })
        .await;
    };
    has_label(true).await;
    let pods: Api<Pod> = Api::default_namespaced(site.client.clone());
    let pod = |name: &str, selector: Value| {
        let container = json!({"name": "web", "image": IMAGE});
        let spec = json!({"nodeName": "node-1", "nodeSelector": selector, "containers": [container]});
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
    };
    for (name, selector) in [("pinned", json!({label.as_str(): "available"})), ("free", json!({}))] {
        // The service account of the namespace is made a moment after it.
        let object: Pod = pod(name, selector);
        seen(&format!("pod {name} to be made"), SOON, async || {
            Ok(pods.create(&PostParams::default(), &object).await.ok())
        })
        .await;
    }
    report(&site, "node-1", json!({"image": IMAGE, "state": "Waiting"})).await;
    has_label(false).await;
    let event = told(&site, "labelled", "LabelLost", |_| true).await;
    let note = event.note.unwrap();
    assert!(note.ends_with(": default/pinned"), "{note}");
}
