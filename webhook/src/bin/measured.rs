//! The two sides of `cargo xtask bench webhook`: servers to compare the webhook with, and requests for all of them.
#![expect(clippy::print_stdout, reason = "a command line program prints")]
#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on is over")]

#[path = "../../../admission/benches/review/objects.rs"]
mod objects;

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::{Request, header::CONTENT_TYPE};
use bytes::Bytes;
use clap::{Parser, ValueEnum};
use coral_webhook::{Args, bench};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::JoinSet};
use tokio_rustls::TlsConnector;

#[derive(Parser)]
enum Command {
    /// The webhook's server, admitting what it has read.
    ReadOnly(Args),
    /// The webhook's server, saying the same to everybody.
    Constant(Args),
    /// Sends reviews over one connection, and prints how fast they were answered.
    Load(Load),
    /// Prints an object to measure with.
    Object { object: Object },
    /// Writes a certificate for these hosts.
    Certificate {
        folder: PathBuf,
        #[arg(required = true)]
        hosts: Vec<String>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Object {
    Deployment,
    Pod,
}

impl Object {
    fn value(self) -> Value {
        match self {
            Self::Deployment => objects::deployment(),
            Self::Pod => objects::pod(),
        }
    }
}

#[derive(clap::Args)]
struct Load {
    /// Where the server listens.
    #[arg(long)]
    address: SocketAddr,
    /// Its name.
    #[arg(long)]
    host: String,
    /// Who signed its certificate.
    #[arg(long)]
    authority: PathBuf,
    /// What is reviewed.
    #[arg(long)]
    object: Object,
    /// Requests at the same time.
    #[arg(long)]
    in_flight: usize,
    /// For how long, in milliseconds.
    #[arg(long)]
    milliseconds: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    match Command::parse() {
        Command::ReadOnly(args) => bench::run_without_review(args).await.unwrap(),
        Command::Constant(args) => bench::run_without_reading(args).await.unwrap(),
        Command::Load(load) => println!("{}", send(load).await),
        Command::Object { object } => println!("{}", object.value()),
        Command::Certificate { folder, hosts } => bench::write_certificate(&folder, &hosts).unwrap(),
    }
}

/// Keeps so many requests under way for so long.
async fn send(load: Load) -> Value {
    let review = json!({
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "0df28fbd-5f5f-11e8-bc74-36e6bb280816",
            "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:deployment-controller", "groups": ["system:authenticated"]},
            "object": load.object.value(),
            "oldObject": null,
            "dryRun": false,
        },
    });
    let body = Bytes::from(review.to_string());
    let bytes = body.len();
    let sender = connect(&load).await;
    let uri = format!("https://{}/mutate", load.host);
    let end = Instant::now() + Duration::from_millis(load.milliseconds);
    let began = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..load.in_flight {
        let (mut sender, uri, body) = (sender.clone(), uri.clone(), body.clone());
        workers.spawn(async move {
            let mut microseconds = Vec::new();
            while Instant::now() < end {
                let asked = Instant::now();
                let request = Request::post(&uri)
                    .header(CONTENT_TYPE, "application/json")
                    .body(Full::new(body.clone()))
                    .unwrap();
                let response = sender.send_request(request).await.unwrap();
                assert_eq!(response.status(), 200);
                response.into_body().collect().await.unwrap();
                microseconds.push(u64::try_from(asked.elapsed().as_micros()).unwrap());
            }
            microseconds
        });
    }
    let mut microseconds = workers.join_all().await.concat();
    let seconds = began.elapsed().as_secs_f64();
    microseconds.sort_unstable();
    let share = |percent: usize| microseconds.get(microseconds.len() * percent / 100).copied();
    json!({"requests": microseconds.len(), "seconds": seconds, "bytes": bytes, "p50": share(50), "p99": share(99)})
}

/// A connection as the API server makes it: TLS 1.3, HTTP/2.
async fn connect(load: &Load) -> SendRequest<Full<Bytes>> {
    let mut roots = RootCertStore::empty();
    let authority = fs::read(&load.authority).unwrap();
    roots.add(CertificateDer::from_pem_slice(&authority).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(load.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let name = ServerName::try_from(load.host.clone()).unwrap();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap();
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}
