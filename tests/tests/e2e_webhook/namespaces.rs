//! Which namespaces take part.

use coral_api::keys;
use coral_tests::wait::{Look, eventually};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::Value;

use crate::{
    WEBHOOK,
    support::{PATIENCE, Scene},
    workload::{example, kubectl, webhook_is_up},
};

#[tokio::test(flavor = "multi_thread")]
async fn only_the_namespaces_that_are_chosen_take_part() {
    let _webhook = WEBHOOK.write().await;
    let scene = Scene::new("chosen").await;
    webhook_is_up(&scene).await;
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(scene.cluster.client());
    let patch = async |body: &Value| {
        let patch = Patch::Strategic(body);
        let parameters = PatchParams::default();
        configurations
            .patch(keys::WEBHOOK_CONFIGURATION, &parameters, &patch)
            .await
            .unwrap();
    };
    let mut choice = example("some-namespaces", &[]);
    patch(&choice).await;
    let manifest = example("required", &[]);
    let is_injected = async |expected: bool| {
        eventually(&format!("injection: {expected}"), PATIENCE, async || {
            let shown = scene.create_for_show(&manifest);
            let selector = &shown["spec"]["template"]["spec"]["nodeSelector"];
            Ok(if selector.is_object() == expected {
                Look::Done(())
            } else {
                Look::NotYet(selector.clone())
            })
        })
        .await
        .unwrap();
    };
    is_injected(false).await;
    let name = scene.namespace.name();
    kubectl(&scene, &["label", "namespace", name, "image.stvz.io/webhook=enabled"]).succeeded();
    is_injected(true).await;
    choice["webhooks"][0]["namespaceSelector"]["matchLabels"]["image.stvz.io/webhook"] = Value::Null;
    patch(&choice).await;
    kubectl(&scene, &["label", "namespace", name, "image.stvz.io/webhook-"]).succeeded();
    is_injected(true).await;
}
