//! One hollow node.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use coral_agent::{Agent, runtime::Runtime};
use k8s_openapi::{
    api::core::v1::{Node, NodeCondition},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{
    FLEET,
    leases::{Leases, is_not_found},
};
use crate::{
    cri::{Catalogue, FakeRuntime, Flavour},
    images::oci::architecture,
};

/// What to choose about one node.
#[derive(Clone, Debug)]
pub struct HollowOptions {
    /// Whose words its runtime speaks.
    pub flavour: Flavour,
    /// What its registries have. Give one that lacks an image to a node that is to fail.
    pub catalogue: Catalogue,
    /// How long a pull takes.
    pub latency: Duration,
    /// Pulls that the agent lets run at the same time.
    pub max_parallel_pulls: usize,
    /// Labels beside those of every node.
    pub labels: BTreeMap<String, String>,
    /// Taints that it registers with, as the API has them.
    pub taints: Vec<Value>,
}

impl HollowOptions {
    /// A node with containerd, whose pulls take no time, and the agent's usual parallelism.
    #[must_use]
    pub fn new(catalogue: &Catalogue) -> Self {
        Self {
            flavour: Flavour::Containerd,
            catalogue: catalogue.clone(),
            latency: Duration::ZERO,
            max_parallel_pulls: 4,
            labels: BTreeMap::new(),
            taints: Vec::new(),
        }
    }

    /// The same, with pulls that take this long.
    #[must_use]
    pub fn with_latency(self, latency: Duration) -> Self {
        Self { latency, ..self }
    }

    /// The same, with one more label.
    #[must_use]
    pub fn with_label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }
}

/// Where hollow nodes are made.
pub(super) struct Apiary {
    pub(super) fleet: String,
    pub(super) nodes: Api<Node>,
    pub(super) leases: Arc<Leases>,
}

impl Apiary {
    /// Makes a node: its Lease, its Node object, which says that it is Ready, its runtime and its agent.
    pub(super) fn join(
        &self,
        client: Client,
        name: String,
        options: HollowOptions,
    ) -> impl Future<Output = Result<HollowNode>> + use<> {
        let (api, leases) = (self.nodes.clone(), Arc::clone(&self.leases));
        let object = object(&name, &self.fleet, &options);
        async move {
            leases.add(&name).await?;
            let object: Node = serde_json::from_value(object).context("make a Node")?;
            api.create(&PostParams::default(), &object)
                .await
                .with_context(|| format!("make the Node {name}"))?;
            let runtime = FakeRuntime::start(options.flavour, options.catalogue)?;
            runtime.set_pace(options.latency, None);
            let mut node = HollowNode {
                name,
                api,
                client,
                runtime,
                max_parallel_pulls: options.max_parallel_pulls,
                agent: None,
            };
            node.start_agent()?;
            Ok(node)
        }
    }

    /// Switches a node off and deletes its objects.
    pub(super) fn leave(&self, node: HollowNode) -> impl Future<Output = Result<()>> + use<> {
        let (api, leases) = (self.nodes.clone(), Arc::clone(&self.leases));
        async move {
            let name = node.name.clone();
            drop(node);
            leases.remove(&name).await?;
            match api.delete(&name, &DeleteParams::default()).await {
                Err(error) if !is_not_found(&error) => Err(error).with_context(|| format!("delete the Node {name}")),
                _ => Ok(()),
            }
        }
    }
}

/// A node of which nothing is real but its agent.
pub struct HollowNode {
    name: String,
    api: Api<Node>,
    client: Client,
    runtime: FakeRuntime,
    max_parallel_pulls: usize,
    agent: Option<JoinHandle<()>>,
}

impl HollowNode {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its container runtime.
    #[must_use]
    pub const fn runtime(&self) -> &FakeRuntime {
        &self.runtime
    }

    /// Whether its runtime holds every one of these images.
    #[must_use]
    pub fn holds_all(&self, images: &[String]) -> bool {
        images.iter().all(|image| self.runtime.holds(image))
    }

    /// Starts the agent, or does nothing where it runs.
    pub fn start_agent(&mut self) -> Result<()> {
        if self.agent.as_ref().is_some_and(|agent| !agent.is_finished()) {
            return Ok(());
        }
        let runtime = Runtime::new(&self.runtime.endpoint())?;
        let agent = Agent::new(self.client.clone(), runtime, self.name.clone(), self.max_parallel_pulls);
        self.agent = Some(tokio::spawn(agent.run(std::future::pending())));
        Ok(())
    }

    /// Kills the agent: nobody is told, and its pulls end.
    pub fn kill_agent(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.abort();
        }
    }

    /// The Node object.
    pub async fn object(&self) -> Result<Node> {
        let node = self.api.get(&self.name).await;
        node.with_context(|| format!("read the Node {}", self.name))
    }

    /// Says what a kubelet says of itself: `Ready`, `DiskPressure`, `PIDPressure`, …
    pub async fn set_condition(&self, kind: &str, status: &str) -> Result<()> {
        let patch = Patch::Strategic(json!({"status": {"conditions": [condition(kind, status)]}}));
        let parameters = PatchParams::default();
        let written = self.api.patch_status(&self.name, &parameters, &patch).await;
        written.with_context(|| format!("set {kind} of {} to {status}", self.name))?;
        Ok(())
    }

    /// Does what `kubectl cordon` and `kubectl uncordon` do.
    pub async fn set_cordoned(&self, is_cordoned: bool) -> Result<()> {
        self.patch(json!({"spec": {"unschedulable": is_cordoned}})).await
    }

    /// Sets a label, or takes it away.
    pub async fn set_label(&self, key: &str, value: Option<&str>) -> Result<()> {
        self.patch(json!({"metadata": {"labels": {key: value}}})).await
    }

    /// Changes the Node object by a merge patch.
    pub async fn patch(&self, patch: Value) -> Result<()> {
        let parameters = PatchParams::default();
        let written = self.api.patch(&self.name, &parameters, &Patch::Merge(patch)).await;
        written.with_context(|| format!("change the Node {}", self.name))?;
        Ok(())
    }
}

impl Drop for HollowNode {
    fn drop(&mut self) {
        self.kill_agent();
    }
}

fn object(name: &str, fleet: &str, options: &HollowOptions) -> Value {
    let mut labels = json!({
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": architecture(),
        "kubernetes.io/hostname": name,
        // A kubelet sets these, too; where they are missing the node lifecycle controller does.
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": architecture(),
        FLEET: fleet,
    });
    for (key, value) in &options.labels {
        labels[key] = json!(value);
    }
    let conditions = [
        ("Ready", "True"),
        ("MemoryPressure", "False"),
        ("DiskPressure", "False"),
        ("PIDPressure", "False"),
    ];
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": options.taints},
        "status": {
            "capacity": {"cpu": "1", "memory": "1Gi", "pods": "0", "ephemeral-storage": "100Gi"},
            "allocatable": {"cpu": "1", "memory": "1Gi", "pods": "0", "ephemeral-storage": "100Gi"},
            "conditions": conditions.map(|(kind, status)| condition(kind, status)),
            "nodeInfo": {
                "architecture": architecture(), "operatingSystem": "linux", "osImage": "", "kernelVersion": "",
                "containerRuntimeVersion": "containerd://2", "kubeletVersion": "", "kubeProxyVersion": "",
                "machineID": "", "systemUUID": "", "bootID": "",
            },
        },
    })
}

fn condition(kind: &str, status: &str) -> NodeCondition {
    let now = Time(Timestamp::now());
    NodeCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some("HollowNode".to_owned()),
        message: Some("this node has no kubelet".to_owned()),
        last_heartbeat_time: Some(now.clone()),
        last_transition_time: Some(now),
    }
}
