//! What is between the API server and the webhook, and a Pod that is created for show.

use coral_api::{ImageReference, keys};
use k8s_openapi::api::{
    core::v1::{Pod, Secret},
    discovery::v1::EndpointSlice,
};
use kube::{Api, Client, api::PostParams};
use serde_json::json;

use super::get;
use crate::{
    client::Cluster,
    doctor::{
        certificate,
        facts::{Looked, Trial, Unread, WebhookFacts, WebhookSecret},
    },
    manifests,
};

/// An image that nobody has, so that nothing else can have changed a Pod of it.
const IMAGE: &str = "doctor.coral.invalid/trial:v1";

/// Looks at it; where there is nothing to look at no Pod is tried.
pub(super) async fn webhook(cluster: &Cluster, namespace: &str, is_absent: bool) -> WebhookFacts {
    let (resource, _) = manifests::resource(
        &json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration"}),
    );
    let trial_in = namespace_of_trial(cluster.namespace());
    let trial = async {
        if is_absent {
            return Ok(Trial {
                namespace: trial_in.to_owned(),
                is_changed: false,
            });
        }
        trial(cluster, trial_in).await
    };
    let (configuration, endpoints, secret, trial) = futures::join!(
        get(cluster, &resource, None, keys::WEBHOOK_CONFIGURATION),
        endpoints(cluster, namespace),
        secret(cluster, namespace),
        trial,
    );
    WebhookFacts {
        configuration,
        endpoints,
        secret,
        trial,
    }
}

/// The namespace in which a Pod is tried: that of the context, unless the webhook leaves it alone, as `deploy/` has it.
fn namespace_of_trial(namespace: &str) -> &str {
    let is_left_alone = namespace.starts_with("kube-")
        || namespace.ends_with("-system")
        || ["coral", "cert-manager"].contains(&namespace);
    if is_left_alone { "default" } else { namespace }
}

/// Ready addresses behind the Service.
async fn endpoints(cluster: &Cluster, namespace: &str) -> Looked<usize> {
    let slices = |client: Client| Api::<EndpointSlice>::namespaced(client, namespace);
    let selector = format!("kubernetes.io/service-name={}", keys::WEBHOOK_SERVICE);
    let mut ready = 0;
    let each = |slice: EndpointSlice| {
        let endpoints = slice.endpoints.into_iter().flatten();
        let is_ready = |endpoint: &k8s_openapi::api::discovery::v1::Endpoint| {
            let conditions = endpoint.conditions.as_ref();
            conditions.is_none_or(|conditions| conditions.ready != Some(false))
        };
        ready += endpoints
            .filter(is_ready)
            .map(|endpoint| endpoint.addresses.len())
            .sum::<usize>();
    };
    cluster.list_selected(slices, Some(&selector), each).await?;
    Ok(ready)
}

/// The certificates that the webhook keeps itself. Their keys are dropped at once.
async fn secret(cluster: &Cluster, namespace: &str) -> Looked<Option<WebhookSecret>> {
    let secrets = |client: Client| Api::<Secret>::namespaced(client, namespace);
    let found = cluster
        .request(async |client| secrets(client).get_opt(keys::WEBHOOK_SECRET).await)
        .await?;
    Ok(found.map(|secret| {
        let data = secret.data.unwrap_or_default();
        let first = |key: &str| certificate::read_all(&data.get(key)?.0)?.into_iter().next();
        WebhookSecret {
            serving: first("tls.crt"),
            authority: first("ca.crt"),
        }
    }))
}

/// Creates a Pod that is not kept, and looks whether the webhook changed it.
async fn trial(cluster: &Cluster, namespace: &str) -> Looked<Trial> {
    let pod = pod().map_err(|reason| Unread {
        is_forbidden: false,
        is_unknown_type: false,
        reason,
    })?;
    let parameters = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let pods = |client: Client| Api::<Pod>::namespaced(client, namespace);
    let created = cluster
        .request(async |client| pods(client).create(&parameters, &pod).await)
        .await?;
    let selector = created.spec.and_then(|spec| spec.node_selector).unwrap_or_default();
    Ok(Trial {
        namespace: namespace.to_owned(),
        is_changed: selector.keys().any(|key| key.starts_with(keys::PREFIX)),
    })
}

/// A Pod that asks for the label of its image, and that the strictest of Kubernetes' pod security levels lets in.
fn pod() -> Result<Pod, String> {
    let reference: ImageReference = IMAGE
        .parse()
        .map_err(|error: coral_api::InvalidReference| error.to_string())?;
    let pod = json!({
        "metadata": {"generateName": "coral-doctor-", "annotations": {keys::INJECT_ANNOTATION: "selectors"}},
        "spec": {
            "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "trial",
                "image": reference.familiar(),
                "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"cpu": "1m", "memory": "1Mi"}},
                "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    });
    serde_json::from_value(pod).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_tried_where_the_webhook_serves() {
        for (context, expected) in [
            ("shop", "shop"),
            ("default", "default"),
            ("kube-system", "default"),
            ("coral-system", "default"),
            ("coral", "default"),
        ] {
            assert_eq!(namespace_of_trial(context), expected);
        }
    }

    #[test]
    fn the_pod_of_the_trial_is_one_that_the_webhook_changes() {
        let pod = serde_json::to_value(pod().unwrap()).unwrap();
        assert_eq!(
            pod["metadata"]["annotations"],
            json!({"image.stvz.io/inject": "selectors"})
        );
        assert_eq!(pod["spec"]["containers"][0]["image"], IMAGE);
    }
}
