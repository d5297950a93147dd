//! One repository of a registry: its manifests, and who asks for them.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderName},
};

use crate::{
    challenge::Challenge,
    client::Client,
    credential::Credential,
    digest::{digest_like, is_digest},
    error::{Error, Result, of_status},
    manifest::{ACCEPTED, Manifest, ManifestHead},
    origin::Origin,
    patience::spread,
    token::{self, Authorization},
    transport::{Answer, Body, Call},
};

/// Most bytes of a manifest, an index or a list. The specification asks registries to take manifests of 4 MiB, and none takes more.
pub(crate) const MAX_DOCUMENT_BYTES: usize = 4 * 1024 * 1024;
/// How registries tell the digest of what they send.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// How registries tell that they list a manifest among the referrers of its subject.
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

/// One repository of a registry, asked by somebody. Clones share what the registry was told of them.
#[derive(Clone)]
pub struct Repository {
    client: Client,
    origin: Origin,
    /// Path in the registry.
    name: String,
    credential: Option<Credential>,
    /// What the registry took last, for each kind of access.
    authorizations: Arc<Mutex<BTreeMap<Access, Authorization>>>,
    /// Held while a token is fetched, so that many requests at once fetch one.
    authorizing: Arc<tokio::sync::Mutex<()>>,
}

/// What a request does, as token servers distinguish it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Access {
    /// Reads from the repository.
    Pull,
    /// Writes to it.
    Push,
    /// Writes to it what another repository of the registry has.
    Mount { from: String },
    /// Deletes from it.
    Delete,
    /// Lists the repositories of the registry.
    Catalogue,
}

impl Access {
    fn scopes(&self, name: &str) -> Vec<String> {
        match self {
            Self::Pull => vec![format!("repository:{name}:pull")],
            Self::Push => vec![format!("repository:{name}:pull,push")],
            Self::Mount { from } => vec![
                format!("repository:{name}:pull,push"),
                format!("repository:{from}:pull"),
            ],
            Self::Delete => vec![format!("repository:{name}:delete,pull")],
            Self::Catalogue => vec!["registry:catalog:*".to_owned()],
        }
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Repository")
            .field("registry", &self.origin.authority)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Repository {
    pub(crate) fn new(client: Client, origin: Origin, name: &str, credential: Option<&Credential>) -> Self {
        Self {
            client,
            origin,
            name: name.to_owned(),
            credential: credential.cloned(),
            authorizations: Arc::default(),
            authorizing: Arc::default(),
        }
    }

    /// A manifest or index, by tag or digest, byte for byte.
    pub async fn manifest(&self, reference: &str) -> Result<Manifest> {
        self.patiently(|| self.fetch_manifest(reference)).await
    }

    /// What a tag or digest names, without the document. Registries with a limit on pulls do not count this.
    ///
    /// `None` if nothing is there. The digest is what the registry says, and absent where it says none.
    pub async fn manifest_head(&self, reference: &str) -> Result<Option<ManifestHead>> {
        self.patiently(|| async {
            let mut call = self.call(Method::HEAD, &format!("manifests/{reference}"))?;
            call.headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
            let answer = self.ask(call, Access::Pull).await?;
            if answer.status() == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            let answer = self.expect(answer, StatusCode::OK, reference).await?;
            let digest = text(answer.headers(), &CONTENT_DIGEST).filter(|digest| is_digest(digest));
            Ok(Some(ManifestHead {
                digest: digest.map(str::to_owned),
                media_type: text(answer.headers(), &CONTENT_TYPE).unwrap_or_default().to_owned(),
                size: text(answer.headers(), &CONTENT_LENGTH).and_then(|size| size.parse().ok()),
            }))
        })
        .await
    }

    /// Writes a manifest or index, byte for byte, under a tag or its digest. What it names has to be there.
    ///
    /// Tells whether the registry lists it among the referrers of its subject. Where it does not, whoever writes it has to.
    pub async fn put_manifest(&self, reference: &str, manifest: &Manifest) -> Result<bool> {
        self.patiently(|| async {
            let mut call = self.call(Method::PUT, &format!("manifests/{reference}"))?;
            let media_type = HeaderValue::from_str(&manifest.media_type)
                .map_err(|_| self.malformed("a manifest with an impossible media type"))?;
            call.headers.insert(CONTENT_TYPE, media_type);
            call.body = manifest.bytes.clone();
            let answer = self.ask(call, Access::Push).await?;
            let answer = self.expect(answer, StatusCode::CREATED, reference).await?;
            let stored = text(answer.headers(), &CONTENT_DIGEST);
            let is_other = |stored: &str| {
                is_digest(stored) && same_algorithm(stored, &manifest.digest) && stored != manifest.digest
            };
            if stored.is_some_and(is_other) {
                return Err(self.mismatch(&manifest.digest));
            }
            Ok(answer.headers().contains_key(&SUBJECT))
        })
        .await
    }

    /// Deletes a tag, or a manifest with all its tags. That it was not there is no error.
    pub async fn delete_manifest(&self, reference: &str) -> Result<()> {
        self.patiently(|| async {
            let call = self.call(Method::DELETE, &format!("manifests/{reference}"))?;
            let answer = self.ask(call, Access::Delete).await?;
            match answer.status() {
                StatusCode::ACCEPTED | StatusCode::OK | StatusCode::NO_CONTENT | StatusCode::NOT_FOUND => Ok(()),
                _ => Err(self.failure(answer, reference).await),
            }
        })
        .await
    }

    pub(crate) async fn fetch_manifest(&self, reference: &str) -> Result<Manifest> {
        let mut call = self.call(Method::GET, &format!("manifests/{reference}"))?;
        call.headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
        let answer = self.ask(call, Access::Pull).await?;
        let answer = self.expect(answer, StatusCode::OK, reference).await?;
        let media_type = text(answer.headers(), &CONTENT_TYPE).unwrap_or_default().to_owned();
        let bytes = answer.bytes(MAX_DOCUMENT_BYTES).await?;
        let digest = digest_like(reference, &bytes);
        if is_digest(reference) && digest != reference {
            return Err(self.mismatch(reference));
        }
        Ok(Manifest {
            media_type,
            digest,
            bytes,
        })
    }

    /// A request about something in this repository, e.g. `manifests/v1`.
    pub(crate) fn call(&self, method: Method, rest: &str) -> Result<Call> {
        let uri = self
            .origin
            .uri(&format!("/v2/{}/{rest}", self.name))
            .map_err(|_| self.malformed("a name that is none"))?;
        Ok(Call::new(method, uri))
    }

    /// Sends a request, with a token or password if the registry wants one. A token that it no longer takes is renewed once.
    pub(crate) async fn ask(&self, mut call: Call, access: Access) -> Result<Answer> {
        let transport = self.client.transport(&self.origin);
        call.authorization = self.current_authorization(&access).await?;
        let answer = transport.send(&self.origin, &call).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let Some(challenge) = Challenge::from_headers(answer.headers()) else {
            return Ok(answer);
        };
        call.authorization = Some(self.authorize(&challenge, &access, call.authorization.as_ref()).await?);
        self.client.remember(&self.origin.authority, challenge);
        transport.send(&self.origin, &call).await
    }

    /// Sends a request whose body is there once, with the authorization of the request before it.
    pub(crate) async fn send_stream(&self, mut call: Call, access: &Access, body: Body) -> Result<Answer> {
        if self.origin.is_at(&call.uri) {
            call.authorization = self.current_authorization(access).await?;
        }
        self.client
            .transport(&self.origin)
            .send_stream(&self.origin, &call, body)
            .await
    }

    /// What the registry took last, or what it will take by what it said last.
    async fn current_authorization(&self, access: &Access) -> Result<Option<HeaderValue>> {
        if let Some(header) = self.last_authorization(access) {
            return Ok(Some(header));
        }
        match self.client.challenge(&self.origin.authority) {
            Some(challenge) => self.authorize(&challenge, access, None).await.map(Some),
            None => Ok(None),
        }
    }

    /// Gets an authorization other than the one that was refused.
    async fn authorize(
        &self,
        challenge: &Challenge,
        access: &Access,
        refused: Option<&HeaderValue>,
    ) -> Result<HeaderValue> {
        let _turn = self.authorizing.lock().await;
        // Somebody else may have got one in the meantime.
        if let Some(header) = self.last_authorization(access).filter(|header| Some(header) != refused) {
            return Ok(header);
        }
        let scopes = access.scopes(&self.name);
        let transport = self.client.transport(&self.origin);
        let authorization =
            token::authorization(transport, &self.origin, challenge, &scopes, self.credential.as_ref()).await?;
        let header = authorization.header.clone();
        self.authorizations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(access.clone(), authorization);
        Ok(header)
    }

    fn last_authorization(&self, access: &Access) -> Option<HeaderValue> {
        let authorizations = self.authorizations.lock().unwrap_or_else(PoisonError::into_inner);
        let authorization = authorizations
            .get(access)
            .filter(|authorization| authorization.is_fresh())?;
        Some(authorization.header.clone())
    }

    /// Lets the next request of that kind ask for an authorization anew.
    pub(crate) fn forget_authorization(&self, access: &Access) {
        self.authorizations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(access);
    }

    /// The registry as the client remembers it: host, with the port if it is not the usual one.
    pub(crate) fn authority(&self) -> &str {
        &self.origin.authority
    }

    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The answer, or an error unless it has the status that success has.
    pub(crate) async fn expect(&self, answer: Answer, expected: StatusCode, what: &str) -> Result<Answer> {
        if answer.status() == expected {
            Ok(answer)
        } else {
            Err(self.failure(answer, what).await)
        }
    }

    /// What an answer other than success says.
    pub(crate) async fn failure(&self, answer: Answer, what: &str) -> Error {
        let what = format!("{} {what}", self.name);
        let (host, status, headers) = (answer.host.clone(), answer.status(), answer.headers().clone());
        of_status(&host, status, &headers, answer.said().await, &what)
    }

    pub(crate) fn malformed(&self, what: &'static str) -> Error {
        Error::Malformed {
            host: self.origin.authority.clone(),
            what,
        }
    }

    pub(crate) fn mismatch(&self, digest: &str) -> Error {
        Error::DigestMismatch {
            host: self.origin.authority.clone(),
            digest: digest.to_owned(),
        }
    }

    pub(crate) fn timeout(&self) -> Error {
        Error::Timeout {
            host: self.origin.authority.clone(),
            after: self.client.timeout(),
        }
    }

    /// Asks within the time that a question has, and again where the registry fails for the moment.
    pub(crate) async fn patiently<T, Question>(&self, question: impl Fn() -> Question) -> Result<T>
    where
        Question: Future<Output = Result<T>>,
    {
        let mut attempt = 1;
        loop {
            if attempt > 1 || self.client.patience().attempts > 1 {
                self.client.held(self.authority()).await;
            }
            let error = match self.in_time(question()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if !self.pause(attempt, &error).await {
                return Err(error);
            }
            attempt += 1;
        }
    }

    /// Waits after an attempt that failed. Tells whether there is to be another one.
    pub(crate) async fn pause(&self, attempt: u32, error: &Error) -> bool {
        let Some(pause) = self.client.patience().pause(attempt, error, spread()) else {
            return false;
        };
        if matches!(error, Error::RateLimited { .. }) {
            // Nobody else is to ask in the meantime either.
            self.client.hold(self.authority(), pause);
            self.client.held(self.authority()).await;
        } else {
            tokio::time::sleep(pause).await;
        }
        true
    }

    pub(crate) async fn in_time<T>(&self, question: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::time::timeout(self.client.timeout(), question)
            .await
            .unwrap_or_else(|_| Err(self.timeout()))
    }
}

/// A header, where it is text.
pub(crate) fn text<'headers>(headers: &'headers HeaderMap, name: &HeaderName) -> Option<&'headers str> {
    headers.get(name)?.to_str().ok()
}

fn same_algorithm(one: &str, other: &str) -> bool {
    let algorithm = |digest: &str| digest.split_once(':').map(|(algorithm, _)| algorithm.to_owned());
    algorithm(one) == algorithm(other)
}

#[cfg(test)]
mod tests;
