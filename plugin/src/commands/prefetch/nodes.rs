//! Which nodes a command line means.

use clap::Args;
use k8s_openapi::{
    api::core::v1::Node,
    apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
};
use kube::{Api, ResourceExt as _};

use crate::{
    client::{Cluster, RequestError},
    error::Error,
    naming, near, selector,
};

/// The label by which a node is selected. On most clusters its value is the node's name.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Which nodes.
#[derive(Args, Debug)]
pub(super) struct NodeArgs {
    /// Labels of the nodes, as for kubectl: gpu=true,tier!=dev,zone in (a,b),!spot; default: every Linux node
    #[arg(long, alias = "nodes-with", value_name = "SELECTOR", value_parser = selector::parse)]
    node_selector: Option<LabelSelector>,

    /// Names of the nodes, separated by commas
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = naming::parse_node)]
    nodes: Vec<String>,
}

impl NodeArgs {
    /// The selector, with the names of nodes taken for their host names.
    pub(super) fn selector(&self) -> Option<LabelSelector> {
        self.with_hostnames(self.nodes.clone())
    }

    /// The selector, with the host names that the nodes of the cluster have. Who may not read nodes has their names.
    pub(super) async fn selector_in(&self, cluster: &Cluster) -> Result<Option<LabelSelector>, Error> {
        let mut hostnames = Vec::new();
        let mut missing = Vec::new();
        for name in &self.nodes {
            let api = |client| Api::<Node>::all(client);
            match cluster
                .request(async |client| api(client).get_metadata_opt(name).await)
                .await
            {
                Ok(Some(node)) => hostnames.push(node.labels().get(HOSTNAME).unwrap_or(name).clone()),
                Ok(None) => missing.push(name.clone()),
                Err(RequestError::Forbidden { .. }) => hostnames.push(name.clone()),
                Err(error) => return Err(error.into()),
            }
        }
        if !missing.is_empty() {
            let mut names = Vec::new();
            let each = |node: kube::core::PartialObjectMeta<Node>| names.push(node.name_any());
            // A suggestion is worth no error of its own.
            let _ = cluster
                .list(Api::<kube::core::PartialObjectMeta<Node>>::all, each)
                .await;
            let near = missing
                .iter()
                .flat_map(|name| near::nearest(name, names.iter().map(String::as_str)));
            return Err(Error::UnknownNode {
                near: near.map(str::to_owned).collect(),
                names: missing.clone(),
            });
        }
        Ok(self.with_hostnames(hostnames))
    }

    fn with_hostnames(&self, mut hostnames: Vec<String>) -> Option<LabelSelector> {
        if hostnames.is_empty() {
            return self.node_selector.clone();
        }
        hostnames.sort_unstable();
        hostnames.dedup();
        let mut selector = self.node_selector.clone().unwrap_or_default();
        selector
            .match_expressions
            .get_or_insert_default()
            .push(LabelSelectorRequirement {
                key: HOSTNAME.to_owned(),
                operator: "In".to_owned(),
                values: Some(hostnames),
            });
        Some(selector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_nodes_narrow_the_selector_down() {
        let nodes = |selector: Option<&str>, names: &[&str]| NodeArgs {
            node_selector: selector.map(|text| selector::parse(text).unwrap()),
            nodes: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let shown = |arguments: &NodeArgs| arguments.selector().as_ref().map(selector::display);
        assert_eq!(shown(&nodes(None, &[])), None);
        assert_eq!(
            shown(&nodes(None, &["b", "a", "b"])).as_deref(),
            Some("kubernetes.io/hostname in (a,b)")
        );
        assert_eq!(
            shown(&nodes(Some("gpu=true"), &["a"])).as_deref(),
            Some("gpu=true,kubernetes.io/hostname in (a)")
        );
    }
}
