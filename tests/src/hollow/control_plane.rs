//! A cluster without nodes, with Coral's kinds in it: where hollow nodes live.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use coral_api::{Mirror, MirroredImage, NodeImages, Prefetch};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, Config, CustomResourceExt as _, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use rustix::process::Signal;

use super::leases::GRACE;
use crate::{
    Cluster, ClusterOptions,
    wait::{Look, eventually},
};

/// How long the API server may take to serve a new kind of object.
const PATIENCE: Duration = Duration::from_secs(30);
/// The part whose end is an outage for everybody.
const API_SERVER: &str = "kube-apiserver";
const CONTROLLERS: &str = "kube-controller-manager";

/// A control plane that runs: etcd, API server, controller manager and scheduler.
pub struct ControlPlane {
    cluster: Cluster,
    config: Config,
    client: Client,
    /// Keeps a second run in the same checkout waiting until this one has cleaned up.
    _lock: File,
}

impl ControlPlane {
    /// Starts it in a folder below `folder`. A second start with the same name waits until the first has ended.
    pub async fn start(folder: &Path, name: &str) -> Result<Self> {
        let lock = File::create(folder.join(format!("{name}.lock"))).context("make a lock")?;
        let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??;
        // Always the same directory, so that a run cleans up behind one that was killed.
        let cluster = Cluster::start(options(folder.join(name))).await?;
        let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config.clone())?;
        install_crds(&client).await?;
        Ok(Self {
            cluster,
            config,
            client,
            _lock: lock,
        })
    }

    /// A client with an administrator's rights.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// What further clients are made from.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The cluster without nodes.
    #[must_use]
    pub const fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Kills the API server. Nobody is told; every connection breaks.
    pub fn kill_api_server(&self) -> Result<()> {
        let state = self.cluster.state()?;
        let process = state
            .parts
            .get(API_SERVER)
            .context("no API server was started")?
            .process;
        process.signal(Signal::KILL);
        anyhow::ensure!(process.wait(PATIENCE), "the API server does not end");
        Ok(())
    }

    /// Starts again what was killed, and returns when the API server serves.
    pub async fn heal(&self) -> Result<()> {
        let keep = ClusterOptions {
            keep: true,
            ..options(self.cluster.dir().to_owned())
        };
        Cluster::start(keep).await.map(drop)
    }

    /// Ends it and removes everything but its logs.
    pub async fn down(self) -> Result<()> {
        self.cluster.down().await
    }
}

/// Hollow nodes are Ready when they come, and have no kubelet whose cache somebody would have to look after. Without what waits for the one and
/// does the other, nobody but Coral writes to them, and thousands of them are as they should be at once. They also say less often that they live.
fn options(dir: PathBuf) -> ClusterOptions {
    let grace = format!("--node-monitor-grace-period={GRACE}");
    let arguments = [
        (
            API_SERVER,
            vec!["--disable-admission-plugins=TaintNodesByCondition".to_owned()],
        ),
        (CONTROLLERS, vec!["--controllers=*,-ttl-controller".to_owned(), grace]),
    ];
    let arguments = arguments.map(|(part, arguments)| (part.to_owned(), arguments));
    ClusterOptions {
        dir,
        nodes: 0,
        arguments: BTreeMap::from(arguments),
        ..ClusterOptions::default()
    }
}

/// Installs Coral's kinds, and returns when they are served.
async fn install_crds(client: &Client) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in [Prefetch::crd(), NodeImages::crd(), Mirror::crd(), MirroredImage::crd()] {
        let parameters = PatchParams::apply("coral-tests").force();
        api.patch(&crd.name_any(), &parameters, &Patch::Apply(&crd))
            .await
            .with_context(|| format!("install {}", crd.name_any()))?;
    }
    let prefetches: Api<Prefetch> = Api::all(client.clone());
    let node_images: Api<NodeImages> = Api::all(client.clone());
    let mirrors: Api<Mirror> = Api::all(client.clone());
    let mirrored_images: Api<MirroredImage> = Api::all(client.clone());
    eventually("the API server to serve Coral's kinds", PATIENCE, async || {
        let list = ListParams::default().limit(1);
        prefetches.list(&list).await?;
        node_images.list(&list).await?;
        mirrors.list(&list).await?;
        mirrored_images.list(&list).await?;
        Ok(Look::<(), ()>::Done(()))
    })
    .await
}
