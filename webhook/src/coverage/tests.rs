use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{body::Body, http};
use bytes::Bytes;
use coral_admission::mutate::{Options, mutate};
use futures::{StreamExt as _, stream};
use kube::client::Body as RequestBody;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::*;
use crate::watched::TRUSTED;

fn prefetch(name: &str, images: &[&str], pull_policy: &str) -> Value {
    json!({
        "apiVersion": "image.stvz.io/v1alpha1",
        "kind": "Prefetch",
        "metadata": {"name": name, "namespace": "shop", "resourceVersion": "2"},
        "spec": {"images": images, "pullPolicy": pull_policy},
    })
}

fn event(kind: &str, object: &Value) -> Value {
    json!({"type": kind, "object": object})
}

/// The warnings about a pod with this image.
fn warnings(coverage: Option<&Coverage>, image: &str) -> Vec<String> {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"annotations": {"image.stvz.io/inject": "selectors,pull-policy"}},
        "spec": {"containers": [{"name": "a", "image": image}]},
    });
    let options = Options {
        coverage,
        ..Options::default()
    };
    mutate(&pod, &options).unwrap().warnings
}

#[test]
fn only_what_prefetches_name_makes_a_difference() {
    let mut named = Named::default();
    let mut take = |kind: &str, prefetch: Value| {
        let event = serde_json::from_value(event(kind, &prefetch)).unwrap();
        let is_different = watched::take(&mut named, event).unwrap();
        (is_different, named.knowledge())
    };
    let (is_different, coverage) = take("ADDED", prefetch("one", &["nginx:1.29"], "IfNotPresent"));
    assert!(is_different);
    assert_eq!(
        warnings(Some(&coverage), "docker.io/library/nginx:1.29"),
        Vec::<String>::new()
    );
    assert_eq!(warnings(Some(&coverage), "redis:8").len(), 1);
    assert!(!take("MODIFIED", prefetch("one", &["nginx:1.29"], "IfNotPresent")).0);

    let (_, coverage) = take("ADDED", prefetch("two", &["redis:8", "busybox"], "IfNotPresent"));
    assert_eq!(warnings(Some(&coverage), "redis:8"), Vec::<String>::new());
    assert_eq!(warnings(Some(&coverage), "busybox").len(), 1, "its tag moves");
    let (is_different, coverage) = take("MODIFIED", prefetch("two", &["redis:8", "busybox"], "Always"));
    assert!(is_different);
    assert_eq!(warnings(Some(&coverage), "busybox"), Vec::<String>::new());

    // From a version to come, perhaps.
    let mut odd = prefetch("two", &[], "Sometimes");
    let (is_different, coverage) = take("MODIFIED", odd.clone());
    assert!(is_different);
    assert_eq!(warnings(Some(&coverage), "redis:8").len(), 1);
    odd["spec"] = json!(null);
    assert!(!take("MODIFIED", odd.clone()).0);
    assert!(take("DELETED", odd.clone()).0);
    assert!(!take("DELETED", odd).0);
}

#[test]
fn what_is_known_is_not_trusted_for_ever() {
    let known = KnownCoverage::default();
    let now = Instant::now();
    assert!(known.get(now).is_none());
    known.set(Coverage::default());
    assert!(known.get(now).is_some());
    assert!(known.get(now + TRUSTED).is_some());
    let late = Instant::now() + TRUSTED + Duration::from_secs(1);
    let coverage = known.get(late);
    assert!(coverage.is_none());
    assert_eq!(warnings(coverage.as_deref(), "nginx:1.29"), Vec::<String>::new());
    assert_eq!(warnings(known.get(now).as_deref(), "nginx:1.29").len(), 1);
}

/// An API server that has one Prefetch, and says what it is told to say.
struct Site {
    known: KnownCoverage,
    metrics: Metrics,
    /// Site ──lines of the next watch──► client; while there are none, lists fail.
    lines_tx: mpsc::UnboundedSender<mpsc::UnboundedReceiver<Value>>,
    lists: Arc<Mutex<usize>>,
}

impl Site {
    fn new() -> Self {
        let (lines_tx, lines_rx) = mpsc::unbounded_channel::<mpsc::UnboundedReceiver<Value>>();
        let lines_rx = Arc::new(Mutex::new(lines_rx));
        let lists = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&lists);
        let service = tower::service_fn(move |request: http::Request<RequestBody>| {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let (status, body) = if query.contains("watch=") {
                assert!(query.contains("allowWatchBookmarks=true") && query.contains("resourceVersion=1"));
                match lines_rx.lock().unwrap().try_recv() {
                    Ok(lines) => (200, watched(lines)),
                    Err(_) => (503, Body::empty()),
                }
            } else {
                *counted.lock().unwrap() += 1;
                if lines_rx.lock().unwrap().is_empty() {
                    (503, Body::empty())
                } else if query.contains("continue=") {
                    let items = [prefetch("two", &["redis:8"], "IfNotPresent")];
                    (200, listed(&json!({"resourceVersion": "1"}), &items))
                } else {
                    let items = [prefetch("one", &["nginx:1.29"], "IfNotPresent")];
                    (
                        200,
                        listed(&json!({"resourceVersion": "1", "continue": "more"}), &items),
                    )
                }
            };
            let response = http::Response::builder().status(status).body(body);
            std::future::ready(response)
        });
        let known = KnownCoverage::default();
        let metrics = Metrics::default();
        let client = Client::new(service, "default");
        tokio::spawn(follow(client, known.clone(), metrics.clone()));
        Self {
            known,
            metrics,
            lines_tx,
            lists,
        }
    }

    fn watch(&self) -> mpsc::UnboundedSender<Value> {
        let (tx, rx) = mpsc::unbounded_channel();
        self.lines_tx.send(rx).unwrap();
        tx
    }

    fn says(&self, image: &str) -> usize {
        warnings(self.known.get(Instant::now()).as_deref(), image).len()
    }

    /// Waits until so many warnings are given. Time passes by itself while everybody waits.
    async fn comes_to_say(&self, image: &str, number: usize) {
        for _ in 0..10_000 {
            if self.says(image) == number {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{} warnings are given of {image}, not {number}", self.says(image));
    }
}

fn listed(metadata: &Value, items: &[Value]) -> Body {
    let list =
        json!({"apiVersion": "image.stvz.io/v1alpha1", "kind": "PrefetchList", "metadata": metadata, "items": items});
    Body::from(list.to_string())
}

fn watched(lines: mpsc::UnboundedReceiver<Value>) -> Body {
    let lines = stream::unfold(lines, |mut lines| async {
        lines.recv().await.map(|line| (line, lines))
    });
    Body::from_stream(lines.map(|line| Ok::<_, Infallible>(Bytes::from(format!("{line}\n")))))
}

fn bookmark() -> Value {
    event(
        "BOOKMARK",
        &json!({"apiVersion": "image.stvz.io/v1alpha1", "kind": "Prefetch", "metadata": {"resourceVersion": "3"}}),
    )
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_works_keeps_the_knowledge_fresh() {
    let site = Site::new();
    let lines = site.watch();
    site.comes_to_say("other:1", 1).await;
    assert_eq!((site.says("nginx:1.29"), site.says("redis:8")), (0, 0), "both pages");
    lines
        .send(event("ADDED", &prefetch("late", &["other:1"], "IfNotPresent")))
        .unwrap();
    site.comes_to_say("other:1", 0).await;
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_mins(1)).await;
        lines.send(bookmark()).unwrap();
        assert_eq!(site.says("third:1"), 1, "nothing has changed, and that is known");
    }
    assert_eq!(*site.lists.lock().unwrap(), 2, "two pages, once");
    // The end of a watch is nothing to speak of.
    let again = site.watch();
    drop(lines);
    site.comes_to_say("other:1", 1).await;
    drop(again);
}

#[tokio::test(start_paused = true)]
async fn without_a_watch_that_works_nothing_is_said_of_coverage() {
    let site = Site::new();
    let lines = site.watch();
    site.comes_to_say("other:1", 1).await;
    let began = Instant::now();
    // The API server is there, and silent; then it fails.
    tokio::time::sleep(TRUSTED * 9 / 10).await;
    assert_eq!(site.says("other:1"), 1, "it was true a moment ago");
    site.comes_to_say("other:1", 0).await;
    assert!(began.elapsed() < TRUSTED + Duration::from_secs(5));
    assert!(lines.is_closed(), "a silent watch is given up");
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(site.says("other:1"), 0);
    let lists = *site.lists.lock().unwrap();
    assert!((40..200).contains(&lists), "{lists} lists in a quarter of an hour");
    assert!(
        !site.metrics.is_ready(),
        "what is known of Prefetches has no part in that"
    );
    // It is back.
    let _lines = site.watch();
    site.comes_to_say("other:1", 1).await;
}

#[tokio::test(start_paused = true)]
async fn versions_that_are_gone_are_listed_anew() {
    let site = Site::new();
    let lines = site.watch();
    site.comes_to_say("other:1", 1).await;
    let _again = site.watch();
    let gone = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "too old", "reason": "Expired", "code": 410});
    lines.send(event("ERROR", &gone)).unwrap();
    let listed = async {
        while *site.lists.lock().unwrap() < 4 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_mins(1), listed).await.unwrap();
    site.comes_to_say("other:1", 1).await;
}
