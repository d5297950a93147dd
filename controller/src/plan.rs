//! From what people want, what the nodes are and what they hold, to the writes that are missing.

mod assignment;
mod copies;
mod gate;
mod labels;
mod removal;
mod silence;
mod status;
mod turns;
mod view;
mod wish;

use std::collections::{BTreeMap, HashMap};

use coral_api::{MirroredImage, NodeImages, NodeImagesSpec, Prefetch, PrefetchStatus};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;

use assignment::Requests;
pub use gate::{GateMissing, GateOutcome};
use view::NodeView;
use wish::Wish;

/// Bounds over the whole cluster.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most nodes that pull at the same time, whichever Prefetch they pull for. None means that only `parallelism` bounds them.
    pub max_pulling_nodes: Option<usize>,
    /// How long a node keeps its startup taint, at most, after it has become Ready.
    pub gate_timeout: SignedDuration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_pulling_nodes: None,
            gate_timeout: SignedDuration::from_mins(5),
        }
    }
}

/// What the plan cannot read from the cluster and so takes from one plan to the next. Whoever begins to lead begins without.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    turns: turns::Turns,
    words: silence::Words,
    arrivals: gate::Arrivals,
    checked: assignment::Checked,
}

/// What is to be done, and what is to be known of it the next time.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The writes that the cluster lacks.
    pub writes: Vec<Write>,
    /// What the next plan is to be given.
    pub memory: Memory,
    /// The nodes, counted.
    pub counts: Counts,
}

/// The nodes, counted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Every node.
    pub nodes: usize,
    /// Nodes that may be asked for images that they were not asked for before.
    pub eligible_nodes: usize,
    /// Nodes that count against a budget: they hold a turn, or a pull that was begun in one goes on.
    pub pulling_nodes: usize,
    /// Nodes that wait for a turn.
    pub waiting_nodes: usize,
    /// Nodes that have the startup taint.
    pub gated_nodes: usize,
    /// Nodes that are not Ready and whose agent has been silent for so long that their labels are taken away.
    pub silent_nodes: usize,
}

/// Everything that the plan looks at.
#[derive(Clone, Copy, Debug)]
pub struct Cluster<'a> {
    /// Every Prefetch.
    pub prefetches: &'a [&'a Prefetch],
    /// Every Node.
    pub nodes: &'a [&'a Node],
    /// Every NodeImages object.
    pub node_images: &'a [&'a NodeImages],
    /// Every `MirroredImage`: a copy that pods are sent to is what nodes are to hold.
    pub mirrored_images: &'a [&'a MirroredImage],
}

/// A change that the cluster lacks.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// The spec of a node's NodeImages object, which is made if need be.
    NodeImages {
        /// Name of the node.
        node: String,
        /// UID of the node, which owns the object.
        node_uid: String,
        /// What the node is to hold.
        spec: NodeImagesSpec,
    },
    /// Nobody wants anything of the node any more, or the node is gone.
    DeleteNodeImages {
        /// Name of the node.
        node: String,
        /// UID of the object, so that a new one of the same name is safe.
        uid: Option<String>,
    },
    /// Labels of a node, as a merge patch has them: `None` takes a label away.
    NodeLabels {
        /// Name of the node.
        node: String,
        /// The labels that change.
        labels: BTreeMap<String, Option<String>>,
    },
    /// The startup taint of a node is to go.
    RemoveStartupTaint {
        /// Name of the node.
        node: String,
        /// UID of the node, so that a new one of the same name is safe.
        node_uid: String,
        /// Where the taint stands in `spec.taints`, in ascending order; once for each effect.
        taints: Vec<usize>,
        /// The Prefetches that the node waited for, as `namespace/name`.
        prefetches: Vec<String>,
        /// Why it goes.
        outcome: GateOutcome,
        /// How long the node has waited since it became Ready.
        waited: SignedDuration,
    },
    /// The status of a Prefetch.
    PrefetchStatus {
        /// Namespace of the Prefetch.
        namespace: String,
        /// Name of the Prefetch.
        name: String,
        /// How far it is.
        status: Box<PrefetchStatus>,
    },
    /// A finished Prefetch whose time is up.
    DeletePrefetch {
        /// Namespace of the Prefetch.
        namespace: String,
        /// Name of the Prefetch.
        name: String,
        /// UID of the Prefetch, so that a new one of the same name is safe.
        uid: String,
    },
}

/// The writes that the cluster lacks, and whose turn it is now. The same input gives the same writes; a cluster that
/// is as it should be gives none.
#[must_use]
pub fn plan(cluster: Cluster<'_>, memory: &Memory, limits: &Limits, now: Timestamp) -> Plan {
    let mut prefetches = cluster.prefetches.to_vec();
    prefetches
        .sort_by(|a, b| (&a.metadata.namespace, &a.metadata.name).cmp(&(&b.metadata.namespace, &b.metadata.name)));
    let (catalogue, wishes) = wish::read(&prefetches, copies::read(cluster.mirrored_images));
    let mut objects: HashMap<&str, &NodeImages> = cluster
        .node_images
        .iter()
        .filter_map(|object| Some((object.metadata.name.as_deref()?, *object)))
        .collect();
    let mut requests = Requests::new(&wishes, &catalogue, &memory.checked);
    let mut nodes: Vec<NodeView<'_>> = Vec::with_capacity(cluster.nodes.len());
    let mut selecting: Vec<Vec<usize>> = Vec::with_capacity(cluster.nodes.len());
    let (mut words, mut arrivals) = (silence::Words::default(), gate::Arrivals::default());
    let mut counts = Counts::default();
    let mut writes = Vec::new();
    // Everything that takes no turn. The objects of thousands of nodes are in no processor's cache: each is read here, and hardly again.
    for node in cluster.nodes {
        let object = objects.remove(node.metadata.name.as_deref().unwrap_or_default());
        let mut node = NodeView::new(node, object, &catalogue);
        let mut selecting_it = Vec::new();
        for (number, wish) in wishes.iter().enumerate() {
            if wish.selects(&node) {
                requests.want(number, &mut node);
                selecting_it.push(number);
            }
        }
        node.asks_the_same = requests.are_kept_by(&node);
        words.listen(&memory.words, &node, now);
        arrivals.notice(&memory.arrivals, &node, now);
        let is_silent = words.is_silent(&node, now);
        counts.nodes += 1;
        counts.eligible_nodes += usize::from(node.is_eligible);
        counts.gated_nodes += usize::from(gate::is_gated(&node));
        counts.silent_nodes += usize::from(is_silent);
        writes.extend(labels::write(&node, is_silent, &catalogue));
        let gates = selecting_it.iter().map(|&number| &wishes[number]);
        writes.extend(gate::write(&node, gates, &arrivals, limits.gate_timeout, now));
        nodes.push(node);
        selecting.push(selecting_it);
    }
    // A NodeImages object whose node is gone is collected with its owner; this is for one that nobody owns.
    let mut orphans: Vec<&NodeImages> = objects.into_values().collect();
    orphans.sort_by_key(|object| &object.metadata.name);

    let turns = turns::give(&wishes, &selecting, &mut nodes, &memory.turns, limits, now);
    counts.pulling_nodes = turns.pulling_nodes;
    counts.waiting_nodes = turns.waiting_nodes;
    // By the time that they come up, the turns of these nodes may have come, too: that is one write less for the node, and one for its agent.
    let mut may_wait = Vec::new();
    let mut surveys: Vec<status::Survey<'_>> = wishes.iter().map(status::Survey::new).collect();
    let mut refusals = status::Refusals::default();
    for (node, selecting) in nodes.iter().zip(&selecting) {
        if let Some(write) = requests.write(node) {
            let waits = assignment::only_waits(node);
            let due = if waits { &mut may_wait } else { &mut writes };
            due.push(write);
        }
        for &number in selecting {
            surveys[number].look_at(node);
        }
        refusals.look_at(node);
    }
    writes.append(&mut may_wait);
    writes.extend(orphans.into_iter().filter_map(|object| {
        Some(Write::DeleteNodeImages {
            node: object.metadata.name.clone()?,
            uid: object.metadata.uid.clone(),
        })
    }));
    let surveys = surveys.into_iter();
    writes.extend(surveys.filter_map(|survey| status::write(survey, &refusals, now)));
    Plan {
        writes,
        memory: Memory {
            turns: turns.turns,
            words,
            arrivals,
            checked: requests.checked,
        },
        counts,
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
