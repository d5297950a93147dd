//! The world: an API server that has what was written, machines, and people.

mod machine;

use std::collections::{BTreeMap, BTreeSet};

use coral_api::{
    conditions,
    node_images::{DesiredState, ImageState},
};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;
use proptest::sample::Index;
use serde_json::json;

use crate::plan::*;
use machine::{BACKOFF_LIMIT, Machine};

/// The bound over the whole cluster.
pub(super) const MOST_PULLING_NODES: usize = 4;
/// An image that every attempt at fails.
const BROKEN: &str = "docker.io/library/broken:latest";

/// What somebody wants.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted {
    /// One bit for each of four images that nobody else wants, one that others want, too, and one that is broken.
    pub(super) images: u8,
    pub(super) parallelism: usize,
    pub(super) removes: bool,
    pub(super) priority: i32,
    pub(super) is_suspended: bool,
    /// Whether it is for half of the nodes.
    pub(super) has_selector: bool,
}

impl Wanted {
    /// The same without the broken image.
    pub(super) fn without_failures(&self) -> Self {
        Self {
            images: self.images & 0b1_1111,
            ..self.clone()
        }
    }

    fn images(&self, name: &str) -> Vec<String> {
        let own = (0..4).map(|number| format!("{name}-{number}"));
        let all = own.chain(["shared".to_owned(), "broken".to_owned()]).enumerate();
        let images: Vec<String> = all
            .filter(|(bit, _)| self.images >> bit & 1 == 1)
            .map(|(_, image)| image)
            .collect();
        if images.is_empty() {
            vec!["shared".to_owned()]
        } else {
            images
        }
    }

    fn write_to(&self, prefetch: &mut Prefetch) {
        prefetch.spec.images = self.images(&prefetch.name_any());
        prefetch.spec.priority = self.priority;
        prefetch.spec.suspend = self.is_suspended;
        let policy = if self.removes { "Remove" } else { "Retain" };
        prefetch.spec.removal_policy = serde_json::from_value(json!(policy)).unwrap();
        let selector = self.has_selector.then(|| json!({"matchLabels": {"parity": "even"}}));
        prefetch.spec.node_selector = serde_json::from_value(json!(selector)).unwrap();
    }
}

#[derive(Default)]
pub(super) struct World {
    now: Timestamp,
    created: usize,
    prefetches: BTreeMap<String, Prefetch>,
    machines: BTreeMap<String, Machine>,
    objects: BTreeMap<String, NodeImages>,
    /// No object has the UID of an earlier one.
    objects_made: usize,
    memory: Memory,
}

impl World {
    pub(super) fn create(&mut self, wanted: &Wanted) {
        self.created += 1;
        let name = format!("p{}", self.created);
        self.create_as(&name, wanted);
    }

    pub(super) fn create_as(&mut self, name: &str, wanted: &Wanted) {
        let mut prefetch: Prefetch = serde_json::from_value(json!({
            "apiVersion": "image.stvz.io/v1alpha1",
            "kind": "Prefetch",
            "metadata": {"name": name, "namespace": "shop", "uid": name},
            "spec": {"images": [], "parallelism": wanted.parallelism, "timeout": "1m", "backoffLimit": BACKOFF_LIMIT},
        }))
        .unwrap();
        wanted.write_to(&mut prefetch);
        self.prefetches.insert(name.to_owned(), prefetch);
    }

    pub(super) fn delete(&mut self, which: Index) {
        if let Some(prefetch) = self.some_prefetch(which) {
            let name = prefetch.name_any();
            self.prefetches.remove(&name);
        }
    }

    /// Changes anything but the parallelism: a smaller one takes no turn away, which the test could not tell from a mistake.
    pub(super) fn change(&mut self, which: Index, wanted: &Wanted) {
        if let Some(prefetch) = self.some_prefetch(which) {
            wanted.write_to(prefetch);
        }
    }

    fn some_prefetch(&mut self, which: Index) -> Option<&mut Prefetch> {
        let mut prefetches: Vec<&mut Prefetch> = self.prefetches.values_mut().collect();
        let number = prefetches.len();
        (number > 0).then(|| prefetches.swap_remove(which.index(number)))
    }

    pub(super) fn join(&mut self, number: u8) {
        self.created += 1;
        let uid = self.created;
        let name = format!("n{number}");
        self.machines
            .entry(name.clone())
            .or_insert_with(|| Machine::new(&name, number, uid));
    }

    pub(super) fn leave(&mut self, number: u8) {
        self.machines.remove(&format!("n{number}"));
    }

    pub(super) fn set_ready(&mut self, number: u8, is_ready: bool) {
        let time = conditions::time(self.now);
        if let Some(machine) = self.machine(number) {
            let condition = &mut machine.node.status.as_mut().unwrap().conditions.as_mut().unwrap()[0];
            condition.status = if is_ready { "True" } else { "Unknown" }.to_owned();
            condition.last_transition_time = Some(time);
        }
    }

    pub(super) fn cordon(&mut self, number: u8, is_cordoned: bool) {
        if let Some(machine) = self.machine(number) {
            machine.node.spec.as_mut().unwrap().unschedulable = Some(is_cordoned);
        }
    }

    pub(super) fn set_agent(&mut self, number: u8, is_up: bool) {
        if let Some(machine) = self.machine(number) {
            machine.restart_agent(is_up);
        }
    }

    pub(super) fn vanish(&mut self, number: u8, image: Index) {
        if let Some(machine) = self.machine(number) {
            machine.lose(image);
        }
    }

    fn machine(&mut self, number: u8) -> Option<&mut Machine> {
        self.machines.get_mut(&format!("n{number}"))
    }

    pub(super) fn restart(&mut self) {
        self.memory = Memory::default();
    }

    /// Lets time pass. An agent that is up does not sleep through the end of an attempt.
    pub(super) fn wait(&mut self, seconds: u8) {
        self.now += SignedDuration::from_secs(seconds.into());
        self.work(u8::MAX, 0);
    }

    /// Lets the agents of some nodes work.
    pub(super) fn work(&mut self, nodes: u8, pulls: u64) {
        for (number, (name, machine)) in self.machines.iter_mut().enumerate() {
            if nodes >> (number % 8) & 1 == 1 {
                machine.work(
                    self.objects.get_mut(name),
                    pulls.rotate_right(8 * u32::try_from(number).unwrap()),
                    self.now,
                );
            }
        }
    }

    /// Plans and carries out some of the writes.
    pub(super) fn plan(&mut self, bits: u64) {
        let writes = self.missing_writes();
        for (number, write) in writes.into_iter().enumerate() {
            if bits >> (number % 64) & 1 == 1 {
                self.apply(write);
            }
        }
    }

    fn missing_writes(&mut self) -> Vec<Write> {
        let limits = Limits {
            max_pulling_nodes: Some(MOST_PULLING_NODES),
            ..Limits::default()
        };
        let unwanted: Vec<(String, String)> = self
            .machines
            .iter()
            .flat_map(|(name, machine)| machine.pulls.keys().map(|image| (name.clone(), image.clone())))
            .filter(|(name, image)| self.askers(name, image).is_empty())
            .collect();
        for (name, image) in unwanted {
            self.machines.get_mut(&name).unwrap().unaccounted.insert(image);
        }
        let cluster = Cluster {
            prefetches: &self.prefetches.values().collect::<Vec<_>>(),
            nodes: &self.machines.values().map(|machine| &machine.node).collect::<Vec<_>>(),
            node_images: &self.objects.values().collect::<Vec<_>>(),
            mirrored_images: &[],
        };
        let plan = plan(cluster, &self.memory, &limits, self.now);
        self.memory = plan.memory;
        plan.writes
    }

    fn apply(&mut self, write: Write) {
        match write {
            Write::NodeImages { node, node_uid, spec } => {
                for entry in spec.images.iter().filter(|entry| entry.state == DesiredState::Absent) {
                    let askers = self.askers(&node, &entry.image);
                    assert!(askers.is_empty(), "{askers:?} want what is taken away: {}", entry.image);
                }
                self.objects_made += 1;
                let uid = format!("object-{}", self.objects_made);
                let new = || {
                    let mut object = NodeImages::new(&node, NodeImagesSpec::default());
                    object.metadata.uid = Some(uid);
                    object
                };
                let object = self.objects.entry(node.clone()).or_insert_with(new);
                assert!(
                    object.metadata.generation.is_none() || object.spec != spec,
                    "no difference"
                );
                object.metadata.generation = Some(object.metadata.generation.unwrap_or(0) + 1);
                object.spec = spec;
                let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid}]);
                object.metadata.owner_references = serde_json::from_value(owner).unwrap();
            }
            Write::DeleteNodeImages { node, .. } => assert!(self.objects.remove(&node).is_some(), "no difference"),
            Write::NodeLabels { node, labels } => {
                let present = self.machines.get_mut(&node).unwrap().node.labels_mut();
                for (key, value) in labels {
                    let before = match value.clone() {
                        Some(value) => present.insert(key, value),
                        None => present.remove(&key),
                    };
                    assert_ne!(before, value, "no difference");
                }
            }
            Write::PrefetchStatus { name, status, .. } => {
                let before = self.prefetches.get_mut(&name).unwrap().status.replace(*status.clone());
                assert_ne!(before, Some(*status), "no difference");
            }
            Write::RemoveStartupTaint { .. } | Write::DeletePrefetch { .. } => panic!("nobody asked for this"),
        }
    }

    /// The Prefetches that want the image on the node.
    fn askers(&self, node: &str, image: &str) -> Vec<&Prefetch> {
        let Some(machine) = self.machines.get(node) else {
            return Vec::new();
        };
        let prefetches = self.prefetches.values();
        prefetches
            .filter(|prefetch| {
                let is_selected = prefetch.spec.node_selector.is_none() || machine.is_even();
                is_selected && prefetch.spec.images.iter().any(|name| identity(name) == image)
            })
            .collect()
    }

    /// For each Prefetch, the nodes that pull an image that only it wants, and how many may. And the nodes that pull anything.
    pub(super) fn pulling(&self) -> (BTreeMap<String, (usize, usize)>, usize) {
        let mut per_prefetch: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        let mut nodes = 0;
        for (name, machine) in &self.machines {
            // A pull that nobody wants any more ends as soon as its agent learns of it.
            let is_wanted = |image: &String| !self.askers(name, image).is_empty();
            nodes += usize::from(machine.pulls_by_turn().any(is_wanted));
            let askers: BTreeMap<String, &Prefetch> = machine
                .pulls_by_turn()
                .flat_map(|image| {
                    // What others want, too, may be pulled by the turns of others.
                    let own =
                        |asker: &&Prefetch| image.starts_with(&format!("docker.io/library/{}-", asker.name_any()));
                    self.askers(name, image).into_iter().filter(own)
                })
                .map(|asker| (asker.name_any(), asker))
                .collect();
            for (asker, prefetch) in askers {
                let IntOrString::Int(parallelism) = prefetch.spec.parallelism else {
                    panic!("a share depends on the number of nodes");
                };
                let entry = per_prefetch.entry(asker).or_default();
                *entry = (entry.0 + 1, usize::try_from(parallelism).unwrap());
            }
        }
        (per_prefetch, nodes)
    }

    /// Ends every trouble but that of the broken image.
    pub(super) fn heal(&mut self) {
        for number in 0..8 {
            self.set_ready(number, true);
            self.cordon(number, false);
        }
        for machine in self.machines.values_mut().filter(|machine| !machine.is_agent_up) {
            machine.restart_agent(true);
        }
    }

    /// Lets controller and agents work until nothing is left to do.
    pub(super) fn comes_to_rest(&mut self) -> bool {
        for _ in 0..400 {
            let is_written = (0..8).any(|_| {
                let writes = self.missing_writes();
                let is_written = writes.is_empty();
                for write in writes {
                    self.apply(write);
                }
                is_written
            });
            if is_written && self.lacks_nothing() {
                return true;
            }
            self.now += SignedDuration::from_secs(15);
            self.work(u8::MAX, u64::MAX);
        }
        false
    }

    /// Whether what can be there is there, and what is to go is gone.
    fn lacks_nothing(&self) -> bool {
        let has_all = |name: &String, machine: &Machine| {
            let wanted = self.prefetches.values().filter(|prefetch| !prefetch.spec.suspend);
            wanted
                .flat_map(|prefetch| &prefetch.spec.images)
                .map(|image| identity(image))
                .filter(|image| image != BROKEN && self.askers(name, image).iter().any(|asker| !asker.spec.suspend))
                .all(|image| machine.disk.contains(&image))
        };
        let is_idle = |machine: &Machine| machine.pulls.keys().all(|image| image == BROKEN);
        let is_removing = |object: &NodeImages| {
            object
                .spec
                .images
                .iter()
                .any(|entry| entry.state == DesiredState::Absent)
        };
        let is_told = |name: &String, machine: &Machine| {
            let entries = self.objects.get(name).map_or(&[][..], |object| &object.spec.images);
            entries
                .iter()
                .all(|entry| machine.disk.contains(&entry.image) == self.is_said_to_be_there(name, &entry.image))
        };
        let is_done =
            |name: &String, machine: &Machine| has_all(name, machine) && is_idle(machine) && is_told(name, machine);
        self.machines.iter().all(|(name, machine)| is_done(name, machine)) && !self.objects.values().any(is_removing)
    }

    fn is_said_to_be_there(&self, node: &str, image: &str) -> bool {
        let status = self.objects.get(node).and_then(|object| object.status.as_ref());
        let mut images = status.iter().flat_map(|status| &status.images);
        images.any(|status| status.image == image && status.state == ImageState::Present)
    }

    /// Checks objects, labels and statuses of a world at rest against what is on the disks.
    pub(super) fn is_as_it_was_wanted(&self) {
        for (name, machine) in &self.machines {
            let images = self.prefetches.values().flat_map(|prefetch| &prefetch.spec.images);
            let wanted: BTreeSet<String> = images
                .map(|image| identity(image))
                .filter(|image| !self.askers(name, image).is_empty())
                .collect();
            let asked = self.objects.get(name).map_or(&[][..], |object| &object.spec.images[..]);
            let asked: BTreeSet<String> = asked.iter().map(|entry| entry.image.clone()).collect();
            assert_eq!(asked, wanted, "{name} is asked for what is wanted");
            let there = wanted.iter().filter(|image| machine.disk.contains(*image));
            let labels: BTreeSet<String> = there
                .map(|image| image.parse::<coral_api::ImageReference>().unwrap().label_key())
                .collect();
            let present = machine
                .node
                .labels()
                .keys()
                .filter(|key| key.starts_with("image.stvz.io/"));
            assert_eq!(
                present.cloned().collect::<BTreeSet<_>>(),
                labels,
                "the labels of {name} are true"
            );
        }
        for prefetch in self.prefetches.values() {
            let machines = self.machines.values();
            let selected = machines.filter(|machine| prefetch.spec.node_selector.is_none() || machine.is_even());
            let has_all = |machine: &&Machine| {
                let mut images = prefetch.spec.images.iter().map(|image| identity(image));
                images.all(|image| machine.disk.contains(&image))
            };
            let (ready, others): (Vec<_>, Vec<_>) = selected.partition(has_all);
            let counts = prefetch.status.as_ref().unwrap().nodes;
            let expected = (ready.len() + others.len(), ready.len());
            assert_eq!(
                (counts.desired, counts.ready),
                (int(expected.0), int(expected.1)),
                "{}",
                prefetch.name_any()
            );
            assert!(counts.ready + counts.failed + counts.pulling <= counts.desired);
            let is_ready = conditions::is_true(&prefetch.status.as_ref().unwrap().conditions, conditions::READY);
            assert_eq!(is_ready, others.is_empty(), "{}", prefetch.name_any());
        }
    }

    /// Everything that was written, without times and identities.
    pub(super) fn summary(&self) -> serde_json::Value {
        let objects = self
            .objects
            .iter()
            .map(|(name, object)| json!({"name": name, "spec": object.spec}));
        let labels = self.machines.values().map(|machine| json!(machine.node.labels()));
        let statuses = self.prefetches.values().map(|prefetch| {
            let status = prefetch.status.clone().unwrap();
            let conditions = status.conditions.iter();
            let conditions: Vec<_> = conditions
                .map(|condition| json!([condition.type_, condition.status, condition.reason, condition.message]))
                .collect();
            json!({
                "nodes": status.nodes, "images": status.images, "failures": status.failures, "conditions": conditions,
            })
        });
        json!({
            "objects": objects.collect::<Vec<_>>(),
            "labels": labels.collect::<Vec<_>>(),
            "statuses": statuses.collect::<Vec<_>>(),
        })
    }
}

fn identity(image: &str) -> String {
    format!("docker.io/library/{image}:latest")
}

fn int(number: usize) -> i32 {
    i32::try_from(number).unwrap()
}
