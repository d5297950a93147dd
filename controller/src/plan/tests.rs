//! The plan against a small model of a cluster: writes are applied to it, and agents are played by the test.

use coral_api::{
    ImageReference,
    conditions::{self, READY, STALLED},
    node_images::{DesiredState, ImageState},
};
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;

#[derive(Default)]
struct Model {
    prefetches: Vec<Prefetch>,
    nodes: Vec<Node>,
    node_images: Vec<NodeImages>,
    slots: Slots,
    now: Timestamp,
}

impl Model {
    fn with_nodes(names: &[&str]) -> Self {
        let mut model = Self::default();
        for name in names {
            model.nodes.push(node(name, &json!({})));
        }
        model
    }

    fn add(&mut self, name: &str, spec: &Value) {
        self.prefetches.push(
            serde_json::from_value(json!({
                "apiVersion": "image.stvz.io/v1alpha1",
                "kind": "Prefetch",
                "metadata": {"name": name, "namespace": "shop", "uid": name, "generation": 1},
                "spec": spec,
            }))
            .unwrap(),
        );
        self.prefetches.sort_by_key(kube::ResourceExt::name_any);
    }

    fn plan(&mut self) -> Vec<Write> {
        let (writes, slots) = plan(
            Cluster {
                prefetches: &self.prefetches.iter().collect::<Vec<_>>(),
                nodes: &self.nodes.iter().collect::<Vec<_>>(),
                node_images: &self.node_images.iter().collect::<Vec<_>>(),
            },
            &self.slots,
            self.now,
        );
        self.slots = slots;
        writes
    }

    /// Plans and applies until nothing is left to write.
    fn settle(&mut self) {
        for _ in 0..10 {
            let writes = self.plan();
            if writes.is_empty() {
                return;
            }
            for write in writes {
                self.apply(write);
            }
        }
        panic!("the plan does not come to rest: {:?}", self.plan());
    }

    fn apply(&mut self, write: Write) {
        match write {
            Write::NodeImages { node, node_uid, spec } => {
                let known = self.node_images.iter().position(|object| object.name_any() == node);
                let index = known.unwrap_or_else(|| {
                    self.node_images.push(NodeImages::new(&node, NodeImagesSpec::default()));
                    self.node_images.len() - 1
                });
                let object = &mut self.node_images[index];
                object.spec = spec;
                object.metadata.owner_references = serde_json::from_value(
                    json!([{"apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid}]),
                )
                .unwrap();
            }
            Write::DeleteNodeImages { node } => self.node_images.retain(|object| object.name_any() != node),
            Write::NodeLabels { node, labels } => {
                let object = self.nodes.iter_mut().find(|object| object.name_any() == node).unwrap();
                for (key, value) in labels {
                    match value {
                        Some(value) => object.labels_mut().insert(key, value),
                        None => object.labels_mut().remove(&key),
                    };
                }
            }
            Write::PrefetchStatus { name, status, .. } => {
                let object = self
                    .prefetches
                    .iter_mut()
                    .find(|object| object.name_any() == name)
                    .unwrap();
                object.status = Some(*status);
            }
            Write::DeletePrefetch { name, .. } => self.prefetches.retain(|object| object.name_any() != name),
        }
    }

    /// The images of a node whose turn has come.
    fn asked(&self, node: &str) -> Vec<String> {
        let object = self.node_images.iter().find(|object| object.name_any() == node);
        object
            .iter()
            .flat_map(|object| &object.spec.images)
            .filter(|image| image.state == DesiredState::Present)
            .map(|image| image.image.parse::<ImageReference>().unwrap().familiar())
            .collect()
    }

    /// Nodes that have been asked for `image` and not said that they are done with it.
    fn pulling(&self, image: &str) -> Vec<String> {
        let nodes = self.nodes.iter().map(kube::ResourceExt::name_any);
        nodes
            .filter(|node| self.asked(node).contains(&image.to_owned()) && self.state(node, image).is_none())
            .collect()
    }

    fn state(&self, node: &str, image: &str) -> Option<ImageState> {
        let object = self.node_images.iter().find(|object| object.name_any() == node)?;
        let identity = image.parse::<ImageReference>().unwrap().identity();
        let images = &object.status.as_ref()?.images;
        images
            .iter()
            .find(|image| image.image == identity)
            .map(|image| image.state)
    }

    /// Plays the agent of a node.
    fn report(&mut self, node: &str, image: &str, state: &str) {
        let identity = image.parse::<ImageReference>().unwrap().identity();
        let failure =
            (state == "Failed").then(|| json!({"reason": "NotFound", "message": "no such tag", "attempts": 6}));
        let entry = json!({"image": identity, "state": state, "digest": "sha256:1", "failure": failure});
        let object = self
            .node_images
            .iter_mut()
            .find(|object| object.name_any() == node)
            .unwrap();
        let status = object.status.get_or_insert_default();
        status.images.retain(|status| status.image != identity);
        status.images.push(serde_json::from_value(entry).unwrap());
    }

    fn has_label(&self, node: &str, image: &str) -> bool {
        let key = image.parse::<ImageReference>().unwrap().label_key();
        let object = self.nodes.iter().find(|object| object.name_any() == node).unwrap();
        object.labels().contains_key(&key)
    }

    fn status(&self, name: &str) -> &PrefetchStatus {
        let object = self.prefetches.iter().find(|object| object.name_any() == name).unwrap();
        object.status.as_ref().unwrap()
    }
}

fn node(name: &str, change: &Value) -> Node {
    let mut node = json!({
        "metadata": {"name": name, "uid": name, "labels": {"kubernetes.io/os": "linux", "name": name}},
        "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    });
    for (key, value) in change.as_object().unwrap() {
        node[key] = value.clone();
    }
    serde_json::from_value(node).unwrap()
}

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
fn deleting_one_of_two_that_share_an_image_changes_nothing_for_the_other() {
    let mut model = Model::with_nodes(&["a"]);
    model.add("one", &json!({"images": ["nginx", "redis"]}));
    model.add("two", &json!({"images": ["docker.io/library/nginx"]}));
    model.settle();
    model.report("a", "nginx", "Present");
    model.report("a", "redis", "Present");
    model.settle();
    let before = model.status("two").clone();
    model.prefetches.retain(|prefetch| prefetch.name_any() != "one");
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

#[test]
fn a_silent_agent_does_not_keep_the_others_waiting() {
    let mut model = Model::with_nodes(&["a", "b"]);
    model.add("web", &json!({"images": ["nginx"], "timeout": "10m"}));
    model.settle();
    assert_eq!(model.pulling("nginx:latest"), ["a"]);
    model.now += SignedDuration::from_mins(11);
    model.settle();
    assert_eq!(model.pulling("nginx:latest"), ["a", "b"]);
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
fn a_node_replaced_under_its_name_gets_an_object_of_its_own() {
    let mut model = Model::with_nodes(&["a"]);
    model.add("web", &json!({"images": ["nginx"]}));
    model.settle();
    model.nodes[0].metadata.uid = Some("another".into());
    let writes = model.plan();
    assert!(
        matches!(&writes[..], [Write::NodeImages { node_uid, .. }] if node_uid == "another"),
        "{writes:?}"
    );
    model.nodes.clear();
    model.settle();
    assert!(model.node_images.is_empty());
}

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
