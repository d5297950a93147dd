//! What Coral injected, as it is written on the object, so that it can be undone exactly.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::tree::Tree;

/// The value of the annotation `image.stvz.io/injected`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Record<'a> {
    /// Keys that were added to the node selector.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) node_selector: BTreeSet<Cow<'a, str>>,
    /// Keys of the labels that preferred node affinity was added for.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) node_affinity: BTreeSet<Cow<'a, str>>,
    /// What was set, by the name of the container.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) pull_policy: BTreeMap<Cow<'a, str>, PullPolicy<'a>>,
    /// Maps and lists that were not there before.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) made: BTreeMap<String, Before>,
}

/// The pull policy of a container.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct PullPolicy<'a> {
    /// What Coral set.
    pub(super) set: Cow<'a, str>,
    /// What stood there; absent when nothing did.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some")]
    pub(super) before: Option<Tree<'a>>,
}

/// What stood in the place of something that was made.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Before {
    Absent,
    Null,
}

impl Record<'_> {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Both, where they speak of different things; `self` where they speak of the same.
    ///
    /// An update can come with an old record (a manifest that was exported once) or with none (a client that writes all annotations anew).
    /// What the record of the stored object says is Coral's is Coral's still.
    pub(super) fn merged(mut self, stored: Self) -> Self {
        if self.is_empty() {
            return stored;
        }
        self.node_selector.extend(stored.node_selector);
        self.node_affinity.extend(stored.node_affinity);
        self
    }
}

/// `null` is a value, too.
fn some<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Tree<'static>>, D::Error> {
    Value::deserialize(deserializer).map(|value| Some(value.into()))
}
