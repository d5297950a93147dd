//! A small API server: it keeps Prefetches and `NodeImages`, applies, lists and watches them, and refuses what it is told to.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

const GROUP: &str = "/apis/image.stvz.io/v1alpha1";
/// Groups of Kubernetes itself that commands ask.
const OTHER_GROUPS: [&str; 5] = [
    "/api/v1/",
    "/apis/apps/v1/",
    "/apis/batch/v1/",
    "/apis/rbac.authorization.k8s.io/v1/",
    "/apis/admissionregistration.k8s.io/v1/",
];
/// Ends of the paths that are lists.
const COLLECTIONS: [&str; 17] = [
    "prefetches",
    "nodeimages",
    "mirrors",
    "mirroredimages",
    "mutatingwebhookconfigurations",
    "nodes",
    "pods",
    "podtemplates",
    "replicationcontrollers",
    "daemonsets",
    "deployments",
    "replicasets",
    "statefulsets",
    "jobs",
    "cronjobs",
    "namespaces",
    "secrets",
];
/// Longest life of a watch: a test that hangs must end.
const WATCH_TIME: Duration = Duration::from_secs(30);

/// A server on a free port. It lives as long as the test process.
pub(crate) struct FakeApi {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    version: u64,
    /// By path, such as `namespaces/shop/prefetches/web`.
    objects: BTreeMap<String, Value>,
    /// Version, path, kind of event, object.
    events: Vec<(u64, String, &'static str, Value)>,
    refusals: Vec<Refusal>,
    requests: Vec<String>,
    is_away: bool,
}

struct Refusal {
    start: String,
    times: usize,
    code: u16,
    body: String,
}

impl FakeApi {
    /// Begins to serve.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State {
            version: 1,
            ..State::default()
        }));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                // A client that hangs up in the middle is part of the tests.
                thread::spawn(move || drop(serve(stream, &state)));
            }
        });
        Self { url, state }
    }

    /// Answers requests whose method and path begin so with a `Status`, this many times.
    pub(crate) fn refuse(&self, start: &str, times: usize, code: u16, status: &Value) {
        self.refuse_with_text(start, times, code, &status.to_string());
    }

    /// Answers with any text, as a proxy or an unknown path does.
    pub(crate) fn refuse_with_text(&self, start: &str, times: usize, code: u16, body: &str) {
        self.lock().refusals.push(Refusal {
            start: start.to_owned(),
            times,
            code,
            body: body.to_owned(),
        });
    }

    /// Stores a Prefetch in the namespace `shop`.
    pub(crate) fn put_prefetch(&self, name: &str, rest: Value) {
        self.put(&format!("namespaces/shop/prefetches/{name}"), "Prefetch", name, rest);
    }

    /// Stores a `NodeImages`.
    pub(crate) fn put_node(&self, name: &str, rest: Value) {
        self.put(&format!("nodeimages/{name}"), "NodeImages", name, rest);
    }

    /// Stores any object, by its path, such as `apis/apps/v1/namespaces/shop/deployments/web`.
    pub(crate) fn put_at(&self, path: &str, mut object: Value) {
        object["metadata"]["name"] = path.rsplit('/').next().unwrap().into();
        self.lock().store(path, object);
    }

    /// Changes the status of the only Prefetch that there is, when it is there.
    pub(crate) fn set_status(&self, status: &Value) {
        let path = self.wait_for_prefetch();
        let mut state = self.lock();
        let mut object = state.objects[&path].clone();
        object["status"] = status.clone();
        object["status"]["observedGeneration"] = object["metadata"]["generation"].clone();
        state.store(&path, object);
    }

    /// Deletes the only Prefetch that there is, when it is there.
    pub(crate) fn delete_prefetch(&self) {
        let path = self.wait_for_prefetch();
        self.lock().delete(&path, false).unwrap();
    }

    /// Any object, by its path.
    pub(crate) fn at(&self, path: &str) -> Option<Value> {
        self.lock().objects.get(path).cloned()
    }

    /// A Prefetch of the namespace `shop`, if it is there.
    pub(crate) fn prefetch(&self, name: &str) -> Option<Value> {
        let path = format!("namespaces/shop/prefetches/{name}");
        self.lock().objects.get(&path).cloned()
    }

    /// Name of the only Prefetch that there is, when it is there.
    pub(crate) fn prefetch_name(&self) -> String {
        self.wait_for_prefetch().rsplit('/').next().unwrap().to_owned()
    }

    /// Closes every connection without an answer, or stops doing so.
    pub(crate) fn set_away(&self, is_away: bool) {
        self.lock().is_away = is_away;
    }

    /// Method and path of each request so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.lock().requests.clone()
    }

    fn wait_for_prefetch(&self) -> String {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(path) = self.lock().objects.keys().find(|path| path.contains("/prefetches/")) {
                return path.clone();
            }
            assert!(Instant::now() < deadline, "no Prefetch was made in 10 seconds");
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn put(&self, path: &str, kind: &str, name: &str, mut object: Value) {
        object["apiVersion"] = "image.stvz.io/v1alpha1".into();
        object["kind"] = kind.into();
        object["metadata"]["name"] = name.into();
        if kind == "Prefetch" {
            object["metadata"]["namespace"] = "shop".into();
            if object["metadata"]["generation"].is_null() {
                object["metadata"]["generation"] = 1.into();
            }
            object["metadata"]["uid"] = "1".into();
        }
        self.lock().store(path, object);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn store(&mut self, path: &str, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let kind = if self.objects.contains_key(path) {
            "MODIFIED"
        } else {
            "ADDED"
        };
        self.objects.insert(path.to_owned(), object.clone());
        self.events.push((self.version, path.to_owned(), kind, object));
    }

    /// A merge patch, which counts a generation where it changes what is asked for.
    fn merge(&mut self, path: &str, change: &Value) -> Option<Value> {
        let before = self.objects.get(path)?.clone();
        let mut object = before.clone();
        merge(&mut object, change);
        if object["spec"] != before["spec"] {
            let generation = object["metadata"]["generation"].as_i64().unwrap();
            object["metadata"]["generation"] = (generation + 1).into();
        }
        self.store(path, object.clone());
        Some(object)
    }

    fn delete(&mut self, path: &str, is_dry: bool) -> Option<Value> {
        if is_dry {
            return self.objects.get(path).cloned();
        }
        let object = self.objects.remove(path)?;
        self.version += 1;
        self.events
            .push((self.version, path.to_owned(), "DELETED", object.clone()));
        Some(object)
    }

    /// Server-side apply as far as one field manager sees it.
    fn apply(&mut self, path: &str, mut wanted: Value, is_dry: bool) -> Value {
        let before = self.objects.get(path).cloned();
        let mut object = before
            .clone()
            .unwrap_or_else(|| json!({"metadata": {"uid": "2", "generation": 0}}));
        if object["spec"] != wanted["spec"] {
            let generation = object["metadata"]["generation"].as_i64().unwrap();
            object["metadata"]["generation"] = (generation + 1).into();
        }
        object["spec"] = wanted["spec"].take();
        for field in ["name", "namespace"] {
            object["metadata"][field] = wanted["metadata"][field].take();
        }
        object["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        object["metadata"]["managedFields"] = json!([{"manager": "kubectl-coral"}]);
        for field in ["apiVersion", "kind"] {
            object[field] = wanted[field].take();
        }
        if !is_dry && before.as_ref() != Some(&object) {
            self.store(path, object.clone());
        }
        object
    }
}

/// RFC 7386.
fn merge(object: &mut Value, change: &Value) {
    let Some(fields) = change.as_object() else {
        *object = change.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut object[key.as_str()], value);
        }
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut length = 0;
    let mut is_merge = false;
    let mut is_json_patch = false;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        if header.trim().is_empty() {
            break;
        }
        let header = header.to_ascii_lowercase();
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        is_merge |= header.contains("merge-patch");
        is_json_patch |= header.contains("json-patch");
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut words = first.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let request = format!("{method} {target}");
    let refusal = {
        let mut state = state.lock().unwrap();
        state.requests.push(request.clone());
        if state.is_away {
            return Ok(());
        }
        let refusal = state
            .refusals
            .iter_mut()
            .find(|refusal| refusal.times > 0 && request.starts_with(&refusal.start));
        refusal.map(|refusal| {
            refusal.times -= 1;
            (refusal.code, refusal.body.clone())
        })
    };
    if let Some((code, body)) = refusal {
        return respond(stream, code, &body);
    }
    let path = match path.strip_prefix(GROUP) {
        Some(path) => path.trim_start_matches('/'),
        None if OTHER_GROUPS.iter().any(|group| path.starts_with(group)) => path.trim_start_matches('/'),
        None => return respond(stream, 404, "404 page not found"),
    };
    match method {
        "PATCH" if is_json_patch => {
            let change: json_patch::Patch = serde_json::from_slice(&body)?;
            let mut state = state.lock().unwrap();
            let mut object = state.objects[path].clone();
            json_patch::patch(&mut object, &change).unwrap();
            if !query.contains("dryRun") {
                state.store(path, object.clone());
            }
            respond(stream, 200, &object.to_string())
        }
        "PATCH" if is_merge => {
            let change = serde_json::from_slice(&body)?;
            match state.lock().unwrap().merge(path, &change) {
                Some(object) => respond(stream, 200, &object.to_string()),
                None => respond(stream, 404, &not_found(path).to_string()),
            }
        }
        "DELETE" => {
            let is_dry = query.contains("dryRun") || String::from_utf8_lossy(&body).contains("dryRun");
            match state.lock().unwrap().delete(path, is_dry) {
                Some(object) => respond(stream, 200, &object.to_string()),
                None => respond(stream, 404, &not_found(path).to_string()),
            }
        }
        "PATCH" => {
            let wanted = serde_json::from_slice(&body)?;
            let object = state.lock().unwrap().apply(path, wanted, query.contains("dryRun"));
            respond(stream, 200, &object.to_string())
        }
        "GET" if query.contains("watch=true") => watch(stream, state, path, query),
        "GET" if COLLECTIONS.contains(&path.rsplit('/').next().unwrap_or_default()) => {
            let list = list(&state.lock().unwrap(), path, query);
            respond(stream, 200, &list.to_string())
        }
        "GET" => {
            let object = state.lock().unwrap().objects.get(path).cloned();
            match object {
                Some(object) => respond(stream, 200, &object.to_string()),
                None => respond(stream, 404, &not_found(path).to_string()),
            }
        }
        _ => respond(stream, 405, "{}"),
    }
}

/// A page of a collection. The token to go on with is the number of objects so far.
fn list(state: &State, path: &str, query: &str) -> Value {
    let number = |name: &str| {
        query
            .split('&')
            .find_map(|part| part.strip_prefix(name)?.parse::<usize>().ok())
    };
    let limit = number("limit=").unwrap_or(usize::MAX);
    let start = number("continue=").unwrap_or_default();
    let mut rest = matching(path, query, state.objects.iter()).skip(start);
    let items: Vec<&Value> = rest.by_ref().take(limit).collect();
    let token = rest.next().map(|_| (start + limit).to_string());
    json!({
        "apiVersion": "image.stvz.io/v1alpha1",
        "kind": "List",
        "metadata": {"resourceVersion": state.version.to_string(), "continue": token},
        "items": items,
    })
}

/// Objects of a collection, all namespaces where the path has none.
fn matching<'a>(
    path: &'a str,
    query: &'a str,
    objects: impl Iterator<Item = (&'a String, &'a Value)>,
) -> impl Iterator<Item = &'a Value> {
    let collection = path.rsplit('/').next().unwrap_or_default();
    let in_namespace = path.contains("namespaces/");
    let name = query
        .split('&')
        .find_map(|part| part.strip_prefix("fieldSelector=metadata.name%3D"));
    objects
        .filter(move |(object_path, _)| {
            let (parent, object_name) = object_path.rsplit_once('/').unwrap();
            let is_member = if in_namespace {
                parent == path
            } else {
                parent.ends_with(collection)
            };
            is_member && name.is_none_or(|name| name == object_name)
        })
        .map(|(_, object)| object)
        .filter(move |object| {
            let label = query
                .split('&')
                .find_map(|part| part.strip_prefix("labelSelector=")?.split_once("%3D"));
            label.is_none_or(|(key, value)| object["metadata"]["labels"][key.replace("%2F", "/").as_str()] == value)
        })
}

fn watch(mut stream: TcpStream, state: &Mutex<State>, path: &str, query: &str) -> std::io::Result<()> {
    let version = query.split('&').find_map(|part| part.strip_prefix("resourceVersion="));
    let mut seen: u64 = version.and_then(|version| version.parse().ok()).unwrap_or_default();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n"
    )?;
    let end = Instant::now() + WATCH_TIME;
    while Instant::now() < end {
        let events: Vec<(u64, Value)> = {
            let state = state.lock().unwrap();
            if state.is_away {
                return Ok(());
            }
            let newer = state.events.iter().filter(|(version, ..)| *version > seen);
            newer
                .filter(|(_, object_path, _, object)| {
                    matching(path, query, [(object_path, object)].into_iter())
                        .next()
                        .is_some()
                })
                .map(|(version, _, kind, object)| (*version, json!({"type": kind, "object": object})))
                .collect()
        };
        for (version, event) in events {
            writeln!(stream, "{event}")?;
            seen = seen.max(version);
        }
        stream.flush()?;
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn not_found(path: &str) -> Value {
    let name = path.rsplit('/').next().unwrap_or_default();
    json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "reason": "NotFound",
        "message": format!("prefetches.image.stvz.io \"{name}\" not found"),
        "details": {"name": name, "group": "image.stvz.io", "kind": "prefetches"},
    })
}

fn respond(mut stream: TcpStream, code: u16, body: &str) -> std::io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 {code} Whatever\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}
