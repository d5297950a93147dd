//! An API server that refuses, forgets and breaks off.
//!
//! It is a function, so that it can misbehave on time. Behind it there is one Prefetch and no node, and what the controller owes is a status.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use coral_controller::{Controller, Options, metrics::Metrics};
use http::{Method, Request, Response};
use kube::{
    Client,
    client::{Body, retry::RetryPolicy},
};
use serde_json::{Value, json};
use tower::{ServiceBuilder, retry::RetryLayer, service_fn};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the API server answers.
#[derive(Clone, Debug)]
enum Answer {
    Status(u16, &'static str),
    /// The connection breaks.
    Break,
}

/// What the API server does, and what it has been asked.
#[derive(Debug, Default)]
struct Script {
    /// Answers to the next writes of a status; after them it takes them.
    writes: VecDeque<Answer>,
    /// Answers to the next lists of Prefetches.
    lists: VecDeque<Answer>,
    /// What the next watches of Prefetches say before they end.
    watches: VecDeque<Value>,
    write_times: Vec<Instant>,
    list_count: usize,
    written: Option<Value>,
}

type Shared = Arc<Mutex<Script>>;

fn prefetch(status: Option<&Value>) -> Value {
    let version = if status.is_some() { "20" } else { "10" };
    let mut object = json!({
        "apiVersion": "image.stvz.io/v1alpha1",
        "kind": "Prefetch",
        "metadata": {"name": "web", "namespace": "shop", "uid": "1", "generation": 1, "resourceVersion": version,
                     "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"images": ["nginx:1.29"]},
    });
    if let Some(status) = status {
        object["status"] = status.clone();
    }
    object
}

fn status(code: u16, reason: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "message": reason, "reason": reason, "code": code})
}

async fn answer(shared: Shared, request: Request<Body>) -> Result<Response<Body>, std::io::Error> {
    let (parts, body) = request.into_parts();
    let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
    let list = |kind: &str, items: Value| {
        let metadata = json!({"resourceVersion": "10"});
        json!({"apiVersion": "v1", "kind": format!("{kind}List"), "metadata": metadata, "items": items})
    };
    let planned = {
        let mut script = shared.lock().unwrap();
        if parts.method == Method::PATCH {
            script.write_times.push(Instant::now());
            script.writes.pop_front()
        } else if path.ends_with("/prefetches") && !query.contains("watch=true") {
            script.list_count += 1;
            script.lists.pop_front()
        } else {
            None
        }
    };
    let (code, body) = match planned {
        Some(Answer::Break) => return Err(std::io::ErrorKind::ConnectionReset.into()),
        Some(Answer::Status(code, reason)) => (code, status(code, reason)),
        None if parts.method == Method::PATCH => {
            let bytes = body.collect_bytes().await.unwrap();
            let applied: Value = serde_json::from_slice(&bytes).unwrap();
            let mut script = shared.lock().unwrap();
            script.written = Some(applied["status"].clone());
            (200, prefetch(script.written.as_ref()))
        }
        None if query.contains("watch=true") => {
            let is_about_prefetches = path.ends_with("/prefetches");
            let said = is_about_prefetches.then(|| shared.lock().unwrap().watches.pop_front());
            match said.flatten() {
                Some(event) => (200, event),
                None => return std::future::pending().await,
            }
        }
        None if path.ends_with("/prefetches") => {
            let written = shared.lock().unwrap().written.clone();
            (200, list("Prefetch", json!([prefetch(written.as_ref())])))
        }
        None => (200, list("Any", json!([]))),
    };
    let mut text = body.to_string();
    text.push('\n');
    let response = Response::builder()
        .status(code)
        .header("Content-Type", "application/json");
    // As an API server under load says it.
    let response = if code == 429 {
        response.header("Retry-After", "1")
    } else {
        response
    };
    Ok(response.body(Body::from(text.into_bytes())).unwrap())
}

/// A controller in front of that API server, with the client's own policy of retries.
fn start(script: Script) -> (Shared, Metrics, tokio::task::JoinHandle<()>) {
    let shared = Arc::new(Mutex::new(script));
    let server = Arc::clone(&shared);
    let service = service_fn(move |request| answer(Arc::clone(&server), request));
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryPolicy::server_retry()))
        .map_err(tower::BoxError::from)
        .service(service);
    let controller = Controller::new(Client::new(service, "default"), Options::default());
    let metrics = controller.metrics();
    let task = tokio::spawn(controller.run(std::future::pending()));
    (shared, metrics, task)
}

async fn until(what: &str, shared: &Shared, is_so: impl Fn(&Script) -> bool) {
    let began = Instant::now();
    while !is_so(&shared.lock().unwrap()) {
        assert!(
            began.elapsed() < PATIENCE,
            "waited for {what}: {:?}",
            shared.lock().unwrap()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn refused_writes_are_tried_again_and_not_at_once() {
    let answers = [
        Answer::Status(429, "TooManyRequests"),
        Answer::Status(500, "InternalError"),
        Answer::Status(409, "Conflict"),
        Answer::Break,
    ];
    let (shared, _, task) = start(Script {
        writes: answers.into(),
        ..Script::default()
    });
    until("the status to be written", &shared, |script| script.written.is_some()).await;
    assert!(!task.is_finished());
    let times = shared.lock().unwrap().write_times.clone();
    assert_eq!(times.len(), 5);
    let pauses: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // What the API server asks for, and then half a second, a second, two.
    for (pause, least) in pauses.iter().zip([900, 450, 900, 1_800]) {
        assert!(*pause >= Duration::from_millis(least), "{pauses:?}");
    }
    task.abort();
}

#[tokio::test]
async fn a_watch_whose_beginning_is_forgotten_begins_with_a_list() {
    let expired = json!({"type": "ERROR", "object": status(410, "Expired")});
    let (shared, metrics, task) = start(Script {
        watches: [expired].into(),
        ..Script::default()
    });
    until("another list", &shared, |script| script.list_count >= 2).await;
    until("the status to be written", &shared, |script| script.written.is_some()).await;
    assert!(metrics.is_ready() && !task.is_finished());
    task.abort();
}

#[tokio::test]
async fn lists_that_fail_keep_the_controller_from_concluding_anything() {
    let answers = [
        Answer::Status(503, "ServiceUnavailable"),
        Answer::Break,
        Answer::Status(500, "InternalError"),
    ];
    let (shared, metrics, task) = start(Script {
        lists: answers.into(),
        ..Script::default()
    });
    until("the first list", &shared, |script| script.list_count >= 1).await;
    assert!(!metrics.is_ready());
    until("the status to be written", &shared, |script| script.written.is_some()).await;
    assert!(metrics.is_ready() && !task.is_finished());
    assert!(shared.lock().unwrap().list_count >= 4);
    task.abort();
}

#[tokio::test]
async fn what_is_done_is_not_written_again() {
    let (shared, _, task) = start(Script::default());
    until("the status to be written", &shared, |script| script.written.is_some()).await;
    // Longer than the pause between two writes of a status, and than the controller's own tick.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(shared.lock().unwrap().write_times.len(), 1);
    task.abort();
}
