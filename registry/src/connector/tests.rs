//! Registries behind proxies.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::{
    Client, Error, Options, Proxies,
    test_server::{Asked, SECRET, Server, TLS_HOST, image, ok},
};

/// What `user` and the secret are in base64, percent-decoded.
const LOGIN: &str = "user:coral-secret-canary";

fn login() -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(LOGIN))
}

/// A proxy for connections: it passes one on to this machine, whatever the name, and gives what it was asked.
async fn tunnel(answer: &'static str) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        client.write_all(answer.as_bytes()).await.unwrap();
        let port = head.split([' ', ':']).nth(2).unwrap().parse::<u16>().unwrap();
        if answer.contains("200") {
            let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let _ = copy_bidirectional(&mut client, &mut server).await;
        }
        head
    });
    (address, task)
}

#[tokio::test]
async fn a_registry_with_tls_is_reached_through_a_tunnel() {
    let (server, authority) = Server::start_tls(|_, _: &Asked| ok(&image(&[5]))).await;
    let (address, seen) = tunnel("HTTP/1.1 200 Connection established\r\n\r\n").await;
    let proxy = format!("http://user:{SECRET}@{address}");
    let options = Options {
        authorities: authority.into_bytes(),
        proxies: Proxies::new(Some(&proxy), None, "").unwrap(),
        ..Options::default()
    };
    let client = Client::new(options).unwrap();
    let name = format!("{TLS_HOST}:{}/app", server.address.port());
    let repository = client.repository(&name.parse().unwrap(), None);
    assert!(repository.manifest("v1").await.is_ok());
    assert_eq!(server.asked()[0].header(http::header::PROXY_AUTHORIZATION), None);
    drop((repository, client, server));
    let seen = seen.await.unwrap().to_ascii_lowercase();
    assert!(seen.starts_with(&format!("connect {TLS_HOST}:")), "{seen}");
    assert!(seen.contains(&login().to_ascii_lowercase()), "{seen}");
}

#[tokio::test]
async fn a_proxy_that_refuses_is_told_without_its_password() {
    let (address, _seen) = tunnel("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
    let proxy = format!("http://user:{SECRET}@{address}");
    let options = Options {
        proxies: Proxies::new(Some(&proxy), None, "").unwrap(),
        ..Options::default()
    };
    let image = "registry.example/app".parse().unwrap();
    let error = Client::new(options)
        .unwrap()
        .repository(&image, None)
        .manifest("v1")
        .await;
    let error = error.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    let told: Vec<String> = crate::error::causes(&error).map(ToString::to_string).collect();
    assert!(
        told.iter().any(|cause| cause.contains("proxy authorization")),
        "{told:?}"
    );
    assert!(!format!("{error:?}").contains(SECRET));
}

#[tokio::test]
async fn a_registry_without_tls_is_asked_for_by_its_whole_address() {
    let proxy = Server::start(|_, _: &Asked| ok(&image(&[5]))).await;
    let registry = "registry.example:5000";
    let options = |no_proxy: &str| Options {
        plain_http: [registry.to_owned()].into(),
        proxies: Proxies::new(None, Some(&format!("user:{SECRET}@{}", proxy.address)), no_proxy).unwrap(),
        ..Options::default()
    };
    let image = format!("{registry}/app").parse().unwrap();
    let client = Client::new(options("")).unwrap();
    assert!(client.repository(&image, None).manifest("v1").await.is_ok());
    let asked = proxy.asked();
    assert_eq!(asked[0].target, format!("http://{registry}/v2/app/manifests/v1"));
    assert_eq!(asked[0].header(http::header::PROXY_AUTHORIZATION), Some(&*login()));

    // A name that no resolver knows is not reached directly, and not through the proxy either.
    let client = Client::new(options("registry.example")).unwrap();
    assert!(client.repository(&image, None).manifest("v1").await.is_err());
    assert_eq!(proxy.asked().len(), 1);
}
