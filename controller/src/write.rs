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
        Write::NodeImages { node, .. } | Write::DeleteNodeImages { node } => format!("NodeImages {node}"),
        Write::NodeLabels { node, .. } => format!("the labels of node {node}"),
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
        Write::DeleteNodeImages { node } => {
            let api: Api<NodeImages> = Api::all(client.clone());
            gone(api.delete(&node, &DeleteParams::default()).await)?;
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
            let parameters = DeleteParams {
                preconditions: Some(Preconditions {
                    uid: Some(uid),
                    resource_version: None,
                }),
                ..DeleteParams::default()
            };
            gone(api.delete(&name, &parameters).await)?;
            Ok(Written::PrefetchGone { namespace, name })
        }
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
