//! The cluster without nodes on which the cases run, with the kinds and the rights that Coral needs.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use coral_api::{NodeImages, Prefetch};
use coral_tests::{
    Cluster, ClusterOptions,
    wait::{Look, eventually},
};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Config,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::GroupVersionKind,
    discovery::ApiResource,
};
use tokio::{runtime::Runtime, sync::OnceCell};

/// How long the API server may take to serve a new kind of object.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where the Lease is, as in a cluster that people install Coral in.
pub(crate) const NAMESPACE: &str = coral_api::keys::SYSTEM_NAMESPACE;

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
            set.site.clear().await.unwrap();
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
        let lock = File::create(folder.join("e2e-lease.lock")).context("make a lock")?;
        let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??;
        // Always the same directory, so that a run cleans up behind one that was killed.
        let options = ClusterOptions {
            dir: folder.join("e2e-lease"),
            nodes: 0,
            ..ClusterOptions::default()
        };
        let cluster = Cluster::start(options).await?;
        let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config.clone())?;
        let site = Site {
            client,
            config: Arc::new(config),
        };
        site.install().await?;
        Ok(Self {
            cluster: Mutex::new(Some(cluster)),
            site,
            _lock: lock,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Cluster>> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Site {
    /// Installs Coral's kinds and the controller's rights as people install them.
    async fn install(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let namespace = serde_json::from_value(serde_json::json!({"metadata": {"name": NAMESPACE}}))?;
        namespaces.create(&PostParams::default(), &namespace).await?;
        let deploy = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy"));
        for file in [
            "crds/prefetches.image.stvz.io.yaml",
            "crds/nodeimages.image.stvz.io.yaml",
            "base/controller-rbac.yaml",
        ] {
            self.apply(&deploy.join(file)).await?;
        }
        eventually("the API server to serve Coral's kinds", PATIENCE, async || {
            let parameters = ListParams::default();
            Api::<NodeImages>::all(self.client.clone()).list(&parameters).await?;
            Api::<Prefetch>::all(self.client.clone()).list(&parameters).await?;
            Ok(Look::<(), ()>::Done(()))
        })
        .await
    }

    /// Applies every object of a file.
    async fn apply(&self, path: &Path) -> Result<()> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        for document in text.split("\n---\n") {
            let object: DynamicObject =
                serde_saphyr::from_str(document).with_context(|| format!("understand {}", path.display()))?;
            let types = object.types.clone().context("an object without a kind")?;
            let kind = GroupVersionKind::try_from(&types)?;
            let resource = ApiResource::from_gvk(&kind);
            let is_namespaced = matches!(kind.kind.as_str(), "Role" | "RoleBinding" | "ServiceAccount");
            let api: Api<DynamicObject> = if is_namespaced {
                // The kustomization sets the namespace where the file has none.
                let namespace = object.metadata.namespace.as_deref().unwrap_or(NAMESPACE);
                Api::namespaced_with(self.client.clone(), namespace, &resource)
            } else {
                Api::all_with(self.client.clone(), &resource)
            };
            let name = object.metadata.name.clone().context("an object without a name")?;
            let parameters = PatchParams::apply("coral-tests").force();
            api.patch(&name, &parameters, &Patch::Apply(&object)).await?;
        }
        Ok(())
    }

    /// Removes what an earlier case has left.
    async fn clear(&self) -> Result<()> {
        let (delete, list) = (DeleteParams::default().grace_period(0), ListParams::default());
        let prefetches: Api<Prefetch> = Api::default_namespaced(self.client.clone());
        let leases: Api<k8s_openapi::api::coordination::v1::Lease> = Api::namespaced(self.client.clone(), NAMESPACE);
        let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(self.client.clone());
        let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::default_namespaced(self.client.clone());
        let node_images: Api<NodeImages> = Api::all(self.client.clone());
        eventually("what an earlier case has left to go", PATIENCE, async || {
            prefetches.delete_collection(&delete, &list).await?;
            leases.delete_collection(&delete, &list).await?;
            pods.delete_collection(&delete, &list).await?;
            nodes.delete_collection(&delete, &list).await?;
            node_images.delete_collection(&delete, &list).await?;
            let left = prefetches.list(&list).await?.items.len()
                + leases.list(&list).await?.items.len()
                + pods.list(&list).await?.items.len()
                + nodes.list(&list).await?.items.len()
                + node_images.list(&list).await?.items.len();
            Ok(if left == 0 { Look::Done(()) } else { Look::NotYet(left) })
        })
        .await
    }
}
