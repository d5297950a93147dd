//! A relay that counts what passes.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// Bytes that pass at once.
const CHUNK: usize = 256 * 1024;

/// A relay in front of a registry. It ends when it is dropped.
pub(super) struct Counter {
    host: String,
    passed: Arc<Passed>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Passed {
    there: AtomicU64,
    back: AtomicU64,
}

impl Counter {
    pub(super) async fn start(upstream: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen")?;
        let host = listener.local_addr().context("find the port of a counter")?.to_string();
        let passed = Arc::<Passed>::default();
        let task = tokio::spawn(accept(listener, upstream.to_owned(), Arc::clone(&passed)));
        Ok(Self { host, passed, task })
    }

    /// `host:port`.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Bytes from clients to the registry.
    pub(super) fn there(&self) -> u64 {
        self.passed.there.load(Relaxed)
    }

    /// Bytes from the registry to clients.
    pub(super) fn back(&self) -> u64 {
        self.passed.back.load(Relaxed)
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, upstream: String, passed: Arc<Passed>) {
    // The connections end with this set, and so with the counter.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (upstream, passed) = (upstream.clone(), Arc::clone(&passed));
        connections.spawn(async move {
            let Ok(server) = TcpStream::connect(&upstream).await else {
                return;
            };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            // Whichever way it ends, the other end notices by itself.
            tokio::join!(
                pass(from_client, to_server, &passed.there),
                pass(from_server, to_client, &passed.back)
            );
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, passed: &AtomicU64) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        passed.fetch_add(count as u64, Relaxed);
        if to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
