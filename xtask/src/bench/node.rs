//! The node that is measured: a containerd, the agent as a process, and the registry beside it.

use std::{
    fs,
    path::Path,
    pin::pin,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use coral_api::{NodeImages, NodeImagesStatus, node_images::ImageState};
use coral_tests::{
    Cluster, ClusterOptions, NodeOptions,
    bare_cri::BareCri,
    cluster::{AgentOptions, NodeHandle},
};
use futures::TryStreamExt as _;
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, WatchEvent, WatchParams},
};
use serde_json::json;

use super::coral::install_crds;
use crate::{
    cluster::{Lines, target_dir},
    command::output,
};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_mins(2);
/// In memory, so that no other work on the machine's disk is measured.
const DISK: &str = "4g";

/// A cluster with one light node.
pub(super) struct Ground {
    pub(super) cluster: Cluster,
    pub(super) node: NodeHandle,
    pub(super) bare: BareCri,
    api: Api<NodeImages>,
}

impl Ground {
    /// Starts it, with this agent and its usual rights, but without a controller.
    pub(super) async fn start(root: &Path, agent: &Path) -> Result<Self> {
        let cluster = Cluster::start(ClusterOptions {
            dir: target_dir().join("bench/cluster"),
            nodes: 0,
            progress: std::sync::Arc::new(Lines),
            ..ClusterOptions::default()
        })
        .await?;
        let api: Api<NodeImages> = Api::all(cluster.client());
        install_crds(&cluster.client()).await?;
        let mut kubectl = Command::new(cluster.tools().control_plane("kubectl"));
        kubectl.arg("--kubeconfig").arg(cluster.kubeconfig());
        output(
            kubectl
                .args(["apply", "--filename"])
                .arg(root.join("deploy/base/agent-rbac.yaml")),
        )?;
        let options = NodeOptions {
            disk: Some(DISK.to_owned()),
            agent: Some(AgentOptions::new(agent)),
            ..NodeOptions::default()
        };
        let node = cluster.add_light_node(options).await?;
        let bare = BareCri::connect(&node.containerd_socket()).await?;
        Ok(Self {
            cluster,
            node,
            bare,
            api,
        })
    }

    /// Asks the agent for these images and no others; returns how long it took until the status said that all of them are there.
    pub(super) async fn ask(&self, images: &[String]) -> Result<Duration> {
        let version = self.api.list(&ListParams::default()).await?.metadata.resource_version;
        let events = self
            .api
            .watch(&WatchParams::default(), &version.unwrap_or_default())
            .await?;
        let mut events = pin!(events);
        let wanted: Vec<_> = images.iter().map(|image| json!({"image": image})).collect();
        let object = json!({
            "apiVersion": "image.stvz.io/v1alpha1",
            "kind": "NodeImages",
            "metadata": {"name": self.node.name()},
            "spec": {"images": wanted},
        });
        let parameters = PatchParams::apply("coral-bench").force();
        let began = Instant::now();
        let asked = self
            .api
            .patch(self.node.name(), &parameters, &Patch::Apply(&object))
            .await?;
        let told = async {
            while let Some(event) = events.try_next().await? {
                if let WatchEvent::Modified(object) | WatchEvent::Added(object) = event
                    && object.metadata.generation == asked.metadata.generation
                    && object
                        .status
                        .is_some_and(|status| is_done(&status, object.metadata.generation))
                {
                    return Ok(began.elapsed());
                }
            }
            bail!("the watch ended")
        };
        tokio::time::timeout(PATIENCE, told)
            .await
            .context("the agent does not say that all images are there")?
    }

    /// What the runtime is, once the agent has looked at it.
    pub(super) async fn runtime(&self) -> Result<String> {
        let object = self.api.get(self.node.name()).await?;
        let runtime = object.status.and_then(|status| status.runtime).unwrap_or_default();
        Ok(format!("{} {}", runtime.name, runtime.version))
    }

    /// A number that the agent counts; 0 where it has not begun to.
    pub(super) async fn metric(&self, name: &str) -> Result<f64> {
        let text = self.node.agent_metrics().await?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(Ok(0.0), |value| {
            value.parse().with_context(|| format!("understand {name}"))
        })
    }

    /// Memory of the agent, as the kernel counts it now and as it was at most, in MiB.
    pub(super) fn memory(&self) -> Result<(f64, f64)> {
        let pid = self.node.agent_process()?.pid;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).context("look at the agent's memory")?;
        let mebibytes = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
            kibibytes.map_or(f64::NAN, |kibibytes| kibibytes / 1024.0)
        };
        Ok((mebibytes("VmRSS:"), mebibytes("VmHWM:")))
    }

    /// How long the agent has been on a processor.
    pub(super) fn processor_time(&self) -> Result<Duration> {
        let pid = self.node.agent_process()?.pid;
        let mut nanoseconds = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task")).context("look at the agent's threads")? {
            let path = task
                .context("look at a thread of the agent's")?
                .path()
                .join("schedstat");
            let text = fs::read_to_string(path).unwrap_or_default();
            nanoseconds += text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0);
        }
        Ok(Duration::from_nanos(nanoseconds))
    }
}

fn is_done(status: &NodeImagesStatus, generation: Option<i64>) -> bool {
    status.observed_generation == generation && status.images.iter().all(|image| image.state == ImageState::Present)
}
