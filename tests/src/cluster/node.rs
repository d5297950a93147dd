//! Nodes: a mount namespace with its own `/run` and `/var`, and in it a containerd and a kubelet.
//!
//! Because of the namespace each node has everything in the usual place (`/run/containerd/containerd.sock`,
//! `/var/lib/kubelet`, `/var/log/pods`), as a machine of its own would, and manifests with host paths work unchanged.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::{
    Containerd,
    certificates::{Authority, Subject},
    containerd, debian,
    kubeconfig::{self, Credential},
    network, pause, probe,
    process::ProcessRecord,
    site::{Part, Site},
    state::NodeRecord,
};
use crate::wait::Look;

const TIMEOUT: Duration = Duration::from_mins(1);

/// Makes the namespace and then does nothing: it holds the namespace for as long as the node lives, while containerd
/// and the kubelet may come and go. `$1`: the node's disk, `$2`: its size or nothing, `$3`: its `/run`, `$4` and `$5`:
/// folders with programs, `$6`: what it knows about registries.
const HOLD_NAMESPACE: &str = r#"
set -eu
if [ -n "$2" ]; then mount -t tmpfs -o "size=$2,mode=755" coral-node "$1"; fi
mkdir -p "$1/var/log/pods" "$1/var/tmp" "$1/var/lib/kubelet" "$1/var/lib/coral/cni"
mkdir -p "$1/var/lib/coral/control-plane" "$1/var/lib/coral/node" "$1/var/lib/coral/certs.d"
ln -sfn /run "$1/var/run"
mount --bind "$4" "$1/var/lib/coral/control-plane"
mount --bind "$5" "$1/var/lib/coral/node"
mount --bind "$6" "$1/var/lib/coral/certs.d"
mount --rbind "$1/var" /var
mount --bind "$3" /run
mount --make-rshared /
touch /run/coral-ready
exec sleep infinity
"#;

const CONTROL_PLANE_BIN: &str = "/var/lib/coral/control-plane";
pub(super) const NODE_BIN: &str = "/var/lib/coral/node";

/// The names of a node's parts.
pub(super) struct PartNames {
    /// What holds its mount namespace.
    pub mounts: String,
    /// Its container runtime.
    pub containerd: String,
    /// Its kubelet; a light node has none.
    pub kubelet: String,
    /// The agent process of a light node.
    pub agent: String,
}

impl PartNames {
    /// The names of the parts of this node.
    #[must_use]
    pub(super) fn of(node: &str) -> Self {
        let name = |part: &str| format!("{node}-{part}");
        Self {
            mounts: name("mounts"),
            containerd: name("containerd"),
            kubelet: name("kubelet"),
            agent: name("agent"),
        }
    }
}

/// Starts what does not run of a node, and waits until its containerd serves. Says whether something had to be
/// started.
pub(super) async fn ensure(site: &Site, node: &NodeRecord) -> Result<bool> {
    let names = PartNames::of(&node.name);
    let (mut any, holder) = ensure_namespace(site, node).await?;
    if any {
        write_files(site, node, holder)?;
    }
    let socket = site.layout.containerd_socket(&node.name);
    if site.ensure(&containerd_part(node, holder))? {
        any = true;
        let what = format!("containerd on {}", node.name);
        site.ready(&what, &[&names.containerd], TIMEOUT, async || {
            probe::accepts_unix(&socket).await
        })
        .await?;
    }
    if !node.light {
        any |= site.ensure(&kubelet(site, node, holder))?;
    }
    Ok(any)
}

async fn ensure_namespace(site: &Site, node: &NodeRecord) -> Result<(bool, ProcessRecord)> {
    let names = PartNames::of(&node.name);
    if let Some(holder) = site.running(&names.mounts)? {
        return Ok((false, holder));
    }
    // Without its namespace a node is like a machine that was switched off: nothing of it runs, and `/run` is empty.
    let cgroup = site.layout.cgroup().join(&node.name);
    site.hierarchies.kill(&cgroup)?;
    // The cgroups of dead pods would keep the kubelet busy for a quarter of a minute.
    site.hierarchies.remove(&cgroup)?;
    site.hierarchies.create(&cgroup)?;
    network::add_node_address(&site.layout, site.addresses, node)?;
    let run_dir = site.layout.node_run_dir(&node.name);
    if run_dir.exists() {
        fs::remove_dir_all(&run_dir).with_context(|| format!("empty {}", run_dir.display()))?;
    }
    for folder in [
        &run_dir,
        &site.layout.node_dir(&node.name),
        &site.layout.registry_hosts(),
    ] {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    let programs = match node.containerd {
        Containerd::Bundled => site.tools.node.clone(),
        Containerd::Debian => debian::programs(&site.tools, site.progress.as_ref()).await?,
    };
    let mut part = Part::new(&names.mounts, "unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            HOLD_NAMESPACE,
            "coral-node",
        ])
        .args([site.layout.node_dir(&node.name)])
        .args([node.disk.clone().unwrap_or_default()])
        .args([
            &run_dir,
            &site.tools.control_plane,
            &programs,
            &site.layout.registry_hosts(),
        ]);
    part.group.clone_from(&node.name);
    site.ensure(&part)?;
    let ready = run_dir.join("coral-ready");
    site.ready(
        &format!("the mounts of {}", node.name),
        &[&names.mounts],
        TIMEOUT,
        async || {
            Ok(if ready.exists() {
                Look::Done(())
            } else {
                Look::NotYet("not mounted")
            })
        },
    )
    .await?;
    let holder = site
        .running(&names.mounts)?
        .with_context(|| format!("{} has ended", names.mounts))?;
    Ok((true, holder))
}

/// A path on a node, as the host can reach it.
#[must_use]
pub(super) fn path_on_host(holder: ProcessRecord, path: &Path) -> PathBuf {
    let inside = path.strip_prefix("/").unwrap_or(path);
    PathBuf::from(format!("/proc/{}/root", holder.pid)).join(inside)
}

fn write_files(site: &Site, node: &NodeRecord, holder: ProcessRecord) -> Result<()> {
    let put = |path: &str, text: &str| {
        let target = path_on_host(holder, Path::new(path));
        fs::write(&target, text).with_context(|| format!("write {path} on {}", node.name))
    };
    put(
        "/var/lib/coral/containerd.toml",
        &containerd::config(node.containerd, &pause::reference(&site.addresses.registry())),
    )?;
    put(
        "/var/lib/coral/cni/10-ptp.conflist",
        &cni_config(node.number).to_string(),
    )?;
    if node.light {
        return Ok(());
    }
    let authority = Authority::open(&site.layout)?;
    let address = site.addresses.node(node.light, node.number);
    let server = authority.sign(&Subject::server(&node.name, [node.name.clone(), address.to_string()]))?;
    put("/var/lib/kubelet/ca.crt", authority.certificate())?;
    put("/var/lib/kubelet/kubelet.crt", &server.certificate)?;
    put("/var/lib/kubelet/kubelet.key", &server.key)?;
    let cgroup = site.layout.cgroup().join(&node.name);
    let config = kubelet_config(
        &address.to_string(),
        &cgroup,
        node.disk.is_some(),
        &node.register_with_taints,
    );
    put("/var/lib/kubelet/config.json", &config.to_string())?;
    let signed = authority.sign(&Subject::user(
        &format!("system:node:{}", node.name),
        Some("system:nodes"),
    ))?;
    let kubeconfig = path_on_host(holder, Path::new("/var/lib/kubelet/kubeconfig"));
    kubeconfig::write(
        &kubeconfig,
        &site.addresses.api_server(),
        authority.certificate(),
        &Credential::Certificate(&signed),
    )
}

fn on_node(part: Part, node: &NodeRecord, holder: ProcessRecord) -> Part {
    Part {
        group: node.name.clone(),
        path: vec![NODE_BIN.into(), CONTROL_PLANE_BIN.into()],
        mount_namespace_of: Some(holder),
        ..part
    }
}

fn containerd_part(node: &NodeRecord, holder: ProcessRecord) -> Part {
    let name = PartNames::of(&node.name).containerd;
    let part = Part::new(&name, format!("{NODE_BIN}/containerd")).args(["--config=/var/lib/coral/containerd.toml"]);
    on_node(part, node, holder)
}

fn kubelet(site: &Site, node: &NodeRecord, holder: ProcessRecord) -> Part {
    let name = PartNames::of(&node.name).kubelet;
    let part = Part::new(&name, format!("{CONTROL_PLANE_BIN}/kubelet")).args([
        "--config=/var/lib/kubelet/config.json".to_owned(),
        "--kubeconfig=/var/lib/kubelet/kubeconfig".to_owned(),
        "--root-dir=/var/lib/kubelet".to_owned(),
        format!("--hostname-override={}", node.name),
        format!("--node-ip={}", site.addresses.node(node.light, node.number)),
    ]);
    on_node(part, node, holder)
}

/// A link and a route for each pod. All nodes share a network namespace, and so the routes to all pods.
fn cni_config(number: u8) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "coral",
        "plugins": [{
            "type": "ptp",
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": network::pod_subnet(number)}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
}

fn kubelet_config(address: &str, cgroup: &Path, small_disk: bool, taints: &[String]) -> Value {
    let mut config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": address,
        "port": 10250,
        "healthzPort": 0,
        "readOnlyPort": 0,
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": "/var/lib/kubelet/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": "/var/lib/kubelet/kubelet.crt",
        "tlsPrivateKeyFile": "/var/lib/kubelet/kubelet.key",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        // Nothing is there, and kube-proxy says so at once. Without it every pod comes with a warning.
        "clusterDNS": [network::CLUSTER_DNS.to_string()],
        "clusterDomain": "cluster.local",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", cgroup.display()),
        "enforceNodeAllocatable": [],
        "failCgroupV1": false,
        "failSwapOn": false,
        "makeIPTablesUtilChains": false,
        "resolvConf": "",
        "serializeImagePulls": false,
        // The garbage collection of images does not run unless a node is there to show it.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "50Mi"},
        "evictionPressureTransitionPeriod": "10s",
        "registerWithTaints": taints.iter().map(|taint| read_taint(taint)).collect::<Vec<Value>>(),
    });
    if small_disk {
        config["imageGCHighThresholdPercent"] = json!(60);
        config["imageGCLowThresholdPercent"] = json!(40);
        config["imageMinimumGCAge"] = json!("5s");
        // Three times as long as the kubelet takes between two reports: whoever watches the Node sees all pressure.
        config["evictionPressureTransitionPeriod"] = json!("30s");
        // Of several thresholds that are met the kubelet acts on one, in an order that changes, and where it takes the images
        // to have a disk of their own it collects none of them for that of the node.
        config["evictionHard"] =
            json!({"nodefs.available": "1%", "imagefs.available": "15%", "memory.available": "50Mi"});
    }
    config
}

/// A taint as the API has it, from the way in which `kubectl taint` writes it.
fn read_taint(taint: &str) -> Value {
    let (key, effect) = taint.split_once(':').unwrap_or((taint, "NoSchedule"));
    let (key, value) = key.split_once('=').unwrap_or((key, ""));
    json!({"key": key, "value": value, "effect": effect})
}

/// Waits until the nodes say that they are ready.
pub(super) async fn wait_ready(site: &Site, client: &Client, nodes: &[NodeRecord]) -> Result<()> {
    let started = Instant::now();
    let parts: Vec<String> = nodes
        .iter()
        .filter(|node| !node.light)
        .flat_map(|node| [PartNames::of(&node.name).containerd, PartNames::of(&node.name).kubelet])
        .collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let api: Api<Node> = Api::all(client.clone());
    site.ready("ready nodes", &parts, Duration::from_mins(2), async || {
        let mut waiting = Vec::new();
        for node in nodes {
            match api.get_opt(&node.name).await? {
                Some(found) if is_ready(&found) => {}
                Some(found) => waiting.push(format!("{}: {}", node.name, ready_message(&found))),
                None => waiting.push(format!("{}: not registered", node.name)),
            }
        }
        Ok(if waiting.is_empty() {
            Look::Done(())
        } else {
            Look::NotYet(waiting)
        })
    })
    .await?;
    site.step("nodes ready", started);
    Ok(())
}

fn ready_condition(node: &Node) -> Option<&k8s_openapi::api::core::v1::NodeCondition> {
    node.status
        .as_ref()?
        .conditions
        .as_ref()?
        .iter()
        .find(|condition| condition.type_ == "Ready")
}

/// Ready, and free of the taint that is taken away a moment later.
fn is_ready(node: &Node) -> bool {
    let tainted = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.as_ref())
        .is_some_and(|taints| {
            taints.iter().any(|taint| {
                taint.key.starts_with("node.kubernetes.io/") && taint.key != "node.kubernetes.io/disk-pressure"
            })
        });
    !tainted && ready_condition(node).is_some_and(|condition| condition.status == "True")
}

fn ready_message(node: &Node) -> String {
    ready_condition(node)
        .and_then(|condition| condition.message.clone())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_small_disks_collect_garbage() {
        let cgroup = Path::new("coral-1/node-1");
        let usual = kubelet_config("198.18.3.11", cgroup, false, &[]);
        assert_eq!(usual["imageGCHighThresholdPercent"], 100);
        assert_eq!(usual["cgroupRoot"], "/coral-1/node-1");
        let small = kubelet_config("198.18.3.11", cgroup, true, &["a.b/c=d:NoExecute".to_owned()]);
        assert_eq!(small["imageGCHighThresholdPercent"], 60);
        assert_eq!(small["evictionHard"]["imagefs.available"], "15%");
        assert_eq!(usual["registerWithTaints"], json!([]));
        let taint = json!({"key": "a.b/c", "value": "d", "effect": "NoExecute"});
        assert_eq!(small["registerWithTaints"], json!([taint]));
    }

    #[test]
    fn pods_of_two_nodes_have_different_addresses() {
        assert_ne!(cni_config(1), cni_config(2));
    }
}
