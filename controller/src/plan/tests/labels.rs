//! Labels of nodes.

use coral_api::conditions::{self, READY};
use jiff::SignedDuration;
use serde_json::json;

use super::model::Model;

#[test]
fn labels_come_and_go_with_the_image() {
    let mut model = Model::with_nodes(&["a"]);
    model.add("web", &json!({"images": ["nginx"]}));
    model.settle();
    assert!(!model.has_label("a", "nginx"));
    model.report("a", "nginx", "Present");
    model.settle();
    assert!(model.has_label("a", "nginx"));
    model.report("a", "nginx", "Pulling");
    model.settle();
    assert!(!model.has_label("a", "nginx"));
    assert!(!conditions::is_true(&model.status("web").conditions, READY));
}

#[test]
fn labels_go_when_agent_and_node_are_silent_and_come_back_with_the_node() {
    let mut model = Model::with_nodes(&["a"]);
    model.add("web", &json!({"images": ["nginx"]}));
    model.settle();
    model.report("a", "nginx", "Present");
    model.settle();
    let second = SignedDuration::from_secs(1);
    model.set_ready("a", "Unknown");
    model.pass(second * 50);
    assert!(model.has_label("a", "nginx"));
    // The agent speaks, so the minute begins anew.
    model.report("a", "nginx", "Present");
    model.pass(second * 55);
    assert!(model.has_label("a", "nginx"));
    assert_eq!(model.counts.silent_nodes, 0);
    model.pass(second * 10);
    assert!(!model.has_label("a", "nginx"));
    assert_eq!(model.counts.silent_nodes, 1);
    // Another leader has heard nothing yet, but puts no label on a node that is not Ready.
    model.memory = crate::plan::Memory::default();
    model.settle();
    assert!(!model.has_label("a", "nginx"));
    model.set_ready("a", "True");
    model.settle();
    assert!(model.has_label("a", "nginx"));
}

#[test]
fn what_is_asked_anew_is_not_the_agent_s_word() {
    let mut model = Model::with_nodes(&["a"]);
    model.add("web", &json!({"images": ["nginx"]}));
    model.settle();
    model.report("a", "nginx", "Present");
    model.settle();
    model.silent.insert("a".into());
    model.set_ready("a", "Unknown");
    for priority in 0..13 {
        model.prefetches[0].spec.priority = priority;
        model.pass(SignedDuration::from_secs(5));
    }
    assert!(!model.has_label("a", "nginx"));
}
