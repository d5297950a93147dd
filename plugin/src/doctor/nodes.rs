//! Nodes that pull nothing for now, and what Coral may have left on them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use coral_api::keys;

use super::{
    Check, Finding, Subject,
    agents::controller_runs,
    facts::{Facts, NodeFacts, Report},
};
use crate::human;

/// How long a new node may keep its startup taint: twice what the controller waits for unless it is told otherwise.
const STARTUP: Duration = Duration::from_mins(10);

/// Looks at each node.
pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let nodes = match &facts.nodes {
        Ok(nodes) => nodes,
        Err(unread) => return vec![Finding::unread(Check::Nodes, "nodes", unread)],
    };
    let mut findings = Vec::new();
    let stray = facts
        .reports
        .as_ref()
        .map(|reports| stray_labels(nodes, reports))
        .unwrap_or_default();
    for node in nodes.iter().filter(|node| node.is_linux) {
        let about = |finding: Finding| finding.about(Subject::node(&node.name));
        if !node.is_ready {
            findings.push(about(
                Finding::warning(Check::Nodes, "it is not Ready, so nothing is prefetched there")
                    .remedy(format!("kubectl describe node {}", node.name)),
            ));
        }
        for pressure in node.pressures.iter().filter(|pressure| **pressure != "MemoryPressure") {
            findings.push(about(
                Finding::warning(
                    Check::Nodes,
                    format!("it has {pressure}: nothing is pulled there, and the kubelet deletes images"),
                )
                .remedy(format!("kubectl describe node {}", node.name)),
            ));
        }
        findings.extend(startup_taint(node, facts).map(about));
        for taint in &node.taints {
            if taint.key.starts_with(keys::PREFIX) && taint.key != keys::STARTUP_TAINT {
                let what = format!("it has the taint {}, which nothing of Coral's takes away", taint.key);
                let remedy = format!("kubectl taint node {} {}-", node.name, taint.key);
                findings.push(about(Finding::warning(Check::Nodes, what).remedy(remedy)));
            }
        }
        if let Some(labels) = stray.get(&node.name) {
            let example = labels.first().cloned().unwrap_or_default();
            let what = "it has labels of images that are not there according to its NodeImages, so pods may be sent there in vain";
            findings.push(about(Finding::warning(Check::Nodes, what).remedy(format!(
                "the controller takes them away when it runs; by hand: `kubectl label node {} {example}-`",
                node.name
            ))));
        }
    }
    if findings.is_empty() {
        let linux = nodes.iter().filter(|node| node.is_linux).count();
        let others = match nodes.len() - linux {
            0 => String::new(),
            others => format!("; {} of another system", human::count(others)),
        };
        findings.push(Finding::ok(
            Check::Nodes,
            format!(
                "{} Ready and without pressure{others}",
                human::counted(linux, "Linux node")
            ),
        ));
    }
    findings
}

/// Whether the node waits for a Coral that does not come.
fn startup_taint(node: &NodeFacts, facts: &Facts) -> Option<Finding> {
    let has = node.taints.iter().any(|taint| taint.key == keys::STARTUP_TAINT);
    let is_old = node
        .created
        .is_none_or(|created| human::between(created, facts.now) > STARTUP);
    let remedy = format!("kubectl taint node {} {}-", node.name, keys::STARTUP_TAINT);
    let taint = keys::STARTUP_TAINT;
    match (has, controller_runs(facts), is_old) {
        (true, false, _) => Some(
            Finding::problem(
                Check::Nodes,
                format!("it has the startup taint {taint}, and there is no controller that takes it away"),
            )
            .remedy(format!("let the controller run, or `{remedy}`")),
        ),
        (true, true, true) => Some(
            Finding::problem(
                Check::Nodes,
                format!("it has had the startup taint {taint} for longer than ten minutes"),
            )
            .remedy(format!(
                "kubectl coral status -A shows what the Prefetches with `gate: true` wait for; by hand: `{remedy}`"
            )),
        ),
        _ => None,
    }
}

/// Labels of images that no `NodeImages` says are on the node.
pub(super) fn stray_labels(
    nodes: &[NodeFacts],
    reports: &BTreeMap<String, Report>,
) -> BTreeMap<String, BTreeSet<String>> {
    let strays = nodes.iter().filter_map(|node| {
        let there = reports.get(&node.name).map(|report| &report.labels);
        let labels: BTreeSet<String> = node
            .labels
            .keys()
            .filter(|key| is_image_label(key) && there.is_none_or(|there| !there.contains(*key)))
            .cloned()
            .collect();
        (!labels.is_empty()).then(|| (node.name.clone(), labels))
    });
    strays.collect()
}

/// Whether the key is one that stands for an image.
pub(super) fn is_image_label(key: &str) -> bool {
    key.strip_prefix(keys::PREFIX)
        .is_some_and(|hash| hash.len() == 32 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}
