//! What each node is asked for.

use coral_api::node_images::DesiredState;
use jiff::SignedDuration;
use kube::ResourceExt as _;
use serde_json::json;

use super::model::{Model, node};
use crate::plan::Write;

#[test]
fn only_selected_nodes_are_asked() {
    let mut model = Model::with_nodes(&["a", "b"]);
    model.add(
        "web",
        &json!({"images": ["nginx"], "nodeSelector": {"matchLabels": {"name": "b"}}}),
    );
    model.settle();
    assert_eq!(model.asked("b"), ["nginx:latest"]);
    assert!(model.node_images.iter().all(|object| object.name_any() != "a"));
}

#[test]
fn a_cluster_that_is_as_it_should_be_gets_no_writes() {
    let mut model = Model::with_nodes(&["a"]);
    model.add("web", &json!({"images": ["nginx"]}));
    model.settle();
    model.report("a", "nginx", "Present");
    model.settle();
    model.now += SignedDuration::from_hours(1);
    assert_eq!(model.plan(), []);
}

#[test]
fn what_was_found_right_is_written_again_once_it_is_wrong() {
    let mut model = Model::with_nodes(&["a"]);
    model.add("web", &json!({"images": ["nginx"]}));
    model.settle();
    model.report("a", "nginx", "Present");
    model.settle();
    let is_written = |model: &mut Model| {
        let is_of_object = |write: &Write| matches!(write, Write::NodeImages { .. });
        let is_written = model.plan().iter().any(is_of_object);
        model.settle();
        is_written && model.plan().is_empty()
    };
    assert!(!is_written(&mut model));
    // Somebody changes the object, which is a new generation.
    let object = model.object("a");
    object.spec.images[0].priority = 7;
    object.metadata.generation = object.metadata.generation.map(|generation| generation + 1);
    assert!(is_written(&mut model));
    // Somebody takes its owner away, which is none.
    model.object("a").metadata.owner_references = None;
    assert!(is_written(&mut model));
    model.prefetch("web").spec.pin = true;
    assert!(is_written(&mut model));
    model.node("a").spec.get_or_insert_default().unschedulable = Some(true);
    assert!(is_written(&mut model));
}

#[test]
fn what_two_want_is_merged() {
    let mut model = Model::with_nodes(&["a"]);
    model.add(
        "one",
        &json!({"images": ["nginx"], "priority": 5, "imagePullSecrets": [{"name": "x"}], "timeout": "1m"}),
    );
    model.add(
        "two",
        &json!({"images": ["nginx:latest"], "pin": true, "timeout": "5m", "suspend": true}),
    );
    model.settle();
    let entry = &model.node_images[0].spec.images[0];
    assert_eq!(entry.requested_by, ["shop/one", "shop/two"]);
    assert_eq!(
        (entry.priority, entry.pin, entry.state),
        (5, true, DesiredState::Present)
    );
    assert_eq!(entry.timeout.to_string(), "300s");
    assert_eq!(entry.pull_secrets.len(), 1);
}

#[test]
fn a_node_replaced_under_its_name_starts_from_nothing() {
    let mut model = Model::with_nodes(&["a"]);
    model.add("web", &json!({"images": ["nginx"]}));
    model.settle();
    model.report("a", "nginx", "Present");
    model.settle();
    model.nodes[0] = node("a", &json!({}));
    model.nodes[0].metadata.uid = Some("another".into());
    let writes = model.plan();
    assert!(
        matches!(
            &writes[..],
            [Write::DeleteNodeImages { .. }, Write::PrefetchStatus { .. }]
        ),
        "{writes:?}"
    );
    model.settle();
    // What the old node held is not said of the new one.
    assert_eq!(model.pulling("nginx:latest"), ["a"]);
    assert!(!model.has_label("a", "nginx"));
    assert_eq!(
        model.node_images[0].metadata.owner_references.as_ref().unwrap()[0].uid,
        "another"
    );
    model.nodes.clear();
    model.settle();
    assert!(model.node_images.is_empty());
}

#[test]
fn pressure_reaches_the_agent() {
    let mut model = Model::with_nodes(&["a"]);
    model.add("web", &json!({"images": ["nginx"]}));
    model.settle();
    let condition = serde_json::from_value(json!({"type": "DiskPressure", "status": "True"})).unwrap();
    model.nodes[0]
        .status
        .as_mut()
        .unwrap()
        .conditions
        .as_mut()
        .unwrap()
        .push(condition);
    model.settle();
    assert_eq!(
        model.node_images[0].spec.paused,
        Some(coral_api::node_images::PauseReason::DiskPressure)
    );
}
