//! Namespaces that go when the test is over.

use std::{
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::{Api, Client, api::PostParams};

use super::Cluster;
use crate::wait::{Look, eventually};

/// A namespace with a name of its own, deleted when this is dropped.
pub struct TempNamespace {
    name: String,
    client: Client,
    delete: Command,
}

impl Cluster {
    /// Makes a namespace that no other test uses; its name begins with `prefix`.
    pub async fn temp_namespace(&self, prefix: &str) -> Result<TempNamespace> {
        let name = format!("{prefix}-{}", unique_suffix());
        let client = self.client();
        let api: Api<Namespace> = Api::all(client.clone());
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.clone());
        api.create(&PostParams::default(), &namespace)
            .await
            .with_context(|| format!("create namespace {name}"))?;
        let mut delete = Command::new(self.tools().control_plane("kubectl"));
        delete
            .env("KUBECONFIG", self.kubeconfig())
            .args(["delete", "namespace", &name, "--wait=false", "--ignore-not-found"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let namespace = TempNamespace { name, client, delete };
        namespace.wait_for_service_account().await?;
        Ok(namespace)
    }
}

impl TempNamespace {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A handle on the objects of one kind in it.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Before it is there, no pod is accepted.
    async fn wait_for_service_account(&self) -> Result<()> {
        let accounts: Api<ServiceAccount> = self.api();
        eventually(
            &format!("the default ServiceAccount in {}", self.name),
            std::time::Duration::from_secs(30),
            async || {
                Ok(accounts
                    .get_opt("default")
                    .await?
                    .map_or(Look::NotYet("none"), |_| Look::Done(())))
            },
        )
        .await
    }
}

impl Drop for TempNamespace {
    /// Through `kubectl`, because there may be no async runtime to wait in.
    fn drop(&mut self) {
        let _ = self.delete.status();
    }
}

/// Distinct between the tests of a process and between processes.
fn unique_suffix() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!(
        "{:x}-{:x}-{count}",
        since_epoch.as_millis() & 0xff_ffff,
        std::process::id()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_differ_and_fit_into_a_name() {
        let (first, second) = (unique_suffix(), unique_suffix());
        assert_ne!(first, second);
        assert!(first.len() < 40 && first.chars().all(|char| char.is_ascii_alphanumeric() || char == '-'));
    }
}
