//! The right of Coral's agents to read one Secret, given with the rights of whoever runs the command.
//!
//! Nothing of Coral may read Secrets unless somebody says so by name: a Role that names one Secret, and its binding.

use coral_api::keys;
use k8s_openapi::api::{
    core::v1::Secret,
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
    core::ApiResource,
};
use serde_json::{Value, json};

use crate::{
    client::{Cluster, RequestError},
    output,
};

/// What became of one of the objects: `role.rbac.authorization.k8s.io/coral-agent-regcred created`.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Outcome {
    /// The object, as kubectl names it.
    pub(crate) object: String,
    /// `created`, `configured` or `unchanged`.
    pub(crate) change: &'static str,
}

/// Lets the agents read the Secret in the namespace of the cluster's context.
pub(crate) async fn allow(cluster: &Cluster, secret: &str, dry_run: bool) -> Result<Vec<Outcome>, RequestError> {
    let mut outcomes = Vec::new();
    for (resource, object) in objects(cluster.namespace(), secret) {
        outcomes.push(apply(cluster, &resource, &object, dry_run).await?);
    }
    Ok(outcomes)
}

/// Whether the Secret is there; `None` where one may not know. Its data are not asked for.
pub(crate) async fn exists(cluster: &Cluster, secret: &str) -> Result<Option<bool>, RequestError> {
    let secrets = |client: Client| Api::<Secret>::namespaced(client, cluster.namespace());
    match cluster
        .request(async |client| secrets(client).get_metadata_opt(secret).await)
        .await
    {
        Ok(found) => Ok(Some(found.is_some())),
        Err(RequestError::Forbidden { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The Role and its binding.
fn objects(namespace: &str, secret: &str) -> [(ApiResource, Value); 2] {
    let name = format!("{}-{secret}", keys::AGENT_SERVICE_ACCOUNT);
    let metadata = json!({"name": name, "namespace": namespace});
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": metadata,
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": [secret], "verbs": ["get"]}],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{
            "kind": "ServiceAccount",
            "name": keys::AGENT_SERVICE_ACCOUNT,
            "namespace": keys::SYSTEM_NAMESPACE,
        }],
    });
    [
        (ApiResource::erase::<Role>(&()), role),
        (ApiResource::erase::<RoleBinding>(&()), binding),
    ]
}

async fn apply(
    cluster: &Cluster,
    resource: &ApiResource,
    object: &Value,
    dry_run: bool,
) -> Result<Outcome, RequestError> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let api = |client: Client| -> Api<DynamicObject> { Api::namespaced_with(client, cluster.namespace(), resource) };
    let before = cluster.request(async |client| api(client).get_opt(name).await).await?;
    let parameters = PatchParams {
        dry_run,
        ..PatchParams::apply(keys::PLUGIN_FIELD_MANAGER)
    };
    let patch = Patch::Apply(object);
    let after = cluster
        .request(async |client| api(client).patch(name, &parameters, &patch).await)
        .await?;
    let change = match before {
        None => "created",
        Some(before) if before.metadata.resource_version == after.metadata.resource_version => "unchanged",
        Some(_) => "configured",
    };
    Ok(Outcome {
        object: output::name(name, resource),
        change,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_role_is_about_one_secret_and_nothing_else() {
        let [(_, role), (_, binding)] = objects("shop", "regcred");
        assert_eq!(
            role["rules"],
            json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["regcred"], "verbs": ["get"]}])
        );
        assert_eq!(
            role["metadata"],
            json!({"name": "coral-agent-regcred", "namespace": "shop"})
        );
        assert_eq!(binding["roleRef"]["name"], "coral-agent-regcred");
        assert_eq!(
            binding["subjects"],
            json!([{"kind": "ServiceAccount", "name": "coral-agent", "namespace": "coral-system"}])
        );
    }
}
