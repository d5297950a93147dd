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
    token,
    transport::{Answer, Body, Call},
};

/// Most bytes of a manifest, an index or a list. The specification asks registries to take manifests of 4 MiB, and none takes more.
pub(crate) const MAX_DOCUMENT_BYTES: usize = 4 * 1024 * 1024;
/// How registries tell the digest of what they send.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// One repository of a registry, asked by somebody. Clones share what the registry was told of them.
#[derive(Clone)]
pub struct Repository {
    client: Client,
    origin: Origin,
    /// Path in the registry.
    name: String,
    credential: Option<Credential>,
    /// What the registry took last, for each kind of access.
    authorizations: Arc<Mutex<BTreeMap<Access, HeaderValue>>>,
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
        }
    }

    /// A manifest or index, by tag or digest, byte for byte.
    pub async fn manifest(&self, reference: &str) -> Result<Manifest> {
        self.in_time(self.fetch_manifest(reference)).await
    }

    /// What a tag or digest names, without the document. Registries with a limit on pulls do not count this.
    ///
    /// `None` if nothing is there. The digest is what the registry says, and absent where it says none.
    pub async fn manifest_head(&self, reference: &str) -> Result<Option<ManifestHead>> {
        self.in_time(async {
            let mut call = self.call(Method::HEAD, &format!("manifests/{reference}"))?;
            call.headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
            let answer = self.ask(call, Access::Pull).await?;
            if answer.status() == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            self.expect(&answer, StatusCode::OK, reference)?;
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
    pub async fn put_manifest(&self, reference: &str, manifest: &Manifest) -> Result<()> {
        self.in_time(async {
            let mut call = self.call(Method::PUT, &format!("manifests/{reference}"))?;
            let media_type = HeaderValue::from_str(&manifest.media_type)
                .map_err(|_| self.malformed("a manifest with an impossible media type"))?;
            call.headers.insert(CONTENT_TYPE, media_type);
            call.body = manifest.bytes.clone();
            let answer = self.ask(call, Access::Push).await?;
            self.expect(&answer, StatusCode::CREATED, reference)?;
            match text(answer.headers(), &CONTENT_DIGEST) {
                Some(stored) if is_digest(stored) && same_algorithm(stored, &manifest.digest) => {
                    if stored == manifest.digest {
                        Ok(())
                    } else {
                        Err(self.mismatch(&manifest.digest))
                    }
                }
                _ => Ok(()),
            }
        })
        .await
    }

    /// Deletes a tag, or a manifest with all its tags. That it was not there is no error.
    pub async fn delete_manifest(&self, reference: &str) -> Result<()> {
        self.in_time(async {
            let call = self.call(Method::DELETE, &format!("manifests/{reference}"))?;
            let answer = self.ask(call, Access::Delete).await?;
            match answer.status() {
                StatusCode::ACCEPTED | StatusCode::OK | StatusCode::NO_CONTENT | StatusCode::NOT_FOUND => Ok(()),
                _ => Err(self.failure(&answer, reference)),
            }
        })
        .await
    }

    pub(crate) async fn fetch_manifest(&self, reference: &str) -> Result<Manifest> {
        let mut call = self.call(Method::GET, &format!("manifests/{reference}"))?;
        call.headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
        let answer = self.ask(call, Access::Pull).await?;
        self.expect(&answer, StatusCode::OK, reference)?;
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
        let transport = self.client.transport();
        call.authorization = self.last_authorization(&access);
        if call.authorization.is_none()
            && let Some(challenge) = self.client.challenge(&self.origin.authority)
        {
            call.authorization = Some(self.authorize(&challenge, &access).await?);
        }
        let answer = transport.send(&self.origin, &call).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let Some(challenge) = Challenge::from_headers(answer.headers()) else {
            return Ok(answer);
        };
        call.authorization = Some(self.authorize(&challenge, &access).await?);
        self.client.remember(&self.origin.authority, challenge);
        transport.send(&self.origin, &call).await
    }

    /// Sends a request whose body is there once, with the authorization of the request before it.
    pub(crate) async fn send_stream(&self, mut call: Call, access: &Access, body: Body) -> Result<Answer> {
        call.authorization = self.last_authorization(access).filter(|_| self.origin.is_at(&call.uri));
        self.client.transport().send_stream(&self.origin, &call, body).await
    }

    async fn authorize(&self, challenge: &Challenge, access: &Access) -> Result<HeaderValue> {
        let scopes = access.scopes(&self.name);
        let transport = self.client.transport();
        let header =
            token::authorization(transport, &self.origin, challenge, &scopes, self.credential.as_ref()).await?;
        self.authorizations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(access.clone(), header.clone());
        Ok(header)
    }

    fn last_authorization(&self, access: &Access) -> Option<HeaderValue> {
        let authorizations = self.authorizations.lock().unwrap_or_else(PoisonError::into_inner);
        authorizations.get(access).cloned()
    }

    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// An error unless the answer has the status that success has.
    pub(crate) fn expect(&self, answer: &Answer, expected: StatusCode, what: &str) -> Result<()> {
        if answer.status() == expected {
            Ok(())
        } else {
            Err(self.failure(answer, what))
        }
    }

    /// What an answer other than success says.
    pub(crate) fn failure(&self, answer: &Answer, what: &str) -> Error {
        let what = format!("{} {what}", self.name);
        of_status(&answer.host, answer.status(), answer.headers(), &what)
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
