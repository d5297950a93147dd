//! Certificates that are replaced while the webhook is needed.

use std::{collections::BTreeSet, time::Duration};

use coral_api::keys;
use coral_tests::wait::{Look, eventually};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Secret};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
    WEBHOOK,
    load::Load,
    support::{PATIENCE, Scene},
    workload::webhook_is_up,
};

#[tokio::test(flavor = "multi_thread")]
async fn certificates_roll_over_while_admissions_go_on() {
    let _webhook = WEBHOOK.write().await;
    let scene = Scene::new("rolling").await;
    webhook_is_up(&scene).await;
    let image = format!("{}/x:1", scene.cluster.registry());
    let load = Load::start(&scene, &image);
    let secrets: Api<Secret> = Api::namespaced(scene.cluster.client(), keys::SYSTEM_NAMESPACE);
    let entry = async |name: &str| {
        let data = secrets
            .get(keys::WEBHOOK_SECRET)
            .await
            .unwrap()
            .data
            .unwrap_or_default();
        data.get(name).map(|bytes| bytes.0.clone()).unwrap_or_default()
    };

    // A new certificate by the same authority.
    let before = entry("tls.crt").await;
    let remove = json!({"data": {"tls.crt": null}});
    secrets
        .patch(keys::WEBHOOK_SECRET, &PatchParams::default(), &Patch::Merge(&remove))
        .await
        .unwrap();
    eventually("a new certificate", PATIENCE, async || {
        let now = entry("tls.crt").await;
        Ok(if now.is_empty() || now == before {
            Look::NotYet(now.len())
        } else {
            Look::Done(())
        })
    })
    .await
    .unwrap();

    // Authorities that grow old within a minute: the replicas themselves are replaced, too.
    let short = json!({"spec": {"template": {"spec": {"containers": [{"name": "webhook", "env": [
        {"name": "CORAL_AUTHORITY_VALIDITY", "value": "60s"},
        {"name": "CORAL_CERTIFICATE_VALIDITY", "value": "40s"},
        {"name": "CORAL_OVERLAP", "value": "5s"},
    ]}]}}}});
    let deployments: Api<Deployment> = Api::namespaced(scene.cluster.client(), keys::SYSTEM_NAMESPACE);
    let strategic = PatchParams::default();
    deployments
        .patch("coral-webhook", &strategic, &Patch::Strategic(&short))
        .await
        .unwrap();
    webhook_is_up(&scene).await;
    // An authority that lasts a year is too old for that, and so on.
    let mut authorities = BTreeSet::new();
    eventually(
        "three roll-overs of the authority",
        Duration::from_mins(5),
        async || {
            authorities.insert(entry("ca.crt").await);
            Ok(if authorities.len() >= 4 {
                Look::Done(())
            } else {
                Look::NotYet(authorities.len())
            })
        },
    )
    .await
    .unwrap();
    load.end().await;
    let long = json!({"spec": {"template": {"spec": {"containers": [{"name": "webhook", "env": [
        {"name": "CORAL_AUTHORITY_VALIDITY", "$patch": "delete"},
        {"name": "CORAL_CERTIFICATE_VALIDITY", "$patch": "delete"},
        {"name": "CORAL_OVERLAP", "$patch": "delete"},
    ]}]}}}});
    deployments
        .patch("coral-webhook", &strategic, &Patch::Strategic(&long))
        .await
        .unwrap();
    webhook_is_up(&scene).await;
}
