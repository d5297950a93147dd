use serde_json::json;

use super::*;
use crate::fixtures::{node_images, prefetch};

fn now() -> Timestamp {
    "2026-01-01T00:01:00Z".parse().unwrap()
}

#[test]
fn cells_follow_spec_and_status() {
    let web =
        prefetch(json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"images": ["nginx", "redis:8"]}}));
    let mut matrix = Matrix::new([&web]);
    let wanted = |image: &str, state: &str| json!({"image": image, "requestedBy": ["shop/web"], "state": state});
    let node = node_images(json!({
        "metadata": {"name": "node-1"},
        "spec": {"images": [
            wanted("docker.io/library/nginx:latest", "Present"),
            wanted("docker.io/library/redis:8", "Held"),
            {"image": "docker.io/library/other:1", "requestedBy": ["shop/other"]},
            wanted("docker.io/library/gone:1", "Absent"),
        ]},
        "status": {"images": [
            {"image": "docker.io/library/nginx:latest", "state": "Pulling",
             "pull": {"startTime": "2026-01-01T00:00:50Z", "doneBytes": 45_000_000, "totalBytes": 100_000_000}},
        ]},
    }));
    matrix.insert(&node, now());
    let nginx = matrix.cell("node-1", "nginx").unwrap();
    assert_eq!(nginx.state, CellState::Pulling);
    let transfer = nginx.transfer.unwrap();
    assert_eq!((transfer.percent(), transfer.rate), (Some(45), Some(4_500_000)));
    assert_eq!(matrix.cell("node-1", "redis:8").unwrap().state, CellState::Held);
    assert_eq!(
        matrix.columns().len(),
        2,
        "what others want, and what is to go, has no column"
    );

    let empty = node_images(json!({"metadata": {"name": "node-1"}, "spec": {}}));
    matrix.insert(&empty, now());
    assert!(matrix.rows().is_empty());
}

#[test]
fn a_held_image_that_is_there_is_present() {
    let web = prefetch(json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"images": ["a"]}}));
    let mut matrix = Matrix::new([&web]);
    let node = node_images(json!({
        "metadata": {"name": "n"},
        "spec": {"images": [{"image": "docker.io/library/a:latest", "requestedBy": ["shop/web"], "state": "Held"}]},
        "status": {"images": [{"image": "docker.io/library/a:latest", "state": "Present", "sizeBytes": 5}]},
    }));
    matrix.insert(&node, now());
    let summary = &matrix.summaries()[0];
    assert_eq!((summary.nodes, summary.present, summary.size), (1, 1, Some(5)));
}

#[test]
fn a_held_image_that_failed_has_failed() {
    let web = prefetch(json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"images": ["a"]}}));
    let mut matrix = Matrix::new([&web]);
    let node = node_images(json!({
        "metadata": {"name": "n"},
        "spec": {"images": [{"image": "docker.io/library/a:latest", "requestedBy": ["shop/web"], "state": "Held"}]},
        "status": {"images": [{
            "image": "docker.io/library/a:latest",
            "state": "Failed",
            "failure": {"reason": "NotFound", "message": "not found", "attempts": 6},
        }]},
    }));
    matrix.insert(&node, now());
    let (_, _, cell) = matrix.cells().next().unwrap();
    assert_eq!(cell.state, CellState::Failed);
    assert!(cell.failure.is_some());
}

#[test]
fn a_node_says_why_nothing_happens() {
    let node = |value| trouble(&node_images(value));
    assert_eq!(
        node(json!({"metadata": {"name": "n"}, "spec": {"paused": "DiskPressure"}})).unwrap(),
        "nothing is pulled for now: DiskPressure"
    );
    assert_eq!(
        node(json!({"metadata": {"name": "n"}, "spec": {}})).unwrap(),
        "Coral's agent has not reported yet"
    );
    let condition = json!({"type": "Ready", "status": "False", "reason": "RuntimeDown", "message": "no socket", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    assert_eq!(
        node(json!({"metadata": {"name": "n"}, "spec": {}, "status": {"conditions": [condition]}})).unwrap(),
        "Coral's agent is not ready: RuntimeDown: no socket"
    );
    assert_eq!(node(json!({"metadata": {"name": "n"}, "spec": {}, "status": {}})), None);
}

#[test]
fn percents_never_overflow_nor_claim_the_end() {
    let transfer = |done, total| {
        Transfer {
            done,
            total,
            rate: None,
        }
        .percent()
    };
    assert_eq!(transfer(100, Some(100)), Some(99));
    assert_eq!(transfer(u64::MAX, Some(3)), Some(99));
    assert_eq!(transfer(5, Some(0)), None);
    assert_eq!(transfer(5, None), None);
}

#[test]
fn what_is_done_makes_no_further_attempts() {
    // The mode of the Prefetch, when it was done, and whether the next attempt is told.
    let cases = [
        ("Once", Some("2026-01-01T00:00:50Z"), false),
        ("Once", None, true),
        ("Keep", None, true),
    ];
    for (mode, done, is_told) in cases {
        let web = prefetch(json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"images": ["a"], "mode": mode},
            "status": {"completionTime": done},
        }));
        let mut matrix = Matrix::new([&web]);
        let image = "docker.io/library/a:latest";
        let failure =
            json!({"reason": "NotFound", "message": "no", "attempts": 1, "nextAttemptTime": "2026-01-01T00:00:55Z"});
        let node = node_images(json!({
            "metadata": {"name": "node-1"},
            "spec": {"images": [{"image": image, "requestedBy": ["shop/web"], "state": "Held"}]},
            "status": {"images": [{"image": image, "state": "Failed", "failure": failure}]},
        }));
        matrix.insert(&node, now());
        let failure = matrix.cell("node-1", "a").unwrap().failure.clone().unwrap();
        assert_eq!(failure.next_attempt_time.is_some(), is_told, "{mode} {done:?}");
    }
}
