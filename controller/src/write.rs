//! Carries a write out.

use std::time::Duration;

use coral_api::{NodeImages, Prefetch, keys};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, Resource as _,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::json;

use crate::plan::Write;

/// Longest time for one write.
const TIMEOUT: Duration = Duration::from_secs(15);

/// An object as the API server has it after a write.
pub(crate) enum Written {
    NodeImages(Box<NodeImages>),
    NodeImagesGone(String),
    Node(Box<Node>),
    Prefetch(Box<Prefetch>),
    PrefetchGone { namespace: String, name: String },
}

/// Why a write was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("failed to write {what}")]
    Api { what: String, source: kube::Error },
    #[error("failed to write {what}: the API server gave no answer in {} s", TIMEOUT.as_secs())]
    Timeout { what: String },
}

/// Carries a write out and returns what came of it.
pub(crate) async fn carry_out(client: &Client, write: Write) -> Result<Written, Error> {
    let what = name_of(&write);
    match tokio::time::timeout(TIMEOUT, send(client, write)).await {
        Ok(Ok(written)) => Ok(written),
        Ok(Err(source)) => Err(Error::Api { what, source }),
        Err(_) => Err(Error::Timeout { what }),
    }
}

fn name_of(write: &Write) -> String {
    match write {
        Write::NodeImages { node, .. } | Write::DeleteNodeImages { node, .. } => format!("NodeImages {node}"),
        Write::NodeLabels { node, .. } => format!("the labels of node {node}"),
        Write::RemoveStartupTaint { node, .. } => format!("the startup taint of node {node}"),
        Write::PrefetchStatus { namespace, name, .. } => format!("the status of Prefetch {namespace}/{name}"),
        Write::DeletePrefetch { namespace, name, .. } => format!("the end of Prefetch {namespace}/{name}"),
    }
}

async fn send(client: &Client, write: Write) -> Result<Written, kube::Error> {
    let apply = PatchParams::apply(keys::CONTROLLER_FIELD_MANAGER).force();
    match write {
        Write::NodeImages { node, node_uid, spec } => {
            let body = json!({
                "apiVersion": NodeImages::api_version(&()),
                "kind": NodeImages::kind(&()),
                "metadata": {
                    "name": node,
                    "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid}],
                },
                "spec": spec,
            });
            let api: Api<NodeImages> = Api::all(client.clone());
            let object = api.patch(&node, &apply, &Patch::Apply(&body)).await?;
            Ok(Written::NodeImages(Box::new(object)))
        }
        Write::DeleteNodeImages { node, uid } => {
            let api: Api<NodeImages> = Api::all(client.clone());
            gone(api.delete(&node, &only(uid)).await)?;
            Ok(Written::NodeImagesGone(node))
        }
        Write::NodeLabels { node, labels } => {
            let api: Api<Node> = Api::all(client.clone());
            let body = json!({"metadata": {"labels": labels}});
            let parameters = PatchParams {
                field_manager: Some(keys::CONTROLLER_FIELD_MANAGER.to_owned()),
                ..PatchParams::default()
            };
            let mut object = api.patch(&node, &parameters, &Patch::Merge(&body)).await?;
            crate::node::prune(&mut object);
            Ok(Written::Node(Box::new(object)))
        }
        Write::RemoveStartupTaint {
            node, node_uid, taints, ..
        } => {
            let api: Api<Node> = Api::all(client.clone());
            let patch: Patch<Node> = Patch::Json(without_taints(&node_uid, &taints));
            let parameters = PatchParams {
                field_manager: Some(keys::CONTROLLER_FIELD_MANAGER.to_owned()),
                ..PatchParams::default()
            };
            let mut object = api.patch(&node, &parameters, &patch).await?;
            crate::node::prune(&mut object);
            Ok(Written::Node(Box::new(object)))
        }
        Write::PrefetchStatus {
            namespace,
            name,
            status,
        } => {
            let body = json!({
                "apiVersion": Prefetch::api_version(&()),
                "kind": Prefetch::kind(&()),
                "metadata": {"name": name, "namespace": namespace},
                "status": status,
            });
            let api: Api<Prefetch> = Api::namespaced(client.clone(), &namespace);
            let object = api.patch_status(&name, &apply, &Patch::Apply(&body)).await?;
            Ok(Written::Prefetch(Box::new(object)))
        }
        Write::DeletePrefetch { namespace, name, uid } => {
            let api: Api<Prefetch> = Api::namespaced(client.clone(), &namespace);
            gone(api.delete(&name, &only(Some(uid))).await)?;
            Ok(Written::PrefetchGone { namespace, name })
        }
    }
}

/// Takes the taints at these places of the list away, if they are what they are taken for: a list that somebody changed in the meantime
/// makes the API server refuse the patch, and nobody else's taint is ever touched.
fn without_taints(node_uid: &str, taints: &[usize]) -> json_patch::Patch {
    let mut operations = vec![json!({"op": "test", "path": "/metadata/uid", "value": node_uid})];
    // From the end, so that the places that are still to come stay what they are.
    for index in taints.iter().rev() {
        let path = format!("/spec/taints/{index}");
        operations.push(json!({"op": "test", "path": format!("{path}/key"), "value": keys::STARTUP_TAINT}));
        operations.push(json!({"op": "remove", "path": path}));
    }
    serde_json::from_value(operations.into()).expect("these operations are a JSON patch")
}

/// Deletes the object of this UID and none that has come after it.
fn only(uid: Option<String>) -> DeleteParams {
    DeleteParams {
        preconditions: uid.map(|uid| Preconditions {
            uid: Some(uid),
            resource_version: None,
        }),
        ..DeleteParams::default()
    }
}

/// What is gone already need not be deleted.
fn gone<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of a node's taints when the patch is applied to it, or nothing when it is refused.
    fn left(uid: &str, taints: &[&str], places: &[usize]) -> Option<Vec<String>> {
        let taints: Vec<_> = taints
            .iter()
            .map(|key| json!({"key": key, "effect": "NoSchedule"}))
            .collect();
        let mut node = json!({"metadata": {"uid": uid}, "spec": {"taints": taints}});
        json_patch::patch(&mut node, &without_taints("node-1", places)).ok()?;
        let taints = node["spec"]["taints"].as_array().unwrap();
        Some(
            taints
                .iter()
                .map(|taint| taint["key"].as_str().unwrap().to_owned())
                .collect(),
        )
    }

    #[test]
    fn only_the_startup_taint_is_taken_away() {
        const OURS: &str = keys::STARTUP_TAINT;
        assert_eq!(left("node-1", &["a", OURS, "b"], &[1]).unwrap(), ["a", "b"]);
        assert_eq!(left("node-1", &[OURS, "a", OURS], &[0, 2]).unwrap(), ["a"]);
        assert_eq!(left("node-1", &[OURS], &[0]).unwrap(), [""; 0]);
        // Somebody changed the list, or the node is another one.
        assert_eq!(left("node-1", &["a", "b", OURS], &[1]), None);
        assert_eq!(left("node-1", &["a"], &[1]), None);
        assert_eq!(left("node-2", &[OURS], &[0]), None);
    }
}
