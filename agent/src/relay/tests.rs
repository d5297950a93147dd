//! The relay with a registry behind it, over TLS.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, extract::State, routing::any};
use http::{HeaderMap, header::AUTHORIZATION};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
    service::TowerToHyperService,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tempfile::TempDir;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

use super::*;

const HOST: &str = "coral-registry.coral-system.svc";
/// `node:secret`, in base64.
const AUTHORIZED: &str = "Basic bm9kZTpzZWNyZXQ=";
const BLOB: &str = "/v2/mirror/app/blobs/sha256:00";

/// Every request that the registry has seen.
type Seen = Arc<Mutex<Vec<(Method, Uri, HeaderMap)>>>;

struct Registry {
    address: SocketAddr,
    seen: Seen,
    server: AbortHandle,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    fn acceptor(&self) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([HOST.to_owned()]).unwrap();
        let certificate: CertificateDer<'static> = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Answers as a registry does, to those who have the password.
async fn registry_answer(
    State(seen): State<Seen>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> (StatusCode, HeaderMap, Bytes) {
    let is_authorized = headers.get(AUTHORIZATION).is_some_and(|value| value == AUTHORIZED);
    let range = headers.get("range").is_some();
    seen.lock().unwrap().push((method, uri, headers));
    let mut answered = HeaderMap::new();
    answered.insert("docker-content-digest", HeaderValue::from_static("sha256:00"));
    answered.insert("x-internal", HeaderValue::from_static("secret"));
    if !is_authorized {
        return (StatusCode::UNAUTHORIZED, answered, Bytes::new());
    }
    if range {
        return (StatusCode::PARTIAL_CONTENT, answered, Bytes::from_static(b"part"));
    }
    (StatusCode::OK, answered, Bytes::from(vec![7; 3_000_000]))
}

async fn registry(authority: &Authority, address: SocketAddr) -> Registry {
    let acceptor = authority.acceptor();
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let router = Router::new()
        .fallback(any(registry_answer))
        .with_state(Arc::clone(&seen));
    let server = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, router) = (acceptor.clone(), router.clone());
            connections.spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    let service = TowerToHyperService::new(router);
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                }
            });
        }
    });
    Registry {
        address,
        seen,
        server: server.abort_handle(),
    }
}

fn anywhere() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// A folder with what the relay is given.
fn folder(authority: &Authority, password: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in [
        ("ca.crt", authority.pem.as_str()),
        ("username", "node"),
        ("password", password),
    ] {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

/// Starts a relay to a registry at this port, and returns its address.
async fn relay(port: u16, folder: &TempDir) -> SocketAddr {
    let upstream: Uri = format!("https://{HOST}:{port}").parse().unwrap();
    let path = folder.path();
    let upstream = Upstream::new(upstream, Some(Ipv4Addr::LOCALHOST.into()), path, Some(path.to_owned())).unwrap();
    let relay = Relay {
        upstream: upstream.with_look_interval(Duration::ZERO),
        metrics: Metrics::default(),
    };
    let listener = bind(anywhere()).await;
    let address = listener.local_addr().unwrap();
    tokio::spawn(Arc::new(relay).serve(listener, std::future::pending()));
    address
}

async fn ask(
    relay: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
) -> (StatusCode, HeaderMap, Bytes) {
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let mut request = Request::builder().method(method).uri(format!("http://{relay}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = client.request(request.body(Full::default()).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    (head.status, head.headers, body.collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn node_reads_with_the_credential_of_the_relay_and_not_with_its_own() {
    let authority = Authority::new();
    let registry = registry(&authority, anywhere()).await;
    let folder = folder(&authority, "secret\n");
    let relay = relay(registry.address.port(), &folder).await;
    let own = [("authorization", "Basic bWluZQ=="), ("accept", "a/b"), ("cookie", "c")];
    let (status, headers, body) = ask(relay, Method::GET, BLOB, &own).await;
    assert_eq!((status, body.len()), (StatusCode::OK, 3_000_000));
    assert_eq!(headers["docker-content-digest"], "sha256:00");
    assert!(!headers.contains_key("x-internal"), "{headers:?}");
    let (status, _, body) = ask(relay, Method::GET, BLOB, &[("range", "bytes=1-")]).await;
    assert_eq!((status, &*body), (StatusCode::PARTIAL_CONTENT, &b"part"[..]));
    let (status, headers, body) = ask(relay, Method::HEAD, BLOB, &[]).await;
    assert_eq!((status, body.len()), (StatusCode::OK, 0));
    assert_eq!(headers["content-length"], "3000000");

    let seen = registry.seen.lock().unwrap();
    assert_eq!(seen.len(), 3);
    let (_, uri, headers) = &seen[0];
    assert_eq!(uri.path(), BLOB);
    assert_eq!(headers["host"], format!("{HOST}:{}", registry.address.port()));
    assert_eq!(
        (&headers["authorization"], &headers["accept"]),
        (&AUTHORIZED.parse().unwrap(), &"a/b".parse().unwrap())
    );
    assert!(!headers.contains_key("cookie"));
}

#[tokio::test]
async fn what_nodes_do_not_need_never_reaches_the_registry() {
    let authority = Authority::new();
    let registry = registry(&authority, anywhere()).await;
    let folder = folder(&authority, "secret");
    let relay = relay(registry.address.port(), &folder).await;
    for method in [Method::PUT, Method::POST, Method::DELETE] {
        assert_eq!(ask(relay, method, BLOB, &[]).await.0, StatusCode::METHOD_NOT_ALLOWED);
    }
    for path in ["/v2/_catalog", "/", "/v2/a/tags/list"] {
        assert_eq!(
            ask(relay, Method::GET, path, &[]).await.0,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    assert!(registry.seen.lock().unwrap().is_empty());
    let metrics = ask(relay, Method::GET, "/metrics", &[]).await.2;
    let metrics = std::str::from_utf8(&metrics).unwrap();
    assert!(
        metrics.contains("coral_relay_requests_total{result=\"refused\"} 6"),
        "{metrics}"
    );
}

#[tokio::test]
async fn registry_that_fails_is_told_of_and_found_again() {
    let authority = Authority::new();
    let port = {
        let first = registry(&authority, anywhere()).await;
        first.address.port()
    };
    let folder = folder(&authority, "secret");
    let relay = relay(port, &folder).await;
    assert_eq!(ask(relay, Method::GET, "/healthz", &[]).await.0, StatusCode::OK);
    // The first registry's address may take a moment to be free.
    let status = ask(relay, Method::GET, BLOB, &[]).await.0;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        ask(relay, Method::GET, "/readyz", &[]).await.0,
        StatusCode::SERVICE_UNAVAILABLE
    );
    let _registry = registry(&authority, SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await;
    assert_eq!(ask(relay, Method::GET, BLOB, &[]).await.0, StatusCode::OK);
    assert_eq!(ask(relay, Method::GET, "/readyz", &[]).await.0, StatusCode::OK);
}

#[tokio::test]
async fn registry_is_believed_only_if_the_authority_vouches_and_credentials_are_read_again() {
    let (authority, other) = (Authority::new(), Authority::new());
    let registry = registry(&authority, anywhere()).await;
    let folder = folder(&other, "wrong");
    let relay = relay(registry.address.port(), &folder).await;
    let (status, _, body) = ask(relay, Method::GET, BLOB, &[]).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(String::from_utf8_lossy(&body).contains("UNAVAILABLE"), "{body:?}");

    // Both authorities, as while one takes the other's place.
    std::fs::write(folder.path().join("ca.crt"), format!("{}{}", other.pem, authority.pem)).unwrap();
    let (status, headers, body) = ask(relay, Method::GET, BLOB, &[]).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert!(!headers.contains_key("www-authenticate"));
    assert!(String::from_utf8_lossy(&body).contains("credential"), "{body:?}");

    std::fs::write(folder.path().join("password"), "secret").unwrap();
    assert_eq!(ask(relay, Method::GET, BLOB, &[]).await.0, StatusCode::OK);
    // What cannot be used changes nothing.
    std::fs::write(folder.path().join("ca.crt"), "nonsense").unwrap();
    assert_eq!(ask(relay, Method::GET, BLOB, &[]).await.0, StatusCode::OK);
}

#[test]
fn arguments_are_consistent() {
    use clap::CommandFactory as _;
    RelayArgs::command().debug_assert();
    for (text, is_upstream) in [
        ("https://registry.example:5001", true),
        ("https://registry.example/", true),
        ("http://registry.example", false),
        ("https://registry.example/v2/", false),
        ("registry.example:5000", false),
    ] {
        assert_eq!(parse_upstream(text).is_ok(), is_upstream, "{text}");
    }
}
