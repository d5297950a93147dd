//! `coral-agent relay`: makes a registry of the cluster known to a node as `localhost:7439`.
//!
//! ```text
//!   container runtime ──plain HTTP, loopback──► relay ──HTTPS, own authority, credential──► Service coral-registry
//! ```
//!
//! Container runtimes resolve no names of Services and know no authority of the cluster's; what they do know is how to speak plain HTTP
//! to their own machine. The relay is a process of its own, with no right in the cluster and not root: whatever runs in the network of
//! the node can speak to it, which is not to be said of a process that holds the runtime's socket.
//!
//! It passes on questions for manifests, blobs and referrers, and nothing else, to one registry, and nothing of the client's own
//! credentials. What is passed is decided in `request`.

mod metrics;
mod request;
mod upstream;

use std::{convert::Infallible, net::IpAddr, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Parser;
use coral_api::keys;
use coral_runtime::LogArgs;
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{ALLOW, CONTENT_TYPE},
};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

use self::{
    metrics::Metrics,
    request::{Refusal, check},
    upstream::{Body, Upstream},
};

/// Connections at the same time; more wait until one ends. A container runtime opens a few for each image.
const MAX_CONNECTIONS: usize = 256;
/// How long a client may take for the head of a request, and how long it may leave a connection without one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection may last. What is cut then is asked for again from where it ended.
const CONNECTION_TIMEOUT: Duration = Duration::from_hours(1);
/// Most bytes of the head of a request.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// Pause before the address is tried again, where another process has it, and after a connection could not be accepted.
const PAUSE: Duration = Duration::from_secs(2);
/// How long a stop waits for what is being passed on.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Makes a registry in the cluster known to this node under an address of its own.
#[derive(Debug, Parser)]
#[command(name = "coral-agent-relay", bin_name = "coral-agent relay", version)]
pub struct RelayArgs {
    /// Where clients of the node ask. Anything but a loopback address opens the registry to whoever reaches the node.
    #[arg(long, env = "CORAL_RELAY_LISTEN", default_value_t = SocketAddr::from(([127, 0, 0, 1], keys::RELAY_PORT)))]
    pub listen: SocketAddr,

    /// The registry, such as `https://coral-registry.coral-system.svc:5001`. Its certificate must be for this name.
    #[arg(long, env = "CORAL_RELAY_UPSTREAM", value_parser = parse_upstream)]
    pub upstream: Uri,

    /// Address to connect to, instead of asking for the upstream's name: a node may need the registry before it has a name server.
    #[arg(long, env = "CORAL_REGISTRY_SERVICE_HOST")]
    pub upstream_address: Option<IpAddr>,

    /// Folder with `ca.crt`, the authorities that the registry's certificate may be from. Read again when it changes.
    #[arg(long, env = "CORAL_RELAY_CA_DIR")]
    pub ca_dir: PathBuf,

    /// Folder with `username` and `password` for the registry; without one, no credential is sent. Read again when they change.
    #[arg(long, env = "CORAL_RELAY_CREDENTIAL_DIR")]
    pub credential_dir: Option<PathBuf>,

    /// How the relay logs.
    #[command(flatten)]
    pub log: LogArgs,
}

fn parse_upstream(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|_| "it is no URL".to_owned())?;
    let is_bare = uri.path() == "/" && uri.query().is_none();
    if uri.scheme_str() == Some("https") && uri.authority().is_some() && is_bare {
        Ok(uri)
    } else {
        Err("write https:// and a host, with a port where it is not 443".to_owned())
    }
}

/// Runs the relay until SIGTERM or SIGINT.
pub async fn run(args: RelayArgs) -> anyhow::Result<()> {
    let RelayArgs {
        listen,
        upstream,
        upstream_address,
        ca_dir,
        credential_dir,
        log: _,
    } = args;
    // A credential passes through this process: its memory is for no core dump and no debugger.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .context("failed to keep the memory of the process out of core dumps")?;
    let shutdown = coral_runtime::shutdown()?;
    tracing::info!(%listen, %upstream, address = ?upstream_address, "The relay starts");
    let relay = Relay {
        upstream: Upstream::new(upstream, upstream_address, &ca_dir, credential_dir)?,
        metrics: Metrics::default(),
    };
    let mut shutdown = std::pin::pin!(shutdown);
    let listener = tokio::select! {
        listener = bind(listen) => listener,
        () = &mut shutdown => return Ok(()),
    };
    Arc::new(relay).serve(listener, shutdown).await;
    tracing::info!("The relay ends as asked");
    Ok(())
}

/// Takes the address, as soon as no other process has it: that of an earlier relay may take its time to end.
async fn bind(listen: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(listen).await {
            Ok(listener) => return listener,
            Err(error) => {
                tracing::warn!(%listen, error = %error, "The address cannot be listened on; it is tried again");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What answers the clients of one node.
#[derive(Debug)]
struct Relay {
    upstream: Upstream,
    metrics: Metrics,
}

impl Relay {
    async fn serve(self: Arc<Self>, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let permit = tokio::select! {
                // The semaphore is never closed.
                Ok(permit) = Arc::clone(&permits).acquire_owned() => permit,
                () = &mut shutdown => break,
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                () = &mut shutdown => break,
            };
            match accepted {
                Ok((stream, _)) => {
                    let relay = Arc::clone(&self);
                    connections.spawn(async move {
                        let _ = tokio::time::timeout(CONNECTION_TIMEOUT, relay.answer_all(stream)).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(error = %error, "A connection could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        drop(listener);
        let drained = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, drained).await;
    }

    /// Answers the requests of a connection. What goes wrong with it is the client's affair.
    async fn answer_all(self: Arc<Self>, stream: TcpStream) {
        let service = service_fn(move |request| {
            let relay = Arc::clone(&self);
            async move { Ok::<_, Infallible>(relay.answer(request).await) }
        });
        let _ = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        match request.uri().path() {
            "/healthz" => return text("ok"),
            "/readyz" => return self.readiness().await,
            "/metrics" => return self.metrics.response(),
            _ => {}
        }
        let response = match check(request.method(), request.uri().path()) {
            Ok(()) => self.pass(&request).await,
            Err(Refusal::Method) => {
                let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "nodes only read");
                response
                    .headers_mut()
                    .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                response
            }
            Err(Refusal::Path) => refusal(StatusCode::NOT_FOUND, "UNSUPPORTED", "the relay does not pass this on"),
        };
        self.metrics.answered(response.status());
        response
    }

    /// Asks the registry, and gives its answer as it comes.
    async fn pass(&self, request: &Request<Incoming>) -> Response<Body> {
        match self
            .upstream
            .ask(request.method(), request.uri(), request.headers())
            .await
        {
            // The client has no credential to mend this with, and would take the image for one that it may not have.
            Ok(answer) if matches!(answer.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                tracing::warn!(status = %answer.status(), "The registry refuses the relay's credential");
                let message = "the registry refuses the credential of Coral's relay";
                refusal(StatusCode::BAD_GATEWAY, "UNAVAILABLE", message)
            }
            Ok(answer) => answer,
            Err(error) => {
                let error = anyhow::Error::from(error);
                let error = format!("{error:#}");
                tracing::warn!(error, "The registry cannot be asked");
                let message = format!("Coral's relay has no answer of the registry: {error}");
                refusal(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", &message)
            }
        }
    }

    /// Whether the registry answers as one that would give images.
    async fn readiness(&self) -> Response<Body> {
        let base = Uri::from_static("/v2/");
        let why = match self.upstream.ask(&Method::GET, &base, &http::HeaderMap::new()).await {
            Ok(answer) if answer.status().is_success() => return text("ok"),
            Ok(answer) => format!("the registry answers {}", answer.status()),
            Err(error) => format!("{:#}", anyhow::Error::from(error)),
        };
        let mut response = text(why);
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response
    }
}

fn text(text: impl Into<Bytes>) -> Response<Body> {
    Response::new(Full::new(text.into()).map_err(|never| match never {}).boxed_unsync())
}

/// An error as the distribution specification writes it, which container runtimes show to people.
fn refusal(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let body = json!({"errors": [{"code": code, "message": message}]});
    let mut response = text(body.to_string());
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests;
