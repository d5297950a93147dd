//! From what people want, what the nodes are and what they hold, to the writes that are missing.

mod assignment;
mod labels;
mod slots;
mod status;
mod wish;

use std::collections::BTreeMap;

use coral_api::{NodeImages, NodeImagesSpec, Prefetch, PrefetchStatus};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;

pub use slots::Slots;
use wish::Wish;

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
    },
    /// Labels of a node, as a merge patch has them: `None` takes a label away.
    NodeLabels {
        /// Name of the node.
        node: String,
        /// The labels that change.
        labels: BTreeMap<String, Option<String>>,
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

/// The writes that the cluster lacks, and the slots as they are now given out. The same input gives the same writes; a cluster that
/// is as it should be gives none.
#[must_use]
pub fn plan(cluster: Cluster<'_>, slots: &Slots, now: Timestamp) -> (Vec<Write>, Slots) {
    let wishes: Vec<Wish<'_>> = cluster.prefetches.iter().map(|prefetch| Wish::new(prefetch)).collect();
    let node_images: BTreeMap<&str, &NodeImages> = cluster
        .node_images
        .iter()
        .filter_map(|object| Some((object.metadata.name.as_deref()?, *object)))
        .collect();
    let nodes: Vec<NodeView<'_>> = cluster
        .nodes
        .iter()
        .map(|node| NodeView::new(node, node_images.get(node.name_any().as_str()).copied()))
        .collect();

    let (assignments, slots) = assignment::assign(&wishes, &nodes, slots, now);
    let mut writes = Vec::new();
    for (node, desired) in nodes.iter().zip(&assignments) {
        writes.extend(assignment::write(node, desired));
        writes.extend(labels::write(node, desired));
    }
    // A NodeImages object whose node is gone is collected with its owner; this is for one that nobody owns.
    let orphans = node_images
        .keys()
        .filter(|name| !nodes.iter().any(|node| node.name == **name));
    writes.extend(orphans.map(|name| Write::DeleteNodeImages {
        node: (*name).to_owned(),
    }));
    for wish in &wishes {
        writes.extend(status::write(wish, &nodes, &assignments, now));
    }
    (writes, slots)
}

/// A node, with what its agent has said.
struct NodeView<'a> {
    name: &'a str,
    node: &'a Node,
    object: Option<&'a NodeImages>,
    is_eligible: bool,
    /// What the agent has said of each image.
    reported: BTreeMap<&'a str, &'a coral_api::node_images::ImageStatus>,
}

impl<'a> NodeView<'a> {
    fn new(node: &'a Node, object: Option<&'a NodeImages>) -> Self {
        let reported = object
            .and_then(|object| object.status.as_ref())
            .iter()
            .flat_map(|status| &status.images)
            .map(|image| (image.image.as_str(), image))
            .collect();
        Self {
            name: node.metadata.name.as_deref().unwrap_or_default(),
            node,
            object,
            is_eligible: crate::node::is_eligible(node),
            reported,
        }
    }

    /// Whether the agent is done with the image: it is there, or its attempts are used up.
    fn is_settled(&self, image: &str) -> bool {
        use coral_api::node_images::ImageState::{Failed, Present};
        self.reported
            .get(image)
            .is_some_and(|status| matches!(status.state, Present | Failed))
    }

    fn holds(&self, image: &str) -> bool {
        use coral_api::node_images::ImageState::Present;
        self.reported.get(image).is_some_and(|status| status.state == Present)
    }
}

#[cfg(test)]
mod tests;
