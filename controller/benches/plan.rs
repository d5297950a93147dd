//! What a plan costs per node: of a cluster that is as it should be, and of one in the middle of a rollout. The times are those of one
//! node, on a processor, whatever else the machine does; they grow with the number of nodes only as far as the processor's caches are left behind.
//!
//! How much of that is due to the objects is shown by `in turn`: fifty clusters of 100 nodes, planned one after the other, are as many objects as
//! one cluster of 5000 nodes, but no plan knows of more than 100. The rest is the plan's own view of its nodes.
//!
//! ```sh
//! cargo bench -p coral-controller --bench plan
//! ```

use std::{hint::black_box, time::Duration};

use coral_api::{NodeImages, Prefetch};
use coral_controller::plan::{Cluster, Limits, Memory, Write, plan};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

const IMAGES: usize = 20;
const PREFETCHES: usize = 10;
/// Clusters that are planned in turn, with as many nodes together as the largest cluster has.
const CLUSTERS: u32 = 50;
const SMALL_CLUSTER: u32 = 100;

/// A cluster in which every Prefetch wants the same images on every node.
struct Site {
    prefetches: Vec<Prefetch>,
    nodes: Vec<Node>,
    node_images: Vec<NodeImages>,
    memory: Memory,
    now: Timestamp,
}

impl Site {
    /// The cluster when all that may begin has begun, and of the images those are there for which `is_there` says so.
    fn new(nodes: usize, is_there: impl Fn(usize, usize) -> bool) -> Self {
        let images: Vec<String> = (0..IMAGES)
            .map(|number| format!("registry.example.com/team/service-{number}:v1.{number}"))
            .collect();
        let mut site = Self {
            prefetches: (0..PREFETCHES).map(|number| prefetch(number, &images)).collect(),
            nodes: (0..nodes).map(node).collect(),
            node_images: Vec::new(),
            memory: Memory::default(),
            now: Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1),
        };
        site.settle();
        for (number, object) in site.node_images.iter_mut().enumerate() {
            let images = images.iter().enumerate().map(|(image, name)| {
                let state = if is_there(number, image) { "Present" } else { "Waiting" };
                let digest = format!("sha256:{image:064}");
                json!({"image": name, "state": state, "digest": digest, "sizeBytes": 1 << 28})
            });
            let images: Vec<_> = images.collect();
            object.status = serde_json::from_value(json!({"images": images})).expect("a status");
        }
        site.settle();
        site
    }

    fn plan(&self) -> coral_controller::plan::Plan {
        let cluster = Cluster {
            prefetches: &self.prefetches.iter().collect::<Vec<_>>(),
            nodes: &self.nodes.iter().collect::<Vec<_>>(),
            node_images: &self.node_images.iter().collect::<Vec<_>>(),
            mirrored_images: &[],
        };
        plan(cluster, &self.memory, &Limits::default(), self.now)
    }

    /// Carries out what the plan lacks until it lacks nothing. Objects keep the order of the nodes.
    fn settle(&mut self) {
        loop {
            let plan = self.plan();
            self.memory = plan.memory;
            if plan.writes.is_empty() {
                return;
            }
            for write in plan.writes {
                self.carry_out(write);
            }
        }
    }

    fn carry_out(&mut self, write: Write) {
        match write {
            Write::NodeImages { node, node_uid, spec } => {
                let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid}]);
                let mut object = NodeImages::new(&node, spec);
                object.metadata.uid = Some(node.clone());
                object.metadata.generation = Some(1);
                object.metadata.owner_references = serde_json::from_value(owner).expect("an owner");
                let place = self
                    .node_images
                    .binary_search_by_key(&Some(&node), |object| object.metadata.name.as_ref());
                match place {
                    Ok(place) => {
                        let known = &mut self.node_images[place];
                        known.spec = object.spec;
                        known.metadata.generation = known.metadata.generation.map(|generation| generation + 1);
                    }
                    Err(place) => self.node_images.insert(place, object),
                }
            }
            Write::NodeLabels { node, labels } => {
                let place = self
                    .nodes
                    .binary_search_by_key(&Some(&node), |node| node.metadata.name.as_ref());
                let present = self.nodes[place.expect("a node")]
                    .metadata
                    .labels
                    .get_or_insert_default();
                present.extend(labels.into_iter().filter_map(|(key, value)| Some((key, value?))));
            }
            Write::PrefetchStatus { name, status, .. } => {
                let mut prefetches = self.prefetches.iter_mut();
                let prefetch = prefetches.find(|prefetch| prefetch.metadata.name.as_ref() == Some(&name));
                prefetch.expect("a Prefetch").status = Some(*status);
            }
            write => unreachable!("nothing asks for {write:?}"),
        }
    }
}

fn prefetch(number: usize, images: &[String]) -> Prefetch {
    let prefetch = json!({
        "apiVersion": "image.stvz.io/v1alpha1",
        "kind": "Prefetch",
        "metadata": {"name": format!("prefetch-{number:02}"), "namespace": "shop", "uid": number.to_string()},
        "spec": {
            "images": images,
            "nodeSelector": {"matchExpressions": [{"key": "pool", "operator": "In", "values": ["general", "gpu"]}]},
            "imagePullSecrets": [{"name": "registry"}],
        },
    });
    serde_json::from_value(prefetch).expect("a Prefetch")
}

fn node(number: usize) -> Node {
    let name = format!("node-{number:05}");
    let labels = json!({
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": name,
        "topology.kubernetes.io/zone": "zone-a",
        "pool": "general",
    });
    let node = json!({
        "metadata": {"name": name, "uid": name, "labels": labels},
        "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    });
    serde_json::from_value(node).expect("a Node")
}

/// Whether an image is on a node.
type IsThere = fn(usize, usize) -> bool;

const SCENES: [(&str, IsThere); 2] = [
    ("at rest", |_, _| true),
    ("in a rollout", |node, image| node % 2 == 0 || image % 3 == 0),
];

fn number(nodes: u32) -> usize {
    usize::try_from(nodes).expect("a number of nodes")
}

/// How long this thread has been on a processor.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("a time since the thread began")
}

fn plans(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plan, time per node");
    group.sample_size(10);
    for (name, is_there) in SCENES {
        for nodes in [100_u32, 1_000, 5_000] {
            let site = Site::new(number(nodes), is_there);
            group.bench_with_input(BenchmarkId::new(name, nodes), &site, |bencher, site| {
                bencher.iter_custom(|times| {
                    let begun = processor_time();
                    for _ in 0..times {
                        black_box(site.plan());
                    }
                    processor_time().saturating_sub(begun) / nodes
                });
            });
        }
        let sites: Vec<Site> = (0..CLUSTERS)
            .map(|_| Site::new(number(SMALL_CLUSTER), is_there))
            .collect();
        let id = BenchmarkId::new(name, format!("{CLUSTERS} × {SMALL_CLUSTER} in turn"));
        group.bench_with_input(id, &sites, |bencher, sites| {
            bencher.iter_custom(|times| {
                let begun = processor_time();
                for _ in 0..times {
                    for site in sites {
                        black_box(site.plan());
                    }
                }
                processor_time().saturating_sub(begun) / (CLUSTERS * SMALL_CLUSTER)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, plans);
criterion_main!(benches);
