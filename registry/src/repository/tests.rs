use axum::{
    body::Body,
    http::{Method, Response, StatusCode, header},
};
use bytes::Bytes;

use crate::{
    Error, Manifest, Repository,
    digest::digest_like,
    test_server::{Asked, SECRET, Server, client, reference, status, user, with_header, with_tokens},
};

/// White space that a client which writes the document anew would lose.
const DOCUMENT: &str = "{ \"config\":  {} }\n";
const MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

fn manifest() -> Manifest {
    Manifest {
        media_type: MEDIA_TYPE.to_owned(),
        digest: digest_like("", DOCUMENT.as_bytes()),
        bytes: Bytes::from_static(DOCUMENT.as_bytes()),
    }
}

fn repository(server: &Server) -> Repository {
    client().repository(&reference(server, "app"), None)
}

#[tokio::test]
async fn manifest_is_read_and_written_byte_for_byte() {
    let server = Server::start(|_, asked: &Asked| match asked.method {
        Method::PUT => status(StatusCode::CREATED),
        _ => Response::builder()
            .header(header::CONTENT_TYPE, MEDIA_TYPE)
            .body(Body::from(DOCUMENT))
            .unwrap(),
    })
    .await;
    let repository = repository(&server);
    let read = repository.manifest("v1").await.unwrap();
    assert_eq!(read, manifest());
    repository.put_manifest("v2", &read).await.unwrap();
    let put = server.asked().pop().unwrap();
    assert_eq!((&*put.target, &*put.body), ("/v2/app/manifests/v2", DOCUMENT));
    assert_eq!(put.header(header::CONTENT_TYPE), Some(MEDIA_TYPE));
}

#[tokio::test]
async fn registry_that_stores_something_else_is_found_out() {
    let answer = |digest: String| {
        move |_: &str, _: &Asked| {
            let name = header::HeaderName::from_static("docker-content-digest");
            with_header(StatusCode::CREATED, name, &digest)
        }
    };
    let server = Server::start(answer(digest_like("", b"other"))).await;
    let error = repository(&server).put_manifest("v1", &manifest()).await.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error:?}");
    for other in [
        manifest().digest,
        digest_like("sha512:", b"other"),
        "nonsense".to_owned(),
    ] {
        let server = Server::start(answer(other)).await;
        assert!(repository(&server).put_manifest("v1", &manifest()).await.is_ok());
    }
}

#[tokio::test]
async fn head_tells_digest_type_and_size() {
    let digest = manifest().digest;
    let told = digest.clone();
    let server = Server::start(move |_, asked: &Asked| {
        if asked.target.ends_with("missing") {
            return status(StatusCode::NOT_FOUND);
        }
        let digest = if asked.target.ends_with("odd") { "../x" } else { &told };
        Response::builder()
            .header(header::CONTENT_TYPE, MEDIA_TYPE)
            .header("docker-content-digest", digest)
            .body(Body::from(DOCUMENT))
            .unwrap()
    })
    .await;
    let repository = repository(&server);
    let head = repository.manifest_head("v1").await.unwrap().unwrap();
    assert_eq!(head.digest, Some(digest));
    assert_eq!(
        (&*head.media_type, head.size),
        (MEDIA_TYPE, Some(DOCUMENT.len() as u64))
    );
    assert_eq!(repository.manifest_head("odd").await.unwrap().unwrap().digest, None);
    assert_eq!(repository.manifest_head("missing").await.unwrap(), None);
    assert!(server.asked().iter().all(|asked| asked.method == Method::HEAD));
}

#[tokio::test]
async fn what_is_gone_is_deleted() {
    let server = Server::start(|_, asked: &Asked| {
        status(match asked.target.rsplit('/').next() {
            Some("there") => StatusCode::ACCEPTED,
            Some("refused") => StatusCode::METHOD_NOT_ALLOWED,
            _ => StatusCode::NOT_FOUND,
        })
    })
    .await;
    let repository = repository(&server);
    assert!(repository.delete_manifest("there").await.is_ok());
    assert!(repository.delete_manifest("gone").await.is_ok());
    let error = repository.delete_manifest("refused").await.unwrap_err();
    assert!(matches!(error, Error::Unexpected { status: 405, .. }), "{error:?}");
    assert!(server.asked().iter().all(|asked| asked.method == Method::DELETE));
}

#[tokio::test]
async fn kinds_of_access_have_tokens_of_their_own() {
    let server = with_tokens().await;
    let user = user("user");
    let repository = client().repository(&reference(&server, "acme/app"), user.lookup("any/app").pop());
    repository.manifest("v1").await.unwrap();
    repository.manifest("v1").await.unwrap();
    let _ = repository.delete_manifest("v1").await;
    let tokens: Vec<String> = server
        .asked()
        .into_iter()
        .filter(|asked| asked.target.starts_with("/token"))
        .map(|asked| asked.target)
        .collect();
    assert_eq!(tokens.len(), 2, "{tokens:?}");
    assert!(tokens[1].contains("delete"), "{tokens:?}");
}

#[tokio::test]
async fn debug_holds_no_credential() {
    let server = with_tokens().await;
    let user = user("user");
    let repository = client().repository(&reference(&server, "acme/app"), user.lookup("any/app").pop());
    repository.manifest("v1").await.unwrap();
    let shown = format!("{repository:?} {:?}", repository.blob("sha256:x", 1));
    assert!(shown.contains("acme/app") && !shown.contains(SECRET), "{shown}");
}
