//! What a cluster of 5,000 nodes takes in memory.
//!
//! The API server is a function that answers with objects as a large cluster has them: a kubelet's whole Node, managed fields and image
//! list included, and NodeImages of 20 images. The controller is the real one, so what is measured is what a pod needs. The test is a
//! process of its own, for its memory is what it looks at.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use coral_controller::{Controller, LeaseOptions, Options, metrics::Metrics};
use http::{Method, Request, Response, StatusCode};
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
fn node(number: usize) -> Value {
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
            "name": format!("node-{number}"), "uid": format!("00000000-0000-4000-8000-{number:012}"), "resourceVersion": "1000",
            "creationTimestamp": time, "labels": labels, "annotations": annotations, "managedFields": managed_fields(),
        },
        "spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"], "providerID": format!("cloud:///zone-a/i-{number:017}")},
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
fn node_images(number: usize) -> Value {
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
            "name": format!("node-{number}"), "uid": format!("10000000-0000-4000-8000-{number:012}"), "resourceVersion": "1000",
            "generation": 3, "creationTimestamp": time, "managedFields": managed_fields(),
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": format!("node-{number}"),
                                 "uid": format!("00000000-0000-4000-8000-{number:012}")}],
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

/// One page of a list, as `limit` and `continue` ask for it.
fn page(query: &str, kind: &str, version: &str, total: usize, object: fn(usize) -> Value) -> Value {
    let parameter = |name: &str| {
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
            .and_then(|value| value.parse::<usize>().ok())
    };
    let start = parameter("continue").unwrap_or(0);
    let end = total.min(start + parameter("limit").unwrap_or(total));
    let items: Vec<Value> = (start..end).map(object).collect();
    let mut metadata = json!({"resourceVersion": "1000"});
    if end < total {
        metadata["continue"] = json!(end.to_string());
    }
    json!({"apiVersion": version, "kind": format!("{kind}List"), "metadata": metadata, "items": items})
}

async fn answer(request: Request<Body>) -> Result<Response<Body>, std::convert::Infallible> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    // Nothing happens in this cluster, and no write is answered.
    if query.contains("watch=true") || request.method() != Method::GET {
        return std::future::pending().await;
    }
    let coral = "image.stvz.io/v1alpha1";
    let body = match request.uri().path() {
        "/api/v1/nodes" => page(&query, "Node", "v1", NODES, node),
        "/apis/image.stvz.io/v1alpha1/nodeimages" => page(&query, "NodeImages", coral, NODES, node_images),
        "/apis/image.stvz.io/v1alpha1/prefetches" => page(&query, "Prefetch", coral, PREFETCHES, prefetch),
        "/apis/coordination.k8s.io/v1/namespaces/coral-system/leases/coral-controller" => json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "coral-controller", "resourceVersion": "1"},
            "spec": {"holderIdentity": "another", "leaseDurationSeconds": 3600},
        }),
        path => panic!("nobody answers {path}"),
    };
    Ok(Response::builder()
        .status(StatusCode::OK)
        .header("Content-Type", "application/json")
        .body(Body::from(serde_json::to_vec(&body).unwrap()))
        .unwrap())
}

/// Runs a controller until it knows the cluster and, where it leads, has planned.
async fn run(options: Options) -> tokio::task::JoinHandle<()> {
    let leads = options.lease.is_none();
    let controller = Controller::new(Client::new(service_fn(answer), "default"), options);
    let metrics: Arc<Metrics> = Arc::new(controller.metrics());
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
    let node_bytes = serde_json::to_vec(&node(1)).unwrap().len();
    let node_images_bytes = serde_json::to_vec(&node_images(1)).unwrap().len();
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
