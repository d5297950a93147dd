//! Pods that are sent to copies of their images. Nobody copies anything here: the `MirroredImage` is written by hand, and the original has never been.

use std::fs;

use coral_api::{MirroredImage, keys};
use coral_tests::wait::{Look, eventually};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    WEBHOOK, dry_run, key,
    support::{PATIENCE, Scene},
    workload::{kubectl, repository, webhook_is_up},
};

const DEPLOYMENT: &str = "deployment/coral-webhook";
const SYSTEM: &[&str] = &["--namespace", "coral-system"];

/// The entry of the webhook's configuration that the component adds.
fn entry() -> Value {
    let text = fs::read_to_string(repository("deploy/components/mirror/kustomization.yaml")).unwrap();
    let kustomization: Value = serde_saphyr::from_str(&text).unwrap();
    let patches = kustomization["patches"].as_array().unwrap();
    let is_meant = |patch: &&Value| patch["target"]["kind"] == "MutatingWebhookConfiguration";
    let patch = patches.iter().find(is_meant).unwrap()["patch"].as_str().unwrap();
    let operations: Value = serde_saphyr::from_str(patch).unwrap();
    operations[0]["value"].clone()
}

async fn mirrored(scene: &Scene, original: &str, copy: &str) -> String {
    let images: Api<MirroredImage> = Api::all(scene.cluster.client());
    let name = scene.namespace.name().to_owned();
    let object = json!({
        "apiVersion": "image.stvz.io/v1alpha1",
        "kind": "MirroredImage",
        "metadata": {"name": name},
        "spec": {"image": original, "rewrite": "OnFailure"},
    });
    let object: MirroredImage = serde_json::from_value(object).unwrap();
    images.create(&PostParams::default(), &object).await.unwrap();
    let status = json!({"status": {
        "destinations": [{"mirror": "all", "reference": copy, "nodeReference": copy, "state": "Present"}],
        "origin": {"state": "Available", "checkedAt": "2026-01-01T00:00:00Z"},
    }});
    let parameters = PatchParams::default();
    let patch = Patch::Merge(status);
    images.patch_status(&name, &parameters, &patch).await.unwrap();
    name
}

fn pod(image: &str, selectors: bool) -> Pod {
    let annotations = if selectors {
        json!({keys::INJECT_ANNOTATION: "selectors", keys::PLACEMENT_ANNOTATION: "preferred"})
    } else {
        Value::Null
    };
    serde_json::from_value(json!({
        "metadata": {"name": "web", "labels": {"app": "web"}, "annotations": annotations},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "web", "image": image}]},
    }))
    .unwrap()
}

fn image_of(pod: &Pod) -> &str {
    let spec = pod.spec.as_ref().unwrap();
    spec.containers[0].image.as_deref().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_an_image_that_is_gone_run_its_copy() {
    let _webhook = WEBHOOK.write().await;
    let scene = Scene::new("copies").await;
    webhook_is_up(&scene).await;
    let system = |arguments: &[&str]| kubectl(&scene, &[arguments, SYSTEM].concat()).succeeded();
    let configuration = |operations: Value| {
        let arguments = ["patch", "mutatingwebhookconfiguration", keys::WEBHOOK_CONFIGURATION];
        let patch = ["--type=json", "--patch", &operations.to_string()];
        kubectl(&scene, &[&arguments[..], &patch[..]].concat()).succeeded();
    };
    system(&[
        "apply",
        "--filename",
        &repository("deploy/components/mirror/webhook-rbac.yaml"),
    ]);
    system(&["set", "env", DEPLOYMENT, "CORAL_REWRITE=true"]);
    system(&["rollout", "status", DEPLOYMENT, "--timeout=300s"]);
    configuration(json!([{"op": "add", "path": "/webhooks/-", "value": entry()}]));

    let original = format!("gone.invalid/{}/app:1", scene.namespace.name());
    let copy = scene.image("copy");
    let name = mirrored(&scene, &original, &copy).await;
    let pods: Api<Pod> = scene.namespace.api();
    // The original is there, as far as anybody knows, so it is used.
    let shown = pods.create(&dry_run(), &pod(&original, false)).await.unwrap();
    assert_eq!(image_of(&shown), original);
    let images: Api<MirroredImage> = Api::all(scene.cluster.client());
    let gone = json!({"status": {"origin": {"state": "NotFound", "checkedAt": "2026-01-01T01:00:00Z"}}});
    let parameters = PatchParams::default();
    images
        .patch_status(&name, &parameters, &Patch::Merge(gone))
        .await
        .unwrap();
    eventually("pods to be sent to the copy", PATIENCE, async || {
        // Both replicas have to have heard of it, and one may be asked again and again.
        for _ in 0..10 {
            let shown = pods.create(&dry_run(), &pod(&original, false)).await?;
            if image_of(&shown) != copy {
                return Ok(Look::NotYet(image_of(&shown).to_owned()));
            }
        }
        Ok(Look::Done(()))
    })
    .await
    .unwrap();

    let created = pods
        .create(&PostParams::default(), &pod(&original, true))
        .await
        .unwrap();
    assert_eq!(image_of(&created), copy);
    let noted = created.annotations().get(keys::ORIGINAL_IMAGES_ANNOTATION);
    assert_eq!(noted, Some(&json!({"web": original}).to_string()));
    let affinity = serde_json::to_string(&created.spec.as_ref().unwrap().affinity).unwrap();
    assert!(affinity.contains(&key(&original)), "{affinity}");
    assert!(
        !affinity.contains(&key(&copy)),
        "placement goes by the image that people wrote: {affinity}"
    );
    scene.running("app=web", 1, &copy).await;

    let debug = [
        "debug",
        "web",
        "--image",
        &original,
        "--container",
        "look",
        "--image-pull-policy=IfNotPresent",
    ];
    kubectl(&scene, &debug).succeeded();
    let looked_at = pods.get("web").await.unwrap();
    let ephemeral = looked_at.spec.unwrap().ephemeral_containers.unwrap();
    assert_eq!(ephemeral[0].image.as_deref(), Some(copy.as_str()));

    let mut opted_out = pod(&original, false);
    opted_out
        .labels_mut()
        .insert(keys::MIRROR_LABEL.to_owned(), "false".to_owned());
    opted_out.metadata.name = Some("other".to_owned());
    let shown = pods.create(&dry_run(), &opted_out).await.unwrap();
    assert_eq!(image_of(&shown), original);

    images.delete(&name, &DeleteParams::default()).await.unwrap();
    configuration(json!([
        {"op": "test", "path": "/webhooks/1/name", "value": keys::REWRITE_WEBHOOK},
        {"op": "remove", "path": "/webhooks/1"},
    ]));
    system(&["set", "env", DEPLOYMENT, "CORAL_REWRITE-"]);
    system(&[
        "delete",
        "--filename",
        &repository("deploy/components/mirror/webhook-rbac.yaml"),
    ]);
    webhook_is_up(&scene).await;
}
