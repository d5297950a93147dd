//! What is injected into each kind, and what people are told.

use coral_tests::wait::{Look, eventually};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::{Value, json};

use crate::{
    WEBHOOK, dry_run, key,
    support::{PATIENCE, Scene},
    workload::{example, kubectl, webhook_is_up},
};

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_is_injected_into() {
    let _webhook = WEBHOOK.read().await;
    let scene = Scene::new("kinds").await;
    webhook_is_up(&scene).await;
    let image = scene.image("app");
    let pod = json!({"restartPolicy": "Never", "containers": [{"name": "model", "image": image}, {"name": "logs", "image": "x/logs:1"}]});
    let mut forever = pod.clone();
    forever["restartPolicy"] = json!("Always");
    let labelled = json!({"metadata": {"labels": {"app": "x"}}, "spec": forever});
    let selector = json!({"matchLabels": {"app": "x"}});
    let plain = |spec: &Value| json!({"metadata": {"labels": {"app": "x"}}, "spec": spec});
    let cases = [
        ("v1", "Pod", pod.clone(), "/spec"),
        (
            "v1",
            "ReplicationController",
            json!({"selector": {"app": "x"}, "template": labelled}),
            "/spec/template/spec",
        ),
        (
            "apps/v1",
            "DaemonSet",
            json!({"selector": selector, "template": labelled}),
            "/spec/template/spec",
        ),
        (
            "apps/v1",
            "Deployment",
            json!({"selector": selector, "template": labelled}),
            "/spec/template/spec",
        ),
        (
            "apps/v1",
            "ReplicaSet",
            json!({"selector": selector, "template": labelled}),
            "/spec/template/spec",
        ),
        (
            "apps/v1",
            "StatefulSet",
            json!({"selector": selector, "serviceName": "x", "template": labelled}),
            "/spec/template/spec",
        ),
        (
            "batch/v1",
            "Job",
            json!({"template": plain(&pod)}),
            "/spec/template/spec",
        ),
        (
            "batch/v1",
            "CronJob",
            json!({"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": plain(&pod)}}}),
            "/spec/jobTemplate/spec/template/spec",
        ),
    ];
    for (api_version, kind, spec, path) in cases {
        let object = json!({
            "apiVersion": api_version,
            "kind": kind,
            "metadata": {"name": "x", "annotations": {"image.stvz.io/inject": "selectors,pull-policy", "image.stvz.io/include": "model"}},
            "spec": spec,
        });
        let answer = scene.create_for_show(&object);
        let spec = answer.pointer(path).unwrap();
        assert_eq!(spec["nodeSelector"], json!({key(&image): "available"}), "{kind}");
        assert_eq!(spec["containers"][0]["imagePullPolicy"], json!("Never"), "{kind}");
        assert_eq!(
            spec["containers"][1]["imagePullPolicy"],
            json!("IfNotPresent"),
            "{kind}"
        );
    }
    let job = scene.create_for_show(&example("include", &[("nginx:1.29", &image)]));
    assert_eq!(
        job["spec"]["template"]["spec"]["nodeSelector"],
        json!({key(&image): "available"})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_told_what_is_wrong() {
    let _webhook = WEBHOOK.read().await;
    let scene = Scene::new("told").await;
    webhook_is_up(&scene).await;
    let image = scene.image("app");
    let manifest = example("required", &[("nginx:1.29", &image)]);
    let warnings = scene.apply(&manifest);
    assert!(warnings.contains("pods stay Pending until one does"), "{warnings}");
    scene.prefetch("app", json!({"images": [image]})).await;
    let mut again = manifest.clone();
    again["metadata"]["name"] = json!("again");
    eventually("the warning to go", PATIENCE, async || {
        let warnings = scene.try_create(&again).succeeded().stderr;
        Ok(if warnings.is_empty() {
            Look::Done(())
        } else {
            Look::NotYet(warnings)
        })
    })
    .await
    .unwrap();
    kubectl(
        &scene,
        &[
            "annotate",
            "--overwrite",
            "deployment/web",
            "image.stvz.io/inject=selector",
        ],
    )
    .failed(
        1,
        &[r#"annotation image.stvz.io/inject has the unknown word "selector"; valid are: selectors, pull-policy"#],
    );
    // A mistake does not get a system namespace into trouble.
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "x", "annotations": {"image.stvz.io/inject": "nonsense"}},
        "spec": {"containers": [{"name": "a", "image": image}]},
    });
    let system: Api<Pod> = Api::namespaced(scene.cluster.client(), "kube-system");
    system
        .create(&dry_run(), &serde_json::from_value(pod.clone()).unwrap())
        .await
        .unwrap();
    let here: Api<Pod> = scene.namespace.api();
    let error = here
        .create(&dry_run(), &serde_json::from_value(pod).unwrap())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("unknown word"), "{error}");
}
