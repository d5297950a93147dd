//! Whether the in-cluster parts run, and what keeps them from it.

use serde_json::Value;

/// How far an object is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Stage {
    Ready,
    /// What is missing.
    Waiting(String),
}

/// How far a Deployment, a `StatefulSet`, a `DaemonSet` or a `CustomResourceDefinition` is; anything else is ready when it is there.
pub(crate) fn stage(object: &Value) -> Stage {
    match object["kind"].as_str() {
        Some("CustomResourceDefinition") => established(object),
        Some("Deployment" | "DaemonSet" | "StatefulSet") if is_unseen(object) => {
            Stage::Waiting("waits for Kubernetes to take it up".to_owned())
        }
        Some("Deployment" | "StatefulSet") => deployment(object),
        Some("DaemonSet") => daemon_set(object),
        _ => Stage::Ready,
    }
}

fn is_unseen(object: &Value) -> bool {
    object["status"]["observedGeneration"].as_i64().unwrap_or_default()
        < object["metadata"]["generation"].as_i64().unwrap_or_default()
}

fn established(object: &Value) -> Stage {
    let conditions = object["status"]["conditions"].as_array();
    let is_established = |condition: &&Value| condition["type"] == "Established" && condition["status"] == "True";
    match conditions.into_iter().flatten().find(is_established) {
        Some(_) => Stage::Ready,
        None => Stage::Waiting("is not served yet".to_owned()),
    }
}

fn deployment(object: &Value) -> Stage {
    let status = |field: &str| object["status"][field].as_i64().unwrap_or_default();
    let wanted = object["spec"]["replicas"].as_i64().unwrap_or(1);
    if status("updatedReplicas") < wanted {
        Stage::Waiting(format!("{} of {wanted} started", status("updatedReplicas")))
    } else if status("availableReplicas") < wanted {
        Stage::Waiting(format!("{} of {wanted} ready", status("availableReplicas")))
    } else if status("replicas") > status("updatedReplicas") {
        Stage::Waiting(format!(
            "{} old ones end",
            status("replicas") - status("updatedReplicas")
        ))
    } else {
        Stage::Ready
    }
}

fn daemon_set(object: &Value) -> Stage {
    let status = |field: &str| object["status"][field].as_i64().unwrap_or_default();
    let wanted = status("desiredNumberScheduled");
    if status("updatedNumberScheduled") < wanted {
        Stage::Waiting(format!(
            "{} of {wanted} nodes started",
            status("updatedNumberScheduled")
        ))
    } else if status("numberAvailable") < wanted {
        Stage::Waiting(format!("{} of {wanted} nodes ready", status("numberAvailable")))
    } else {
        Stage::Ready
    }
}

/// Where something runs, once it does: `on 2 nodes`, `with 2 replicas`.
pub(crate) fn extent(object: &Value) -> Option<String> {
    let counted = |number: i64, noun| crate::human::counted(usize::try_from(number).unwrap_or_default(), noun);
    match object["kind"].as_str() {
        Some("Deployment" | "StatefulSet") => {
            let replicas = object["spec"]["replicas"].as_i64().unwrap_or(1);
            Some(format!("with {}", counted(replicas, "replica")))
        }
        Some("DaemonSet") => {
            let nodes = object["status"]["desiredNumberScheduled"].as_i64().unwrap_or_default();
            Some(format!("on {}", counted(nodes, "node")))
        }
        _ => None,
    }
}

/// What keeps a Pod from running, if it is more than time: the reason, and a sentence.
pub(crate) fn trouble(pod: &Value) -> Option<(String, String)> {
    const HARMLESS: [&str; 2] = ["ContainerCreating", "PodInitializing"];
    let statuses = ["initContainerStatuses", "containerStatuses"]
        .into_iter()
        .filter_map(|field| pod["status"][field].as_array())
        .flatten();
    for status in statuses {
        let waiting = &status["state"]["waiting"];
        if let Some(reason) = waiting["reason"].as_str().filter(|reason| !HARMLESS.contains(reason)) {
            let last_words = status["lastState"]["terminated"]["message"].as_str();
            let message = last_words.or_else(|| waiting["message"].as_str()).unwrap_or_default();
            return Some((reason.to_owned(), message.trim().to_owned()));
        }
    }
    let conditions = pod["status"]["conditions"].as_array();
    let unscheduled = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "PodScheduled" && condition["status"] == "False")?;
    Some((
        unscheduled["reason"].as_str().unwrap_or("Unschedulable").to_owned(),
        unscheduled["message"].as_str().unwrap_or_default().to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parts_are_ready_when_all_of_the_new_ones_are_and_the_old_ones_are_gone() {
        let waiting = |text: &str| Stage::Waiting(text.to_owned());
        let deployment = |generation: i64, updated: i64, available: i64, all: i64| {
            json!({"kind": "Deployment", "metadata": {"generation": generation}, "spec": {"replicas": 2},
                "status": {"observedGeneration": 2, "updatedReplicas": updated, "availableReplicas": available, "replicas": all}})
        };
        let daemon_set = |wanted: i64, updated: i64, available: i64| {
            json!({"kind": "DaemonSet", "metadata": {"generation": 1}, "status": {"observedGeneration": 1,
                "desiredNumberScheduled": wanted, "updatedNumberScheduled": updated, "numberAvailable": available}})
        };
        let stateful_set = |updated: i64, available: i64| {
            json!({"kind": "StatefulSet", "metadata": {"generation": 1}, "spec": {"replicas": 1}, "status": {"observedGeneration": 1,
                "updatedReplicas": updated, "availableReplicas": available, "replicas": 1}})
        };
        for (object, expected) in [
            (deployment(3, 2, 2, 2), waiting("waits for Kubernetes to take it up")),
            (deployment(2, 1, 2, 3), waiting("1 of 2 started")),
            (deployment(2, 2, 1, 2), waiting("1 of 2 ready")),
            (deployment(2, 2, 2, 3), waiting("1 old ones end")),
            (deployment(2, 2, 2, 2), Stage::Ready),
            (daemon_set(3, 1, 3), waiting("1 of 3 nodes started")),
            (daemon_set(3, 3, 1), waiting("1 of 3 nodes ready")),
            (daemon_set(3, 3, 3), Stage::Ready),
            (daemon_set(0, 0, 0), Stage::Ready),
            (stateful_set(1, 0), waiting("0 of 1 ready")),
            (stateful_set(1, 1), Stage::Ready),
            (
                json!({"kind": "CustomResourceDefinition"}),
                waiting("is not served yet"),
            ),
            (
                json!({"kind": "CustomResourceDefinition", "status": {"conditions": [{"type": "Established", "status": "True"}]}}),
                Stage::Ready,
            ),
            (json!({"kind": "ServiceAccount"}), Stage::Ready),
        ] {
            assert_eq!(stage(&object), expected, "{object}");
        }
    }

    #[test]
    fn a_pod_that_time_will_not_help_says_why() {
        let waits = |reason: &str| json!({"status": {"containerStatuses": [{"state": {"waiting": {"reason": reason, "message": "no such image"}}}]}});
        let pair = |one: &str, other: &str| Some((one.to_owned(), other.to_owned()));
        assert_eq!(trouble(&waits("ContainerCreating")), None);
        assert_eq!(trouble(&waits("ErrImagePull")), pair("ErrImagePull", "no such image"));
        let mut crashed = waits("CrashLoopBackOff");
        crashed["status"]["containerStatuses"][0]["lastState"]["terminated"]["message"] = "no socket\n".into();
        assert_eq!(trouble(&crashed), pair("CrashLoopBackOff", "no socket"));
        let unscheduled = json!({"status": {"conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}]}});
        assert_eq!(trouble(&unscheduled), pair("Unschedulable", "0/1 nodes are available"));
    }
}
