//! A cluster that belongs to one case: Coral's kinds, the agent as a process with just the rights that it has in a cluster, and the
//! controller in this process.

#![allow(dead_code, reason = "each test target uses a part of it")]

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use coral_api::{
    NodeImages, NodeImagesStatus, Prefetch,
    node_images::{ImageState, ImageStatus},
};
use coral_controller::{Controller, Options};
use coral_tests::{
    Cluster, ClusterOptions,
    cluster::{AgentOptions, DiagnoseOnPanic, process},
    wait::{Look, eventually},
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, CustomResourceExt as _, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// The folder that holds the clusters of such tests, so that whoever kills a test can take them away.
pub(crate) const FOLDER_VARIABLE: &str = "CORAL_OWN_CLUSTERS";
/// How long anything may take that is only a matter of work, on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// A cluster of one's own.
pub(crate) struct Solo {
    /// Fields are dropped in this order: there is nothing to look at when the cluster is gone.
    _diagnose: DiagnoseOnPanic,
    pub(crate) cluster: Cluster,
    pub(crate) client: Client,
    controller: Option<JoinHandle<()>>,
    /// Keeps a second run in the same checkout waiting until this one has cleaned up.
    _lock: File,
}

impl Solo {
    /// Starts it; `options` without a directory. It ends when this is dropped.
    pub(crate) async fn start(name: &str, options: ClusterOptions) -> Self {
        let folder = env::var_os(FOLDER_VARIABLE)
            .map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).to_owned(), PathBuf::from);
        fs::create_dir_all(&folder).unwrap();
        let lock = File::create(folder.join(format!("{name}.lock"))).unwrap();
        let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock));
        let lock = lock.await.unwrap().unwrap();
        // Always the same directory, so that a run cleans up behind one that was killed.
        let options = ClusterOptions {
            dir: folder.join(name),
            ..options
        };
        let light_nodes = options.light_nodes;
        // The agents of light nodes must find what they watch.
        let cluster = Cluster::start(ClusterOptions {
            light_nodes: 0,
            ..options.clone()
        })
        .await
        .unwrap();
        let client = cluster.client();
        install(&cluster).await;
        for _ in 0..light_nodes {
            let node = coral_tests::NodeOptions {
                containerd: options.containerd,
                agent: options.agent.clone(),
                ..coral_tests::NodeOptions::default()
            };
            cluster.add_light_node(node).await.unwrap();
        }
        Self {
            _diagnose: cluster.diagnose_on_panic(),
            cluster,
            client,
            controller: None,
            _lock: lock,
        }
    }

    /// Starts the controller.
    pub(crate) fn start_controller(&mut self) {
        let controller = Controller::new(self.client.clone(), Options::default());
        self.controller = Some(tokio::spawn(controller.run(std::future::pending::<()>())));
    }

    /// Asks a node for these images as the controller would, which does not run then.
    pub(crate) async fn ask(&self, node: &str, images: &[Value]) {
        let object = json!({
            "apiVersion": "image.stvz.io/v1alpha1",
            "kind": "NodeImages",
            "metadata": {"name": node},
            "spec": {"images": images},
        });
        let parameters = PatchParams::apply("coral-controller").force();
        let patch = Patch::Apply(&object);
        self.node_images().patch(node, &parameters, &patch).await.unwrap();
    }

    pub(crate) async fn prefetch(&self, name: &str, spec: Value) {
        let object = json!({
            "apiVersion": "image.stvz.io/v1alpha1",
            "kind": "Prefetch",
            "metadata": {"name": name},
            "spec": spec,
        });
        let parameters = PatchParams::apply("coral-tests").force();
        let api: Api<Prefetch> = Api::namespaced(self.client.clone(), "default");
        api.patch(name, &parameters, &Patch::Apply(&object)).await.unwrap();
    }

    pub(crate) async fn delete_prefetch(&self, name: &str) {
        let api: Api<Prefetch> = Api::namespaced(self.client.clone(), "default");
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }

    pub(crate) fn node_images(&self) -> Api<NodeImages> {
        Api::all(self.client.clone())
    }

    /// What the agent of a node says, if it says anything.
    pub(crate) async fn status(&self, node: &str) -> anyhow::Result<Option<NodeImagesStatus>> {
        Ok(self.node_images().get_opt(node).await?.and_then(|object| object.status))
    }

    /// Waits until the agent says of an image what it should, and returns what and when.
    pub(crate) async fn says(
        &self,
        what: &str,
        (node, image): (&str, &str),
        patience: Duration,
        is_so: impl Fn(&ImageStatus) -> bool,
    ) -> (ImageStatus, Instant) {
        eventually(&format!("the agent to say of {image}: {what}"), patience, async || {
            let status = self.status(node).await?.unwrap_or_default();
            let found = status.images.into_iter().find(|status| status.image == image);
            Ok(match found {
                Some(status) if is_so(&status) => Look::Done((status, Instant::now())),
                other => Look::NotYet(other),
            })
        })
        .await
        .unwrap()
    }

    /// Waits until the agent says that an image is there.
    pub(crate) async fn present(&self, node: &str, image: &str, patience: Duration) -> ImageStatus {
        let is_present = |status: &ImageStatus| status.state == ImageState::Present;
        self.says("Present", (node, image), patience, is_present).await.0
    }

    /// Waits until the node's containerd itself holds an image, or holds it no more, and returns when.
    pub(crate) async fn held(
        &self,
        node: &str,
        image: &str,
        expected: bool,
        patience: Duration,
    ) -> anyhow::Result<Instant> {
        let node = self.cluster.node(node)?;
        let what = format!("{image} to be on {}: {expected}", node.name());
        eventually(&what, patience, async || {
            let images = node.images()?;
            Ok(if images.iter().any(|held| held == image) == expected {
                Look::Done(Instant::now())
            } else {
                Look::NotYet(images)
            })
        })
        .await
    }

    /// How often a container runtime has asked the open registry for this image (`name:tag`), by the registry's own log: once
    /// for each pull.
    pub(crate) fn pulls(&self, image: &str) -> usize {
        let (_, name) = image.split_once('/').unwrap();
        let (repository, tag) = name.rsplit_once(':').unwrap();
        let asked = format!("\"HEAD /v2/{repository}/manifests/{tag} ");
        let log = fs::read(self.cluster.logs().join("registry.log")).unwrap();
        let log = String::from_utf8_lossy(&log);
        let is_pull = |line: &&str| line.contains(&asked) && line.contains("containerd/");
        log.lines().filter(is_pull).count()
    }

    /// Ends it and removes everything but its logs.
    pub(crate) async fn down(mut self) {
        if let Some(controller) = self.controller.take() {
            assert!(!controller.is_finished(), "the controller has ended");
            controller.abort();
        }
        self.cluster.down().await.unwrap();
    }
}

/// The agent of this checkout, which `cargo xtask test e2e` builds.
pub(crate) fn agent() -> AgentOptions {
    // It lies beside the tests: target/debug/coral-agent, target/debug/deps/….
    let tests = env::current_exe().unwrap();
    let binary = tests.ancestors().nth(2).unwrap().join("coral-agent");
    assert!(
        binary.exists(),
        "build the agent first: cargo build --package coral-agent"
    );
    AgentOptions::new(binary)
}

/// How many files and sockets a process has open.
pub(crate) fn open_files(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Coral's kinds, and the rights of its agent.
async fn install(cluster: &Cluster) {
    let api: Api<CustomResourceDefinition> = Api::all(cluster.client());
    for crd in [Prefetch::crd(), NodeImages::crd()] {
        let parameters = PatchParams::apply("coral-tests").force();
        let patch = Patch::Apply(&crd);
        api.patch(&crd.name_any(), &parameters, &patch).await.unwrap();
    }
    let rights = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/base/agent-rbac.yaml");
    let mut kubectl = Command::new(cluster.tools().control_plane("kubectl"));
    kubectl.arg("--kubeconfig").arg(cluster.kubeconfig());
    process::run_command(kubectl.args(["apply", "--filename", rights])).unwrap();
    let (prefetches, node_images) = (
        Api::<Prefetch>::all(cluster.client()),
        Api::<NodeImages>::all(cluster.client()),
    );
    eventually("the API server to serve Coral's kinds", PATIENCE, async || {
        let list = ListParams::default().limit(1);
        prefetches.list(&list).await?;
        node_images.list(&list).await?;
        Ok(Look::<(), ()>::Done(()))
    })
    .await
    .unwrap();
}
