//! Asks the API server for everything that [`diagnose`](super::diagnose) looks at.
//!
//! Nothing here fails but the way to the server itself: what may not be read, or is not there, is a fact like others.

mod access;
mod kubelets;
mod mirrors;
mod parts;
mod webhook;

use std::{collections::BTreeMap, time::Duration};

use coral_api::{NodeImages, Prefetch, keys};
use jiff::Timestamp;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};
use kube::{Api, Client, ResourceExt as _, api::DynamicObject, core::ApiResource};
use tokio::time::sleep;

use super::{
    controller::CONTROLLER,
    facts::{AccessFacts, Facts, LeaseFacts, Looked, NodeFacts, PrefetchFacts, Report, ResourceType, Unread},
    nodes::stray_labels,
};
use crate::{
    apply,
    client::{Cluster, RequestError},
    commands::version::VERSION,
    error::Error,
    human, installation, manifests,
    progress::steps::Steps,
};

/// Requests that are under way at a time, of those that are about one thing each.
const AT_A_TIME: usize = 8;
/// A Lease that is not renewed for so long is looked at again. A leader renews every few seconds.
const LEASE_FRESH: Duration = Duration::from_secs(10);
/// How long it is looked at. Longer than a leader may take before it gives up.
const LEASE_PATIENCE: Duration = Duration::from_secs(12);
/// Pause before what may have changed between two lists is looked at again.
const SECOND_LOOK: Duration = Duration::from_secs(3);

/// How much is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Kubelets that are asked for their settings.
    pub(crate) kubelets: usize,
}

/// Asks for everything.
///
/// # Errors
///
/// When the server is not reached, or does not accept the credentials.
pub(crate) async fn gather(cluster: &Cluster, bounds: Bounds, steps: &mut Option<Steps<'_>>) -> Result<Facts, Error> {
    let mut show = |what: &str| {
        if let Some(steps) = steps {
            steps.show(what);
        }
    };
    show("looking at Kubernetes");
    let server_version = server_version(cluster).await?;
    let bound = installation::namespace(cluster).await.map_err(Unread::from);
    let is_bound = bound.as_ref().map(Option::is_some).map_err(Clone::clone);
    let namespace = bound
        .ok()
        .flatten()
        .unwrap_or_else(|| keys::SYSTEM_NAMESPACE.to_owned());
    let types = resource_types(cluster).await?;
    let is_absent = is_bound == Ok(false) && types.iter().all(|one| one.found == Ok(None));
    show("looking at the parts of Coral");
    let (parts, pods, lease, webhook) = futures::join!(
        parts::parts(cluster, &namespace),
        parts::pods(cluster, &namespace),
        lease(cluster, &namespace, CONTROLLER),
        webhook::webhook(cluster, &namespace, is_absent),
    );
    show("looking at nodes, Prefetches and Mirrors");
    let ((nodes, reports), prefetches, mirrors) = futures::join!(
        nodes_and_reports(cluster),
        prefetches(cluster),
        mirrors::mirrors(cluster, &namespace)
    );
    show("looking at kubelets and rights");
    let kubelets = async {
        match &nodes {
            Ok(nodes) if !is_absent => kubelets::kubelets(cluster, nodes, bounds.kubelets).await,
            _ => super::facts::Kubelets::default(),
        }
    };
    let access = async {
        if is_absent {
            Ok(AccessFacts::default())
        } else {
            Box::pin(access::access(
                cluster,
                &namespace,
                prefetches.as_deref().unwrap_or_default(),
            ))
            .await
        }
    };
    let (kubelets, access) = futures::join!(kubelets, access);
    Ok(Facts {
        now: Timestamp::now(),
        client_version: VERSION.to_owned(),
        server_version,
        is_bound,
        namespace,
        types,
        parts,
        pods,
        lease,
        webhook,
        nodes,
        reports,
        prefetches,
        mirrors,
        kubelets,
        access: access?,
    })
}

/// The first question, which also tells whether anybody is there.
async fn server_version(cluster: &Cluster) -> Result<Looked<String>, Error> {
    match cluster
        .request(async |client: Client| client.apiserver_version().await)
        .await
    {
        Ok(info) => Ok(Ok(info.git_version)),
        Err(
            error @ (RequestError::Unreachable { .. }
            | RequestError::NoAnswer { .. }
            | RequestError::Unauthorized { .. }),
        ) => Err(error.into()),
        Err(error) => Ok(Err(error.into())),
    }
}

/// The resource types of `deploy/`; those of optional parts where the server has them.
async fn resource_types(cluster: &Cluster) -> Result<Vec<ResourceType>, Error> {
    let base = manifests::compose::<&str>(&[])?;
    let all = manifests::compose(&manifests::components())?;
    let mut types: Vec<ResourceType> = Vec::new();
    for expected in all {
        let name = expected["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if expected["kind"] != "CustomResourceDefinition" || types.iter().any(|known| known.name == name) {
            continue;
        }
        let (resource, _) = manifests::resource(&expected);
        let found = get(cluster, &resource, None, &name).await;
        let is_optional = !base.iter().any(|object| object["metadata"]["name"] == name.as_str());
        if !(is_optional && found == Ok(None)) {
            types.push(ResourceType { name, expected, found });
        }
    }
    Ok(types)
}

/// An object as it is.
async fn get(
    cluster: &Cluster,
    resource: &ApiResource,
    namespace: Option<&str>,
    name: &str,
) -> Looked<Option<serde_json::Value>> {
    let found = cluster
        .request(async |client| apply::api(client, resource, namespace).get_opt(name).await)
        .await?;
    found.map(|object| value(&object, resource)).transpose()
}

fn value(object: &DynamicObject, resource: &ApiResource) -> Looked<serde_json::Value> {
    crate::output::object(object, resource).map_err(|error| Unread {
        is_forbidden: false,
        is_unknown_type: false,
        reason: error.to_string(),
    })
}

/// The Lease; one that looks old, twice, for clocks differ.
async fn lease(cluster: &Cluster, namespace: &str, name: &str) -> Looked<Option<LeaseFacts>> {
    let look = async || {
        let leases = |client: Client| Api::<Lease>::namespaced(client, namespace);
        let lease = cluster
            .request(async |client| leases(client).get_opt(name).await)
            .await?;
        Looked::Ok(lease.and_then(|lease| lease.spec))
    };
    let Some(first) = look().await? else {
        return Ok(None);
    };
    let renewed = first.renew_time.as_ref().map(|time| time.0);
    let mut facts = LeaseFacts {
        holder: first.holder_identity,
        moved: None,
    };
    let now = Timestamp::now();
    let is_fresh = renewed.is_some_and(|renewed| human::between(renewed, now) < LEASE_FRESH && renewed <= now);
    if is_fresh || facts.holder.as_deref().is_none_or(str::is_empty) {
        return Ok(Some(facts));
    }
    let began = std::time::Instant::now();
    let mut moved = false;
    while !moved && began.elapsed() < LEASE_PATIENCE {
        sleep(Duration::from_secs(1)).await;
        let again = look().await?.unwrap_or_default();
        moved = again.renew_time.as_ref().map(|time| time.0) != renewed;
        if moved {
            facts.holder = again.holder_identity;
        }
    }
    facts.moved = Some(moved);
    Ok(Some(facts))
}

/// The nodes, and what their agents say. Labels that do not agree with it are kept only where they do not in a second look, either.
async fn nodes_and_reports(cluster: &Cluster) -> (Looked<Vec<NodeFacts>>, Looked<BTreeMap<String, Report>>) {
    // Nodes first: the label of an image follows the report.
    let (mut nodes, mut reports) = (nodes(cluster).await, reports(cluster).await);
    let (Ok(first_nodes), Ok(first_reports)) = (&nodes, &reports) else {
        return (nodes, reports);
    };
    let before = stray_labels(first_nodes, first_reports);
    if before.is_empty() {
        return (nodes, reports);
    }
    sleep(SECOND_LOOK).await;
    nodes = self::nodes(cluster).await;
    reports = self::reports(cluster).await;
    if let Ok(nodes) = &mut nodes {
        for node in nodes {
            let known = before.get(&node.name);
            node.labels.retain(|key, _| {
                // A stray of the second look that was none in the first is only on its way.
                let is_backed = reports.as_ref().is_ok_and(|reports| {
                    reports
                        .get(&node.name)
                        .is_some_and(|report| report.labels.contains(key))
                });
                is_backed || !super::nodes::is_image_label(key) || known.is_some_and(|known| known.contains(key))
            });
        }
    }
    (nodes, reports)
}

async fn nodes(cluster: &Cluster) -> Looked<Vec<NodeFacts>> {
    let mut nodes = Vec::new();
    cluster
        .list(Api::<Node>::all, |node| nodes.push(NodeFacts::of(node)))
        .await?;
    Ok(nodes)
}

async fn reports(cluster: &Cluster) -> Looked<BTreeMap<String, Report>> {
    let mut reports = BTreeMap::new();
    let each = |node: NodeImages| {
        reports.insert(node.name_any(), Report::of(&node));
    };
    cluster.list(Api::<NodeImages>::all, each).await?;
    Ok(reports)
}

async fn prefetches(cluster: &Cluster) -> Looked<Vec<PrefetchFacts>> {
    let mut prefetches = Vec::new();
    let each = |prefetch| prefetches.push(PrefetchFacts::of(prefetch));
    cluster.list(Api::<Prefetch>::all, each).await?;
    Ok(prefetches)
}
