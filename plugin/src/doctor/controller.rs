//! Whether the controller runs and leads; and what keeps any Deployment of Coral's from running.

use std::time::Duration;

use serde_json::Value;

use super::{
    Check, Finding, Subject,
    facts::{Facts, LeaseFacts, PodFacts},
    versions::UPGRADE,
};
use crate::{
    human,
    rollout::{self, Stage},
};

/// The Deployment, and the Lease of its pods.
pub(super) const CONTROLLER: &str = "coral-controller";
/// A container that started again so often, and lately, is not well.
const MANY_RESTARTS: i64 = 3;
/// How long ago the last restart counts.
const LATELY: Duration = Duration::from_hours(1);

/// Looks at the Deployment and the Lease.
pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let (mut findings, extent) = deployment(facts, Check::Controller, CONTROLLER);
    let subject = || Subject::namespaced("lease", &facts.namespace, CONTROLLER);
    let mut leader = "nobody knows who leads".to_owned();
    match &facts.lease {
        Err(unread) => findings.push(Finding::unread(
            Check::Controller,
            "the Lease of the controllers",
            unread,
        )),
        // Without a pod that runs nobody can hold it, and that has been said.
        Ok(_) if !is_running(facts, CONTROLLER) => {}
        Ok(lease) => match leads(lease.as_ref(), "nothing is planned") {
            Ok(holder) => leader = format!("{holder} leads"),
            Err(what) => findings.push(
                Finding::problem(Check::Controller, what)
                    .about(subject())
                    .remedy(logs(facts, CONTROLLER)),
            ),
        },
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            Check::Controller,
            format!("runs {}; {leader}", extent.unwrap_or_default()),
        ));
    }
    findings
}

/// Who leads, or what is wrong with the Lease and what comes of it.
pub(super) fn leads<'a>(lease: Option<&'a LeaseFacts>, so: &str) -> Result<&'a str, String> {
    let lease = lease.ok_or("there is no Lease, so no controller has ever led")?;
    let holder = lease.holder.as_deref().filter(|holder| !holder.is_empty());
    let holder = holder.ok_or_else(|| format!("no controller leads, so {so}"))?;
    match lease.moved {
        Some(false) => Err(format!("{holder} leads and does not renew the Lease, so {so}")),
        _ => Ok(holder),
    }
}

/// What is wrong with a Deployment of Coral's, and where it runs.
pub(super) fn deployment(facts: &Facts, check: Check, name: &str) -> (Vec<Finding>, Option<String>) {
    let subject = || Subject::namespaced("deployment", &facts.namespace, name);
    let parts = match &facts.parts {
        Ok(parts) => parts,
        Err(unread) => return (vec![Finding::unread(check, "its Deployment", unread)], None),
    };
    let Some(part) = parts.iter().find(|part| is(part, "Deployment", name)) else {
        let missing = Finding::problem(check, "there is none")
            .about(subject())
            .remedy(UPGRADE);
        return (vec![missing], None);
    };
    let mut findings = restarts(facts, check, name);
    let wanted = part["spec"]["replicas"].as_i64().unwrap_or(1);
    let available = part["status"]["availableReplicas"].as_i64().unwrap_or_default();
    if wanted == 0 {
        findings.push(
            Finding::problem(check, "it is scaled to zero")
                .about(subject())
                .remedy(format!(
                    "kubectl -n {} scale deployment {name} --replicas 2",
                    facts.namespace
                )),
        );
    } else if let Stage::Waiting(what) = rollout::stage(part) {
        let trouble = troubles(facts, name).next().map(|(_, trouble)| trouble);
        let what = trouble.map_or(what.clone(), |trouble| format!("{what}: {trouble}"));
        // What one replica does two need not do.
        let finding = if available > 0 {
            Finding::warning(check, what)
        } else {
            Finding::problem(check, what)
        };
        let remedy = format!(
            "kubectl -n {} describe pods -l app.kubernetes.io/name={name}",
            facts.namespace
        );
        findings.push(finding.about(subject()).remedy(remedy));
    }
    (findings, rollout::extent(part))
}

/// Whether the object is this part.
pub(super) fn is(part: &Value, kind: &str, name: &str) -> bool {
    part["kind"] == kind && part["metadata"]["name"] == name
}

/// Whether a Pod of the part is ready; who may not look takes it for running.
pub(super) fn is_running(facts: &Facts, part: &str) -> bool {
    match &facts.pods {
        Ok(pods) => pods
            .iter()
            .any(|pod| pod.part == part && pod.is_ready && !pod.is_terminating),
        Err(_) => true,
    }
}

/// The command that shows what the part says.
pub(super) fn logs(facts: &Facts, part: &str) -> String {
    format!(
        "kubectl -n {} logs -l app.kubernetes.io/name={part} --tail 50",
        facts.namespace
    )
}

/// What keeps the pods of a part from running.
pub(super) fn troubles<'a>(facts: &'a Facts, part: &'a str) -> impl Iterator<Item = (&'a PodFacts, String)> {
    let pods = facts.pods.as_deref().unwrap_or_default().iter();
    pods.filter(move |pod| pod.part == part)
        .filter_map(|pod| Some((pod, trouble(pod)?)))
}

/// `CrashLoopBackOff (no socket)`
pub(super) fn trouble(pod: &PodFacts) -> Option<String> {
    let (reason, message) = pod.trouble.as_ref()?;
    Some(match message.lines().next().unwrap_or_default() {
        // "back-off 5m0s restarting failed container=agent pod=coral-agent-x": nothing new, and another text for each Pod.
        message if message.is_empty() || message.contains(&pod.name) => reason.clone(),
        message => format!("{reason} ({message})"),
    })
}

/// Pods of a part that run, but do not stay.
pub(super) fn restarts(facts: &Facts, check: Check, part: &str) -> Vec<Finding> {
    let pods = facts.pods.as_deref().unwrap_or_default().iter();
    let unwell = pods.filter(|pod| pod.part == part && pod.restarts >= MANY_RESTARTS && pod.trouble.is_none());
    let unwell = unwell.filter_map(|pod| {
        let (reason, ended) = pod.last_end.as_ref()?;
        let is_late = human::between(*ended, facts.now) < LATELY;
        let logs = format!("kubectl -n {} logs --previous {}", facts.namespace, pod.name);
        let remedy = if reason == "OOMKilled" {
            format!(
                "its memory limit is too low: --set-agent-memory and --set-controller-memory of `{UPGRADE}`; `{logs}`"
            )
        } else {
            logs
        };
        is_late.then(|| {
            Finding::warning(
                check,
                format!("it was started again and again in the last hour, lately after {reason}"),
            )
            .about(Subject::namespaced("pod", &facts.namespace, &pod.name))
            .remedy(remedy)
        })
    });
    unwell.collect()
}
