//! Clusters come up, survive the death of their parts, stand side by side, and leave nothing behind.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use coral_tests::{
    Cluster, ClusterOptions, NodeOptions,
    cluster::{self, Layout},
    images::{self, PublishedImage, Software},
    progress::Silent,
    wait::{Look, eventually},
};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api,
    api::{LogParams, PostParams},
};
use serde_json::{Value, json};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_mins(1);

/// A folder that goes with the test, but for one that failed: it holds the logs then.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::with_prefix_in("lifecycle-", env!("CARGO_TARGET_TMPDIR")).unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.0.disable_cleanup(std::thread::panicking());
    }
}

fn options(dir: &Path) -> ClusterOptions {
    ClusterOptions {
        dir: dir.to_owned(),
        nodes: 1,
        ..ClusterOptions::default()
    }
}

/// Everything that a cluster puts outside of its directory bears its id.
fn assert_nothing_is_left(layout: &Layout) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let own = |line: &&str| line.contains(&layout.id) || line.contains(layout.dir.to_str().unwrap());
    assert_eq!(mounts.lines().find(own), None, "mounts");
    assert!(!layout.runtime_dir().exists(), "{}", layout.runtime_dir().display());
    assert!(
        !Path::new("/sys/class/net").join(layout.host_interface()).exists(),
        "network link"
    );
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let cgroup = hierarchy.path().join(layout.cgroup());
        assert!(!cgroup.exists(), "{}", cgroup.display());
    }
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        // The test's own name and arguments do not have the id.
        assert!(!command.contains(&layout.id), "process: {command}");
    }
    let left: Vec<_> = fs::read_dir(&layout.dir)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left, ["logs"]);
}

async fn pod_runs(cluster: &Cluster, name: &str, image: &str) {
    let api: Api<Pod> = Api::namespaced(cluster.client(), "default");
    let pod = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "main", "image": image}]},
    }))
    .unwrap();
    api.create(&PostParams::default(), &pod).await.unwrap();
    eventually(&format!("pod {name} to run"), PATIENCE, async || {
        let status = api.get(name).await?.status.unwrap_or_default();
        Ok(if status.phase.as_deref() == Some("Running") {
            Look::Done(())
        } else {
            Look::NotYet(status)
        })
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_parts_come_back_and_down_leaves_nothing() {
    let dir = Folder::new();
    let layout = Layout::new(dir.path()).unwrap();
    let cluster = Cluster::start(options(dir.path())).await.unwrap();
    let _diagnose = cluster.diagnose_on_panic();
    pod_runs(&cluster, "before", &cluster.pause_image()).await;
    let parts: Vec<String> = cluster.state().unwrap().parts.into_keys().collect();
    let (mounts, others): (Vec<_>, Vec<_>) = parts.iter().partition(|part| part.ends_with("-mounts"));
    kill(&cluster, &others);
    heal(dir.path()).await;
    // The pod outlived its containerd and its kubelet, and what was in etcd is still there.
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "default");
    let pod = pods.get("before").await.unwrap();
    assert_eq!(pod.status.unwrap().phase.as_deref(), Some("Running"));
    pod_runs(&cluster, "after", &cluster.pause_image()).await;

    // With its mounts the whole node goes, and is switched on again.
    kill(&cluster, &mounts);
    heal(dir.path()).await;
    pod_runs(&cluster, "later", &cluster.pause_image()).await;

    cluster.down().await.unwrap();
    assert_nothing_is_left(&layout);
    cluster::down(&layout).await.unwrap();
}

fn kill(cluster: &Cluster, parts: &[&String]) {
    let state = cluster.state().unwrap();
    for part in parts {
        let process = state.parts[*part].process;
        process.signal(rustix::process::Signal::KILL);
        assert!(process.wait(Duration::from_secs(10)), "{part}");
    }
}

async fn heal(dir: &Path) {
    let keep = ClusterOptions {
        keep: true,
        ..options(dir)
    };
    let state = Cluster::start(keep).await.unwrap().state().unwrap();
    assert!(state.parts.values().all(|part| part.process.is_running()), "{state:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_stand_side_by_side() {
    let dirs = [Folder::new(), Folder::new()];
    let layouts = dirs.each_ref().map(|dir| Layout::new(dir.path()).unwrap());
    let (first, second) = tokio::join!(
        Cluster::start(options(dirs[0].path())),
        Cluster::start(options(dirs[1].path()))
    );
    let clusters = [first.unwrap(), second.unwrap()];
    let _diagnose = clusters.each_ref().map(Cluster::diagnose_on_panic);
    assert_ne!(clusters[0].address(), clusters[1].address());
    for cluster in &clusters {
        let image = images::tiny(&cluster.open_registry(), "app", "v1", 1000, &cluster.registry()).unwrap();
        pod_runs(cluster, "app", &image.reference).await;
        assert!(cluster.node("node-1").unwrap().has_image(&image.reference).unwrap());
    }
    let [first, second] = clusters;
    // A dropped cluster is gone when `drop` returns; the other one does not mind.
    drop(first);
    assert_nothing_is_left(&layouts[0]);
    pod_runs(&second, "later", &second.pause_image()).await;
    drop(second);
    assert_nothing_is_left(&layouts[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_join_and_leave() {
    let dir = Folder::new();
    let cluster = Cluster::start(options(dir.path())).await.unwrap();
    let _diagnose = cluster.diagnose_on_panic();
    let nodes: Api<Node> = Api::all(cluster.client());

    let small = cluster
        .add_node(NodeOptions {
            disk: Some("300m".to_owned()),
            ..NodeOptions::default()
        })
        .await
        .unwrap();
    assert_eq!(small.name(), "node-2");
    let capacity = nodes.get("node-2").await.unwrap().status.unwrap().capacity.unwrap();
    assert_eq!(capacity["ephemeral-storage"].0, "300Mi");
    let light = cluster.add_light_node(NodeOptions::default()).await.unwrap();
    assert_eq!(light.name(), "light-1");
    light.pull_image(&cluster.pause_image()).unwrap();
    assert!(light.has_image(&cluster.pause_image()).unwrap());
    light.remove_image(&cluster.pause_image()).unwrap();
    assert!(!light.has_image(&cluster.pause_image()).unwrap());

    for name in ["node-2", "light-1"] {
        cluster.remove_node(name).await.unwrap();
        eventually(&format!("the end of {name}"), PATIENCE, async || {
            Ok(nodes
                .get_opt(name)
                .await?
                .map_or(Look::Done(()), |_| Look::NotYet("still there")))
        })
        .await
        .unwrap();
        assert!(cluster.node(name).is_err());
    }
    let again = cluster.add_node(NodeOptions::default()).await.unwrap();
    assert_eq!(again.name(), "node-2");
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_through_a_slow_relay_take_their_time() {
    let dir = Folder::new();
    let cluster = Cluster::start(options(dir.path())).await.unwrap();
    let _diagnose = cluster.diagnose_on_panic();
    images::tiny(&cluster.open_registry(), "big", "v1", 3_000_000, "big").unwrap();
    let relay = cluster.slow_registry(1_000_000).await.unwrap();
    let image = format!("{}/big:v1", relay.host());
    let started = Instant::now();
    pod_runs(&cluster, "big", &image).await;
    assert!(
        started.elapsed() > Duration::from_millis(2800),
        "{:?}",
        started.elapsed()
    );
    assert!(relay.passed_bytes() > 3_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_that_does_not_come_up_leaves_nothing_and_names_the_log() {
    let dir = Folder::new();
    let layout = Layout::new(dir.path()).unwrap();
    // No file system has this size.
    let impossible = ClusterOptions {
        node_disk: Some("nonsense".to_owned()),
        ..options(dir.path())
    };
    let error = Cluster::start(impossible).await.err().unwrap();
    let text = format!("{error:#}");
    assert!(
        text.contains("node-1-mounts has ended") && text.contains("logs/node-1-mounts.log"),
        "{text}"
    );
    assert_nothing_is_left(&layout);
}

#[tokio::test(flavor = "multi_thread")]
async fn software_of_this_machine_becomes_images_that_run() {
    let folder = Folder::new();
    let cluster = Cluster::start(options(folder.path())).await.unwrap();
    let _diagnose = cluster.diagnose_on_panic();
    let registry = cluster.open_registry();
    let images = images::publish(&registry, &[Software::Go, Software::Python], &Silent).unwrap();
    let lowest_layer = |image: &PublishedImage| {
        let manifest: Value = serde_json::from_str(&registry.crane(["manifest", &image.reference]).unwrap()).unwrap();
        manifest["layers"][0]["digest"].clone()
    };
    assert_eq!(lowest_layer(&images[0]), lowest_layer(&images[1]));
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "default");
    for (image, says) in images.iter().zip(["go version", "Python 3"]) {
        assert!(image.unpacked_bytes > 50_000_000, "{image:?}");
        let name = says.to_lowercase().replace(' ', "-");
        pod_runs(&cluster, &name, &image.reference).await;
        eventually(&format!("the output of {name}"), PATIENCE, async || {
            let log = pods.logs(&name, &LogParams::default()).await?;
            Ok(if log.starts_with(says) {
                Look::Done(())
            } else {
                Look::NotYet(log)
            })
        })
        .await
        .unwrap();
    }
}
