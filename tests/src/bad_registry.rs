//! A registry that misbehaves on purpose, to hear what container runtimes say of it.
//!
//! The name of the repository chooses what goes wrong: `host:port/manifest-unknown:v1` is an image that is not there,
//! `host:port/blob-truncated:v1` one whose layer ends too early. HTTP is written by hand here, because much of what this
//! registry does is what no HTTP library lets one do.
//!
//! ```text
//!   container runtime ──GET /v2/NAME/…──► Request ──answer(Misbehaviour)──► Answer ──► bytes, silence, a reset
//! ```

mod answer;
mod content;
mod http;
mod misbehaviour;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use anyhow::{Context, Result};
use rcgen::{CertificateParams, KeyPair};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    },
};

pub use self::misbehaviour::Misbehaviour;
use self::{answer::Answerer, content::Content};

/// What stands in for a secret in what the registry sends: in the queries of redirects and in tokens. It must never be
/// seen again.
pub const SECRET: &str = "coral-secret-canary";

/// A running registry; it ends, and breaks its connections, when it is dropped.
#[derive(Debug)]
pub struct BadRegistry {
    address: SocketAddr,
    open_connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl BadRegistry {
    /// Listens with plain HTTP on a free port of `address`.
    pub async fn start(address: Ipv4Addr) -> Result<Self> {
        Self::start_with(address, None).await
    }

    /// Listens with TLS on a free port of `address`. The certificate is for that address, and of an authority that nobody
    /// knows.
    pub async fn start_tls(address: Ipv4Addr) -> Result<Self> {
        let acceptor = acceptor(address).context("make a certificate")?;
        Self::start_with(address, Some(acceptor)).await
    }

    async fn start_with(address: Ipv4Addr, tls: Option<TlsAcceptor>) -> Result<Self> {
        let listener = TcpListener::bind((address, 0))
            .await
            .with_context(|| format!("listen on {address}"))?;
        let address = listener.local_addr().context("find the port of the registry")?;
        // Runtimes keep blobs by their digest, so that what an earlier registry gave must not serve this one.
        let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let seed = format!("{address} {}", started.as_nanos());
        let answerer = Arc::new(Answerer::new(address.to_string(), Content::new(seed)));
        let open_connections = Arc::default();
        let task = tokio::spawn(accept(listener, tls, answerer, Arc::clone(&open_connections)));
        Ok(Self {
            address,
            open_connections,
            task,
        })
    }

    /// `host:port`, for image names.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// How many connections are open: those of pulls that hang.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.open_connections.load(Ordering::Relaxed)
    }

    /// The name of the image that goes wrong in this way.
    #[must_use]
    pub fn image(&self, misbehaviour: Misbehaviour) -> String {
        format!("{}/{}:v1", self.address, misbehaviour.repository())
    }
}

impl Drop for BadRegistry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A certificate for the address that is signed by itself.
fn acceptor(address: Ipv4Addr) -> Result<TlsAcceptor> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec![address.to_string()])?.self_signed(&key)?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(certificate.der().to_vec())],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    answerer: Arc<Answerer>,
    open_connections: Arc<AtomicUsize>,
) {
    // The connections end with this set, and so with the registry.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, answerer, open) = (tls.clone(), Arc::clone(&answerer), Arc::clone(&open_connections));
        connections.spawn(async move {
            open.fetch_add(1, Ordering::Relaxed);
            // Whatever goes wrong here is what the runtime has to cope with.
            let _ = match tls {
                Some(tls) => http::serve_tls(stream, &tls, &answerer).await,
                None => http::serve(stream, &answerer).await,
            };
            open.fetch_sub(1, Ordering::Relaxed);
        });
        while connections.try_join_next().is_some() {}
    }
}

#[cfg(test)]
mod tests;
