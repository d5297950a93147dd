//! Where a registry leads its client, and whom the client trusts there.

use super::*;

fn assert_refused(error: &Error, expected: RedirectRefusal) {
    let Error::Redirect { why, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(*why, expected, "{error:?}");
}

#[tokio::test]
async fn redirect_to_another_host_drops_credentials() {
    let elsewhere = Server::start(|_, _: &Asked| ok(&image(&[5]))).await;
    let target = format!("http://{}/blob?sig={SECRET}", elsewhere.address);
    let server = Server::start(move |_, asked: &Asked| {
        if asked.authorization() != Some(&basic("user")) {
            return challenge("Basic");
        }
        match asked.target.as_str() {
            "/v2/acme/app/manifests/v1" => redirect("moved"),
            _ => redirect(&target),
        }
    })
    .await;
    assert!(size(&server, &user("user").lookup("any/app")).await.is_ok());
    let paths = server.paths();
    assert_eq!(paths.last().unwrap(), "/v2/acme/app/manifests/moved");
    assert_eq!(server.asked().last().unwrap().authorization(), Some(&*basic("user")));
    let asked = elsewhere.asked();
    assert_eq!((asked.len(), asked[0].authorization()), (1, None));
}

#[tokio::test]
async fn redirects_and_token_servers_on_this_link_are_not_gone_to() {
    for place in [
        "http://169.254.169.254/latest/meta-data",
        "http://[fe80::1]/x",
        "http://[::ffff:169.254.169.254]/",
        "http://100.100.100.200/",
    ] {
        let server = Server::start(move |_, _: &Asked| redirect(place)).await;
        let error = failure(&server).await;
        assert_refused(&error, RedirectRefusal::Local);
        let server = Server::start(move |_, _: &Asked| challenge(&format!(r#"Bearer realm="{place}""#))).await;
        let error = failure(&server).await;
        assert_refused(&error, RedirectRefusal::Local);
    }
}

#[tokio::test]
async fn name_that_stands_for_this_machine_is_not_gone_to() {
    // A resolver takes this name for 127.0.0.1, and something listens there.
    let victim = Server::start(|_, _: &Asked| ok(&image(&[5]))).await;
    let target = format!("http://2130706433:{}/", victim.address.port());
    let server = Server::start(move |_, _: &Asked| redirect(&target)).await;
    let error = failure(&server).await;
    assert_refused(&error, RedirectRefusal::Local);
    assert!(victim.asked().is_empty());
}

#[tokio::test]
async fn redirects_have_an_end() {
    let server = Server::start(|_, _: &Asked| redirect("again")).await;
    let error = failure(&server).await;
    assert_refused(&error, RedirectRefusal::TooMany);
    assert_eq!(server.asked().len(), 6);
}

#[tokio::test]
async fn redirect_to_nowhere_is_told() {
    for location in ["", "http://", "ftp://x/", "http://user@127.0.0.1/"] {
        let server = Server::start(move |_, asked: &Asked| {
            if asked.target.ends_with("v1") {
                redirect(location)
            } else {
                status(StatusCode::FOUND)
            }
        })
        .await;
        let error = failure(&server).await;
        assert_refused(&error, RedirectRefusal::Malformed);
    }
}

#[tokio::test]
async fn tls_is_trusted_by_authority_and_not_left() {
    let plain = Server::start(|_, _: &Asked| ok(&image(&[5]))).await;
    let target = format!("http://{}/", plain.address);
    let (server, authority) = Server::start_tls(move |_, asked: &Asked| {
        if asked.target.ends_with("leave") {
            redirect(&target)
        } else {
            ok(&image(&[5]))
        }
    })
    .await;
    let image = |tag: &str| -> ImageReference {
        let port = server.address.port();
        format!("{TLS_HOST}:{port}/app:{tag}").parse().unwrap()
    };
    let error = client().image_size(&image("v1"), &[], &amd64()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(server.asked().is_empty());

    // What vouches for another registry does not vouch for this one.
    let port = server.address.port();
    for (registry, is_trusted) in [
        (format!("{TLS_HOST}:{port}"), true),
        ("registry.example".to_owned(), false),
    ] {
        let options = Options {
            authorities_of: [(registry, authority.clone().into_bytes())].into(),
            ..Options::default()
        };
        let asked = Client::new(options)
            .unwrap()
            .image_size(&image("v1"), &[], &amd64())
            .await;
        assert_eq!(asked.is_ok(), is_trusted, "{asked:?}");
    }

    let options = Options {
        authorities: authority.into_bytes(),
        ..Options::default()
    };
    let client = Client::new(options).unwrap();
    assert!(client.image_size(&image("v1"), &[], &amd64()).await.is_ok());
    let error = client.image_size(&image("leave"), &[], &amd64()).await.unwrap_err();
    assert_refused(&error, RedirectRefusal::Downgrade);
    assert!(plain.asked().is_empty());
}
