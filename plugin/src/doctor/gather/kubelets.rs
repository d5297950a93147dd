//! The settings of kubelets, as they tell them themselves.

use std::{collections::BTreeMap, time::Duration};

use futures::StreamExt as _;
use kube::{
    Client,
    api::{GetParams, Request},
};
use serde_json::Value;
use tokio::time::timeout;

use super::AT_A_TIME;
use crate::{
    client::Cluster,
    doctor::facts::{Kubelets, Looked, NodeFacts, Unread},
};

/// How long one kubelet may take. One that hangs must not make people wait for all others.
const KUBELET_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks a sample of the kubelets.
pub(super) async fn kubelets(cluster: &Cluster, nodes: &[NodeFacts], most: usize) -> Kubelets {
    let names = sample(nodes, most);
    let requests = names.into_iter().map(async |name| {
        let settings = settings(cluster, &name).await;
        (name, settings)
    });
    let asked: BTreeMap<String, Looked<Value>> = futures::stream::iter(requests)
        .buffer_unordered(AT_A_TIME)
        .collect()
        .await;
    Kubelets {
        of: nodes.iter().filter(|node| can_be_asked(node)).count(),
        asked,
    }
}

fn can_be_asked(node: &NodeFacts) -> bool {
    node.is_linux && node.is_ready
}

/// Nodes that stand for all: spread evenly over them, in an order that puts those together that are likely to be set up alike.
fn sample(nodes: &[NodeFacts], most: usize) -> Vec<String> {
    let mut nodes: Vec<&NodeFacts> = nodes.iter().filter(|node| can_be_asked(node)).collect();
    nodes.sort_by_key(|node| (&node.kubelet_version, &node.os_image, &node.name));
    let number = most.min(nodes.len());
    let every = (0..number).map(|place| place * nodes.len() / number);
    every.map(|place| nodes[place].name.clone()).collect()
}

async fn settings(cluster: &Cluster, node: &str) -> Looked<Value> {
    let path = format!("/api/v1/nodes/{node}/proxy");
    let get = async |client: Client| {
        let request = Request::new(path.as_str()).get("configz", &GetParams::default());
        client
            .request::<Value>(request.map_err(kube::Error::BuildRequest)?)
            .await
    };
    match timeout(KUBELET_TIMEOUT, cluster.request(get)).await {
        Ok(Ok(mut answer)) => Ok(answer["kubeletconfig"].take()),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Unread {
            is_forbidden: false,
            is_unknown_type: false,
            reason: format!("no answer within {} seconds", KUBELET_TIMEOUT.as_secs()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, os: &str, is_ready: bool) -> NodeFacts {
        NodeFacts {
            name: name.to_owned(),
            os_image: os.to_owned(),
            is_linux: true,
            is_ready,
            ..NodeFacts::default()
        }
    }

    #[test]
    fn a_sample_is_spread_over_all_kinds_of_nodes() {
        let mut nodes: Vec<NodeFacts> = (0..100)
            .map(|number| node(&format!("a-{number:02}"), "Debian", true))
            .collect();
        nodes.extend((0..100).map(|number| node(&format!("b-{number:02}"), "Talos", true)));
        nodes.push(node("c", "Debian", false));
        assert_eq!(sample(&nodes, 4), ["a-00", "a-50", "b-00", "b-50"]);
        assert_eq!(sample(&nodes, 1_000).len(), 200);
        assert_eq!(sample(&nodes, 0), [""; 0]);
        assert_eq!(sample(&[], 20), [""; 0]);
    }
}
