//! What the token of the webhook is worth.

use coral_tests::Cluster;
use http::{Method, Request};
use serde_json::{Value, json};

use super::{all_forbidden, forbidden_to_all, pod, stolen};

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
