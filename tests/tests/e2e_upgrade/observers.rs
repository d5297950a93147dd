//! What must not have a gap: labels of nodes, and admissions of workloads.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use coral_tests::Cluster;
use futures::{StreamExt as _, pin_mut};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Node};
use kube::{
    Api, ResourceExt as _,
    api::PostParams,
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

/// How often a workload is created.
const PERIOD: Duration = Duration::from_millis(50);

/// What is looked at while something goes on. It ends when this is dropped.
pub(crate) struct Observers {
    seen: Arc<Mutex<Seen>>,
    tasks: Vec<JoinHandle<()>>,
}

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Workloads that came back injected.
    pub(crate) admitted: usize,
    /// Events of nodes that had the label.
    pub(crate) labelled: BTreeMap<String, usize>,
    /// Gaps, in words.
    pub(crate) gaps: Vec<String>,
}

impl Observers {
    /// Looks at the label `key`, which each node has now, and creates workloads of `image`, which are not kept.
    pub(crate) fn start(cluster: &Cluster, image: &str, key: &str) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let tasks = vec![
            tokio::spawn(labels(Api::all(cluster.client()), key.to_owned(), Arc::clone(&seen))),
            tokio::spawn(admissions(
                Api::default_namespaced(cluster.client()),
                image.to_owned(),
                key.to_owned(),
                Arc::clone(&seen),
            )),
        ];
        Self { seen, tasks }
    }

    /// Ends them.
    pub(crate) fn stop(self) -> Seen {
        for task in &self.tasks {
            assert!(!task.is_finished(), "an observer has ended by itself");
            task.abort();
        }
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

impl Drop for Observers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// A watch tells of every change, so that not even a short gap is missed.
async fn labels(nodes: Api<Node>, key: String, seen: Arc<Mutex<Seen>>) {
    let events = watcher(nodes, watcher::Config::default())
        .default_backoff()
        .applied_objects();
    pin_mut!(events);
    while let Some(event) = events.next().await {
        // A watch that breaks begins again, with what is there then.
        let Ok(node) = event else { continue };
        let mut seen = seen.lock().unwrap();
        if node.labels().contains_key(&key) {
            *seen.labelled.entry(node.name_any()).or_default() += 1;
        } else {
            let version = node.resource_version().unwrap_or_default();
            seen.gaps
                .push(format!("{} had no label in version {version}", node.name_any()));
        }
    }
}

async fn admissions(deployments: Api<Deployment>, image: String, key: String, seen: Arc<Mutex<Seen>>) {
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "for-show", "annotations": {"image.stvz.io/inject": "selectors"}},
        "spec": {
            "selector": {"matchLabels": {"app": "for-show"}},
            "template": {
                "metadata": {"labels": {"app": "for-show"}},
                "spec": {"containers": [{"name": "a", "image": image}]},
            },
        },
    }))
    .unwrap();
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let answer = deployments.create(&dry_run, &deployment).await;
        let mut seen = seen.lock().unwrap();
        match answer {
            Ok(created) => {
                let pod = created.spec.template.spec.unwrap_or_default();
                if pod.node_selector.unwrap_or_default().contains_key(&key) {
                    seen.admitted += 1;
                } else {
                    let count = seen.admitted;
                    seen.gaps
                        .push(format!("after {count} workloads, one was admitted as it is"));
                }
            }
            Err(error) => seen.gaps.push(format!("a workload was refused: {error}")),
        }
    }
}
