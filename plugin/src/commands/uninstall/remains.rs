//! What of Coral is in a cluster.

use coral_api::keys;
use kube::{Api, Client, ResourceExt as _, api::DynamicObject, core::ApiResource};
use serde_json::{Map, Value, json};

use crate::{
    client::{Cluster, RequestError},
    error::Error,
    grant, human, installation, manifests, output, prefetches,
};

/// Everything of Coral's that there is.
#[derive(Debug, Default)]
pub(super) struct Remains {
    /// What `deploy/` made, but for the resource types.
    pub(super) objects: Vec<(ApiResource, DynamicObject)>,
    /// The resource types, unless they stay.
    pub(super) crds: Vec<(ApiResource, DynamicObject)>,
    pub(super) prefetches: Vec<DynamicObject>,
    /// Names of nodes with labels, annotations or taints of Coral's.
    pub(super) nodes: Vec<String>,
    /// What `allow-secret` made.
    pub(super) grants: Vec<(ApiResource, DynamicObject)>,
    keeps_crds: bool,
}

impl Remains {
    /// Looks for it. Objects of another namespace than this are not touched.
    pub(super) async fn find(cluster: &Cluster, namespace: &str, keeps_crds: bool) -> Result<Self, Error> {
        let mut remains = Self {
            keeps_crds,
            ..Self::default()
        };
        remains.objects = installation::objects(cluster).await?;
        remains
            .objects
            .retain(|(resource, object)| match &object.metadata.namespace {
                Some(of_object) => of_object == namespace,
                None => resource.kind != "Namespace" || object.name_any() == namespace,
            });
        remains
            .objects
            .extend(unlabelled(cluster, namespace, &remains.objects).await?);
        if let Ok((found, _)) = prefetches::find(cluster, &[], None, true).await {
            remains.prefetches = found;
        }
        if !keeps_crds {
            let (resource, _) = resource("apiextensions.k8s.io/v1", "CustomResourceDefinition");
            let found = list(cluster, &resource, None).await?;
            let ours = found.into_iter().filter(|crd| crd.data["spec"]["group"] == keys::GROUP);
            remains.crds = ours.map(|crd| (resource.clone(), crd)).collect();
        }
        let (nodes, _) = resource("v1", "Node");
        for node in list(cluster, &nodes, None).await? {
            if cleaning(&output::object(&node, &nodes)?).is_some() {
                remains.nodes.push(node.name_any());
            }
        }
        let selector = format!("{}={}", grant::MANAGED_BY.0, grant::MANAGED_BY.1);
        for kind in ["RoleBinding", "Role"] {
            let (resource, _) = resource("rbac.authorization.k8s.io/v1", kind);
            let found = list(cluster, &resource, Some(&selector)).await?;
            remains
                .grants
                .extend(found.into_iter().map(|object| (resource.clone(), object)));
        }
        Ok(remains)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.crds.is_empty() && self.nodes.is_empty() && self.grants.is_empty()
    }

    /// What will go, in a sentence.
    pub(super) fn summary(&self) -> String {
        let mut parts = vec![human::counted(self.objects.len(), "object")];
        if self.keeps_crds {
            parts.push(format!(
                "not {}",
                counted(self.prefetches.len(), "Prefetch", "Prefetches")
            ));
        } else {
            parts.push(human::counted(self.crds.len(), "resource type"));
            parts.push(counted(self.prefetches.len(), "Prefetch", "Prefetches"));
        }
        parts.push(format!(
            "labels and taints of {}",
            human::counted(self.nodes.len(), "node")
        ));
        if !self.grants.is_empty() {
            parts.push(format!(
                "{} to read pull secrets",
                human::counted(self.grants.len(), "right")
            ));
        }
        if self.takes_copies() {
            parts.push("the registry in the cluster with all copies in it".to_owned());
        }
        format!("this will delete: {}", parts.join(", "))
    }

    /// The volume of the registry belongs to nobody but its namespace.
    fn takes_copies(&self) -> bool {
        let has = |kind: &str, name: Option<&str>| {
            let mut objects = self.objects.iter();
            objects.any(|(resource, object)| {
                resource.kind == kind && name.is_none_or(|name| object.metadata.name.as_deref() == Some(name))
            })
        };
        has("StatefulSet", Some(keys::REGISTRY_SERVICE)) && has("Namespace", None)
    }

    /// All that will go, as kubectl names it.
    pub(super) fn names(&self) -> Vec<String> {
        let objects = [&self.objects, &self.grants, &self.crds].into_iter().flatten();
        objects
            .map(|(resource, object)| output::name(&object.name_any(), resource))
            .chain(
                self.prefetches
                    .iter()
                    .filter(|_| !self.keeps_crds)
                    .map(prefetches::name),
            )
            .collect()
    }
}

/// What the parts made for themselves where a namespace stays: they go with it otherwise.
async fn unlabelled(
    cluster: &Cluster,
    namespace: &str,
    objects: &[(ApiResource, DynamicObject)],
) -> Result<Vec<(ApiResource, DynamicObject)>, Error> {
    if objects.iter().any(|(resource, _)| resource.kind == "Namespace") {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for (version, kind, name) in [
        ("v1", "Secret", keys::WEBHOOK_SECRET),
        ("coordination.k8s.io/v1", "Lease", "coral-controller"),
        ("coordination.k8s.io/v1", "Lease", "coral-mirror"),
        ("coordination.k8s.io/v1", "Lease", "coral-webhook"),
    ] {
        let (resource, _) = resource(version, kind);
        let api = |client: Client| crate::apply::api(client, &resource, Some(namespace));
        match cluster.request(async |client| api(client).get_opt(name).await).await {
            Ok(object) => found.extend(object.map(|object| (resource.clone(), object))),
            Err(RequestError::Forbidden { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

fn resource(version: &str, kind: &str) -> (ApiResource, bool) {
    manifests::resource(&json!({"apiVersion": version, "kind": kind}))
}

async fn list(cluster: &Cluster, resource: &ApiResource, selector: Option<&str>) -> Result<Vec<DynamicObject>, Error> {
    let api = |client: Client| -> Api<DynamicObject> { Api::all_with(client, resource) };
    let mut objects = Vec::new();
    cluster
        .list_selected(api, selector, |object| objects.push(object))
        .await?;
    Ok(objects)
}

/// The merge patch that takes Coral's labels, annotations and taints off a node; `None` where it has none.
pub(super) fn cleaning(node: &Value) -> Option<Value> {
    let metadata = &node["metadata"];
    let nulls = |field: &str| -> Map<String, Value> {
        let fields = metadata[field].as_object().into_iter().flat_map(Map::keys);
        fields
            .filter(|key| key.starts_with(keys::PREFIX))
            .map(|key| (key.clone(), Value::Null))
            .collect()
    };
    let mut change = json!({});
    for field in ["labels", "annotations"] {
        let nulls = nulls(field);
        if !nulls.is_empty() {
            change["metadata"][field] = nulls.into();
        }
    }
    let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    let is_ours = |taint: &Value| taint["key"].as_str().is_some_and(|key| key.starts_with(keys::PREFIX));
    if taints.iter().any(is_ours) {
        let others: Vec<&Value> = taints.iter().filter(|taint| !is_ours(taint)).collect();
        change["spec"]["taints"] = json!(others);
        // A merge patch replaces the whole list: only the one that was read.
        change["metadata"]["resourceVersion"] = metadata["resourceVersion"].clone();
    }
    (change != json!({})).then_some(change)
}

fn counted(number: usize, one: &str, many: &str) -> String {
    format!("{} {}", human::count(number), if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_uninstalls_is_told_that_copies_go_with_their_registry() {
        let object = |version: &str, kind: &str, name: &str| {
            let (resource, _) = resource(version, kind);
            let object = DynamicObject::new(name, &resource);
            (resource, object)
        };
        let mut remains = Remains::default();
        remains.objects.push(object("apps/v1", "StatefulSet", "coral-registry"));
        assert!(
            !remains.summary().contains("copies"),
            "the volume stays with its namespace"
        );
        remains.objects.push(object("v1", "Namespace", "coral-system"));
        assert!(remains.summary().contains("all copies in it"), "{}", remains.summary());
    }

    #[test]
    fn only_what_is_corals_is_taken_off_a_node() {
        let plain = json!({"metadata": {"labels": {"image.stvz.io": "x", "image.stvz.iox/a": "b", "zone": "a"}}});
        assert_eq!(cleaning(&plain), None);
        let labelled =
            json!({"metadata": {"resourceVersion": "7", "labels": {"image.stvz.io/1a": "available", "zone": "a"}}});
        assert_eq!(
            cleaning(&labelled),
            Some(json!({"metadata": {"labels": {"image.stvz.io/1a": null}}}))
        );
        let other = json!({"key": "gpu", "effect": "NoSchedule"});
        let tainted = json!({
            "metadata": {"resourceVersion": "7"},
            "spec": {"taints": [other, {"key": "image.stvz.io/not-ready", "effect": "NoSchedule"}]},
        });
        assert_eq!(
            cleaning(&tainted),
            Some(json!({"metadata": {"resourceVersion": "7"}, "spec": {"taints": [other]}}))
        );
    }
}
