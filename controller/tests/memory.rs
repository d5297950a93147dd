//! What a cluster of 5,000 nodes takes in memory.
//!
//! The API server is a function that answers with objects as a large cluster has them: a kubelet's whole Node, managed fields and image
//! list included, and NodeImages of 20 images. The controller is the real one, so what is measured is what a pod needs. The test is a
//! process of its own, for its memory is what it looks at.

#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

use std::{
    fs,
    sync::LazyLock,
    time::{Duration, Instant},
};

use coral_controller::{Controller, LeaseOptions, Options};
use http::{Method, Request, Response};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tower::service_fn;

const NODES: usize = 5_000;
const IMAGES: usize = 20;
const PREFETCHES: usize = 10;
/// Most that the caches of such a cluster may take, in bytes.
const BOUND: u64 = 150 << 20;
/// What the Deployment allows a controller, in bytes.
const LIMIT: u64 = 256 << 20;

/// A line of this process's status, in bytes.
fn status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let kibibytes: u64 = line.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
    kibibytes << 10
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn image(number: usize) -> String {
    format!(
        "registry.example/platform/team-{}/service-{number}:v1.{number}.0",
        number % 5
    )
}

fn digest(number: usize) -> String {
    format!("sha256:{number:064x}")
}

fn managed_fields() -> Value {
    let labels: serde_json::Map<String, Value> = (0..40)
        .map(|n| (format!("f:example.com/label-{n}"), json!({})))
        .collect();
    let fields = json!({"f:metadata": {"f:labels": labels}, "f:status": {"f:conditions": {}, "f:images": {}}});
    json!([{"manager": "kubelet", "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields}])
}

/// A Node as a cloud's kubelet keeps it.
fn node(number: &str) -> Value {
    let time = "2026-01-01T00:00:00Z";
    let condition = |kind: &str, status: &str| {
        json!({"type": kind, "status": status, "reason": format!("Kubelet{kind}"), "message": "kubelet says how it is, in a sentence",
               "lastHeartbeatTime": time, "lastTransitionTime": time})
    };
    let mut labels: serde_json::Map<String, Value> = (0..15)
        .map(|n| {
            (
                format!("example.com/label-{n}"),
                json!(format!("value-{n}-of-node-{number}")),
            )
        })
        .collect();
    labels.insert("kubernetes.io/os".into(), json!("linux"));
    labels.insert("kubernetes.io/hostname".into(), json!(format!("node-{number}")));
    for n in 0..IMAGES {
        let label = image(n).parse::<coral_api::ImageReference>().unwrap().label_key();
        labels.insert(label, json!("available"));
    }
    let annotations: serde_json::Map<String, Value> = (0..10)
        .map(|n| (format!("example.com/annotation-{n}"), json!("a".repeat(100))))
        .collect();
    let images: Vec<Value> = (0..50)
        .map(|n| json!({"names": [format!("registry.example/a/b@{}", digest(n)), image(n)], "sizeBytes": 100_000_000 + n}))
        .collect();
    json!({
        "metadata": {
            "name": format!("node-{number}"), "uid": format!("00000000-0000-4000-8000-0000000{number}"), "resourceVersion": "1000",
            "creationTimestamp": time, "labels": labels, "annotations": annotations, "managedFields": managed_fields(),
        },
        "spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"], "providerID": format!("cloud:///zone-a/i-000000000000{number}")},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "10.1.2.3"}, {"type": "Hostname", "address": format!("node-{number}")}],
            "allocatable": {"cpu": "7910m", "memory": "30Gi", "pods": "110"},
            "capacity": {"cpu": "8", "memory": "32Gi", "pods": "110"},
            "conditions": [condition("MemoryPressure", "False"), condition("DiskPressure", "False"), condition("PIDPressure", "False"),
                           condition("Ready", "True")],
            "images": images,
            "nodeInfo": {"architecture": "amd64", "bootID": "b", "containerRuntimeVersion": "containerd://2.4.2", "kernelVersion": "6.18",
                         "kubeProxyVersion": "", "kubeletVersion": "v1.36.3", "machineID": "m", "operatingSystem": "linux",
                         "osImage": "Linux", "systemUUID": "s"},
        },
    })
}

/// A `NodeImages` object whose agent has pulled everything.
fn node_images(number: &str) -> Value {
    let time = "2026-01-01T00:00:00Z";
    let desired: Vec<Value> = (0..IMAGES)
        .map(|n| {
            json!({"image": image(n), "requestedBy": [format!("team-{}/prefetch-{}", n % 5, n % PREFETCHES)],
                   "pullSecrets": [{"namespace": format!("team-{}", n % 5), "name": "registry-credentials"}], "state": "Present"})
        })
        .collect();
    let held: Vec<Value> = (0..IMAGES)
        .map(|n| {
            json!({"image": image(n), "state": "Present", "digest": digest(n), "sizeBytes": 100_000_000, "pinned": false,
                   "pull": {"startTime": time, "seconds": 12}, "lastPullTime": time})
        })
        .collect();
    let condition = |kind: &str| {
        json!({"type": kind, "status": "True", "reason": "AsItShouldBe", "message": "the container runtime answers",
               "observedGeneration": 3, "lastTransitionTime": time})
    };
    json!({
        "metadata": {
            "name": format!("node-{number}"), "uid": format!("10000000-0000-4000-8000-0000000{number}"), "resourceVersion": "1000",
            "generation": 3, "creationTimestamp": time, "managedFields": managed_fields(),
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": format!("node-{number}"),
                                 "uid": format!("00000000-0000-4000-8000-0000000{number}")}],
        },
        "spec": {"images": desired},
        "status": {
            "observedGeneration": 3, "runtime": {"name": "containerd", "version": "v2.4.2"},
            "imageFilesystem": {"usedBytes": 50_000_000_000_u64, "freeBytes": 50_000_000_000_u64, "capacityBytes": 100_000_000_000_u64},
            "conditions": [condition("Ready"), condition("Accepting")],
            "images": held,
        },
    })
}

fn prefetch(number: usize) -> Value {
    let images: Vec<String> = (0..IMAGES).filter(|n| n % PREFETCHES == number).map(image).collect();
    json!({
        "metadata": {
            "name": format!("prefetch-{number}"), "namespace": format!("team-{}", number % 5), "uid": format!("2-{number}"),
            "resourceVersion": "1000", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": managed_fields(),
        },
        "spec": {"images": images, "imagePullSecrets": [{"name": "registry-credentials"}]},
    })
}

/// Stands for the number of an object in the text of one.
const NUMBER: &str = "@@@@@";

/// The objects of one kind, as text: made of values, they would leave more traces in the memory of this process than what is measured.
struct Kind {
    header: &'static str,
    object: String,
    total: usize,
}

static NODE: LazyLock<Kind> = LazyLock::new(|| Kind {
    header: r#""apiVersion":"v1","kind":"NodeList""#,
    object: node(NUMBER).to_string(),
    total: NODES,
});
static NODE_IMAGES: LazyLock<Kind> = LazyLock::new(|| Kind {
    header: r#""apiVersion":"image.stvz.io/v1alpha1","kind":"NodeImagesList""#,
    object: node_images(NUMBER).to_string(),
    total: NODES,
});

impl Kind {
    /// One page of a list, as `limit` and `continue` ask for it.
    fn page(&self, query: &str) -> String {
        let parameter = |name: &str| {
            let value = query
                .split('&')
                .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            value.and_then(|value| value.parse::<usize>().ok())
        };
        let start = parameter("continue").unwrap_or(0);
        let end = self.total.min(start + parameter("limit").unwrap_or(self.total));
        let token = if end < self.total {
            end.to_string()
        } else {
            String::new()
        };
        let mut page = format!(
            r#"{{{},"metadata":{{"resourceVersion":"1000","continue":"{token}"}},"items":["#,
            self.header
        );
        for number in start..end {
            if number > start {
                page.push(',');
            }
            page.push_str(&self.object.replace(NUMBER, &format!("{number:05}")));
        }
        page.push_str("]}");
        page
    }
}

async fn answer(request: Request<Body>) -> Result<Response<Body>, std::convert::Infallible> {
    let query = request.uri().query().unwrap_or_default();
    // Nothing happens in this cluster, and no write is answered.
    if query.contains("watch=true") || request.method() != Method::GET {
        return std::future::pending().await;
    }
    let body = match request.uri().path() {
        "/api/v1/nodes" => NODE.page(query),
        "/apis/image.stvz.io/v1alpha1/nodeimages" => NODE_IMAGES.page(query),
        "/apis/image.stvz.io/v1alpha1/mirroredimages" => json!({
            "apiVersion": "image.stvz.io/v1alpha1", "kind": "MirroredImageList", "metadata": {"resourceVersion": "1"}, "items": [],
        })
        .to_string(),
        "/apis/image.stvz.io/v1alpha1/prefetches" => {
            let items: Vec<Value> = (0..PREFETCHES).map(prefetch).collect();
            json!({"apiVersion": "image.stvz.io/v1alpha1", "kind": "PrefetchList", "metadata": {"resourceVersion": "1000"}, "items": items}).to_string()
        }
        "/apis/coordination.k8s.io/v1/namespaces/coral-system/leases/coral-controller" => json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "coral-controller", "resourceVersion": "1"},
            "spec": {"holderIdentity": "another", "leaseDurationSeconds": 3600},
        })
        .to_string(),
        path => panic!("nobody answers {path}"),
    };
    let response = Response::builder().header("Content-Type", "application/json");
    Ok(response.body(Body::from(body.into_bytes())).unwrap())
}

/// Runs a controller until it knows the cluster and, where it leads, has planned.
async fn run(options: Options) -> tokio::task::JoinHandle<()> {
    let leads = options.lease.is_none();
    let controller = Controller::new(Client::new(service_fn(answer), "default"), options);
    let metrics = controller.metrics();
    let task = tokio::spawn(controller.run(std::future::pending()));
    let has_planned = || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &metrics.registry()).unwrap();
        !text.contains("plan_duration_seconds_count 0")
    };
    let began = Instant::now();
    while !(metrics.is_ready() && (!leads || has_planned())) {
        assert!(began.elapsed() < Duration::from_mins(3), "the lists take too long");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    task
}

#[tokio::test]
async fn five_thousand_nodes_fit_in_the_memory_of_the_pod() {
    let (node_bytes, node_images_bytes) = (NODE.object.len(), NODE_IMAGES.object.len());
    let before = status("VmRSS:");
    let stand_by = Options {
        lease: Some(LeaseOptions::new("coral-system", "coral-controller")),
        ..Options::default()
    };
    let task = run(stand_by).await;
    let (knows, peak) = (status("VmRSS:") - before, status("VmHWM:"));
    println!("{NODES} Nodes of {node_bytes} B and NodeImages of {node_images_bytes} B ({IMAGES} images) as JSON:");
    println!(
        "a stand-by's caches take {:.0} MiB; the process has taken {:.0} MiB at most",
        mebibytes(knows),
        mebibytes(peak)
    );
    task.abort();
    let _ = task.await;
    assert!(knows <= BOUND, "the caches take {:.0} MiB", mebibytes(knows));

    // What the first has left is used again.
    let task = run(Options::default()).await;
    let (leads, peak) = (status("VmRSS:") - before, status("VmHWM:"));
    println!(
        "a leader with {PREFETCHES} Prefetches takes {:.0} MiB; the process has taken {:.0} MiB at most",
        mebibytes(leads),
        mebibytes(peak)
    );
    task.abort();
    let _ = task.await;
    assert!(peak <= LIMIT, "the process takes {:.0} MiB", mebibytes(peak));
}
