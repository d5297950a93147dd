//! The registry behind the relay: how it is reached, known and convinced.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, Uri,
    header::{AUTHORIZATION, USER_AGENT},
    uri::PathAndQuery,
};
use http_body_util::{BodyExt as _, Empty, combinators::UnsyncBoxBody};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client, Error as ClientError,
        connect::{HttpConnector, dns::Name},
    },
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio::time::{Sleep, sleep};
use zeroize::Zeroizing;

use super::request::{answered, asked};

/// How long the registry may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the registry may take for the head of an answer, and for every piece of its body.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection that nobody uses stays open.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections without use that stay open.
const MAX_IDLE_CONNECTIONS: usize = 16;
/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// What the registry sees in its log.
const AGENT: &str = concat!("coral-relay/", env!("CARGO_PKG_VERSION"));

/// What clients are answered with.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

type Resolving = Pin<Box<dyn Future<Output = io::Result<std::vec::IntoIter<SocketAddr>>> + Send>>;
type Connections = Client<HttpsConnector<HttpConnector<Resolver>>, Empty<Bytes>>;

/// Why the registry could not be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("failed to read {path}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to read authorities from {path}: there is no certificate in PEM form")]
    Authorities { path: PathBuf },
    #[error("failed to set up TLS")]
    Tls(#[source] rustls::Error),
    #[error("failed to ask for {path}")]
    Path {
        path: String,
        #[source]
        source: http::Error,
    },
    #[error("failed to reach the registry")]
    Unreachable(#[source] ClientError),
    #[error("failed to hear from the registry within {} s", SILENCE_TIMEOUT.as_secs())]
    Silent,
}

/// The registry.
#[derive(Debug)]
pub(super) struct Upstream {
    uri: Uri,
    address: Option<IpAddr>,
    ca: PathBuf,
    credential: Option<PathBuf>,
    current: Mutex<Current>,
    look_interval: Duration,
}

#[derive(Debug)]
struct Current {
    files: Files,
    access: Access,
    looked: Instant,
}

/// What the files say.
#[derive(Eq, PartialEq)]
struct Files {
    authorities: Vec<u8>,
    credential: Option<Zeroizing<String>>,
}

impl std::fmt::Debug for Files {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Files").finish_non_exhaustive()
    }
}

/// What is needed to ask.
#[derive(Clone, Debug)]
struct Access {
    connections: Connections,
    authorization: Option<HeaderValue>,
}

impl Upstream {
    pub(super) fn new(
        uri: Uri,
        address: Option<IpAddr>,
        ca_dir: &Path,
        credential: Option<PathBuf>,
    ) -> Result<Self, Error> {
        let ca = ca_dir.join("ca.crt");
        let files = Files::read(&ca, credential.as_deref())?;
        let current = Mutex::new(Current {
            access: files.access(&ca, address)?,
            files,
            looked: Instant::now(),
        });
        Ok(Self {
            uri,
            address,
            ca,
            credential,
            current,
            look_interval: LOOK_INTERVAL,
        })
    }

    /// The same, which looks at its files so often.
    #[cfg(test)]
    pub(super) const fn with_look_interval(mut self, look_interval: Duration) -> Self {
        self.look_interval = look_interval;
        self
    }

    /// Asks the registry for what a client asked for. The answer comes as the registry sends it.
    pub(super) async fn ask(
        &self,
        method: &Method,
        target: &Uri,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Error> {
        let access = self.access();
        let mut parts = self.uri.clone().into_parts();
        parts.path_and_query = target
            .path_and_query()
            .cloned()
            .or(Some(PathAndQuery::from_static("/")));
        let uri = Uri::from_parts(parts).map_err(|source| Error::Path {
            path: target.path().to_owned(),
            source: source.into(),
        })?;
        let mut request = Request::new(Empty::new());
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = asked(headers);
        let sent = request.headers_mut();
        sent.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        if let Some(authorization) = access.authorization {
            sent.insert(AUTHORIZATION, authorization);
        }
        let response = tokio::time::timeout(SILENCE_TIMEOUT, access.connections.request(request));
        let response = response.await.map_err(|_| Error::Silent)?.map_err(Error::Unreachable)?;
        let (head, body) = response.into_parts();
        let mut answer = Response::new(Patient::new(body).boxed_unsync());
        *answer.status_mut() = head.status;
        *answer.headers_mut() = answered(&head.headers);
        Ok(answer)
    }

    /// How to ask, as the files say now. Files that are wrong leave things as they were.
    fn access(&self) -> Access {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() >= self.look_interval {
            current.looked = Instant::now();
            match self.changed(&current.files) {
                Ok(Some((files, access))) => {
                    tracing::info!("The authorities or the credential of the registry changed");
                    current.files = files;
                    current.access = access;
                }
                Ok(None) => {}
                Err(error) => {
                    let error = anyhow::Error::from(error);
                    tracing::warn!(error = format!("{error:#}"), "What changed on disk cannot be used");
                }
            }
        }
        current.access.clone()
    }

    fn changed(&self, known: &Files) -> Result<Option<(Files, Access)>, Error> {
        let files = Files::read(&self.ca, self.credential.as_deref())?;
        if files == *known {
            return Ok(None);
        }
        let access = files.access(&self.ca, self.address)?;
        Ok(Some((files, access)))
    }
}

impl Files {
    fn read(ca: &Path, credential: Option<&Path>) -> Result<Self, Error> {
        let read = |path: PathBuf| match fs::read(&path) {
            Ok(content) => Ok(Zeroizing::new(content)),
            Err(source) => Err(Error::File { path, source }),
        };
        let authorities = read(ca.to_owned())?.to_vec();
        let credential = credential.map(|folder| {
            let (username, password) = (read(folder.join("username"))?, read(folder.join("password"))?);
            let both = Zeroizing::new([username.trim_ascii(), b":", password.trim_ascii()].concat());
            Ok(Zeroizing::new(STANDARD.encode(&*both)))
        });
        Ok(Self {
            authorities,
            credential: credential.transpose()?,
        })
    }

    fn access(&self, ca: &Path, address: Option<IpAddr>) -> Result<Access, Error> {
        let no_authorities = || Error::Authorities { path: ca.to_owned() };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&self.authorities) {
            let certificate = certificate.map_err(|_| no_authorities())?;
            roots.add(certificate).map_err(|_| no_authorities())?;
        }
        if roots.is_empty() {
            return Err(no_authorities());
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(Error::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut http = HttpConnector::new_with_resolver(Resolver(address));
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        http.set_nodelay(true);
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_http1()
            .wrap_connector(http);
        let connections = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
            .build(https);
        // Base64 is always fit for a header.
        let authorization = self.credential.as_ref().and_then(|credential| {
            let value = Zeroizing::new(format!("Basic {}", credential.as_str()));
            HeaderValue::from_str(&value).ok()
        });
        Ok(Access {
            connections,
            authorization: authorization.map(|mut value| {
                value.set_sensitive(true);
                value
            }),
        })
    }
}

/// Finds the registry: at the address that is known, or by its name.
#[derive(Clone, Copy, Debug)]
struct Resolver(Option<IpAddr>);

impl tower::Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Resolving;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Resolving {
        let address = self.0;
        Box::pin(async move {
            let found = match address {
                // The connector puts the port in.
                Some(address) => vec![SocketAddr::new(address, 0)],
                None => tokio::net::lookup_host((name.as_str(), 0)).await?.collect(),
            };
            Ok(found.into_iter())
        })
    }
}

/// A body of which every piece comes within [`SILENCE_TIMEOUT`] after it was asked for, or which ends with an error.
struct Patient {
    body: Incoming,
    silence: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    const fn new(body: Incoming) -> Self {
        Self { body, silence: None }
    }
}

impl HttpBody for Patient {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.silence = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)));
        }
        let silence = self.silence.get_or_insert_with(|| Box::pin(sleep(SILENCE_TIMEOUT)));
        silence
            .as_mut()
            .poll(context)
            .map(|()| Some(Err(io::ErrorKind::TimedOut.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
