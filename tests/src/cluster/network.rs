//! The network of a cluster: a network namespace of its own, with one link to the host.
//!
//! Everything of the cluster runs in there: the API server, the kubelets, kube-proxy with its nftables, the routes to
//! pods. So clusters cannot see each other, all of them use the same ports and the same ranges for pods and Services,
//! and all of it is gone with the namespace. The host reaches the cluster, and the cluster the host, over one link
//! with a /24 out of 198.18.0.0/15, which RFC 2544 sets aside for tests. There is no default route: a cluster reaches
//! nothing else.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    path::Path,
};

use anyhow::{Context, Result};

use super::{
    layout::{Layout, RUNTIME_DIRS},
    process::run,
    state::{self, NodeRecord},
};

/// How many networks there are.
const SUBNETS: u16 = 512;

/// The range of Service addresses, the same in every cluster.
pub const SERVICE_CIDR: &str = "10.96.0.0/16";
/// The address of the `kubernetes` Service.
pub const KUBERNETES_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// Where pods ask for names.
pub const CLUSTER_DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// The range of pod addresses, the same in every cluster.
pub const POD_CIDR: &str = "10.244.0.0/16";

/// The addresses of one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    subnet: u16,
}

impl Addresses {
    /// The addresses in this network.
    #[must_use]
    pub fn new(subnet: u16) -> Self {
        Self { subnet }
    }

    fn address(self, last: u8) -> Ipv4Addr {
        let [high, low] = self.subnet.to_be_bytes();
        Ipv4Addr::new(198, 18 + high, low, last)
    }

    /// Where the API server and the registries listen.
    #[must_use]
    pub fn cluster(self) -> Ipv4Addr {
        self.address(1)
    }

    /// The host, as the cluster sees it.
    #[must_use]
    pub fn host(self) -> Ipv4Addr {
        self.address(254)
    }

    /// A node.
    #[must_use]
    pub fn node(self, light: bool, number: u8) -> Ipv4Addr {
        self.address(if light { 120 + number } else { 10 + number })
    }

    /// The API server, for people and nodes.
    #[must_use]
    pub fn api_server(self) -> String {
        format!("https://{}:6443", self.cluster())
    }

    /// The open registry.
    #[must_use]
    pub fn registry(self) -> String {
        format!("{}:5000", self.cluster())
    }

    /// The registry with authentication.
    #[must_use]
    pub fn registry_auth(self) -> String {
        format!("{}:5001", self.cluster())
    }
}

/// The addresses of the pods on a node.
#[must_use]
pub fn pod_subnet(number: u8) -> String {
    format!("10.244.{number}.0/24")
}

/// Picks a network: the one that the cluster's id suggests, so that a cluster tends to keep its addresses, or the next
/// one that is free.
fn choose_subnet(suggestion: u16, taken: &[Ipv4Addr]) -> Option<u16> {
    (0..SUBNETS).map(|step| (suggestion + step) % SUBNETS).find(|subnet| {
        let network = Addresses::new(*subnet).address(0).octets();
        !taken.iter().any(|address| address.octets()[..3] == network[..3])
    })
}

/// The addresses in the output of `ip -4 -o addr show` and `ip -4 route show table all`.
fn addresses_in(output: &str) -> Vec<Ipv4Addr> {
    output
        .split_ascii_whitespace()
        .filter_map(|word| word.split('/').next()?.parse().ok())
        .collect()
}

/// Makes the namespace and the link, and returns the number of the network.
pub fn create(layout: &Layout) -> Result<u16> {
    let runtime_dir = layout.runtime_dir();
    fs::create_dir_all(&runtime_dir).with_context(|| format!("create {}", runtime_dir.display()))?;
    let suggestion = u16::from_str_radix(&layout.id[..4], 16).unwrap_or_default() % SUBNETS;
    // From the look at what is free until the address is taken, no other cluster may choose.
    let _lock = state::lock(RUNTIME_DIRS.as_ref())?;
    let mut taken = addresses_in(&run("ip", ["-4", "-o", "addr", "show"])?);
    taken.extend(addresses_in(&run("ip", ["-4", "route", "show", "table", "all"])?));
    let subnet = choose_subnet(suggestion, &taken).context("every network in 198.18.0.0/15 is taken")?;
    let addresses = Addresses::new(subnet);

    let namespace = layout.network_namespace();
    File::create(&namespace).with_context(|| format!("create {}", namespace.display()))?;
    let namespace = namespace.to_str().context("the runtime directory is not UTF-8")?;
    run("unshare", [&format!("--net={namespace}"), "true"])?;
    let link = layout.host_interface();
    run(
        "ip",
        [
            "link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", namespace,
        ],
    )?;
    run("ip", ["addr", "add", &format!("{}/24", addresses.host()), "dev", &link])?;
    run("ip", ["link", "set", &link, "up"])?;
    run_inside(layout, &["ip", "link", "set", "lo", "up"])?;
    run_inside(
        layout,
        &[
            "ip",
            "addr",
            "add",
            &format!("{}/24", addresses.cluster()),
            "dev",
            "eth0",
        ],
    )?;
    run_inside(layout, &["ip", "link", "set", "eth0", "up"])?;
    // Pods in the network of a node reach Services, too: without any route, the kernel refuses before kube-proxy's rules are asked.
    run_inside(layout, &["ip", "route", "add", SERVICE_CIDR, "dev", "eth0"])?;
    run_inside(layout, &["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])?;
    Ok(subnet)
}

/// Gives a node its address. It may have it already.
pub fn add_node_address(layout: &Layout, addresses: Addresses, node: &NodeRecord) -> Result<()> {
    let address = format!("{}/24", addresses.node(node.light, node.number));
    run_inside(layout, &["ip", "addr", "replace", &address, "dev", "eth0"])
}

/// Takes a node's address away.
pub fn remove_node_address(layout: &Layout, addresses: Addresses, node: &NodeRecord) {
    let address = format!("{}/24", addresses.node(node.light, node.number));
    // It may have none, when the cluster died while the node was being made.
    let _ = run_inside(layout, &["ip", "addr", "del", &address, "dev", "eth0"]);
}

fn run_inside(layout: &Layout, command: &[&str]) -> Result<()> {
    let mut arguments = vec![
        format!("--net={}", layout.network_namespace().display()),
        "--".to_owned(),
    ];
    arguments.extend(command.iter().map(|word| (*word).to_owned()));
    run("nsenter", arguments).map(drop)
}

/// Removes the link. The namespace itself goes with the last process in it and the mount that held it.
pub fn remove(layout: &Layout) -> Result<()> {
    let link = layout.host_interface();
    if Path::new("/sys/class/net").join(&link).exists() {
        // The kernel may take it away at the same moment, because the namespace has gone.
        let removed = run("ip", ["link", "del", &link]);
        if Path::new("/sys/class/net").join(&link).exists() {
            removed.with_context(|| format!("remove the network link {link}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_networks_are_passed_over() {
        let taken = addresses_in("2: coral1 inet 198.18.7.254/24 brd 198.18.7.255 scope global\n198.18.8.0/24 dev x");
        assert_eq!(choose_subnet(7, &taken), Some(9));
        assert_eq!(choose_subnet(511, &taken), Some(511));
    }

    #[test]
    fn no_network_is_chosen_when_none_is_free() {
        let all: Vec<Ipv4Addr> = (0..SUBNETS).map(|subnet| Addresses::new(subnet).address(0)).collect();
        assert_eq!(choose_subnet(3, &all), None);
    }

    #[test]
    fn addresses_are_distinct_within_a_cluster_and_between_clusters() {
        let mut all = Vec::new();
        for subnet in [0, 255, 256, 511] {
            let addresses = Addresses::new(subnet);
            all.extend([addresses.cluster(), addresses.host()]);
            for number in 1..=state::MAX_NODES {
                all.extend([addresses.node(false, number), addresses.node(true, number)]);
            }
        }
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert!(
            all.iter()
                .all(|address| address.octets()[0] == 198 && matches!(address.octets()[1], 18 | 19))
        );
    }
}
