//! What a server tells of itself over HTTP: `/metrics`, `/healthz`, `/readyz`. Nothing can be changed by it.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use axum::{
    Router,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use clap::Args;
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::net::TcpListener;

/// Media type of the `OpenMetrics` text format, version 1.0.0.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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
    let router = router(registry, is_ready);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(error = %error, "Metrics and health are no longer served");
        }
    });
    Ok(())
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
}
