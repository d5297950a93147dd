//! The client against registries that behave, and against those that do not.

mod redirects;

use std::time::Duration;

use axum::http::{Method, StatusCode, header};
use coral_api::ImageReference;
use serde_json::json;

use crate::{
    Client, Credential, Error, ImageSize, Options, Platform, RedirectRefusal,
    test_server::{
        Asked, SECRET, Server, TLS_HOST, basic, challenge, client, digest, endless, image, index, keyring, ok,
        redirect, reference, silent, status, user, with_header, with_tokens,
    },
};

fn amd64() -> Platform {
    Platform {
        os: "linux".into(),
        architecture: "amd64".into(),
        variant: None,
    }
}

async fn size(server: &Server, credentials: &[&Credential]) -> Result<ImageSize, Error> {
    client()
        .image_size(&reference(server, "acme/app:v1"), credentials, &amd64())
        .await
}

/// What goes wrong with a server that answers so. What is told of it never has the secret.
async fn failure(server: &Server) -> Error {
    let keyring = keyring(&json!({"username": "u", "password": SECRET}));
    let error = size(server, &keyring.lookup("any/app")).await.unwrap_err();
    let mut told = format!("{error:?}");
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = cause {
        told += &error.to_string();
        cause = error.source();
    }
    assert!(!told.contains(SECRET), "{told}");
    error
}

#[tokio::test]
async fn size_is_configuration_and_layers_of_the_platform() {
    let (wanted, other) = (image(&[100, 2000, 100]), image(&[7]));
    let index = index(&[("arm64", &other), ("amd64", &wanted)]);
    let top = digest(&index);
    let child = format!("/v2/acme/app/manifests/{}", digest(&wanted));
    let path = child.clone();
    let server = Server::start(
        move |_, asked: &Asked| {
            if asked.target == path { ok(&wanted) } else { ok(&index) }
        },
    )
    .await;
    let size = size(&server, &[]).await.unwrap();
    assert_eq!((size.compressed_bytes(), size.blobs.len()), (2110, 3));
    assert_eq!(size.digest, top);
    assert_eq!(server.paths(), ["/v2/acme/app/manifests/v1".to_owned(), child]);
    let accept = server.asked()[0].header(header::ACCEPT).unwrap().to_owned();
    for form in [
        "oci.image.index",
        "oci.image.manifest",
        "manifest.list.v2",
        "manifest.v2",
    ] {
        assert!(accept.contains(form), "{accept}");
    }
}

#[tokio::test]
async fn digest_decides_over_the_tag() {
    let image = image(&[5]);
    let digest = digest(&image);
    let server = Server::start(move |_, _: &Asked| ok(&image)).await;
    let both = reference(&server, &format!("app:v1@{digest}"));
    let size = client().image_size(&both, &[], &amd64()).await.unwrap();
    assert_eq!(size.compressed_bytes(), 15);
    assert_eq!(server.paths(), [format!("/v2/app/manifests/{digest}")]);
}

#[tokio::test]
async fn token_is_fetched_where_the_registry_says() {
    let server = with_tokens().await;
    let (client, user) = (client(), user("user"));
    let image = reference(&server, "acme/app:v1");
    let credentials = user.lookup("any/app");
    for _ in 0..2 {
        client.image_size(&image, &credentials, &amd64()).await.unwrap();
    }
    let manifest = "/v2/acme/app/manifests/v1";
    // The second time the client knows how the registry wants to be asked.
    assert_eq!(server.paths(), [manifest, "/token", manifest, "/token", manifest]);
    assert_eq!(
        server.asked()[1].target,
        "/token?service=reg&scope=repository%3Aacme%2Fapp%3Apull"
    );
    // How it wants to be asked does not say for what.
    let other = reference(&server, "acme/other");
    client.image_size(&other, &credentials, &amd64()).await.unwrap();
    let asked = server.asked();
    assert_eq!(
        asked[asked.len() - 2].target,
        "/token?service=reg&scope=repository%3Aacme%2Fother%3Apull"
    );
}

#[tokio::test]
async fn credentials_are_tried_in_order_then_none() {
    let server = with_tokens().await;
    let (wrong, right) = (user("other"), user("user"));
    let both = [wrong.lookup("any/app")[0], right.lookup("any/app")[0]];
    assert_eq!(size(&server, &both).await.unwrap().compressed_bytes(), 15);
    let error = size(&server, &both[..1]).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
    let last = server
        .asked()
        .into_iter()
        .rfind(|asked| asked.target.starts_with("/token"));
    assert_eq!(last.unwrap().authorization(), None, "the last one tried is nobody");
}

#[tokio::test]
async fn password_goes_to_registries_that_ask_for_it() {
    let server = Server::start(|_, asked: &Asked| {
        if asked.authorization() == Some(&basic("user")) {
            ok(&image(&[5]))
        } else {
            challenge(r#"Basic realm="x""#)
        }
    })
    .await;
    assert!(size(&server, &user("user").lookup("any/app")).await.is_ok());
    assert_eq!(server.asked()[0].authorization(), None, "not before it is asked for");
    let error = size(&server, &[]).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
}

#[tokio::test]
async fn identity_token_is_exchanged() {
    let server = Server::start(|own, asked: &Asked| {
        if asked.target == "/token" && asked.method == Method::POST {
            return if asked.body.contains(&format!("refresh_token={SECRET}")) {
                ok(&json!({"access_token": "t"}))
            } else {
                status(StatusCode::BAD_REQUEST)
            };
        }
        match asked.authorization() {
            Some("Bearer t") => ok(&image(&[5])),
            _ => challenge(&format!(r#"Bearer realm="http://{own}/token""#)),
        }
    })
    .await;
    let right = keyring(&json!({"username": "u", "identitytoken": SECRET}));
    assert!(size(&server, &right.lookup("any/app")).await.is_ok());
    let wrong = keyring(&json!({"identitytoken": "other"}));
    let repository = client().repository(&reference(&server, "acme/app:v1"), wrong.lookup("any/app").pop());
    let error = repository.manifest("v1").await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
}

#[tokio::test]
async fn expired_token_is_renewed_once() {
    let given = std::sync::atomic::AtomicUsize::new(0);
    let server = Server::start(move |own, asked: &Asked| {
        use std::sync::atomic::Ordering::SeqCst;
        if asked.target.starts_with("/token") {
            return ok(&json!({"token": given.fetch_add(1, SeqCst).to_string()}));
        }
        // Token 0 is good for the first manifest only, and there is never a good one for "refused".
        let is_good = match asked.target.as_str() {
            "/v2/acme/app/manifests/first" => asked.authorization() == Some("Bearer 0"),
            "/v2/acme/app/manifests/second" => asked.authorization() == Some("Bearer 1"),
            _ => false,
        };
        if is_good {
            ok(&image(&[5]))
        } else {
            challenge(&format!(r#"Bearer realm="http://{own}/token""#))
        }
    })
    .await;
    let repository = client().repository(&reference(&server, "acme/app:v1"), None);
    assert!(repository.manifest("first").await.is_ok());
    assert!(repository.manifest("second").await.is_ok());
    let before = server.asked().len();
    let error = repository.manifest("refused").await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
    assert_eq!(server.asked().len() - before, 3, "asked, token, asked again");
}

#[tokio::test]
async fn statuses_are_told_apart() {
    let answer = |code| move |_: &str, _: &Asked| with_header(code, header::RETRY_AFTER, "17");
    let server = Server::start(answer(StatusCode::TOO_MANY_REQUESTS)).await;
    let error = failure(&server).await;
    let pause = Some(Duration::from_secs(17));
    assert!(
        matches!(error, Error::RateLimited { retry_after, .. } if retry_after == pause),
        "{error:?}"
    );
    assert_eq!(server.asked().len(), 1, "no other credentials are tried");

    let server = Server::start(answer(StatusCode::SERVICE_UNAVAILABLE)).await;
    let error = failure(&server).await;
    assert!(
        matches!(error, Error::Unavailable { status: 503, retry_after, .. } if retry_after == pause),
        "{error:?}"
    );

    let server = Server::start(answer(StatusCode::NOT_FOUND)).await;
    let error = failure(&server).await;
    assert!(
        matches!(&error, Error::NotFound { what, .. } if what == "acme/app v1"),
        "{error:?}"
    );
    assert_eq!(server.asked().len(), 2, "with the credential, and with none");

    let server = Server::start(answer(StatusCode::FORBIDDEN)).await;
    let error = failure(&server).await;
    assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");

    let server = Server::start(answer(StatusCode::IM_A_TEAPOT)).await;
    let error = failure(&server).await;
    assert!(matches!(error, Error::Unexpected { status: 418, .. }), "{error:?}");
}

#[tokio::test]
async fn bodies_without_end_are_cut_off() {
    let server = Server::start(|_, _: &Asked| endless()).await;
    let error = failure(&server).await;
    assert!(
        matches!(error, Error::TooLarge { limit, .. } if limit == 4 * 1024 * 1024),
        "{error:?}"
    );

    let server = Server::start(|own, asked: &Asked| {
        if asked.target.starts_with("/token") {
            endless()
        } else {
            challenge(&format!(r#"Bearer realm="http://{own}/token""#))
        }
    })
    .await;
    let error = failure(&server).await;
    assert!(
        matches!(error, Error::TooLarge { limit, .. } if limit == 1024 * 1024),
        "{error:?}"
    );
}

#[tokio::test]
async fn silence_is_not_waited_for() {
    let server = Server::start(|_, _: &Asked| silent()).await;
    let after = Duration::from_millis(200);
    let options = Options {
        timeout: after,
        ..Options::default()
    };
    let client = Client::new(options).unwrap();
    let image = reference(&server, "app");
    let error = client.image_size(&image, &[], &amd64()).await.unwrap_err();
    assert!(
        matches!(error, Error::Timeout { after: told, .. } if told == after),
        "{error:?}"
    );
}

#[tokio::test]
async fn nobody_there_is_told() {
    let server = Server::start(|_, _: &Asked| silent()).await;
    let image = reference(&server, "app");
    let address = server.address.to_string();
    drop(server);
    // The listener is closed when its task has ended.
    let error = loop {
        match client().image_size(&image, &[], &amd64()).await {
            Err(Error::Unreachable { host, source }) => break (host, source.to_string()),
            _ => tokio::task::yield_now().await,
        }
    };
    assert_eq!(error.0, address);
}

#[tokio::test]
async fn documents_that_are_no_images_are_refused() {
    for document in [
        json!("nonsense"),
        json!({"schemaVersion": 1, "fsLayers": []}),
        json!({"manifests": [{"digest": "../../x", "size": 1, "platform": {"os": "linux", "architecture": "amd64"}}]}),
        json!({"config": {"digest": "a", "size": -5}, "layers": []}),
    ] {
        let text = document.to_string();
        let server = Server::start(move |_, _: &Asked| ok(&document)).await;
        let error = failure(&server).await;
        assert!(matches!(error, Error::Malformed { .. }), "{text}: {error:?}");
        assert_eq!(server.asked().len(), 1, "{text}");
    }
}

#[tokio::test]
async fn index_without_the_platform_is_told() {
    let index = index(&[("arm64", &image(&[5])), ("riscv64", &image(&[6]))]);
    let server = Server::start(move |_, _: &Asked| ok(&index)).await;
    let error = failure(&server).await;
    assert_eq!(error.to_string(), "the image has nothing for linux/amd64");
}

#[tokio::test]
async fn content_that_its_digest_does_not_name_is_refused() {
    let index = index(&[("amd64", &image(&[5]))]);
    let server = Server::start(move |_, asked: &Asked| {
        if asked.target.ends_with("/v1") {
            ok(&index)
        } else {
            ok(&image(&[6]))
        }
    })
    .await;
    let error = failure(&server).await;
    assert!(
        matches!(&error, Error::DigestMismatch { digest: told, .. } if *told == digest(&image(&[5]))),
        "{error:?}"
    );
}
