//! What is known of an installation, and what could not be read. Of nodes only what is looked at is kept: there may be thousands.

pub(crate) mod mirrors;

use std::collections::{BTreeMap, BTreeSet};

use coral_api::{
    ImageReference, NodeImages, Prefetch, keys,
    node_images::{DesiredState, FilesystemUsage, ImageState, RuntimeInfo},
};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, Taint},
    apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector},
};
use kube::ResourceExt as _;
use serde_json::Value;

use self::mirrors::MirrorsFacts;
use super::certificate::Certificate;
use crate::client::RequestError;

/// Conditions of a node under which nothing is pulled, or soon nothing runs.
const PRESSURES: [&str; 3] = ["DiskPressure", "PIDPressure", "MemoryPressure"];

/// Something that could not be read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Unread {
    /// Whoever asks has no right to it.
    pub(crate) is_forbidden: bool,
    /// The API server knows no such type.
    pub(crate) is_unknown_type: bool,
    pub(crate) reason: String,
}

/// Something that was looked at, or could not be.
pub(crate) type Looked<T> = Result<T, Unread>;

impl From<RequestError> for Unread {
    fn from(error: RequestError) -> Self {
        Self {
            is_forbidden: matches!(error, RequestError::Forbidden { .. }),
            is_unknown_type: matches!(error, RequestError::NotInstalled),
            reason: match &error {
                RequestError::Forbidden { message } => missing_right(message).unwrap_or_else(|| message.clone()),
                other => other.to_string(),
            },
        }
    }
}

/// The short form of the API server's `… is forbidden: User "eve" cannot list resource "pods" in API group "" in the namespace "shop"`.
fn missing_right(message: &str) -> Option<String> {
    let (_, rest) = message.split_once(" is forbidden: User ")?;
    let (_, rest) = rest.split_once(" cannot ")?;
    let (verb, rest) = rest.split_once(" resource ")?;
    let mut quoted = rest.split('"').skip(1).step_by(2);
    let (resource, group) = (quoted.next()?, quoted.next()?);
    let dot = if group.is_empty() { "" } else { "." };
    Some(match quoted.next() {
        Some(namespace) => format!("you may not {verb} {resource}{dot}{group} in namespace {namespace}"),
        None => format!("you may not {verb} {resource}{dot}{group}"),
    })
}

/// Everything that is known.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) now: Timestamp,
    /// The version of this command, as the parts have theirs in a label.
    pub(crate) client_version: String,
    /// `v1.36.3`
    pub(crate) server_version: Looked<String>,
    /// Whether the binding of the agents' role, which says where Coral is, is there.
    pub(crate) is_bound: Looked<bool>,
    /// Where Coral is, or would be.
    pub(crate) namespace: String,
    /// Resource types that this command has, each with what the server has.
    pub(crate) types: Vec<ResourceType>,
    /// The `DaemonSet` and the Deployments.
    pub(crate) parts: Looked<Vec<Value>>,
    pub(crate) pods: Looked<Vec<PodFacts>>,
    pub(crate) lease: Looked<Option<LeaseFacts>>,
    pub(crate) webhook: WebhookFacts,
    pub(crate) nodes: Looked<Vec<NodeFacts>>,
    pub(crate) reports: Looked<BTreeMap<String, Report>>,
    pub(crate) prefetches: Looked<Vec<PrefetchFacts>>,
    pub(crate) mirrors: MirrorsFacts,
    pub(crate) kubelets: Kubelets,
    pub(crate) access: AccessFacts,
}

/// One `CustomResourceDefinition`.
#[derive(Clone, Debug)]
pub(crate) struct ResourceType {
    pub(crate) name: String,
    pub(crate) expected: Value,
    pub(crate) found: Looked<Option<Value>>,
}

/// A Pod of Coral's.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodFacts {
    pub(crate) name: String,
    /// `app.kubernetes.io/name`
    pub(crate) part: String,
    /// The node that it is on, or, for one of the DaemonSet that is not scheduled yet, is made for.
    pub(crate) node: Option<String>,
    pub(crate) is_ready: bool,
    pub(crate) is_terminating: bool,
    /// What keeps it from running: a reason and a sentence.
    pub(crate) trouble: Option<(String, String)>,
    pub(crate) created: Option<Timestamp>,
    /// Restarts of its containers, and why the last one ended.
    pub(crate) restarts: i64,
    pub(crate) last_end: Option<(String, Timestamp)>,
    /// Digests of the images that it runs.
    pub(crate) image_ids: Vec<String>,
}

/// A Lease of controllers.
#[derive(Clone, Debug, Default)]
pub(crate) struct LeaseFacts {
    pub(crate) holder: Option<String>,
    /// Whether it was renewed while it was looked at. `None` where it had been just before, so that nobody waited for that.
    pub(crate) moved: Option<bool>,
}

/// What is between the API server and the webhook.
#[derive(Clone, Debug)]
pub(crate) struct WebhookFacts {
    pub(crate) configuration: Looked<Option<Value>>,
    /// Ready addresses of its Service.
    pub(crate) endpoints: Looked<usize>,
    pub(crate) secret: Looked<Option<WebhookSecret>>,
    pub(crate) trial: Looked<Trial>,
}

/// The certificates of the webhook, without their keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct WebhookSecret {
    pub(crate) serving: Option<Certificate>,
    pub(crate) authority: Option<Certificate>,
}

/// What became of a Pod with Coral's annotation that was created only for show.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Trial {
    pub(crate) namespace: String,
    pub(crate) is_changed: bool,
}

/// A node.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeFacts {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) taints: Vec<Taint>,
    pub(crate) is_linux: bool,
    pub(crate) is_ready: bool,
    pub(crate) pressures: Vec<&'static str>,
    pub(crate) created: Option<Timestamp>,
    pub(crate) kubelet_version: String,
    pub(crate) os_image: String,
}

/// What is asked of a node's agent, and what it says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// Images that are wanted there.
    pub(crate) wanted: usize,
    pub(crate) generation: Option<i64>,
    pub(crate) observed: Option<i64>,
    /// When the controller last changed what it asks for.
    pub(crate) asked: Option<Timestamp>,
    pub(crate) runtime: Option<RuntimeInfo>,
    pub(crate) filesystem: Option<FilesystemUsage>,
    pub(crate) conditions: Vec<Condition>,
    /// Label keys of the images that are there, or were when a pull of them began anew.
    pub(crate) labels: BTreeSet<String>,
}

/// A Prefetch.
#[derive(Clone, Debug, Default)]
pub(crate) struct PrefetchFacts {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) selector: Option<LabelSelector>,
    pub(crate) pull_secrets: Vec<String>,
    pub(crate) created: Option<Timestamp>,
    pub(crate) conditions: Vec<Condition>,
}

/// The kubelets that were asked for their settings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kubelets {
    /// Nodes that could have been asked.
    pub(crate) of: usize,
    pub(crate) asked: BTreeMap<String, Looked<Value>>,
}

/// A right on one kind of object.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Right {
    pub(crate) verb: String,
    pub(crate) group: String,
    pub(crate) resource: String,
    /// Where the resource has parts: `status`.
    pub(crate) subresource: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
}

/// Who may do what.
#[derive(Clone, Debug, Default)]
pub(crate) struct AccessFacts {
    /// What this command needs, and for which verb of it.
    pub(crate) own: Vec<(Right, &'static str, Looked<bool>)>,
    /// What the service accounts of the parts need.
    pub(crate) accounts: Vec<(String, Right, Looked<bool>)>,
    /// Pull secrets that Prefetches name.
    pub(crate) grants: Vec<Grant>,
    /// Pull secrets that were not looked at, because there are so many.
    pub(crate) grants_left_out: usize,
}

/// A pull secret that Prefetches name.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) namespace: String,
    pub(crate) secret: String,
    /// One of the Prefetches that name it.
    pub(crate) prefetch: String,
    pub(crate) is_granted: Looked<bool>,
    /// `None` where one may not know.
    pub(crate) exists: Option<bool>,
}

impl NodeFacts {
    pub(crate) fn of(node: Node) -> Self {
        let name = node.name_any();
        let created = node.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let status = node.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let has = |kind: &str| {
            conditions
                .iter()
                .any(|condition| condition.type_ == kind && condition.status == "True")
        };
        let system = status.node_info.unwrap_or_default();
        let labels = node.metadata.labels.unwrap_or_default();
        Self {
            name,
            is_linux: labels.get("kubernetes.io/os").is_some_and(|os| os == "linux"),
            labels,
            taints: node.spec.unwrap_or_default().taints.unwrap_or_default(),
            is_ready: has("Ready"),
            pressures: PRESSURES.into_iter().filter(|pressure| has(pressure)).collect(),
            created,
            kubelet_version: system.kubelet_version,
            os_image: system.os_image,
        }
    }
}

impl Report {
    pub(crate) fn of(node: &NodeImages) -> Self {
        let managers = node.metadata.managed_fields.iter().flatten();
        let asked = managers
            .filter(|entry| {
                entry.manager.as_deref() == Some(keys::CONTROLLER_FIELD_MANAGER) && entry.subresource.is_none()
            })
            .filter_map(|entry| entry.time.as_ref())
            .map(|time| time.0)
            .max();
        let wanted = node.spec.images.iter();
        let status = node.status.clone().unwrap_or_default();
        // While a moving tag is resolved again the image stays, and so does its label.
        let there = status.images.iter().filter(|image| {
            image.state == ImageState::Present || image.last_pull_time.is_some() || image.digest.is_some()
        });
        Self {
            wanted: wanted.filter(|image| image.state != DesiredState::Absent).count(),
            generation: node.metadata.generation,
            observed: status.observed_generation,
            asked,
            runtime: status.runtime.clone(),
            filesystem: status.image_filesystem,
            labels: there
                .filter_map(|image| Some(image.image.parse::<ImageReference>().ok()?.label_key()))
                .collect(),
            conditions: status.conditions,
        }
    }

    /// Whether the agent says what became of what it was last asked for.
    pub(crate) fn is_current(&self) -> bool {
        self.generation.is_none() || self.observed >= self.generation
    }
}

impl PrefetchFacts {
    pub(crate) fn of(prefetch: Prefetch) -> Self {
        Self {
            namespace: prefetch.namespace().unwrap_or_default(),
            name: prefetch.name_any(),
            created: prefetch.metadata.creation_timestamp.as_ref().map(|time| time.0),
            selector: prefetch.spec.node_selector,
            pull_secrets: prefetch
                .spec
                .image_pull_secrets
                .into_iter()
                .map(|secret| secret.name)
                .collect(),
            conditions: prefetch.status.map(|status| status.conditions).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_right_that_is_missing() {
        for (message, expected) in [
            (
                r#"daemonsets.apps is forbidden: User "eve" cannot list resource "daemonsets" in API group "apps" in the namespace "shop""#,
                "you may not list daemonsets.apps in namespace shop",
            ),
            (
                r#"nodes "a" is forbidden: User "eve" cannot get resource "nodes/proxy" in API group "" at the cluster scope"#,
                "you may not get nodes/proxy",
            ),
            (
                "pods \"x\" is forbidden: exceeded quota: small",
                "pods \"x\" is forbidden: exceeded quota: small",
            ),
        ] {
            let unread = Unread::from(RequestError::Forbidden {
                message: message.to_owned(),
            });
            assert_eq!((unread.reason.as_str(), unread.is_forbidden), (expected, true));
        }
    }
}
