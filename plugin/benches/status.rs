//! What `kubectl coral status` does once it has read the nodes: who is where, and how that fits a terminal.
//!
//! ```sh
//! cargo bench -p kubectl-coral --features bench
//! ```

use std::hint::black_box;

use coral_api::{NodeImages, Prefetch};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use kubectl_coral::bench::status;
use serde_json::json;

const IMAGES: usize = 20;
/// Columns of a wide terminal.
const TERMINAL: usize = 200;

fn images() -> Vec<String> {
    (0..IMAGES)
        .map(|number| format!("registry.example.com/team/service-{number}:v1.{number}"))
        .collect()
}

fn prefetch() -> Prefetch {
    let prefetch = json!({
        "apiVersion": "image.stvz.io/v1alpha1",
        "kind": "Prefetch",
        "metadata": {"name": "services", "namespace": "shop"},
        "spec": {"images": images()},
    });
    serde_json::from_value(prefetch).expect("a Prefetch")
}

/// A node in the middle of a rollout: of every seventh one an image failed, and of every third one some are still to come.
fn node(number: usize) -> NodeImages {
    let (asked, reported): (Vec<_>, Vec<_>) = images()
        .iter()
        .enumerate()
        .map(|(image, name)| {
            let asked = json!({"image": name, "requestedBy": ["shop/services"], "state": "Present"});
            let reported = match (number % 7, number % 3, image) {
                (0, _, 0) => json!({
                    "image": name,
                    "state": "Failed",
                    "failure": {"reason": "NotFound", "message": "no such tag", "attempts": 6},
                }),
                (_, 0, 10..) => json!({"image": name, "state": "Waiting"}),
                _ => json!({
                    "image": name,
                    "state": "Present",
                    "digest": format!("sha256:{image:064}"),
                    "sizeBytes": 1 << 28,
                }),
            };
            (asked, reported)
        })
        .unzip();
    let node = json!({
        "apiVersion": "image.stvz.io/v1alpha1",
        "kind": "NodeImages",
        "metadata": {"name": format!("node-{number:05}")},
        "spec": {"images": asked},
        "status": {"images": reported},
    });
    serde_json::from_value(node).expect("a NodeImages object")
}

fn tables(criterion: &mut Criterion) {
    let prefetches = [prefetch()];
    let mut group = criterion.benchmark_group("status");
    group.sample_size(10);
    for (place, width) in [("terminal", Some(TERMINAL)), ("file", None)] {
        for count in [100, 5_000] {
            let nodes: Vec<NodeImages> = (0..count).map(node).collect();
            group.bench_with_input(BenchmarkId::new(place, count), &nodes, |bencher, nodes| {
                bencher.iter(|| status(black_box(&prefetches), black_box(nodes), width, Timestamp::UNIX_EPOCH));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, tables);
criterion_main!(benches);
