//! The webhook on a real cluster. The workloads are those of `docs/webhook.md`; what is injected is asked of the API server, what is
//! pulled of the kubelets.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

mod answers;
mod certificates;
mod copies;
mod load;
mod namespaces;
mod outages;
mod placement;
#[path = "../support/mod.rs"]
mod support;
mod workload;

use coral_api::ImageReference;
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use serde_json::Value;
use support::Scene;
use tokio::sync::RwLock;

/// Tests that stop the webhook or change it have it for themselves.
static WEBHOOK: RwLock<()> = RwLock::const_new(());

fn dry_run() -> PostParams {
    PostParams {
        dry_run: true,
        ..PostParams::default()
    }
}

fn key(image: &str) -> String {
    image.parse::<ImageReference>().unwrap().label_key()
}

fn node_of(pod: &Pod) -> &str {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .unwrap_or_default()
}

fn pull_policy(pod: &Pod) -> &str {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.containers[0].image_pull_policy.as_deref())
        .unwrap_or_default()
}

/// The node selector of a Deployment's template.
async fn selector(scene: &Scene, name: &str) -> Value {
    let spec = scene.deployment(name).await.spec.template.spec.unwrap();
    serde_json::to_value(spec.node_selector).unwrap()
}
