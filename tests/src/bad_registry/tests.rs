use std::{collections::HashSet, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::*;
use crate::wait::{Look, eventually};

/// The whole answer to a request, as far as it came.
async fn ask(registry: &BadRegistry, method: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(registry.host()).await?;
    stream
        .write_all(format!("{method} {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes())
        .await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[test]
fn every_misbehaviour_has_a_repository_of_its_own() {
    let names: HashSet<String> = Misbehaviour::ALL.iter().map(|one| one.repository()).collect();
    assert_eq!(names.len(), Misbehaviour::ALL.len());
    assert_eq!(Misbehaviour::ManifestSchema1.repository(), "manifest-schema1");
    assert_eq!(Misbehaviour::of("blob-hangs"), Some(Misbehaviour::BlobHangs));
    assert_eq!(Misbehaviour::of("blob"), None);
}

#[tokio::test]
async fn repository_chooses_what_goes_wrong() {
    let registry = BadRegistry::start(Ipv4Addr::LOCALHOST).await.unwrap();
    let cases = [
        (Misbehaviour::None, "HTTP/1.1 200 OK\r\n"),
        (Misbehaviour::ManifestUnknown, "HTTP/1.1 404 Not Found\r\n"),
        (Misbehaviour::RateLimited, "HTTP/1.1 429 Too Many Requests\r\n"),
        (Misbehaviour::TokenUseless, "HTTP/1.1 401 Unauthorized\r\n"),
        (Misbehaviour::RedirectLoop, "HTTP/1.1 307 Temporary Redirect\r\n"),
        (Misbehaviour::ConnectionClosed, ""),
    ];
    for (misbehaviour, start) in cases {
        let path = format!("/v2/{}/manifests/v1", misbehaviour.repository());
        let answer = ask(&registry, "GET", &path).await.unwrap();
        let first_line = answer.split_inclusive('\n').next().unwrap_or_default();
        assert_eq!(first_line, start, "{misbehaviour:?}");
    }
    let reset = ask(&registry, "GET", "/v2/connection-reset/manifests/v1").await;
    assert_eq!(reset.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn truncated_blob_announces_more_than_it_sends() {
    let registry = BadRegistry::start(Ipv4Addr::LOCALHOST).await.unwrap();
    let manifest = ask(&registry, "GET", "/v2/blob-truncated/manifests/v1").await.unwrap();
    let manifest: serde_json::Value = serde_json::from_str(manifest.split_once("\r\n\r\n").unwrap().1).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    let answer = ask(&registry, "GET", &format!("/v2/blob-truncated/blobs/{layer}"))
        .await
        .unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("Content-Length: 4096"), "{head}");
    assert_eq!(body.len(), 2048);
}

#[tokio::test]
async fn silent_connection_is_open_until_the_client_ends_it() {
    let registry = BadRegistry::start(Ipv4Addr::LOCALHOST).await.unwrap();
    let open = async |expected| {
        let what = format!("{expected} connections to be open");
        eventually(&what, Duration::from_secs(5), async || {
            let open = registry.open_connections();
            Ok(if open == expected {
                Look::Done(())
            } else {
                Look::NotYet(open)
            })
        })
        .await
        .unwrap();
    };
    let mut stream = TcpStream::connect(registry.host()).await.unwrap();
    stream
        .write_all(b"GET /v2/connection-hangs/manifests/v1 HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    open(1).await;
    drop(stream);
    open(0).await;
}
