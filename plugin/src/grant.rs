//! The right of Coral's agents, or of its mirror controller, to read one Secret, given with the rights of whoever runs the command.
//!
//! Nothing of Coral may read Secrets unless somebody says so by name: a Role that names one Secret, and its binding.

use k8s_openapi::api::{
    core::v1::Secret,
    rbac::v1::{Role, RoleBinding},
};
use kube::{Api, Client, core::ApiResource};
use serde_json::{Value, json};

use crate::{
    apply::{Manner, Outcome, apply},
    client::{Cluster, RequestError},
    installation,
};

/// Label of what this command made for somebody, so that `uninstall` finds it.
pub(crate) const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "kubectl-coral");

/// Lets a service account of Coral's read the Secret in the namespace of the cluster's context.
pub(crate) async fn allow(
    cluster: &Cluster,
    secret: &str,
    reader: &str,
    dry_run: bool,
) -> Result<Vec<Outcome>, RequestError> {
    let manner = Manner { dry_run, force: false };
    let mut outcomes = Vec::new();
    let readers = installation::namespace_or_default(cluster).await;
    for (resource, object) in objects(cluster.namespace(), secret, reader, &readers) {
        outcomes.push(apply(cluster, &resource, &object, manner).await?);
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

/// The Role and its binding to the service account in Coral's namespace.
fn objects(namespace: &str, secret: &str, reader: &str, readers: &str) -> [(ApiResource, Value); 2] {
    let name = format!("{reader}-{secret}");
    let metadata = json!({"name": name, "namespace": namespace, "labels": {MANAGED_BY.0: MANAGED_BY.1}});
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
            "name": reader,
            "namespace": readers,
        }],
    });
    [
        (ApiResource::erase::<Role>(&()), role),
        (ApiResource::erase::<RoleBinding>(&()), binding),
    ]
}

#[cfg(test)]
mod tests {
    use coral_api::keys;

    use super::*;

    #[test]
    fn the_role_is_about_one_secret_and_nothing_else() {
        for reader in [keys::AGENT_SERVICE_ACCOUNT, keys::MIRROR_SERVICE_ACCOUNT] {
            let name = format!("{reader}-regcred");
            let [(_, role), (_, binding)] = objects("shop", "regcred", reader, "coral-system");
            assert_eq!(
                role["rules"],
                json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["regcred"], "verbs": ["get"]}])
            );
            assert_eq!(
                role["metadata"],
                json!({
                    "name": name,
                    "namespace": "shop",
                    "labels": {"app.kubernetes.io/managed-by": "kubectl-coral"},
                })
            );
            assert_eq!(binding["metadata"], role["metadata"]);
            assert_eq!(binding["roleRef"]["name"], name.as_str());
            assert_eq!(
                binding["subjects"],
                json!([{"kind": "ServiceAccount", "name": reader, "namespace": "coral-system"}])
            );
        }
    }
}
