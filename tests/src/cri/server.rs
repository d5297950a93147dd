//! The gRPC around the state: a socket, a task for each connection, a timer for each pull.

use std::{
    convert::Infallible,
    fs, io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use coral_proto::{
    containerd::{content_v1::content_server::ContentServer, images_v1::images_server::ImagesServer},
    runtime_v1::{
        FilesystemIdentifier, FilesystemUsage, ImageFsInfoRequest, ImageFsInfoResponse, ImageSpec, ImageStatusRequest,
        ImageStatusResponse, ListContainersRequest, ListContainersResponse, ListImagesRequest, ListImagesResponse,
        PullImageRequest, PullImageResponse, RemoveImageRequest, RemoveImageResponse, StatusRequest, StatusResponse,
        UInt64Value, VersionRequest, VersionResponse,
        image_service_server::{ImageService, ImageServiceServer},
        runtime_service_server::{RuntimeService, RuntimeServiceServer},
    },
};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Notify, watch},
    task::{JoinHandle, JoinSet},
};
use tonic::{Request, Response, Status, codegen::Service as _};

use super::{
    credential::CredentialPrint,
    flavour::Flavour,
    state::{Begun, Ending, State},
};

/// What the connections and the test have in common.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    is_frozen: watch::Sender<bool>,
    /// Somebody wants every connection to break.
    disconnect: Notify,
}

impl Shared {
    pub(super) fn new(state: State) -> Self {
        Self {
            state: Mutex::new(state),
            is_frozen: watch::Sender::new(false),
            disconnect: Notify::new(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_frozen(&self, is_frozen: bool) {
        self.is_frozen.send_replace(is_frozen);
    }

    /// Returns when the runtime is not frozen.
    pub(super) async fn thawed(&self) {
        // The sender lives as long as `self`.
        let _ = self.is_frozen.subscribe().wait_for(|is_frozen| !is_frozen).await;
    }
}

/// A server that listens. Its connections break when it is dropped.
#[derive(Debug)]
pub(super) struct Server {
    task: JoinHandle<()>,
}

impl Server {
    /// Listens at `path`, where an earlier server may have left its socket.
    pub(super) fn start(path: &Path, shared: &Arc<Shared>) -> Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", path.display()));
            }
            _ => {}
        }
        let listener = UnixListener::bind(path).with_context(|| format!("listen at {}", path.display()))?;
        let task = tokio::spawn(serve(listener, Arc::clone(shared)));
        Ok(Self { task })
    }

    /// Returns when nobody listens any more.
    pub(super) async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: UnixListener, shared: Arc<Shared>) {
    let mut connections = Connections::default();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.open(stream, &shared);
            },
            () = shared.disconnect.notified() => connections.cut(),
        }
    }
}

/// The open connections. They break when this is dropped.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    /// Set when the connections are broken from this side, so that pulls know who ended them.
    is_cut: Arc<AtomicBool>,
}

impl Connections {
    fn open(&mut self, stream: UnixStream, shared: &Arc<Shared>) {
        while self.tasks.try_join_next().is_some() {}
        let services = Services {
            shared: Arc::clone(shared),
            is_cut: Arc::clone(&self.is_cut),
        };
        self.tasks.spawn(connection(stream, services));
    }

    fn cut(&mut self) {
        self.is_cut.store(true, Ordering::SeqCst);
        self.is_cut = Arc::default();
        self.tasks.abort_all();
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.cut();
    }
}

/// Serves one connection until it breaks.
async fn connection(stream: UnixStream, services: Services) {
    let route = service_fn(move |request| route(services.clone(), request));
    // However it ends, the client notices by itself.
    let _: Result<(), hyper::Error> = http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), route)
        .await;
}

/// Finds the service of a call. All of them are always ready, and any of them answers to what it does not know.
async fn route(
    services: Services,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<tonic::body::Body>, Infallible> {
    let is_containerd = services.shared.state().flavour == Flavour::Containerd;
    let service = request.uri().path().split('/').nth(1).unwrap_or_default();
    match service {
        "runtime.v1.RuntimeService" => RuntimeServiceServer::new(services).call(request).await,
        "containerd.services.images.v1.Images" if is_containerd => ImagesServer::new(services).call(request).await,
        "containerd.services.content.v1.Content" if is_containerd => ContentServer::new(services).call(request).await,
        _ => ImageServiceServer::new(services).call(request).await,
    }
}

/// The services, as one connection has them.
#[derive(Clone)]
pub(super) struct Services {
    pub(super) shared: Arc<Shared>,
    is_cut: Arc<AtomicBool>,
}

impl Services {
    /// Breaks every connection, and with its own the call that wants it: this does not return.
    pub(super) async fn disconnect(&self) -> Status {
        self.shared.disconnect.notify_one();
        std::future::pending().await
    }
}

/// A pull that is under way. When the client gives it up, or the connection breaks, it is dropped in the middle.
struct Pull {
    services: Services,
    begun: Begun,
}

impl Pull {
    fn finish(&self) -> Result<String, Status> {
        self.services.shared.state().finish(&self.begun, Instant::now())
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        let ending = if self.services.is_cut.load(Ordering::SeqCst) {
            Ending::Cut
        } else {
            Ending::Cancelled
        };
        self.services
            .shared
            .state()
            .end(self.begun.attempt, ending, Instant::now());
    }
}

#[tonic::async_trait]
impl RuntimeService for Services {
    async fn version(&self, _: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        self.shared.thawed().await;
        let mut state = self.shared.state();
        state.calls.version += 1;
        Ok(Response::new(state.flavour.version()))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        self.shared.thawed().await;
        let config = serde_json::json!({"sandboxImage": self.shared.state().sandbox_image});
        let info = request
            .into_inner()
            .verbose
            .then(|| ("config".to_owned(), config.to_string()));
        Ok(Response::new(StatusResponse {
            info: info.into_iter().collect(),
        }))
    }

    async fn list_containers(
        &self,
        _: Request<ListContainersRequest>,
    ) -> Result<Response<ListContainersResponse>, Status> {
        self.shared.thawed().await;
        let containers = self.shared.state().containers();
        Ok(Response::new(ListContainersResponse { containers }))
    }
}

#[tonic::async_trait]
impl ImageService for Services {
    async fn list_images(&self, request: Request<ListImagesRequest>) -> Result<Response<ListImagesResponse>, Status> {
        self.shared.thawed().await;
        let filter = request.into_inner().filter.and_then(|filter| filter.image);
        let images = self
            .shared
            .state()
            .list(filter.as_ref().map(|spec| spec.image.as_str()));
        Ok(Response::new(ListImagesResponse { images }))
    }

    async fn image_status(
        &self,
        request: Request<ImageStatusRequest>,
    ) -> Result<Response<ImageStatusResponse>, Status> {
        self.shared.thawed().await;
        let name = named(request.into_inner().image)?;
        let image = self.shared.state().status(&name);
        Ok(Response::new(ImageStatusResponse {
            image,
            ..ImageStatusResponse::default()
        }))
    }

    async fn pull_image(&self, request: Request<PullImageRequest>) -> Result<Response<PullImageResponse>, Status> {
        self.shared.thawed().await;
        let PullImageRequest { image, auth } = request.into_inner();
        let name = named(image)?;
        let credential = auth.as_ref().map(CredentialPrint::received);
        let begun = self.shared.state().begin(&name, credential, Instant::now())?;
        let pull = Pull {
            services: self.clone(),
            begun,
        };
        match pull.begun.takes {
            Some(time) => tokio::time::sleep(time).await,
            None => std::future::pending().await,
        }
        self.shared.thawed().await;
        if pull.begun.disconnects {
            return Err(self.disconnect().await);
        }
        let image_ref = pull.finish()?;
        Ok(Response::new(PullImageResponse { image_ref }))
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        self.shared.thawed().await;
        let name = named(request.into_inner().image)?;
        self.shared.state().remove(&name);
        Ok(Response::new(RemoveImageResponse {}))
    }

    async fn image_fs_info(&self, _: Request<ImageFsInfoRequest>) -> Result<Response<ImageFsInfoResponse>, Status> {
        self.shared.thawed().await;
        let mut state = self.shared.state();
        state.calls.image_fs_info += 1;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Other things than images move, too: a runtime never gives the same number twice.
        let others = u64::from(now.subsec_micros());
        let usage = FilesystemUsage {
            timestamp: i64::try_from(now.as_nanos()).unwrap_or(i64::MAX),
            fs_id: Some(FilesystemIdentifier {
                mountpoint: state
                    .image_folder
                    .clone()
                    .unwrap_or_else(|| state.flavour.mountpoint().to_owned()),
            }),
            used_bytes: Some(UInt64Value {
                value: state.used_bytes() + others,
            }),
            inodes_used: Some(UInt64Value { value: others }),
        };
        Ok(Response::new(ImageFsInfoResponse {
            image_filesystems: vec![usage],
            container_filesystems: Vec::new(),
        }))
    }
}

/// The image that a request names.
fn named(image: Option<ImageSpec>) -> Result<String, Status> {
    image
        .map(|spec| spec.image)
        .filter(|image| !image.is_empty())
        .ok_or_else(|| Status::invalid_argument("the request names no image"))
}

#[cfg(test)]
mod tests;
