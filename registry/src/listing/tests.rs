use axum::http::{HeaderMap, StatusCode, header::LINK};
use serde_json::json;

use super::next_page;
use crate::{
    Error, Repository,
    test_server::{Asked, Server, challenge, client, digest, image, index, ok, reference, status},
};

fn repository(server: &Server) -> Repository {
    client().repository(&reference(server, "app"), None)
}

#[test]
fn next_page_is_that_of_the_link() {
    let cases = [
        (
            r#"</v2/a/tags/list?last=b&n=1>; rel="next""#,
            Some("/v2/a/tags/list?last=b&n=1"),
        ),
        ("<x>;rel=next", Some("x")),
        (r#"<x>; title="a"; rel="next""#, Some("x")),
        (r#"<x>; rel="prev""#, None),
        ("x; rel=next", None),
        ("<x; rel=next", None),
    ];
    for (link, expected) in cases {
        let mut headers = HeaderMap::new();
        headers.insert(LINK, link.parse().unwrap());
        assert_eq!(next_page(&headers), expected, "{link}");
    }
    assert_eq!(next_page(&HeaderMap::new()), None);
}

#[tokio::test]
async fn tags_are_listed_over_all_pages() {
    let server = Server::start(|_, asked: &Asked| {
        if asked.target.contains("last=b") {
            return ok(&json!({"name": "app", "tags": ["c"]}));
        }
        let mut response = ok(&json!({"name": "app", "tags": ["a", "b"]}));
        let link = r#"</v2/app/tags/list?last=b&n=1000>; rel="next""#;
        response.headers_mut().insert(LINK, link.parse().unwrap());
        response
    })
    .await;
    assert_eq!(repository(&server).tags().await.unwrap(), ["a", "b", "c"]);
    assert_eq!(server.asked()[0].target, "/v2/app/tags/list?n=1000");
}

#[tokio::test]
async fn no_tags_may_be_null() {
    let server = Server::start(|_, _: &Asked| ok(&json!({"name": "app", "tags": null}))).await;
    assert!(repository(&server).tags().await.unwrap().is_empty());
}

#[tokio::test]
async fn lists_do_not_go_on_elsewhere_or_for_ever() {
    for link in ["<http://127.0.0.2/x>; rel=next", "<?again>; rel=next"] {
        let server = Server::start(move |_, _: &Asked| {
            let mut response = ok(&json!({"tags": ["a"]}));
            response.headers_mut().insert(LINK, link.parse().unwrap());
            response
        })
        .await;
        let error = repository(&server).tags().await.unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{link}: {error:?}");
    }
}

#[tokio::test]
async fn repositories_are_listed_with_a_right_of_its_own() {
    let server = Server::start(|own, asked: &Asked| {
        if asked.target.starts_with("/token") {
            ok(&json!({"token": "t"}))
        } else if asked.authorization().is_some() {
            ok(&json!({"repositories": ["a", "b/c"]}))
        } else {
            challenge(&format!(r#"Bearer realm="http://{own}/token""#))
        }
    })
    .await;
    assert_eq!(repository(&server).catalogue().await.unwrap(), ["a", "b/c"]);
    let paths = server.paths();
    assert_eq!(paths, ["/v2/_catalog", "/token", "/v2/_catalog"]);
    assert_eq!(server.asked()[1].target, "/token?scope=registry%3Acatalog%3A*");
}

#[tokio::test]
async fn referrers_are_listed_or_found_under_their_tag() {
    let signature = image(&[5]);
    let list = index(&[("amd64", &signature)]);
    let subject = digest(&image(&[6]));
    let tag = subject.replace(':', "-");
    // Whether the registry has the list, whether it has the tag, what is found.
    for (has_list, has_tag, expected) in [(true, false, 1), (false, true, 1), (false, false, 0)] {
        let (list, tag) = (list.clone(), tag.clone());
        let server = Server::start(move |_, asked: &Asked| {
            let is_there = if asked.target.contains("/referrers/") {
                has_list
            } else {
                has_tag && asked.target.ends_with(&tag)
            };
            if is_there {
                ok(&list)
            } else {
                status(StatusCode::NOT_FOUND)
            }
        })
        .await;
        let found = repository(&server).referrers(&subject).await.unwrap();
        assert_eq!(found.len(), expected, "{has_list} {has_tag}");
        assert!(found.iter().all(|found| found.digest == digest(&signature)));
    }
    let server = Server::start(|_, _: &Asked| status(StatusCode::BAD_GATEWAY)).await;
    let error = repository(&server).referrers(&subject).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
}
