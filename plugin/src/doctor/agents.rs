//! Whether every node that can have images has an agent that is at work.

use std::{collections::BTreeMap, time::Duration};

use coral_api::conditions;
use k8s_openapi::api::core::v1::{Taint, Toleration};
use kube::core::{Selector, SelectorExt as _};
use serde_json::Value;

use super::{
    Check, Finding, Subject,
    controller::{is, is_running, restarts, trouble},
    facts::{Facts, NodeFacts, PodFacts, Report},
    versions::UPGRADE,
};
use crate::human;

/// The DaemonSet, and the name of its pods.
pub(super) const AGENT: &str = "coral-agent";
/// How long things may take that take seconds.
pub(super) const A_WHILE: Duration = Duration::from_mins(2);

/// Looks for an agent on each node.
pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings = restarts(facts, Check::Agents, AGENT);
    let parts = match &facts.parts {
        Ok(parts) => parts,
        Err(unread) => return vec![Finding::unread(Check::Agents, "the DaemonSet of the agents", unread)],
    };
    let Some(daemon_set) = parts.iter().find(|part| is(part, "DaemonSet", AGENT)) else {
        let subject = Subject::namespaced("daemonset", &facts.namespace, AGENT);
        return vec![
            Finding::problem(Check::Agents, "there is none")
                .about(subject)
                .remedy(UPGRADE),
        ];
    };
    let (nodes, pods) = match (&facts.nodes, &facts.pods) {
        (Ok(nodes), Ok(pods)) => (nodes, pods),
        (Err(unread), _) => return vec![Finding::unread(Check::Agents, "nodes", unread)],
        (_, Err(unread)) => return vec![Finding::unread(Check::Agents, "the pods of the agents", unread)],
    };
    let template = Template::of(daemon_set);
    let mut by_node: BTreeMap<&str, Vec<&PodFacts>> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| pod.part == AGENT) {
        by_node
            .entry(pod.node.as_deref().unwrap_or_default())
            .or_default()
            .push(pod);
    }
    // What is to be said of a node that is not Ready is said with the nodes.
    let eligible = nodes.iter().filter(|node| node.is_linux && node.is_ready);
    let mut ready = 0;
    let mut count = 0;
    for node in eligible {
        count += 1;
        let pods = by_node.get(node.name.as_str()).map(Vec::as_slice).unwrap_or_default();
        let report = facts.reports.as_ref().ok().and_then(|reports| reports.get(&node.name));
        match look(node, pods, report, &template, facts) {
            Some(finding) => findings.push(finding.about(Subject::node(&node.name))),
            None => ready += 1,
        }
    }
    if let Err(unread) = &facts.reports {
        findings.push(Finding::unread(Check::Agents, "NodeImages", unread));
    }
    if findings.is_empty() {
        let what = if ready == count {
            format!("ready on {}", human::counted(count, "node"))
        } else {
            format!("ready on {} of {}", human::count(ready), human::counted(count, "node"))
        };
        findings.push(Finding::ok(Check::Agents, what));
    }
    findings
}

/// What is wrong on one node, if anything.
fn look(
    node: &NodeFacts,
    pods: &[&PodFacts],
    report: Option<&Report>,
    template: &Template,
    facts: &Facts,
) -> Option<Finding> {
    let living = pods.iter().find(|pod| !pod.is_terminating);
    let Some(pod) = living else {
        return Some(missing(node, report, template, facts));
    };
    let describe = format!("kubectl -n {} describe pod {}", facts.namespace, pod.name);
    let logs = format!("kubectl -n {} logs {}", facts.namespace, pod.name);
    if let Some(why) = trouble(pod) {
        let what = format!("its agent does not run: {why}");
        return Some(Finding::problem(Check::Agents, what).remedy(describe));
    }
    if !pod.is_ready {
        let is_new = pod
            .created
            .is_some_and(|created| human::between(created, facts.now) < A_WHILE);
        return Some(if is_new {
            Finding::note(Check::Agents, "its agent starts").remedy(describe)
        } else {
            Finding::problem(Check::Agents, "its agent runs and is not ready").remedy(logs)
        });
    }
    let report = report?;
    let is_new = report
        .asked
        .is_none_or(|asked| human::between(asked, facts.now) < A_WHILE);
    if !report.is_current() && !is_new {
        let what = "its agent has not taken up what the controller asks for, for longer than two minutes";
        return Some(Finding::problem(Check::Agents, what).remedy(logs));
    }
    None
}

/// Why there is no Pod.
fn missing(node: &NodeFacts, report: Option<&Report>, template: &Template, facts: &Facts) -> Finding {
    let is_new = node
        .created
        .is_some_and(|created| human::between(created, facts.now) < A_WHILE);
    let wants = report.is_some_and(|report| report.wanted > 0);
    let edit = format!("kubectl -n {} edit daemonset {AGENT}", facts.namespace);
    if let Some(label) = template.unmet_label(node) {
        let what = format!("no agent runs there, because the DaemonSet asks for the label {label}");
        return if wants {
            Finding::problem(Check::Agents, format!("{what}, and Prefetches want images there")).remedy(format!(
                "label the nodes, or install with another --set-node-selector, or `{edit}`; or narrow the Prefetches down with a nodeSelector"
            ))
        } else {
            Finding::warning(Check::Agents, what).remedy(format!("if it should have one: label the node, or `{edit}`"))
        };
    }
    if let Some(taint) = template.untolerated(node) {
        let what = format!("no agent runs there, because the DaemonSet does not tolerate the taint {taint}");
        return Finding::problem(Check::Agents, what).remedy(format!(
            "`{UPGRADE}` makes the agents tolerate every taint again; or `{edit}`"
        ));
    }
    if is_new {
        return Finding::note(Check::Agents, "the node is new, and its agent is yet to be made");
    }
    let what = "no agent runs there, though the DaemonSet selects the node: Kubernetes has made no Pod, or could not";
    Finding::problem(Check::Agents, what).remedy(format!("kubectl -n {} describe daemonset {AGENT}", facts.namespace))
}

/// Where the pods of the `DaemonSet` may go.
struct Template {
    labels: BTreeMap<String, String>,
    tolerations: Vec<Toleration>,
}

impl Template {
    fn of(daemon_set: &Value) -> Self {
        let pod = &daemon_set["spec"]["template"]["spec"];
        Self {
            labels: serde_json::from_value(pod["nodeSelector"].clone()).unwrap_or_default(),
            tolerations: serde_json::from_value(pod["tolerations"].clone()).unwrap_or_default(),
        }
    }

    /// A label that it asks for and the node does not have.
    fn unmet_label(&self, node: &NodeFacts) -> Option<String> {
        let mut labels = self.labels.iter();
        let unmet = labels.find(|(key, value)| node.labels.get(*key) != Some(value));
        unmet.map(|(key, value)| format!("{key}={value}"))
    }

    /// A taint of the node that keeps it away.
    fn untolerated(&self, node: &NodeFacts) -> Option<String> {
        // The DaemonSet controller adds tolerations of Kubernetes' own taints.
        let mut taints = node
            .taints
            .iter()
            .filter(|taint| taint.effect != "PreferNoSchedule" && !taint.key.starts_with("node.kubernetes.io/"));
        let taint = taints.find(|taint| !self.tolerations.iter().any(|toleration| tolerates(toleration, taint)))?;
        Some(match taint.value.as_deref().unwrap_or_default() {
            "" => format!("{}:{}", taint.key, taint.effect),
            value => format!("{}={value}:{}", taint.key, taint.effect),
        })
    }
}

/// As Kubernetes has it: an absent key or effect means all of them.
fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let any = |text: &Option<String>| text.as_deref().is_none_or(str::is_empty);
    let of_effect = any(&toleration.effect) || toleration.effect.as_deref() == Some(&taint.effect);
    let of_key = any(&toleration.key) || toleration.key.as_deref() == Some(&taint.key);
    let of_value = match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        _ => toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default(),
    };
    of_effect && of_key && of_value
}

/// Looks at what the agents say of their container runtimes.
pub(super) fn check_runtimes(facts: &Facts) -> Vec<Finding> {
    // That they cannot be read has been said.
    let (Ok(reports), Ok(nodes)) = (&facts.reports, &facts.nodes) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    let mut runtimes: BTreeMap<String, usize> = BTreeMap::new();
    for node in nodes.iter().filter(|node| node.is_ready) {
        let Some(report) = reports.get(&node.name) else {
            continue;
        };
        let about = |finding: Finding| finding.about(Subject::node(&node.name));
        match conditions::find(&report.conditions, conditions::READY) {
            Some(ready) if ready.status == "False" => findings.push(about(
                Finding::problem(Check::Runtimes, format!("the agent does not reach the container runtime: {}", ready.message))
                    .remedy("`kubectl coral upgrade --set-runtime-endpoint unix:///run/…` names the socket, where it is not at one of the usual places"),
            )),
            _ => {}
        }
        match conditions::find(&report.conditions, conditions::PINNING) {
            Some(pinning) if pinning.status == "False" => findings.push(about(
                Finding::warning(
                    Check::Runtimes,
                    format!("images cannot be pinned there: {}", pinning.message),
                )
                .remedy("raise the kubelets' imageGCHighThresholdPercent, or give the nodes larger disks"),
            )),
            _ => {}
        }
        if let Some(runtime) = &report.runtime {
            *runtimes
                .entry(format!("{} {}", runtime.name, runtime.version))
                .or_default() += 1;
        }
    }
    if findings.is_empty() {
        let runtimes: Vec<String> = runtimes
            .into_iter()
            .map(|(runtime, nodes)| format!("{runtime} on {}", human::counted(nodes, "node")))
            .collect();
        findings.push(Finding::ok(
            Check::Runtimes,
            if runtimes.is_empty() {
                "no Prefetch asks any node for images yet, so no agent has told".to_owned()
            } else {
                human::some_of(&runtimes, 3)
            },
        ));
    }
    findings
}

/// Whether a node can get images: its agent runs.
pub(super) fn controller_runs(facts: &Facts) -> bool {
    is_running(facts, super::controller::CONTROLLER)
}

/// Whether the node is among those that a Prefetch means.
pub(super) fn selects(selector: Option<&Selector>, node: &NodeFacts) -> bool {
    node.is_linux && selector.is_none_or(|selector| selector.matches(&node.labels))
}
