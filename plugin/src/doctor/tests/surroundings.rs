//! Cases of what is around the parts: the way to the webhook, kubelets, nodes, and what people want.

use super::*;

#[test]
fn the_way_to_the_webhook_is_looked_at() {
    assert_cases(&[
        (
            "nobody answers",
            |facts| {
                parts(facts)[2]["spec"]["replicas"] = 0.into();
                facts.webhook.endpoints = Ok(0);
                facts.webhook.trial.as_mut().unwrap().is_changed = false;
            },
            &[
                "problem webhook: deployment/coral-system/coral-webhook: it is scaled to zero",
                "problem webhook: service/coral-system/coral-webhook: no Pod of the webhook is ready behind it",
                "problem webhook: a Pod with Coral's annotation was admitted unchanged in namespace shop: the API server did not get an answer",
            ],
        ),
        (
            "selectors that may leave the namespace out",
            |facts| {
                facts.webhook.trial.as_mut().unwrap().is_changed = false;
                let hooks = facts.webhook.configuration.as_mut().unwrap().as_mut().unwrap();
                hooks["webhooks"][0]["namespaceSelector"] = json!({"matchLabels": {"team": "a"}});
            },
            &["warning webhook: a Pod with Coral's annotation was admitted unchanged in namespace shop; selectors"],
        ),
        (
            "no configuration",
            |facts| facts.webhook.configuration = Ok(None),
            &["problem webhook: mutatingwebhookconfiguration/coral-webhook: there is none"],
        ),
        (
            "an authority that nobody signs with",
            |facts| facts.webhook.configuration = Ok(Some(configuration(&certificate("2026-05-01", "2027-05-01").1))),
            &["problem certificates: mutatingwebhookconfiguration/coral-webhook: its caBundle has not the authority"],
        ),
        (
            "no authority",
            |facts| facts.webhook.configuration = Ok(Some(configuration(""))),
            &["problem certificates: mutatingwebhookconfiguration/coral-webhook: its caBundle is empty"],
        ),
        (
            "an authority that is none",
            |facts| facts.webhook.configuration = Ok(Some(configuration("hello"))),
            &["problem certificates: mutatingwebhookconfiguration/coral-webhook: its caBundle has no certificates"],
        ),
        (
            "certificates that are over",
            |facts| {
                let (serving, text) = certificate("2026-01-01", "2026-05-31");
                facts.webhook.secret = Ok(Some(WebhookSecret {
                    serving: Some(serving.clone()),
                    authority: Some(serving),
                }));
                facts.webhook.configuration = Ok(Some(configuration(&text)));
            },
            &[
                "problem certificates: mutatingwebhookconfiguration/coral-webhook: every authority in its caBundle has expired",
                "problem certificates: secret/coral-system/coral-webhook-tls: the certificate ended 24h ago",
            ],
        ),
        (
            "a certificate that nobody renews",
            |facts| {
                let secret = facts.webhook.secret.as_mut().unwrap().as_mut().unwrap();
                secret.serving = Some(certificate("2026-01-01", "2026-06-11").0);
            },
            &[
                "warning certificates: secret/coral-system/coral-webhook-tls: the certificate ends in 10d and should have been renewed",
            ],
        ),
        (
            "a certificate of another namespace",
            |facts| {
                facts.webhook.secret.as_mut().unwrap().as_mut().unwrap().serving =
                    Some(sample("2026-05-01", "2026-08-01", &["a.b.svc"]).0);
            },
            &[
                "problem certificates: secret/coral-system/coral-webhook-tls: the certificate is for a.b.svc, not for coral-webhook.coral-system.svc",
            ],
        ),
        (
            "certificates of somebody else's",
            |facts| facts.webhook.secret = Ok(None),
            &[],
        ),
    ]);
}

#[test]
fn kubelets_that_defeat_prefetching_are_named() {
    assert_cases(&[
        (
            "a full disk",
            |facts| *kubelet(facts, "imageGCHighThresholdPercent") = 50.into(),
            &[
                "problem kubelets: node/node-1: the image filesystem is so full that the kubelet deletes images that no container uses, prefetched ones too (imageGCHighThresholdPercent is 50, …Low 80)",
            ],
        ),
        (
            "a nearly full disk",
            |facts| *kubelet(facts, "imageGCHighThresholdPercent") = 55.into(),
            &["warning kubelets: node/node-1: the image filesystem is nearly so full"],
        ),
        (
            "room enough",
            |facts| *kubelet(facts, "imageGCHighThresholdPercent") = 56.into(),
            &[],
        ),
        (
            "no collection",
            |facts| {
                *kubelet(facts, "imageGCHighThresholdPercent") = 100.into();
                first_report(facts).filesystem.as_mut().unwrap().free_bytes = Some(0);
            },
            &[],
        ),
        (
            "images have an end",
            |facts| *kubelet(facts, "imageMaximumGCAge") = "168h0m0s".into(),
            &[
                "warning kubelets: node/node-1: the kubelet deletes images that no container used for 168h0m0s (imageMaximumGCAge)",
            ],
        ),
        (
            "nothing that the kubelet has not pulled counts",
            |facts| *kubelet(facts, "imagePullCredentialsVerificationPolicy") = "AlwaysVerify".into(),
            &["problem kubelets: node/node-1: the kubelet does not believe in images that it has not pulled itself"],
        ),
        (
            "before the policy there was no verification",
            |facts| {
                facts.server_version = Ok("v1.34.0".to_owned());
                for node in facts.nodes.as_mut().unwrap() {
                    node.kubelet_version = "v1.34.0".to_owned();
                }
                *kubelet(facts, "imagePullCredentialsVerificationPolicy") = "AlwaysVerify".into();
            },
            &[],
        ),
        (
            "a list counts",
            |facts| *kubelet(facts, "imagePullCredentialsVerificationPolicy") = "NeverVerifyAllowlistedImages".into(),
            &["warning kubelets: node/node-1: only prefetched images of a list (0 entries)"],
        ),
        (
            "one after another",
            |facts| *kubelet(facts, "serializeImagePulls") = true.into(),
            &["note kubelets: kubelets pull one image after another (serializeImagePulls, on 1 of 2 looked at)"],
        ),
        (
            "no right to look",
            |facts| {
                for settings in facts.kubelets.asked.values_mut() {
                    *settings = Err(forbidden());
                }
            },
            &[
                "note kubelets: 2 nodes (node-1, node-2): could not look at the settings of kubelets: that takes the right to get nodes/proxy",
            ],
        ),
        (
            "a kubelet that does not answer",
            |facts| {
                let unread = Unread {
                    is_forbidden: false,
                    ..forbidden()
                };
                facts.kubelets.asked.insert("node-2".to_owned(), Err(unread));
            },
            &["warning kubelets: node/node-2: the API server does not reach its kubelet"],
        ),
    ]);
}

#[test]
fn nodes_are_looked_at() {
    assert_cases(&[
        (
            "pressure",
            |facts| first_node(facts).pressures = vec!["DiskPressure"],
            &["warning nodes: node/node-1: it has DiskPressure: nothing is pulled there"],
        ),
        (
            "a startup taint that stays",
            |facts| taint(facts, "image.stvz.io/not-ready"),
            &[
                "problem nodes: node/node-1: it has had the startup taint image.stvz.io/not-ready for longer than ten minutes",
            ],
        ),
        (
            "a startup taint of a new node",
            |facts| {
                taint(facts, "image.stvz.io/not-ready");
                first_node(facts).created = Some(before(1));
            },
            &[],
        ),
        (
            "a startup taint that nobody will take away",
            |facts| {
                taint(facts, "image.stvz.io/not-ready");
                first_node(facts).created = Some(before(1));
                pods(facts).truncate(2);
                facts.lease = Err(forbidden());
            },
            &[
                "problem nodes: node/node-1: it has the startup taint image.stvz.io/not-ready, and there is no controller that takes it away",
                "note controller: could not look at the Lease of the controllers: you may not list nodes",
            ],
        ),
        (
            "a taint that nothing of Coral's knows",
            |facts| taint(facts, "image.stvz.io/old"),
            &[
                "warning nodes: node/node-1: it has the taint image.stvz.io/old, which nothing of Coral's takes away | kubectl taint node node-1 image.stvz.io/old-",
            ],
        ),
        (
            "a label of an image that is not there",
            |facts| {
                let label = |hash: &str| (format!("image.stvz.io/{hash}"), "available".to_owned());
                let hash = "0123456789abcdef0123456789abcdef";
                first_node(facts).labels.extend([label(hash), label("something-else")]);
            },
            &["warning nodes: node/node-1: it has labels of images that are not there"],
        ),
        (
            "a label of an image that is there",
            |facts| {
                let key = "image.stvz.io/0123456789abcdef0123456789abcdef".to_owned();
                first_report(facts).labels.insert(key.clone());
                first_node(facts).labels.insert(key, "available".to_owned());
            },
            &[],
        ),
    ]);
}

#[test]
fn prefetches_and_rights_are_looked_at() {
    assert_cases(&[
        (
            "a selector that matches no node",
            |facts| {
                let selector = json!({"matchLabels": {"gpu": "true"}});
                facts.prefetches.as_mut().unwrap()[0].selector = serde_json::from_value(selector).unwrap();
            },
            &["warning prefetches: prefetch/shop/web: its node selector matches no Linux node"],
        ),
        (
            "a Prefetch that is stalled",
            |facts| {
                facts.prefetches.as_mut().unwrap()[0].conditions =
                    conditions(&[condition("Stalled", "True", "ImagesFailed", "")]);
            },
            &["warning prefetches: prefetch/shop/web: it is stalled (ImagesFailed) | kubectl coral status web -n shop"],
        ),
        (
            "a Prefetch that nobody looks at",
            |facts| facts.prefetches.as_mut().unwrap()[0].conditions.clear(),
            &["problem prefetches: prefetch/shop/web: the controller has said nothing of it"],
        ),
        (
            "a pull secret that may not be read",
            |facts| facts.access.grants = grant(Ok(false), Some(true)),
            &[
                "problem prefetches: secret/shop/regcred: Coral's agents may not read this pull secret, which prefetch web names | kubectl coral allow-secret regcred -n shop",
            ],
        ),
        (
            "a pull secret that is not there",
            |facts| facts.access.grants = grant(Ok(true), Some(false)),
            &["problem prefetches: secret/shop/regcred: prefetch web names this pull secret, and there is none"],
        ),
        (
            "a pull secret that one may not see",
            |facts| facts.access.grants = grant(Ok(true), None),
            &[],
        ),
        (
            "a part without a right",
            |facts| facts.access.accounts[0].2 = Ok(false),
            &[
                "problem rights: serviceaccount/coral-system/coral-agent: it may not watch nodeimages.image.stvz.io | `kubectl coral upgrade` gives its rights back",
            ],
        ),
        (
            "a person without a right",
            |facts| facts.access.own[0].2 = Ok(false),
            &["note rights: you may not list nodeimages.image.stvz.io, which `kubectl coral status` needs"],
        ),
    ]);
}
