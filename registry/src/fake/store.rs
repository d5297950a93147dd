//! What the registry has, and what it answers.

use std::collections::BTreeMap;

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, Method, Response, StatusCode, header},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{Behaviour, is_question, path_of, status};
use crate::digest;

type Manifest = (String, Bytes);

pub(super) struct Store {
    pub(super) behaviour: Behaviour,
    /// The registry's own `host:port`.
    own: String,
    /// By repository and digest.
    blobs: BTreeMap<(String, String), Bytes>,
    /// By repository, and digest or tag.
    manifests: BTreeMap<(String, String), Manifest>,
    /// By number.
    uploads: BTreeMap<usize, Vec<u8>>,
    next_upload: usize,
    /// How many requests each token is still good for.
    tokens: BTreeMap<String, usize>,
}

impl Store {
    pub(super) fn new(behaviour: Behaviour, own: String) -> Self {
        Self {
            behaviour,
            own,
            blobs: BTreeMap::new(),
            manifests: BTreeMap::new(),
            uploads: BTreeMap::new(),
            next_upload: 0,
            tokens: BTreeMap::new(),
        }
    }

    pub(super) fn manifest(&self, repository: &str, reference: &str) -> Option<Manifest> {
        self.manifests
            .get(&(repository.to_owned(), reference.to_owned()))
            .cloned()
    }

    pub(super) fn blob(&self, repository: &str, digest: &str) -> Option<Bytes> {
        self.blobs.get(&(repository.to_owned(), digest.to_owned())).cloned()
    }

    pub(super) fn insert_blob(&mut self, repository: &str, content: Bytes) -> String {
        let digest = digest(&content);
        self.blobs.insert((repository.to_owned(), digest.clone()), content);
        digest
    }

    pub(super) fn remove_blob(&mut self, repository: &str, digest: &str) {
        self.blobs.remove(&(repository.to_owned(), digest.to_owned()));
    }

    pub(super) fn insert_manifest(
        &mut self,
        repository: &str,
        tag: Option<&str>,
        media_type: &str,
        bytes: &Bytes,
    ) -> String {
        let digest = digest(bytes);
        for reference in [Some(digest.as_str()), tag].into_iter().flatten() {
            let key = (repository.to_owned(), reference.to_owned());
            self.manifests.insert(key, (media_type.to_owned(), bytes.clone()));
        }
        digest
    }

    pub(super) fn answer(
        &mut self,
        method: &Method,
        target: &str,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Response<Body> {
        let path = path_of(target);
        if path == "/token" {
            return self.token(headers);
        }
        if !self.is_let_in(headers) {
            let challenge = format!(r#"Bearer realm="http://{}/token",service="fake""#, self.own);
            let refused = Response::builder().status(StatusCode::UNAUTHORIZED);
            return refused
                .header(header::WWW_AUTHENTICATE, challenge)
                .body(Body::empty())
                .unwrap();
        }
        let parts: Vec<&str> = path.trim_start_matches("/v2/").split('/').collect();
        match parts[..] {
            [ref name @ .., "manifests", reference] => {
                self.manifests(method, &name.join("/"), reference, headers, body)
            }
            [ref name @ .., "blobs", "uploads", number] => self.uploads(method, &name.join("/"), number, target, body),
            [ref name @ .., "blobs", digest] => self.blobs(&name.join("/"), digest, headers),
            [ref name @ .., "tags", "list"] => self.tags(&name.join("/")),
            [ref name @ .., "referrers", digest] => self.referrers(&name.join("/"), digest),
            _ => status(StatusCode::NOT_FOUND),
        }
    }

    fn token(&mut self, headers: &HeaderMap) -> Response<Body> {
        let wanted = self.behaviour.login.as_ref();
        let wanted = wanted.map(|(user, password)| format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))));
        if text(headers, &header::AUTHORIZATION) != wanted.as_deref() {
            return status(StatusCode::UNAUTHORIZED);
        }
        let token = format!("token-{}", self.tokens.len());
        self.tokens.insert(token.clone(), self.behaviour.token_uses);
        Response::new(Body::from(json!({"token": token, "expires_in": 300}).to_string()))
    }

    fn is_let_in(&mut self, headers: &HeaderMap) -> bool {
        if self.behaviour.login.is_none() {
            return true;
        }
        let token = text(headers, &header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        match token.and_then(|token| self.tokens.get_mut(token)) {
            Some(uses) if *uses > 0 => {
                *uses -= 1;
                true
            }
            _ => false,
        }
    }

    fn manifests(
        &mut self,
        method: &Method,
        name: &str,
        reference: &str,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Response<Body> {
        if is_question(method) {
            let Some((media_type, bytes)) = self.manifest(name, reference) else {
                return status(StatusCode::NOT_FOUND);
            };
            return Response::builder()
                .header(header::CONTENT_TYPE, media_type)
                .header("docker-content-digest", digest(&bytes))
                .body(Body::from(bytes))
                .unwrap();
        }
        if *method == Method::DELETE {
            return self.delete(name, reference);
        }
        let document: Value = serde_json::from_slice(body).unwrap_or_default();
        if self.behaviour.is_strict && !self.has_all_of(name, &document) {
            let error = json!({"errors": [{"code": "MANIFEST_BLOB_UNKNOWN", "message": "blob unknown to registry"}]});
            let refused = Response::builder().status(StatusCode::BAD_REQUEST);
            return refused.body(Body::from(error.to_string())).unwrap();
        }
        let media_type = text(headers, &header::CONTENT_TYPE).unwrap_or_default();
        let tag = (!reference.contains(':')).then_some(reference);
        let digest = self.insert_manifest(name, tag, media_type, body);
        let mut created = Response::builder()
            .status(StatusCode::CREATED)
            .header("docker-content-digest", &digest);
        if let Some(subject) = document["subject"]["digest"].as_str()
            && self.behaviour.lists_referrers
        {
            created = created.header("oci-subject", subject);
        }
        created.body(Body::empty()).unwrap()
    }

    /// A tag goes alone, a digest with all its tags.
    fn delete(&mut self, name: &str, reference: &str) -> Response<Body> {
        let before = self.manifests.len();
        self.manifests.retain(|(repository, key), (_, bytes)| {
            repository != name || (key != reference && (!reference.contains(':') || digest(bytes) != reference))
        });
        status(if self.manifests.len() < before {
            StatusCode::ACCEPTED
        } else {
            StatusCode::NOT_FOUND
        })
    }

    fn tags(&self, name: &str) -> Response<Body> {
        let keys = self.manifests.keys().filter(|(repository, _)| repository == name);
        let tags: Vec<&str> = keys
            .map(|(_, key)| key.as_str())
            .filter(|key| !key.contains(':'))
            .collect();
        if tags.is_empty() {
            return status(StatusCode::NOT_FOUND);
        }
        Response::new(Body::from(json!({"name": name, "tags": tags}).to_string()))
    }

    fn has_all_of(&self, name: &str, document: &Value) -> bool {
        let digests = |value: &Value| -> Vec<String> {
            let entries = value.as_array().cloned().unwrap_or_default();
            let digests = entries.iter().filter_map(|entry| entry["digest"].as_str());
            digests.map(str::to_owned).collect()
        };
        let config = document["config"]["digest"].as_str().map(str::to_owned);
        digests(&document["layers"])
            .into_iter()
            .chain(config)
            .all(|digest| self.blob(name, &digest).is_some())
            && digests(&document["manifests"])
                .iter()
                .all(|digest| self.manifest(name, digest).is_some())
    }

    fn uploads(&mut self, method: &Method, name: &str, number: &str, target: &str, body: &Bytes) -> Response<Body> {
        let query = |name: &str| {
            let query = target.split_once('?')?.1.as_bytes();
            let mut pairs = form_urlencoded::parse(query);
            pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
        };
        if *method == Method::POST {
            if let (Some(digest), Some(from)) = (query("mount"), query("from"))
                && self.behaviour.mounts
                && let Some(content) = self.blob(&from, &digest)
            {
                self.insert_blob(name, content);
                return status(StatusCode::CREATED);
            }
            self.next_upload += 1;
            self.uploads.insert(self.next_upload, Vec::new());
            return self.accepted(name, self.next_upload, 0);
        }
        if *method == Method::GET {
            return self.progress(name, number);
        }
        if *method == Method::DELETE {
            let known = number
                .parse()
                .ok()
                .and_then(|number: usize| self.uploads.remove(&number));
            return status(known.map_or(StatusCode::NOT_FOUND, |_| StatusCode::NO_CONTENT));
        }
        let Some((number, mut content)) = number
            .parse()
            .ok()
            .and_then(|number| self.uploads.remove_entry(&number))
        else {
            return status(StatusCode::NOT_FOUND);
        };
        content.extend_from_slice(body);
        if *method == Method::PATCH {
            let length = content.len();
            self.uploads.insert(number, content);
            return self.accepted(name, number, length);
        }
        let content = Bytes::from(content);
        if query("digest") != Some(digest(&content)) {
            return status(StatusCode::BAD_REQUEST);
        }
        self.insert_blob(name, content);
        status(StatusCode::CREATED)
    }

    pub(super) fn uploads_under_way(&self) -> usize {
        self.uploads.len()
    }

    /// Takes what came of an upload before it was cut.
    pub(super) fn take_part(&mut self, target: &str, part: &[u8]) {
        let number = path_of(target)
            .rsplit('/')
            .next()
            .and_then(|number| number.parse().ok());
        if let Some(content) = number.and_then(|number: usize| self.uploads.get_mut(&number)) {
            content.extend_from_slice(part);
        }
    }

    /// Says how much there is of an upload.
    fn progress(&self, name: &str, number: &str) -> Response<Body> {
        let number: usize = number.parse().unwrap_or_default();
        let Some(content) = self.uploads.get(&number) else {
            return status(StatusCode::NOT_FOUND);
        };
        if !self.behaviour.resumes {
            return status(StatusCode::RANGE_NOT_SATISFIABLE);
        }
        let mut response = self.accepted(name, number, content.len());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response
    }

    fn accepted(&self, name: &str, number: usize, length: usize) -> Response<Body> {
        let Self { own, .. } = self;
        Response::builder()
            .status(StatusCode::ACCEPTED)
            .header(
                header::LOCATION,
                format!("http://{own}/v2/{name}/blobs/uploads/{number}"),
            )
            .header(header::RANGE, format!("0-{}", length.saturating_sub(1)))
            .body(Body::empty())
            .unwrap()
    }

    fn blobs(&self, name: &str, digest: &str, headers: &HeaderMap) -> Response<Body> {
        let Some(content) = self.blob(name, digest) else {
            return status(StatusCode::NOT_FOUND);
        };
        let begin = text(headers, &header::RANGE)
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok())
            .filter(|begin| *begin < content.len());
        let Some(begin) = begin else {
            return Response::new(Body::from(content));
        };
        let range = format!("bytes {begin}-{}/{}", content.len() - 1, content.len());
        Response::builder()
            .status(StatusCode::PARTIAL_CONTENT)
            .header(header::CONTENT_RANGE, range)
            .body(Body::from(content.slice(begin..)))
            .unwrap()
    }

    fn referrers(&self, name: &str, subject: &str) -> Response<Body> {
        if !self.behaviour.lists_referrers {
            return status(StatusCode::NOT_FOUND);
        }
        let of_subject = self
            .manifests
            .iter()
            .filter(|((repository, reference), _)| repository == name && reference.contains(':'))
            .filter_map(|((_, digest), (media_type, bytes))| {
                let document: Value = serde_json::from_slice(bytes).ok()?;
                let is_one = document["subject"]["digest"] == subject;
                is_one.then(|| json!({"mediaType": media_type, "digest": digest, "size": bytes.len()}))
            });
        let manifests: Vec<Value> = of_subject.collect();
        Response::new(Body::from(
            json!({"schemaVersion": 2, "manifests": manifests}).to_string(),
        ))
    }
}

fn text<'headers>(headers: &'headers HeaderMap, name: &header::HeaderName) -> Option<&'headers str> {
    headers.get(name)?.to_str().ok()
}
