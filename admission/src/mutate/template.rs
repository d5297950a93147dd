//! Where the pods of an object are described.

use serde_json::Value;

use super::tree::Tree;

/// A kind of object that runs pods.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// A pod itself.
    Pod,
    /// The oldest of the workloads.
    ReplicationController,
    /// One pod on every node.
    DaemonSet,
    /// Replica sets, one after the other.
    Deployment,
    /// A number of equal pods.
    ReplicaSet,
    /// Pods with names.
    StatefulSet,
    /// Pods that end.
    Job,
    /// Jobs by the clock.
    CronJob,
}

impl Kind {
    /// Every kind that is acted on.
    pub const ALL: [Self; 8] = [
        Self::Pod,
        Self::ReplicationController,
        Self::DaemonSet,
        Self::Deployment,
        Self::ReplicaSet,
        Self::StatefulSet,
        Self::Job,
        Self::CronJob,
    ];

    /// The kind of an object, if it is one that runs pods.
    #[must_use]
    pub fn of(object: &Value) -> Option<Self> {
        let text = |key: &str| object.get(key)?.as_str();
        Self::named(text("apiVersion")?, text("kind")?)
    }

    /// The kind of an object, if it is one that runs pods.
    pub(crate) fn of_tree(object: &Tree<'_>) -> Option<Self> {
        let text = |key: &str| object.get(key)?.as_str();
        Self::named(text("apiVersion")?, text("kind")?)
    }

    fn named(api_version: &str, kind: &str) -> Option<Self> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        Self::ALL
            .into_iter()
            .find(|candidate| candidate.as_str() == kind && candidate.group() == group)
    }

    /// Its name in Kubernetes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::ReplicationController => "ReplicationController",
            Self::DaemonSet => "DaemonSet",
            Self::Deployment => "Deployment",
            Self::ReplicaSet => "ReplicaSet",
            Self::StatefulSet => "StatefulSet",
            Self::Job => "Job",
            Self::CronJob => "CronJob",
        }
    }

    /// Its API group; empty for the core group.
    const fn group(self) -> &'static str {
        match self {
            Self::Pod | Self::ReplicationController => "",
            Self::DaemonSet | Self::Deployment | Self::ReplicaSet | Self::StatefulSet => "apps",
            Self::Job | Self::CronJob => "batch",
        }
    }

    /// Where its pods are described, from the object's root.
    pub(super) const fn spec_path(self) -> &'static [&'static str] {
        match self {
            Self::Pod => &["spec"],
            Self::CronJob => &["spec", "jobTemplate", "spec", "template", "spec"],
            _ => &["spec", "template", "spec"],
        }
    }

    /// Where the annotations are that act later, on the objects that are made from the templates in this one.
    pub(super) const fn template_annotations(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Pod => &[],
            Self::CronJob => &[
                &["spec", "jobTemplate", "metadata", "annotations"],
                &["spec", "jobTemplate", "spec", "template", "metadata", "annotations"],
            ],
            _ => &[&["spec", "template", "metadata", "annotations"]],
        }
    }

    /// Whether what describes the pods can be changed once the object is there.
    #[must_use]
    pub const fn is_mutable(self) -> bool {
        !matches!(self, Self::Pod | Self::Job)
    }
}

/// Whether another object controls this one.
pub(super) fn has_controller(object: &Tree<'_>) -> bool {
    object
        .at(&["metadata", "ownerReferences"])
        .and_then(Tree::as_list)
        .is_some_and(|owners| {
            owners
                .iter()
                .any(|owner| owner.get("controller") == Some(&Tree::Bool(true)))
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kinds_are_known_by_kind_and_group() {
        for (api_version, kind, expected) in [
            ("v1", "Pod", Some(Kind::Pod)),
            ("apps/v1", "Deployment", Some(Kind::Deployment)),
            ("apps/v2", "StatefulSet", Some(Kind::StatefulSet)),
            ("batch/v1", "CronJob", Some(Kind::CronJob)),
            ("v1", "Deployment", None),
            ("example.com/v1", "Job", None),
            ("apps/v1", "Pod", None),
            ("v1", "Service", None),
        ] {
            let object = json!({"apiVersion": api_version, "kind": kind});
            assert_eq!(Kind::of(&object), expected, "{api_version} {kind}");
        }
        for odd in [json!(null), json!([]), json!({"kind": 1, "apiVersion": "v1"})] {
            assert_eq!(Kind::of(&odd), None);
        }
    }
}
