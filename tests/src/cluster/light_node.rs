//! Light nodes: a containerd, a Node object that is kept alive from outside, and the agent as a process.
//!
//! Without a kubelet a node costs a tenth, which is what tests with many nodes need.

use std::time::Instant;

use anyhow::{Context, Result};
use k8s_openapi::api::{
    authentication::v1::TokenRequest,
    core::v1::{Namespace, Node, ServiceAccount},
};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{
    certificates::Authority,
    kubeconfig::{self, Credential},
    node::{self, PartNames},
    options::AgentOptions,
    site::{Part, Site},
    state::{NodeRecord, State, replace},
};
use crate::images::oci::architecture;

/// The label and the taint of light nodes: no pod can run there.
pub const LIGHT: &str = "coral.invalid/light";
const AGENT_NAMESPACE: &str = "coral-system";
const AGENT_ACCOUNT: &str = "coral-agent";
const HEARTBEAT: &str = "light-heartbeat";

/// Renews the leases of all light nodes: without that, the node lifecycle controller takes them for dead. Where it may have done so, because the
/// API server was away, they are said to be ready again for three minutes: nobody else says it of them. `$0`: the leases, with `NOW` where the
/// time goes; `$1`: the statuses.
const BEAT: &str = r#"
apply() {
  kubectl apply --server-side --force-conflicts --field-manager=coral-light-nodes --validate=false --request-timeout=8s "$@" >/dev/null
}
last=$(date +%s)
doubtful=0
while true; do
  if sed "s/NOW/$(date -u +%Y-%m-%dT%H:%M:%S.000000Z)/g" "$0" | apply -f -; then
    now=$(date +%s)
    if [ $((now - last)) -gt 15 ]; then doubtful=$((now + 180)); fi
    if [ "$now" -lt "$doubtful" ]; then apply --subresource=status -f "$1"; fi
    last=$now
  fi
  sleep 8
done
"#;

/// Starts what does not run of a light node, and makes its Node object say that it is ready. Says whether something
/// had to be started.
pub(super) async fn ensure(
    site: &Site,
    client: &Client,
    record: &NodeRecord,
    agent: Option<&AgentOptions>,
) -> Result<bool> {
    let started = Instant::now();
    let mut any = node::ensure(site, record).await?;
    let object = apply_node(site, client, record).await?;
    if let Some(agent) = record.agent.as_ref().or(agent) {
        let name = PartNames::of(&record.name).agent;
        if site.running(&name)?.is_none() {
            any |= start_agent(site, client, record, &object, agent).await?;
        }
    }
    if any {
        site.step(&record.name, started);
    }
    Ok(any)
}

/// Keeps the leases of all light nodes alive, from now on those that the state lists.
pub(super) fn ensure_heartbeat(site: &Site) -> Result<bool> {
    let state = State::read(&site.layout)?.context("no state")?;
    let light: Vec<&NodeRecord> = state.nodes.iter().filter(|node| node.light).collect();
    let names: Vec<&str> = light.iter().map(|node| node.name.as_str()).collect();
    let statuses = light.iter().map(|node| {
        let address = site.addresses.node(true, node.number).to_string();
        node_status(&node.name, &address)
    });
    let leases_file = site.layout.dir.join("light-leases.json");
    let statuses_file = site.layout.dir.join("light-statuses.json");
    replace(&leases_file, &leases(&names).to_string())?;
    replace(&statuses_file, &list(&statuses.collect::<Vec<_>>()).to_string())?;
    if names.is_empty() {
        return Ok(false);
    }
    let mut part = Part::new(HEARTBEAT, "sh")
        .args(["-c", BEAT])
        .args([&leases_file, &statuses_file]);
    part.path = vec![site.tools.control_plane.clone()];
    part.environment = vec![("KUBECONFIG".to_owned(), site.layout.kubeconfig().display().to_string())];
    site.ensure(&part)
}

fn leases(nodes: &[&str]) -> Value {
    let items: Vec<Value> = nodes
        .iter()
        .map(|node| {
            json!({
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": node, "namespace": "kube-node-lease"},
                "spec": {"holderIdentity": node, "leaseDurationSeconds": 40, "renewTime": "NOW"},
            })
        })
        .collect();
    list(&items)
}

fn list(items: &[Value]) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

async fn apply_node(site: &Site, client: &Client, record: &NodeRecord) -> Result<Node> {
    let address = site.addresses.node(true, record.number).to_string();
    let api: Api<Node> = Api::all(client.clone());
    let params = PatchParams::apply("coral-light-nodes").force();
    let object = node_object(&record.name);
    api.patch(&record.name, &params, &Patch::Apply(&object))
        .await
        .with_context(|| format!("make the Node {}", record.name))?;
    let status = node_status(&record.name, &address);
    api.patch_status(&record.name, &params, &Patch::Apply(&status))
        .await
        .with_context(|| format!("make the Node {} ready", record.name))
}

fn node_object(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": architecture(),
                "kubernetes.io/hostname": name,
                LIGHT: "true",
            },
        },
        "spec": {"taints": [{"key": LIGHT, "value": "true", "effect": "NoSchedule"}]},
    })
}

fn node_status(name: &str, address: &str) -> Value {
    let condition = |kind: &str, status: &str| {
        json!({
            "type": kind,
            "status": status,
            "reason": "LightNode",
            "message": "this node has no kubelet",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "status": {
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
            "capacity": {"cpu": "1", "memory": "1Gi", "pods": "0", "ephemeral-storage": "10Gi"},
            "allocatable": {"cpu": "1", "memory": "1Gi", "pods": "0", "ephemeral-storage": "10Gi"},
            "conditions": [
                condition("Ready", "True"),
                condition("MemoryPressure", "False"),
                condition("DiskPressure", "False"),
                condition("PIDPressure", "False"),
            ],
            "nodeInfo": {
                "architecture": architecture(), "operatingSystem": "linux", "osImage": "", "kernelVersion": "",
                "containerRuntimeVersion": "containerd://2", "kubeletVersion": "", "kubeProxyVersion": "",
                "machineID": "", "systemUUID": "", "bootID": "",
            },
        },
    })
}

async fn start_agent(
    site: &Site,
    client: &Client,
    record: &NodeRecord,
    object: &Node,
    agent: &AgentOptions,
) -> Result<bool> {
    if !agent.binary.exists() {
        site.progress.note(&format!(
            "{} runs no agent: there is no {}; `cargo build -p coral-agent` makes it",
            record.name,
            agent.binary.display()
        ));
        return Ok(false);
    }
    let token = token_on_node(client, object).await?;
    let kubeconfig = site.layout.node_dir(&record.name).join("agent.kubeconfig");
    let authority = Authority::open(&site.layout)?;
    let server = site.addresses.api_server();
    kubeconfig::write(
        &kubeconfig,
        &server,
        authority.certificate(),
        &Credential::Token(&token),
    )?;
    let endpoint = format!("unix://{}", site.layout.containerd_socket(&record.name).display());
    let address = site.addresses.node(true, record.number).to_string();
    let replacements = [
        ("{node}", record.name.as_str()),
        ("{endpoint}", &endpoint),
        ("{kubeconfig}", &kubeconfig.display().to_string()),
        ("{address}", &address),
    ]
    .map(|(placeholder, value)| (placeholder, value.to_owned()));
    let mut part = Part::new(&PartNames::of(&record.name).agent, agent.binary.clone())
        .args(agent.arguments.iter().map(|argument| fill_in(argument, &replacements)));
    part.group.clone_from(&record.name);
    site.ensure(&part)
}

fn fill_in(argument: &str, replacements: &[(&str, String)]) -> String {
    replacements
        .iter()
        .fold(argument.to_owned(), |text, (placeholder, value)| {
            text.replace(placeholder, value)
        })
}

/// A token as the agent's pod on that node would have it: it says which node it is for, so that what is allowed to
/// the agent of a node only is allowed to this one too.
async fn token_on_node(client: &Client, node: &Node) -> Result<String> {
    let params = PatchParams::apply("coral-light-nodes");
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": AGENT_NAMESPACE}});
    namespaces
        .patch(AGENT_NAMESPACE, &params, &Patch::Apply(&namespace))
        .await
        .with_context(|| format!("make the namespace {AGENT_NAMESPACE}"))?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), AGENT_NAMESPACE);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": AGENT_ACCOUNT}});
    accounts
        .patch(AGENT_ACCOUNT, &params, &Patch::Apply(&account))
        .await
        .with_context(|| format!("make the ServiceAccount {AGENT_ACCOUNT}"))?;
    let request: TokenRequest = serde_json::from_value(json!({
        "spec": {
            "audiences": [],
            "expirationSeconds": 7 * 24 * 3600,
            "boundObjectRef": {
                "apiVersion": "v1", "kind": "Node", "name": node.name_any(), "uid": node.uid(),
            },
        },
    }))
    .context("make a token request")?;
    let answer = accounts
        .create_token_request(AGENT_ACCOUNT, &PostParams::default(), &request)
        .await
        .with_context(|| format!("get a token for the agent of {}", node.name_any()))?;
    answer
        .status
        .and_then(|status| status.token)
        .context("the API server gave no token")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_the_agent_name_its_node() {
        let replacements = [
            ("{node}", "light-1".to_owned()),
            ("{address}", "198.18.0.121".to_owned()),
        ];
        assert_eq!(
            fill_in("--listen={address}:9090", &replacements),
            "--listen=198.18.0.121:9090"
        );
        assert_eq!(fill_in("--node-name={node}", &replacements), "--node-name=light-1");
    }

    #[test]
    fn each_light_node_has_a_lease() {
        let list = leases(&["light-1", "light-2"]);
        assert_eq!(list["items"].as_array().unwrap().len(), 2);
        assert_eq!(list["items"][1]["spec"]["renewTime"], "NOW");
    }
}
