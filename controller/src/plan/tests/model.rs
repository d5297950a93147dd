//! A small model of a cluster: writes are applied to it, and agents do what they are told at once, except for pulls, which the test plays.

use std::collections::BTreeSet;

use coral_api::{
    ImageReference, conditions,
    node_images::{DesiredState, ImageState, NodeImagesStatus},
};
use jiff::SignedDuration;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::plan::*;

#[derive(Default)]
pub(super) struct Model {
    pub(super) prefetches: Vec<Prefetch>,
    pub(super) nodes: Vec<Node>,
    pub(super) node_images: Vec<NodeImages>,
    pub(super) mirrored_images: Vec<MirroredImage>,
    pub(super) memory: Memory,
    pub(super) limits: Limits,
    pub(super) now: Timestamp,
    pub(super) counts: Counts,
    /// Nodes whose agents say nothing.
    pub(super) silent: BTreeSet<String>,
    /// No object has the UID of an earlier one.
    pub(super) objects_made: usize,
}

impl Model {
    pub(super) fn with_nodes(names: &[&str]) -> Self {
        let mut model = Self::default();
        for name in names {
            model.nodes.push(node(name, &json!({})));
        }
        model
    }

    pub(super) fn add(&mut self, name: &str, spec: &Value) {
        let created = conditions::time(self.now);
        self.prefetches.push(
            serde_json::from_value(json!({
                "apiVersion": "image.stvz.io/v1alpha1",
                "kind": "Prefetch",
                "metadata": {
                    "name": name, "namespace": "shop", "uid": name, "generation": 1, "creationTimestamp": created,
                },
                "spec": spec,
            }))
            .unwrap(),
        );
    }

    pub(super) fn delete(&mut self, name: &str) {
        self.prefetches.retain(|prefetch| prefetch.name_any() != name);
    }

    pub(super) fn prefetch(&mut self, name: &str) -> &mut Prefetch {
        let mut prefetches = self.prefetches.iter_mut();
        prefetches.find(|prefetch| prefetch.name_any() == name).unwrap()
    }

    pub(super) fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.name_any() == name).unwrap()
    }

    /// Sets the Ready condition of a node, as from now on.
    pub(super) fn set_ready(&mut self, name: &str, status: &str) {
        let now = self.now;
        let condition = &mut self.node(name).status.as_mut().unwrap().conditions.as_mut().unwrap()[0];
        condition.status = status.into();
        condition.last_transition_time = Some(conditions::time(now));
    }

    pub(super) fn plan(&mut self) -> Vec<Write> {
        let Plan { writes, memory, counts } = plan(
            Cluster {
                prefetches: &self.prefetches.iter().collect::<Vec<_>>(),
                nodes: &self.nodes.iter().collect::<Vec<_>>(),
                node_images: &self.node_images.iter().collect::<Vec<_>>(),
                mirrored_images: &self.mirrored_images.iter().collect::<Vec<_>>(),
            },
            &self.memory,
            &self.limits,
            self.now,
        );
        self.memory = memory;
        self.counts = counts;
        writes
    }

    /// Plans and applies until nothing is left to write.
    pub(super) fn settle(&mut self) {
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

    /// Lets this much time pass, in small steps as the controller does.
    pub(super) fn pass(&mut self, duration: SignedDuration) {
        let end = self.now + duration;
        while self.now < end {
            self.now = end.min(self.now + SignedDuration::from_secs(5));
            self.settle();
        }
    }

    pub(super) fn apply(&mut self, write: Write) {
        match write {
            Write::NodeImages { node, node_uid, spec } => {
                let known = self.node_images.iter().position(|object| object.name_any() == node);
                let index = known.unwrap_or_else(|| {
                    let mut object = NodeImages::new(&node, NodeImagesSpec::default());
                    self.objects_made += 1;
                    object.metadata.uid = Some(format!("object-{}", self.objects_made));
                    self.node_images.push(object);
                    self.node_images.len() - 1
                });
                let object = &mut self.node_images[index];
                if object.spec != spec || object.metadata.generation.is_none() {
                    object.metadata.generation = Some(object.metadata.generation.unwrap_or(0) + 1);
                }
                touch(object);
                object.spec = spec;
                object.metadata.owner_references = serde_json::from_value(
                    json!([{"apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid}]),
                )
                .unwrap();
                self.answer(&node);
            }
            Write::DeleteNodeImages { node, .. } => self.node_images.retain(|object| object.name_any() != node),
            Write::NodeLabels { node, labels } => {
                for (key, value) in labels {
                    match value {
                        Some(value) => self.node(&node).labels_mut().insert(key, value),
                        None => self.node(&node).labels_mut().remove(&key),
                    };
                }
            }
            Write::RemoveStartupTaint { node, taints, .. } => {
                let list = self.node(&node).spec.as_mut().unwrap().taints.as_mut().unwrap();
                for index in taints.into_iter().rev() {
                    list.remove(index);
                }
            }
            Write::PrefetchStatus { name, status, .. } => self.prefetch(&name).status = Some(*status),
            Write::DeletePrefetch { name, .. } => self.delete(&name),
        }
    }

    /// The agent of a node takes in what it is asked for.
    pub(super) fn answer(&mut self, node: &str) {
        if self.silent.contains(node) {
            return;
        }
        let object = self.object(node);
        let before = object.status.take().unwrap_or_default();
        let images = object.spec.images.iter().map(|entry| {
            let known = before.images.iter().find(|status| status.image == entry.image);
            let is_new = || serde_json::from_value(json!({"image": entry.image, "state": "Waiting"})).unwrap();
            let mut status = known.cloned().unwrap_or_else(is_new);
            if entry.state == DesiredState::Absent && status.failure.is_none() {
                status.state = ImageState::Absent;
            } else if status.state == ImageState::Absent {
                status.state = ImageState::Waiting;
            }
            status
        });
        let status = NodeImagesStatus {
            observed_generation: object.metadata.generation,
            images: images.collect(),
            ..before
        };
        object.status = Some(status);
        touch(object);
    }

    pub(super) fn object(&mut self, node: &str) -> &mut NodeImages {
        let mut objects = self.node_images.iter_mut();
        objects.find(|object| object.name_any() == node).unwrap()
    }

    /// The images of a node whose entries are in this state.
    pub(super) fn entries(&self, node: &str, state: DesiredState) -> Vec<String> {
        let object = self.node_images.iter().find(|object| object.name_any() == node);
        object
            .iter()
            .flat_map(|object| &object.spec.images)
            .filter(|image| image.state == state)
            .map(|image| image.image.parse::<ImageReference>().unwrap().familiar())
            .collect()
    }

    /// The images of a node whose turn has come.
    pub(super) fn asked(&self, node: &str) -> Vec<String> {
        self.entries(node, DesiredState::Present)
    }

    /// Nodes that have been asked for `image` and have not said that they are done with it.
    pub(super) fn pulling(&self, image: &str) -> Vec<String> {
        let nodes = self.nodes.iter().map(kube::ResourceExt::name_any);
        nodes
            .filter(|node| {
                let is_done = matches!(self.state(node, image), Some(ImageState::Present | ImageState::Failed));
                !is_done && self.asked(node).contains(&image.to_owned())
            })
            .collect()
    }

    pub(super) fn state(&self, node: &str, image: &str) -> Option<ImageState> {
        let object = self.node_images.iter().find(|object| object.name_any() == node)?;
        let identity = image.parse::<ImageReference>().unwrap().identity();
        let images = &object.status.as_ref()?.images;
        images
            .iter()
            .find(|image| image.image == identity)
            .map(|image| image.state)
    }

    /// Plays the agent of a node. A state of `Failed` stands for six attempts, the next of which is due in a minute.
    pub(super) fn report(&mut self, node: &str, image: &str, state: &str) {
        let next = conditions::time(self.now + SignedDuration::from_mins(1));
        let failure = (state == "Failed")
            .then(|| json!({"reason": "NotFound", "message": "no such tag", "attempts": 6, "nextAttemptTime": next}));
        let pulled = (state == "Present").then(|| conditions::time(self.now));
        let digest = (state == "Present").then_some("sha256:1");
        self.say(
            node,
            image,
            json!({"state": state, "digest": digest, "failure": failure, "lastPullTime": pulled}),
        );
    }

    /// Plays the agent of a node that says this of an image.
    pub(super) fn say(&mut self, node: &str, image: &str, mut status: Value) {
        let identity = image.parse::<ImageReference>().unwrap().identity();
        status["image"] = json!(identity);
        let object = self.object(node);
        let images = &mut object.status.get_or_insert_default().images;
        images.retain(|status| status.image != identity);
        images.push(serde_json::from_value(status).unwrap());
        self.answer(node);
    }

    pub(super) fn has_label(&self, node: &str, image: &str) -> bool {
        let key = image.parse::<ImageReference>().unwrap().label_key();
        let object = self.nodes.iter().find(|object| object.name_any() == node).unwrap();
        object.labels().contains_key(&key)
    }

    pub(super) fn status(&self, name: &str) -> &PrefetchStatus {
        let object = self.prefetches.iter().find(|object| object.name_any() == name).unwrap();
        object.status.as_ref().unwrap()
    }

    /// Reason and message of a condition of a Prefetch that is `True`.
    pub(super) fn says(&self, name: &str, kind: &str) -> Option<(&str, &str)> {
        let condition = conditions::find(&self.status(name).conditions, kind)?;
        (condition.status == "True").then_some((condition.reason.as_str(), condition.message.as_str()))
    }

    /// Why a Prefetch is ready or not.
    pub(super) fn reason(&self, name: &str) -> &str {
        let ready = conditions::find(&self.status(name).conditions, conditions::READY);
        &ready.unwrap().reason
    }
}

/// Gives the object a new version.
fn touch(object: &mut NodeImages) {
    let version = object.metadata.resource_version.as_ref();
    let version = version.map_or(0, |version| version.parse().unwrap());
    object.metadata.resource_version = Some(u64::to_string(&(version + 1)));
}

pub(super) fn node(name: &str, change: &Value) -> Node {
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
