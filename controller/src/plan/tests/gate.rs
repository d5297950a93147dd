//! The startup taint.

use coral_api::keys;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::model::{Model, node};
use crate::plan::{GateOutcome, Memory, Write};

const START: &str = "2026-01-01T00:00:00Z";

/// A cluster with one node that has just become Ready and has the startup taint among others.
fn with_new_node() -> Model {
    let mut model = Model {
        now: START.parse().unwrap(),
        ..Model::default()
    };
    model.nodes.push(node(
        "a",
        &json!({
            "metadata": {
                "name": "a", "uid": "a", "creationTimestamp": "2025-12-31T23:59:00Z",
                "labels": {"kubernetes.io/os": "linux", "name": "a"},
            },
            "spec": {"taints": [
                {"key": "other", "effect": "NoSchedule"},
                {"key": keys::STARTUP_TAINT, "effect": "NoSchedule"},
                {"key": keys::STARTUP_TAINT, "effect": "NoExecute"},
            ]},
            "status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": START}]},
        }),
    ));
    model
}

fn gate(model: &mut Model, name: &str, change: &Value) {
    let mut spec = json!({"images": ["nginx", "redis"], "gate": true});
    for (key, value) in change.as_object().unwrap() {
        spec[key] = value.clone();
    }
    model.add(name, &spec);
}

/// Settles and returns how the taint went, with the Prefetches that were waited for and the seconds, if it went.
fn outcome(model: &mut Model) -> Option<(GateOutcome, Vec<String>, i64)> {
    for _ in 0..10 {
        let writes = model.plan();
        for write in writes {
            if let Write::RemoveStartupTaint {
                taints,
                prefetches,
                outcome,
                waited,
                ..
            } = &write
            {
                assert_eq!(*taints, [1, 2]);
                return Some((outcome.clone(), prefetches.clone(), waited.as_secs()));
            }
            model.apply(write);
        }
    }
    None
}

#[test]
fn a_node_that_nothing_gates_is_let_go_at_once() {
    let mut model = with_new_node();
    model.add("web", &json!({"images": ["nginx"]}));
    gate(
        &mut model,
        "elsewhere",
        &json!({"nodeSelector": {"matchLabels": {"name": "b"}}}),
    );
    gate(&mut model, "suspended", &json!({"suspend": true}));
    assert_eq!(model.counts.gated_nodes, 0);
    assert_eq!(outcome(&mut model), Some((GateOutcome::NothingToWaitFor, vec![], 0)));
    assert_eq!(model.counts.gated_nodes, 1);
}

#[test]
fn a_node_is_let_go_when_every_gate_is_there() {
    let mut model = with_new_node();
    gate(&mut model, "one", &json!({}));
    gate(&mut model, "two", &json!({"images": ["caddy"]}));
    assert_eq!(outcome(&mut model), None);
    assert_eq!(model.asked("a").len(), 3);
    model.now += SignedDuration::from_secs(30);
    for image in ["nginx", "redis"] {
        model.report("a", image, "Present");
    }
    assert_eq!(outcome(&mut model), None);
    model.report("a", "caddy", "Present");
    let prefetches = vec!["shop/one".to_owned(), "shop/two".to_owned()];
    assert_eq!(outcome(&mut model), Some((GateOutcome::Ready, prefetches, 30)));
}

#[test]
fn a_node_is_let_go_when_its_time_is_over_whoever_leads() {
    let mut model = with_new_node();
    gate(&mut model, "web", &json!({}));
    assert_eq!(outcome(&mut model), None);
    model.report("a", "nginx", "Present");
    model.now += SignedDuration::from_secs(299);
    assert_eq!(outcome(&mut model), None);
    model.memory = Memory::default();
    model.now += SignedDuration::from_secs(1);
    let Some((GateOutcome::TimedOut { missing }, prefetches, 300)) = outcome(&mut model) else {
        panic!("it keeps its taint");
    };
    assert_eq!(prefetches, ["shop/web"]);
    assert_eq!(
        (missing[0].prefetch.as_str(), missing[0].images.as_slice()),
        ("shop/web", &["redis".to_owned()][..])
    );
}

#[test]
fn a_node_that_is_not_ready_or_not_registered_yet_is_not_judged() {
    let mut model = with_new_node();
    model.set_ready("a", "False");
    assert_eq!(outcome(&mut model), None);
    model.set_ready("a", "True");
    let taint = json!({"key": "node.cloudprovider.kubernetes.io/uninitialized", "effect": "NoSchedule"});
    let taints = |model: &mut Model| model.node("a").spec.as_mut().unwrap().taints.clone().unwrap();
    let mut more = taints(&mut model);
    more.push(serde_json::from_value(taint).unwrap());
    model.node("a").spec.as_mut().unwrap().taints = Some(more);
    assert_eq!(outcome(&mut model), None);
    // A cloud that never answers does not keep the node for ever.
    model.now += SignedDuration::from_mins(5);
    assert!(outcome(&mut model).is_some());
}

#[test]
fn a_wrong_clock_of_the_node_neither_shortens_nor_prolongs_the_wait() {
    for transition in ["2020-01-01T00:00:00Z", "2030-01-01T00:00:00Z"] {
        let mut model = with_new_node();
        gate(&mut model, "web", &json!({}));
        let time: Timestamp = transition.parse().unwrap();
        let conditions = model.node("a").status.as_mut().unwrap().conditions.as_mut().unwrap();
        conditions[0].last_transition_time = Some(coral_api::conditions::time(time));
        assert_eq!(outcome(&mut model), None, "{transition}");
        model.now += SignedDuration::from_secs(230);
        assert_eq!(outcome(&mut model), None, "{transition}");
        model.now += SignedDuration::from_secs(70);
        assert!(
            matches!(outcome(&mut model), Some((GateOutcome::TimedOut { .. }, ..))),
            "{transition}"
        );
    }
}

#[test]
fn a_tainted_node_pulls_and_a_cordoned_one_does_not() {
    let mut model = with_new_node();
    gate(&mut model, "web", &json!({}));
    model.node("a").spec.as_mut().unwrap().unschedulable = Some(true);
    assert_eq!(outcome(&mut model), None);
    assert!(model.asked("a").is_empty());
    model.node("a").spec.as_mut().unwrap().unschedulable = None;
    assert_eq!(outcome(&mut model), None);
    assert_eq!(model.asked("a"), ["nginx:latest", "redis:latest"]);
}

#[test]
fn what_is_no_image_reference_is_not_waited_for() {
    let mut model = with_new_node();
    gate(&mut model, "web", &json!({"images": ["nginx", "host:99999/x"]}));
    assert_eq!(outcome(&mut model), None);
    model.report("a", "nginx", "Present");
    assert!(matches!(outcome(&mut model), Some((GateOutcome::Ready, ..))));
}
