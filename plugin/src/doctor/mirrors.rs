//! Mirrors that do not get their copies, or whose copies no pod can use.

use std::{collections::BTreeSet, time::Duration};

use coral_api::{
    FailureReason, ImageReference,
    conditions::{self, STALLED},
    keys,
};

use super::{
    Check, Finding, Subject,
    agents::A_WHILE,
    controller::{deployment, is, is_running, leads, logs, trouble},
    facts::{
        Facts,
        mirrors::{CollectorFacts, Content, MirrorFacts, SecretFacts},
    },
};
use crate::{human, mirror::advice::advice};

/// The Deployment and the Lease of the mirror controllers.
pub(super) const CONTROLLER: &str = keys::MIRROR_SERVICE_ACCOUNT;
/// The DaemonSet by which nodes reach the registry in the cluster.
const RELAY: &str = "coral-relay";
/// The `CronJob` that gives the space of the registry in the cluster back.
pub(super) const COLLECTOR: &str = "coral-registry-collector";
/// What makes copies, where it is not there.
const INSTALL: &str = "kubectl coral upgrade --component mirror";
/// Originals that nobody has looked at for so many of their intervals are not looked at.
const INTERVALS: u32 = 3;
/// How long an interval may be late whatever it is: after a start there is much to look at.
const LATE: Duration = Duration::from_mins(15);
/// A collector that runs every week should have succeeded in this time.
const COLLECTED: Duration = Duration::from_hours(2 * 7 * 24);

/// Looks at the mirror controller, at each Mirror, and at what they depend on. Where nobody asks for copies there is nothing to say.
pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mirrors = match &facts.mirrors.all {
        Ok(mirrors) => mirrors,
        Err(unread) if unread.is_unknown_type => return Vec::new(),
        Err(unread) => return vec![Finding::unread(Check::Mirrors, "Mirrors", unread)],
    };
    let is_installed = match &facts.parts {
        Ok(parts) => parts.iter().any(|part| is(part, "Deployment", CONTROLLER)),
        Err(_) => true,
    };
    if !is_installed && mirrors.is_empty() {
        return Vec::new();
    }
    if !is_installed {
        let what = "nothing makes its copies: there is no mirror controller";
        let finding = |mirror: &MirrorFacts| {
            Finding::problem(Check::Mirrors, what)
                .about(subject(mirror))
                .remedy(INSTALL)
        };
        return mirrors.iter().map(finding).collect();
    }
    let (mut findings, extent) = deployment(facts, Check::Mirrors, CONTROLLER);
    findings.extend(lease(facts));
    findings.extend(mirrors.iter().flat_map(|mirror| look(mirror, facts)));
    findings.extend(facts.mirrors.secrets.iter().filter_map(secret));
    findings.extend(relays(mirrors, facts));
    findings.extend(collector(facts));
    if findings.is_empty() {
        let all = match mirrors.len() {
            0 => "there is no Mirror yet".to_owned(),
            1 => "1 Mirror, and nothing fails".to_owned(),
            number => format!("{} Mirrors, and nothing fails", human::count(number)),
        };
        let runs = extent.map_or(String::new(), |extent| format!("the controller runs {extent}; "));
        findings.push(Finding::ok(Check::Mirrors, format!("{runs}{all}")));
    }
    findings
}

fn subject(mirror: &MirrorFacts) -> Subject {
    Subject::cluster_wide("mirror", &mirror.name)
}

fn lease(facts: &Facts) -> Option<Finding> {
    match &facts.mirrors.lease {
        Err(unread) => Some(Finding::unread(
            Check::Mirrors,
            "the Lease of the mirror controllers",
            unread,
        )),
        // Without a pod that runs nobody can hold it, and that has been said.
        Ok(_) if !is_running(facts, CONTROLLER) => None,
        Ok(lease) => {
            let what = leads(lease.as_ref(), "nothing is copied").err()?;
            let about = Subject::namespaced("lease", &facts.namespace, CONTROLLER);
            Some(
                Finding::problem(Check::Mirrors, what)
                    .about(about)
                    .remedy(logs(facts, CONTROLLER)),
            )
        }
    }
}

fn look(mirror: &MirrorFacts, facts: &Facts) -> Vec<Finding> {
    let mut findings = failures(mirror);
    let name = &mirror.name;
    let is_stalled = conditions::find(&mirror.conditions, STALLED).is_some_and(|stalled| stalled.status == "True");
    if is_stalled && findings.is_empty() {
        findings.push(
            Finding::problem(Check::Mirrors, "it is stalled")
                .remedy(format!("kubectl coral mirror status --mirror {name} --failed")),
        );
    }
    if mirror.is_suspended {
        findings.push(
            Finding::note(Check::Mirrors, "it is suspended: nothing is copied or removed").remedy(format!(
                "kubectl patch mirror {name} --type merge -p '{{\"spec\":{{\"suspend\":false}}}}'"
            )),
        );
    } else if is_running(facts, CONTROLLER) {
        findings.extend(silence(mirror, facts));
    }
    if mirror.rewrites
        && facts
            .webhook
            .configuration
            .as_ref()
            .is_ok_and(|found| !asks_about_rewriting(found.as_ref()))
    {
        findings.push(
            Finding::problem(
                Check::Mirrors,
                "new pods are to use its copies, but the API server does not ask the webhook about that",
            )
            .remedy(INSTALL),
        );
    }
    findings
        .into_iter()
        .map(|finding| finding.about(subject(mirror)))
        .collect()
}

/// What keeps copies from being made: one finding for each registry and reason.
fn failures(mirror: &MirrorFacts) -> Vec<Finding> {
    let mut told: BTreeSet<(String, bool, &str)> = BTreeSet::new();
    let mut findings = Vec::new();
    for failure in &mirror.failures {
        let is_about_copy = !failure.registry.is_empty();
        let registry = if is_about_copy {
            failure.registry.clone()
        } else {
            origin(&failure.image)
        };
        let reason = failure.failure.reason;
        if !told.insert((registry.clone(), is_about_copy, reason.as_str())) {
            continue;
        }
        let what = if is_about_copy {
            format!("copies do not get into {registry} ({})", reason.as_str())
        } else {
            format!("originals in {registry} are not to be had ({})", reason.as_str())
        };
        // One name that does not exist stops nothing else.
        let finding = if is_about_copy || reason != FailureReason::NotFound {
            Finding::problem(Check::Mirrors, what)
        } else {
            Finding::warning(Check::Mirrors, what)
        };
        findings.push(finding.remedy(format!(
            "`kubectl coral mirror status --mirror {} --failed` has the registry's words; {}",
            mirror.name,
            advice(reason, &failure.image, &failure.registry)
        )));
    }
    findings
}

fn origin(image: &str) -> String {
    let parsed = image.parse::<ImageReference>();
    parsed.map_or_else(|_| image.to_owned(), |image| image.registry().to_owned())
}

/// Whether the controller has nothing to say of a Mirror, or has not looked at its originals for long.
fn silence(mirror: &MirrorFacts, facts: &Facts) -> Option<Finding> {
    let is_new = mirror
        .created
        .is_some_and(|created| human::between(created, facts.now) < A_WHILE);
    if mirror.conditions.is_empty() && !is_new {
        return Some(
            Finding::problem(
                Check::Mirrors,
                "the mirror controller has said nothing of it for longer than two minutes",
            )
            .remedy(logs(facts, CONTROLLER)),
        );
    }
    let (interval, looked) = (mirror.interval?, mirror.oldest_look?);
    let allowed = interval.saturating_mul(INTERVALS).saturating_add(LATE);
    (human::between(looked, facts.now) > allowed).then(|| {
        let what = format!(
            "some of its originals were last looked at {} ago, though refreshInterval is {}",
            human::age(looked, facts.now),
            human::duration(interval)
        );
        Finding::warning(Check::Mirrors, what).remedy(format!(
            "`{}`; registries that limit requests want a longer refreshInterval",
            logs(facts, CONTROLLER)
        ))
    })
}

fn asks_about_rewriting(configuration: Option<&serde_json::Value>) -> bool {
    let hooks = configuration.and_then(|configuration| configuration["webhooks"].as_array());
    hooks
        .into_iter()
        .flatten()
        .any(|hook| hook["name"] == keys::REWRITE_WEBHOOK)
}

/// Whether a Secret is there, has what it is to have, and may be read.
fn secret(secret: &SecretFacts) -> Option<Finding> {
    let SecretFacts {
        usage,
        mirror,
        is_granted,
        fits,
    } = secret;
    let (namespace, name) = (&usage.namespace, &usage.name);
    let about = |finding: Finding| Some(finding.about(Subject::namespaced("secret", namespace, name)));
    let create = match usage.content {
        Content::Credentials => format!("kubectl -n {namespace} create secret docker-registry {name} …"),
        Content::Authority => format!("kubectl -n {namespace} create secret generic {name} --from-file ca.crt"),
    };
    match fits {
        Ok(None) => {
            let purpose = match usage.content {
                Content::Credentials => "for credentials",
                Content::Authority => "for an authority's certificate",
            };
            let what = format!("mirror {mirror} names this Secret {purpose}, and there is none");
            return about(Finding::problem(Check::Mirrors, what).remedy(create));
        }
        Ok(Some(false)) => {
            let wanted = match usage.content {
                Content::Credentials => "credentials (type kubernetes.io/dockerconfigjson)",
                Content::Authority => "a ca.crt with certificates in PEM form",
            };
            let what = format!(
                "mirror {mirror} names this Secret, which has no {}",
                wanted.trim_start_matches("a ")
            );
            return about(Finding::problem(Check::Mirrors, what).remedy(format!("delete it, then `{create}`")));
        }
        // Whoever may not read Secrets still learns whether the controller may.
        Ok(Some(true)) | Err(_) => {}
    }
    match is_granted {
        Ok(true) => None,
        Ok(false) => {
            let what = format!("the mirror controller may not read this Secret, which mirror {mirror} names");
            let remedy = format!("kubectl coral allow-secret {name} -n {namespace} --mirror");
            about(Finding::problem(Check::Mirrors, what).remedy(remedy))
        }
        Err(unread) => Some(Finding::unread(
            Check::Mirrors,
            "who may read the Secrets of Mirrors",
            unread,
        )),
    }
}

/// Whether nodes reach copies that are to be had at the relay.
fn relays(mirrors: &[MirrorFacts], facts: &Facts) -> Vec<Finding> {
    let address = format!("localhost:{}", keys::RELAY_PORT);
    let users: Vec<&MirrorFacts> = mirrors
        .iter()
        .filter(|mirror| mirror.node_addresses.contains(&address))
        .collect();
    let (Ok(parts), false) = (&facts.parts, users.is_empty()) else {
        return Vec::new();
    };
    if !parts.iter().any(|part| is(part, "DaemonSet", RELAY)) {
        let what = format!("nodes are to get its copies at {address}, and there is no relay");
        let finding = |mirror: &&MirrorFacts| {
            Finding::problem(Check::Mirrors, what.clone())
                .about(subject(mirror))
                .remedy("`kubectl coral upgrade --with-registry`, or another nodeAddress")
        };
        return users.iter().map(finding).collect();
    }
    let Ok(pods) = &facts.pods else { return Vec::new() };
    let here: BTreeSet<&str> = answering(facts, pods).collect();
    let nodes = facts.nodes.as_deref().unwrap_or_default().iter();
    let missing = nodes.filter(|node| node.is_linux && node.is_ready && !here.contains(node.name.as_str()));
    missing
        .map(|node| {
            let pod = pods
                .iter()
                .find(|pod| pod.part == RELAY && pod.node.as_ref() == Some(&node.name));
            let why = match pod {
                Some(pod) => trouble(pod).unwrap_or_else(|| "it is not ready".to_owned()),
                None => "there is none".to_owned(),
            };
            Finding::warning(
                Check::Mirrors,
                format!("its relay does not answer, so it gets no copies: {why}"),
            )
            .about(Subject::node(&node.name))
            .remedy(format!(
                "kubectl -n {} describe pods -l app.kubernetes.io/name={RELAY}",
                facts.namespace
            ))
        })
        .collect()
}

/// Nodes whose relay answers, or has not had the time to.
fn answering<'a>(facts: &'a Facts, pods: &'a [super::facts::PodFacts]) -> impl Iterator<Item = &'a str> {
    let is_new = |pod: &super::facts::PodFacts| {
        pod.created
            .is_some_and(|created| human::between(created, facts.now) < A_WHILE)
    };
    let relays = pods.iter().filter(|pod| pod.part == RELAY && !pod.is_terminating);
    relays
        .filter(move |pod| pod.is_ready || is_new(pod))
        .filter_map(|pod| pod.node.as_deref())
}

/// Whether the registry in the cluster gets its space back.
fn collector(facts: &Facts) -> Option<Finding> {
    let about = Subject::namespaced("cronjob", &facts.namespace, COLLECTOR);
    let collector = match &facts.mirrors.collector {
        Ok(Some(collector)) => collector,
        Ok(None) => return None,
        Err(unread) => return Some(Finding::unread(Check::Mirrors, "the collector of the registry", unread)),
    };
    let CollectorFacts {
        created,
        is_suspended,
        last_start,
        last_success,
    } = collector;
    let jobs = format!(
        "kubectl -n {0} get jobs; kubectl -n {0} logs -l app.kubernetes.io/name={1} --tail 50",
        facts.namespace, COLLECTOR
    );
    if *is_suspended {
        let what = "it is suspended, so the registry gets no space back";
        return Some(Finding::note(Check::Mirrors, what).about(about));
    }
    let since = last_success.or(*created)?;
    let has_failed = last_start.is_some_and(|start| start > since && human::between(start, facts.now) > LATE);
    let is_late = human::between(since, facts.now) > COLLECTED;
    (has_failed || is_late).then(|| {
        let what = match last_success {
            Some(success) => format!(
                "it last succeeded {} ago, so the registry gets no space back",
                human::age(*success, facts.now)
            ),
            None => "it has never succeeded, so the registry gets no space back".to_owned(),
        };
        Finding::warning(Check::Mirrors, what).about(about).remedy(jobs)
    })
}
