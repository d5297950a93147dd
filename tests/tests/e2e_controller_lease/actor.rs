//! A controller, and what it does.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use coral_controller::{Controller, LeaseOptions, Options, metrics::Metrics};
use coral_tests::{
    hollow::Site,
    wait::{Look, eventually},
};
use kube::{
    Client,
    client::{Body, ClientBuilder},
};
use tokio::{sync::oneshot, task::JoinHandle};
use tower::util::MapRequestLayer;

use crate::site::NAMESPACE;

/// Who the controller is to the API server.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:coral-system:coral-controller";

/// A controller that runs.
pub(crate) struct Actor {
    pub(crate) metrics: Metrics,
    /// When it sent a write to something else than a Lease or an Event.
    writes: Arc<Mutex<Vec<Instant>>>,
    task: JoinHandle<()>,
    shutdown_tx: Option<oneshot::Sender<()>>,
}

impl Actor {
    /// Starts a controller.
    pub(crate) fn start(site: &Site, identity: &str) -> Self {
        Self::start_at(site, identity, None)
    }

    /// Starts a controller that reaches the API server at another address.
    pub(crate) fn start_at(site: &Site, identity: &str, address: Option<String>) -> Self {
        let writes = Arc::<Mutex<Vec<Instant>>>::default();
        let client = client(site, address, Arc::clone(&writes));
        let options = Options {
            lease: Some(LeaseOptions::new(NAMESPACE, "coral-controller")),
            identity: identity.to_owned(),
            ..Options::default()
        };
        let controller = Controller::new(client, options);
        let metrics = controller.metrics();
        let (shutdown_tx, shutdown_rx) = oneshot::channel();
        let task = tokio::spawn(controller.run(async {
            let _ = shutdown_rx.await;
        }));
        Self {
            metrics,
            writes,
            task,
            shutdown_tx: Some(shutdown_tx),
        }
    }

    /// Waits until it leads. Returns when it was first seen to.
    pub(crate) async fn leads(&self, patience: Duration) -> Instant {
        until("a controller to lead", patience, || self.metrics.is_leader()).await
    }

    /// Waits until it leads no more. Returns when it was first seen not to.
    pub(crate) async fn leads_no_more(&self, patience: Duration) -> Instant {
        until("a controller to lead no more", patience, || !self.metrics.is_leader()).await
    }

    /// Waits until it knows the cluster.
    pub(crate) async fn knows(&self, patience: Duration) {
        until("a controller to know the cluster", patience, || self.metrics.is_ready()).await;
    }

    /// Ends it as SIGTERM does, and waits for it.
    pub(crate) async fn stop(&mut self) {
        let _ = self.shutdown_tx.take().unwrap().send(());
        tokio::time::timeout(Duration::from_secs(5), &mut self.task)
            .await
            .unwrap()
            .unwrap();
    }

    /// Ends it as SIGKILL does.
    pub(crate) async fn kill(&mut self) {
        self.task.abort();
        assert!((&mut self.task).await.unwrap_err().is_cancelled());
    }

    pub(crate) fn writes(&self) -> Vec<Instant> {
        self.writes.lock().unwrap().clone()
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Looks every few milliseconds, as the times are what the cases are about.
async fn until(what: &str, patience: Duration, is_so: impl Fn() -> bool) -> Instant {
    let looked = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Instant::now()
    };
    tokio::time::timeout(patience, looked)
        .await
        .unwrap_or_else(|_| panic!("waited {patience:?} for {what}"))
}

/// A client with the rights of the controller that is deployed.
fn client(site: &Site, address: Option<String>, writes: Arc<Mutex<Vec<Instant>>>) -> Client {
    let mut config = kube::Config::clone(&site.config);
    if let Some(address) = address {
        config.cluster_url = format!("https://{address}").parse().unwrap();
    }
    let disguise = MapRequestLayer::new(move |mut request: http::Request<Body>| {
        let path = request.uri().path();
        let is_about_itself = path.contains("/leases") || path.contains("/events");
        if request.method() != http::Method::GET && !is_about_itself {
            writes.lock().unwrap().push(Instant::now());
        }
        let headers = request.headers_mut();
        headers.insert("Impersonate-User", http::HeaderValue::from_static(SERVICE_ACCOUNT));
        request
    });
    ClientBuilder::try_from(config).unwrap().with_layer(&disguise).build()
}

/// Waits until an object is as it should be.
pub(crate) async fn seen<T, F>(what: &str, patience: Duration, look: F) -> T
where
    F: AsyncFnMut() -> anyhow::Result<Option<T>>,
{
    let mut look = look;
    eventually(what, patience, async || {
        Ok(look().await?.map_or(Look::NotYet("nothing"), Look::Done))
    })
    .await
    .unwrap()
}
