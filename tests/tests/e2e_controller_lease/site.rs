//! What every case begins with: the rights that the controller is deployed with, and nothing that an earlier case has left.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use coral_api::{NodeImages, Prefetch};
use coral_tests::{
    hollow::Site,
    wait::{Look, eventually},
};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
    core::GroupVersionKind,
    discovery::ApiResource,
};

/// How long the API server may take to remove what an earlier case has left.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where the Lease is, as in a cluster that people install Coral in.
pub(crate) const NAMESPACE: &str = coral_api::keys::SYSTEM_NAMESPACE;

/// Gives the controller its rights as people install them, and removes what an earlier case has left.
pub(crate) async fn prepare(site: &Site) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(site.client.clone());
    let namespace = serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    let parameters = PatchParams::apply("coral-tests").force();
    namespaces
        .patch(NAMESPACE, &parameters, &Patch::Apply(&namespace))
        .await?;
    let rights = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/base/controller-rbac.yaml");
    apply(site, Path::new(rights)).await?;
    clear(site).await
}

/// Applies every object of a file.
async fn apply(site: &Site, path: &Path) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    for document in text.split("\n---\n") {
        let object: DynamicObject =
            serde_saphyr::from_str(document).with_context(|| format!("understand {}", path.display()))?;
        let types = object.types.clone().context("an object without a kind")?;
        let kind = GroupVersionKind::try_from(&types)?;
        let resource = ApiResource::from_gvk(&kind);
        let is_namespaced = matches!(kind.kind.as_str(), "Role" | "RoleBinding" | "ServiceAccount");
        let api: Api<DynamicObject> = if is_namespaced {
            // The kustomization sets the namespace where the file has none.
            let namespace = object.metadata.namespace.as_deref().unwrap_or(NAMESPACE);
            Api::namespaced_with(site.client.clone(), namespace, &resource)
        } else {
            Api::all_with(site.client.clone(), &resource)
        };
        let name = object.metadata.name.clone().context("an object without a name")?;
        let parameters = PatchParams::apply("coral-tests").force();
        api.patch(&name, &parameters, &Patch::Apply(&object)).await?;
    }
    Ok(())
}

/// Removes what an earlier case has left.
async fn clear(site: &Site) -> Result<()> {
    let (delete, list) = (DeleteParams::default().grace_period(0), ListParams::default());
    let prefetches: Api<Prefetch> = Api::default_namespaced(site.client.clone());
    let leases: Api<k8s_openapi::api::coordination::v1::Lease> = Api::namespaced(site.client.clone(), NAMESPACE);
    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(site.client.clone());
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::default_namespaced(site.client.clone());
    let node_images: Api<NodeImages> = Api::all(site.client.clone());
    eventually("what an earlier case has left to go", PATIENCE, async || {
        prefetches.delete_collection(&delete, &list).await?;
        leases.delete_collection(&delete, &list).await?;
        pods.delete_collection(&delete, &list).await?;
        nodes.delete_collection(&delete, &list).await?;
        node_images.delete_collection(&delete, &list).await?;
        let left = prefetches.list(&list).await?.items.len()
            + leases.list(&list).await?.items.len()
            + pods.list(&list).await?.items.len()
            + nodes.list(&list).await?.items.len()
            + node_images.list(&list).await?.items.len();
        Ok(if left == 0 { Look::Done(()) } else { Look::NotYet(left) })
    })
    .await
}
