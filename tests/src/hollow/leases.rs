//! Keeps hollow nodes alive in the eyes of the node lifecycle controller.
//!
//! It takes a node for dead that neither renewed its Lease nor changed its status for a while, which [`ControlPlane`](super::ControlPlane) makes
//! [`GRACE`]. A kubelet renews every 10 s, and thousands of them keep an API server busy that has machines of its own. Here one task renews for all
//! nodes of a fleet, a share of them at a time and all of them in two minutes: a thousand nodes are eight small writes in a second.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::Instant,
};

/// Where kubelets have their Leases.
const NAMESPACE: &str = "kube-node-lease";
/// How long a node may be silent, as the node lifecycle controller takes it.
pub(super) const GRACE: &str = "10m";
/// Time between two shares of the Leases.
const BEAT: Duration = Duration::from_millis(500);
/// Shares in which all Leases are renewed.
const BEATS: usize = 240;
/// Renewals that are under way at the same time.
const MOST_RENEWALS: usize = 20;

/// The Leases of a fleet. When it is dropped nobody renews them any more.
pub(super) struct Leases {
    api: Api<Lease>,
    names: Arc<Mutex<BTreeSet<String>>>,
    task: JoinHandle<()>,
}

impl Leases {
    /// Renews from now on the Leases of all nodes that are added.
    pub(super) fn keep(client: Client) -> Self {
        let api: Api<Lease> = Api::namespaced(client, NAMESPACE);
        let names: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let task = tokio::spawn(renew_for_ever(api.clone(), Arc::clone(&names)));
        Self { api, names, task }
    }

    /// Makes the Lease of a node and renews it from now on.
    pub(super) async fn add(&self, node: &str) -> Result<()> {
        let lease = serde_json::from_value(json!({"metadata": {"name": node}, "spec": spec(node)}));
        let lease: Lease = lease.context("make a Lease")?;
        match self.api.create(&PostParams::default(), &lease).await {
            // Left from a node of the same name: it is renewed soon enough.
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            made => drop(made.with_context(|| format!("make the Lease of {node}"))?),
        }
        lock(&self.names).insert(node.to_owned());
        Ok(())
    }

    /// Renews no more, and deletes the Lease.
    pub(super) async fn remove(&self, node: &str) -> Result<()> {
        lock(&self.names).remove(node);
        match self.api.delete(node, &DeleteParams::default()).await {
            Err(error) if !is_not_found(&error) => Err(error).with_context(|| format!("delete the Lease of {node}")),
            _ => Ok(()),
        }
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn renew_for_ever(api: Api<Lease>, names: Arc<Mutex<BTreeSet<String>>>) {
    // An API server that takes long for one answer is not waited for, or all would be late.
    let mut renewals = JoinSet::new();
    loop {
        let all: Vec<String> = lock(&names).iter().cloned().collect();
        let began = Instant::now();
        // A share of them at a time, so that nobody notices.
        for (beat, share) in (1..).zip(all.chunks(all.len().div_ceil(BEATS).max(1))) {
            for node in share {
                if renewals.len() >= MOST_RENEWALS {
                    renewals.join_next().await;
                }
                let (api, node) = (api.clone(), node.clone());
                // Who gets no answer gets the next one.
                renewals.spawn(async move { drop(renew(&api, &node).await) });
            }
            tokio::time::sleep_until(began + BEAT * beat).await;
            while renewals.try_join_next().is_some() {}
        }
        if all.is_empty() {
            tokio::time::sleep(BEAT).await;
        }
    }
}

async fn renew(api: &Api<Lease>, node: &str) -> Result<(), kube::Error> {
    let patch = Patch::Merge(json!({"spec": spec(node)}));
    api.patch(node, &PatchParams::default(), &patch).await.map(drop)
}

fn spec(node: &str) -> Value {
    json!({
        "holderIdentity": node,
        "leaseDurationSeconds": 600,
        "renewTime": format!("{:.6}", Timestamp::now()),
    })
}

pub(super) fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}

fn lock(names: &Mutex<BTreeSet<String>>) -> MutexGuard<'_, BTreeSet<String>> {
    names.lock().unwrap_or_else(PoisonError::into_inner)
}
