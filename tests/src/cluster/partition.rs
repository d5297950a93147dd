//! Pods that lose their way to the API server, while everything else goes on.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::{Cluster, process::run};

/// The table of nftables that holds the rules, in the network namespace of the cluster.
const TABLE: &str = "inet coral_partition";

impl Cluster {
    /// Drops every packet between these pods and the API server, in both directions and without a word, as a network does that has
    /// fallen apart. Probes of the kubelet and pulls of the container runtime do not notice.
    pub fn cut_off(&self, pods: &[Ipv4Addr]) -> Result<()> {
        self.nft(&rules(pods))
    }

    /// Lets them through again.
    pub fn reconnect(&self) -> Result<()> {
        self.nft(&format!("delete table {TABLE}"))
    }

    fn nft(&self, rules: &str) -> Result<()> {
        let namespace = format!("--net={}", self.site.layout.network_namespace().display());
        run("nsenter", [namespace.as_str(), "--", "nft", rules]).map(drop)
    }
}

/// Before kube-proxy's rules look at a packet on its way in, and before they see it on its way out.
fn rules(pods: &[Ipv4Addr]) -> String {
    let pods = pods.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>().join(", ");
    format!(
        "add table {TABLE}; \
         add chain {TABLE} in {{ type filter hook prerouting priority -310; }}; \
         add rule {TABLE} in ip saddr {{ {pods} }} tcp dport {{ 443, 6443 }} drop; \
         add chain {TABLE} out {{ type filter hook output priority -310; }}; \
         add rule {TABLE} out ip daddr {{ {pods} }} tcp sport 6443 drop"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_way_to_the_api_server_is_cut() {
        let rules = rules(&[Ipv4Addr::new(10, 244, 1, 2), Ipv4Addr::new(10, 244, 2, 3)]);
        assert!(rules.contains("in ip saddr { 10.244.1.2, 10.244.2.3 } tcp dport { 443, 6443 } drop"));
        assert!(rules.contains("out ip daddr { 10.244.1.2, 10.244.2.3 } tcp sport 6443 drop"));
    }
}
