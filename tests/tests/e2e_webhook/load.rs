//! Admissions while something else goes on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::json;
use tokio::time::MissedTickBehavior;

use crate::{dry_run, key, support::Scene};

/// Admissions a second, on a machine that has the time for them.
const RATE: u32 = 100;
/// Admissions under way at the same time. On a slow machine more of them would only be in each other's way.
const PARALLEL: usize = 20;
/// Admissions a second on the slowest machine for which the test says anything.
const LEAST_RATE: u64 = 20;

/// Pods that are created for show, again and again. Each has to come back injected.
pub(crate) struct Load {
    asked: Arc<AtomicUsize>,
    failures: Arc<std::sync::Mutex<Vec<String>>>,
    is_over: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
    began: Instant,
}

impl Load {
    pub(crate) fn start(scene: &Scene, image: &str) -> Self {
        let pods: Api<Pod> = scene.namespace.api();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"generateName": "x-", "annotations": {"image.stvz.io/inject": "selectors"}},
            "spec": {"containers": [{"name": "a", "image": image}]},
        }))
        .unwrap();
        let key = key(image);
        let asked = Arc::new(AtomicUsize::new(0));
        let failures = Arc::new(std::sync::Mutex::new(Vec::new()));
        let is_over = Arc::new(AtomicBool::new(false));
        let (count, errors, over) = (Arc::clone(&asked), Arc::clone(&failures), Arc::clone(&is_over));
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            let mut asking = tokio::task::JoinSet::new();
            while !over.load(Ordering::Relaxed) {
                ticks.tick().await;
                let (pods, pod, key) = (pods.clone(), pod.clone(), key.clone());
                let (count, errors) = (Arc::clone(&count), Arc::clone(&errors));
                asking.spawn(async move {
                    let problem = match pods.create(&dry_run(), &pod).await {
                        Ok(pod) => {
                            let selector = pod.spec.and_then(|spec| spec.node_selector).unwrap_or_default();
                            (!selector.contains_key(&key)).then(|| "a pod was admitted as it is".to_owned())
                        }
                        Err(error) => Some(error.to_string()),
                    };
                    count.fetch_add(1, Ordering::Relaxed);
                    errors.lock().unwrap().extend(problem);
                });
                while asking.len() >= PARALLEL {
                    asking.join_next().await;
                }
            }
            asking.join_all().await;
        });
        Self {
            asked,
            failures,
            is_over,
            task,
            began: Instant::now(),
        }
    }

    pub(crate) async fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        let took = self.began.elapsed();
        let Self {
            asked, failures, task, ..
        } = self;
        task.await.unwrap();
        let (asked, failures) = (asked.load(Ordering::Relaxed), failures.lock().unwrap().clone());
        assert!(
            failures.is_empty(),
            "{} of {asked} admissions failed: {:?}",
            failures.len(),
            failures.first()
        );
        let least = usize::try_from(took.as_secs() * LEAST_RATE).unwrap();
        assert!(asked > least, "only {asked} admissions in {took:?}");
    }
}
