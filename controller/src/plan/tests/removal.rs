//! Images that are to be taken off the nodes.

use coral_api::{FailureReason, conditions::READY, node_images::DesiredState, prefetch::RemovalPolicy};
use jiff::SignedDuration;
use serde_json::json;

use super::model::Model;

/// A node with nginx, wanted by a Prefetch that removes.
fn with_nginx() -> Model {
    let mut model = Model::with_nodes(&["a"]);
    model.add(
        "web",
        &json!({"images": ["nginx"], "removalPolicy": "Remove", "pin": true, "imagePullSecrets": [{"name": "x"}]}),
    );
    model.settle();
    model.report("a", "nginx", "Present");
    model.settle();
    model
}

#[test]
fn an_image_outlives_its_prefetch_until_the_agent_says_that_it_is_gone() {
    let mut model = with_nginx();
    assert_eq!(
        model.node_images[0].spec.images[0].removal_policy,
        RemovalPolicy::Remove
    );
    model.silent.insert("a".into());
    model.delete("web");
    model.pass(SignedDuration::from_hours(1));
    let entry = &model.node_images[0].spec.images[0];
    assert_eq!(entry.state, DesiredState::Absent);
    assert_eq!(entry.requested_by, ["shop/web"]);
    assert!(entry.pull_secrets.is_empty() && !entry.pin);
    assert!(!model.has_label("a", "nginx"));
    model.silent.clear();
    model.answer("a");
    model.settle();
    assert!(model.node_images.is_empty());
}

#[test]
fn what_the_agent_said_before_it_was_asked_does_not_count() {
    let mut model = with_nginx();
    model.report("a", "nginx", "Absent");
    model.silent.insert("a".into());
    model.delete("web");
    model.settle();
    assert_eq!(model.entries("a", DesiredState::Absent), ["nginx:latest"]);
}

#[test]
fn an_image_that_somebody_else_wants_stays() {
    let mut model = with_nginx();
    model.add(
        "keep",
        &json!({"images": ["docker.io/library/nginx:latest"], "suspend": true}),
    );
    model.settle();
    assert_eq!(
        model.node_images[0].spec.images[0].removal_policy,
        RemovalPolicy::Retain
    );
    model.delete("web");
    model.settle();
    assert_eq!(model.entries("a", DesiredState::Held), ["nginx:latest"]);
    assert!(model.has_label("a", "nginx"));
    // What was kept for the other goes with the other's policy.
    model.delete("keep");
    model.settle();
    assert!(model.node_images.is_empty());
}

#[test]
fn an_image_that_leaves_the_list_goes_and_comes_back_when_it_is_wanted_again() {
    let mut model = with_nginx();
    model.silent.insert("a".into());
    model.prefetch("web").spec.images = vec!["redis".into()];
    model.settle();
    assert_eq!(model.entries("a", DesiredState::Absent), ["nginx:latest"]);
    assert_eq!(model.asked("a"), ["redis:latest"]);
    model.prefetch("web").spec.images = vec!["nginx".into()];
    model.settle();
    assert_eq!(model.asked("a"), ["nginx:latest"]);
    assert_eq!(model.entries("a", DesiredState::Absent), ["redis:latest"]);
}

#[test]
fn a_node_that_leaves_the_selection_gives_the_image_up_and_one_that_is_gone_blocks_nothing() {
    let mut model = with_nginx();
    let selector = serde_json::from_value(json!({"matchLabels": {"name": "b"}})).unwrap();
    model.silent.insert("a".into());
    model.prefetch("web").spec.node_selector = Some(selector);
    model.settle();
    assert_eq!(model.entries("a", DesiredState::Absent), ["nginx:latest"]);
    model.nodes.clear();
    model.settle();
    assert!(model.node_images.is_empty());
}

#[test]
fn an_image_that_is_retained_stays_without_a_word() {
    let mut model = Model::with_nodes(&["a"]);
    model.add("web", &json!({"images": ["nginx"]}));
    model.settle();
    model.silent.insert("a".into());
    model.delete("web");
    model.settle();
    assert!(model.node_images.is_empty());
}

#[test]
fn a_refused_removal_is_told_to_those_who_asked_last_and_does_not_make_them_unready() {
    let mut model = with_nginx();
    model.add("other", &json!({"images": ["redis"]}));
    model.prefetch("web").spec.images = vec!["redis".into()];
    model.silent.insert("a".into());
    model.settle();
    model.silent.clear();
    model.report("a", "redis", "Present");
    let failure = json!({"reason": "RemovalRefused", "message": "in use by shop/web-0", "attempts": 1});
    model.say("a", "nginx", json!({"state": "Present", "failure": failure}));
    model.settle();
    let failures = &model.status("web").failures;
    assert_eq!(failures.len(), 1);
    assert_eq!(
        (
            failures[0].reason,
            failures[0].image.as_str(),
            failures[0].node.as_str()
        ),
        (FailureReason::RemovalRefused, "nginx:latest", "a")
    );
    assert!(model.says("web", READY).is_some());
    assert!(model.status("other").failures.is_empty());
    assert_eq!(model.entries("a", DesiredState::Absent), ["nginx:latest"]);
    model.say("a", "nginx", json!({"state": "Absent"}));
    model.settle();
    assert!(model.status("web").failures.is_empty());
    assert!(model.entries("a", DesiredState::Absent).is_empty());
}
