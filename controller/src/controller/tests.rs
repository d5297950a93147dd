//! What the loop remembers when the clock of its machine is set back.

use std::{convert::Infallible, future::pending};

use kube::{client::Body, runtime::watcher};
use serde_json::{Value, json};
use tower::service_fn;

use super::*;

/// A controller that reaches nobody, in a cluster with a node that has one of two images; the status of the Prefetch says that it has none.
fn controller() -> Controller {
    let nobody = service_fn(|_: http::Request<Body>| pending::<Result<http::Response<Body>, Infallible>>());
    let mut controller = Controller::new(Client::new(nobody, "default"), Options::default());
    let node = json!({
        "metadata": {"name": "a", "uid": "a", "labels": {"kubernetes.io/os": "linux"}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    });
    let reported = [("a", "Present"), ("b", "Pulling")].map(|(image, state)| {
        let image = format!("docker.io/library/{image}:latest");
        json!({"image": image, "state": state})
    });
    let node_images = json!({
        "metadata": {"name": "a", "uid": "a", "generation": 1},
        "spec": {"images": []},
        "status": {"observedGeneration": 1, "images": reported},
    });
    let conditions = [("Ready", "False"), ("Reconciling", "True"), ("Stalled", "False")].map(|(kind, status)| {
        json!({"type": kind, "status": status, "reason": "Pulling", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"})
    });
    let prefetch = json!({
        "metadata": {"name": "web", "namespace": "shop", "uid": "web"},
        "spec": {"images": ["a", "b"]},
        "status": {"conditions": conditions},
    });
    controller.nodes.take(listed(node));
    controller.node_images.take(listed(node_images));
    controller.prefetches.take(listed(prefetch));
    controller.nodes.take(watcher::Event::InitDone);
    controller.node_images.take(watcher::Event::InitDone);
    controller.prefetches.take(watcher::Event::InitDone);
    controller
}

fn listed<K: serde::de::DeserializeOwned>(object: Value) -> watcher::Event<K> {
    watcher::Event::InitApply(serde_json::from_value(object).unwrap())
}

/// Whether the status is written in this plan.
fn writes_status(controller: &mut Controller) -> bool {
    controller.plan(Instant::now());
    std::iter::from_fn(|| controller.queue.next()).any(|write| matches!(write, Write::PrefetchStatus { .. }))
}

#[tokio::test]
async fn a_clock_that_is_set_back_puts_nothing_off() {
    let hour = SignedDuration::from_hours(1);
    let web = || ("shop".to_owned(), "web".to_owned());
    let mut controller = controller();
    assert!(writes_status(&mut controller));
    assert_ne!(controller.memory, Memory::default());
    // What changes no condition waits for its time.
    controller.status_times.insert(web(), Timestamp::now() + hour);
    assert!(!writes_status(&mut controller));

    // An hour ago, by its own count, the clock showed what it shows now.
    let before = controller.memory.clone();
    controller.clock = Clock::seen(Timestamp::now() + hour, Instant::now());
    assert!(writes_status(&mut controller));
    assert!(controller.status_times.is_empty());
    // The turn that the node holds began by the clock as it is now, not in an hour.
    assert_ne!(controller.memory, before);

    // Once.
    controller.status_times.insert(web(), Timestamp::now() + hour);
    assert!(!writes_status(&mut controller));
}
