//! What people are told in Events, and when.
//!
//! A notice is about a change: it follows from the status before and the status after a write, so that a controller that takes over repeats
//! nothing. What concerns many nodes is one notice.

use std::collections::BTreeMap;

use coral_api::{
    PrefetchStatus,
    conditions::{self, READY, STALLED},
    prefetch::{MAX_FAILURES, NodeFailure},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use crate::plan::GateOutcome;

/// Pods that a notice names.
const MAX_PODS: usize = 5;

/// Something that people are told of an object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Notice {
    pub(crate) is_warning: bool,
    /// What happened, in one word.
    pub(crate) reason: &'static str,
    /// What the controller did about it.
    pub(crate) action: &'static str,
    /// What of the object it is about, where one reason can have several at once. A later notice with the same object, reason and
    /// topic takes the place of an earlier one.
    pub(crate) topic: String,
    /// A sentence.
    pub(crate) note: String,
}

impl Notice {
    fn normal(reason: &'static str, action: &'static str, note: String) -> Self {
        Self {
            is_warning: false,
            reason,
            action,
            topic: String::new(),
            note,
        }
    }

    fn warning(reason: &'static str, action: &'static str, topic: String, note: String) -> Self {
        Self {
            is_warning: true,
            reason,
            action,
            topic,
            note,
        }
    }
}

/// What is new in the status of a Prefetch.
pub(crate) fn notices(old: Option<&PrefetchStatus>, new: &PrefetchStatus) -> Vec<Notice> {
    let none = PrefetchStatus::default();
    let old = old.unwrap_or(&none);
    let mut notices = Vec::new();
    if old.start_time.is_none() && new.start_time.is_some() {
        let images = counted(new.image_count, "image", "images");
        let nodes = counted(new.nodes.desired, "node", "nodes");
        notices.push(Notice::normal(
            "Started",
            "Prefetching",
            format!("{images} for {nodes}"),
        ));
    }
    let message = |status: &PrefetchStatus, kind| {
        conditions::find(&status.conditions, kind).map_or_else(String::new, |condition| condition.message.clone())
    };
    let reason = |status: &PrefetchStatus| {
        conditions::find(&status.conditions, READY).map_or_else(String::new, |condition| condition.reason.clone())
    };
    if reason(old) != reason(new) {
        let known = [
            ("AllPresent", "Ready", "Prefetched"),
            ("NoNodes", "NoNodes", "Waiting"),
            ("Suspended", "Suspended", "Waiting"),
        ];
        let named = known.into_iter().find(|(name, ..)| *name == reason(new));
        notices.extend(named.map(|(_, reason, action)| Notice::normal(reason, action, message(new, READY))));
    }
    if old.completion_time.is_none() && new.completion_time.is_some() {
        notices.push(Notice::normal("Completed", "Completed", message(new, READY)));
    }
    let is_stalled = |status: &PrefetchStatus| conditions::is_true(&status.conditions, STALLED);
    if is_stalled(new) && !is_stalled(old) {
        let text = message(new, STALLED);
        notices.push(Notice::warning("Stalled", "Waiting", String::new(), text));
    }
    notices.extend(failures(old, new));
    notices
}

/// One notice for each image and reason that is new, or that has come to further nodes.
fn failures(old: &PrefetchStatus, new: &PrefetchStatus) -> Vec<Notice> {
    let before = grouped(old);
    let is_cut = new.failures.len() >= MAX_FAILURES;
    let is_worse = |key: &(&str, &'static str), now: &Vec<&NodeFailure>| {
        before.get(key).is_none_or(|before| before.len() < now.len())
    };
    grouped(new)
        .into_iter()
        .filter(|(key, now)| is_worse(key, now))
        .map(|((image, reason), failures)| {
            // The newest comes first.
            let newest = failures[0];
            let place = match (failures.len(), newest.node.as_str()) {
                (_, "") => String::new(),
                (1, node) if !is_cut => format!(" on node {node}"),
                (number, node) => {
                    let at_least = if is_cut { "at least " } else { "" };
                    let nodes = counted(i32::try_from(number).unwrap_or(i32::MAX), "node", "nodes");
                    format!(" on {at_least}{nodes}, most recently {node}")
                }
            };
            let text = format!("{image}{place}: {reason}: {}", newest.message);
            Notice::warning("ImageFailed", "Pulling", format!("{image} {reason}"), text)
        })
        .collect()
}

fn grouped(status: &PrefetchStatus) -> BTreeMap<(&str, &'static str), Vec<&NodeFailure>> {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for failure in &status.failures {
        let key = (failure.image.as_str(), failure.reason.as_str());
        groups.entry(key).or_default().push(failure);
    }
    groups
}

/// How long a Prefetch took until it was Ready for the first time, if that is what has just happened. One that has lost a node or
/// gained one was Ready before.
pub(crate) fn time_to_ready(
    old: Option<&PrefetchStatus>,
    new: &PrefetchStatus,
    created: Timestamp,
) -> Option<SignedDuration> {
    let ready = conditions::find(&new.conditions, READY)?;
    if ready.status != "True" || ready.reason != "AllPresent" {
        return None;
    }
    let was_never_ready = old.is_none_or(|old| {
        conditions::find(&old.conditions, READY).is_none_or(|before| {
            before.status != "True" && Some(&before.last_transition_time) == old.start_time.as_ref()
        })
    });
    was_never_ready.then(|| ready.last_transition_time.0.duration_since(created))
}

/// What the node is told of the end of its startup taint.
pub(crate) fn gate_of_node(outcome: &GateOutcome, waited: SignedDuration) -> Notice {
    let seconds = waited.as_secs();
    match outcome {
        GateOutcome::Ready => {
            let text = format!("every image that the node waited for is there after {seconds} s");
            Notice::normal("StartupTaintRemoved", "RemoveTaint", text)
        }
        GateOutcome::NothingToWaitFor => {
            let text = "no Prefetch with gate: true selects the node".to_owned();
            Notice::normal("StartupTaintRemoved", "RemoveTaint", text)
        }
        GateOutcome::TimedOut { missing } => {
            let missing: Vec<String> = missing
                .iter()
                .map(|missing| format!("{} ({})", missing.prefetch, missing.images.join(", ")))
                .collect();
            let text = format!(
                "the node takes pods after {seconds} s although these Prefetches are not there: {}",
                missing.join("; ")
            );
            Notice::warning("StartupTaintTimedOut", "RemoveTaint", String::new(), text)
        }
    }
}

/// What a Prefetch is told of a node that has waited for it.
pub(crate) fn gate_of_prefetch(
    prefetch: &str,
    node: &str,
    outcome: &GateOutcome,
    waited: SignedDuration,
) -> Option<Notice> {
    let seconds = waited.as_secs();
    match outcome {
        GateOutcome::NothingToWaitFor => None,
        GateOutcome::Ready => {
            let text = format!("node {node} takes pods: it has had every image after {seconds} s");
            Some(Notice::normal("GateOpened", "RemoveTaint", text))
        }
        GateOutcome::TimedOut { missing } => {
            let missing = missing.iter().find(|missing| missing.prefetch == prefetch)?;
            let images = missing.images.join(", ");
            let text = format!("node {node} takes pods after {seconds} s without {images}");
            Some(Notice::warning("GateTimedOut", "RemoveTaint", String::new(), text))
        }
    }
}

/// What is told when a node loses the label of an image that pods on it need.
pub(crate) fn label_lost(image: &str, label: &str, node: &str, pods: &[Pod]) -> Option<Notice> {
    let names: Vec<String> = pods
        .iter()
        .filter(|pod| !has_ended(pod) && selects(pod, label))
        .map(|pod| format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any()))
        .collect();
    if names.is_empty() {
        return None;
    }
    let more = match names.len().saturating_sub(MAX_PODS) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let first: Vec<&str> = names.iter().take(MAX_PODS).map(String::as_str).collect();
    let text = format!(
        "{image} is no longer labelled as available on node {node}, and pods there need the label to be scheduled: {}{more}",
        first.join(", ")
    );
    Some(Notice::warning("LabelLost", "RemoveLabel", image.to_owned(), text))
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether the pod can only be on nodes with the label. A preferred affinity strands nobody.
fn selects(pod: &Pod, label: &str) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let by_selector = spec
        .node_selector
        .as_ref()
        .is_some_and(|selector| selector.contains_key(label));
    let affinity = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    let by_affinity = required.is_some_and(|required| {
        let terms = required.node_selector_terms.iter();
        terms
            .flat_map(|term| term.match_expressions.iter().flatten())
            .any(|expression| expression.key == label)
    });
    by_selector || by_affinity
}

fn counted(number: i32, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use coral_api::FailureReason;
    use serde_json::{Value, json};

    use crate::plan::GateMissing;

    use super::*;

    fn status(value: Value) -> PrefetchStatus {
        serde_json::from_value(value).unwrap()
    }

    /// A status with Ready and Stalled as told, since `since` seconds.
    fn with(ready: bool, stalled: bool, reason: &str, since: i64) -> PrefetchStatus {
        let condition = |kind: &str, value: bool| {
            let value = if value { "True" } else { "False" };
            let time = Timestamp::from_second(since).unwrap();
            json!({"type": kind, "status": value, "reason": reason, "message": "a sentence", "lastTransitionTime": time})
        };
        status(json!({
            "conditions": [condition("Ready", ready), condition("Stalled", stalled)],
            "startTime": "1970-01-01T00:01:40Z",
            "nodes": {"desired": 3, "ready": 0, "pulling": 0, "failed": 0},
            "imageCount": 1,
        }))
    }

    fn failure(node: &str, image: &str, reason: FailureReason) -> NodeFailure {
        NodeFailure {
            node: node.to_owned(),
            image: image.to_owned(),
            reason,
            message: "the registry's words".to_owned(),
            attempts: 1,
            next_attempt_time: None,
        }
    }

    fn failing(failures: &[(&str, &str, FailureReason)]) -> PrefetchStatus {
        let mut status = with(false, false, "Pulling", 100);
        status.failures = failures
            .iter()
            .map(|(node, image, reason)| failure(node, image, *reason))
            .collect();
        status
    }

    fn told(old: Option<&PrefetchStatus>, new: &PrefetchStatus) -> Vec<(&'static str, String)> {
        notices(old, new)
            .into_iter()
            .map(|notice| (notice.reason, notice.note))
            .collect()
    }

    #[test]
    fn changes_are_told_once() {
        let pulling = with(false, false, "Pulling", 100);
        let ready = with(true, false, "AllPresent", 200);
        let stalled = with(false, true, "ImagesFailed", 100);
        let suspended = with(false, false, "Suspended", 100);
        let mut completed = ready.clone();
        completed.completion_time = completed.start_time.clone();
        for (name, old, new, expected) in [
            ("first status", None, &pulling, vec!["Started"]),
            ("first status, nothing to do", None, &ready, vec!["Started", "Ready"]),
            ("nothing new", Some(&pulling), &pulling, vec![]),
            ("ready", Some(&pulling), &ready, vec!["Ready"]),
            ("still ready", Some(&ready), &ready, vec![]),
            ("a node more", Some(&ready), &pulling, vec![]),
            ("stalled", Some(&pulling), &stalled, vec!["Stalled"]),
            ("still stalled", Some(&stalled), &stalled, vec![]),
            ("suspended", Some(&pulling), &suspended, vec!["Suspended"]),
            (
                "no nodes",
                Some(&pulling),
                &with(true, false, "NoNodes", 1),
                vec!["NoNodes"],
            ),
            ("done once", Some(&pulling), &completed, vec!["Ready", "Completed"]),
        ] {
            let reasons: Vec<&str> = told(old, new).into_iter().map(|(reason, _)| reason).collect();
            assert_eq!(reasons, expected, "{name}");
        }
        assert_eq!(told(None, &pulling)[0].1, "1 image for 3 nodes");
    }

    #[test]
    fn a_failure_on_many_nodes_is_one_notice() {
        use FailureReason::{NotFound, Unauthorized};
        let none = failing(&[]);
        let one = failing(&[("node-1", "nginx", NotFound)]);
        let two = failing(&[("node-2", "nginx", NotFound), ("node-1", "nginx", NotFound)]);
        let first = vec![(
            "ImageFailed",
            "nginx on node node-1: NotFound: the registry's words".to_owned(),
        )];
        assert_eq!(told(Some(&none), &one), first);
        assert_eq!(told(Some(&one), &one), []);
        let worse = "nginx on 2 nodes, most recently node-2: NotFound: the registry's words";
        assert_eq!(told(Some(&one), &two), [("ImageFailed", worse.to_owned())]);
        assert_eq!(told(Some(&two), &one), []);

        let other = failing(&[("node-1", "nginx", Unauthorized), ("node-1", "redis", NotFound)]);
        let topics: Vec<String> = notices(Some(&one), &other)
            .into_iter()
            .map(|notice| notice.topic)
            .collect();
        assert_eq!(topics, ["nginx Unauthorized", "redis NotFound"]);

        let nodes: Vec<String> = (0..MAX_FAILURES).map(|number| format!("node-{number}")).collect();
        let many: Vec<_> = nodes.iter().map(|node| (node.as_str(), "nginx", NotFound)).collect();
        let text = &told(Some(&two), &failing(&many))[0].1;
        assert!(
            text.starts_with("nginx on at least 32 nodes, most recently node-0: "),
            "{text}"
        );
    }

    #[test]
    fn a_reference_that_is_none_names_no_node() {
        let new = failing(&[("", "Bad", FailureReason::InvalidReference)]);
        let note = "Bad: InvalidReference: the registry's words".to_owned();
        assert_eq!(told(Some(&failing(&[])), &new), [("ImageFailed", note)]);
    }

    #[test]
    fn only_the_first_time_to_ready_is_measured() {
        let created = Timestamp::from_second(90).unwrap();
        let ready = with(true, false, "AllPresent", 200);
        let took = Some(SignedDuration::from_secs(110));
        // The status began at 100: one that is not Ready since then never was.
        let pulling_since = |second| with(false, false, "Pulling", second);
        assert_eq!(time_to_ready(None, &ready, created), took);
        assert_eq!(time_to_ready(Some(&pulling_since(100)), &ready, created), took);
        assert_eq!(time_to_ready(Some(&pulling_since(150)), &ready, created), None);
        assert_eq!(time_to_ready(Some(&ready), &ready, created), None);
        assert_eq!(time_to_ready(None, &with(true, false, "NoNodes", 200), created), None);
        assert_eq!(time_to_ready(None, &pulling_since(100), created), None);
    }

    #[test]
    fn the_gate_is_told_to_node_and_prefetch() {
        let waited = SignedDuration::from_secs(42);
        let late = GateOutcome::TimedOut {
            missing: vec![GateMissing {
                prefetch: "shop/web".to_owned(),
                images: vec!["nginx".to_owned(), "redis".to_owned()],
            }],
        };
        let node = gate_of_node(&late, waited);
        assert!(
            node.is_warning && node.note.ends_with("shop/web (nginx, redis)"),
            "{node:?}"
        );
        let prefetch = gate_of_prefetch("shop/web", "node-1", &late, waited).unwrap();
        assert_eq!(prefetch.note, "node node-1 takes pods after 42 s without nginx, redis");
        // It waited for this one too, and that was there.
        assert_eq!(gate_of_prefetch("shop/db", "node-1", &late, waited), None);

        let node = gate_of_node(&GateOutcome::Ready, waited);
        assert!(!node.is_warning && node.reason == "StartupTaintRemoved");
        assert!(
            !gate_of_prefetch("shop/web", "node-1", &GateOutcome::Ready, waited)
                .unwrap()
                .is_warning
        );
        assert_eq!(
            gate_of_prefetch("shop/web", "node-1", &GateOutcome::NothingToWaitFor, waited),
            None
        );
    }

    #[test]
    fn pods_that_need_the_label_are_named() {
        let label = "image.stvz.io/0123";
        let pod = |name: &str, spec: Value, phase: &str| -> Pod {
            let metadata = json!({"name": name, "namespace": "shop"});
            serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": {"phase": phase}})).unwrap()
        };
        let selector = json!({"containers": [], "nodeSelector": {label: "available"}});
        let expression = json!({"key": label, "operator": "In", "values": ["available"]});
        let required = json!({"nodeSelectorTerms": [{"matchExpressions": [expression]}]});
        let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}});
        let preference = json!([{"weight": 1, "preference": {"matchExpressions": [expression]}}]);
        let preferred = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preference}});
        let others = [
            pod("ended", selector.clone(), "Succeeded"),
            pod("free", json!({"containers": []}), "Running"),
            pod(
                "elsewhere",
                json!({"containers": [], "nodeSelector": {"zone": "a"}}),
                "Running",
            ),
            pod(
                "preferring",
                json!({"containers": [], "affinity": preferred}),
                "Running",
            ),
        ];
        assert_eq!(label_lost("nginx", label, "node-1", &others), None);

        let mut pods = others.to_vec();
        pods.push(pod("web-1", selector.clone(), "Running"));
        pods.push(pod("web-2", json!({"containers": [], "affinity": affinity}), "Pending"));
        let notice = label_lost("nginx", label, "node-1", &pods).unwrap();
        assert!(notice.note.ends_with(": shop/web-1, shop/web-2"), "{}", notice.note);
        pods.extend((0..5).map(|number| pod(&format!("more-{number}"), selector.clone(), "Running")));
        let notice = label_lost("nginx", label, "node-1", &pods).unwrap();
        assert!(notice.note.ends_with("shop/more-2 and 2 more"), "{}", notice.note);
    }
}
