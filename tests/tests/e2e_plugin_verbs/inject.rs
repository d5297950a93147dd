//! `inject` and `uninject`: on live workloads and in manifests, always as the webhook does it.

use serde_json::{Value, json};

use crate::{
    deployment,
    shown::both,
    support::{
        Scene,
        coral::{coral, coral_with},
    },
    template,
};

/// What injection changes of an object.
fn injected_parts(object: &Value) -> Value {
    let pod = match object["spec"].get("jobTemplate") {
        Some(job) => &job["spec"]["template"]["spec"],
        None => &object["spec"]["template"]["spec"],
    };
    let annotations = object["metadata"]["annotations"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    let ours = annotations
        .into_iter()
        .filter(|(key, _)| key.starts_with("image.stvz.io/"));
    json!({
        "annotations": Value::Object(ours.collect()),
        "nodeSelector": pod["nodeSelector"],
        "affinity": pod["affinity"],
        "policies": pod["containers"].as_array().unwrap().iter().map(|container| container["imagePullPolicy"].clone()).collect::<Vec<_>>(),
    })
}

/// One object of each kind whose pods can be changed.
fn workloads(image: &str) -> Vec<(&'static str, Value)> {
    let named = |kind: &str, spec: Value| {
        json!({"apiVersion": if kind == "CronJob" { "batch/v1" } else { "apps/v1" }, "kind": kind,
            "metadata": {"name": "web", "labels": {"app": "web"}}, "spec": spec})
    };
    let selector = json!({"matchLabels": {"app": "web"}});
    let mut nowhere = template("web", image);
    nowhere["spec"]["nodeSelector"] = json!({"zone": "nowhere"});
    let mut job = template("web", image);
    job["spec"]["restartPolicy"] = "Never".into();
    vec![
        ("deployment.apps/web", deployment("web", image)),
        (
            "statefulset.apps/web",
            named(
                "StatefulSet",
                json!({"replicas": 0, "serviceName": "web", "selector": selector, "template": template("web", image)}),
            ),
        ),
        (
            "daemonset.apps/web",
            named("DaemonSet", json!({"selector": selector, "template": nowhere})),
        ),
        (
            "cronjob.batch/web",
            named(
                "CronJob",
                json!({"schedule": "0 0 1 1 *", "suspend": true, "jobTemplate": {"spec": {"template": job}}}),
            ),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn inject_does_what_the_webhook_does_and_uninject_takes_it_back() {
    let scene = Scene::new("verbs").await;
    for (name, mut object) in workloads("nginx:1.29") {
        // What people write it into by hand is there already, and is not made by Coral.
        object["metadata"]["annotations"] = json!({"team": "shop"});
        scene.create(&object);
        let before = scene.get(name);
        let dry = scene.json(&[
            "inject",
            name,
            "--selectors",
            "--pull-policy",
            "--dry-run=client",
            "-o",
            "json",
        ]);
        let server = scene.json(&[
            "inject",
            name,
            "--selectors",
            "--pull-policy",
            "--dry-run=server",
            "-o",
            "json",
        ]);
        assert_eq!(injected_parts(&dry), injected_parts(&server), "{name}");
        // The same wish, written by a person: what follows is the webhook's work.
        let annotate = scene.kubectl(
            &[
                "annotate",
                name,
                "image.stvz.io/inject=selectors,pull-policy",
                "--dry-run=server",
                "--output=json",
            ],
            "",
        );
        let by_webhook: Value = serde_json::from_str(&annotate.succeeded().stdout).unwrap();
        assert_eq!(injected_parts(&dry), injected_parts(&by_webhook), "{name}");
        assert_eq!(scene.get(name)["spec"], before["spec"], "{name}: dry runs keep nothing");

        coral(&scene, &["inject", name, "--selectors", "--pull-policy"]).succeeded();
        let live = scene.get(name);
        assert_eq!(injected_parts(&live), injected_parts(&dry), "{name}");
        let again = coral(&scene, &["inject", name, "--selectors", "--pull-policy"]).succeeded();
        assert_eq!(again.stdout, format!("{name} unchanged\n"));
        coral(&scene, &["uninject", name]).succeeded();
        let after = scene.get(name);
        assert_eq!(after["spec"], before["spec"], "{name}");
        assert_eq!(injected_parts(&after), injected_parts(&before), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_injected_is_told_with_what_it_brings_about() {
    let scene = Scene::new("verbs").await;
    // Images that no other test prefetches.
    scene.create(&deployment("web", "uncovered.example/web:1.29"));
    scene.create(&deployment("api", "uncovered.example/api:latest"));
    let shown = |arguments: &[&str]| both(&scene, &coral(&scene, arguments).succeeded());
    insta::assert_snapshot!(shown(&["inject", "deploy/web", "--selectors", "--dry-run=client"]), @r"
    deployment.apps/web injected (dry run)
    ! warning: deployment.apps/web: no Prefetch covers uncovered.example/web:1.29: pods stay Pending until one does
    ! deployment.apps/web: its pods would be replaced, as its update strategy says
    ");
    insta::assert_snapshot!(shown(&["inject", "deploy/web", "--selectors", "--placement=preferred", "--dry-run=client", "-o", "patch"]), @r#"
    [
        {
            "op": "add",
            "path": "/spec/template/spec/affinity",
            "value": {
                "nodeAffinity": {
                    "preferredDuringSchedulingIgnoredDuringExecution": [
                        {
                            "preference": {
                                "matchExpressions": [
                                    {
                                        "key": "image.stvz.io/HASH",
                                        "operator": "In",
                                        "values": [
                                            "available"
                                        ]
                                    }
                                ]
                            },
                            "weight": 100
                        }
                    ]
                }
            }
        },
        {
            "op": "add",
            "path": "/metadata/annotations/image.stvz.io~1inject",
            "value": "selectors"
        },
        {
            "op": "add",
            "path": "/metadata/annotations/image.stvz.io~1injected",
            "value": "{\"nodeAffinity\":[\"image.stvz.io/HASH\"],\"made\":{\"affinity\":\"absent\",\"affinity.nodeAffinity\":\"absent\",\"affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution\":\"absent\"}}"
        },
        {
            "op": "add",
            "path": "/metadata/annotations/image.stvz.io~1placement",
            "value": "preferred"
        }
    ]
    ! warning: deployment.apps/web: no Prefetch covers uncovered.example/web:1.29: nothing brings it to a node before a pod needs it
    ! deployment.apps/web: its pods would be replaced, as its update strategy says
    "#);
    insta::assert_snapshot!(shown(&["inject", "--all", "--selectors", "--pull-policy"]), @r"
    deployment.apps/api injected
    deployment.apps/web injected
    ! warning: deployment.apps/api: no Prefetch covers uncovered.example/api:latest: pods stay Pending until one does
    ! warning: deployment.apps/api: the tag of uncovered.example/api:latest moves, and pull policy Never keeps what a node has; a Prefetch with pullPolicy: Always renews it
    ! deployment.apps/api: its pods are replaced, as its update strategy says
    ! warning: deployment.apps/web: no Prefetch covers uncovered.example/web:1.29: pods stay Pending until one does
    ! deployment.apps/web: its pods are replaced, as its update strategy says
    ");
    insta::assert_snapshot!(shown(&["uninject", "-l", "app=web"]), @r"
    deployment.apps/web uninjected
    ! deployment.apps/web: its pods are replaced, as its update strategy says
    ");
    insta::assert_snapshot!(shown(&["uninject", "--all", "-o", "name"]), @r"
    deployment.apps/api
    deployment.apps/web
    ! deployment.apps/api: its pods are replaced, as its update strategy says
    ");
    insta::assert_snapshot!(shown(&["uninject", "--all"]), @r"
    deployment.apps/api unchanged
    deployment.apps/web unchanged
    ");
    insta::assert_snapshot!(shown(&["uninject", "-l", "app=nothing"]), @"! No resources found in shop namespace.");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_injected_is_refused() {
    let scene = Scene::new("verbs").await;
    scene.create(&deployment("web", "nginx:1.29"));
    let fixed = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"},
        "spec": {"suspend": true, "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "nginx:1.29"}]}}}});
    scene.create(&fixed);
    let refused = coral(&scene, &["inject", "job/once", "--selectors"]).failed(1, &[]);
    insta::assert_snapshot!(both(&scene, &refused), @r"
    ! error: the pods of job.batch/once cannot be changed any more
    ! hint: change what makes it, such as its CronJob, or its manifest before it is applied: `kubectl coral inject -f FILE`
    ");
    let refused = coral(&scene, &["inject", "deploy/wbe", "--selectors"]).failed(1, &[]);
    insta::assert_snapshot!(both(&scene, &refused), @r#"
    ! error: deployments.apps "wbe" not found
    ! hint: `kubectl get deployments -A` lists those that are there, of all namespaces
    "#);
    let refused = coral(&scene, &["inject", "deploy/web"]).failed(2, &[]);
    insta::assert_snapshot!(both(&scene, &refused), @r"
    ! error: the following required arguments were not provided:
    ! <--selectors|--pull-policy[=<POLICY>]>
    !
    ! Usage: kubectl coral inject --namespace <NAME> <--selectors|--pull-policy[=<POLICY>]> <TYPE/NAME>...
    !
    ! For more information, try '--help'.
    ");
    let refused = coral(&scene, &["inject", "service/web", "--selectors"]).failed(2, &[]);
    insta::assert_snapshot!(both(&scene, &refused), @r#"
    ! error: invalid value 'service/web' for '[TYPE/NAME]...': "service" has no pods; what has is pod, replicationcontroller, podtemplate, daemonset, deployment, replicaset, statefulset, job, cronjob
    !
    ! For more information, try '--help'.
    "#);
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_that_were_injected_are_what_the_cluster_has_after_them() {
    let scene = Scene::new("verbs").await;
    let manifest = deployment("web", "nginx:1.29").to_string();
    let printed = coral_with(
        &scene,
        &["inject", "--selectors", "--pull-policy", "-f", "-"],
        &manifest,
    )
    .succeeded();
    scene
        .kubectl(&["create", "--filename", "-"], &printed.stdout)
        .succeeded();
    let written: Value = serde_saphyr::from_str(&printed.stdout).unwrap();
    assert_eq!(injected_parts(&scene.get("deploy/web")), injected_parts(&written));
    let back = coral_with(&scene, &["uninject", "-f", "-"], &printed.stdout).succeeded();
    let back: Value = serde_saphyr::from_str(&back.stdout).unwrap();
    assert_eq!(back, serde_json::from_str::<Value>(&manifest).unwrap());
}
