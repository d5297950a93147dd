//! Since when agents have been silent on nodes that are not Ready.
//!
//! An agent has no heartbeat: thousands of them would keep the API server busy with saying nothing. On a node that is Ready the kubelet
//! vouches for the node. On one that is not, nothing vouches for what the status says but that the agent goes on writing it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::view::NodeView;

/// How long an agent may be silent on a node that is not Ready before its word counts no longer.
const SILENCE: SignedDuration = SignedDuration::from_secs(60);

/// What the agents of nodes that are not Ready have last said, by node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Words(BTreeMap<String, Word>);

/// The last that was heard of an agent.
#[derive(Clone, Debug, PartialEq)]
struct Word {
    resource_version: Option<String>,
    generation: Option<i64>,
    heard: Timestamp,
}

impl Words {
    /// Takes in what the agent of a node says now, given what all have said before. A status is written without a new generation, so a
    /// new version of the same generation is the agent's word. Whoever begins to lead hears everybody anew.
    pub(super) fn listen(&mut self, before: &Self, node: &NodeView<'_>, now: Timestamp) {
        let Some(object) = node.object.filter(|_| !node.is_ready) else {
            return;
        };
        let metadata = &object.metadata;
        let has_spoken =
            |word: &&Word| word.resource_version != metadata.resource_version && word.generation == metadata.generation;
        let before = before.0.get(node.name).filter(|word| !has_spoken(word));
        let word = Word {
            resource_version: metadata.resource_version.clone(),
            generation: metadata.generation,
            heard: before.map_or(now, |before| before.heard),
        };
        self.0.insert(node.name.to_owned(), word);
    }

    /// Whether the agent's word counts no longer: its node has not been Ready for a minute, and nothing was heard in that time.
    pub(super) fn is_silent(&self, node: &NodeView<'_>, now: Timestamp) -> bool {
        let Some(word) = self.0.get(node.name) else {
            return false;
        };
        // By the clock of whoever noticed it, so a time to come is taken for now.
        let since = crate::node::ready_transition(node.node).map_or(word.heard, |since| since.min(now));
        !node.is_ready && now.duration_since(since.max(word.heard)) >= SILENCE
    }
}
