//! What a server tells of itself over HTTP: `/metrics`, `/healthz`, `/readyz`. Nothing can be changed by it.
//!
//! The port is open to whoever reaches the pod, so that nobody may hold it: a connection has one request and little time, and where
//! there are too many, the oldest gives way to the newest. The probes of the kubelet are answered in any case.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{
    Router,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use clap::Args;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::{
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

/// Media type of the `OpenMetrics` text format, version 1.0.0.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Most bytes of the head of a request.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Pause after a connection could not be accepted, as when there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// What clients may take.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Connections at the same time.
    connections: usize,
    /// Time of one connection, from its beginning to the last byte of the answer.
    time: Duration,
}

const LIMITS: Limits = Limits {
    connections: 64,
    time: Duration::from_secs(10),
};

/// Where a server tells of itself.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Metrics and health")]
pub struct HttpArgs {
    /// Address for /metrics, /healthz and /readyz.
    #[arg(long, env = "CORAL_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
}

/// Serves metrics and health for as long as the process lives. Returns when the address is bound.
///
/// `is_ready` answers `/readyz`; `/healthz` is answered as long as the runtime of the process moves at all.
pub async fn serve(
    args: &HttpArgs,
    registry: Registry,
    is_ready: impl Fn() -> bool + Clone + Send + Sync + 'static,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("failed to listen on {}", args.listen))?;
    tokio::spawn(accept(listener, router(registry, is_ready), LIMITS));
    Ok(())
}

async fn accept(listener: TcpListener, router: Router, limits: Limits) {
    let mut connections: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(error = %error, "A connection for metrics or health could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        connections.retain(|connection| !connection.is_finished());
        if connections.len() >= limits.connections
            && let Some(oldest) = connections.pop_front()
        {
            oldest.abort();
        }
        let connection = tokio::time::timeout(limits.time, answer(stream, router.clone()));
        connections.push_back(tokio::spawn(connection).abort_handle());
    }
}

/// Answers the one request of a connection. What goes wrong is the client's affair.
async fn answer(stream: TcpStream, router: Router) {
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
}

fn router(registry: Registry, is_ready: impl Fn() -> bool + Clone + Send + Sync + 'static) -> Router {
    let registry = Arc::new(registry);
    Router::new()
        .route("/metrics", get(async move || metrics(&registry)))
        .route("/healthz", get(async || "ok"))
        .route(
            "/readyz",
            get(async move || {
                if is_ready() {
                    (StatusCode::OK, "ok")
                } else {
                    (StatusCode::SERVICE_UNAVAILABLE, "not ready")
                }
            }),
        )
}

fn metrics(registry: &Registry) -> impl IntoResponse + use<> {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = encode(&mut text, registry);
    ([(CONTENT_TYPE, OPEN_METRICS)], text)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use axum::body::Body;
    use axum::http::Request;
    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tower::ServiceExt as _;

    use super::*;

    async fn ask(router: Router, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 100_000).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn metrics_and_health_are_told() {
        let counter = Counter::<u64>::default();
        counter.inc();
        let mut registry = Registry::with_prefix("coral_test");
        registry.register("things", "Things that happened", counter);
        let is_ready = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_ready);
        let router = router(registry, move || seen.load(Ordering::Relaxed));

        let (status, body) = ask(router.clone(), "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(body.contains("coral_test_things_total 1"), "{body}");
        assert_eq!(ask(router.clone(), "/healthz").await.0, StatusCode::OK);
        assert_eq!(ask(router.clone(), "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
        is_ready.store(true, Ordering::Relaxed);
        assert_eq!(ask(router.clone(), "/readyz").await.0, StatusCode::OK);
        assert_eq!(ask(router, "/other").await.0, StatusCode::NOT_FOUND);
    }

    /// Longest time for anything that is to happen at once.
    const SOON: Duration = Duration::from_secs(10);

    async fn listen(router: Router, limits: Limits) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(accept(listener, router, limits));
        address
    }

    async fn connect(address: SocketAddr, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    /// Everything until the server ends the connection, in whichever way.
    async fn until_the_end(mut stream: TcpStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut bytes))
            .await
            .unwrap();
        bytes
    }

    fn is_ok(answer: &[u8]) -> bool {
        answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(b"ok")
    }

    const PROBE: &str = "GET /healthz HTTP/1.1\r\nhost: pod\r\n\r\n";

    #[tokio::test]
    async fn slow_clients_are_left_after_their_time() {
        let huge = Router::new().route("/huge", get(async || vec![0; 64 * 1024 * 1024]));
        let limits = Limits {
            connections: 10,
            time: Duration::from_millis(300),
        };
        let address = listen(router(Registry::default(), || true).merge(huge), limits).await;
        for slow in ["", "GET /healthz HTTP/1.1\r\nhost:"] {
            let stream = connect(address, slow).await;
            assert!(until_the_end(stream).await.is_empty(), "{slow:?}");
        }
        // This one asks, and does not read what it is told.
        let stream = connect(address, &PROBE.replace("healthz", "huge")).await;
        tokio::time::sleep(limits.time * 3).await;
        assert!(until_the_end(stream).await.len() < 64 * 1024 * 1024);
        assert!(is_ok(&until_the_end(connect(address, PROBE).await).await));
    }

    #[tokio::test]
    async fn probe_is_answered_where_others_hold_every_connection() {
        let limits = Limits {
            connections: 3,
            time: 100 * SOON,
        };
        let address = listen(router(Registry::default(), || true), limits).await;
        let mut holders = Vec::new();
        for _ in 0..3 {
            holders.push(connect(address, "GET /").await);
        }
        for _ in 0..3 {
            assert!(is_ok(&until_the_end(connect(address, PROBE).await).await));
        }
        let oldest = holders.remove(0);
        assert!(until_the_end(oldest).await.is_empty(), "the oldest gave way");
    }

    #[tokio::test]
    async fn heads_without_end_are_refused() {
        let address = listen(router(Registry::default(), || true), LIMITS).await;
        let endless = format!("GET /healthz HTTP/1.1\r\nx: {}", "y".repeat(4 * MAX_HEAD_BYTES));
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The server may be gone before it has all.
        let _ = stream.write_all(endless.as_bytes()).await;
        assert!(!is_ok(&until_the_end(stream).await));
    }
}
