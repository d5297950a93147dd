//! A registry in this process, of which each test says how it answers.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, Method, Response, StatusCode, header},
    response::IntoResponse,
    serve::Listener,
};
use coral_api::ImageReference;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivatePkcs8KeyDer},
    server::TlsStream,
};

use crate::{Client, Keyring, Options};

/// Stands for every password and token that a test uses: it must be in no error.
pub(crate) const SECRET: &str = "coral-secret-canary";

/// The name of the server with TLS. A resolver takes it for 127.0.0.1; written as such, that would be spoken to in plain HTTP.
pub(crate) const TLS_HOST: &str = "0x7f000001";

/// What a client asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn authorization(&self) -> Option<&str> {
        self.header(header::AUTHORIZATION)
    }
}

/// A running server; it ends when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Listens in plain HTTP on a free port of 127.0.0.1. `answer` is given the server's own `host:port` too.
    pub(crate) async fn start<R: IntoResponse>(answer: impl Fn(&str, &Asked) -> R + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        Self::serve(listener, address, answer)
    }

    /// Listens with TLS. Also gives the certificate of the authority that vouches for it, in PEM form.
    pub(crate) async fn start_tls<R: IntoResponse>(
        answer: impl Fn(&str, &Asked) -> R + Send + Sync + 'static,
    ) -> (Self, String) {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([TLS_HOST.to_owned()])
            .unwrap()
            .signed_by(&key, &authority)
            .unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let listener = TlsListener {
            listener,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        };
        (Self::serve(listener, address, answer), authority.pem())
    }

    fn serve<R: IntoResponse>(
        listener: impl Listener<Addr = SocketAddr>,
        address: SocketAddr,
        answer: impl Fn(&str, &Asked) -> R + Send + Sync + 'static,
    ) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&asked);
        let answer = Arc::new(answer);
        let router = Router::new().fallback(async move |request: Request| {
            let (head, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 1_000_000).await.unwrap();
            let request = Asked {
                method: head.method,
                target: head.uri.to_string(),
                headers: head.headers,
                body: String::from_utf8_lossy(&body).into_owned(),
            };
            let response = answer(&address.to_string(), &request).into_response();
            record.lock().unwrap().push(request);
            response
        });
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, asked, task }
    }

    /// Everything that was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// The paths that were asked for so far, without queries.
    pub(crate) fn paths(&self) -> Vec<String> {
        let path = |asked: &Asked| asked.target.split('?').next().unwrap().to_owned();
        self.asked().iter().map(path).collect()
    }
}

struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.listener.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// The digest of a document.
pub(crate) fn digest(document: &Value) -> String {
    crate::digest::digest_like("", document.to_string().as_bytes())
}

/// A manifest whose configuration weighs 10 bytes and whose layers weigh `layers`.
pub(crate) fn image(layers: &[u64]) -> Value {
    let layer = |size: &u64| json!({"digest": format!("sha256:{size:064}"), "size": size});
    json!({
        "schemaVersion": 2,
        "config": {"digest": format!("sha256:{:0>64}", "c"), "size": 10},
        "layers": layers.iter().map(layer).collect::<Vec<_>>(),
    })
}

/// An index of one image for each of the platforms.
pub(crate) fn index(images: &[(&str, &Value)]) -> Value {
    let entry = |(architecture, image): &(&str, &Value)| json!({"digest": digest(image), "size": 1, "platform": {"os": "linux", "architecture": architecture}});
    json!({"schemaVersion": 2, "manifests": images.iter().map(entry).collect::<Vec<_>>()})
}

pub(crate) fn ok(document: &Value) -> Response<Body> {
    Response::new(Body::from(document.to_string()))
}

pub(crate) fn status(status: StatusCode) -> Response<Body> {
    Response::builder().status(status).body(Body::empty()).unwrap()
}

pub(crate) fn redirect(location: &str) -> Response<Body> {
    with_header(StatusCode::TEMPORARY_REDIRECT, header::LOCATION, location)
}

pub(crate) fn challenge(challenge: &str) -> Response<Body> {
    with_header(StatusCode::UNAUTHORIZED, header::WWW_AUTHENTICATE, challenge)
}

pub(crate) fn with_header(status: StatusCode, name: header::HeaderName, value: &str) -> Response<Body> {
    Response::builder()
        .status(status)
        .header(name, value)
        .body(Body::empty())
        .unwrap()
}

/// A body that never ends.
pub(crate) fn endless() -> Response<Body> {
    let chunks = futures::stream::repeat_with(|| Ok::<_, io::Error>(vec![b' '; 64 * 1024]));
    Response::new(Body::from_stream(chunks))
}

/// An answer whose body never comes.
pub(crate) fn silent() -> Response<Body> {
    Response::new(Body::from_stream(futures::stream::pending::<io::Result<Vec<u8>>>()))
}

pub(crate) fn client() -> Client {
    Client::new(Options::default()).unwrap()
}

pub(crate) fn reference(server: &Server, rest: &str) -> ImageReference {
    format!("{}/{rest}", server.address).parse().unwrap()
}

/// The credentials that a configuration has for the registry `any`.
pub(crate) fn keyring(entry: &serde_json::Value) -> Keyring {
    Keyring::from_config_json(json!({"auths": {"any": entry}}).to_string().as_bytes()).unwrap()
}

pub(crate) fn user(name: &str) -> Keyring {
    keyring(&json!({"username": name, "password": SECRET}))
}

pub(crate) fn basic(name: &str) -> String {
    use base64::Engine as _;
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{SECRET}"));
    format!("Basic {pair}")
}

/// A registry with tokens: `user` gets one, nobody else does.
pub(crate) async fn with_tokens() -> Server {
    Server::start(|own, asked: &Asked| {
        let wanted = basic("user");
        if asked.target.starts_with("/token") {
            return if asked.authorization() == Some(&wanted) {
                ok(&json!({"token": format!("{SECRET}-token"), "expires_in": 300}))
            } else {
                status(StatusCode::UNAUTHORIZED)
            };
        }
        match asked.authorization() {
            Some(token) if token == format!("Bearer {SECRET}-token") => ok(&image(&[5])),
            _ => challenge(&format!(
                r#"Bearer realm="http://{own}/token",service="reg",scope="repository:acme/app:pull""#
            )),
        }
    })
    .await
}
