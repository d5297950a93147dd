use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::fixtures::{node_images, prefetch};

const MODEL: &str = "ghcr.io/acme/model:v7";

/// A matrix of images that one Prefetch wants on nodes, each with the status of its images.
fn matrix(images: &[&str], nodes: &[(String, Vec<Value>)]) -> Matrix {
    let web = prefetch(json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"images": images}}));
    let mut matrix = Matrix::new([&web]);
    let now: Timestamp = "2026-01-01T00:00:10Z".parse().unwrap();
    for (name, statuses) in nodes {
        let spec: Vec<Value> = statuses
            .iter()
            .map(|status| json!({"image": status["image"], "requestedBy": ["shop/web"]}))
            .collect();
        let node = node_images(json!({
            "metadata": {"name": name},
            "spec": {"images": spec},
            "status": {
                "images": statuses,
                "runtime": {"name": "containerd", "version": "2.1.4"},
                "imageFilesystem": {"usedBytes": 1, "freeBytes": 12_300_000_000_i64},
            },
        }));
        matrix.insert(&node, now);
    }
    matrix
}

fn normal(image: &str) -> String {
    image.parse::<coral_api::ImageReference>().unwrap().identity()
}

fn present(image: &str) -> Value {
    json!({"image": normal(image), "state": "Present", "sizeBytes": 67_400_000, "digest": format!("sha256:{}", "1a2b3c4d".repeat(8))})
}

fn pulling(image: &str, done: u64) -> Value {
    json!({"image": normal(image), "state": "Pulling",
        "pull": {"startTime": "2026-01-01T00:00:00Z", "doneBytes": done, "totalBytes": 1_000_000_000}})
}

fn failed(image: &str) -> Value {
    json!({"image": normal(image), "state": "Failed", "failure": {"reason": "NotFound", "message": "no", "attempts": 2}})
}

fn waiting(image: &str) -> Value {
    json!({"image": normal(image), "state": "Waiting"})
}

fn two_by_three() -> Matrix {
    matrix(
        &["nginx:1.29", MODEL, "redis:8"],
        &[
            (
                "node-1".into(),
                vec![present("nginx:1.29"), pulling(MODEL, 450_000_000), failed("redis:8")],
            ),
            ("node-2".into(), vec![present("nginx:1.29"), waiting(MODEL)]),
        ],
    )
}

fn rendered(matrix: &Matrix, width: Option<usize>, wide: bool) -> String {
    let table = table(matrix, Wanted { width, wide });
    if let Some(width) = width {
        assert!(table.width() <= width, "{} columns do not fit {width}", table.width());
    }
    table.render(true, false)
}

#[test]
fn few_images_are_columns() {
    insta::assert_snapshot!(rendered(&two_by_three(), Some(80), false), @r"
    NODE     nginx:1.29   ghcr.io/acme/model:v7   redis:8
    node-1   present      pulling 45% 45.0 MB/s   failed NotFound
    node-2   present      waiting                 -
    ");
}

#[test]
fn a_narrower_terminal_costs_the_rate_and_the_registry_first() {
    insta::assert_snapshot!(rendered(&two_by_three(), Some(60), false), @r"
    NODE     nginx:1.29   acme/model:v7   redis:8
    node-1   present      pulling 45%     failed NotFound
    node-2   present      waiting         -
    ");
    insta::assert_snapshot!(rendered(&two_by_three(), Some(54), false), @r"
    NODE     nginx:1.29   acme/model:v7   redis:8
    node-1   present      pulling 45%     failed NotFound
    node-2   present      waiting         -
    ");
}

#[test]
fn a_narrow_terminal_has_images_as_rows() {
    insta::assert_snapshot!(rendered(&two_by_three(), Some(46), false), @r"
    IMAGE           node-1            node-2
    nginx:1.29      present           present
    acme/model:v7   pulling 45%       waiting
    redis:8         failed NotFound   -
    ");
}

#[test]
fn a_very_narrow_terminal_has_counts() {
    let matrix = two_by_three();
    let table = table(
        &matrix,
        Wanted {
            width: Some(20),
            wide: false,
        },
    );
    insta::assert_snapshot!(table.render(true, false), @r"
    IMAGE        NODES   PRESENT   PULLING   FAILED   SIZE
    nginx:1.29   2       2         0         0        67.4 MB
    model:v7     2       0         1         0        -
    redis:8      1       0         0         1        -
    ");
}

#[test]
fn wide_has_runtimes_sizes_and_digests() {
    insta::assert_snapshot!(rendered(&two_by_three(), Some(200), true), @r"
    NODE     RUNTIME            FREE      nginx:1.29                     ghcr.io/acme/model:v7   redis:8
    node-1   containerd 2.1.4   12.3 GB   present 67.4 MB 1a2b3c4d1a2b   pulling 45% 45.0 MB/s   failed NotFound
    node-2   containerd 2.1.4   12.3 GB   present 67.4 MB 1a2b3c4d1a2b   waiting                 -
    ");
}

#[test]
fn many_images_on_few_nodes_are_rows() {
    let images: Vec<String> = (0..20)
        .map(|index| format!("registry.example.com/team/app-{index}:v1"))
        .collect();
    let names: Vec<&str> = images.iter().map(String::as_str).collect();
    let statuses: Vec<Value> = names.iter().map(|image| present(image)).collect();
    let matrix = matrix(
        &names,
        &[("node-1".into(), statuses.clone()), ("node-2".into(), statuses)],
    );
    for width in [Some(80), None] {
        let text = rendered(&matrix, width, false);
        assert!(text.starts_with("IMAGE"), "{text}");
        assert_eq!(text.lines().count(), 21);
    }
}

#[test]
fn thousands_of_equal_nodes_are_one_row_on_a_terminal() {
    let mut nodes: Vec<(String, Vec<Value>)> = (0..4_998)
        .map(|index| (format!("node-{index:04}"), vec![present("nginx:1.29"), present(MODEL)]))
        .collect();
    nodes.push(("node-4998".into(), vec![present("nginx:1.29"), failed(MODEL)]));
    nodes.push(("node-4999".into(), vec![present("nginx:1.29"), pulling(MODEL, 5)]));
    let matrix = matrix(&["nginx:1.29", MODEL], &nodes);
    insta::assert_snapshot!(rendered(&matrix, Some(80), false), @r"
    NODE                         nginx:1.29   ghcr.io/acme/model:v7
    node-4998                    present      failed NotFound
    node-4999                    present      pulling
    node-0000 (+4,997 like it)   present      present
    ");
    assert_eq!(
        rendered(&matrix, None, false).lines().count(),
        5_001,
        "a pipe gets every node"
    );
}

#[test]
fn many_unequal_nodes_are_limited_and_counted() {
    let images: Vec<String> = (0..8).map(|index| format!("a{index}")).collect();
    let names: Vec<&str> = images.iter().map(String::as_str).collect();
    let nodes: Vec<(String, Vec<Value>)> = (0..200_u32)
        .map(|node| {
            let state = |image: usize| {
                if node >> image & 1 == 0 {
                    present(&images[image])
                } else {
                    failed(&images[image])
                }
            };
            (format!("node-{node:03}"), (0..8).map(state).collect())
        })
        .collect();
    let text = rendered(&matrix(&names, &nodes), Some(200), false);
    assert_eq!(text.lines().count(), 1 + MOST_ROWS + 1);
    assert!(text.ends_with("(160 nodes not shown)"), "{text}");
}

#[test]
fn names_that_would_become_the_same_are_not_shortened() {
    let images = ["one.example.com/app:v1", "two.example.com/app:v1"];
    let statuses: Vec<Value> = images.iter().map(|image| present(image)).collect();
    let matrix = matrix(&images, &[("node-1".into(), statuses)]);
    let text = rendered(&matrix, Some(40), false);
    insta::assert_snapshot!(text, @r"
    IMAGE                    node-1
    one.example.com/app:v1   present
    two.example.com/app:v1   present
    ");
}

#[test]
fn hosts_lose_the_domain_that_they_share_before_images_lose_their_nodes() {
    let host = |index| format!("ip-10-0-0-{index}.eu-central-1.compute.internal");
    let statuses = vec![present("nginx:1.29"), waiting(MODEL)];
    let matrix = matrix(
        &["nginx:1.29", MODEL],
        &[(host(1), statuses.clone()), (host(2), statuses)],
    );
    insta::assert_snapshot!(rendered(&matrix, Some(60), false), @r"
    IMAGE                   ip-10-0-0-1   ip-10-0-0-2
    nginx:1.29              present       present
    ghcr.io/acme/model:v7   waiting       waiting
    ");
}

#[test]
fn digests_are_short() {
    let image = format!("ghcr.io/acme/model:v7@sha256:{}", "ab".repeat(32));
    let matrix = matrix(&[&image], &[("node-1".into(), vec![waiting(&image)])]);
    insta::assert_snapshot!(rendered(&matrix, Some(80), false), @r"
    NODE     ghcr.io/acme/model@abababababab
    node-1   waiting
    ");
}

#[test]
fn a_refresh_that_failed_is_told_and_the_image_counts_as_there() {
    let mut old = present("nginx:1.29");
    old["failure"] = json!({"reason": "NotFound", "message": "no such tag", "attempts": 2});
    let nodes = [
        ("node-1".into(), vec![old]),
        ("node-2".into(), vec![present("nginx:1.29")]),
    ];
    let matrix = matrix(&["nginx:1.29"], &nodes);
    insta::assert_snapshot!(rendered(&matrix, Some(80), false), @r"
    NODE     nginx:1.29
    node-1   present (refresh: NotFound)
    node-2   present
    ");
}
