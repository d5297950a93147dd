//! A node of which nothing is real but its agent.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use coral_agent::{
    Agent,
    filesystem::{Space, probe},
    runtime::Runtime,
};
use coral_api::{
    NodeImages, NodeImagesStatus,
    node_images::{ImageState, ImageStatus},
};
use coral_tests::{
    cri::{Catalogue, Counts, FakeRuntime, Flavour},
    hollow::Site,
    wait::{Look, eventually},
};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, Patch, PatchParams},
    client::{Body, ClientBuilder},
};
use serde_json::{Value, json};
use tokio::{sync::oneshot, task::JoinHandle};
use tower::util::{MapFutureLayer, MapRequestLayer};

use crate::history::{History, Seen};

/// How long anything may take that is only a matter of work.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// The agent looks every 8 s; this is time enough to see what a look shows.
pub(crate) const A_LOOK: Duration = Duration::from_secs(15);

/// A node with a NodeImages object, a runtime and an agent.
pub(crate) struct Hollow {
    name: String,
    api: Api<NodeImages>,
    config: Config,
    pub(crate) catalogue: Catalogue,
    pub(crate) runtime: FakeRuntime,
    pub(crate) history: History,
    /// Status writes that the agent has sent, also those that changed nothing or never arrived.
    writes: Arc<AtomicUsize>,
    /// How long the agent waits for each answer of the API server, in milliseconds.
    answers_take: Arc<AtomicU64>,
    /// Room for images; none where the agent is to ask the kernel.
    space: Arc<Mutex<Option<Space>>>,
    /// The folder in which the agent looks for its runtime, where it is not told.
    run_folder: Option<PathBuf>,
    agent: Option<(JoinHandle<()>, oneshot::Sender<()>)>,
}

impl Hollow {
    /// A node whose registries have everything.
    pub(crate) fn new(site: &Site, name: &str, flavour: Flavour) -> Self {
        Self::with_catalogue(site, name, flavour, Catalogue::of_everything(1_000_000))
    }

    /// A node whose registries have what the catalogue says. Nothing is asked of it, and its agent does not run yet.
    pub(crate) fn with_catalogue(site: &Site, name: &str, flavour: Flavour, catalogue: Catalogue) -> Self {
        let name = format!("hollow-{name}");
        let api: Api<NodeImages> = Api::all(site.client.clone());
        Self {
            config: Config::clone(&site.config),
            runtime: FakeRuntime::start(flavour, catalogue.clone()).unwrap(),
            history: History::start(api.clone(), &name),
            writes: Arc::default(),
            answers_take: Arc::default(),
            space: Arc::new(Mutex::new(Some(Space {
                free: 1 << 40,
                capacity: 1 << 41,
            }))),
            run_folder: None,
            agent: None,
            catalogue,
            api,
            name,
        }
    }

    /// Lets the agent reach the API server at another address.
    pub(crate) fn through(mut self, address: &str) -> Self {
        self.config.cluster_url = format!("https://{address}").parse().unwrap();
        self
    }

    /// Asks for these images and no others.
    pub(crate) async fn asks(&self, images: &[Value]) {
        self.asks_spec(json!({"images": images})).await;
    }

    pub(crate) async fn asks_spec(&self, spec: Value) {
        let object = json!({
            "apiVersion": "image.stvz.io/v1alpha1",
            "kind": "NodeImages",
            "metadata": {"name": self.name},
            "spec": spec,
        });
        let parameters = PatchParams::apply("coral-controller").force();
        let patch = Patch::Apply(&object);
        self.api.patch(&self.name, &parameters, &patch).await.unwrap();
    }

    /// Writes a status as nobody but the agent should.
    pub(crate) async fn meddles(&self, status: Value) {
        let patch = Patch::Merge(json!({"status": status}));
        let parameters = PatchParams::default();
        self.api.patch_status(&self.name, &parameters, &patch).await.unwrap();
    }

    pub(crate) async fn delete_object(&self) {
        self.api.delete(&self.name, &DeleteParams::default()).await.unwrap();
    }

    /// Starts the agent.
    pub(crate) fn start_agent(&mut self, max_parallel_pulls: usize) {
        let writes = Arc::clone(&self.writes);
        let count = MapRequestLayer::new(move |request: http::Request<Body>| {
            if request.method() == http::Method::PATCH {
                writes.fetch_add(1, Ordering::Relaxed);
            }
            request
        });
        let answers_take = Arc::clone(&self.answers_take);
        let delay = MapFutureLayer::new(move |answer| {
            let answers_take = Arc::clone(&answers_take);
            async move {
                let answer = answer.await;
                tokio::time::sleep(Duration::from_millis(answers_take.load(Ordering::Relaxed))).await;
                answer
            }
        });
        let client: Client = ClientBuilder::try_from(self.config.clone())
            .unwrap()
            .with_layer(&count)
            .with_layer(&delay)
            .build();
        let runtime = match &self.run_folder {
            Some(folder) => Runtime::discover(folder),
            None => Runtime::new(&self.runtime.endpoint()).unwrap(),
        };
        let space = Arc::clone(&self.space);
        let of_kernel = probe();
        let agent = Agent::new(client, runtime, self.name.clone(), max_parallel_pulls).with_space_probe(Arc::new(
            move |folder| space.lock().unwrap().or_else(|| of_kernel(folder)),
        ));
        let (shutdown_tx, shutdown_rx) = oneshot::channel();
        let task = tokio::spawn(agent.run(async {
            let _ = shutdown_rx.await;
        }));
        self.agent = Some((task, shutdown_tx));
    }

    /// A node whose agent runs and is asked for these images.
    pub(crate) async fn started(mut self, max_parallel_pulls: usize, images: &[Value]) -> Self {
        self.asks(images).await;
        self.start_agent(max_parallel_pulls);
        self
    }

    /// Ends the agent as SIGTERM does, and waits for it.
    pub(crate) async fn stop_agent(&mut self) {
        let (task, shutdown) = self.agent.take().unwrap();
        shutdown.send(()).unwrap();
        task.await.unwrap();
    }

    /// Whether the agent that was started is still the same.
    pub(crate) fn agent_runs(&self) -> bool {
        self.agent.as_ref().is_some_and(|(task, _)| !task.is_finished())
    }

    /// From now on the API server does at once what the agent asks for, but answers late.
    pub(crate) fn delay_answers(&self, delay: Duration) {
        let delay = u64::try_from(delay.as_millis()).unwrap();
        self.answers_take.store(delay, Ordering::Relaxed);
    }

    /// The agent is to find its runtime by itself.
    pub(crate) fn finds_its_runtime_below(&mut self, folder: &Path) {
        self.run_folder = Some(folder.to_owned());
    }

    /// How much room there is for images from now on, in bytes.
    pub(crate) fn has_space(&self, free: i64, capacity: i64) {
        *self.space.lock().unwrap() = Some(Space { free, capacity });
    }

    /// The agent is to find out by itself how much room there is.
    pub(crate) fn has_real_space(&self) {
        *self.space.lock().unwrap() = None;
    }

    pub(crate) fn writes(&self) -> usize {
        self.writes.load(Ordering::Relaxed)
    }

    /// Waits until the status is as it should be.
    pub(crate) async fn until(
        &self,
        what: &str,
        patience: Duration,
        is_so: impl Fn(&NodeImagesStatus) -> bool,
    ) -> NodeImagesStatus {
        let what = format!("{what} ({})", self.name);
        let seen = self.history.until(&what, patience, |seen| is_so(&seen.status)).await;
        seen.status
    }

    /// Waits until all images that are asked for are there, and the status is about the newest spec.
    pub(crate) async fn all_present(&self, patience: Duration) -> NodeImagesStatus {
        let is_so = |seen: &Seen| {
            let status = &seen.status;
            let all = status.images.iter().all(|image| image.state == ImageState::Present);
            all && !status.images.is_empty() && status.observed_generation == seen.generation
        };
        let what = format!("all images to be there ({})", self.name);
        self.history.until(&what, patience, is_so).await.status
    }

    /// Waits until the runtime has seen what it should.
    pub(crate) async fn until_runtime(&self, what: &str, patience: Duration, is_so: impl Fn(Counts) -> bool) {
        eventually(&format!("{what} ({})", self.name), patience, async || {
            let counts = self.runtime.counts();
            Ok(if is_so(counts) {
                Look::Done(())
            } else {
                Look::NotYet(counts)
            })
        })
        .await
        .unwrap();
    }
}

impl Drop for Hollow {
    fn drop(&mut self) {
        if let Some((task, _)) = self.agent.take() {
            task.abort();
        }
    }
}

/// An image of which nobody else has heard.
pub(crate) fn name(short: &str) -> String {
    format!("registry.example/team/{short}:v1")
}

/// A request for that image.
pub(crate) fn image(short: &str) -> Value {
    json!({"image": name(short)})
}

/// A request for that image with more to it.
pub(crate) fn image_with(short: &str, more: Value) -> Value {
    let mut image = image(short);
    let Value::Object(more) = more else { panic!("{more}") };
    image.as_object_mut().unwrap().extend(more);
    image
}

/// What a status says of an image.
pub(crate) fn of<'a>(status: &'a NodeImagesStatus, image: &str) -> Option<&'a ImageStatus> {
    status.images.iter().find(|status| status.image == image)
}

/// Where an image stands according to a status.
pub(crate) fn state(status: &NodeImagesStatus, image: &str) -> Option<ImageState> {
    of(status, image).map(|status| status.state)
}
