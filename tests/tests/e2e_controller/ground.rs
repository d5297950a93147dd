//! What a case has of the control plane.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::Result;
use coral_api::{ImageReference, NodeImages, Prefetch};
use coral_tests::{
    hollow::{ControlPlane, Fleet, HollowOptions, Tally},
    wait::{Look, eventually},
};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams},
};

/// How long anything may take that is only a matter of work, on a slow machine.
pub(crate) const SOON: Duration = Duration::from_mins(1);
/// The same with hundreds of nodes.
pub(crate) const PATIENCE: Duration = Duration::from_mins(4);

#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) plane: Arc<ControlPlane>,
    pub(crate) client: Client,
    /// What the controller that cases share has written.
    pub(crate) shared: Tally,
}

impl Ground {
    pub(crate) fn new(plane: Arc<ControlPlane>) -> Self {
        let client = plane.client();
        let shared = Tally::default();
        Self { plane, client, shared }
    }

    /// Hollow nodes for this case.
    pub(crate) async fn fleet(&self, name: &str, count: usize, options: impl Fn(usize) -> HollowOptions) -> Fleet {
        Fleet::start(self.plane.config(), name, count, options).await.unwrap()
    }

    /// What a node is asked for, and what its agent says.
    pub(crate) async fn node_images(&self, node: &str) -> Result<Option<NodeImages>> {
        let api: Api<NodeImages> = Api::all(self.client.clone());
        Ok(api.get_opt(node).await?)
    }

    /// Waits until the NodeImages object of a node is as it should be; `None` is one that is not there.
    pub(crate) async fn until_asked(
        &self,
        what: &str,
        node: &str,
        patience: Duration,
        is_so: impl Fn(Option<&NodeImages>) -> bool,
    ) {
        eventually(&format!("{what} ({node})"), patience, async || {
            let object = self.node_images(node).await?;
            Ok(if is_so(object.as_ref()) {
                Look::Done(())
            } else {
                Look::NotYet(object.map(|object| (object.spec, object.status)))
            })
        })
        .await
        .unwrap();
    }

    /// The labels of a node that say which images are there.
    pub(crate) async fn image_labels(&self, node: &str) -> Result<BTreeSet<String>> {
        let api: Api<Node> = Api::all(self.client.clone());
        let node = api.get(node).await?;
        Ok(image_labels_of(&node))
    }

    /// Waits until a node has the labels of these images and of no others.
    pub(crate) async fn until_labelled(&self, node: &str, images: &[String], patience: Duration) {
        let wanted: BTreeSet<String> = images.iter().map(|image| label(image)).collect();
        eventually(&format!("the labels of {node}"), patience, async || {
            let labels = self.image_labels(node).await?;
            Ok(if labels == wanted {
                Look::Done(())
            } else {
                Look::NotYet((labels.len(), wanted.len()))
            })
        })
        .await
        .unwrap();
    }

    /// Waits until every node of a fleet has the labels of these images and of no others.
    pub(crate) async fn until_all_labelled(&self, fleet: &Fleet, images: &[String], patience: Duration) {
        let wanted: BTreeSet<String> = images.iter().map(|image| label(image)).collect();
        let api: Api<Node> = Api::all(self.client.clone());
        eventually("the labels of all nodes", patience, async || {
            let nodes = api.list(&ListParams::default()).await?.items;
            let right = nodes.iter().filter(|node| image_labels_of(node) == wanted).count();
            Ok(if right == fleet.size() {
                Look::Done(())
            } else {
                Look::NotYet(right)
            })
        })
        .await
        .unwrap();
    }

    /// Removes what cases have left, when no controller runs.
    pub(crate) async fn clear(&self) -> Result<()> {
        let prefetches: Api<Prefetch> = Api::namespaced(self.client.clone(), "default");
        let node_images: Api<NodeImages> = Api::all(self.client.clone());
        let nodes: Api<Node> = Api::all(self.client.clone());
        let (delete, list) = (DeleteParams::default(), ListParams::default());
        eventually("the remains of other cases to go", SOON, async || {
            prefetches.delete_collection(&delete, &list).await?;
            nodes.delete_collection(&delete, &list).await?;
            node_images.delete_collection(&delete, &list).await?;
            let left = prefetches.list(&list).await?.items.len()
                + nodes.list(&list).await?.items.len()
                + node_images.list(&list).await?.items.len();
            Ok(if left == 0 { Look::Done(()) } else { Look::NotYet(left) })
        })
        .await
    }
}

fn image_labels_of(node: &Node) -> BTreeSet<String> {
    let labels = node.labels().iter();
    labels
        .filter(|(key, _)| key.starts_with(coral_api::keys::PREFIX))
        .map(|(key, _)| key.clone())
        .collect()
}

fn label(image: &str) -> String {
    image.parse::<ImageReference>().unwrap().label_key()
}

/// Images of which no other case has heard.
pub(crate) fn images(case: &str, count: usize) -> Vec<String> {
    let image = |number| format!("registry.example/{case}/app-{number:02}:v1");
    (0..count).map(image).collect()
}
