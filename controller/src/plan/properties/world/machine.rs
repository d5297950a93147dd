//! A machine: a Node, the disk of its runtime, and its agent.

use std::collections::{BTreeMap, BTreeSet};

use coral_api::{
    NodeImages, conditions,
    node_images::{DesiredState, ImageStatus, NodeImagesStatus},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use proptest::sample::Index;
use serde_json::json;

/// Attempts before an image counts as failed.
pub(super) const BACKOFF_LIMIT: i32 = 2;
/// Pulls that an agent makes at the same time.
const PARALLEL_PULLS: usize = 2;
/// Time for one attempt.
const TIMEOUT: SignedDuration = SignedDuration::from_mins(1);

pub(super) struct Machine {
    pub(super) node: Node,
    pub(super) disk: BTreeSet<String>,
    pub(super) is_agent_up: bool,
    /// When the pulls that are under way began.
    pub(super) pulls: BTreeMap<String, Timestamp>,
    /// Images whose pulls no turn is to answer for: those that somebody took away, which the agent pulls again by itself until its
    /// object says that they are held back, and those that nobody wanted any more before the agent could learn of it.
    pub(super) unaccounted: BTreeSet<String>,
    memory: BTreeMap<String, Attempts>,
}

/// What the agent knows of the attempts at an image.
#[derive(Default)]
struct Attempts {
    failed: i32,
    next: Option<Timestamp>,
    was_held: bool,
}

impl Machine {
    pub(super) fn new(name: &str, number: u8, uid: usize) -> Self {
        let parity = if number.is_multiple_of(2) { "even" } else { "odd" };
        let labels = json!({"kubernetes.io/os": "linux", "parity": parity});
        let node = json!({
            "metadata": {"name": name, "uid": uid.to_string(), "labels": labels},
            "spec": {},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        Self {
            node: serde_json::from_value(node).unwrap(),
            disk: BTreeSet::new(),
            is_agent_up: true,
            pulls: BTreeMap::new(),
            unaccounted: BTreeSet::new(),
            memory: BTreeMap::new(),
        }
    }

    pub(super) fn is_even(&self) -> bool {
        self.node.labels()["parity"] == "even"
    }

    /// An agent that ends takes its pulls along, and a new one knows nothing.
    pub(super) fn restart_agent(&mut self, is_up: bool) {
        self.is_agent_up = is_up;
        self.pulls.clear();
        self.memory.clear();
    }

    /// The kubelet, say, takes an image away.
    pub(super) fn lose(&mut self, place: Index) {
        if !self.disk.is_empty() {
            let image = place.index(self.disk.len());
            let image = self.disk.iter().nth(image).cloned().unwrap();
            self.disk.remove(&image);
            self.unaccounted.insert(image);
        }
    }

    /// The pulls that are made by turns.
    pub(super) fn pulls_by_turn(&self) -> impl Iterator<Item = &String> {
        self.pulls.keys().filter(|image| !self.unaccounted.contains(*image))
    }

    /// The agent reads its object, acts and writes. Pulls whose bit is set end; those whose time is up fail.
    pub(super) fn work(&mut self, object: Option<&mut NodeImages>, bits: u64, now: Timestamp) {
        if !self.is_agent_up {
            return;
        }
        // The object of a machine that had the name before is collected long before a new one has an agent.
        let uid = self.node.metadata.uid.as_deref().unwrap();
        let Some(object) = object.filter(|object| object.owner_references().iter().any(|owner| owner.uid == uid))
        else {
            self.restart_agent(true);
            return;
        };
        self.take_in(object, now);
        self.end_pulls(bits, now);
        self.begin_pulls(object, now);
        object.status = Some(self.status(object));
    }

    fn take_in(&mut self, object: &NodeImages, now: Timestamp) {
        let entry = |image: &String| object.spec.images.iter().find(|entry| entry.image == *image);
        self.pulls
            .retain(|image, _| entry(image).is_some_and(|entry| entry.state != DesiredState::Absent));
        self.memory.retain(|image, _| entry(image).is_some());
        for entry in &object.spec.images {
            let attempts = self.memory.entry(entry.image.clone()).or_default();
            match entry.state {
                DesiredState::Absent => {
                    *attempts = Attempts::default();
                    self.disk.remove(&entry.image);
                }
                DesiredState::Held => {
                    attempts.was_held = true;
                    if !self.pulls.contains_key(&entry.image) {
                        self.unaccounted.remove(&entry.image);
                    }
                }
                DesiredState::Present => {
                    if std::mem::take(&mut attempts.was_held) && attempts.next.is_some() {
                        attempts.next = Some(now);
                    }
                }
            }
        }
    }

    fn end_pulls(&mut self, bits: u64, now: Timestamp) {
        let pulls = std::mem::take(&mut self.pulls);
        for (number, (image, began)) in pulls.into_iter().enumerate() {
            let is_late = now.duration_since(began) >= TIMEOUT;
            if !is_late && bits >> number & 1 == 0 {
                self.pulls.insert(image, began);
            } else if !is_late && image != super::BROKEN {
                self.memory.remove(&image);
                self.unaccounted.remove(&image);
                self.disk.insert(image);
            } else {
                let attempts = self.memory.entry(image).or_default();
                attempts.failed += 1;
                let doublings = u32::try_from(attempts.failed.min(6)).unwrap();
                attempts.next = Some(now + SignedDuration::from_secs(1 << doublings));
            }
        }
    }

    fn begin_pulls(&mut self, object: &NodeImages, now: Timestamp) {
        for entry in &object.spec.images {
            let may_begin = object.spec.paused.is_none() && entry.state == DesiredState::Present;
            let is_due = || {
                let next = self.memory.get(&entry.image).and_then(|attempts| attempts.next);
                next.is_none_or(|next| next <= now)
            };
            if may_begin && !self.disk.contains(&entry.image) && is_due() && self.pulls.len() < PARALLEL_PULLS {
                self.pulls.entry(entry.image.clone()).or_insert(now);
            }
        }
    }

    fn status(&self, object: &NodeImages) -> NodeImagesStatus {
        let images = object.spec.images.iter().map(|entry| {
            let image = &entry.image;
            let attempts = self.memory.get(image);
            let failed = attempts.map_or(0, |attempts| attempts.failed);
            let state = if self.disk.contains(image) {
                "Present"
            } else if entry.state == DesiredState::Absent {
                "Absent"
            } else if self.pulls.contains_key(image) {
                "Pulling"
            } else if failed >= BACKOFF_LIMIT {
                "Failed"
            } else {
                "Waiting"
            };
            let next = attempts.and_then(|attempts| attempts.next).map(conditions::time);
            let failure = (failed > 0 && state != "Present").then(
                || json!({"reason": "NotFound", "message": "broken", "attempts": failed, "nextAttemptTime": next}),
            );
            let pull = self
                .pulls
                .get(image)
                .map(|began| json!({"startTime": conditions::time(*began)}));
            let status = json!({"image": image, "state": state, "failure": failure, "pull": pull});
            serde_json::from_value::<ImageStatus>(status).unwrap()
        });
        NodeImagesStatus {
            observed_generation: object.metadata.generation,
            images: images.collect(),
            ..NodeImagesStatus::default()
        }
    }
}
