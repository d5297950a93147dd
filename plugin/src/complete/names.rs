//! Names to choose from: of the cluster, and of the kubeconfig.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use coral_api::{Mirror, MirroredImage};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Secret};
use kube::{
    Resource, ResourceExt,
    api::{DynamicObject, ListParams},
    core::ApiResource,
};
use tokio::runtime;

use super::{PATIENCE, cluster, kind::Kind, question::Question};
use crate::{
    apply,
    cli::ClusterArgs,
    client::{self, Cluster, RequestError},
    mirror::overview,
    prefetches,
    workload::{self, Kind as WorkloadKind},
};

/// Objects of one request.
const PAGE: u32 = 500;
/// Names that are enough.
const ENOUGH: usize = 500;
/// Secrets that images are pulled with.
const PULL_SECRETS: &str = "type=kubernetes.io/dockerconfigjson";

/// What was found so far. Whoever waits takes what there is when the time is up.
#[derive(Clone, Default)]
struct Found {
    names: Arc<Mutex<BTreeSet<String>>>,
}

impl Found {
    fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.names.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps what begins as was typed. Whether there are enough.
    fn add(&self, names: impl IntoIterator<Item = String>, start: &str) -> bool {
        let mut all = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(names.into_iter().filter(|name| name.starts_with(start)));
        all.len() >= ENOUGH
    }
}

/// What to look for, and where.
struct Search {
    kind: Kind,
    arguments: ClusterArgs,
    all_namespaces: bool,
    /// The type in `TYPE/NAME`.
    workload: Option<&'static WorkloadKind>,
    /// What was typed of the name.
    start: String,
    found: Found,
}

/// Names of a kind that begin with `start`. `kept` is what stands before them in the same word.
pub(super) fn find(kind: Kind, question: &Question<'_>, kept: &str, start: &str) -> BTreeSet<String> {
    let search = Search {
        kind,
        arguments: cluster(question),
        all_namespaces: question.has("all_namespaces"),
        workload: kept.strip_suffix('/').and_then(WorkloadKind::named),
        start: start.to_owned(),
        found: Found::default(),
    };
    let found = search.found.clone();
    let (done_tx, done_rx) = mpsc::channel::<()>();
    // A program that gives credentials may hang, and no runtime can interrupt that. The process ends without this thread.
    thread::spawn(move || {
        search.run();
        drop(done_tx);
    });
    // The other end says nothing: it goes when the search is over.
    let _ = done_rx.recv_timeout(PATIENCE);
    found.take()
}

impl Search {
    /// Looks. What fails is not there.
    fn run(&self) {
        let in_kubeconfig = match self.kind {
            Kind::Context | Kind::Cluster | Kind::User => client::names(&self.arguments),
            _ => {
                if let Ok(runtime) = runtime::Builder::new_current_thread().enable_all().build() {
                    let _ = runtime.block_on(self.ask());
                }
                return;
            }
        };
        let Ok(names) = in_kubeconfig else { return };
        let names = match self.kind {
            Kind::Context => names.contexts,
            Kind::Cluster => names.clusters,
            _ => names.users,
        };
        self.found.add(names, &self.start);
    }

    async fn ask(&self) -> Result<(), RequestError> {
        let Ok(cluster) = Cluster::connect(&self.arguments).await else {
            return Ok(());
        };
        let namespace = (!self.all_namespaces).then(|| cluster.namespace());
        match self.kind {
            Kind::Prefetch => self.names(&cluster, &prefetches::resource(), namespace, None).await,
            Kind::Node => self.names(&cluster, &resource::<Node>(), None, None).await,
            Kind::Namespace => self.names(&cluster, &resource::<Namespace>(), None, None).await,
            Kind::Pod => self.names(&cluster, &resource::<Pod>(), namespace, None).await,
            Kind::PullSecret => {
                self.names(&cluster, &resource::<Secret>(), namespace, Some(PULL_SECRETS))
                    .await
            }
            Kind::Workload => match self.workload {
                Some(kind) => self.names(&cluster, &kind.resource(), namespace, None).await,
                None => Ok(()),
            },
            Kind::PrefetchedImage => self.prefetched_images(&cluster, namespace).await,
            Kind::Mirror => self.names(&cluster, &resource::<Mirror>(), None, None).await,
            Kind::MirroredImage => {
                self.images(&cluster, &resource::<MirroredImage>(), None, |mirrored| {
                    let image = mirrored.data["spec"]["image"].as_str();
                    image.map(overview::familiar).into_iter().collect()
                })
                .await
            }
            Kind::Image => {
                self.prefetched_images(&cluster, namespace).await?;
                self.images(&cluster, &resource::<Pod>(), namespace, |pod| {
                    workload::images_of_pod(&pod.data["spec"])
                })
                .await
            }
            Kind::Context | Kind::Cluster | Kind::User | Kind::Component | Kind::File => Ok(()),
        }
    }

    /// Names of objects, without the objects.
    async fn names(
        &self,
        cluster: &Cluster,
        resource: &ApiResource,
        namespace: Option<&str>,
        fields: Option<&str>,
    ) -> Result<(), RequestError> {
        let mut parameters = ListParams::default().limit(PAGE);
        parameters.field_selector = fields.map(str::to_owned);
        loop {
            let page = cluster
                .request(async |client| apply::api(client, resource, namespace).list_metadata(&parameters).await)
                .await?;
            let names = page.items.iter().map(ResourceExt::name_any);
            let is_enough = self.found.add(names, &self.start);
            parameters.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if is_enough || parameters.continue_token.is_none() {
                return Ok(());
            }
        }
    }

    async fn prefetched_images(&self, cluster: &Cluster, namespace: Option<&str>) -> Result<(), RequestError> {
        self.images(cluster, &prefetches::resource(), namespace, |prefetch| {
            let images = prefetch.data["spec"]["images"].as_array();
            images
                .into_iter()
                .flatten()
                .filter_map(|image| image.as_str().map(str::to_owned))
                .collect()
        })
        .await
    }

    async fn images(
        &self,
        cluster: &Cluster,
        resource: &ApiResource,
        namespace: Option<&str>,
        of: impl Fn(&DynamicObject) -> Vec<String>,
    ) -> Result<(), RequestError> {
        let api = |client| apply::api(client, resource, namespace);
        let each = |object: DynamicObject| {
            self.found.add(of(&object), &self.start);
        };
        cluster.list(api, each).await
    }
}

fn resource<K: Resource<DynamicType = ()>>() -> ApiResource {
    ApiResource::erase::<K>(&())
}
