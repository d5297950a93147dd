//! The cluster with Coral, the checker that watches it, and what every row needs of them.

use std::{
    collections::BTreeSet,
    fs,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use coral_api::{NodeImages, Prefetch, keys};
use coral_tests::{
    Cluster,
    checker::{Checker, Kind, Wrong},
    cluster::TempNamespace,
    images,
    wait::{Look, eventually},
};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    clock::SkewedNode,
    table::{LONGEST_BACK_OFF, PATIENCE},
};

/// The nodes of most rows.
pub(crate) const NODES: [&str; 2] = ["node-1", "node-2"];
/// The node with a small disk.
pub(crate) const SMALL_NODE: &str = "node-3";

pub(crate) struct Site {
    pub(crate) checker: Checker,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) client: Client,
    pub(crate) namespace: TempNamespace,
    /// The node whose agent has a clock of its own.
    pub(crate) skewed: SkewedNode,
    /// How many rows were played: each has images of its own.
    count: Mutex<usize>,
}

impl Site {
    /// Adds the nodes that the rows need, and waits until Prefetches of all nodes are there.
    pub(crate) async fn start() -> Self {
        let cluster = Arc::new(Cluster::shared().await.unwrap());
        let small = coral_tests::NodeOptions {
            disk: Some("300m".to_owned()),
            ..coral_tests::NodeOptions::default()
        };
        if cluster.node(SMALL_NODE).is_err() {
            cluster.add_node(small).await.unwrap();
        }
        let skewed = SkewedNode::join(&cluster).await.unwrap();
        let site = Self {
            checker: Checker::start(Arc::clone(&cluster)),
            client: cluster.client(),
            namespace: cluster.temp_namespace("faults").await.unwrap(),
            cluster,
            skewed,
            count: Mutex::new(0),
        };
        // They are there all the time, on every node, and nothing is done to them.
        let standing = [site.publish("standing-a", 100_000), site.publish("standing-b", 100_000)];
        let spec = json!({"images": standing, "parallelism": "100%"});
        site.prefetch("standing", spec).await.unwrap();
        site.checker.right(Instant::now(), PATIENCE, |_| true).await.unwrap();
        site
    }

    /// A number that no other row has had.
    pub(crate) fn number(&self) -> usize {
        let mut count = self.count.lock().unwrap();
        *count += 1;
        *count
    }

    /// An image that nobody else has, in the open registry.
    pub(crate) fn publish(&self, name: &str, bytes: usize) -> String {
        let repository = format!("{}/{name}", self.namespace.name());
        let registry = self.cluster.open_registry();
        images::tiny(&registry, &repository, "v1", bytes, &repository)
            .unwrap()
            .reference
    }

    pub(crate) async fn prefetch(&self, name: &str, spec: Value) -> Result<()> {
        let object = json!({
            "apiVersion": "image.stvz.io/v1alpha1",
            "kind": "Prefetch",
            "metadata": {"name": name},
            "spec": spec,
        });
        let object = serde_json::from_value(object).context("read a Prefetch")?;
        let created = self.prefetches().create(&PostParams::default(), &object).await;
        created.map(drop).with_context(|| format!("create the Prefetch {name}"))
    }

    pub(crate) async fn delete(&self, name: &str) -> Result<()> {
        let deleted = self.prefetches().delete(name, &DeleteParams::default()).await;
        deleted.map(drop).with_context(|| format!("delete the Prefetch {name}"))
    }

    pub(crate) fn prefetches(&self) -> Api<Prefetch> {
        self.namespace.api()
    }

    /// Whether this is about the Prefetches whose names begin with `prefix`.
    pub(crate) fn concerns(&self, wrong: &Wrong, prefix: &str) -> bool {
        // Where nobody answers, or nothing could be compared, nothing is known to be right.
        let is_unknown = matches!(wrong.kind, Kind::Silent | Kind::Moving);
        is_unknown
            || wrong.about.starts_with(&format!("{}/{prefix}", self.namespace.name()))
            || wrong.what.contains(&format!("/{prefix}-"))
    }

    /// Waits until the agents of these nodes say that they pull the image.
    pub(crate) async fn is_pulling(&self, nodes: &[&str], image: &str) -> Result<()> {
        let api: Api<NodeImages> = Api::all(self.client.clone());
        eventually(&format!("{image} to be pulled"), PATIENCE, async || {
            let mut seen = Vec::new();
            for node in nodes {
                let status = api.get(node).await?.status.unwrap_or_default();
                seen.extend(
                    status
                        .images
                        .into_iter()
                        .filter(|it| it.image == image)
                        .map(|it| it.state),
                );
            }
            let pulling = coral_api::node_images::ImageState::Pulling;
            Ok(if seen.len() == nodes.len() && seen.iter().all(|it| *it == pulling) {
                Look::Done(())
            } else {
                Look::NotYet(seen)
            })
        })
        .await
    }

    /// Waits until the status of a Prefetch has a failure with one of these reasons.
    pub(crate) async fn is_told(&self, name: &str, reasons: &[&str]) -> Result<String> {
        eventually(&format!("{name} to tell of {reasons:?}"), PATIENCE, async || {
            let status = self.prefetches().get(name).await?.status.unwrap_or_default();
            let told: BTreeSet<String> = status
                .failures
                .iter()
                .map(|failure| failure.reason.to_string())
                .collect();
            Ok(match told.iter().find(|reason| reasons.contains(&reason.as_str())) {
                Some(reason) => Look::Done(reason.clone()),
                None => Look::NotYet(status.failures),
            })
        })
        .await
    }

    /// Waits until containerd itself holds an image, or holds it no more.
    pub(crate) async fn holds(&self, node: &str, image: &str, expected: bool, patience: Duration) -> Result<()> {
        let node = self.cluster.node(node)?;
        eventually(
            &format!("{image} to be on {}: {expected}", node.name()),
            patience,
            async || {
                let images = node.images()?;
                Ok(if images.iter().any(|held| held == image) == expected {
                    Look::Done(())
                } else {
                    Look::NotYet(images)
                })
            },
        )
        .await
    }

    /// How often container runtimes have asked the open registry for this image, whatever they called the registry: once for each pull.
    pub(crate) fn pulls(&self, image: &str) -> Result<usize> {
        let name = image.split_once('/').context("an image without a registry")?.1;
        let (repository, tag) = name.rsplit_once(':').context("an image without a tag")?;
        let asked = format!("\"HEAD /v2/{repository}/manifests/{tag} ");
        let log = fs::read(self.cluster.logs().join("registry.log")).context("read the registry's log")?;
        let log = String::from_utf8_lossy(&log);
        Ok(log
            .lines()
            .filter(|line| line.contains(&asked) && line.contains("containerd/"))
            .count())
    }

    /// Waits until as many processes of this program run in pods.
    pub(crate) async fn runs(&self, program: &str, processes: usize) -> Result<()> {
        let patience = LONGEST_BACK_OFF + PATIENCE;
        eventually(&format!("{processes} processes of {program}"), patience, async || {
            let running = self.cluster.pod_processes(program)?.len();
            Ok(if running == processes {
                Look::Done(())
            } else {
                Look::NotYet(running)
            })
        })
        .await
    }

    /// The UID of the pod of the controller that leads.
    pub(crate) async fn leader(&self) -> Result<String> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), keys::SYSTEM_NAMESPACE);
        let lease = leases.get("coral-controller").await.context("get the Lease")?;
        let holder = lease
            .spec
            .and_then(|spec| spec.holder_identity)
            .context("nobody leads")?;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), keys::SYSTEM_NAMESPACE);
        let pods = pods.list(&ListParams::default()).await.context("list pods")?;
        let is_holder = |pod: &&Pod| {
            pod.metadata
                .name
                .as_ref()
                .is_some_and(|name| holder.starts_with(name.as_str()))
        };
        let pod = pods
            .iter()
            .find(is_holder)
            .with_context(|| format!("{holder} is no pod"))?;
        pod.metadata.uid.clone().context("a pod without a UID")
    }

    /// The addresses of the agents on these nodes.
    pub(crate) async fn agent_addresses(&self, nodes: &[&str]) -> Result<Vec<std::net::Ipv4Addr>> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), keys::SYSTEM_NAMESPACE);
        let agents = ListParams::default().labels("app.kubernetes.io/name=coral-agent");
        let mut addresses = Vec::new();
        for pod in pods.list(&agents).await.context("list the agents")? {
            let node = pod.spec.and_then(|spec| spec.node_name).unwrap_or_default();
            let address = pod.status.and_then(|status| status.pod_ip);
            if nodes.contains(&node.as_str())
                && let Some(address) = address
            {
                addresses.push(address.parse().context("read an address")?);
            }
        }
        ensure!(addresses.len() == nodes.len(), "agents of {nodes:?}: {addresses:?}");
        Ok(addresses)
    }

    /// Waits until the webhook injects what a Pod asks for.
    pub(crate) async fn webhook_works(&self, image: &str, patience: Duration) -> Result<()> {
        let pods: Api<Pod> = self.namespace.api();
        let pod = json!({
            "metadata": {"generateName": "web-", "annotations": {"image.stvz.io/inject": "selectors"}},
            "spec": {"containers": [{"name": "web", "image": image}]},
        });
        let pod: Pod = serde_json::from_value(pod).context("read a pod")?;
        let dry_run = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        eventually("the webhook to inject", patience, async || {
            let admitted = pods.create(&dry_run, &pod).await?;
            let selector = admitted.spec.and_then(|spec| spec.node_selector);
            Ok(match selector.filter(|selector| !selector.is_empty()) {
                Some(_) => Look::Done(()),
                None => Look::NotYet("admitted as it was"),
            })
        })
        .await
    }

    /// Takes away what is always there, so that what remains is what was leaked.
    pub(crate) async fn clear(&self) {
        self.delete("standing").await.unwrap();
        self.checker.right(Instant::now(), PATIENCE, |_| true).await.unwrap();
    }
}

/// A selector of the nodes with these names.
pub(crate) fn on(nodes: &[&str]) -> Value {
    json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": nodes}]})
}
