//! The HTTPS server. Whoever can reach the webhook can send it anything, at any pace: everything here has a limit.

mod gathered;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use rustls::{ServerConfig, crypto::CryptoProvider};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_rustls::TlsAcceptor;

use self::gathered::Gathered;
use crate::{certificate::ServedCertificate, metrics::Metrics};

/// What the server allows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of a request. The API server takes objects of up to 3 MiB, and an update sends two.
    pub(crate) body: usize,
    /// Bytes of all requests that are being read at the same time. What is more is turned away: the memory of a webhook has a limit, too.
    pub(crate) bodies: usize,
    /// Requests at the same time, over all connections. One more is turned away.
    pub(crate) requests: usize,
    /// Connections at the same time. One more waits until there is room.
    pub(crate) connections: usize,
    /// Time for the TLS handshake.
    pub(crate) handshake: Duration,
    /// Time for the headers of a request, and between two requests of HTTP/1.1.
    pub(crate) headers: Duration,
    /// Time for the body of a request. The API server itself gives up sooner.
    pub(crate) request: Duration,
    /// A connection that is older is ended in good order, so that none lives for ever and load moves to new replicas.
    pub(crate) connection_age: Duration,
    /// Time for the requests of a connection that is being ended.
    pub(crate) grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 8 << 20,
            bodies: 32 << 20,
            requests: 1_000,
            connections: 512,
            handshake: Duration::from_secs(5),
            headers: Duration::from_mins(1),
            request: Duration::from_secs(5),
            connection_age: Duration::from_mins(10),
            grace: Duration::from_secs(5),
        }
    }
}

/// The TLS side of the server: versions 1.2 and 1.3, HTTP/2 before HTTP/1.1.
pub(crate) fn tls_config(provider: Arc<CryptoProvider>, served: ServedCertificate) -> anyhow::Result<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .context("failed to set up TLS")?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(served));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Answers on `listener` until `shutdown` completes, and then for as long as requests are under way.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: ServerConfig,
    router: Router,
    metrics: Metrics,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let room = Arc::new(Semaphore::new(limits.connections));
    let (closing_tx, closing_rx) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accept = async {
            // The semaphore is never closed.
            let permit = Arc::clone(&room).acquire_owned().await.ok();
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            accepted = accept => accepted,
            Some(_) = connections.join_next() => continue,
            () = &mut shutdown => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(error = %error, "A connection was not accepted");
                // No file descriptors, for example: it does not get better by asking again at once.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let connection = Connection {
            acceptor: acceptor.clone(),
            router: router.clone(),
            metrics: metrics.clone(),
            limits,
            closing: closing_rx.clone(),
        };
        connections.spawn(async move {
            connection.serve(stream).await;
            drop(permit);
        });
    }
    drop(listener);
    drop(closing_rx);
    drop(closing_tx);
    while connections.join_next().await.is_some() {}
}

struct Connection {
    acceptor: TlsAcceptor,
    router: Router,
    metrics: Metrics,
    limits: Limits,
    /// Ends when the server does.
    closing: watch::Receiver<()>,
}

impl Connection {
    async fn serve(mut self, stream: TcpStream) {
        let _connected = self.metrics.connected();
        // Answers are small, and somebody waits for them.
        let _ = stream.set_nodelay(true);
        let deadline = Instant::now() + self.limits.connection_age;
        let stream = match timeout(self.limits.handshake, self.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(error = %error, "A TLS handshake came to nothing");
                self.metrics.handshake_failed();
                return;
            }
            Err(_) => {
                self.metrics.handshake_failed();
                return;
            }
        };
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .max_buf_size(64 << 10)
            .header_read_timeout(self.limits.headers);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(128)
            .max_header_list_size(16 << 10)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10));
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let builder = if is_http2 {
            builder.http2_only()
        } else {
            builder.http1_only()
        };
        let service = TowerToHyperService::new(self.router);
        let stream = TokioIo::new(Gathered::new(stream, is_http2));
        let mut connection = std::pin::pin!(builder.serve_connection(stream, service));
        tokio::select! {
            _ = connection.as_mut() => return,
            _ = self.closing.changed() => {}
            () = tokio::time::sleep_until(deadline) => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = timeout(self.limits.grace, connection).await;
    }
}

#[cfg(test)]
mod tests;
