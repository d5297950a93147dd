//! What a stolen token of Coral's is worth: the tokens are those that its pods have, and what they are refused is tried on a real API
//! server. `docs/security.md` says in words what is shown here.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

mod agent;
mod controller;
mod mirror;
#[path = "../support/mod.rs"]
mod support;
mod webhook;

use std::{fmt::Debug, time::Duration};

use coral_api::keys;
use coral_tests::Cluster;
use http::{Method, Request};
use k8s_openapi::api::{
    authentication::v1::TokenRequest,
    core::v1::{Pod, ServiceAccount},
};
use kube::{
    Api, Client, Config, ResourceExt as _,
    api::{ListParams, PatchParams, PostParams},
    config::{AuthInfo, KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

const NAMESPACE: &str = keys::SYSTEM_NAMESPACE;
/// How long the API server may take to follow a change of what it decides by.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client with a token of this account, bound to that pod as the kubelet binds it.
async fn stolen(cluster: &Cluster, account: &str, pod: Option<&Pod>) -> Client {
    let bound = pod.map(|pod| json!({"apiVersion": "v1", "kind": "Pod", "name": pod.name_any(), "uid": pod.uid()}));
    let request: TokenRequest = serde_json::from_value(json!({
        "spec": {"audiences": [], "expirationSeconds": 600, "boundObjectRef": bound},
    }))
    .unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client(), NAMESPACE);
    let parameters = PostParams::default();
    let answer = accounts.create_token_request(account, &parameters, &request).await;
    let token = answer.unwrap().status.unwrap().token.unwrap();
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).unwrap();
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
    config.auth_info = AuthInfo {
        token: Some(token.into()),
        ..AuthInfo::default()
    };
    Client::try_from(config).unwrap()
}

/// A pod of this part of Coral, on that node if one is named.
async fn pod(cluster: &Cluster, part: &str, node: Option<&str>) -> Pod {
    let pods: Api<Pod> = Api::namespaced(cluster.client(), NAMESPACE);
    let mut parameters = ListParams::default().labels(&format!("app.kubernetes.io/name={part}"));
    if let Some(node) = node {
        parameters = parameters.fields(&format!("spec.nodeName={node}"));
    }
    pods.list(&parameters).await.unwrap().items.remove(0)
}

/// The sentence with which the API server forbade it.
fn refusal<T: Debug>(result: kube::Result<T>, what: &str) -> String {
    match result {
        Err(kube::Error::Api(status)) if status.code == 403 => status.message,
        other => panic!("{what} was not forbidden: {other:?}"),
    }
}

/// A server-side dry run: admission is asked, nothing is kept.
fn dry_run() -> PatchParams {
    PatchParams {
        dry_run: true,
        ..PatchParams::default()
    }
}

/// Every one of these requests is forbidden to the client.
async fn all_forbidden(client: &Client, requests: &[(Method, &str, Value)]) {
    for (method, path, body) in requests {
        let request = Request::builder()
            .method(method)
            .uri(format!("{path}?dryRun=All"))
            .header(
                "content-type",
                if method == Method::PATCH {
                    "application/merge-patch+json"
                } else {
                    "application/json"
                },
            )
            .body(if body.is_null() {
                Vec::new()
            } else {
                serde_json::to_vec(body).unwrap()
            })
            .unwrap();
        let answer = client.request_text(request).await;
        refusal(answer, &format!("{method} {path}"));
    }
}

/// What no account of Coral's may do.
fn forbidden_to_all() -> Vec<(Method, &'static str, Value)> {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"},
        "spec": {"containers": [{"name": "x", "image": "x"}]}});
    let token = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "x"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}});
    let nothing = Value::Null;
    vec![
        (Method::GET, "/api/v1/secrets", nothing.clone()),
        (Method::GET, "/api/v1/namespaces/coral-system/secrets", nothing.clone()),
        (Method::GET, "/api/v1/namespaces/kube-system/secrets", nothing.clone()),
        (Method::GET, "/api/v1/configmaps", nothing.clone()),
        (Method::GET, "/api/v1/nodes/node-1/proxy/pods", nothing.clone()),
        (Method::POST, "/api/v1/namespaces/coral-system/pods", pod),
        (
            Method::POST,
            "/api/v1/namespaces/kube-system/serviceaccounts/default/token",
            token,
        ),
        (
            Method::POST,
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            binding,
        ),
        (
            Method::PATCH,
            "/api/v1/nodes/node-1/status",
            json!({"status": {"phase": "x"}}),
        ),
        (Method::DELETE, "/api/v1/nodes/node-1", nothing.clone()),
        (
            Method::DELETE,
            "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/coral-agent",
            nothing.clone(),
        ),
        (
            Method::DELETE,
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/prefetches.image.stvz.io",
            nothing,
        ),
    ]
}
