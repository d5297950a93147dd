//! Who Coral is in a cluster without pods: the accounts and rights of the manifests, so that the API server treats it as it would anywhere. An
//! administrator's requests are counted by no budget of the API server's.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use coral_tests::Cluster;
use k8s_openapi::api::{authentication::v1::TokenRequest, core::v1::ServiceAccount};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    config::Kubeconfig,
};
use serde_json::json;

use crate::command::output;

const NAMESPACE: &str = "coral-system";
const MANIFESTS: &[&str] = &["namespace.yaml", "agent-rbac.yaml", "controller-rbac.yaml"];
/// Longer than any bench, in seconds.
const VALID: i64 = 24 * 3600;

/// Kubeconfigs of those who take part.
pub(super) struct Accounts {
    pub(super) agent: PathBuf,
    pub(super) controller: PathBuf,
}

impl Accounts {
    /// Makes the accounts and gives them their rights.
    pub(super) async fn make(root: &Path, cluster: &Cluster, client: &Client) -> Result<Self> {
        let mut kubectl = Command::new(cluster.tools().control_plane("kubectl"));
        kubectl.arg("--kubeconfig").arg(cluster.kubeconfig());
        kubectl.args(["apply", "--namespace", NAMESPACE]);
        for manifest in MANIFESTS {
            kubectl.arg("--filename").arg(root.join("deploy/base").join(manifest));
        }
        output(&mut kubectl)?;
        Ok(Self {
            agent: account(cluster, client, "coral-agent").await?,
            controller: account(cluster, client, "coral-controller").await?,
        })
    }
}

/// Makes a ServiceAccount, and a kubeconfig with a token of it.
async fn account(cluster: &Cluster, client: &Client, name: &str) -> Result<PathBuf> {
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
    api.patch(name, &PatchParams::apply("coral-bench"), &Patch::Apply(&object))
        .await
        .with_context(|| format!("make the ServiceAccount {name}"))?;
    let request: TokenRequest = serde_json::from_value(json!({"spec": {"audiences": [], "expirationSeconds": VALID}}))?;
    let answer = api.create_token_request(name, &PostParams::default(), &request).await;
    let answer = answer.with_context(|| format!("get a token of {name}"))?;
    let token = answer.status.and_then(|status| status.token);
    let token = token.context("the API server gave no token")?;
    let text = with_token(Kubeconfig::read_from(cluster.kubeconfig())?, &token)?;
    let path = cluster.dir().join(format!("{name}.kubeconfig"));
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// The same kubeconfig for whoever has this token. Every reader of YAML reads it.
fn with_token(kubeconfig: Kubeconfig, token: &str) -> Result<String> {
    let mut value = serde_json::to_value(kubeconfig).context("serialise a kubeconfig")?;
    for user in value["users"].as_array_mut().into_iter().flatten() {
        user["user"] = json!({"token": token});
    }
    Ok(value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_takes_the_place_of_the_certificate() {
        let text = "{clusters: [{name: a, cluster: {server: 'https://a'}}], users: [{name: b, user: {client-key-data: c2VjcmV0}}], \
                    contexts: [{name: c, context: {cluster: a, user: b}}], current-context: c}";
        let text = with_token(Kubeconfig::from_yaml(text).unwrap(), "other").unwrap();
        assert!(!text.contains("c2VjcmV0"), "{text}");
        let user = Kubeconfig::from_yaml(&text).unwrap().auth_infos.remove(0);
        assert!(user.auth_info.unwrap().token.is_some());
    }
}
