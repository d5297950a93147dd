//! Throw-away collector.
#![allow(clippy::all, clippy::pedantic, clippy::unwrap_used, clippy::print_stdout)]
use std::time::Duration;
use coral_proto::runtime_v1::{ImageSpec, PullImageRequest, image_service_client::ImageServiceClient};
use coral_tests::{bad_registry::{BadRegistry, Misbehaviour}, Cluster};
use futures::StreamExt as _;
use tonic::transport::Endpoint;

fn trust(dir: &str, host: &str) {
    let folder = std::path::Path::new(dir).join(host);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("hosts.toml"), format!("server = \"http://{host}\"\n\n[host.\"http://{host}\"]\n  capabilities = [\"pull\", \"resolve\"]\n")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn collect() {
    let cluster = Cluster::shared().await.unwrap();
    let node = std::env::var("COLLECT_SOCKET").ok().unwrap_or_else(|| cluster.node("node-1").unwrap().containerd_socket().display().to_string());
    let dir = std::env::var("COLLECT_HOSTS").ok();
    let t = |host: &str| match &dir { Some(dir) => trust(dir, host), None => cluster.trust_plain_http(host).unwrap() };
    let registry = BadRegistry::start(cluster.host_address()).await.unwrap();
    t(&registry.host());
    let untrusted = BadRegistry::start(cluster.host_address()).await.unwrap();
    let tls = BadRegistry::start_tls(cluster.host_address()).await.unwrap();
    let tls_plain = BadRegistry::start_tls(cluster.host_address()).await.unwrap();
    t(&tls_plain.host());
    let mut cases: Vec<(String, String)> = Misbehaviour::ALL.iter().filter(|m| **m != Misbehaviour::HugeLayer || std::env::var("COLLECT_HUGE").is_ok()).map(|m| (format!("{m:?}"), registry.image(*m))).collect();
    let extra = [
        ("UnknownAuthority", tls.image(Misbehaviour::None)),
        ("PlainIsUntrusted", untrusted.image(Misbehaviour::None)),
        ("TlsWherePlain", tls_plain.image(Misbehaviour::None)),
        ("NoSuchHost", "registry.does-not-exist.invalid/app:v1".to_owned()),
        ("Refused", format!("{}:1/app:v1", cluster.host_address())),
        ("Unroutable", "192.0.2.1:5000/app:v1".to_owned()),
        ("NoRoute", "240.0.0.1:5000/app:v1".to_owned()),
        ("Uppercase", "example.org/Upper/App:v1".to_owned()),
        ("NoColon", "host:port/x/y@sha256:12".to_owned()),
        ("DigestUnknown", format!("{}/none@sha256:{}", registry.host(), "4043".repeat(16))),
        ("AuthPrivate", format!("{}/private/app:v1", cluster.registry_auth().host)),
        ("Unknown5000", format!("{}/x404/unauthorized-403:v1", cluster.registry())),
    ];
    cases.extend(extra.into_iter().map(|(a, b)| (a.to_owned(), b)));
    let api = format!("{}:6443", cluster.address()); if dir.is_some() { t(&api); cases.push(("PlainToGoTls".into(), format!("{api}/app:v1"))); }
    if let Ok(only) = std::env::var("COLLECT_ONLY") { cases.retain(|c| only.split(',').any(|o| o == c.0)); }
    if std::env::var("COLLECT_SERVE").is_ok() {
        for (name, image) in &cases { println!("@@ {name} {image}"); }
        tokio::time::sleep(Duration::from_secs(60)).await;
        return;
    }
    let channel = Endpoint::from_shared(format!("unix://{node}")).unwrap().connect_lazy();
    let timeout = std::env::var("COLLECT_TIMEOUT").map_or(25, |t| t.parse().unwrap());
    let out: Vec<(String, String)> = futures::stream::iter(cases).map(|(name, image)| {
        let mut client = ImageServiceClient::new(channel.clone());
        async move {
            let started = std::time::Instant::now();
            let mut request = tonic::Request::new(PullImageRequest { image: Some(ImageSpec { image: image.clone(), ..Default::default() }), auth: None });
            request.set_timeout(Duration::from_secs(timeout));
            let answer = client.pull_image(request).await;
            let line = match answer { Ok(_) => "OK".to_owned(), Err(status) => format!("{:?} src={} {}", status.code(), std::error::Error::source(&status).is_some(), status.message()) };
            (name, format!("[{:.1}s] {line}", started.elapsed().as_secs_f32()))
        }
    }).buffered(12).collect().await;
    for (name, line) in out { println!("@@ {name}: {line}"); }
}
