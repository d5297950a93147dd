//! From what people want, what the nodes are and what they hold, to the writes that are missing.

mod assignment;
mod gate;
mod labels;
mod removal;
mod silence;
mod status;
mod turns;
mod view;
mod wish;

use std::collections::{BTreeMap, HashMap};

use coral_api::{NodeImages, NodeImagesSpec, Prefetch, PrefetchStatus};
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
    let (catalogue, wishes) = wish::read(&prefetches);
    let mut objects: HashMap<&str, &NodeImages> = cluster
        .node_images
        .iter()
        .filter_map(|object| Some((object.metadata.name.as_deref()?, *object)))
        .collect();
    let mut nodes: Vec<NodeView<'_>> = cluster
        .nodes
        .iter()
        .map(|node| {
            let object = objects.remove(node.metadata.name.as_deref().unwrap_or_default());
            NodeView::new(node, object, &catalogue)
        })
        .collect();
    // A NodeImages object whose node is gone is collected with its owner; this is for one that nobody owns.
    let mut orphans: Vec<&NodeImages> = objects.into_values().collect();
    orphans.sort_by_key(|object| &object.metadata.name);

    let mut requests = Requests::new(&wishes, &catalogue);
    let mut selecting: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    let mut selected: Vec<Vec<usize>> = vec![Vec::new(); wishes.len()];
    for (place, node) in nodes.iter_mut().enumerate() {
        for (number, wish) in wishes.iter().enumerate() {
            if wish.selects(node) {
                requests.want(number, node);
                selecting[place].push(number);
                selected[number].push(place);
            }
        }
    }
    let turns = turns::give(&wishes, &selected, &mut nodes, &memory.turns, limits, now);
    let words = memory.words.listen(&nodes, now);
    let arrivals = memory.arrivals.notice(&nodes, now);

    let mut counts = Counts {
        nodes: nodes.len(),
        pulling_nodes: turns.pulling_nodes,
        waiting_nodes: turns.waiting_nodes,
        ..Counts::default()
    };
    let mut writes = Vec::new();
    for (node, selecting) in nodes.iter().zip(&selecting) {
        let is_silent = words.is_silent(node, now);
        counts.eligible_nodes += usize::from(node.is_eligible);
        counts.gated_nodes += usize::from(gate::is_gated(node));
        counts.silent_nodes += usize::from(is_silent);
        writes.extend(requests.write(node));
        writes.extend(labels::write(node, is_silent, &catalogue));
        let selecting = selecting.iter().map(|&number| &wishes[number]);
        writes.extend(gate::write(node, selecting, &arrivals, limits.gate_timeout, now));
    }
    writes.extend(orphans.into_iter().filter_map(|object| {
        Some(Write::DeleteNodeImages {
            node: object.metadata.name.clone()?,
            uid: object.metadata.uid.clone(),
        })
    }));
    let refusals = status::Refusals::new(&nodes);
    for (wish, selected) in wishes.iter().zip(&selected) {
        writes.extend(status::write(wish, selected, &nodes, &refusals, now));
    }
    Plan {
        writes,
        memory: Memory {
            turns: turns.turns,
            words,
            arrivals,
        },
        counts,
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
