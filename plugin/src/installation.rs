//! Where Coral is installed in the cluster, and which Coral it is.

use coral_api::keys;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, DynamicObject, Preconditions, PropagationPolicy},
    core::ApiResource,
};
use serde_json::json;

use crate::{
    apply,
    client::{Cluster, RequestError},
    error::Error,
    manifests,
};

/// Label of everything that `deploy/` has in a cluster, but for the resource types.
pub(crate) const PART_OF: (&str, &str) = ("app.kubernetes.io/part-of", "coral");
/// Label of the parts that says which Coral they are of.
pub(crate) const VERSION: &str = "app.kubernetes.io/version";

/// A Coral that is in the cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Installation {
    pub(crate) namespace: String,
    /// Versions of the parts, as the manifests said; more than one during an upgrade, none where other tools applied them.
    pub(crate) versions: Vec<String>,
    /// Images that the parts run.
    pub(crate) images: Vec<String>,
}

/// Finds the installation; `None` where there is none.
pub(crate) async fn find(cluster: &Cluster) -> Result<Option<Installation>, RequestError> {
    let Some(namespace) = namespace(cluster).await? else {
        return Ok(None);
    };
    let mut installation = Installation {
        namespace,
        versions: Vec::new(),
        images: Vec::new(),
    };
    for kind in ["DaemonSet", "Deployment"] {
        let (resource, _) = manifests::resource(&json!({"apiVersion": "apps/v1", "kind": kind}));
        let namespace = installation.namespace.clone();
        let api = |client: Client| apply::api(client, &resource, Some(&namespace));
        let selector = format!("{}={}", PART_OF.0, PART_OF.1);
        cluster
            .list_selected(api, Some(&selector), |part: DynamicObject| installation.add(&part))
            .await?;
    }
    Ok(Some(installation))
}

impl Installation {
    fn add(&mut self, part: &DynamicObject) {
        let version = part.metadata.labels.as_ref().and_then(|labels| labels.get(VERSION));
        let containers = part.data["spec"]["template"]["spec"]["containers"].as_array();
        let images = containers
            .into_iter()
            .flatten()
            .filter_map(|container| container["image"].as_str());
        let new = |list: &[String], text: &str| !list.iter().any(|known| known == text);
        if let Some(version) = version.filter(|version| new(&self.versions, version)) {
            self.versions.push(version.clone());
        }
        for image in images {
            if new(&self.images, image) {
                self.images.push(image.to_owned());
            }
        }
    }
}

/// The namespace of the parts: that of the agents' service account, which the binding of their role names.
pub(crate) async fn namespace(cluster: &Cluster) -> Result<Option<String>, RequestError> {
    let (resource, _) = manifests::resource(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
    }));
    if let Some(binding) = get(cluster, &resource, keys::AGENT_SERVICE_ACCOUNT).await? {
        let namespace = binding.data["subjects"][0]["namespace"].as_str();
        return Ok(Some(namespace.unwrap_or(keys::SYSTEM_NAMESPACE).to_owned()));
    }
    remaining_namespace(cluster).await
}

/// The namespace of an agent's service account whose binding somebody took away.
async fn remaining_namespace(cluster: &Cluster) -> Result<Option<String>, RequestError> {
    let (resource, _) = manifests::resource(&json!({"apiVersion": "v1", "kind": "ServiceAccount"}));
    let selector = format!("{}={}", PART_OF.0, PART_OF.1);
    let api = |client: Client| -> Api<DynamicObject> { Api::all_with(client, &resource) };
    let mut found = None;
    let each = |account: DynamicObject| {
        if account.name_any() == keys::AGENT_SERVICE_ACCOUNT {
            found = account.namespace();
        }
    };
    match cluster.list_selected(api, Some(&selector), each).await {
        Ok(()) | Err(RequestError::Forbidden { .. } | RequestError::NotFound { .. }) => Ok(found),
        Err(error) => Err(error),
    }
}

/// The namespace of the parts, for people who may not look: where it is unless somebody said otherwise.
pub(crate) async fn namespace_or_default(cluster: &Cluster) -> String {
    let found = namespace(cluster).await.ok().flatten();
    found.unwrap_or_else(|| keys::SYSTEM_NAMESPACE.to_owned())
}

async fn get(cluster: &Cluster, resource: &ApiResource, name: &str) -> Result<Option<DynamicObject>, RequestError> {
    let api = |client: Client| -> Api<DynamicObject> { Api::all_with(client, resource) };
    cluster.request(async |client| api(client).get_opt(name).await).await
}

/// All that `deploy/` made in the cluster, but for the resource types, whichever version it was of. Kinds that are listed nowhere
/// today are found because an older version had them.
pub(crate) async fn objects(cluster: &Cluster) -> Result<Vec<(ApiResource, DynamicObject)>, Error> {
    const OLDER: [(&str, &str); 9] = [
        ("v1", "ConfigMap"),
        ("v1", "Service"),
        ("apps/v1", "Deployment"),
        ("policy/v1", "PodDisruptionBudget"),
        ("networking.k8s.io/v1", "NetworkPolicy"),
        ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"),
        ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"),
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"),
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding"),
    ];
    let ours = manifests::compose(&manifests::components())?;
    let older = OLDER.map(|(version, kind)| json!({"apiVersion": version, "kind": kind}));
    let mut kinds: Vec<ApiResource> = Vec::new();
    for object in ours.iter().chain(&older) {
        let (resource, _) = manifests::resource(object);
        let is_known = kinds
            .iter()
            .any(|known| (&known.group, &known.kind) == (&resource.group, &resource.kind));
        if !is_known && resource.kind != "CustomResourceDefinition" {
            kinds.push(resource);
        }
    }
    let selector = format!("{}={}", PART_OF.0, PART_OF.1);
    let mut found = Vec::new();
    for resource in kinds {
        let api = |client: Client| -> Api<DynamicObject> { Api::all_with(client, &resource) };
        let each = |object: DynamicObject| found.push((resource.clone(), object));
        match cluster.list_selected(api, Some(&selector), each).await {
            // Kinds of optional parts need not be known to the server.
            Ok(()) | Err(RequestError::NotInstalled | RequestError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

/// Deletes an object, if it is still that one. The pods of a workload go before it.
///
/// Nothing else has dependents that one would have to wait for, and to wait is not free: the object gets a finalizer that only the
/// garbage collector of Kubernetes takes away, which loses sight of it when another request to delete comes between
/// (kubernetes/kubernetes#77081).
pub(crate) async fn delete(
    cluster: &Cluster,
    resource: &ApiResource,
    object: &DynamicObject,
) -> Result<(), RequestError> {
    let parameters = DeleteParams {
        propagation_policy: Some(propagation(&resource.kind)),
        preconditions: Some(Preconditions {
            uid: object.metadata.uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let namespace = object.metadata.namespace.as_deref();
    let deleted = cluster
        .request(async |client| apply::api(client, resource, namespace).delete(name, &parameters).await)
        .await;
    match deleted {
        Ok(_) | Err(RequestError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Kind of an object to what becomes of its dependents.
fn propagation(kind: &str) -> PropagationPolicy {
    match kind {
        "Deployment" | "DaemonSet" => PropagationPolicy::Foreground,
        _ => PropagationPolicy::Background,
    }
}
