//! Prefetches that cannot come to anything, and pull secrets that nobody may read.

use coral_api::conditions::{self, STALLED};
use kube::core::Selector;

use super::{
    Check, Finding, Subject,
    agents::{A_WHILE, controller_runs, selects},
    facts::{Facts, Grant, NodeFacts, PrefetchFacts},
};
use crate::human;

/// Looks at each Prefetch.
pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let prefetches = match &facts.prefetches {
        Ok(prefetches) => prefetches,
        Err(unread) => return vec![Finding::unread(Check::Prefetches, "Prefetches", unread)],
    };
    let mut findings: Vec<Finding> = prefetches
        .iter()
        .flat_map(|prefetch| look(prefetch, facts))
        .chain(facts.access.grants.iter().filter_map(secret))
        .collect();
    if findings.is_empty() {
        let all = match prefetches.len() {
            0 => "there is none yet".to_owned(),
            1 => "1 Prefetch; it selects nodes and is not stalled".to_owned(),
            number => format!(
                "{} Prefetches; each selects nodes, and none is stalled",
                human::count(number)
            ),
        };
        findings.push(Finding::ok(Check::Prefetches, all));
    }
    if facts.access.grants_left_out > 0 {
        findings.push(Finding::note(
            Check::Prefetches,
            format!(
                "there are so many pull secrets that {} of them were not looked at",
                facts.access.grants_left_out
            ),
        ));
    }
    findings
}

fn look(prefetch: &PrefetchFacts, facts: &Facts) -> Vec<Finding> {
    let PrefetchFacts { namespace, name, .. } = prefetch;
    let about = |finding: Finding| finding.about(Subject::namespaced("prefetch", namespace, name));
    let mut findings = Vec::new();
    if let Ok(nodes) = &facts.nodes
        && !matches_any(prefetch, nodes)
    {
        findings.push(about(
            Finding::warning(Check::Prefetches, "its node selector matches no Linux node").remedy(format!(
                "kubectl -n {namespace} edit prefetch {name}; kubectl get nodes --show-labels"
            )),
        ));
    }
    match conditions::find(&prefetch.conditions, STALLED) {
        Some(stalled) if stalled.status == "True" => findings.push(about(
            Finding::warning(Check::Prefetches, format!("it is stalled ({})", stalled.reason))
                .remedy(format!("kubectl coral status {name} -n {namespace}")),
        )),
        _ => {}
    }
    let is_new = prefetch
        .created
        .is_some_and(|created| human::between(created, facts.now) < A_WHILE);
    if prefetch.conditions.is_empty() && !is_new && controller_runs(facts) {
        findings.push(about(
            Finding::problem(
                Check::Prefetches,
                "the controller has said nothing of it for longer than two minutes",
            )
            .remedy(super::controller::logs(facts, super::controller::CONTROLLER)),
        ));
    }
    findings
}

fn matches_any(prefetch: &PrefetchFacts, nodes: &[NodeFacts]) -> bool {
    let selector = prefetch.selector.clone().map(Selector::try_from);
    match selector.transpose() {
        Ok(selector) => nodes.iter().any(|node| selects(selector.as_ref(), node)),
        // The API server lets none of those in; the controller would say what is wrong.
        Err(_) => true,
    }
}

/// Whether the agents may read a pull secret, and it is there.
fn secret(grant: &Grant) -> Option<Finding> {
    let Grant {
        namespace,
        secret,
        prefetch,
        ..
    } = grant;
    let about = |finding: Finding| finding.about(Subject::namespaced("secret", namespace, secret));
    if grant.exists == Some(false) {
        return Some(about(
            Finding::problem(
                Check::Prefetches,
                format!("prefetch {prefetch} names this pull secret, and there is none"),
            )
            .remedy(format!(
                "kubectl -n {namespace} create secret docker-registry {secret} …"
            )),
        ));
    }
    match &grant.is_granted {
        Ok(true) => None,
        Ok(false) => Some(about(
            Finding::problem(
                Check::Prefetches,
                format!("Coral's agents may not read this pull secret, which prefetch {prefetch} names"),
            )
            .remedy(format!("kubectl coral allow-secret {secret} -n {namespace}")),
        )),
        Err(unread) => Some(Finding::unread(Check::Prefetches, "who may read pull secrets", unread)),
    }
}
