use std::sync::Mutex;

use axum::{Router, extract::Request as Asked, http::StatusCode};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, config::AuthInfo};
use serde_json::{Value, json};

use super::*;

/// An API server that knows one namespace, and keeps what was asked with which authorization. Its first answer is that it is busy.
async fn api_server() -> (String, Arc<Mutex<Vec<String>>>) {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let record = Arc::clone(&asked);
    let router = Router::new().fallback(async move |request: Asked| {
        let header = request.headers().get(AUTHORIZATION);
        let authorization = header.map_or("", |value| value.to_str().unwrap());
        let mut asked = record.lock().unwrap();
        asked.push(format!("{} {authorization}", request.uri()));
        let status = if asked.len() == 1 {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::OK
        };
        (status, json!({"metadata": {"name": "shop"}}).to_string())
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (format!("http://{address}"), asked)
}

fn kubeconfig(server: &str, cluster: &Value, user: &Value) -> tempfile::NamedTempFile {
    let mut cluster = cluster.clone();
    cluster["server"] = json!(server);
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    });
    std::fs::write(file.path(), text.to_string()).unwrap();
    file
}

async fn client_of(file: &tempfile::NamedTempFile) -> anyhow::Result<Client> {
    let kubeconfig = Some(file.path().to_owned());
    client(&ClientArgs { kubeconfig }).await
}

#[tokio::test]
async fn token_is_sent_and_a_busy_server_asked_again() {
    let (server, asked) = api_server().await;
    let file = kubeconfig(&server, &json!({}), &json!({"token": "t1"}));
    let client = client_of(&file).await.unwrap();
    let namespace = Api::<Namespace>::all(client).get("shop").await.unwrap();
    assert_eq!(namespace.metadata.name.as_deref(), Some("shop"));
    let asked = asked.lock().unwrap();
    assert_eq!(*asked, vec!["/api/v1/namespaces/shop Bearer t1"; 2]);
}

#[test]
fn token_is_read_again_when_it_is_old() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let auth = AuthInfo {
        token_file: Some(file.path().to_str().unwrap().to_owned()),
        ..AuthInfo::default()
    };
    std::fs::write(file.path(), "t1\n").unwrap();
    let young = Token::with_age(&auth, Duration::MAX).unwrap().unwrap();
    let old = Token::with_age(&auth, Duration::ZERO).unwrap().unwrap();
    std::fs::write(file.path(), "t2\n").unwrap();
    assert_eq!(young.header(), "Bearer t1");
    assert_eq!(old.header(), "Bearer t2");
    assert!(old.header().is_sensitive());
    // The kubelet may be in the middle of writing it.
    std::fs::remove_file(file.path()).unwrap();
    assert_eq!(old.header(), "Bearer t2");
    assert!(Token::new(&auth).is_err());
    assert!(Token::new(&AuthInfo::default()).unwrap().is_none());
}

#[tokio::test]
async fn kubeconfigs_that_would_be_misread_are_refused() {
    let none = json!({});
    let cases = [
        (
            none.clone(),
            json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "x"}}),
            "exec",
        ),
        (none.clone(), json!({"username": "u", "password": "p"}), "username"),
        (none.clone(), json!({"token": "t", "as": "somebody"}), "impersonation"),
        (
            none.clone(),
            json!({"client-certificate-data": "Q0VSVA=="}),
            "go together",
        ),
        (
            json!({"insecure-skip-tls-verify": true}),
            json!({"token": "t"}),
            "insecure-skip-tls-verify",
        ),
        (json!({"proxy-url": "http://proxy"}), json!({"token": "t"}), "proxy-url"),
    ];
    for (cluster, user, word) in cases {
        let file = kubeconfig("http://127.0.0.1:1", &cluster, &user);
        let error = client_of(&file).await.err().map(|error| format!("{error:#}"));
        assert!(
            error.as_ref().is_some_and(|error| error.contains(word)),
            "{word}: {error:?}"
        );
    }
    let file = kubeconfig("https://127.0.0.1:1", &none, &json!({"token": "t"}));
    let error = format!("{:#}", client_of(&file).await.err().unwrap());
    assert!(error.contains("certificate authority"), "{error}");

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "apiVersion: v1\nkind: Config\n").unwrap();
    let error = format!("{:#}", client_of(&file).await.err().unwrap());
    assert!(error.contains("-o json"), "{error}");
}

/// An API server that has no room for anybody is asked a few times, with pauses that are different for each, and then it is said.
#[tokio::test]
async fn a_busy_api_server_is_not_asked_for_long_nor_in_step() {
    use tower::retry::Policy as _;

    let pauses = || {
        let mut policy = retries().unwrap();
        let mut request = Request::new(Body::empty());
        let mut pauses = Vec::new();
        loop {
            let busy = axum::http::Response::builder().status(StatusCode::SERVICE_UNAVAILABLE);
            let mut answer: Result<_, BoxError> = Ok(busy.body(()).unwrap());
            let now = tokio::time::Instant::now();
            match policy.retry(&mut request, &mut answer) {
                Some(pause) => pauses.push(pause.deadline() - now),
                None => return pauses,
            }
        }
    };
    let first = pauses();
    assert_eq!(first.len(), 4, "{first:?}");
    for (pause, least) in first.iter().zip([500, 1_000, 2_000, 4_000].map(Duration::from_millis)) {
        assert!((least..=3 * least).contains(pause), "{first:?}");
    }
    assert!(first.iter().sum::<Duration>() <= Duration::from_secs(21), "{first:?}");
    assert!((0..10).any(|_| pauses() != first));
}
