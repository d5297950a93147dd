//! The webhook is away, or what it keeps is.

use coral_api::keys;
use coral_tests::wait::{Look, eventually};
use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration,
    core::v1::{Pod, Secret},
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    WEBHOOK, key, pull_policy, selector,
    support::{PATIENCE, Scene, on},
    workload::{self, example, kubectl, webhook_is_up},
};

#[tokio::test(flavor = "multi_thread")]
async fn without_the_webhook_workloads_start() {
    let _webhook = WEBHOOK.write().await;
    let scene = Scene::new("down").await;
    webhook_is_up(&scene).await;
    let policy = workload::repository("deploy/components/annotation-policy/policy.yaml");
    let scale = |replicas: &str| {
        let replicas = format!("--replicas={replicas}");
        kubectl(
            &scene,
            &[
                "scale",
                "--namespace",
                keys::SYSTEM_NAMESPACE,
                "deployment/coral-webhook",
                &replicas,
            ],
        )
        .succeeded();
    };
    scale("0");
    let pods: Api<Pod> = Api::namespaced(scene.cluster.client(), keys::SYSTEM_NAMESPACE);
    eventually("the webhook to be gone", PATIENCE, async || {
        let parameters = kube::api::ListParams::default().labels("app.kubernetes.io/name=coral-webhook");
        let left = pods.list(&parameters).await?.items.len();
        Ok(if left == 0 { Look::Done(()) } else { Look::NotYet(left) })
    })
    .await
    .unwrap();
    let image = scene.image("app");
    let manifest = example("required", &[("nginx:1.29", &image)]);
    scene.apply(&manifest);
    scene.running("app=web", 2, &image).await;
    assert_eq!(selector(&scene, "web").await, Value::Null);

    // The policy needs no webhook.
    kubectl(&scene, &["apply", "--filename", &policy]).succeeded();
    let mut mistaken = example("required", &[("nginx:1.29", &image)]);
    mistaken["metadata"]["name"] = json!("mistaken");
    mistaken["metadata"]["annotations"]["image.stvz.io/inject"] = json!("selector");
    eventually("the policy to be in force", PATIENCE, async || {
        let ran = scene.try_create(&mistaken);
        Ok(if ran.code == Some(0) {
            Look::NotYet("it is admitted")
        } else {
            Look::Done(ran)
        })
    })
    .await
    .unwrap()
    .failed(
        1,
        &["annotation image.stvz.io/inject has an unknown word; valid are: selectors, pull-policy"],
    );
    for name in ["required", "preferred", "template", "include"] {
        let mut shown = example(name, &[("nginx:1.29", &image)]);
        shown["metadata"]["name"] = json!("shown");
        scene.create_for_show(&shown);
    }
    let mut mistaken = example("template", &[]);
    mistaken["spec"]["template"]["metadata"]["annotations"]["image.stvz.io/placement"] = json!("soft");
    scene
        .try_create(&mistaken)
        .failed(1, &["annotation image.stvz.io/placement has an unknown word"]);
    kubectl(&scene, &["delete", "--filename", &policy]).succeeded();

    // When it is back, the next update makes up for it.
    scale("2");
    webhook_is_up(&scene).await;
    scene
        .prefetch("app", json!({"images": [image], "nodeSelector": on(&["node-1"])}))
        .await;
    scene.ready("app").await;
    kubectl(&scene, &["rollout", "restart", "deployment/web"]).succeeded();
    assert_eq!(selector(&scene, "web").await, json!({key(&image): "available"}));
    let pods = scene.running_on("app=web", 2, "node-1").await;
    assert!(pods.iter().all(|pod| pull_policy(pod) == "Never"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_webhook_keeps_comes_back() {
    let _webhook = WEBHOOK.write().await;
    let scene = Scene::new("kept").await;
    webhook_is_up(&scene).await;
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(scene.cluster.client());
    let wipe = json!([{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]);
    let wipe: Patch<Value> = Patch::Json(serde_json::from_value(wipe).unwrap());
    configurations
        .patch(keys::WEBHOOK_CONFIGURATION, &PatchParams::default(), &wipe)
        .await
        .unwrap();
    webhook_is_up(&scene).await;
    let secrets: Api<Secret> = Api::namespaced(scene.cluster.client(), keys::SYSTEM_NAMESPACE);
    let empty = json!([{"op": "remove", "path": "/data"}]);
    let empty: Patch<Value> = Patch::Json(serde_json::from_value(empty).unwrap());
    secrets
        .patch(keys::WEBHOOK_SECRET, &PatchParams::default(), &empty)
        .await
        .unwrap();
    webhook_is_up(&scene).await;
    // A roll-over that is under way has more beside them.
    let kept = secrets.get(keys::WEBHOOK_SECRET).await.unwrap().data.unwrap();
    for entry in ["ca.crt", "ca.key", "tls.crt", "tls.key"] {
        assert!(kept.get(entry).is_some_and(|value| !value.0.is_empty()), "{entry}");
    }
}
