//! The webhook on a real cluster. The workloads are those of `docs/webhook.md`; what is injected is asked of the API server, what is
//! pulled of the kubelets.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

#[path = "e2e_webhook/load.rs"]
mod load;
mod support;
#[path = "e2e_webhook/workload.rs"]
mod workload;

use std::{collections::BTreeSet, time::Duration};

use coral_api::{ImageReference, keys};
use coral_tests::wait::{Look, eventually};
use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration,
    apps::v1::Deployment,
    core::v1::{Pod, Secret},
};
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
};
use load::Load;
use serde_json::{Value, json};
use support::{PATIENCE, Scene, on};
use tokio::sync::RwLock;
use workload::{example, kubectl, webhook_is_up};

/// Tests that stop the webhook or change it have it for themselves.
static WEBHOOK: RwLock<()> = RwLock::const_new(());

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_runs_only_where_its_image_is_and_moves_with_it() {
    let _webhook = WEBHOOK.read().await;
    let scene = Scene::new("placed").await;
    webhook_is_up(&scene).await;
    let (one, two) = (scene.image("one"), scene.image("two"));
    scene
        .prefetch("one", json!({"images": [one], "nodeSelector": on(&["node-2"])}))
        .await;
    scene.ready("one").await;
    let manifest = example("required", &[("nginx:1.29", &one)]);
    assert_eq!(scene.apply(&manifest), "", "a covered image is nothing to warn of");
    let pods = scene.running("app=web", 2, &one).await;
    assert!(pods.iter().all(|pod| node_of(pod) == "node-2"), "{pods:?}");
    assert!(pods.iter().all(|pod| pull_policy(pod) == "Never"));
    scene.started_without_a_pull(&one).await;
    assert_eq!(selector(&scene, "web").await, json!({key(&one): "available"}));
    let generation = scene.deployment("web").await.metadata.generation;
    scene.apply(&manifest);
    assert_eq!(
        scene.deployment("web").await.metadata.generation,
        generation,
        "applying again changes nothing"
    );

    // A roll-out to an image that is elsewhere.
    scene
        .prefetch("two", json!({"images": [two], "nodeSelector": on(&["node-1"])}))
        .await;
    scene.ready("two").await;
    scene.apply(&example("required", &[("nginx:1.29", &two)]));
    assert_eq!(selector(&scene, "web").await, json!({key(&two): "available"}));
    let pods = scene.running("app=web", 2, &two).await;
    assert!(pods.iter().all(|pod| node_of(pod) == "node-1"), "{pods:?}");
    scene.started_without_a_pull(&two).await;
    // Back, as people do it in a hurry.
    kubectl(&scene, &["rollout", "undo", "deployment/web"]).succeeded();
    assert_eq!(selector(&scene, "web").await, json!({key(&one): "available"}));
    scene.running("app=web", 2, &one).await;

    // Without the annotation everything is as it was.
    kubectl(&scene, &["annotate", "deployment/web", "image.stvz.io/inject-"]).succeeded();
    let deployment = scene.deployment("web").await;
    assert!(!deployment.annotations().contains_key(keys::INJECTED_ANNOTATION));
    let spec = deployment.spec.template.spec.unwrap();
    assert_eq!(spec.node_selector.unwrap_or_default().len(), 0);
    assert_eq!(spec.containers[0].image_pull_policy.as_deref(), Some("IfNotPresent"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_waits_for_its_image_and_starts_without_a_pull() {
    let _webhook = WEBHOOK.read().await;
    let scene = Scene::new("waiting").await;
    webhook_is_up(&scene).await;
    let image = scene.image("app");
    let warnings = scene.apply(&example("template", &[("nginx:1.29", &image)]));
    assert_eq!(
        warnings, "",
        "the annotations act on the pods, and nobody sees what is said of those"
    );
    let pod = scene.pod("app=store", |pod| {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.is_some_and(|conditions| {
            conditions
                .iter()
                .any(|condition| condition.reason.as_deref() == Some("Unschedulable"))
        })
    });
    let pod = pod.await;
    assert_eq!(
        pod.spec.as_ref().unwrap().node_selector.as_ref().unwrap()[&key(&image)],
        "available"
    );
    assert!(pod.annotations().contains_key(keys::INJECTED_ANNOTATION));

    scene
        .prefetch("late", json!({"images": [image], "nodeSelector": on(&["node-1"])}))
        .await;
    let pods = scene.running("app=store", 1, &image).await;
    assert_eq!((node_of(&pods[0]), pods[0].uid()), ("node-1", pod.uid()));
    scene.started_without_a_pull(&image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn preferred_placement_prefers_and_never_waits() {
    let _webhook = WEBHOOK.read().await;
    let scene = Scene::new("preferred").await;
    webhook_is_up(&scene).await;
    let (nowhere, somewhere) = (scene.image("nowhere"), scene.image("somewhere"));
    let warnings = scene.apply(&example("preferred", &[("nginx:1.29", &nowhere)]));
    assert!(
        warnings.contains("no Prefetch covers") && !warnings.contains("Pending"),
        "{warnings}"
    );
    let pods = scene.running("app=worker", 1, &nowhere).await;
    assert_eq!(pull_policy(&pods[0]), "IfNotPresent");
    assert_eq!(selector(&scene, "worker").await, Value::Null);

    scene
        .prefetch("some", json!({"images": [somewhere], "nodeSelector": on(&["node-2"])}))
        .await;
    scene.ready("some").await;
    scene.apply(&example("preferred", &[("nginx:1.29", &somewhere)]));
    let pods = scene.running("app=worker", 1, &somewhere).await;
    assert_eq!(node_of(&pods[0]), "node-2");
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
