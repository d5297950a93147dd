//! What is in a cluster that stays there, to see what somebody leaves behind.

#![allow(dead_code, reason = "each test target uses a part of it")]

use std::{collections::BTreeSet, process::Command};

use coral_api::keys;
use coral_tests::Cluster;
use serde_json::Value;

use super::coral::Ran;

/// Kinds of objects that come and go by themselves, and the history of workloads, which Kubernetes keeps.
const PASSING: [&str; 8] = [
    "events",
    "events.events.k8s.io",
    "pods",
    "pods.metrics.k8s.io",
    "replicasets.apps",
    "controllerrevisions.apps",
    "endpoints",
    "endpointslices.discovery.k8s.io",
];

/// Everything in the cluster that stays: names of objects, and whether Coral is mentioned in one.
pub(crate) struct Everything {
    pub(crate) names: BTreeSet<String>,
    pub(crate) mentions: Vec<String>,
}

impl Everything {
    pub(crate) fn of(cluster: &Cluster) -> Self {
        let kinds = kubectl(cluster, &["api-resources", "--verbs=list", "--output=name"]).succeeded();
        let kinds: Vec<&str> = kinds.stdout.lines().filter(|kind| !PASSING.contains(kind)).collect();
        let listed = kubectl(cluster, &["get", &kinds.join(","), "--all-namespaces", "--output=json"]).succeeded();
        let list: Value = serde_json::from_str(&listed.stdout).unwrap();
        let mut everything = Self {
            names: BTreeSet::new(),
            mentions: Vec::new(),
        };
        for object in list["items"].as_array().unwrap() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let metadata = &object["metadata"];
            let name = format!(
                "{} {}/{}",
                text(&object["kind"]),
                text(&metadata["namespace"]),
                text(&metadata["name"])
            );
            // A kubelet makes it some time after its node is Ready.
            if name.starts_with("Lease kube-node-lease/") {
                continue;
            }
            if object.to_string().contains(keys::GROUP) {
                everything.mentions.push(name.clone());
            }
            everything.names.insert(name);
        }
        everything
    }
}

/// Runs kubectl as an administrator.
pub(crate) fn kubectl(cluster: &Cluster, arguments: &[&str]) -> Ran {
    kubectl_command(cluster).args(arguments).output().unwrap().into()
}

pub(crate) fn kubectl_command(cluster: &Cluster) -> Command {
    let mut kubectl = Command::new(cluster.tools().control_plane("kubectl"));
    kubectl.arg("--kubeconfig").arg(cluster.kubeconfig());
    kubectl
}
