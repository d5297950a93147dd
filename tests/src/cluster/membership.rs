//! Nodes that join and leave a running cluster.

use std::time::Instant;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};

use super::{
    Cluster, NodeHandle, NodeOptions, check, light_node, network, node, operation_lock,
    state::{NodeRecord, State},
    teardown,
};

/// The record of the next node of its kind; `None` when the cluster has as many as it can.
pub(super) fn new_record(state: &State, light: bool, options: NodeOptions) -> Option<NodeRecord> {
    let number = state.free_node_number(light)?;
    let name = format!("{}-{number}", if light { "light" } else { "node" });
    let NodeOptions {
        disk,
        containerd,
        register_with_taints,
        agent,
    } = options;
    Some(NodeRecord {
        name,
        light,
        number,
        disk,
        containerd,
        register_with_taints,
        agent,
    })
}

impl Cluster {
    /// Joins one more node, and returns when a pod has run on it.
    pub async fn add_node(&self, options: NodeOptions) -> Result<NodeHandle> {
        let _lock = operation_lock(&self.site.layout).await?;
        let record = self.record_node(false, options)?;
        let started = Instant::now();
        node::ensure(&self.site, &record).await?;
        self.site.step("containerd and kubelet", started);
        let records = std::slice::from_ref(&record);
        node::wait_ready(&self.site, &self.client, records).await?;
        check::run_pods(&self.site, &self.client, records).await?;
        self.node(&record.name)
    }

    /// Joins one more light node, with an agent if it or all light nodes of the cluster have one.
    pub async fn add_light_node(&self, options: NodeOptions) -> Result<NodeHandle> {
        let _lock = operation_lock(&self.site.layout).await?;
        let record = self.record_node(true, options)?;
        let agent = self.state()?.agent;
        light_node::ensure(&self.site, &self.client, &record, agent.as_ref()).await?;
        light_node::ensure_heartbeat(&self.site)?;
        node::wait_ready(&self.site, &self.client, std::slice::from_ref(&record)).await?;
        self.node(&record.name)
    }

    fn record_node(&self, light: bool, options: NodeOptions) -> Result<NodeRecord> {
        State::update(&self.site.layout, |state| {
            let record = new_record(state, light, options)?;
            state.nodes.push(record.clone());
            Some(record)
        })?
        .context("the cluster has as many nodes of this kind as it can")
    }

    /// Takes a node away, as if its machine had been switched off and its Node deleted.
    pub async fn remove_node(&self, name: &str) -> Result<()> {
        let _lock = operation_lock(&self.site.layout).await?;
        let layout = &self.site.layout;
        let record = self
            .state()?
            .node(name)
            .cloned()
            .with_context(|| format!("the cluster has no node {name}"))?;
        let cgroup = layout.cgroup().join(name);
        self.site.hierarchies.kill(&cgroup)?;
        State::update(layout, |state| {
            state.nodes.retain(|node| node.name != name);
            state
                .parts
                .retain(|part, _| part.strip_prefix(name).is_none_or(|rest| !rest.starts_with('-')));
        })?;
        light_node::ensure_heartbeat(&self.site)?;
        self.delete_objects(name).await?;
        self.site.hierarchies.remove(&cgroup)?;
        network::remove_node_address(layout, self.site.addresses, &record);
        teardown::remove(&layout.node_run_dir(name))?;
        teardown::remove(&layout.node_dir(name))
    }

    /// With the kubelet gone nobody would finish the deletion of its pods.
    async fn delete_objects(&self, node: &str) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client());
        let deleted = nodes.delete(node, &DeleteParams::default()).await;
        if let Err(error) = deleted
            && !matches!(&error, kube::Error::Api(status) if status.code == 404)
        {
            return Err(error).with_context(|| format!("delete the Node {node}"));
        }
        let all: Api<Pod> = Api::all(self.client());
        let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
        for pod in all
            .list(&on_node)
            .await
            .with_context(|| format!("list the pods on {node}"))?
        {
            let (Some(namespace), Some(name)) = (&pod.metadata.namespace, &pod.metadata.name) else {
                continue;
            };
            let pods: Api<Pod> = Api::namespaced(self.client(), namespace);
            // Its owner may be deleting it at the same moment.
            let _ = pods.delete(name, &DeleteParams::default().grace_period(0)).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_each_kind_are_numbered_from_one() {
        let mut state = State::new("boot".to_owned(), 0);
        for (light, name) in [(false, "node-1"), (false, "node-2"), (true, "light-1")] {
            let record = new_record(&state, light, NodeOptions::default()).unwrap();
            assert_eq!(record.name, name);
            state.nodes.push(record);
        }
    }
}
