//! Where it is measured: real containerds and kubelets, a registry, and Coral's programs as they are shipped.

use std::{
    collections::BTreeMap,
    path::Path,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use coral_api::{
    Prefetch,
    conditions::{self, READY},
};
use coral_tests::{
    Cluster, ClusterOptions, NodeOptions,
    bare_cri::BareCri,
    cluster::NodeHandle,
    images::{self, Registry},
};
use futures::TryStreamExt as _;
use kube::{
    Api,
    api::{DeleteParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::JoinSet};

use super::super::coral::{Program, install_crds};
use crate::{
    cluster::{Lines, target_dir},
    image,
};

/// How long anything may take.
pub(super) const PATIENCE: Duration = Duration::from_mins(5);
/// Nodes with a kubelet.
pub(super) const KUBELETS: usize = 2;
/// Nodes without one.
pub(super) const LIGHT: usize = 5;
/// Disk of a light node: in memory, so that no other work on the machine's disk is measured.
const DISK: &str = "2g";
/// As many pulls at the same time as the agent would have.
const PARALLEL_PULLS: usize = 4;

/// A cluster with Coral.
pub(super) struct Site {
    pub(super) cluster: Cluster,
    /// The nodes with a kubelet come first.
    pub(super) nodes: Vec<NodeHandle>,
    pub(super) bare: BTreeMap<String, BareCri>,
    pub(super) controller: Program,
    pub(super) agents: Vec<Program>,
    prefetches: Api<Prefetch>,
}

impl Site {
    pub(super) async fn start(root: &Path) -> Result<Self> {
        let binaries = image::build(root, image::PACKAGES).await?;
        let cluster = Cluster::start(ClusterOptions {
            dir: target_dir().join("bench/pull-cluster"),
            nodes: u32::try_from(KUBELETS)?,
            progress: Arc::new(Lines),
            ..ClusterOptions::default()
        })
        .await?;
        install_crds(&cluster.client()).await?;
        for _ in 0..LIGHT {
            let options = NodeOptions {
                disk: Some(DISK.to_owned()),
                ..NodeOptions::default()
            };
            cluster.add_light_node(options).await?;
        }
        let nodes = cluster.nodes()?;
        let (kubeconfig, logs) = (cluster.kubeconfig(), cluster.logs());
        let (mut agents, mut bare) = (Vec::new(), BTreeMap::new());
        for node in &nodes {
            bare.insert(
                node.name().to_owned(),
                BareCri::connect(&node.containerd_socket()).await?,
            );
            let arguments = [
                format!("--node-name={}", node.name()),
                format!("--runtime-endpoint=unix://{}", node.containerd_socket().display()),
                // The disk of a developer's machine may be fuller than that of a node should be.
                "--image-filesystem-reserve=1%".to_owned(),
            ];
            let arguments = arguments.each_ref().map(String::as_str);
            let agent = binaries.join("coral-agent");
            agents.push(Program::start("coral-agent", agent, &kubeconfig, &logs, &arguments).await?);
        }
        let arguments = ["--lease-namespace=default", "--identity=bench"];
        let controller = binaries.join("coral-controller");
        let controller = Program::start("coral-controller", controller, &kubeconfig, &logs, &arguments).await?;
        Ok(Self {
            prefetches: Api::namespaced(cluster.client(), "default"),
            cluster,
            nodes,
            bare,
            controller,
            agents,
        })
    }

    pub(super) fn registry(&self) -> Registry {
        self.cluster.open_registry()
    }

    pub(super) fn kubelets(&self) -> &[NodeHandle] {
        &self.nodes[..KUBELETS]
    }

    pub(super) fn light(&self) -> &[NodeHandle] {
        &self.nodes[KUBELETS..]
    }

    /// Images that share nothing but a few kilobytes.
    pub(super) fn publish(&self, name: &str, count: usize, bytes: usize) -> Result<Vec<String>> {
        let publish = |number| {
            let name = format!("bench/{name}-{number}");
            Ok(images::tiny(&self.registry(), &name, "v1", bytes, &name)?.reference)
        };
        (0..count).map(publish).collect()
    }

    /// The same images under names that nobody has heard.
    pub(super) fn tagged(&self, images: &[String], tag: &str) -> Result<Vec<String>> {
        let tagged = |image: &String| {
            images::retag(&self.registry(), image, tag)?;
            let (repository, _) = image.rsplit_once(':').context("the image has no tag")?;
            Ok(format!("{repository}:{tag}"))
        };
        images.iter().map(tagged).collect()
    }

    /// How long the runtime of a node takes to pull these images by itself, as many at a time as the agent would have it do.
    pub(super) async fn pull_bare(&self, node: &NodeHandle, images: &[String]) -> Result<Duration> {
        let permits = Arc::new(Semaphore::new(PARALLEL_PULLS));
        let began = Instant::now();
        let mut pulls = JoinSet::new();
        for image in images {
            let (bare, permits, image) = (self.bare[node.name()].clone(), Arc::clone(&permits), image.clone());
            pulls.spawn(async move {
                let _permit = permits.acquire().await?;
                bare.pull(&image).await
            });
        }
        while let Some(pulled) = pulls.join_next().await {
            pulled??;
        }
        Ok(began.elapsed())
    }

    /// Takes these images off the nodes.
    pub(super) async fn remove(&self, nodes: &[NodeHandle], images: &[String]) -> Result<()> {
        for node in nodes {
            for image in images {
                self.bare[node.name()].remove(image).await?;
            }
        }
        Ok(())
    }

    /// Makes a Prefetch of these images on these nodes; returns how long it took until its status said Ready.
    pub(super) async fn prefetch(
        &self,
        name: &str,
        images: &[String],
        nodes: &[NodeHandle],
        parallelism: &Value,
    ) -> Result<Duration> {
        let names: Vec<&str> = nodes.iter().map(NodeHandle::name).collect();
        let object: Prefetch = serde_json::from_value(json!({
            "apiVersion": "image.stvz.io/v1alpha1",
            "kind": "Prefetch",
            "metadata": {"name": name},
            "spec": {
                "images": images,
                "parallelism": parallelism,
                "nodeSelector": {
                    "matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": names}],
                },
            },
        }))?;
        let parameters = WatchParams::default().fields(&format!("metadata.name={name}"));
        let version = self
            .prefetches
            .list(&kube::api::ListParams::default())
            .await?
            .metadata
            .resource_version;
        let events = self.prefetches.watch(&parameters, &version.unwrap_or_default()).await?;
        let mut events = pin!(events);
        let began = Instant::now();
        self.prefetches
            .create(&PostParams::default(), &object)
            .await
            .context("create a Prefetch")?;
        let told = async {
            while let Some(event) = events.try_next().await? {
                if let WatchEvent::Modified(object) | WatchEvent::Added(object) = event
                    && let Some(status) = object.status
                    && conditions::is_true(&status.conditions, READY)
                    && usize::try_from(status.nodes.ready) == Ok(nodes.len())
                {
                    return Ok(began.elapsed());
                }
            }
            bail!("the watch ended")
        };
        tokio::time::timeout(PATIENCE, told)
            .await
            .with_context(|| format!("the Prefetch {name} does not become Ready"))?
    }

    /// Deletes a Prefetch and takes its images off the nodes.
    pub(super) async fn forget(&self, name: &str, nodes: &[NodeHandle], images: &[String]) -> Result<()> {
        self.prefetches.delete(name, &DeleteParams::default()).await?;
        let api: Api<coral_api::NodeImages> = Api::all(self.cluster.client());
        coral_tests::wait::eventually("the nodes to be asked for nothing more", PATIENCE, async || {
            let asked = api.list(&kube::api::ListParams::default()).await?;
            let is_asked =
                |object: &coral_api::NodeImages| object.spec.images.iter().any(|entry| images.contains(&entry.image));
            Ok(if asked.items.iter().any(is_asked) {
                coral_tests::wait::Look::NotYet(asked.items.len())
            } else {
                coral_tests::wait::Look::Done(())
            })
        })
        .await?;
        self.remove(nodes, images).await
    }
}
