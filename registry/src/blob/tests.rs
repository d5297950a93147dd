use std::{
    io,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use axum::{
    body::Body,
    http::{Response, StatusCode, header},
};
use futures::{StreamExt as _, stream};

use crate::{
    Blob, Client, Error, Options,
    digest::digest_like,
    test_server::{Asked, Server, challenge, client, ok, reference, silent, status, with_header},
};

/// What the blob holds in these cases.
const CONTENT: &[u8] = b"the content of a blob, in more than one piece";

fn digest() -> String {
    digest_like("", CONTENT)
}

fn blob(server: &Server) -> Blob {
    client()
        .repository(&reference(server, "app"), None)
        .blob(&digest(), CONTENT.len() as u64)
}

/// Everything that a blob gives, and how it ends.
async fn read(mut blob: Blob) -> (Vec<u8>, Result<(), Error>) {
    let mut all = Vec::new();
    loop {
        match blob.chunk().await {
            Ok(Some(piece)) => all.extend_from_slice(&piece),
            Ok(None) => return (all, Ok(())),
            Err(error) => return (all, Err(error)),
        }
    }
}

/// An answer that says so much of `content`, and then breaks.
fn broken(code: StatusCode, content: &'static [u8]) -> Response<Body> {
    let end = stream::once(async {
        // What was said before is sent while nothing more is there.
        tokio::task::yield_now().await;
        Err(io::Error::other("broken on purpose"))
    });
    let pieces = stream::iter([Ok(content)]).chain(end);
    let mut response = Response::new(Body::from_stream(pieces));
    *response.status_mut() = code;
    response
}

/// The rest of the content, as a `Range` asks for it.
fn rest(asked: &Asked) -> (usize, Response<Body>) {
    let range = asked.header(header::RANGE).unwrap();
    let begin: usize = range
        .trim_start_matches("bytes=")
        .trim_end_matches('-')
        .parse()
        .unwrap();
    let end = CONTENT.len() - 1;
    let response = Response::builder()
        .status(StatusCode::PARTIAL_CONTENT)
        .header(header::CONTENT_RANGE, format!("bytes {begin}-{end}/{}", CONTENT.len()));
    (begin, response.body(Body::from(&CONTENT[begin..])).unwrap())
}

#[tokio::test]
async fn blob_comes_whole() {
    let server = Server::start(|_, _: &Asked| Response::new(Body::from(CONTENT))).await;
    let (all, end) = read(blob(&server)).await;
    assert_eq!(all, CONTENT);
    assert!(end.is_ok(), "{end:?}");
    assert_eq!(server.paths(), [format!("/v2/app/blobs/{}", digest())]);
    assert_eq!(server.asked()[0].header(header::RANGE), None);
}

#[tokio::test]
async fn blob_that_breaks_goes_on_where_it_was() {
    let server = Server::start(|_, asked: &Asked| match asked.header(header::RANGE) {
        None => broken(StatusCode::OK, &CONTENT[..10]),
        Some(_) => rest(asked).1,
    })
    .await;
    let (all, end) = read(blob(&server)).await;
    assert_eq!(all, CONTENT);
    assert!(end.is_ok(), "{end:?}");
    assert_eq!(server.asked().len(), 2);
    assert_eq!(server.asked()[1].header(header::RANGE), Some("bytes=10-"));
}

#[tokio::test]
async fn registry_that_begins_anew_is_understood() {
    let tries = AtomicUsize::new(0);
    let server = Server::start(move |_, _: &Asked| match tries.fetch_add(1, SeqCst) {
        0 => broken(StatusCode::OK, &CONTENT[..10]),
        1 => broken(StatusCode::OK, &CONTENT[..20]),
        _ => Response::new(Body::from(CONTENT)),
    })
    .await;
    let (all, end) = read(blob(&server)).await;
    assert_eq!(all, CONTENT);
    assert!(end.is_ok(), "{end:?}");
}

#[tokio::test]
async fn token_that_expires_in_the_middle_is_renewed() {
    let given = AtomicUsize::new(0);
    let server = Server::start(move |own, asked: &Asked| {
        if asked.target.starts_with("/token") {
            return ok(&serde_json::json!({"token": given.fetch_add(1, SeqCst).to_string()}));
        }
        match (asked.authorization(), asked.header(header::RANGE)) {
            (Some("Bearer 0"), None) => broken(StatusCode::OK, &CONTENT[..10]),
            (Some("Bearer 1"), Some(_)) => rest(asked).1,
            _ => challenge(&format!(r#"Bearer realm="http://{own}/token""#)),
        }
    })
    .await;
    let (all, end) = read(blob(&server)).await;
    assert_eq!(all, CONTENT);
    assert!(end.is_ok(), "{end:?}");
}

#[tokio::test]
async fn nobody_gets_the_whole_of_something_else() {
    let other: Vec<u8> = CONTENT.iter().rev().copied().collect();
    let server = Server::start(move |_, _: &Asked| Response::new(Body::from(other.clone()))).await;
    let mut blob = blob(&server);
    let mut got = 0;
    let error = loop {
        match blob.chunk().await {
            Ok(piece) => got += piece.unwrap().len(),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(&error, Error::DigestMismatch { digest: told, .. } if *told == digest()),
        "{error:?}"
    );
    assert!(got < CONTENT.len());
    // Nor does it end well for one who asks again.
    assert!(blob.chunk().await.is_err());
}

#[tokio::test]
async fn blob_larger_than_its_manifest_says_is_cut_off() {
    let server = Server::start(|_, _: &Asked| Response::new(Body::from([CONTENT, b"x"].concat()))).await;
    let (all, end) = read(blob(&server)).await;
    assert!(
        matches!(end, Err(Error::TooLarge { limit, .. }) if limit == CONTENT.len()),
        "{end:?}"
    );
    assert!(all.is_empty());
}

#[tokio::test]
async fn blob_that_keeps_breaking_is_given_up() {
    let server = Server::start(|_, asked: &Asked| {
        if asked.header(header::RANGE).is_none() {
            return Response::new(Body::from(&CONTENT[..10]));
        }
        let mut response = broken(StatusCode::PARTIAL_CONTENT, b"");
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_RANGE, "bytes 10-44/45".parse().unwrap());
        response
    })
    .await;
    let (all, end) = read(blob(&server)).await;
    assert_eq!(all, &CONTENT[..10]);
    assert!(matches!(end, Err(Error::Unreachable { .. })), "{end:?}");
    assert_eq!(server.asked().len(), 5);
}

#[tokio::test]
async fn another_part_than_asked_for_is_refused() {
    let server = Server::start(|_, asked: &Asked| {
        if asked.header(header::RANGE).is_none() {
            return broken(StatusCode::OK, &CONTENT[..10]);
        }
        with_header(StatusCode::PARTIAL_CONTENT, header::CONTENT_RANGE, "bytes 0-44/45")
    })
    .await;
    let (_, end) = read(blob(&server)).await;
    assert!(matches!(end, Err(Error::Malformed { .. })), "{end:?}");
}

#[tokio::test]
async fn silence_in_a_blob_is_not_waited_for() {
    let server = Server::start(|_, _: &Asked| silent()).await;
    let options = Options {
        timeout: Duration::from_millis(50),
        ..Options::default()
    };
    let client = Client::new(options).unwrap();
    let blob = client.repository(&reference(&server, "app"), None).blob(&digest(), 45);
    let (_, end) = read(blob).await;
    assert!(matches!(end, Err(Error::Timeout { .. })), "{end:?}");
}

#[tokio::test]
async fn size_of_a_blob_is_told_without_the_blob() {
    let here = digest();
    let server = Server::start(move |_, asked: &Asked| {
        if asked.target.ends_with(&here) {
            Response::new(Body::from(CONTENT))
        } else {
            status(StatusCode::NOT_FOUND)
        }
    })
    .await;
    let repository = client().repository(&reference(&server, "app"), None);
    assert_eq!(repository.blob_size(&digest()).await.unwrap(), Some(45));
    assert_eq!(repository.blob_size(&digest_like("", b"")).await.unwrap(), None);
    assert_eq!(server.asked()[0].method, "HEAD");
}
