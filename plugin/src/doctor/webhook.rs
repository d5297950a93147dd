//! Whether the API server reaches the webhook, and with certificates that last.

use coral_api::keys;
use serde_json::Value;

use super::{
    Check, Finding, Subject,
    certificate::{self, Age, Certificate},
    controller::{deployment, logs},
    facts::{Facts, WebhookSecret},
    versions::UPGRADE,
};
use crate::human;

/// The Deployment, and its Service.
const WEBHOOK: &str = keys::WEBHOOK_SERVICE;

/// Looks at what is between the API server and the webhook, and at what became of a Pod that should have been changed.
pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let (mut findings, extent) = deployment(facts, Check::Webhook, WEBHOOK);
    match &facts.webhook.configuration {
        Ok(Some(_)) => {}
        Ok(None) => findings.push(
            Finding::problem(Check::Webhook, "there is none, so annotated workloads stay as they are")
                .about(subject())
                .remedy(UPGRADE),
        ),
        Err(unread) => findings.push(Finding::unread(
            Check::Webhook,
            "the configuration of the webhook",
            unread,
        )),
    }
    match &facts.webhook.endpoints {
        Ok(0) => findings.push(
            Finding::problem(Check::Webhook, "no Pod of the webhook is ready behind it")
                .about(Subject::namespaced("service", &facts.namespace, WEBHOOK))
                .remedy(format!(
                    "kubectl -n {} get pods -l app.kubernetes.io/name={WEBHOOK}",
                    facts.namespace
                )),
        ),
        Ok(_) => {}
        Err(unread) => findings.push(Finding::unread(Check::Webhook, "the addresses of the webhook", unread)),
    }
    match &facts.webhook.trial {
        Ok(trial) if !trial.is_changed => findings.push(not_called(&trial.namespace, facts)),
        Ok(_) => {}
        Err(unread) => findings.push(Finding::unread(
            Check::Webhook,
            "what the webhook makes of a Pod (a creation for show)",
            unread,
        )),
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            Check::Webhook,
            format!("runs {}, and the API server reaches it", extent.unwrap_or_default()),
        ));
    }
    findings
}

fn subject() -> Subject {
    Subject::cluster_wide("mutatingwebhookconfiguration", keys::WEBHOOK_CONFIGURATION)
}

/// What to say of a Pod that came back as it was.
fn not_called(namespace: &str, facts: &Facts) -> Finding {
    let what = format!("a Pod with Coral's annotation was admitted unchanged in namespace {namespace}");
    let hooks = facts.webhook.configuration.as_ref().ok().and_then(Option::as_ref);
    let narrowed = hooks.is_some_and(|hooks| {
        let mut hooks = hooks["webhooks"].as_array().into_iter().flatten();
        hooks.any(|hook| {
            ["namespaceSelector", "objectSelector"]
                .iter()
                .any(|field| is_narrow(&hook[*field]))
        })
    });
    if narrowed {
        return Finding::warning(
            Check::Webhook,
            format!("{what}; selectors in the configuration of the webhook may leave it out"),
        )
        .remedy("-n NAMESPACE tries one that they do not leave out");
    }
    Finding::problem(
        Check::Webhook,
        format!("{what}: the API server did not get an answer from the webhook"),
    )
    .remedy(format!(
        "`{}`; and may the API server reach port 8443 of pods? (firewalls, network policies)",
        logs(facts, WEBHOOK)
    ))
}

fn is_narrow(selector: &Value) -> bool {
    selector.as_object().is_some_and(|selector| !selector.is_empty())
}

/// Looks at the certificates.
pub(super) fn check_certificates(facts: &Facts) -> Vec<Finding> {
    let Ok(Some(configuration)) = &facts.webhook.configuration else {
        // That has been said.
        return Vec::new();
    };
    let mut findings = Vec::new();
    let bundle = check_bundle(configuration, facts, &mut findings);
    let ok = match &facts.webhook.secret {
        Err(unread) => {
            findings.push(Finding::unread(
                Check::Certificates,
                "the certificates of the webhook",
                unread,
            ));
            None
        }
        Ok(secret) => check_secret(secret.as_ref(), &bundle, facts, &mut findings),
    };
    if let (true, Some(ok)) = (findings.is_empty(), ok) {
        findings.push(Finding::ok(Check::Certificates, ok));
    }
    findings
}

/// Reads the authorities that the API server goes by.
fn check_bundle(configuration: &Value, facts: &Facts, findings: &mut Vec<Finding>) -> Vec<Certificate> {
    let remedy = || {
        format!(
            "the webhook writes it when it runs: `{}`; with --cert-dir whoever makes the certificates does",
            logs(facts, WEBHOOK)
        )
    };
    let mut add = |what: &str| {
        let finding = Finding::problem(Check::Certificates, what);
        findings.push(finding.about(subject()).remedy(remedy()));
    };
    let text = configuration["webhooks"][0]["clientConfig"]["caBundle"]
        .as_str()
        .unwrap_or_default();
    if text.is_empty() {
        add("its caBundle is empty, so the API server trusts no webhook");
        return Vec::new();
    }
    let bytes = serde_json::from_value::<k8s_openapi::ByteString>(text.into()).ok();
    let Some(bundle) = bytes
        .and_then(|bytes| certificate::read_all(&bytes.0))
        .filter(|all| !all.is_empty())
    else {
        add("its caBundle has no certificates that can be read");
        return Vec::new();
    };
    if bundle.iter().all(|one| matches!(one.age(facts.now), Age::Over(_))) {
        add("every authority in its caBundle has expired");
    }
    bundle
}

/// Looks at the certificate that the webhook shows, where it keeps it itself; says how long it lasts.
fn check_secret(
    secret: Option<&WebhookSecret>,
    bundle: &[Certificate],
    facts: &Facts,
    findings: &mut Vec<Finding>,
) -> Option<String> {
    let about = |finding: Finding| finding.about(Subject::namespaced("secret", &facts.namespace, keys::WEBHOOK_SECRET));
    let Some((secret, serving)) = secret.and_then(|secret| Some((secret, secret.serving.as_ref()?))) else {
        // With --cert-dir the Secret stays empty; then the trial tells whether it works.
        return Some("somebody else keeps them (--cert-dir), or the webhook has not made any yet".to_owned());
    };
    let remedy = logs(facts, WEBHOOK);
    if let Some(authority) = &secret.authority
        && !bundle.is_empty()
        && !bundle.contains(authority)
    {
        findings.push(
            Finding::problem(
                Check::Certificates,
                "its caBundle has not the authority that signs the webhook's certificate, so the API server refuses to call it",
            )
            .about(subject())
            .remedy(format!("the webhook puts that right when it runs: `{remedy}`")),
        );
    }
    let host = format!("{WEBHOOK}.{}.svc", facts.namespace);
    if !serving.hosts.contains(&host) {
        let what = format!(
            "the certificate is for {}, not for {host}",
            human::some_of(&serving.hosts, 3)
        );
        findings.push(about(Finding::problem(Check::Certificates, what)).remedy(remedy.clone()));
    }
    match serving.age(facts.now) {
        Age::Good(left) => return Some(format!("last for {}, and are renewed before", human::duration(left))),
        Age::Old(left) => {
            let what = format!(
                "the certificate ends in {} and should have been renewed",
                human::duration(left)
            );
            findings.push(about(Finding::warning(Check::Certificates, what)).remedy(remedy));
        }
        Age::Over(since) => {
            let what = format!("the certificate ended {} ago", human::duration(since));
            findings.push(about(Finding::problem(Check::Certificates, what)).remedy(remedy));
        }
        Age::Early(wait) => {
            let what = format!("the certificate begins in {}", human::duration(wait));
            findings.push(
                about(Finding::problem(Check::Certificates, what))
                    .remedy("is the clock of this machine right, and that of the nodes?"),
            );
        }
    }
    None
}
