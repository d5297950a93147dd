//! What the end-to-end tests share: a namespace on the shared cluster, images of their own, and what to wait for.

#![allow(dead_code, reason = "each test target uses a part of it")]

pub(crate) mod coral;
pub(crate) mod remains;

use std::time::Duration;

use coral_api::{
    FailureReason, ImageReference, NodeImages, Prefetch,
    conditions::{self, READY},
    prefetch::NodeFailure,
};
use coral_tests::{
    Cluster,
    cluster::{DiagnoseOnPanic, TempNamespace},
    images,
    wait::{Look, eventually},
};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};

/// How long labels may take to follow, both ways.
pub(crate) const LABELS_FOLLOW: Duration = Duration::from_secs(15);
/// How long anything else may take on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// A namespace on the shared cluster.
pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    pub(crate) namespace: TempNamespace,
    _diagnose: DiagnoseOnPanic,
}

impl Scene {
    pub(crate) async fn new(name: &str) -> Self {
        let cluster = Cluster::shared().await.unwrap();
        let namespace = cluster.temp_namespace(name).await.unwrap();
        let diagnose = cluster.diagnose_on_panic();
        Self {
            cluster,
            namespace,
            _diagnose: diagnose,
        }
    }

    /// An image that no other test has, in the open registry. Its entrypoint waits for ever.
    pub(crate) fn image(&self, name: &str) -> String {
        let repository = format!("{}/{name}", self.namespace.name());
        let published = images::tiny(&self.cluster.open_registry(), &repository, "v1", 100_000, &repository).unwrap();
        published.reference
    }

    /// Takes an image out of the open registry.
    pub(crate) fn delete_image(&self, image: &str) {
        let name = image.split_once('/').unwrap().1;
        images::delete(&self.cluster.open_registry(), name).unwrap();
    }

    pub(crate) async fn prefetch(&self, name: &str, spec: Value) -> Prefetch {
        let object = json!({
            "apiVersion": "image.stvz.io/v1alpha1",
            "kind": "Prefetch",
            "metadata": {"name": name},
            "spec": spec,
        });
        let object: Prefetch = serde_json::from_value(object).unwrap();
        self.prefetches().create(&PostParams::default(), &object).await.unwrap()
    }

    pub(crate) fn prefetches(&self) -> Api<Prefetch> {
        self.namespace.api()
    }

    pub(crate) async fn delete_prefetch(&self, name: &str) {
        self.prefetches().delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// Waits until the Prefetch is Ready for its newest generation.
    pub(crate) async fn ready(&self, name: &str) -> Prefetch {
        eventually(&format!("Prefetch {name} to be Ready"), PATIENCE, async || {
            let object = self.prefetches().get(name).await?;
            let status = object.status.clone().unwrap_or_default();
            let is_current = status.observed_generation == object.metadata.generation;
            Ok(if is_current && conditions::is_true(&status.conditions, READY) {
                Look::Done(object)
            } else {
                Look::NotYet(status)
            })
        })
        .await
        .unwrap()
    }

    /// Waits until the Prefetch tells of a failure with this reason.
    pub(crate) async fn fails_with(&self, name: &str, reason: FailureReason) -> NodeFailure {
        eventually(
            &format!("Prefetch {name} to fail with {reason}"),
            PATIENCE,
            async || {
                let status = self.prefetches().get(name).await?.status.unwrap_or_default();
                let found = status.failures.iter().find(|failure| failure.reason == reason);
                Ok(found.cloned().map_or(Look::NotYet(status.failures), Look::Done))
            },
        )
        .await
        .unwrap()
    }

    /// Waits until the node has the image's label, or has it no more.
    pub(crate) async fn label(&self, node: &str, image: &str, expected: bool, timeout: Duration) {
        let key = image.parse::<ImageReference>().unwrap().label_key();
        let nodes: Api<Node> = Api::all(self.cluster.client());
        let what = format!("the label of {image} on {node} to be there: {expected}");
        eventually(&what, timeout, async || {
            let labels = nodes.get(node).await?.labels().clone();
            Ok(if labels.contains_key(&key) == expected {
                Look::Done(())
            } else {
                Look::NotYet(labels)
            })
        })
        .await
        .unwrap();
    }

    /// Waits until the node's containerd itself holds the image.
    pub(crate) async fn held(&self, node: &str, image: &str) {
        let node = self.cluster.node(node).unwrap();
        let what = format!("{image} to be on {}", node.name());
        eventually(&what, PATIENCE, async || {
            let images = node.images()?;
            Ok(if images.iter().any(|held| held == image) {
                Look::Done(())
            } else {
                Look::NotYet(images)
            })
        })
        .await
        .unwrap();
    }

    pub(crate) fn holds(&self, node: &str, image: &str) -> bool {
        self.cluster.node(node).unwrap().has_image(image).unwrap()
    }

    /// The NodeImages object of a node, if there is one.
    pub(crate) async fn node_images(&self, node: &str) -> Option<NodeImages> {
        let api: Api<NodeImages> = Api::all(self.cluster.client());
        api.get_opt(node).await.unwrap()
    }
}

/// A selector of the nodes with these names.
pub(crate) fn on(nodes: &[&str]) -> Value {
    json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": nodes}]})
}
