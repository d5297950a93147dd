//! Server-side apply of any object, with the rights of whoever runs the command.

use coral_api::keys;
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
    core::ApiResource,
};
use serde_json::Value;

use crate::{
    client::{Cluster, RequestError},
    output,
};

/// What became of an object: `role.rbac.authorization.k8s.io/coral-agent-regcred created`.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Outcome {
    /// The object, as kubectl names it.
    pub(crate) object: String,
    /// `created`, `configured` or `unchanged`.
    pub(crate) change: &'static str,
}

/// How objects are applied.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manner {
    /// Check, and keep nothing.
    pub(crate) dry_run: bool,
    /// Take fields over that somebody else manages.
    pub(crate) force: bool,
}

/// The objects of one kind, in the namespace, or in none.
pub(crate) fn api(client: Client, resource: &ApiResource, namespace: Option<&str>) -> Api<DynamicObject> {
    match namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, resource),
        None => Api::all_with(client, resource),
    }
}

/// Whether nothing of an object was changed that anybody asked for. The first apply of some kinds after their status was written, such as
/// `ValidatingAdmissionPolicy`, only changes who manages what.
fn is_same(before: &DynamicObject, after: &DynamicObject) -> bool {
    let asked_for = |object: &DynamicObject| {
        let mut object = object.clone();
        object.metadata.resource_version = None;
        object.metadata.managed_fields = None;
        if let Some(fields) = object.data.as_object_mut() {
            fields.remove("status");
        }
        object
    };
    before.metadata.resource_version == after.metadata.resource_version || asked_for(before) == asked_for(after)
}

/// Applies one object.
pub(crate) async fn apply(
    cluster: &Cluster,
    resource: &ApiResource,
    object: &Value,
    manner: Manner,
) -> Result<Outcome, RequestError> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let namespace = object["metadata"]["namespace"].as_str();
    let before = cluster
        .request(async |client| api(client, resource, namespace).get_opt(name).await)
        .await?;
    let parameters = PatchParams {
        dry_run: manner.dry_run,
        force: manner.force,
        ..PatchParams::apply(keys::PLUGIN_FIELD_MANAGER)
    };
    let patch = Patch::Apply(object);
    let after = cluster
        .request(async |client| api(client, resource, namespace).patch(name, &parameters, &patch).await)
        .await?;
    let change = match before {
        None => "created",
        Some(before) if is_same(&before, &after) => "unchanged",
        Some(_) => "configured",
    };
    Ok(Outcome {
        object: output::name(name, resource),
        change,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_somebody_asked_for_is_a_change() {
        let object = |version: &str, spec: i32, status: i32| -> DynamicObject {
            serde_json::from_value(json!({"metadata": {"name": "a", "resourceVersion": version},
                "spec": {"replicas": spec}, "status": {"replicas": status}}))
            .unwrap()
        };
        for (after, expected) in [
            (object("1", 1, 1), true),
            (object("2", 1, 2), true),
            (object("2", 2, 1), false),
        ] {
            assert_eq!(is_same(&object("1", 1, 1), &after), expected, "{after:?}");
        }
    }
}
