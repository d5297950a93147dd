//! Whose turn it is.

use coral_api::{
    conditions::{self, READY, STALLED},
    node_images::DesiredState,
};
use jiff::SignedDuration;
use serde_json::json;

use super::model::Model;
use crate::plan::{Memory, Write};

#[test]
fn parallelism_lets_nodes_begin_one_after_the_other() {
    let mut model = Model::with_nodes(&["a", "b", "c", "d", "e"]);
    model.add("web", &json!({"images": ["nginx", "redis"], "parallelism": 2}));
    model.settle();
    for done in 0..5 {
        let pulling = model.pulling("nginx:latest");
        assert_eq!(pulling.len(), 2.min(5 - done), "{pulling:?}");
        // The turn ends with the last image, not with the first.
        model.report(&pulling[0], "redis", "Present");
        model.settle();
        assert_eq!(model.pulling("nginx:latest"), pulling);
        model.report(&pulling[0], "nginx", "Present");
        model.settle();
    }
    assert!(conditions::is_true(&model.status("web").conditions, READY));
    assert_eq!(model.status("web").nodes.ready, 5);
}

#[test]
fn nodes_that_are_to_do_nothing_but_wait_are_written_last() {
    let written = |writes: &[Write]| -> Vec<String> {
        let node = |write: &Write| match write {
            Write::NodeImages { node, .. } => Some(node.clone()),
            _ => None,
        };
        writes.iter().filter_map(node).collect()
    };
    let mut model = Model::with_nodes(&["a", "b", "c", "d"]);
    model.add("web", &json!({"images": ["nginx"], "parallelism": 1}));
    let spec = json!({"images": ["redis"], "nodeSelector": {"matchLabels": {"kubernetes.io/hostname": "c"}}});
    model
        .node("c")
        .metadata
        .labels
        .get_or_insert_default()
        .insert("kubernetes.io/hostname".into(), "c".into());
    model.add("cache", &spec);
    assert_eq!(written(&model.plan()), ["a", "c", "b", "d"]);
    model.settle();
    model.report("c", "redis", "Present");
    model.settle();
    // One that is to pause must learn of it soon, and so must one whose turn is over.
    model.add(
        "later",
        &json!({"images": ["busybox"], "parallelism": 1, "priority": -1}),
    );
    model.node("d").spec.get_or_insert_default().unschedulable = Some(true);
    model.report("a", "nginx", "Failed");
    let order = written(&model.plan());
    assert_eq!(order.last().map(String::as_str), Some("c"), "{order:?}");
}

#[test]
fn a_failure_frees_the_slot_and_is_told() {
    let mut model = Model::with_nodes(&["a", "b"]);
    model.add("web", &json!({"images": ["nginx:nope"]}));
    model.settle();
    assert_eq!(model.pulling("nginx:nope"), ["a"]);
    model.report("a", "nginx:nope", "Failed");
    model.settle();
    assert_eq!(model.pulling("nginx:nope"), ["b"]);
    let status = model.status("web");
    assert!(!conditions::is_true(&status.conditions, STALLED));
    assert_eq!((status.nodes.failed, status.failures.len()), (1, 1));
    model.report("b", "nginx:nope", "Failed");
    model.settle();
    let stalled = conditions::find(&model.status("web").conditions, STALLED).unwrap();
    assert_eq!(
        (stalled.status.as_str(), stalled.reason.as_str()),
        ("True", "ImagesFailed")
    );
    assert_eq!(
        stalled.message,
        "0 of 2 nodes have the image; 2 failed: nginx:nope on a: NotFound"
    );
}

/// Nodes whose entry for the image says that they may pull it, there or not.
fn released(model: &Model, image: &str) -> Vec<String> {
    let nodes = model.nodes.iter().map(kube::ResourceExt::name_any);
    nodes
        .filter(|node| model.asked(node).contains(&image.to_owned()))
        .collect()
}

fn failure(attempts: i32, next: Option<jiff::Timestamp>) -> serde_json::Value {
    let next = next.map(conditions::time);
    json!({"reason": "NotFound", "message": "no such tag", "attempts": attempts, "nextAttemptTime": next})
}

#[test]
fn what_failed_is_held_back_and_tried_again_when_no_fresh_node_waits() {
    let mut model = Model::with_nodes(&["a", "b", "c"]);
    model.add("web", &json!({"images": ["nginx"], "parallelism": 1}));
    model.settle();
    model.report("a", "nginx", "Failed");
    model.settle();
    assert_eq!(model.entries("a", DesiredState::Held), ["nginx:latest"]);
    assert_eq!(released(&model, "nginx:latest"), ["b"]);
    // The next attempt of a is due, but c has had none.
    model.now += SignedDuration::from_mins(2);
    model.report("b", "nginx", "Present");
    model.settle();
    assert_eq!(model.pulling("nginx:latest"), ["c"]);
    model.report("c", "nginx", "Present");
    model.settle();
    assert_eq!(released(&model, "nginx:latest"), ["a", "b", "c"]);
    assert_eq!(model.counts.pulling_nodes, 1);
    // One attempt, and the turn is over, whatever the clock of the node says of the next.
    let past = model.now - SignedDuration::from_mins(5);
    model.say("a", "nginx", json!({"state": "Failed", "failure": failure(6, None)}));
    model.settle();
    assert_eq!(model.asked("a"), ["nginx:latest"]);
    model.nodes.push(super::model::node("d", &json!({})));
    model.settle();
    assert_eq!(released(&model, "nginx:latest"), ["a", "b", "c"]);
    model.say(
        "a",
        "nginx",
        json!({"state": "Failed", "failure": failure(7, Some(past))}),
    );
    model.settle();
    assert_eq!(model.entries("a", DesiredState::Held), ["nginx:latest"]);
    assert_eq!(model.pulling("nginx:latest"), ["d"]);
}

#[test]
fn after_an_outage_no_more_nodes_try_again_than_the_budget_allows() {
    let names = ["a", "b", "c", "d", "e", "f"];
    let mut model = Model::with_nodes(&names);
    model.add("web", &json!({"images": ["nginx"], "parallelism": 2}));
    model.settle();
    for pair in names.chunks(2) {
        assert_eq!(released(&model, "nginx:latest"), pair);
        for name in pair {
            model.report(name, "nginx", "Failed");
        }
        model.settle();
    }
    assert!(released(&model, "nginx:latest").is_empty());
    assert_eq!(model.counts.waiting_nodes, 0);
    model.now += SignedDuration::from_mins(10);
    // Another leader knows nothing but what stands in the objects.
    for _ in 0..3 {
        model.settle();
        let turn = model.pulling("nginx:latest");
        let released = released(&model, "nginx:latest");
        let missing = released
            .iter()
            .filter(|node| model.state(node, "nginx") != Some(coral_api::node_images::ImageState::Present));
        let missing: Vec<String> = missing.cloned().collect();
        assert_eq!(missing.len(), 2, "{turn:?}");
        model.memory = Memory::default();
        model.settle();
        for name in missing {
            model.report(&name, "nginx", "Present");
        }
    }
    model.settle();
    assert!(model.says("web", READY).is_some());
}

#[test]
fn another_leader_reads_the_turns_from_the_objects() {
    let mut model = Model::with_nodes(&["a", "b", "c", "d"]);
    model.add("web", &json!({"images": ["nginx", "redis"], "parallelism": 2}));
    model.settle();
    model.report("a", "nginx", "Present");
    model.report("b", "nginx", "Failed");
    model.settle();
    let before = model.node_images.clone();
    model.memory = Memory::default();
    assert_eq!(model.plan(), []);
    assert_eq!(model.node_images, before);
    assert_eq!(model.counts.pulling_nodes, 2);
}

#[test]
fn no_more_nodes_pull_than_the_cluster_allows_and_priority_goes_first() {
    let mut model = Model::with_nodes(&["a", "b", "c", "d"]);
    model.limits.max_pulling_nodes = Some(2);
    let on = |names: [&str; 2]| json!({"matchExpressions": [{"key": "name", "operator": "In", "values": names}]});
    model.add(
        "low",
        &json!({"images": ["nginx"], "parallelism": "100%", "nodeSelector": on(["a", "b"])}),
    );
    model.add(
        "high",
        &json!({"images": ["redis"], "parallelism": "100%", "nodeSelector": on(["b", "c"]), "priority": 1}),
    );
    model.settle();
    assert_eq!(model.pulling("redis:latest"), ["b", "c"]);
    // A node that pulls already costs nothing more.
    assert_eq!(model.pulling("nginx:latest"), ["b"]);
    assert_eq!((model.counts.pulling_nodes, model.counts.waiting_nodes), (2, 1));
    model.report("c", "redis", "Present");
    model.settle();
    assert_eq!(model.pulling("nginx:latest"), ["a", "b"]);
    assert_eq!((model.counts.pulling_nodes, model.counts.waiting_nodes), (2, 0));
}

#[test]
fn what_failed_for_one_does_not_hold_up_what_another_has_not_tried() {
    let mut model = Model::with_nodes(&["a", "b"]);
    model.limits.max_pulling_nodes = Some(1);
    model.add(
        "bad",
        &json!({"images": ["nginx:nope"], "priority": 9, "nodeSelector": {"matchLabels": {"name": "a"}}}),
    );
    model.add(
        "good",
        &json!({"images": ["redis"], "nodeSelector": {"matchLabels": {"name": "b"}}}),
    );
    model.settle();
    assert_eq!(model.pulling("nginx:nope"), ["a"]);
    model.report("a", "nginx:nope", "Failed");
    model.now += SignedDuration::from_mins(2);
    model.settle();
    assert_eq!(model.asked("b"), ["redis:latest"]);
    assert!(model.asked("a").is_empty());
}

#[test]
fn one_prefetch_s_turn_does_not_release_what_only_another_wants() {
    let mut model = Model::with_nodes(&["a", "b", "c"]);
    model.add("wide", &json!({"images": ["nginx"], "parallelism": "100%"}));
    model.add("narrow", &json!({"images": ["nginx", "redis"], "parallelism": 1}));
    model.settle();
    assert_eq!(model.pulling("nginx:latest"), ["a", "b", "c"]);
    assert!(model.pulling("redis:latest").len() <= 1);
    for _ in 0..3 {
        for node in model.pulling("nginx:latest") {
            model.report(&node, "nginx", "Present");
        }
        model.settle();
        let turn = model.pulling("redis:latest");
        assert_eq!(turn.len(), 1);
        model.report(&turn[0], "redis", "Present");
        model.settle();
    }
    assert!(model.says("narrow", READY).is_some());
}

#[test]
fn a_silent_agent_loses_its_turn_until_it_answers() {
    let mut model = Model::with_nodes(&["a", "b"]);
    model.add("web", &json!({"images": ["nginx"], "parallelism": 1, "timeout": "10m"}));
    model.silent.insert("a".into());
    model.settle();
    assert_eq!(model.pulling("nginx:latest"), ["a"]);
    model.pass(SignedDuration::from_secs(55));
    assert_eq!(model.pulling("nginx:latest"), ["a"]);
    model.pass(SignedDuration::from_secs(10));
    assert_eq!(model.pulling("nginx:latest"), ["b"]);
    assert_eq!(model.entries("a", DesiredState::Held), ["nginx:latest"]);
    model.report("b", "nginx", "Present");
    model.pass(SignedDuration::from_mins(20));
    assert!(model.pulling("nginx:latest").is_empty());
    model.silent.clear();
    model.answer("a");
    model.settle();
    assert_eq!(model.pulling("nginx:latest"), ["a"]);
}

#[test]
fn a_node_without_progress_loses_its_turn_and_one_with_progress_keeps_it() {
    let mut model = Model::with_nodes(&["a", "b"]);
    model.add("web", &json!({"images": ["nginx"], "parallelism": 1, "timeout": "10m"}));
    model.settle();
    for megabytes in 1..5 {
        let pull = json!({"startTime": "1970-01-01T00:00:00Z", "doneBytes": megabytes << 20});
        model.say("a", "nginx", json!({"state": "Pulling", "pull": pull}));
        model.pass(SignedDuration::from_mins(9));
        assert_eq!(model.asked("a"), ["nginx:latest"]);
    }
    model.pass(SignedDuration::from_mins(2));
    assert!(model.asked("a").is_empty());
    assert_eq!(model.pulling("nginx:latest"), ["b"]);
    // When nobody else waits it gets another turn, after a while.
    model.report("b", "nginx", "Present");
    model.settle();
    assert!(model.asked("a").is_empty());
    model.pass(SignedDuration::from_mins(6));
    assert_eq!(model.asked("a"), ["nginx:latest"]);
}

#[test]
fn a_node_that_may_not_pull_gives_its_turn_back() {
    let mut model = Model::with_nodes(&["a", "b"]);
    model.add("web", &json!({"images": ["nginx", "redis"], "parallelism": 1}));
    model.settle();
    model.report("a", "nginx", "Pulling");
    let condition = serde_json::from_value(json!({"type": "DiskPressure", "status": "True"})).unwrap();
    model
        .node("a")
        .status
        .as_mut()
        .unwrap()
        .conditions
        .as_mut()
        .unwrap()
        .push(condition);
    model.settle();
    // What has begun goes on, and counts.
    assert!(model.asked("a").is_empty() && model.asked("b").is_empty());
    model.report("a", "nginx", "Present");
    model.settle();
    assert_eq!(model.asked("a"), ["nginx:latest"]);
    assert_eq!(model.asked("b"), ["nginx:latest", "redis:latest"]);
    model
        .node("a")
        .status
        .as_mut()
        .unwrap()
        .conditions
        .as_mut()
        .unwrap()
        .pop();
    for image in ["nginx", "redis"] {
        model.report("b", image, "Present");
    }
    model.settle();
    assert_eq!(model.pulling("redis:latest"), ["a"]);
}

#[test]
fn an_image_that_vanished_is_pulled_again_within_the_budget() {
    let mut model = Model::with_nodes(&["a", "b", "c"]);
    model.add("web", &json!({"images": ["nginx"], "parallelism": 1}));
    model.settle();
    for _ in 0..3 {
        let turn = model.pulling("nginx:latest");
        model.report(&turn[0], "nginx", "Present");
        model.settle();
    }
    model.report("b", "nginx", "Waiting");
    model.report("c", "nginx", "Waiting");
    model.settle();
    assert_eq!(model.pulling("nginx:latest"), ["b"]);
    assert_eq!(model.entries("c", DesiredState::Held), ["nginx:latest"]);
    model.report("b", "nginx", "Present");
    model.settle();
    assert_eq!(model.pulling("nginx:latest"), ["c"]);
}

#[test]
fn a_refresh_on_demand_goes_through_the_nodes_turn_by_turn() {
    let mut model = Model::with_nodes(&["a", "b", "c"]);
    model.now = "2026-01-01T00:00:00Z".parse().unwrap();
    model.add(
        "web",
        &json!({"images": ["nginx", "redis"], "pullPolicy": "Always", "refreshInterval": "0s", "parallelism": 1}),
    );
    model.settle();
    model.now += SignedDuration::from_secs(1);
    for node in ["a", "b", "c"] {
        for image in ["nginx", "redis"] {
            model.report(node, image, "Present");
        }
        model.settle();
    }
    assert!(model.says("web", READY).is_some());
    assert_eq!(model.counts.pulling_nodes, 0);

    let refresh: jiff::Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
    let key = coral_api::keys::REFRESH_ANNOTATION;
    kube::ResourceExt::annotations_mut(model.prefetch("web")).insert(key.into(), refresh.to_string());
    model.now = refresh + SignedDuration::from_secs(5);
    model.settle();
    for _ in 0..3 {
        let objects = model.node_images.iter().filter(|object| {
            let status = object.status.as_ref().unwrap();
            let is_due = |image: &coral_api::node_images::DesiredImage| {
                let pulled = status.images.iter().find(|status| status.image == image.image);
                let pulled = pulled.unwrap().last_pull_time.as_ref().unwrap();
                image.refresh_after.as_ref().is_some_and(|time| pulled.0 < time.0)
            };
            object.spec.images.iter().any(is_due)
        });
        let due: Vec<String> = objects.map(kube::ResourceExt::name_any).collect();
        assert_eq!(due.len(), 1, "{due:?}");
        model.report(&due[0], "nginx", "Present");
        model.settle();
        model.report(&due[0], "redis", "Present");
        model.settle();
    }
    assert_eq!(model.counts.pulling_nodes, 0);
    assert_eq!(model.plan(), []);
    // Nothing is due, and nothing was missing in between.
    assert!(model.says("web", READY).is_some());
}

#[test]
fn a_refresh_that_gets_nowhere_does_not_keep_the_others_waiting() {
    let mut model = Model::with_nodes(&["a", "b"]);
    model.now = "2026-01-01T00:00:00Z".parse().unwrap();
    model.add(
        "web",
        &json!({"images": ["nginx"], "pullPolicy": "Always", "parallelism": 1, "timeout": "1m"}),
    );
    model.settle();
    let old = json!({"state": "Present", "lastPullTime": "2025-01-01T00:00:00Z"});
    for node in ["a", "b"] {
        model.say(node, "nginx", old.clone());
    }
    let is_told = |model: &mut Model, node: &str| model.object(node).spec.images[0].refresh_after.is_some();
    model.settle();
    assert!(is_told(&mut model, "a") && !is_told(&mut model, "b"));
    model.pass(SignedDuration::from_secs(90));
    assert!(!is_told(&mut model, "a") && is_told(&mut model, "b"));
}

#[test]
fn a_refresh_that_fails_gives_its_turn_away_and_is_tried_again_later() {
    let mut model = Model::with_nodes(&["a", "b"]);
    model.now = "2026-01-01T00:00:00Z".parse().unwrap();
    model.add(
        "web",
        &json!({"images": ["nginx"], "pullPolicy": "Always", "parallelism": 1, "timeout": "1h", "backoffLimit": 3}),
    );
    model.settle();
    let old = "2025-01-01T00:00:00Z";
    for node in ["a", "b"] {
        model.say(node, "nginx", json!({"state": "Present", "lastPullTime": old}));
    }
    model.settle();
    let is_told = |model: &mut Model, node: &str| model.object(node).spec.images[0].refresh_after.is_some();
    assert!(is_told(&mut model, "a") && !is_told(&mut model, "b"));
    let fail = |model: &mut Model, node: &str, attempts: i32| {
        let next = coral_api::conditions::time(model.now + SignedDuration::from_mins(1));
        let failure = json!({"reason": "NotFound", "message": "gone", "attempts": attempts, "nextAttemptTime": next});
        model.say(
            node,
            "nginx",
            json!({"state": "Present", "lastPullTime": old, "failure": failure}),
        );
        model.settle();
    };
    fail(&mut model, "a", 2);
    assert!(is_told(&mut model, "a"), "an attempt is left");
    fail(&mut model, "a", 3);
    assert!(!is_told(&mut model, "a") && is_told(&mut model, "b"));
    // People see it, and nothing is called missing.
    let status = model.status("web");
    let failures: Vec<&str> = status.failures.iter().map(|failure| failure.node.as_str()).collect();
    assert_eq!((failures, status.nodes.failed), (vec!["a"], 0));
    assert!(model.says("web", READY).is_some());

    fail(&mut model, "b", 3);
    assert!(!is_told(&mut model, "a") && !is_told(&mut model, "b"), "nobody is due");
    model.pass(SignedDuration::from_secs(65));
    assert!(
        is_told(&mut model, "a") ^ is_told(&mut model, "b"),
        "one attempt, turn by turn"
    );
    fail(&mut model, "a", 4);
    assert!(!is_told(&mut model, "a") && is_told(&mut model, "b"));
    let now = coral_api::conditions::time(model.now);
    model.say("b", "nginx", json!({"state": "Present", "lastPullTime": now}));
    model.settle();
    assert_eq!(model.counts.pulling_nodes, 0);
}
