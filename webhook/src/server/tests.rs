use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

use axum::http::{StatusCode, header::CONTENT_TYPE};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use coral_admission::rewrite::Copies;
use coral_api::MirroredImage;
use jiff::{SignedDuration, Timestamp};
use reqwest::{Client, Version, tls};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::oneshot,
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;
use crate::{
    certificate::{
        authority::{Pair, issue, make_authority},
        files,
    },
    copies::KnownCopies,
    coverage::KnownCoverage,
    handler::{PATH, REWRITE_PATH, image_reviewer, reviewer, router},
};

const HOST: &str = "coral-webhook.coral-system.svc";

/// A server on a port of its own.
struct Site {
    address: std::net::SocketAddr,
    served: ServedCertificate,
    metrics: Metrics,
    copies: KnownCopies,
    shutdown_tx: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl Site {
    async fn new(limits: Limits) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let metrics = Metrics::default();
        let served = ServedCertificate::new(Arc::clone(&provider), metrics.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown_tx, shutdown_rx) = oneshot::channel();
        let answer = reviewer(metrics.clone(), KnownCoverage::default());
        let copies = KnownCopies::default();
        let answer_images = image_reviewer(metrics.clone(), copies.clone());
        let router = router(answer, answer_images, metrics.clone(), limits);
        let tls = tls_config(provider, served.clone()).unwrap();
        let shutdown = async {
            let _ = shutdown_rx.await;
        };
        let serving = tokio::spawn(serve(listener, tls, router, metrics.clone(), limits, shutdown));
        Self {
            address,
            served,
            metrics,
            copies,
            shutdown_tx: Some(shutdown_tx),
            serving,
        }
    }

    /// With a certificate. Returns the authority that signed it, too.
    async fn with_certificate(limits: Limits) -> (Self, String) {
        let site = Self::new(limits).await;
        let (authority, pair) = certificate();
        site.served
            .set(pair.certificate.as_bytes(), pair.key.as_bytes())
            .unwrap();
        (site, authority)
    }

    fn url(&self) -> String {
        format!("https://{HOST}:{}{PATH}", self.address.port())
    }

    fn client(&self, authority: &str) -> reqwest::ClientBuilder {
        // Another test may have done it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let authority = reqwest::Certificate::from_pem(authority.as_bytes()).unwrap();
        Client::builder()
            .tls_certs_only([authority])
            .resolve(HOST, self.address)
            .no_proxy()
            .timeout(Duration::from_secs(20))
    }

    /// A connection that speaks HTTP/1.1 by hand.
    async fn raw(&self, authority: &str) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap())
            .unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from(HOST).unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .unwrap()
    }
}

fn certificate() -> (String, Pair) {
    let now = Timestamp::now();
    let authority = make_authority(now, SignedDuration::from_hours(2)).unwrap();
    let pair = issue(&authority, &[HOST.to_owned()], now, now + SignedDuration::from_hours(1)).unwrap();
    (authority.certificate, pair)
}

fn body(padding: usize) -> String {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "7",
            "operation": "CREATE",
            "object": {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"generateName": "web-", "annotations": {"image.stvz.io/inject": "selectors", "padding": " ".repeat(padding)}},
                "spec": {"containers": [{"name": "web", "image": "nginx:1.29"}]},
            },
        },
    })
    .to_string()
}

async fn ask(client: &Client, url: &str, body: String) -> reqwest::Result<(StatusCode, Version, String)> {
    let response = client
        .post(url)
        .header(CONTENT_TYPE, "application/json")
        .body(body)
        .send()
        .await?;
    let (status, version) = (response.status(), response.version());
    Ok((status, version, response.text().await?))
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), what).await.expect("it takes too long")
}

#[tokio::test]
async fn reviews_are_answered_over_every_protocol() {
    let (site, authority) = Site::with_certificate(Limits::default()).await;
    for tls in [tls::Version::TLS_1_2, tls::Version::TLS_1_3] {
        let builder = || site.client(&authority).min_tls_version(tls).max_tls_version(tls);
        for (client, expected) in [
            (builder().http1_only().build().unwrap(), Version::HTTP_11),
            (builder().build().unwrap(), Version::HTTP_2),
        ] {
            let (status, version, text) = ask(&client, &site.url(), body(0)).await.unwrap();
            assert_eq!((status, version), (StatusCode::OK, expected), "{text}");
            let answer: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(answer["response"]["patchType"], json!("JSONPatch"));
        }
    }
    let old = site.client(&authority).max_tls_version(tls::Version::TLS_1_1).build();
    if let Ok(old) = old {
        assert!(ask(&old, &site.url(), body(0)).await.is_err());
    }
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &site.metrics.registry()).unwrap();
    assert!(
        text.contains(r#"coral_webhook_admissions_total{kind="Pod",result="patched"} 4"#),
        "{text}"
    );
}

#[tokio::test]
async fn images_are_reviewed_at_a_path_of_their_own() {
    let (site, authority) = Site::with_certificate(Limits::default()).await;
    let client = site.client(&authority).build().unwrap();
    let url = site.url().replace(PATH, REWRITE_PATH);
    let patch = async || {
        let (status, _, text) = ask(&client, &url, body(0)).await.unwrap();
        assert_eq!(status, StatusCode::OK, "{text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        answer["response"]["patch"].as_str().map(str::to_owned)
    };
    assert_eq!(patch().await, None, "nothing is known of copies");
    let image: MirroredImage = serde_json::from_value(json!({
        "apiVersion": "image.stvz.io/v1alpha1",
        "kind": "MirroredImage",
        "metadata": {"name": "x"},
        "spec": {"image": "docker.io/library/nginx:1.29", "rewrite": "Always"},
        "status": {"destinations": [{
            "mirror": "all", "reference": "r.example.com/nginx:1.29", "state": "Present",
            "nodeReference": "localhost:7439/docker.io/library/nginx:1.29",
        }]},
    }))
    .unwrap();
    let mut copies = Copies::default();
    copies.insert(&image);
    site.copies.set(copies);
    let decoded = BASE64_STANDARD.decode(patch().await.unwrap()).unwrap();
    let decoded: Value = serde_json::from_slice(&decoded).unwrap();
    let copy = "localhost:7439/docker.io/library/nginx:1.29";
    assert_eq!(
        decoded[0],
        json!({"op": "replace", "path": "/spec/containers/0/image", "value": copy})
    );
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &site.metrics.registry()).unwrap();
    assert!(text.contains("coral_webhook_rewritten_images_total 1"), "{text}");
}

#[tokio::test]
async fn what_is_no_review_gets_the_status_that_says_so() {
    let limits = Limits {
        body: 100_000,
        ..Limits::default()
    };
    let (site, authority) = Site::with_certificate(limits).await;
    for client in [
        site.client(&authority).http1_only().build().unwrap(),
        site.client(&authority).build().unwrap(),
    ] {
        let url = site.url();
        assert_eq!(ask(&client, &url, body(90_000)).await.unwrap().0, StatusCode::OK);
        let too_large = ask(&client, &url, body(2_000_000)).await;
        // The answer may come while the client still sends, and cut it off.
        assert!(too_large.is_err() || too_large.is_ok_and(|(status, ..)| status == StatusCode::PAYLOAD_TOO_LARGE));
        assert_eq!(
            ask(&client, &url, body(100_000)).await.unwrap().0,
            StatusCode::PAYLOAD_TOO_LARGE
        );
        let (status, _, text) = ask(&client, &url, "nonsense".to_owned()).await.unwrap();
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(
            text.starts_with("failed to read the AdmissionReview: expected"),
            "{text}"
        );
        for (media_type, expected) in [
            ("text/plain", StatusCode::UNSUPPORTED_MEDIA_TYPE),
            ("application/json; charset=utf-8", StatusCode::OK),
            ("Application/JSON", StatusCode::OK),
        ] {
            let request = client.post(&url).header(CONTENT_TYPE, media_type).body(body(0));
            assert_eq!(request.send().await.unwrap().status(), expected, "{media_type}");
        }
        let bare = client.post(&url).body(body(0)).send().await.unwrap();
        assert_eq!(bare.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert_eq!(
            client.get(&url).send().await.unwrap().status(),
            StatusCode::METHOD_NOT_ALLOWED
        );
        let elsewhere = url.replace(PATH, "/metrics");
        assert_eq!(
            client.get(&elsewhere).send().await.unwrap().status(),
            StatusCode::NOT_FOUND
        );
    }
}

#[tokio::test]
async fn what_there_is_no_room_for_is_turned_away() {
    let limits = Limits {
        body: 300_000,
        bodies: 400_000,
        requests: 3,
        request: Duration::from_mins(1),
        ..Limits::default()
    };
    let (site, authority) = Site::with_certificate(limits).await;
    let client = site.client(&authority).build().unwrap();
    let head = |length: usize| {
        format!(
            "POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    // Two large requests that do not end: there is room for small ones, and for no other large one.
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut stream = site.raw(&authority).await;
        stream.write_all(head(200_000).as_bytes()).await.unwrap();
        stream.write_all(&vec![b' '; 190_000]).await.unwrap();
        stream.flush().await.unwrap();
        slow.push(stream);
    }
    let busy = async || {
        let answered = ask(&client, &site.url(), body(100_000)).await;
        // The answer may come while the client still sends, and cut it off.
        answered.map_or(true, |(status, ..)| status == StatusCode::SERVICE_UNAVAILABLE)
    };
    within(async { while !busy().await {} }).await;
    assert_eq!(ask(&client, &site.url(), body(0)).await.unwrap().0, StatusCode::OK);
    // A third request that is under way, however small, is one too many for anybody else.
    let mut stream = site.raw(&authority).await;
    stream.write_all(head(10).as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let status = async || ask(&client, &site.url(), body(0)).await.unwrap().0;
    within(async { while status().await != StatusCode::SERVICE_UNAVAILABLE {} }).await;
    // When they are given up there is room again.
    drop((slow, stream));
    within(async { while status().await != StatusCode::OK || busy().await {} }).await;
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &site.metrics.registry()).unwrap();
    assert!(
        text.contains(r#"coral_webhook_failed_requests_total{code="503"}"#),
        "{text}"
    );
}

#[tokio::test]
async fn nobody_can_be_slow_for_ever() {
    let short = Duration::from_millis(300);
    let limits = Limits {
        handshake: short,
        headers: short,
        request: short,
        connection_age: Duration::from_secs(2),
        connections: 1,
        ..Limits::default()
    };
    let (site, authority) = Site::with_certificate(limits).await;
    let mut buffer = Vec::new();

    let mut silent = TcpStream::connect(site.address).await.unwrap();
    within(silent.read_to_end(&mut buffer)).await.unwrap();
    // There is room for one connection: each of these has to wait until the one before is gone.
    let mut without_headers = site.raw(&authority).await;
    without_headers
        .write_all(b"POST /mutate HTTP/1.1\r\nHost: x\r\n")
        .await
        .unwrap();
    let _ = within(without_headers.read_to_end(&mut buffer)).await;
    drop(without_headers);

    let mut without_body = site.raw(&authority).await;
    let request = "POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{";
    without_body.write_all(request.as_bytes()).await.unwrap();
    buffer.clear();
    let _ = within(without_body.read_to_end(&mut buffer)).await;
    let answer = String::from_utf8_lossy(&buffer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    drop(without_body);

    // One that asks again and again is ended in good order, and notices nothing.
    let client = site.client(&authority).build().unwrap();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        assert_eq!(ask(&client, &site.url(), body(0)).await.unwrap().0, StatusCode::OK);
    }
}

#[tokio::test]
async fn without_a_certificate_there_is_no_connection_and_no_readiness() {
    let site = Site::new(Limits::default()).await;
    let (authority, pair) = certificate();
    assert!(!site.metrics.is_ready());
    let client = site.client(&authority).build().unwrap();
    assert!(ask(&client, &site.url(), body(0)).await.is_err());
    for (certificate, key) in [
        ("", ""),
        (pair.certificate.as_str(), ""),
        ("nonsense", pair.key.as_str()),
    ] {
        assert!(site.served.set(certificate.as_bytes(), key.as_bytes()).is_err());
    }
    // A key that belongs to another certificate.
    assert!(
        site.served
            .set(pair.certificate.as_bytes(), certificate().1.key.as_bytes())
            .is_err()
    );
    assert!(!site.metrics.is_ready());
    site.served
        .set(pair.certificate.as_bytes(), pair.key.as_bytes())
        .unwrap();
    assert!(site.metrics.is_ready());
    assert_eq!(ask(&client, &site.url(), body(0)).await.unwrap().0, StatusCode::OK);
}

/// As the kubelet writes a volume: a new folder, and `..data` swapped for a link to it.
fn swap(folder: &Path, version: &str, pair: &Pair) {
    let data = folder.join(version);
    fs::create_dir(&data).unwrap();
    fs::write(data.join("tls.crt"), &pair.certificate).unwrap();
    fs::write(data.join("tls.key"), &pair.key).unwrap();
    let link = folder.join("..data_tmp");
    symlink(version, &link).unwrap();
    fs::rename(&link, folder.join("..data")).unwrap();
    for name in ["tls.crt", "tls.key"] {
        let _ = symlink(Path::new("..data").join(name), folder.join(name));
    }
}

#[tokio::test]
async fn swapped_files_are_served_without_a_failed_call() {
    let site = Site::new(Limits::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let following = tokio::spawn(files::follow(folder.path().to_owned(), site.served.clone()));
    let (first_authority, first) = certificate();
    swap(folder.path(), "..one", &first);
    within(async {
        while !site.metrics.is_ready() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let open = site.client(&first_authority).build().unwrap();
    assert_eq!(ask(&open, &site.url(), body(0)).await.unwrap().0, StatusCode::OK);

    let (second_authority, second) = certificate();
    swap(folder.path(), "..two", &second);
    within(async {
        loop {
            // Every connection is new, and shows one certificate or the other.
            let client = |authority| site.client(authority).build().unwrap();
            let new = ask(&client(&second_authority), &site.url(), body(0)).await;
            assert_eq!(ask(&open, &site.url(), body(0)).await.unwrap().0, StatusCode::OK);
            if new.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    // Half a certificate is no reason to stop.
    fs::write(folder.path().join("..two/tls.crt"), "nonsense").unwrap();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let client = site.client(&second_authority).build().unwrap();
    assert_eq!(ask(&client, &site.url(), body(0)).await.unwrap().0, StatusCode::OK);
    following.abort();
}

#[tokio::test]
async fn what_is_under_way_at_the_end_is_answered() {
    let (mut site, authority) = Site::with_certificate(Limits::default()).await;
    let client = site.client(&authority).build().unwrap();
    assert_eq!(ask(&client, &site.url(), body(0)).await.unwrap().0, StatusCode::OK);
    let body = body(0);
    let mut stream = site.raw(&authority).await;
    let head = format!(
        "POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server reads the request: it says so.
    let mut continued = [0; 25];
    within(stream.read_exact(&mut continued)).await.unwrap();
    assert!(continued.starts_with(b"HTTP/1.1 100 Continue"));
    site.shutdown_tx.take().unwrap().send(()).unwrap();
    within(async {
        while TcpStream::connect(site.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = within(stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(
        answer.starts_with("HTTP/1.1 200 OK") && answer.contains("JSONPatch"),
        "{answer}"
    );
    within(site.serving).await.unwrap();
}
