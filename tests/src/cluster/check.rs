//! The proof that a cluster works: a pod runs on every node, from an image that was pulled.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use serde_json::json;

use super::{node::PartNames, pause, site::Site, state::NodeRecord};
use crate::wait::Look;

const TIMEOUT: Duration = Duration::from_secs(90);

/// Runs a pod on each of these nodes, all at the same time, and deletes them again.
pub(super) async fn run_pods(site: &Site, client: &Client, nodes: &[NodeRecord]) -> Result<()> {
    let started = Instant::now();
    let api: Api<Pod> = Api::namespaced(client.clone(), "default");
    let parts: Vec<String> = nodes.iter().map(|node| PartNames::of(&node.name).kubelet).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    site.ready("a pod on every node", &parts, TIMEOUT, async || {
        let mut waiting = Vec::new();
        for node in nodes {
            let pod = check_pod(site, &node.name)?;
            let name = pod.metadata.name.clone().unwrap_or_default();
            // The namespace's ServiceAccount comes a moment after the namespace; until then no pod is accepted.
            let found = match api.get_opt(&name).await? {
                Some(found) => found,
                None => api.create(&PostParams::default(), &pod).await?,
            };
            let status = found.status.unwrap_or_default();
            if status.phase.as_deref() != Some("Running") {
                waiting.push(
                    json!({"pod": name, "phase": status.phase, "containers": status.container_statuses}).to_string(),
                );
            }
        }
        Ok(if waiting.is_empty() {
            Look::Done(())
        } else {
            Look::NotYet(waiting)
        })
    })
    .await?;
    for node in nodes {
        let now = DeleteParams::default().grace_period(0);
        api.delete(&pod_name(&node.name), &now).await.context("delete a pod")?;
    }
    site.step("a pod on every node", started);
    Ok(())
}

fn pod_name(node: &str) -> String {
    format!("coral-check-{node}")
}

fn check_pod(site: &Site, node: &str) -> Result<Pod> {
    serde_json::from_value(json!({
        "metadata": {"name": pod_name(node)},
        "spec": {
            "nodeName": node,
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "name": "pause",
                "image": pause::reference(&site.addresses.registry()),
                "imagePullPolicy": "Always",
            }],
        },
    }))
    .context("describe a pod")
}
