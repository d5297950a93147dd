//! What a stolen token of Coral's is worth: the tokens are those that its pods have, and what they are refused is tried on a real API
//! server. `docs/security.md` says in words what is shown here.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

mod support;

use std::{fmt::Debug, time::Duration};

use coral_api::{NodeImages, keys};
use coral_tests::{
    Cluster,
    wait::{Look, eventually},
};
use http::{Method, Request};
use k8s_openapi::api::{
    authentication::v1::TokenRequest,
    core::v1::{Node, Pod, ServiceAccount},
};
use kube::{
    Api, Client, Config, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    config::{AuthInfo, KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use support::{Scene, on};

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

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_writes_the_status_of_its_own_node_and_of_no_other() {
    let scene = Scene::new("policies").await;
    let image = scene.image("app");
    let spec = json!({"images": [image], "nodeSelector": on(&["node-1", "node-2"])});
    scene.prefetch("web", spec).await;
    // Both nodes have a NodeImages object now, with a status that their agents wrote.
    scene.ready("web").await;

    let write = async |client: &Client, node: &str| {
        let status = json!({
            "apiVersion": "image.stvz.io/v1alpha1",
            "kind": "NodeImages",
            "metadata": {"name": node},
            "status": {"observedGeneration": 1},
        });
        let parameters = PatchParams::apply("coral-tests").force();
        let parameters = PatchParams {
            dry_run: true,
            ..parameters
        };
        let api: Api<NodeImages> = Api::all(client.clone());
        api.patch_status(node, &parameters, &Patch::Apply(&status)).await
    };
    for (own, other) in [("node-1", "node-2"), ("node-2", "node-1")] {
        let pod = pod(&scene.cluster, "coral-agent", Some(own)).await;
        let agent = stolen(&scene.cluster, "coral-agent", Some(&pod)).await;
        write(&agent, own).await.unwrap();
        let message = refusal(write(&agent, other).await, "the status of another node");
        let sentence = format!("the agent of node {own} may write the status of its own node only, not of {other}");
        assert!(message.contains(&sentence), "{message}");
    }
    // A token that says of no node.
    let agent = stolen(&scene.cluster, "coral-agent", None).await;
    let message = refusal(write(&agent, "node-1").await, "a status with a token of no node");
    assert!(
        message.contains("this token does not say which node that is"),
        "{message}"
    );
    // The policy is for agents only.
    write(&scene.cluster.client(), "node-1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_may_nothing_else() {
    let cluster = Cluster::shared().await.unwrap();
    let pod = pod(&cluster, "coral-agent", Some("node-1")).await;
    let agent = stolen(&cluster, "coral-agent", Some(&pod)).await;
    all_forbidden(&agent, &forbidden_to_all()).await;
    let nothing = Value::Null;
    all_forbidden(
        &agent,
        &[
            (Method::GET, "/api/v1/nodes", nothing.clone()),
            (Method::GET, "/api/v1/nodes/node-1", nothing.clone()),
            (Method::GET, "/api/v1/pods", nothing.clone()),
            (Method::GET, "/apis/image.stvz.io/v1alpha1/prefetches", nothing.clone()),
            (
                Method::GET,
                "/api/v1/namespaces/coral-system/secrets/coral-webhook-tls",
                nothing.clone(),
            ),
            (
                Method::PATCH,
                "/api/v1/nodes/node-1",
                json!({"metadata": {"labels": {"image.stvz.io/x": "available"}}}),
            ),
            (
                Method::PATCH,
                "/apis/image.stvz.io/v1alpha1/nodeimages/node-1",
                json!({"spec": {"images": []}}),
            ),
            (
                Method::DELETE,
                "/apis/image.stvz.io/v1alpha1/nodeimages/node-1",
                nothing,
            ),
        ],
    )
    .await;
}

/// A Node for nothing but this: no kubelet runs it, and without the label of an operating system neither agents nor Prefetches
/// are for it.
async fn node(cluster: &Cluster, name: &str) -> Node {
    let mut labels: serde_json::Map<String, Value> = (0..600)
        .map(|i| (format!("example.org/padding-{i}"), format!("value-{i}").into()))
        .collect();
    labels.insert("team".to_owned(), "a".into());
    let object: Node = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": labels, "annotations": {"example.org/note": "kept"}},
        "spec": {"taints": [
            {"key": "example.org/other", "effect": "PreferNoSchedule"},
            {"key": keys::STARTUP_TAINT, "effect": "NoSchedule"},
        ]},
    }))
    .unwrap();
    let nodes: Api<Node> = Api::all(cluster.client());
    nodes.create(&PostParams::default(), &object).await.unwrap()
}

/// What may not be written to a Node, each with a part of the sentence.
fn attempts() -> Vec<(Value, &'static str)> {
    let labels = "no labels of nodes but those that begin with image.stvz.io/";
    let metadata = "may not write annotations, finalizers or owners of nodes";
    let taints = "may change no taints of nodes but take image.stvz.io/not-ready away";
    let spec = "may write nothing in the spec of nodes but its taint";
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "x"});
    let other = json!({"key": "example.org/other", "effect": "PreferNoSchedule"});
    let ours = json!({"key": keys::STARTUP_TAINT, "effect": "NoSchedule"});
    let new = json!({"key": "example.org/new", "effect": "NoExecute"});
    let stronger = json!({"key": keys::STARTUP_TAINT, "effect": "NoExecute"});
    vec![
        (json!({"metadata": {"labels": {"other": "x"}}}), labels),
        (json!({"metadata": {"labels": {"team": "b"}}}), labels),
        (json!({"metadata": {"labels": {"team": null}}}), labels),
        (json!({"metadata": {"labels": {"image.stvz.iox/a": "x"}}}), labels),
        (
            json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}}),
            labels,
        ),
        (
            json!({"metadata": {"labels": {"image.stvz.io/a": "available", "team": "b"}}}),
            labels,
        ),
        (json!({"metadata": {"annotations": {"image.stvz.io/a": "x"}}}), metadata),
        (
            json!({"metadata": {"annotations": {"example.org/note": null}}}),
            metadata,
        ),
        (json!({"metadata": {"finalizers": ["example.org/stay"]}}), metadata),
        (json!({"metadata": {"ownerReferences": [owner]}}), metadata),
        (json!({"spec": {"taints": [other, ours, new]}}), taints),
        (json!({"spec": {"taints": [ours]}}), taints),
        (json!({"spec": {"taints": null}}), taints),
        (json!({"spec": {"taints": [other, ours, stronger]}}), taints),
        (json!({"spec": {"unschedulable": true}}), spec),
        (
            json!({"spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"]}}),
            spec,
        ),
        (json!({"spec": {"providerID": "example://node"}}), spec),
        // Beside what would be allowed.
        (json!({"spec": {"taints": [other], "unschedulable": true}}), spec),
        (
            json!({"spec": {"taints": [other], "providerID": "example://node"}}),
            spec,
        ),
        (
            json!({"spec": {"taints": [other], "podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"]}}),
            spec,
        ),
    ]
}

/// The write with the node's own taints in the place of those that the attempt has not thought of: the cluster gives a node without a
/// kubelet taints of its own.
fn with_taints_of(node: &Node, write: &Value) -> Value {
    let mut write = write.clone();
    let own = node.spec.clone().unwrap_or_default().taints.unwrap_or_default();
    if let Some(taints) = write.pointer_mut("/spec/taints").and_then(Value::as_array_mut) {
        let theirs = own.iter().filter(|taint| taint.key.starts_with("node.kubernetes.io/"));
        taints.extend(theirs.map(|taint| serde_json::to_value(taint).unwrap()));
    }
    write["metadata"]["resourceVersion"] = node.resource_version().into();
    write
}

#[tokio::test(flavor = "multi_thread")]
async fn the_controller_writes_its_labels_of_nodes_and_takes_its_taint_away_and_nothing_else() {
    let scene = Scene::new("policies").await;
    let cluster = &scene.cluster;
    // Names of namespaces are not used twice.
    let name = scene.namespace.name();
    let admin: Api<Node> = Api::all(cluster.client());
    node(cluster, name).await;
    let pod = pod(cluster, "coral-controller", None).await;
    let controller: Api<Node> = Api::all(stolen(cluster, "coral-controller", Some(&pod)).await);

    // Each attempt would be nothing special for others, so that nothing but the policy can be what refuses it. Whoever watches over nodes
    // may have changed this one meanwhile; then it is read anew.
    for (attempt, sentence) in attempts() {
        let what = format!("{attempt} to be refused to the controller only");
        eventually(&what, PATIENCE, async || {
            let attempt = with_taints_of(&admin.get(name).await?, &attempt);
            admin.patch(name, &dry_run(), &Patch::Merge(&attempt)).await?;
            let result = controller.patch(name, &dry_run(), &Patch::Merge(&attempt)).await;
            if matches!(&result, Err(kube::Error::Api(status)) if status.code == 409) {
                return Ok(Look::NotYet(result.err()));
            }
            let message = refusal(result, &attempt.to_string());
            assert!(message.contains(sentence), "{attempt}: {message}");
            Ok(Look::Done(()))
        })
        .await
        .unwrap();
    }

    // What it is there for, for good.
    let change = async |write: Value| {
        eventually(&write.to_string(), PATIENCE, async || {
            let write = with_taints_of(&admin.get(name).await?, &write);
            let written = controller
                .patch(name, &PatchParams::default(), &Patch::Merge(&write))
                .await?;
            Ok(Look::<_, ()>::Done(written))
        })
        .await
        .unwrap()
    };
    let label = |value: Value| json!({"metadata": {"labels": {"image.stvz.io/a": value}}});
    assert_eq!(
        change(label("available".into())).await.labels()["image.stvz.io/a"],
        "available"
    );
    assert_eq!(change(label("other".into())).await.labels()["image.stvz.io/a"], "other");
    assert!(
        !change(label(Value::Null))
            .await
            .labels()
            .contains_key("image.stvz.io/a")
    );
    let other = json!({"key": "example.org/other", "effect": "PreferNoSchedule"});
    let node = change(json!({"spec": {"taints": [other]}})).await;
    let taints = node.spec.unwrap().taints.unwrap();
    assert!(taints.iter().any(|taint| taint.key == "example.org/other"));
    assert!(taints.iter().all(|taint| taint.key != keys::STARTUP_TAINT));
    // And not back again.
    let again = json!({"spec": {"taints": [other, {"key": keys::STARTUP_TAINT, "effect": "NoSchedule"}]}});
    let again = with_taints_of(&admin.get(name).await.unwrap(), &again);
    refusal(
        controller.patch(name, &dry_run(), &Patch::Merge(&again)).await,
        "the startup taint",
    );
    admin.delete(name, &DeleteParams::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_controller_may_nothing_else() {
    let cluster = Cluster::shared().await.unwrap();
    let pod = pod(&cluster, "coral-controller", None).await;
    let controller = stolen(&cluster, "coral-controller", Some(&pod)).await;
    all_forbidden(&controller, &forbidden_to_all()).await;
    let nothing = Value::Null;
    let prefetch = json!({"apiVersion": "image.stvz.io/v1alpha1", "kind": "Prefetch", "metadata": {"name": "x"},
        "spec": {"images": ["x"]}});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "x"}});
    all_forbidden(
        &controller,
        &[
            (
                Method::GET,
                "/api/v1/namespaces/coral-system/secrets/coral-webhook-tls",
                nothing.clone(),
            ),
            (
                Method::GET,
                "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/coral-webhook",
                nothing.clone(),
            ),
            (Method::DELETE, "/api/v1/namespaces/default/pods/x", nothing.clone()),
            (Method::GET, "/api/v1/namespaces/default/pods/x/log", nothing.clone()),
            (Method::POST, "/api/v1/nodes", node),
            (
                Method::POST,
                "/apis/image.stvz.io/v1alpha1/namespaces/default/prefetches",
                prefetch,
            ),
            (
                Method::PATCH,
                "/apis/image.stvz.io/v1alpha1/nodeimages/node-1/status",
                json!({"status": {"observedGeneration": 1}}),
            ),
            (
                Method::GET,
                "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases",
                nothing,
            ),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_webhook_has_its_own_secret_and_its_own_configuration_and_no_others() {
    let cluster = Cluster::shared().await.unwrap();
    let pod = pod(&cluster, "coral-webhook", None).await;
    let webhook = stolen(&cluster, "coral-webhook", Some(&pod)).await;
    let get = async |path: &str| {
        let request = Request::get(path).body(Vec::new()).unwrap();
        webhook.request_text(request).await.map(|_| ())
    };
    get("/api/v1/namespaces/coral-system/secrets/coral-webhook-tls")
        .await
        .unwrap();
    get("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/coral-webhook")
        .await
        .unwrap();

    all_forbidden(&webhook, &forbidden_to_all()).await;
    let nothing = Value::Null;
    let secret = |name: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
    let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "another"}});
    let label = json!({"metadata": {"labels": {"x": "y"}}});
    all_forbidden(
        &webhook,
        &[
            (
                Method::GET,
                "/api/v1/namespaces/coral-system/secrets/another",
                nothing.clone(),
            ),
            (
                Method::GET,
                "/api/v1/namespaces/default/secrets/coral-webhook-tls",
                nothing.clone(),
            ),
            (
                Method::POST,
                "/api/v1/namespaces/coral-system/secrets",
                secret("another"),
            ),
            (
                Method::DELETE,
                "/api/v1/namespaces/coral-system/secrets/coral-webhook-tls",
                nothing.clone(),
            ),
            (
                Method::GET,
                "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
                nothing.clone(),
            ),
            (
                Method::POST,
                "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
                configuration,
            ),
            (
                Method::PATCH,
                "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/another",
                label.clone(),
            ),
            (
                Method::PATCH,
                "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/coral-webhook",
                label,
            ),
            (Method::GET, "/api/v1/pods", nothing.clone()),
            (Method::GET, "/api/v1/nodes", nothing.clone()),
            (Method::GET, "/apis/image.stvz.io/v1alpha1/nodeimages", nothing.clone()),
            (
                Method::DELETE,
                "/apis/image.stvz.io/v1alpha1/namespaces/default/prefetches/x",
                nothing,
            ),
        ],
    )
    .await;
}
