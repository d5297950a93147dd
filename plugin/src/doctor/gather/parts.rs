//! The DaemonSet, the Deployments and their pods.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::{Api, Client, ResourceExt as _, api::DynamicObject};
use serde_json::{Value, json};

use super::value;
use crate::{
    apply,
    client::Cluster,
    doctor::facts::{Looked, PodFacts, Unread},
    installation, manifests, rollout,
};

/// The `DaemonSet` and the Deployments of Coral.
pub(super) async fn parts(cluster: &Cluster, namespace: &str) -> Looked<Vec<Value>> {
    let selector = format!("{}={}", installation::PART_OF.0, installation::PART_OF.1);
    let mut parts = Vec::new();
    for kind in ["DaemonSet", "Deployment"] {
        let (resource, _) = manifests::resource(&json!({"apiVersion": "apps/v1", "kind": kind}));
        let api = |client: Client| apply::api(client, &resource, Some(namespace));
        let mut found: Vec<DynamicObject> = Vec::new();
        cluster
            .list_selected(api, Some(&selector), |part| found.push(part))
            .await?;
        for part in &found {
            parts.push(value(part, &resource)?);
        }
    }
    Ok(parts)
}

/// The pods of Coral.
pub(super) async fn pods(cluster: &Cluster, namespace: &str) -> Looked<Vec<PodFacts>> {
    let api = |client: Client| Api::<Pod>::namespaced(client, namespace);
    let mut pods = Vec::new();
    let each = |pod: Pod| pods.extend(facts(&pod));
    cluster
        .list_selected(api, Some("app.kubernetes.io/name"), each)
        .await
        .map_err(Unread::from)?;
    Ok(pods)
}

/// What is looked at of a Pod, if it is of a part.
fn facts(pod: &Pod) -> Option<PodFacts> {
    let part = pod.labels().get("app.kubernetes.io/name")?.clone();
    let status = pod.status.clone().unwrap_or_default();
    let conditions = status.conditions.iter().flatten();
    let containers = status.container_statuses.unwrap_or_default();
    let value = serde_json::to_value(pod).unwrap_or_default();
    let mut ends: Vec<(String, Timestamp)> = containers.iter().filter_map(last_end).collect();
    ends.sort_by_key(|(_, ended)| *ended);
    Some(PodFacts {
        name: pod.name_any(),
        part,
        node: node(pod),
        is_ready: conditions
            .clone()
            .any(|one| one.type_ == "Ready" && one.status == "True"),
        is_terminating: pod.metadata.deletion_timestamp.is_some(),
        trouble: rollout::trouble(&value),
        created: pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
        restarts: containers
            .iter()
            .map(|container| i64::from(container.restart_count))
            .sum(),
        last_end: ends.pop(),
        image_ids: containers
            .iter()
            .map(|container| container.image_id.clone())
            .filter(|id| !id.is_empty())
            .collect(),
    })
}

fn last_end(container: &ContainerStatus) -> Option<(String, Timestamp)> {
    let ended = container.last_state.as_ref()?.terminated.as_ref()?;
    let reason = ended
        .reason
        .clone()
        .unwrap_or_else(|| format!("exit code {}", ended.exit_code));
    Some((reason, ended.finished_at.as_ref()?.0))
}

/// The node of a Pod; for one of a DaemonSet that is not scheduled yet, the one that it can go to.
fn node(pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    if let Some(node) = &spec.node_name {
        return Some(node.clone());
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let mut fields = required
        .node_selector_terms
        .iter()
        .flat_map(|term| term.match_fields.iter().flatten());
    let field = fields.find(|field| field.key == "metadata.name")?;
    field.values.as_ref()?.first().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(value: Value) -> PodFacts {
        facts(&serde_json::from_value(value).unwrap()).unwrap()
    }

    #[test]
    fn a_pod_of_the_daemon_set_is_of_its_node_before_it_is_scheduled() {
        let labels = json!({"app.kubernetes.io/name": "coral-agent"});
        let waiting = pod(json!({
            "metadata": {"name": "coral-agent-x", "labels": labels},
            "spec": {"containers": [], "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-1"]}]}]}}}},
            "status": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no room"}]},
        }));
        assert_eq!(waiting.node.as_deref(), Some("node-1"));
        assert_eq!(
            waiting.trouble,
            Some(("Unschedulable".to_owned(), "no room".to_owned()))
        );
        assert!(!waiting.is_ready);
    }

    #[test]
    fn a_pod_that_was_started_again_says_why() {
        let container = |restarts: i32, reason: &str, at: &str| {
            json!({"name": "agent", "image": "coral", "imageID": "coral@sha256:1", "ready": true, "restartCount": restarts,
                "lastState": {"terminated": {"exitCode": 137, "reason": reason, "finishedAt": at}}})
        };
        let labels = json!({"app.kubernetes.io/name": "coral-agent"});
        let unwell = pod(json!({
            "metadata": {"name": "a", "labels": labels},
            "spec": {"nodeName": "node-1", "containers": []},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [
                    container(4, "OOMKilled", "2026-01-01T01:00:00Z"),
                    container(1, "Error", "2026-01-01T00:00:00Z"),
                ],
            },
        }));
        assert!(unwell.is_ready);
        assert_eq!(unwell.restarts, 5);
        assert_eq!(unwell.last_end.unwrap().0, "OOMKilled");
        assert_eq!(unwell.image_ids.len(), 2);
    }
}
