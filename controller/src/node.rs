//! What the controller needs to know of a node.

use coral_api::{keys, node_images::PauseReason};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use kube::ResourceExt as _;

/// Taints by which an autoscaler says that it takes the node away.
const DISRUPTION_TAINTS: &[&str] = &[
    "ToBeDeletedByClusterAutoscaler",
    "DeletionCandidateOfClusterAutoscaler",
    "karpenter.sh/disrupted",
    "karpenter.sh/disruption",
    "karpenter.sh/unregistered",
];

/// Taints that a node has until it is registered fully.
const REGISTRATION_TAINTS: &[&str] = &[
    "node.cloudprovider.kubernetes.io/uninitialized",
    "karpenter.sh/unregistered",
];

/// Whether the node runs Linux. Until its kubelet has registered fully, nobody knows.
#[must_use]
pub fn is_linux(node: &Node) -> bool {
    node.labels().get("kubernetes.io/os").is_some_and(|os| os == "linux")
}

/// Whether the node may be asked for images that it was not asked for before: Linux, Ready, not cordoned, not being deleted, and
/// not about to be taken away by an autoscaler.
#[must_use]
pub fn is_eligible(node: &Node) -> bool {
    is_linux(node)
        && node.metadata.deletion_timestamp.is_none()
        && is_ready(node)
        && !is_cordoned(node)
        && !is_leaving(node)
}

/// Whether the node's kubelet says that it can run pods.
#[must_use]
pub fn is_ready(node: &Node) -> bool {
    has_condition(node, "Ready")
}

/// Since when the node has been Ready, or not Ready, by the clock of whoever said so.
#[must_use]
pub fn ready_transition(node: &Node) -> Option<Timestamp> {
    let ready = conditions(node).find(|condition| condition.type_ == "Ready")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// Where in `spec.taints` the startup taint stands; once for each effect.
#[must_use]
pub fn startup_taints(node: &Node) -> Vec<usize> {
    let taints = taints(node).enumerate();
    taints
        .filter(|(_, taint)| taint.key == keys::STARTUP_TAINT)
        .map(|(place, _)| place)
        .collect()
}

/// Whether the node's labels may not be complete yet: a cloud's controller or Karpenter is still to add its own.
#[must_use]
pub fn is_registering(node: &Node) -> bool {
    taints(node).any(|taint| REGISTRATION_TAINTS.contains(&taint.key.as_str()))
}

/// Why the node's agent is to pull nothing for now.
#[must_use]
pub fn pause_reason(node: &Node) -> Option<PauseReason> {
    if has_condition(node, "DiskPressure") {
        Some(PauseReason::DiskPressure)
    } else if has_condition(node, "PIDPressure") {
        Some(PauseReason::PIDPressure)
    } else if is_cordoned(node) {
        Some(PauseReason::Cordoned)
    } else {
        None
    }
}

/// Takes away what the controller does not look at: on large clusters that is most of the memory, and what changes most often.
pub fn prune(node: &mut Node) {
    node.metadata.managed_fields = None;
    node.metadata.annotations = None;
    if let Some(spec) = node.spec.take() {
        node.spec = Some(k8s_openapi::api::core::v1::NodeSpec {
            taints: spec.taints,
            unschedulable: spec.unschedulable,
            ..Default::default()
        });
    }
    if let Some(status) = node.status.take() {
        let mut conditions = status.conditions.unwrap_or_default();
        conditions.retain(|condition| matches!(condition.type_.as_str(), "Ready" | "DiskPressure" | "PIDPressure"));
        for condition in &mut conditions {
            condition.last_heartbeat_time = None;
            condition.message = None;
            condition.reason = None;
        }
        conditions.shrink_to_fit();
        node.status = Some(k8s_openapi::api::core::v1::NodeStatus {
            conditions: Some(conditions),
            ..Default::default()
        });
    }
}

fn has_condition(node: &Node, kind: &str) -> bool {
    conditions(node).any(|condition| condition.type_ == kind && condition.status == "True")
}

fn conditions(node: &Node) -> impl Iterator<Item = &NodeCondition> {
    node.status.iter().flat_map(|status| status.conditions.iter().flatten())
}

fn taints(node: &Node) -> impl Iterator<Item = &Taint> {
    node.spec.iter().flat_map(|spec| spec.taints.iter().flatten())
}

fn is_cordoned(node: &Node) -> bool {
    node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true)
}

fn is_leaving(node: &Node) -> bool {
    taints(node).any(|taint| DISRUPTION_TAINTS.contains(&taint.key.as_str()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(change: impl FnOnce(&mut Value)) -> Node {
        let mut node = json!({
            "metadata": {"name": "node-1", "labels": {"kubernetes.io/os": "linux"}},
            "spec": {},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        change(&mut node);
        serde_json::from_value(node).unwrap()
    }

    /// What a case is called, how it differs from a good node, and whether it is eligible.
    type Case = (&'static str, fn(&mut Value), bool);

    #[test]
    fn eligible_is_linux_ready_and_here_to_stay() {
        let cases: [Case; 7] = [
            ("as it should be", |_| (), true),
            (
                "Windows",
                |node| node["metadata"]["labels"]["kubernetes.io/os"] = json!("windows"),
                false,
            ),
            (
                "not yet registered",
                |node| node["metadata"]["labels"] = json!({}),
                false,
            ),
            (
                "NotReady",
                |node| node["status"]["conditions"][0]["status"] = json!("Unknown"),
                false,
            ),
            ("cordoned", |node| node["spec"]["unschedulable"] = json!(true), false),
            (
                "leaving",
                |node| node["spec"]["taints"] = json!([{"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}]),
                false,
            ),
            (
                "being deleted",
                |node| node["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"),
                false,
            ),
        ];
        for (name, change, expected) in cases {
            assert_eq!(is_eligible(&node(change)), expected, "{name}");
        }
    }

    #[test]
    fn pressure_and_cordon_pause() {
        let with_pressure = |kind: &str| {
            node(|node| {
                node["status"]["conditions"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!({"type": kind, "status": "True"}));
            })
        };
        assert_eq!(pause_reason(&node(|_| ())), None);
        assert_eq!(
            pause_reason(&with_pressure("DiskPressure")),
            Some(PauseReason::DiskPressure)
        );
        assert_eq!(
            pause_reason(&with_pressure("PIDPressure")),
            Some(PauseReason::PIDPressure)
        );
        let cordoned = node(|node| node["spec"]["unschedulable"] = json!(true));
        assert_eq!(pause_reason(&cordoned), Some(PauseReason::Cordoned));
    }

    #[test]
    fn pruning_keeps_what_decides() {
        let mut pruned = node(|node| node["status"]["images"] = json!([{"names": ["a"]}]));
        prune(&mut pruned);
        assert!(is_eligible(&pruned));
        assert!(pruned.status.unwrap().images.is_none());
    }
}
