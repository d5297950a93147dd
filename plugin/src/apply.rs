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

/// What became of an object that people ask for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Change {
    Created,
    Configured,
    Unchanged,
}

impl Change {
    /// kubectl's word for it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
        }
    }

    /// What became of an object whose generation counts the changes of what is asked for, and nothing else.
    pub(crate) fn between(before: Option<&DynamicObject>, after: &DynamicObject) -> Self {
        match before {
            Some(before) if before.metadata.uid == after.metadata.uid => {
                if before.metadata.generation == after.metadata.generation {
                    Self::Unchanged
                } else {
                    Self::Configured
                }
            }
            _ => Self::Created,
        }
    }
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
        None => Change::Created.as_str(),
        Some(before) if is_same(&before, &after) => Change::Unchanged.as_str(),
        Some(_) => Change::Configured.as_str(),
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

    fn version(uid: &str, generation: i64) -> DynamicObject {
        serde_json::from_value(json!({"metadata": {"name": "web", "uid": uid, "generation": generation}})).unwrap()
    }

    #[test]
    fn the_generation_tells_what_changed() {
        assert_eq!(Change::between(None, &version("a", 1)), Change::Created);
        assert_eq!(
            Change::between(Some(&version("a", 1)), &version("a", 1)),
            Change::Unchanged
        );
        assert_eq!(
            Change::between(Some(&version("a", 1)), &version("a", 2)),
            Change::Configured
        );
        assert_eq!(
            Change::between(Some(&version("a", 1)), &version("b", 1)),
            Change::Created
        );
    }

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
