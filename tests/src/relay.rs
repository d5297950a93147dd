//! A relay that lets only so many bytes pass in a second: in front of a registry it makes pulls take visible time.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Mutex,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

use crate::cluster::Cluster;

/// How much passes at once: small, so that a slow relay is slow evenly.
const CHUNK: usize = 16 * 1024;

/// A running relay; it ends, and breaks its connections, when it is dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    bytes_per_second: AtomicU64,
    passed: AtomicU64,
    connections: AtomicUsize,
    /// When the next byte may pass, for all connections together.
    free_at: Mutex<Instant>,
}

impl Relay {
    /// Listens on a free port of `address` and passes connections on to `upstream`. The limit is on what comes back,
    /// of all connections together; 0 lets nothing pass.
    pub async fn start(address: Ipv4Addr, upstream: &str, bytes_per_second: u64) -> Result<Self> {
        let listener = TcpListener::bind((address, 0))
            .await
            .with_context(|| format!("listen on {address}"))?;
        let address = listener.local_addr().context("find the port of the relay")?;
        let shared = Arc::new(Shared {
            bytes_per_second: AtomicU64::new(bytes_per_second),
            passed: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            free_at: Mutex::new(Instant::now()),
        });
        let task = tokio::spawn(accept(listener, upstream.to_owned(), Arc::clone(&shared)));
        Ok(Self { address, shared, task })
    }

    /// `host:port`, for image names.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Changes the limit, also for connections that there are; 0 lets nothing pass until it is changed again.
    pub fn set_bytes_per_second(&self, bytes_per_second: u64) {
        self.shared.bytes_per_second.store(bytes_per_second, Ordering::Relaxed);
    }

    /// How many bytes have come back so far.
    #[must_use]
    pub fn passed_bytes(&self) -> u64 {
        self.shared.passed.load(Ordering::Relaxed)
    }

    /// How many connections were made so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Cluster {
    /// A relay in front of the open registry. The nodes know that it speaks plain HTTP.
    pub async fn slow_registry(&self, bytes_per_second: u64) -> Result<Relay> {
        let relay = Relay::start(self.host_address(), &self.registry(), bytes_per_second).await?;
        self.trust_plain_http(&relay.host())?;
        Ok(relay)
    }
}

async fn accept(listener: TcpListener, upstream: String, shared: Arc<Shared>) {
    // The connections end with this set, and so with the relay.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::Relaxed);
        connections.spawn(pass(client, upstream.clone(), Arc::clone(&shared)));
        while connections.try_join_next().is_some() {}
    }
}

async fn pass(client: TcpStream, upstream: String, shared: Arc<Shared>) {
    let Ok(server) = TcpStream::connect(&upstream).await else {
        return;
    };
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let there = async {
        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
        let _ = to_server.shutdown().await;
    };
    // Whichever way it ends, the other end notices by itself.
    tokio::join!(there, pass_slowly(from_server, to_client, &shared));
}

async fn pass_slowly(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        shared.wait_for(count as u64).await;
        if to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
        shared.passed.fetch_add(count as u64, Ordering::Relaxed);
    }
    let _ = to.shutdown().await;
}

impl Shared {
    async fn wait_for(&self, bytes: u64) {
        let rate = loop {
            match self.bytes_per_second.load(Ordering::Relaxed) {
                0 => sleep(Duration::from_millis(50)).await,
                rate => break rate,
            }
        };
        let free_at = {
            let mut free_at = self.free_at.lock().await;
            *free_at = (*free_at).max(Instant::now()) + Duration::from_micros(bytes * 1_000_000 / rate);
            *free_at
        };
        sleep_until(free_at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn relay_keeps_to_its_limit() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let upstream = server.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let (mut stream, _) = server.accept().await.unwrap();
            stream.write_all(&vec![7; 50_000]).await.unwrap();
        });
        let relay = Relay::start(Ipv4Addr::LOCALHOST, &upstream, 100_000).await.unwrap();
        let started = Instant::now();
        let mut received = Vec::new();
        TcpStream::connect(relay.host())
            .await
            .unwrap()
            .read_to_end(&mut received)
            .await
            .unwrap();
        assert_eq!(received.len(), 50_000);
        assert!(
            started.elapsed() >= Duration::from_millis(450),
            "{:?}",
            started.elapsed()
        );
        assert_eq!((relay.passed_bytes(), relay.connections()), (50_000, 1));
    }
}
