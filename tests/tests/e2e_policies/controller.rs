//! What the token of the controller is worth.

use coral_api::keys;
use coral_tests::{
    Cluster,
    wait::{Look, eventually},
};
use http::Method;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{PATIENCE, all_forbidden, dry_run, forbidden_to_all, pod, refusal, stolen, support::Scene};

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
