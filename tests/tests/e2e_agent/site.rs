//! The cluster without nodes on which the cases run.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use coral_api::NodeImages;
use coral_tests::{
    Cluster, ClusterOptions,
    wait::{Look, eventually},
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{runtime::Runtime, sync::OnceCell};

/// How long the API server may take to serve a new kind of object.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where all cases run. The cluster starts with the first of them.
pub(crate) struct Stage {
    runtime: Runtime,
    set: OnceCell<Result<Set>>,
}

/// The cluster that runs.
struct Set {
    cluster: Mutex<Option<Cluster>>,
    site: Site,
    /// Keeps a second run in the same checkout waiting until this one has cleaned up.
    _lock: File,
}

/// What a case needs to know of the cluster.
#[derive(Clone)]
pub(crate) struct Site {
    /// A client with an administrator's rights.
    pub(crate) client: Client,
    /// What further clients are made from.
    pub(crate) config: Arc<Config>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        Self {
            runtime: runtime.unwrap(),
            set: OnceCell::new(),
        }
    }

    /// Runs one case to its end.
    pub(crate) fn run<F: Future<Output = ()>>(&self, longest: Duration, case: impl FnOnce(Site) -> F) {
        self.runtime.block_on(async {
            let set = self.set.get_or_init(Set::build).await.as_ref().unwrap();
            let in_time = tokio::time::timeout(longest, case(set.site.clone())).await;
            assert!(in_time.is_ok(), "the case did not end in {longest:?}");
        });
    }

    /// Takes the cluster down, if one was started.
    pub(crate) fn clear(&self) -> Result<()> {
        let cluster = match self.set.get() {
            Some(Ok(set)) => set.lock().take(),
            _ => None,
        };
        cluster.map_or(Ok(()), |cluster| self.runtime.block_on(cluster.down()))
    }
}

impl Set {
    async fn build() -> Result<Self> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let lock = File::create(folder.join("e2e-agent.lock")).context("make a lock")?;
        let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??;
        // Always the same directory, so that a run cleans up behind one that was killed.
        let options = ClusterOptions {
            dir: folder.join("e2e-agent"),
            nodes: 0,
            ..ClusterOptions::default()
        };
        let cluster = Cluster::start(options).await?;
        let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config.clone())?;
        install_crds(&client).await?;
        Ok(Self {
            cluster: Mutex::new(Some(cluster)),
            site: Site {
                client,
                config: Arc::new(config),
            },
            _lock: lock,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Cluster>> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Installs Coral's kinds as people install them, and removes what an earlier run has left of them.
async fn install_crds(client: &Client) -> Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/crds"));
    for entry in fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.ends_with("kustomization.yaml") {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let crd: serde_json::Value =
            serde_saphyr::from_str(&text).with_context(|| format!("understand {}", path.display()))?;
        let Some(name) = crd["metadata"]["name"].as_str() else {
            bail!("{} has no name", path.display());
        };
        let parameters = PatchParams::apply("coral-tests").force();
        crds.patch(name, &parameters, &Patch::Apply(&crd)).await?;
    }
    let objects: Api<NodeImages> = Api::all(client.clone());
    eventually("the API server to serve NodeImages", PATIENCE, async || {
        let (delete, list) = (DeleteParams::default(), ListParams::default());
        objects.delete_collection(&delete, &list).await?;
        let left = objects.list(&list).await?.items.len();
        Ok(if left == 0 { Look::Done(()) } else { Look::NotYet(left) })
    })
    .await
}
