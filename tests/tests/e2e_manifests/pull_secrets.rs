//! The component that lets the agents read every pull secret.

use coral_tests::images;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, api::PostParams};
use serde_json::json;

use super::{
    kubectl, repository,
    support::{Scene, on},
};

/// Takes the right away again, also when the test fails.
struct Right<'a>(&'a Scene);

impl Right<'_> {
    fn file() -> String {
        let path = repository("deploy/components/cluster-wide-pull-secrets/rbac.yaml");
        path.to_string_lossy().into_owned()
    }
}

impl Drop for Right<'_> {
    fn drop(&mut self) {
        kubectl(
            &self.0.cluster,
            &["delete", "--ignore-not-found", "--filename", &Right::file()],
            "",
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_component_no_secret_has_to_be_allowed() {
    let scene = Scene::new("pull-secrets").await;
    let repository = format!("{}/private", scene.namespace.name());
    let registry = scene.cluster.authenticated_registry().unwrap();
    let image = images::tiny(&registry, &repository, "v1", 50_000, &repository)
        .unwrap()
        .reference;
    let access = scene.cluster.registry_auth();
    let config = json!({"auths": {&access.host: {"username": access.user, "password": access.password}}});
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"name": "regcred"},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": config.to_string()},
    }))
    .unwrap();
    let secrets: Api<Secret> = scene.namespace.api();
    secrets.create(&PostParams::default(), &secret).await.unwrap();

    let right = Right(&scene);
    kubectl(&scene.cluster, &["apply", "--filename", &Right::file()], "").succeeded();
    let spec = json!({"images": [image], "nodeSelector": on(&["node-1"]), "imagePullSecrets": [{"name": "regcred"}]});
    scene.prefetch("web", spec).await;
    scene.ready("web").await;
    assert!(scene.holds("node-1", &image));
    drop(right);
}
