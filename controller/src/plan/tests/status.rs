//! What a Prefetch says of itself.

use coral_api::conditions::{self, READY, RECONCILING, STALLED};
use jiff::SignedDuration;
use serde_json::json;

use super::model::{Model, node};

#[test]
fn no_nodes_is_ready_and_says_so() {
    let mut model = Model::default();
    model.add("web", &json!({"images": ["nginx"]}));
    model.settle();
    let ready = conditions::find(&model.status("web").conditions, READY).unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("True", "NoNodes"));
}

#[test]
fn an_entry_that_is_no_reference_stalls_and_the_others_go_on() {
    let mut model = Model::with_nodes(&["a"]);
    model.add("web", &json!({"images": ["nginx", "host:99999/x"]}));
    model.settle();
    assert_eq!(model.asked("a"), ["nginx:latest"]);
    model.report("a", "nginx", "Present");
    model.settle();
    let status = model.status("web");
    assert_eq!(status.failures[0].reason, coral_api::FailureReason::InvalidReference);
    assert!(conditions::is_true(&status.conditions, STALLED));
    assert!(!conditions::is_true(&status.conditions, READY));
}

#[test]
fn suspend_holds_what_has_not_begun() {
    let mut model = Model::with_nodes(&["a"]);
    model.add("web", &json!({"images": ["nginx"], "suspend": true}));
    model.settle();
    assert!(model.asked("a").is_empty());
    let ready = conditions::find(&model.status("web").conditions, READY).unwrap();
    assert_eq!(ready.reason, "Suspended");
    model.prefetches[0].spec.suspend = false;
    model.settle();
    assert_eq!(model.asked("a"), ["nginx:latest"]);
}

#[test]
fn once_is_done_when_done_and_goes_after_its_time() {
    let mut model = Model::with_nodes(&["a"]);
    model.add(
        "web",
        &json!({"images": ["nginx"], "mode": "Once", "ttlSecondsAfterFinished": 60}),
    );
    model.settle();
    model.report("a", "nginx", "Present");
    model.settle();
    assert!(model.status("web").completion_time.is_some());
    // What vanishes later is not fetched again, and new nodes are not asked.
    model.report("a", "nginx", "Waiting");
    model.nodes.push(node("b", &json!({})));
    model.settle();
    assert!(model.asked("a").is_empty() && model.asked("b").is_empty());
    model.now += SignedDuration::from_secs(61);
    model.settle();
    assert!(model.prefetches.is_empty() && model.node_images.is_empty());
}

#[test]
fn no_time_in_a_status_makes_the_plan_panic() {
    let mut model = Model::with_nodes(&["a"]);
    model.add(
        "web",
        &json!({"images": ["nginx"], "mode": "Once", "ttlSecondsAfterFinished": 60}),
    );
    let last = json!({"completionTime": "9999-12-30T22:00:00Z"});
    model.prefetches[0].status = Some(serde_json::from_value(last).unwrap());
    model.settle();
    assert_eq!(model.prefetches.len(), 1);
}

#[test]
fn a_node_that_is_not_ready_keeps_what_it_has_and_does_not_count() {
    let mut model = Model::with_nodes(&["a", "b"]);
    model.add("web", &json!({"images": ["nginx"], "parallelism": 2}));
    model.settle();
    model.report("a", "nginx", "Present");
    model.report("b", "nginx", "Present");
    model.settle();
    model.nodes[1].status.as_mut().unwrap().conditions.as_mut().unwrap()[0].status = "Unknown".into();
    model.nodes.push(node("c", &json!({"spec": {"unschedulable": true}})));
    model.settle();
    assert_eq!(model.asked("b"), ["nginx:latest"]);
    assert!(model.asked("c").is_empty());
    let status = model.status("web");
    assert_eq!((status.nodes.desired, status.nodes.ready), (1, 1));
    assert!(conditions::is_true(&status.conditions, READY));
}

#[test]
fn deleting_one_of_two_that_share_an_image_changes_nothing_for_the_other() {
    let mut model = Model::with_nodes(&["a"]);
    model.add("one", &json!({"images": ["nginx", "redis"]}));
    model.add("two", &json!({"images": ["docker.io/library/nginx"]}));
    model.settle();
    model.report("a", "nginx", "Present");
    model.report("a", "redis", "Present");
    model.settle();
    let before = model.status("two").clone();
    model.delete("one");
    model.settle();
    assert_eq!(model.asked("a"), ["nginx:latest"]);
    assert!(model.has_label("a", "nginx"));
    assert!(!model.has_label("a", "redis"));
    assert_eq!(*model.status("two"), before);
    model.prefetches.clear();
    model.settle();
    assert!(model.node_images.is_empty());
    assert!(!model.has_label("a", "nginx"));
}

#[test]
fn a_selector_that_cannot_be_read_stalls() {
    let mut model = Model::with_nodes(&["a"]);
    let selector = json!({"matchExpressions": [{"key": "name", "operator": "Near", "values": ["a"]}]});
    model.add(
        "web",
        &json!({"images": ["nginx"], "nodeSelector": selector, "mode": "Once"}),
    );
    model.settle();
    assert!(model.node_images.is_empty());
    let (reason, message) = model.says("web", STALLED).unwrap();
    assert_eq!(reason, "InvalidNodeSelector");
    assert!(message.contains("Near"), "{message}");
    assert_eq!(model.says("web", READY), None);
    assert!(model.status("web").completion_time.is_none());
}

#[test]
fn the_numbers_of_nodes_add_up() {
    let mut model = Model::with_nodes(&["a", "b", "c", "d", "e"]);
    model.add("web", &json!({"images": ["nginx", "redis", "caddy"], "parallelism": 4}));
    model.settle();
    for (node, states) in [
        ("a", ["Present", "Present", "Present"]),
        ("b", ["Failed", "Pulling", "Present"]),
        ("c", ["Pulling", "Present", "Waiting"]),
        ("d", ["Failed", "Failed", "Present"]),
    ] {
        for (image, state) in ["nginx", "redis", "caddy"].into_iter().zip(states) {
            model.report(node, image, state);
        }
    }
    model.settle();
    let counts = model.status("web").nodes;
    assert_eq!(
        (counts.desired, counts.ready, counts.failed, counts.pulling),
        (5, 1, 2, 1)
    );
    let message = conditions::find(&model.status("web").conditions, RECONCILING).unwrap();
    assert_eq!(message.message, "1 of 5 nodes have all 3 images");
    let nginx = &model.status("web").images[1];
    assert_eq!(nginx.image, "nginx");
    assert_eq!(
        (nginx.desired, nginx.available, nginx.failed, nginx.pulling),
        (5, 1, 2, 1)
    );
}

#[test]
fn a_failed_image_that_is_tried_again_is_still_a_failed_one() {
    let mut model = Model::with_nodes(&["a"]);
    model.add("web", &json!({"images": ["nginx:nope"]}));
    model.settle();
    model.report("a", "nginx:nope", "Failed");
    model.settle();
    let before = model.status("web").clone();
    let failure = json!({"reason": "NotFound", "message": "no such tag", "attempts": 6});
    model.pass(SignedDuration::from_mins(2));
    model.say("a", "nginx:nope", json!({"state": "Pulling", "failure": failure}));
    model.settle();
    let status = model.status("web");
    assert_eq!(status.conditions, before.conditions);
    assert_eq!((status.nodes.failed, status.nodes.pulling), (1, 0));
}

#[test]
fn the_newest_failures_come_first_and_the_list_is_bounded() {
    let names: Vec<String> = (0..40).map(|number| format!("node-{number:02}")).collect();
    let mut model = Model::with_nodes(&names.iter().map(String::as_str).collect::<Vec<_>>());
    model.add("web", &json!({"images": ["nginx:nope"], "parallelism": "100%"}));
    model.settle();
    for name in &names {
        model.now += SignedDuration::from_secs(1);
        model.report(name, "nginx:nope", "Failed");
    }
    model.settle();
    let failures = &model.status("web").failures;
    assert_eq!(failures.len(), 32);
    assert_eq!(failures[0].node, "node-39");
    assert_eq!(failures[31].node, "node-08");
    assert_eq!(model.status("web").nodes.failed, 40);
}

#[test]
fn nodes_that_disagree_about_a_tag_are_visible() {
    let mut model = Model::with_nodes(&["a", "b", "c"]);
    model.add("web", &json!({"images": ["nginx"], "parallelism": 3}));
    model.settle();
    for (node, digest) in [("a", "sha256:1"), ("b", "sha256:2"), ("c", "sha256:1")] {
        model.say(node, "nginx", json!({"state": "Present", "digest": digest}));
    }
    model.settle();
    assert_eq!(model.status("web").images[0].digests, ["sha256:1", "sha256:2"]);
}

#[test]
fn the_status_is_of_the_generation_that_it_names() {
    let mut model = Model::with_nodes(&["a"]);
    model.add("web", &json!({"images": ["nginx"]}));
    model.settle();
    let prefetch = model.prefetch("web");
    prefetch.metadata.generation = Some(2);
    prefetch.spec.images.push("redis".into());
    model.settle();
    let status = model.status("web");
    assert_eq!((status.observed_generation, status.image_count), (Some(2), 2));
    assert!(
        status
            .conditions
            .iter()
            .all(|condition| condition.observed_generation == Some(2))
    );
}

#[test]
fn once_begins_anew_only_when_an_image_is_added() {
    let mut model = Model::with_nodes(&["a"]);
    model.add("web", &json!({"images": ["nginx", "redis"], "mode": "Once"}));
    model.settle();
    model.report("a", "nginx", "Present");
    model.report("a", "redis", "Present");
    model.settle();
    let done = model.status("web").clone();
    assert!(done.completion_time.is_some());
    // What vanishes, nodes that come, and other changes are no reason.
    model.report("a", "nginx", "Waiting");
    model.nodes.push(node("b", &json!({})));
    model.prefetch("web").metadata.generation = Some(2);
    model.pass(SignedDuration::from_mins(1));
    let status = model.status("web");
    assert_eq!(status.observed_generation, Some(2));
    assert_eq!((&status.nodes, &status.images), (&done.nodes, &done.images));
    assert!(conditions::is_true(&status.conditions, READY));
    model.prefetch("web").spec.images.push("caddy".into());
    model.settle();
    assert!(model.status("web").completion_time.is_none());
    assert_eq!(model.asked("a"), ["caddy:latest", "nginx:latest", "redis:latest"]);
}

#[test]
fn once_waits_for_a_node() {
    let mut model = Model::default();
    model.add(
        "web",
        &json!({"images": ["nginx"], "mode": "Once", "ttlSecondsAfterFinished": 0}),
    );
    model.settle();
    assert_eq!(model.reason("web"), "NoNodes");
    model.nodes.push(node("a", &json!({})));
    model.settle();
    assert_eq!(model.reason("web"), "Pulling");
    model.report("a", "nginx", "Failed");
    model.settle();
    assert!(model.prefetches.is_empty());
}

#[test]
fn suspending_keeps_what_is_there_and_stops_what_has_not_begun() {
    let mut model = Model::with_nodes(&["a", "b"]);
    model.add("web", &json!({"images": ["nginx", "redis"], "parallelism": 1}));
    model.settle();
    model.report("a", "nginx", "Present");
    model.settle();
    model.prefetch("web").spec.suspend = true;
    model.settle();
    assert!(model.asked("a").is_empty() && model.asked("b").is_empty());
    assert!(model.has_label("a", "nginx"));
    assert_eq!(model.reason("web"), "Suspended");
    assert_eq!(model.counts.waiting_nodes, 0);
}
