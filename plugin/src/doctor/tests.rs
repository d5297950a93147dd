//! What the facts mean, case by case, and how it is told. Here is what the cases share, and those of who sees little.

mod mirrors;
mod parts;
mod report;
mod surroundings;

use std::{collections::BTreeMap, time::Duration};

use coral_api::node_images::{FilesystemUsage, RuntimeInfo};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Severity,
    certificate::{Certificate, sample},
    diagnose,
    facts::{
        AccessFacts, Facts, Grant, Kubelets, LeaseFacts, Looked, NodeFacts, PodFacts, PrefetchFacts,
        Report as AgentReport, ResourceType, Right, Trial, Unread, WebhookFacts, WebhookSecret, mirrors::MirrorsFacts,
    },
    group,
};

const NOW: &str = "2026-06-01T00:00:00Z";
const TYPE: &str = "prefetches.image.stvz.io";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn before(minutes: u64) -> Timestamp {
    now() - Duration::from_mins(minutes)
}

fn forbidden() -> Unread {
    Unread {
        is_forbidden: true,
        is_unknown_type: false,
        reason: "you may not list nodes".to_owned(),
    }
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": NOW})
}

fn conditions<T: serde::de::DeserializeOwned>(list: &[Value]) -> T {
    serde_json::from_value(list.into()).unwrap()
}

fn node(name: &str) -> NodeFacts {
    NodeFacts {
        name: name.to_owned(),
        labels: BTreeMap::from([("kubernetes.io/os".to_owned(), "linux".to_owned())]),
        is_linux: true,
        is_ready: true,
        created: Some(before(1_000)),
        kubelet_version: "v1.36.3".to_owned(),
        ..NodeFacts::default()
    }
}

fn pod(part: &str, name: &str, node: &str) -> PodFacts {
    PodFacts {
        name: name.to_owned(),
        part: part.to_owned(),
        node: Some(node.to_owned()),
        is_ready: true,
        created: Some(before(900)),
        image_ids: vec!["coral@sha256:1".to_owned()],
        ..PodFacts::default()
    }
}

fn part(kind: &str, name: &str, rest: Value) -> Value {
    let mut part = rest;
    part["kind"] = kind.into();
    part["metadata"] = json!({"name": name, "generation": 1, "labels": {"app.kubernetes.io/version": "v0.1.0"}});
    part["status"]["observedGeneration"] = 1.into();
    part
}

fn deployment(name: &str, available: i64) -> Value {
    let status = json!({"replicas": 2, "updatedReplicas": 2, "availableReplicas": available});
    part("Deployment", name, json!({"spec": {"replicas": 2}, "status": status}))
}

fn daemon_set() -> Value {
    let pod = json!({"nodeSelector": {"kubernetes.io/os": "linux"}, "tolerations": [{"operator": "Exists"}]});
    let status = json!({"desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 2});
    part(
        "DaemonSet",
        "coral-agent",
        json!({"spec": {"template": {"spec": pod}}, "status": status}),
    )
}

fn agent_report() -> AgentReport {
    AgentReport {
        wanted: 1,
        generation: Some(2),
        observed: Some(2),
        asked: Some(before(60)),
        runtime: Some(RuntimeInfo {
            name: "containerd".to_owned(),
            version: "2.4.2".to_owned(),
        }),
        filesystem: Some(FilesystemUsage {
            used_bytes: 10,
            free_bytes: Some(50),
            capacity_bytes: Some(100),
        }),
        conditions: conditions(&[condition("Ready", "True", "Reached", "")]),
        ..AgentReport::default()
    }
}

fn certificate(not_before: &str, not_after: &str) -> (Certificate, String) {
    sample(not_before, not_after, &["coral-webhook.coral-system.svc"])
}

fn configuration(bundle: &str) -> Value {
    let bundle = serde_json::to_value(k8s_openapi::ByteString(bundle.as_bytes().to_vec())).unwrap();
    json!({"webhooks": [{"clientConfig": {"caBundle": bundle}}]})
}

fn prefetch(name: &str) -> PrefetchFacts {
    PrefetchFacts {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        created: Some(before(60)),
        conditions: conditions(&[condition("Ready", "True", "AllPresent", "")]),
        ..PrefetchFacts::default()
    }
}

/// An installation in which all is well.
fn healthy() -> Facts {
    let (serving, _) = certificate("2026-05-01", "2026-08-01");
    let (authority, text) = sample("2026-05-01", "2027-05-01", &[]);
    let kubelet = json!({"imageGCHighThresholdPercent": 85, "imageGCLowThresholdPercent": 80, "imageMaximumGCAge": "0s",
        "serializeImagePulls": false, "imagePullCredentialsVerificationPolicy": "NeverVerifyPreloadedImages"});
    Facts {
        now: now(),
        client_version: "v0.1.0".to_owned(),
        server_version: Ok("v1.36.3".to_owned()),
        is_bound: Ok(true),
        namespace: "coral-system".to_owned(),
        types: vec![ResourceType {
            name: TYPE.to_owned(),
            expected: json!({"spec": {"group": "image.stvz.io"}}),
            found: Ok(Some(
                json!({"kind": "CustomResourceDefinition", "metadata": {}, "spec": {"group": "image.stvz.io"},
                "status": {"conditions": [{"type": "Established", "status": "True"}]}}),
            )),
        }],
        parts: Ok(vec![
            daemon_set(),
            deployment("coral-controller", 2),
            deployment("coral-webhook", 2),
        ]),
        pods: Ok(vec![
            pod("coral-agent", "coral-agent-1", "node-1"),
            pod("coral-agent", "coral-agent-2", "node-2"),
            pod("coral-controller", "coral-controller-a", "node-1"),
            pod("coral-controller", "coral-controller-b", "node-2"),
        ]),
        lease: Ok(Some(LeaseFacts {
            holder: Some("coral-controller-a".to_owned()),
            moved: None,
        })),
        webhook: WebhookFacts {
            configuration: Ok(Some(configuration(&text))),
            endpoints: Ok(2),
            secret: Ok(Some(WebhookSecret {
                serving: Some(serving),
                authority: Some(authority),
            })),
            trial: Ok(Trial {
                namespace: "shop".to_owned(),
                is_changed: true,
            }),
        },
        nodes: Ok(vec![node("node-1"), node("node-2")]),
        reports: Ok(BTreeMap::from([
            ("node-1".to_owned(), agent_report()),
            ("node-2".to_owned(), agent_report()),
        ])),
        prefetches: Ok(vec![prefetch("web")]),
        mirrors: MirrorsFacts {
            all: Ok(Vec::new()),
            secrets: Vec::new(),
            lease: Ok(None),
            collector: Ok(None),
        },
        kubelets: Kubelets {
            of: 2,
            asked: BTreeMap::from([
                ("node-1".to_owned(), Ok(kubelet.clone())),
                ("node-2".to_owned(), Ok(kubelet)),
            ]),
        },
        access: AccessFacts {
            own: vec![(right("list"), "status", Ok(true))],
            accounts: vec![("coral-agent".to_owned(), right("watch"), Ok(true))],
            grants: Vec::new(),
            grants_left_out: 0,
        },
    }
}

fn right(verb: &str) -> Right {
    Right {
        verb: verb.to_owned(),
        group: "image.stvz.io".to_owned(),
        resource: "nodeimages".to_owned(),
        ..Right::default()
    }
}

fn grant(is_granted: Looked<bool>, exists: Option<bool>) -> Vec<Grant> {
    vec![Grant {
        namespace: "shop".to_owned(),
        secret: "regcred".to_owned(),
        prefetch: "web".to_owned(),
        is_granted,
        exists,
    }]
}

fn parts(facts: &mut Facts) -> &mut Vec<Value> {
    facts.parts.as_mut().unwrap()
}

fn pods(facts: &mut Facts) -> &mut Vec<PodFacts> {
    facts.pods.as_mut().unwrap()
}

fn first_node(facts: &mut Facts) -> &mut NodeFacts {
    &mut facts.nodes.as_mut().unwrap()[0]
}

fn first_report(facts: &mut Facts) -> &mut AgentReport {
    facts.reports.as_mut().unwrap().get_mut("node-1").unwrap()
}

fn kubelet<'a>(facts: &'a mut Facts, field: &str) -> &'a mut Value {
    let settings = facts.kubelets.asked.get_mut("node-1").unwrap();
    settings.as_mut().unwrap().get_mut(field).unwrap()
}

fn taint(facts: &mut Facts, key: &str) {
    let taint = json!([{"key": key, "effect": "NoSchedule"}]);
    first_node(facts).taints = serde_json::from_value(taint).unwrap();
}

/// What is found where something is not as it should be: severity and sentence, and the remedy behind a `|`.
fn found(change: impl FnOnce(&mut Facts)) -> Vec<String> {
    let mut facts = healthy();
    change(&mut facts);
    let groups = group(diagnose(&facts));
    let bad = groups.iter().filter(|group| group.severity > Severity::Ok);
    bad.map(|group| {
        let remedy = group.remedy.as_deref().unwrap_or("-");
        format!(
            "{} {}: {} | {remedy}",
            group.severity.as_str(),
            group.check.as_str(),
            group.sentence()
        )
    })
    .collect()
}

/// What a case is called, how it differs from an installation in which all is well, and how what is found begins.
type Case = (&'static str, fn(&mut Facts), &'static [&'static str]);

fn assert_cases(cases: &[Case]) {
    for (name, change, expected) in cases {
        let found = found(change);
        let agrees = found.len() == expected.len()
            && found
                .iter()
                .zip(*expected)
                .all(|(found, expected)| found.contains(expected));
        assert!(agrees, "{name}: {found:#?}");
    }
}

#[test]
fn where_coral_is_not_installed_nothing_else_is_said() {
    let install = |facts: &mut Facts| {
        facts.types[0].found = Ok(None);
        facts.is_bound = Ok(false);
        facts.parts = Ok(Vec::new());
    };
    assert_eq!(
        found(install),
        ["problem installation: Coral is not installed in this cluster | kubectl coral install"]
    );
    // Who may not read the types learns it from Prefetches.
    let unknown = |facts: &mut Facts| {
        facts.types[0].found = Err(forbidden());
        facts.is_bound = Ok(false);
        facts.parts = Ok(Vec::new());
        facts.prefetches = Err(Unread {
            is_unknown_type: true,
            ..forbidden()
        });
    };
    assert_eq!(found(unknown).len(), 1);
    let kept = |facts: &mut Facts| {
        facts.is_bound = Ok(false);
        facts.parts = Ok(Vec::new());
    };
    assert_eq!(
        found(kept),
        [
            "problem installation: of Coral there are only the resource types in this cluster: no part of it is installed | kubectl coral install"
        ]
    );
}

#[test]
fn who_may_look_at_nothing_is_told_so_and_no_problem_is_made_up() {
    let blind = |facts: &mut Facts| {
        facts.is_bound = Err(forbidden());
        facts.types[0].found = Err(forbidden());
        facts.server_version = Err(forbidden());
        facts.parts = Err(forbidden());
        facts.pods = Err(forbidden());
        facts.lease = Err(forbidden());
        facts.webhook = WebhookFacts {
            configuration: Err(forbidden()),
            endpoints: Err(forbidden()),
            secret: Err(forbidden()),
            trial: Err(forbidden()),
        };
        facts.nodes = Err(forbidden());
        facts.reports = Err(forbidden());
        facts.prefetches = Err(forbidden());
        facts.mirrors.all = Err(forbidden());
        facts.kubelets = Kubelets::default();
    };
    let found = found(blind);
    assert!(!found.is_empty());
    for finding in &found {
        assert!(finding.starts_with("note "), "{finding}");
        assert!(finding.contains("could not look at "), "{finding}");
    }
}
