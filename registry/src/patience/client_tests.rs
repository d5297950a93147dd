//! The client against registries that fail for a moment.

use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::{Duration, Instant},
};

use axum::http::{StatusCode, header};
use serde_json::json;

use crate::{
    Client, Error, Options, Patience,
    test_server::{Asked, Server, challenge, image, ok, reference, status, user, with_header},
};

fn patient(attempts: u32) -> Client {
    let patience = Patience {
        attempts,
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_secs(2),
    };
    Client::new(Options {
        patience,
        ..Options::default()
    })
    .unwrap()
}

#[tokio::test]
async fn a_failure_for_the_moment_is_asked_again_so_often() {
    let server = Server::start(|_, _: &Asked| status(StatusCode::BAD_GATEWAY)).await;
    let repository = patient(3).repository(&reference(&server, "app"), None);
    let error = repository.manifest("v1").await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { status: 502, .. }), "{error:?}");
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn nobody_asks_while_a_registry_wants_a_pause() {
    let asked = AtomicUsize::new(0);
    let server = Server::start(move |_, _: &Asked| match asked.fetch_add(1, SeqCst) {
        0 => with_header(StatusCode::TOO_MANY_REQUESTS, header::RETRY_AFTER, "1"),
        _ => ok(&image(&[5])),
    })
    .await;
    let client = patient(3);
    let repository = client.repository(&reference(&server, "app"), None);
    let other = client.repository(&reference(&server, "other"), None);
    let began = Instant::now();
    let first = repository.manifest("v1");
    tokio::pin!(first);
    while server.asked().is_empty() {
        let _ = futures::poll!(&mut first);
        tokio::task::yield_now().await;
    }
    // The answer is on its way, or there; either way nothing else is asked before the second is over.
    let _ = tokio::time::timeout(Duration::from_millis(200), &mut first).await;
    let (one, two) = tokio::join!(first, other.manifest("v1"));
    assert!(one.is_ok() && two.is_ok());
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn many_questions_at_once_fetch_one_token() {
    let server = Server::start(|own, asked: &Asked| {
        if asked.target.starts_with("/token") {
            return ok(&json!({"token": "t", "expires_in": 300}));
        }
        match asked.authorization() {
            Some("Bearer t") => ok(&image(&[5])),
            _ => challenge(&format!(r#"Bearer realm="http://{own}/token""#)),
        }
    })
    .await;
    let user = user("user");
    let repository = patient(1).repository(&reference(&server, "app"), user.lookup("any/app").pop());
    let questions = (0..8).map(|_| repository.manifest("v1"));
    let answers = futures::future::join_all(questions).await;
    assert!(answers.iter().all(Result::is_ok));
    let tokens = server.paths().iter().filter(|path| *path == "/token").count();
    assert_eq!(tokens, 1);
}

#[tokio::test]
async fn a_token_is_renewed_before_it_is_too_old() {
    let server = Server::start(|own, asked: &Asked| {
        if asked.target.starts_with("/token") {
            return ok(&json!({"token": "t", "expires_in": 0}));
        }
        match asked.authorization() {
            Some("Bearer t") => ok(&image(&[5])),
            _ => challenge(&format!(r#"Bearer realm="http://{own}/token""#)),
        }
    })
    .await;
    let repository = patient(1).repository(&reference(&server, "app"), None);
    for _ in 0..2 {
        repository.manifest("v1").await.unwrap();
    }
    let manifest = "/v2/app/manifests/v1";
    assert_eq!(server.paths(), [manifest, "/token", manifest, "/token", manifest]);
}

#[tokio::test]
async fn a_registry_s_own_words_are_told() {
    let server = Server::start(|_, _: &Asked| {
        let body = json!({"errors": [{"code": "DENIED", "message": "the quota is used up"}]}).to_string();
        axum::http::Response::builder()
            .status(StatusCode::FORBIDDEN)
            .body(axum::body::Body::from(body))
            .unwrap()
    })
    .await;
    let repository = patient(1).repository(&reference(&server, "app"), None);
    let error = repository.manifest("v1").await.unwrap_err().to_string();
    assert!(
        error.ends_with("refuses access: DENIED, the quota is used up"),
        "{error}"
    );
}
