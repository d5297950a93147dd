//! What the token of an agent is worth.

use coral_api::NodeImages;
use coral_tests::Cluster;
use http::Method;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    all_forbidden, forbidden_to_all, pod, refusal, stolen,
    support::{Scene, on},
};

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
