//! Cases of Mirrors, and of what they depend on.

use coral_api::{keys, mirror::MirrorFailure};

use super::*;
use crate::doctor::facts::mirrors::{CollectorFacts, Content, MirrorFacts, SecretFacts, SecretUse};

/// A Mirror of which all is well, with all that it depends on.
fn mirrored(facts: &mut Facts) {
    parts(facts).push(deployment("coral-mirror", 2));
    parts(facts).push(part("DaemonSet", "coral-relay", json!({"spec": {}, "status": {}})));
    pods(facts).extend([
        pod("coral-mirror", "coral-mirror-a", "node-1"),
        pod("coral-relay", "coral-relay-1", "node-1"),
        pod("coral-relay", "coral-relay-2", "node-2"),
    ]);
    let hooks = facts.webhook.configuration.as_mut().unwrap().as_mut().unwrap();
    let mut rewriting = hooks["webhooks"][0].clone();
    rewriting["name"] = keys::REWRITE_WEBHOOK.into();
    hooks["webhooks"].as_array_mut().unwrap().push(rewriting);
    facts.mirrors = MirrorsFacts {
        all: Ok(vec![MirrorFacts {
            name: "all".to_owned(),
            created: Some(before(60)),
            rewrites: true,
            node_addresses: vec!["localhost:7439".to_owned()],
            interval: Some(Duration::from_hours(1)),
            conditions: conditions(&[condition("Ready", "True", "Copied", "")]),
            oldest_look: Some(before(100)),
            ..MirrorFacts::default()
        }]),
        secrets: vec![secret(Content::Credentials)],
        lease: Ok(Some(LeaseFacts {
            holder: Some("coral-mirror-a".to_owned()),
            moved: None,
        })),
        collector: Ok(Some(CollectorFacts {
            created: Some(before(60 * 24 * 100)),
            last_start: Some(before(60 * 24 * 6)),
            last_success: Some(before(60 * 24 * 6)),
            is_suspended: false,
        })),
    };
}

fn secret(content: Content) -> SecretFacts {
    SecretFacts {
        usage: SecretUse {
            namespace: "shop".to_owned(),
            name: "regcred".to_owned(),
            content,
        },
        mirror: "all".to_owned(),
        is_granted: Ok(true),
        fits: Ok(Some(true)),
    }
}

fn mirror(facts: &mut Facts) -> &mut MirrorFacts {
    mirrored(facts);
    &mut facts.mirrors.all.as_mut().unwrap()[0]
}

fn named(facts: &mut Facts) -> &mut SecretFacts {
    mirrored(facts);
    &mut facts.mirrors.secrets[0]
}

fn collector(facts: &mut Facts) -> &mut CollectorFacts {
    mirrored(facts);
    facts.mirrors.collector.as_mut().unwrap().as_mut().unwrap()
}

fn failure(image: &str, registry: &str, reason: &str) -> MirrorFailure {
    let failure =
        json!({"image": image, "registry": registry, "reason": reason, "message": "so it said", "attempts": 2});
    serde_json::from_value(failure).unwrap()
}

#[test]
fn the_mirror_controller_and_its_lease_are_looked_at() {
    assert_cases(&[
        ("all is well", mirrored, &[]),
        ("nobody asks for copies", |_| (), &[]),
        (
            "a server without Mirrors",
            |facts| {
                facts.mirrors.all = Err(Unread {
                    is_unknown_type: true,
                    ..forbidden()
                });
            },
            &[],
        ),
        (
            "a Mirror, and nothing that makes copies",
            |facts| {
                mirrored(facts);
                parts(facts).retain(|part| part["metadata"]["name"] != "coral-mirror");
            },
            &[
                "problem mirrors: mirror/all: nothing makes its copies: there is no mirror controller | kubectl coral upgrade --component mirror",
            ],
        ),
        (
            "a controller that does not run",
            |facts| {
                mirrored(facts);
                for part in parts(facts)
                    .iter_mut()
                    .filter(|part| part["metadata"]["name"] == "coral-mirror")
                {
                    part["status"]["availableReplicas"] = 0.into();
                }
                pods(facts).retain(|pod| pod.part != "coral-mirror");
            },
            &["problem mirrors: deployment/coral-system/coral-mirror: 0 of 2 ready"],
        ),
        (
            "nobody leads",
            |facts| {
                mirrored(facts);
                facts.mirrors.lease = Ok(Some(LeaseFacts::default()));
            },
            &[
                "problem mirrors: lease/coral-system/coral-mirror: no controller leads, so nothing is copied | kubectl -n coral-system logs -l app.kubernetes.io/name=coral-mirror",
            ],
        ),
    ]);
}

#[test]
fn each_mirror_is_looked_at() {
    assert_cases(&[
        (
            "its registry is away, and so is that of an original",
            |facts| {
                mirror(facts).failures = vec![
                    failure("docker.io/library/nginx:1", "r.lan", "RegistryUnavailable"),
                    failure("docker.io/library/redis:8", "r.lan", "RegistryUnavailable"),
                    failure("ghcr.io/acme/app:v1", "", "Unauthorized"),
                    failure("ghcr.io/acme/gone:v1", "", "NotFound"),
                ];
            },
            &[
                "problem mirrors: mirror/all: copies do not get into r.lan (RegistryUnavailable) | `kubectl coral mirror status --mirror all --failed` has the registry's words; check that Coral's Pods reach r.lan",
                "problem mirrors: mirror/all: originals in ghcr.io are not to be had (Unauthorized)",
                "warning mirrors: mirror/all: originals in ghcr.io are not to be had (NotFound)",
            ],
        ),
        (
            "stalled for a reason that is not among the failures",
            |facts| mirror(facts).conditions = conditions(&[condition("Stalled", "True", "Failed", "")]),
            &["problem mirrors: mirror/all: it is stalled | kubectl coral mirror status --mirror all --failed"],
        ),
        (
            "suspended, and so not looked at",
            |facts| {
                let mirror = mirror(facts);
                mirror.oldest_look = Some(before(60 * 24 * 30));
                mirror.is_suspended = true;
            },
            &["note mirrors: mirror/all: it is suspended: nothing is copied or removed | kubectl patch mirror all"],
        ),
        (
            "nothing is said of it",
            |facts| mirror(facts).conditions = Vec::new(),
            &["problem mirrors: mirror/all: the mirror controller has said nothing of it for longer than two minutes"],
        ),
        (
            "it is new",
            |facts| {
                let mirror = mirror(facts);
                mirror.conditions = Vec::new();
                mirror.created = Some(before(1));
            },
            &[],
        ),
        (
            "its originals are not looked at",
            |facts| mirror(facts).oldest_look = Some(before(60 * 4)),
            &[
                "warning mirrors: mirror/all: some of its originals were last looked at 4h ago, though refreshInterval is 60m",
            ],
        ),
        (
            "they are, on demand",
            |facts| {
                let mirror = mirror(facts);
                mirror.oldest_look = Some(before(60 * 24 * 30));
                mirror.interval = None;
            },
            &[],
        ),
        (
            "pods are to use its copies, and nobody asks the webhook",
            |facts| {
                mirrored(facts);
                let hooks = facts.webhook.configuration.as_mut().unwrap().as_mut().unwrap();
                hooks["webhooks"].as_array_mut().unwrap().pop();
            },
            &[
                "problem mirrors: mirror/all: new pods are to use its copies, but the API server does not ask the webhook about that | kubectl coral upgrade --component mirror",
            ],
        ),
    ]);
}

#[test]
fn what_mirrors_depend_on_is_looked_at() {
    assert_cases(&[
        (
            "a Secret that is not there",
            |facts| named(facts).fits = Ok(None),
            &[
                "problem mirrors: secret/shop/regcred: mirror all names this Secret for credentials, and there is none | kubectl -n shop create secret docker-registry regcred",
            ],
        ),
        (
            "an authority without a certificate",
            |facts| {
                *named(facts) = SecretFacts {
                    fits: Ok(Some(false)),
                    ..secret(Content::Authority)
                };
            },
            &[
                "problem mirrors: secret/shop/regcred: mirror all names this Secret, which has no ca.crt with certificates in PEM form | delete it, then `kubectl -n shop create secret generic regcred --from-file ca.crt`",
            ],
        ),
        (
            "a Secret that may not be read, by neither",
            |facts| {
                let secret = named(facts);
                secret.fits = Err(forbidden());
                secret.is_granted = Ok(false);
            },
            &[
                "problem mirrors: secret/shop/regcred: the mirror controller may not read this Secret, which mirror all names | kubectl coral allow-secret regcred -n shop --mirror",
            ],
        ),
        (
            "a relay that does not answer, one that is new, and one that is missing",
            |facts| {
                mirrored(facts);
                facts.nodes.as_mut().unwrap().push(node("node-3"));
                parts(facts)[0]["status"]["desiredNumberScheduled"] = 3.into();
                parts(facts)[0]["status"]["updatedNumberScheduled"] = 3.into();
                parts(facts)[0]["status"]["numberAvailable"] = 3.into();
                pods(facts).push(pod("coral-agent", "coral-agent-3", "node-3"));
                facts
                    .reports
                    .as_mut()
                    .unwrap()
                    .insert("node-3".to_owned(), agent_report());
                for pod in pods(facts).iter_mut().filter(|pod| pod.part == "coral-relay") {
                    pod.is_ready = false;
                    if pod.name == "coral-relay-1" {
                        pod.created = Some(before(1));
                    } else {
                        pod.trouble = Some(("CrashLoopBackOff".to_owned(), "the port is taken".to_owned()));
                    }
                }
            },
            &[
                "warning mirrors: node/node-2: its relay does not answer, so it gets no copies: CrashLoopBackOff (the port is taken) | kubectl -n coral-system describe pods -l app.kubernetes.io/name=coral-relay",
                "warning mirrors: node/node-3: its relay does not answer, so it gets no copies: there is none",
            ],
        ),
        (
            "no relay at all",
            |facts| {
                mirrored(facts);
                parts(facts).retain(|part| part["metadata"]["name"] != "coral-relay");
            },
            &["problem mirrors: mirror/all: nodes are to get its copies at localhost:7439, and there is no relay"],
        ),
        (
            "a collector that fails",
            |facts| collector(facts).last_start = Some(before(60)),
            &["warning mirrors: cronjob/coral-system/coral-registry-collector: it last succeeded 6d ago"],
        ),
        (
            "a collector that is under way",
            |facts| collector(facts).last_start = Some(before(1)),
            &[],
        ),
        (
            "a collector that is not started any more",
            |facts| {
                let collector = collector(facts);
                collector.last_start = Some(before(60 * 24 * 20));
                collector.last_success = collector.last_start;
            },
            &["warning mirrors: cronjob/coral-system/coral-registry-collector: it last succeeded 20d ago"],
        ),
        (
            "a new one",
            |facts| {
                *collector(facts) = CollectorFacts {
                    created: Some(before(60)),
                    ..CollectorFacts::default()
                };
            },
            &[],
        ),
    ]);
}
