use std::time::Duration;

use axum::{
    body::Body,
    http::{Method, Response, StatusCode, header},
};
use bytes::Bytes;
use futures::{Stream, stream};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::{
    Client, Error, Options, RedirectRefusal, Repository, Result,
    digest::digest_like,
    test_server::{Asked, SECRET, Server, basic, challenge, client, ok, reference, status, user, with_header},
};

const CONTENT: &str = "the content of a blob";

fn digest() -> String {
    digest_like("", CONTENT.as_bytes())
}

fn content() -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    stream::iter([Ok(Bytes::from(&CONTENT[..5])), Ok(Bytes::from(&CONTENT[5..]))])
}

fn place(location: &str) -> Response<Body> {
    with_header(StatusCode::ACCEPTED, header::LOCATION, location)
}

fn repository(server: &Server) -> Repository {
    let user = user("user");
    client().repository(&reference(server, "acme/app"), user.lookup("any/app").pop())
}

async fn send(repository: &Repository) -> Result<()> {
    let upload = repository.begin_upload().await?;
    upload.send(&digest(), CONTENT.len() as u64, content()).await
}

#[tokio::test]
async fn blob_is_sent_in_one_piece() {
    for location in ["/upload/7?state=x", "7?state=x"] {
        let server = Server::start(move |own, asked: &Asked| {
            if asked.target.starts_with("/token") {
                return ok(&json!({"token": SECRET}));
            }
            if asked.authorization().is_none() {
                return challenge(&format!(r#"Bearer realm="http://{own}/token""#));
            }
            match asked.method {
                Method::POST => place(location),
                _ => status(StatusCode::CREATED),
            }
        })
        .await;
        send(&repository(&server)).await.unwrap();
        let asked = server.asked();
        let token = asked.iter().find(|asked| asked.target.starts_with("/token")).unwrap();
        assert!(token.target.contains("acme%2Fapp%3Apull%2Cpush"), "{}", token.target);
        assert_eq!(token.authorization(), Some(&*basic("user")));
        let put = asked.last().unwrap();
        assert_eq!((&put.method, &*put.body), (&Method::PUT, CONTENT));
        assert_eq!(put.header(header::CONTENT_LENGTH), Some("21"));
        assert_eq!(put.authorization(), Some(&*format!("Bearer {SECRET}")));
        let path = if location.starts_with('/') {
            "/upload/7"
        } else {
            "/v2/acme/app/blobs/uploads/7"
        };
        let query = digest().replace(':', "%3A");
        assert_eq!(put.target, format!("{path}?state=x&digest={query}"));
    }
}

#[tokio::test]
async fn mounted_blob_is_not_sent() {
    let server = Server::start(|own, asked: &Asked| {
        if asked.target.starts_with("/token") {
            ok(&json!({"token": "t"}))
        } else if asked.authorization().is_none() {
            challenge(&format!(r#"Bearer realm="http://{own}/token""#))
        } else if asked.method == Method::PUT || asked.target.contains("from=acme%2Fbase") {
            status(StatusCode::CREATED)
        } else {
            place("/upload/7")
        }
    })
    .await;
    let repository = repository(&server);
    assert!(repository.mount(&digest(), "acme/base").await.unwrap().is_none());
    let token = server.asked().remove(1).target;
    for scope in ["acme%2Fapp%3Apull%2Cpush", "acme%2Fbase%3Apull"] {
        assert!(token.contains(scope), "{token}");
    }
    let upload = repository.mount(&digest(), "acme/other").await.unwrap().unwrap();
    upload.send(&digest(), CONTENT.len() as u64, content()).await.unwrap();
    let put = server.asked().pop().unwrap();
    assert_eq!((&*put.body, put.authorization()), (CONTENT, Some("Bearer t")));
}

#[tokio::test]
async fn place_elsewhere_is_given_no_credentials() {
    let elsewhere = Server::start(|_, _: &Asked| status(StatusCode::CREATED)).await;
    let location = format!("http://{}/upload", elsewhere.address);
    let server = Server::start(move |_, asked: &Asked| {
        if asked.authorization().is_some() {
            place(&location)
        } else {
            challenge("Basic")
        }
    })
    .await;
    send(&repository(&server)).await.unwrap();
    assert_eq!(elsewhere.asked().len(), 1);
    assert_eq!(elsewhere.asked()[0].authorization(), None);
}

#[tokio::test]
async fn bad_places_are_not_gone_to() {
    let server = Server::start(|_, _: &Asked| place("http://169.254.169.254/x")).await;
    let error = send(&repository(&server)).await.unwrap_err();
    let local = RedirectRefusal::Local;
    assert!(
        matches!(error, Error::Redirect { why, .. } if why == local),
        "{error:?}"
    );

    for answer in [status(StatusCode::ACCEPTED).status(), StatusCode::OK] {
        let server = Server::start(move |_, _: &Asked| status(answer)).await;
        assert!(send(&repository(&server)).await.is_err(), "{answer}");
    }
}

#[tokio::test]
async fn refusals_are_told() {
    for (code, is_expected) in [
        (
            StatusCode::BAD_REQUEST,
            (|error| matches!(error, Error::Unexpected { status: 400, .. })) as fn(Error) -> bool,
        ),
        (StatusCode::INSUFFICIENT_STORAGE, |error| {
            matches!(error, Error::Unavailable { status: 507, .. })
        }),
        (StatusCode::UNAUTHORIZED, |error| {
            matches!(error, Error::Unauthorized { .. })
        }),
    ] {
        let server = Server::start(move |_, asked: &Asked| match asked.method {
            Method::POST => place("/upload"),
            _ => status(code),
        })
        .await;
        assert!(is_expected(send(&repository(&server)).await.unwrap_err()), "{code}");
    }
}

#[tokio::test]
async fn content_that_is_not_to_be_had_is_the_reason() {
    let server = Server::start(|_, asked: &Asked| match asked.method {
        Method::POST => place("/upload"),
        _ => status(StatusCode::CREATED),
    })
    .await;
    let upload = repository(&server).begin_upload().await.unwrap();
    let failure = Error::NotFound {
        host: "origin".into(),
        what: "blob".into(),
    };
    let content = stream::iter([Ok(Bytes::from(&CONTENT[..5])), Err(failure)]);
    let error = upload.send(&digest(), CONTENT.len() as u64, content).await.unwrap_err();
    assert!(
        matches!(&error, Error::NotFound { host, .. } if host == "origin"),
        "{error:?}"
    );
    assert!(
        !server
            .asked()
            .iter()
            .any(|asked| asked.method == Method::PUT && asked.body == CONTENT),
        "no whole blob came"
    );
}

#[tokio::test]
async fn registry_that_reads_no_more_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await.unwrap();
        let answer = b"HTTP/1.1 202 Accepted\r\nlocation: /upload\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        // The upload comes on this connection, and nobody reads it.
        std::future::pending::<()>().await;
    });
    let options = Options {
        timeout: Duration::from_millis(300),
        ..Options::default()
    };
    let image = format!("{address}/app").parse().unwrap();
    let repository = Client::new(options).unwrap().repository(&image, None);
    let upload = repository.begin_upload().await.unwrap();
    let piece = Bytes::from(vec![0; 1024 * 1024]);
    let content = stream::repeat_with(move || Ok(piece.clone()));
    let digest = digest();
    let sent = tokio::time::timeout(Duration::from_secs(30), upload.send(&digest, 1 << 40, content));
    let error = sent.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    server.abort();
}

#[test]
fn ranges_from_the_first_byte_on_say_how_much_there_is() {
    for (range, expected) in [
        ("0-1023", Some(1024)),
        ("bytes=0-1023", Some(1024)),
        // Nothing, or one byte: registries say this of both.
        ("0-0", None),
        ("5-1023", None),
        ("0-18446744073709551615", None),
        ("0--1", None),
        ("", None),
    ] {
        assert_eq!(super::bytes_in(range), expected, "{range}");
    }
}
