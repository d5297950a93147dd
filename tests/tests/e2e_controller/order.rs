//! A Prefetch in the hands of a case, with everything that becomes of it.

use std::time::{Duration, Instant};

use coral_api::{
    Prefetch, PrefetchStatus,
    conditions::{self, READY},
};
use coral_tests::wait::{Look, eventually};
use futures::StreamExt as _;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, watcher},
    },
};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};

use crate::ground::{Ground, SOON};

/// The status after one change.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// When the change was told.
    pub(crate) at: Instant,
    /// `metadata.generation`.
    pub(crate) generation: Option<i64>,
    pub(crate) status: PrefetchStatus,
}

/// A Prefetch in the namespace `default`.
pub(crate) struct Order {
    api: Api<Prefetch>,
    name: String,
    seen: watch::Receiver<Vec<Seen>>,
    task: JoinHandle<()>,
}

impl Order {
    pub(crate) async fn place(ground: &Ground, name: &str, spec: Value) -> Self {
        let api: Api<Prefetch> = Api::namespaced(ground.client.clone(), "default");
        let object: Prefetch = serde_json::from_value(json!({
            "apiVersion": "image.stvz.io/v1alpha1",
            "kind": "Prefetch",
            "metadata": {"name": name},
            "spec": spec,
        }))
        .unwrap();
        api.create(&PostParams::default(), &object).await.unwrap();
        let (tx, seen) = watch::channel(Vec::new());
        let configuration = watcher::Config::default().fields(&format!("metadata.name={name}"));
        // It outlives a restart of the API server, with the pauses that this takes.
        let mut objects = watcher(api.clone(), configuration)
            .default_backoff()
            .applied_objects()
            .boxed();
        let task = tokio::spawn(async move {
            while let Some(object) = objects.next().await {
                let Ok(object) = object else { continue };
                let seen = Seen {
                    at: Instant::now(),
                    generation: object.metadata.generation,
                    status: object.status.unwrap_or_default(),
                };
                tx.send_modify(|all: &mut Vec<Seen>| all.push(seen));
            }
        });
        Self {
            api,
            name: name.to_owned(),
            seen,
            task,
        }
    }

    /// All changes so far.
    pub(crate) fn history(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }

    /// Waits until the status is about the newest spec and as it should be.
    pub(crate) async fn until(
        &self,
        what: &str,
        patience: Duration,
        is_so: impl Fn(&PrefetchStatus) -> bool,
    ) -> PrefetchStatus {
        let mut seen = self.seen.clone();
        let is_there = |all: &Vec<Seen>| {
            let last = all.last();
            last.is_some_and(|seen| seen.status.observed_generation == seen.generation && is_so(&seen.status))
        };
        let found = tokio::time::timeout(patience, seen.wait_for(is_there)).await;
        match found {
            Ok(Ok(all)) => return all.last().unwrap().status.clone(),
            Ok(Err(_)) => panic!("the watch ended while waiting for {what}"),
            Err(_) => {}
        }
        let last = self.history().pop().map(|seen| {
            let PrefetchStatus {
                nodes,
                conditions,
                failures,
                ..
            } = seen.status;
            let conditions: Vec<String> = conditions
                .into_iter()
                .map(|condition| {
                    format!(
                        "{}={} {}: {}",
                        condition.type_, condition.status, condition.reason, condition.message
                    )
                })
                .collect();
            (nodes, conditions, failures.into_iter().next())
        });
        panic!(
            "waited {patience:?} for {what} (Prefetch {}); last seen: {last:?}",
            self.name
        );
    }

    /// Ready, with this many nodes.
    pub(crate) async fn ready_on(&self, nodes: i32, patience: Duration) -> PrefetchStatus {
        let is_so = |status: &PrefetchStatus| {
            conditions::is_true(&status.conditions, READY)
                && (status.nodes.desired, status.nodes.ready) == (nodes, nodes)
        };
        self.until(&format!("it to be Ready on {nodes} nodes"), patience, is_so)
            .await
    }

    /// Changes the spec by a merge patch.
    pub(crate) async fn change(&self, spec: Value) {
        let patch = Patch::Merge(json!({"spec": spec}));
        let parameters = PatchParams::default();
        let object = self.api.patch(&self.name, &parameters, &patch).await.unwrap();
        // The history must know of the change before anybody asks whether the status is about it.
        let mut seen = self.seen.clone();
        let knows = |all: &Vec<Seen>| {
            all.last()
                .is_some_and(|seen| seen.generation >= object.metadata.generation)
        };
        tokio::time::timeout(SOON, seen.wait_for(knows)).await.unwrap().unwrap();
    }

    pub(crate) async fn delete(&self) {
        self.api.delete(&self.name, &DeleteParams::default()).await.unwrap();
    }

    /// Waits until somebody has deleted it.
    pub(crate) async fn until_gone(&self, patience: Duration) {
        eventually(&format!("the end of Prefetch {}", self.name), patience, async || {
            let object = self.api.get_opt(&self.name).await?;
            Ok(object.map_or(Look::Done(()), |object| Look::NotYet(object.status)))
        })
        .await
        .unwrap();
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The reason of the condition Ready.
pub(crate) fn reason(status: &PrefetchStatus) -> &str {
    conditions::find(&status.conditions, READY).map_or("", |condition| &condition.reason)
}
