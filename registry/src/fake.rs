//! A registry in memory, in this process, for tests: it behaves until it is told not to.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

mod images;
mod store;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderMap, Method, Response, StatusCode, header},
};
use futures::{StreamExt as _, stream};
use tokio::{net::TcpListener, task::JoinHandle};

pub use images::{Image, Index};
use store::Store;

/// Most bytes of a request that are read.
const MAX_BODY_BYTES: usize = 256 * 1024 * 1024;

/// How a registry behaves that is not told to fail.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub struct Behaviour {
    /// Whether it mounts blobs from one repository into another.
    pub mounts: bool,
    /// Whether it lists what refers to a manifest.
    pub lists_referrers: bool,
    /// Whether it refuses manifests that name what it does not have.
    pub is_strict: bool,
    /// Most bytes that it takes at once.
    pub largest_body: Option<usize>,
    /// User and password that it wants to see before it gives a token.
    pub login: Option<(String, String)>,
    /// How many requests a token is good for.
    pub token_uses: usize,
    /// Whether it tells how much it has of an upload, and takes the rest.
    pub resumes: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            mounts: true,
            lists_referrers: true,
            is_strict: true,
            largest_body: None,
            login: None,
            token_uses: usize::MAX,
            resumes: true,
        }
    }
}

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// A status, with `Retry-After` in seconds.
    Status(u16, Option<u64>),
    /// The body of the answer breaks after so many bytes.
    Break(usize),
    /// The body of the answer is other content of the same length.
    WrongContent,
    /// The place for an upload is there.
    Location(String),
    /// Of what is sent so many bytes arrive; then whoever is in front of the registry answers with 502.
    Cut(usize),
}

/// What a client asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Bytes of its body.
    pub bytes: usize,
    /// How often the same method and path had been asked before; all uploads to a repository count as one path.
    pub before: usize,
}

impl Asked {
    /// Method and path, e.g. `GET /v2/app/manifests/v1`.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{} {}", self.method, path_of(&self.target))
    }
}

type Decide = Box<dyn Fn(&Asked) -> Option<Fault> + Send + Sync>;

/// A running registry; it ends when it is dropped.
pub struct Registry {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    store: Mutex<Store>,
    asked: Mutex<Vec<Asked>>,
    decide: Mutex<Decide>,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Registry {
    /// Listens in plain HTTP on a free port of 127.0.0.1.
    pub async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            store: Mutex::new(Store::new(behaviour, address.to_string())),
            asked: Mutex::default(),
            decide: Mutex::new(Box::new(|_| None)),
        });
        let state = Arc::clone(&shared);
        let router = Router::new().fallback(async move |request: Request| answer(&state, request).await);
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, shared, task }
    }

    /// `host:port`.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Decides of each request whether something goes wrong with it.
    pub fn fail(&self, decide: impl Fn(&Asked) -> Option<Fault> + Send + Sync + 'static) {
        *self.shared.decide.lock().unwrap() = Box::new(decide);
    }

    /// Everything that was asked so far, but for tokens.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        let asked = self.shared.asked.lock().unwrap();
        asked
            .iter()
            .filter(|asked| !asked.target.starts_with("/token"))
            .cloned()
            .collect()
    }

    /// Forgets what was asked.
    pub fn forget_asked(&self) {
        self.shared.asked.lock().unwrap().clear();
    }

    /// Bytes of blobs that were sent here.
    #[must_use]
    pub fn received_bytes(&self) -> usize {
        let is_upload = |asked: &&Asked| asked.target.contains("/blobs/uploads/");
        self.asked().iter().filter(is_upload).map(|asked| asked.bytes).sum()
    }

    /// A manifest, by tag or digest, if it is there.
    #[must_use]
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<Bytes> {
        self.store().manifest(repository, reference).map(|(_, bytes)| bytes)
    }

    /// Whether a repository has a blob.
    #[must_use]
    pub fn has_blob(&self, repository: &str, digest: &str) -> bool {
        self.store().blob(repository, digest).is_some()
    }

    /// Puts a blob into a repository.
    pub fn insert_blob(&self, repository: &str, content: Bytes) -> String {
        self.store().insert_blob(repository, content)
    }

    /// Uploads that were begun and neither ended nor given up.
    #[must_use]
    pub fn uploads_under_way(&self) -> usize {
        self.store().uploads_under_way()
    }

    /// Takes a blob out of a repository.
    pub fn remove_blob(&self, repository: &str, digest: &str) {
        self.store().remove_blob(repository, digest);
    }

    /// Puts a manifest into a repository, under its digest and, where one is given, a tag.
    pub fn insert_manifest(&self, repository: &str, tag: Option<&str>, media_type: &str, bytes: &Bytes) -> String {
        self.store().insert_manifest(repository, tag, media_type, bytes)
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.shared.store.lock().unwrap()
    }
}

async fn answer(shared: &Shared, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let target = head.uri.to_string();
    let is_too_large = |headers: &HeaderMap| {
        let length: usize = headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
        let largest = shared.store.lock().unwrap().behaviour.largest_body?;
        Some(length > largest)
    };
    let asked = |bytes| {
        let mut all = shared.asked.lock().unwrap();
        let is_same = |other: &&Asked| {
            let is_same_method = other.method == head.method.as_str();
            is_same_method && kind_of(&other.target) == kind_of(&target)
        };
        let asked = Asked {
            method: head.method.to_string(),
            target: target.clone(),
            bytes,
            before: all.iter().filter(is_same).count(),
        };
        all.push(asked.clone());
        asked
    };
    if is_too_large(&head.headers) == Some(true) {
        // What is not read would break the connection before the answer is there.
        let _ = axum::body::to_bytes(body, MAX_BODY_BYTES).await;
        asked(0);
        return status(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY_BYTES).await else {
        return status(StatusCode::BAD_REQUEST);
    };
    let asked = asked(body.len());
    let fault = (shared.decide.lock().unwrap())(&asked);
    if let Some(Fault::Status(code, retry_after)) = fault {
        let mut response = status(StatusCode::from_u16(code).unwrap());
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        return response;
    }
    let body = match &fault {
        Some(Fault::Cut(after)) => {
            shared
                .store
                .lock()
                .unwrap()
                .take_part(&target, &body[..body.len().min(*after)]);
            return status(StatusCode::BAD_GATEWAY);
        }
        _ => body,
    };
    let response = shared
        .store
        .lock()
        .unwrap()
        .answer(&head.method, &target, &head.headers, &body);
    match fault {
        Some(fault) => spoil(response, fault).await,
        None => response,
    }
}

async fn spoil(response: Response<Body>, fault: Fault) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    let body = axum::body::to_bytes(body, MAX_BODY_BYTES).await.unwrap();
    let body = match fault {
        Fault::Break(after) => {
            let begin = body.slice(..after.min(body.len()));
            let end = stream::once(async {
                // What was said before is sent while nothing more is there.
                tokio::task::yield_now().await;
                Err(io::Error::other("broken on purpose"))
            });
            Body::from_stream(stream::iter([Ok(begin)]).chain(end))
        }
        Fault::WrongContent => Body::from(body.iter().map(|byte| byte ^ 1).collect::<Vec<u8>>()),
        Fault::Location(location) => {
            head.headers.insert(header::LOCATION, location.parse().unwrap());
            Body::from(body)
        }
        Fault::Status(..) | Fault::Cut(_) => Body::from(body),
    };
    Response::from_parts(head, body)
}

fn path_of(target: &str) -> &str {
    target.split('?').next().unwrap_or_default()
}

/// The path, without the number of an upload.
fn kind_of(target: &str) -> &str {
    let path = path_of(target);
    path.find("/blobs/uploads/").map_or(path, |end| &path[..end])
}

fn status(status: StatusCode) -> Response<Body> {
    Response::builder().status(status).body(Body::empty()).unwrap()
}

fn is_question(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}
