//! Private images on a real cluster, from the registry that wants a password.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

mod support;

use coral_api::FailureReason;
use coral_tests::{
    images::{self, Software},
    progress::Silent,
};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, LogParams, PostParams},
};
use serde_json::json;
use support::{Scene, coral::coral, on};

/// Makes a pull secret as `kubectl create secret docker-registry` does.
async fn secret(scene: &Scene, name: &str, password: &str) {
    let registry = scene.cluster.registry_auth();
    let config = json!({"auths": {&registry.host: {"username": registry.user, "password": password}}});
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"name": name},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": config.to_string()},
    }))
    .unwrap();
    let secrets: Api<Secret> = scene.namespace.api();
    secrets.create(&PostParams::default(), &secret).await.unwrap();
}

/// Allows the agents to read a Secret.
fn allow(scene: &Scene, secret: &str) {
    let ran = coral(scene, &["allow-secret", secret]).succeeded();
    let role = format!("role.rbac.authorization.k8s.io/coral-agent-{secret} created");
    assert_eq!(ran.stdout.lines().next(), Some(role.as_str()));
}

fn private_image(scene: &Scene) -> String {
    let repository = format!("{}/private", scene.namespace.name());
    let registry = scene.cluster.authenticated_registry().unwrap();
    images::tiny(&registry, &repository, "v1", 50_000, &repository)
        .unwrap()
        .reference
}

/// Everything that the agents have logged.
async fn agent_logs(scene: &Scene) -> String {
    let pods: Api<Pod> = Api::namespaced(scene.cluster.client(), "coral-system");
    let agents = pods
        .list(&ListParams::default().labels("app.kubernetes.io/name=coral-agent"))
        .await
        .unwrap();
    let mut logs = String::new();
    for pod in agents {
        // The agent of a node that another test takes away may be gone by now.
        logs += &pods
            .logs(&pod.name_any(), &LogParams::default())
            .await
            .unwrap_or_default();
    }
    assert!(
        logs.contains("The pull"),
        "the agents have logged no pull, so that their logs show nothing: {logs}"
    );
    logs
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_read_when_it_is_allowed_and_not_before() {
    let scene = Scene::new("allowed").await;
    let password = scene.cluster.registry_auth().password;
    let image = private_image(&scene);
    secret(&scene, "regcred", &password).await;
    let spec = json!({"images": [image], "nodeSelector": on(&["node-1"]), "imagePullSecrets": [{"name": "regcred"}]});
    scene.prefetch("web", spec).await;
    let failure = scene.fails_with("web", FailureReason::PullSecretUnreadable).await;
    let namespace = scene.namespace.name();
    assert!(
        failure.message.contains(&format!("Secret {namespace}/regcred")),
        "{}",
        failure.message
    );
    assert!(
        failure.message.contains("kubectl coral allow-secret regcred"),
        "{}",
        failure.message
    );
    assert!(!scene.holds("node-1", &image));

    allow(&scene, "regcred");
    scene.ready("web").await;
    assert!(scene.holds("node-1", &image));

    // What passed through the agent has left no trace.
    let prefetch = serde_json::to_string(&scene.prefetches().get("web").await.unwrap()).unwrap();
    let node_images = serde_json::to_string(&scene.node_images("node-1").await).unwrap();
    for (place, text) in [
        ("Prefetch", prefetch),
        ("NodeImages", node_images),
        ("logs", agent_logs(&scene).await),
    ] {
        assert!(!text.contains(&password), "the password is in: {place}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_and_a_further_secret_is_tried() {
    let scene = Scene::new("password").await;
    let image = private_image(&scene);
    secret(&scene, "wrong", "not-the-password").await;
    secret(&scene, "right", &scene.cluster.registry_auth().password).await;
    allow(&scene, "wrong");
    allow(&scene, "right");
    let spec = |secrets: &[&str]| {
        let secrets: Vec<_> = secrets.iter().map(|name| json!({"name": name})).collect();
        json!({"images": [image], "nodeSelector": on(&["node-2"]), "imagePullSecrets": secrets})
    };
    scene.prefetch("refused", spec(&["wrong"])).await;
    let failure = scene.fails_with("refused", FailureReason::Unauthorized).await;
    assert!(
        failure
            .message
            .contains("(tried the credentials of a pull secret, then none)"),
        "{}",
        failure.message
    );
    assert!(!scene.holds("node-2", &image));
    scene.delete_prefetch("refused").await;

    scene.prefetch("admitted", spec(&["wrong", "right"])).await;
    scene.ready("admitted").await;
    assert!(scene.holds("node-2", &image));
    assert!(!agent_logs(&scene).await.contains("not-the-password"));
}

/// Several layers of a size that people have, in the registry that wants a password.
#[tokio::test(flavor = "multi_thread")]
async fn private_images_of_real_software_are_prefetched() {
    let scene = Scene::new("software").await;
    let registry = scene.cluster.authenticated_registry().unwrap();
    let published = images::publish(&registry, &[Software::Go, Software::Python], &Silent).unwrap();
    secret(&scene, "regcred", &scene.cluster.registry_auth().password).await;
    allow(&scene, "regcred");
    let references: Vec<&String> = published.iter().map(|image| &image.reference).collect();
    let spec =
        json!({"images": references, "nodeSelector": on(&["node-1"]), "imagePullSecrets": [{"name": "regcred"}]});
    scene.prefetch("web", spec).await;
    scene.ready("web").await;
    for image in &published {
        assert!(image.size_bytes > 10_000_000, "{image:?}");
        assert!(scene.holds("node-1", &image.reference));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prefetch_with_a_pull_secret_needs_nothing_else() {
    let scene = Scene::new("plugin-secret").await;
    let image = private_image(&scene);
    secret(&scene, "regcred", &scene.cluster.registry_auth().password).await;
    let selector = "kubernetes.io/hostname=node-1";
    let arguments = [
        "prefetch",
        &image,
        "--name",
        "web",
        "--node-selector",
        selector,
        "--pull-secret",
        "regcred",
        "--wait",
    ];
    let ran = coral(&scene, &arguments).succeeded();
    assert_eq!(ran.stdout, "prefetch.image.stvz.io/web created\n");
    assert!(
        ran.stderr
            .contains("role.rbac.authorization.k8s.io/coral-agent-regcred created"),
        "{}",
        ran.stderr
    );
    assert!(scene.holds("node-1", &image));

    let again = coral(&scene, &["allow-secret", "regcred"]).succeeded();
    let expected = "role.rbac.authorization.k8s.io/coral-agent-regcred unchanged\n\
                    rolebinding.rbac.authorization.k8s.io/coral-agent-regcred unchanged\n";
    assert_eq!(again.stdout, expected);
    let missing = coral(&scene, &["allow-secret", "nothing"]).succeeded();
    assert!(
        missing.stderr.contains("there is no Secret \"nothing\""),
        "{}",
        missing.stderr
    );
    coral(&scene, &["allow-secret", "regcred", "--as", "nobody"]).failed(1, &["forbidden", "nobody", "hint: "]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_does_not_exist_is_named() {
    let scene = Scene::new("missing").await;
    let image = private_image(&scene);
    allow(&scene, "nothing");
    let spec = json!({"images": [image], "nodeSelector": on(&["node-1"]), "imagePullSecrets": [{"name": "nothing"}]});
    scene.prefetch("web", spec).await;
    let failure = scene.fails_with("web", FailureReason::PullSecretUnreadable).await;
    assert!(
        failure.message.ends_with("/nothing: it does not exist"),
        "{}",
        failure.message
    );
}
