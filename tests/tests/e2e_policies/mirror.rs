//! What the token of the mirror controller is worth. It is no part of the installation that other tests share, so its account and its rights
//! are there for this test alone.

use std::{fs, path::Path};

use coral_tests::{
    Cluster,
    wait::{Look, eventually},
};
use http::{Method, Request};
use kube::Client;
use serde_json::{Value, json};

use super::{
    PATIENCE, all_forbidden, forbidden_to_all, stolen,
    support::{coral::fed, remains::kubectl_command},
};

/// The account and the rights of the component, without what runs with them.
fn manifests() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/components/mirror");
    let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap();
    let (account, _) = read("mirror.yaml")
        .split_once("---\n")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    assert!(account.contains("kind: ServiceAccount"), "{account}");
    format!("{account}---\n{}", read("rbac.yaml"))
}

async fn get(client: &Client, path: &str) -> kube::Result<String> {
    client.request_text(Request::get(path).body(Vec::new()).unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mirror_controller_reads_four_secrets_and_changes_no_workload() {
    let cluster = Cluster::shared().await.unwrap();
    let manifests = manifests();
    fed(kubectl_command(&cluster).args(["apply", "--filename=-"]), &manifests).succeeded();
    let mirror = stolen(&cluster, "coral-mirror", None).await;

    // What it is there for: all that may name an image, and the Secrets by name, whether they are there or not.
    eventually("the rights to count", PATIENCE, async || {
        Ok(match get(&mirror, "/api/v1/pods?limit=1").await {
            Ok(_) => Look::Done(()),
            Err(error) => Look::NotYet(error),
        })
    })
    .await
    .unwrap();
    for path in [
        "/apis/apps/v1/deployments?limit=1",
        "/apis/image.stvz.io/v1alpha1/mirrors?limit=1",
    ] {
        get(&mirror, path).await.unwrap();
    }
    for secret in [
        "coral-mirror-push",
        "coral-mirror-ca",
        "coral-registry-push",
        "coral-registry-ca",
    ] {
        let path = format!("/api/v1/namespaces/coral-system/secrets/{secret}");
        match get(&mirror, &path).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => panic!("{secret}: {other:?}"),
        }
    }

    all_forbidden(&mirror, &forbidden_to_all()).await;
    let nothing = Value::Null;
    let requests = |method: Method, paths: &[&'static str], body: &Value| -> Vec<(Method, &'static str, Value)> {
        paths.iter().map(|path| (method.clone(), *path, body.clone())).collect()
    };
    let secrets = [
        // With them somebody could pose as the webhook, or as the registry.
        "/api/v1/namespaces/coral-system/secrets/coral-webhook-tls",
        "/api/v1/namespaces/coral-system/secrets/coral-registry-tls",
        "/api/v1/namespaces/coral-system/secrets/coral-registry-users",
        // In another namespace the names count for nothing.
        "/api/v1/namespaces/default/secrets/coral-mirror-push",
        "/api/v1/nodes",
        "/apis/image.stvz.io/v1alpha1/nodeimages",
    ];
    all_forbidden(&mirror, &requests(Method::GET, &secrets, &nothing)).await;
    let written = [
        "/api/v1/namespaces/default/pods/x",
        "/apis/apps/v1/namespaces/default/deployments/x",
        "/apis/batch/v1/namespaces/default/cronjobs/x",
        "/apis/image.stvz.io/v1alpha1/namespaces/default/prefetches/x",
        // What it is told to do is not its to say.
        "/apis/image.stvz.io/v1alpha1/mirrors/x",
        "/api/v1/namespaces/coral-system/secrets/coral-mirror-push",
        "/apis/coordination.k8s.io/v1/namespaces/coral-system/leases/coral-controller",
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/coral-webhook",
    ];
    let label = json!({"metadata": {"labels": {"x": "y"}}});
    all_forbidden(&mirror, &requests(Method::PATCH, &written, &label)).await;
    all_forbidden(&mirror, &requests(Method::DELETE, &written, &nothing)).await;

    fed(kubectl_command(&cluster).args(["delete", "--filename=-"]), &manifests).succeeded();
}
