//! When a new node loses its startup taint.
//!
//! The taint goes when every Prefetch with `gate: true` that selects the node has all its images there, and after a while in any
//! case: a registry that is down must not leave a cluster without nodes. The while begins when the node became Ready, which stands
//! in the node's own condition, so a new leader does not begin it anew. Before that the node would run nothing anyway. The condition has the
//! time of the node's clock, which may be wrong: it is held between the creation of the Node and the moment at which the controller
//! first saw it Ready.
//!
//! A Prefetch that is suspended, or done once, holds no node. One that gates has no larger budget than others; its nodes get their turns
//! in the order of the priorities.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{Wish, Write, view::NodeView};

/// Why a node loses its startup taint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum GateOutcome {
    /// Everything that it waited for is there.
    Ready,
    /// It has waited for long enough.
    TimedOut {
        /// What is not there.
        missing: Vec<GateMissing>,
    },
    /// No Prefetch with `gate: true` selects it.
    NothingToWaitFor,
}

/// What a Prefetch lacks on a node whose time to wait is over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GateMissing {
    /// The Prefetch, as `namespace/name`.
    pub prefetch: String,
    /// The images, as the Prefetch names them.
    pub images: Vec<String>,
}

/// When nodes with the startup taint were first seen Ready, by node and its UID.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Arrivals(BTreeMap<(String, String), Timestamp>);

impl Arrivals {
    /// Takes in whether a node waits now, given which have waited before.
    pub(super) fn notice(&mut self, before: &Self, node: &NodeView<'_>, now: Timestamp) {
        if !node.is_ready || !is_gated(node) {
            return;
        }
        if let Some(key) = key(node) {
            let first = before.0.get(&key).copied().unwrap_or(now);
            self.0.insert(key, first);
        }
    }

    /// Since when a node that is Ready has waited.
    fn since(&self, node: &NodeView<'_>, now: Timestamp) -> Timestamp {
        let seen = key(node).and_then(|key| self.0.get(&key).copied()).unwrap_or(now);
        let ready = crate::node::ready_transition(node.node).unwrap_or(seen);
        let created = node.node.metadata.creation_timestamp.as_ref().map(|time| time.0);
        created.map_or(ready, |created| ready.max(created)).min(seen)
    }
}

fn key(node: &NodeView<'_>) -> Option<(String, String)> {
    Some((node.name.to_owned(), node.node.metadata.uid.clone()?))
}

/// Whether the node has the startup taint.
pub(super) fn is_gated(node: &NodeView<'_>) -> bool {
    !crate::node::startup_taints(node.node).is_empty()
}

/// The write that takes the startup taint off the node, if it is time. `selecting` are the Prefetches that select it.
pub(super) fn write<'a>(
    node: &NodeView<'_>,
    selecting: impl Iterator<Item = &'a Wish<'a>>,
    arrivals: &Arrivals,
    timeout: SignedDuration,
    now: Timestamp,
) -> Option<Write> {
    let taints = crate::node::startup_taints(node.node);
    // A node that is not Ready runs nothing with or without the taint, and its labels may not be complete.
    if taints.is_empty() || !node.is_ready {
        return None;
    }
    let waited = now.duration_since(arrivals.since(node, now));
    let is_time_over = waited >= timeout;
    let gates: Vec<&Wish<'_>> = selecting
        .filter(|wish| wish.prefetch.spec.gate && !wish.is_at_rest())
        .collect();
    let missing: Vec<GateMissing> = gates.iter().filter_map(|wish| missing(wish, node)).collect();
    let outcome = if gates.is_empty() {
        // Labels that are still to come may make a Prefetch select it.
        if crate::node::is_registering(node.node) && !is_time_over {
            return None;
        }
        GateOutcome::NothingToWaitFor
    } else if missing.is_empty() {
        GateOutcome::Ready
    } else if is_time_over {
        GateOutcome::TimedOut { missing }
    } else {
        return None;
    };
    Some(Write::RemoveStartupTaint {
        node: node.name.to_owned(),
        node_uid: node.node.metadata.uid.clone()?,
        taints,
        prefetches: gates.iter().map(|wish| wish.key.clone()).collect(),
        outcome,
        waited,
    })
}

/// What the Prefetch lacks on the node. An entry that is no image reference never comes, so nobody waits for it.
fn missing(wish: &Wish<'_>, node: &NodeView<'_>) -> Option<GateMissing> {
    let images = wish.images.iter().filter(|image| !node.holds(image.number));
    let images: Vec<String> = images.map(|image| image.spelling.to_owned()).collect();
    (!images.is_empty()).then(|| GateMissing {
        prefetch: wish.key.clone(),
        images,
    })
}
