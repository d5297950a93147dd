//! The client: what all questions to all registries share.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use coral_api::ImageReference;

use crate::{
    challenge::Challenge,
    credential::Credential,
    error::{Error, Result},
    origin::Origin,
    platform::Platform,
    repository::Repository,
    size::ImageSize,
    tls::{self, InvalidAuthorities},
    transport::Transport,
};

/// Registries of which the client remembers how they want to be asked.
const MAX_CHALLENGES: usize = 256;

/// How registries are spoken to.
#[derive(Clone, Debug)]
pub struct Options {
    /// Registries that are spoken to in plain HTTP, as references name them, e.g. `registry.lan:5000`. Those on this machine always are.
    pub plain_http: BTreeSet<String>,
    /// Certificates of authorities beside the system's, in PEM form.
    pub authorities: Vec<u8>,
    /// Longest time for one question, with its tokens and redirects, and longest silence while a blob is on its way.
    pub timeout: Duration,
}

/// A client of registries. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    transport: Transport,
    options: Options,
    /// How each registry wanted to be asked, so that it need not say so again.
    challenges: Mutex<BTreeMap<String, Challenge>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            plain_http: BTreeSet::new(),
            authorities: Vec::new(),
            timeout: Duration::from_secs(30),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// A client. It reads the system's certificates now, and connects when it is first asked.
    pub fn new(options: Options) -> Result<Self, InvalidAuthorities> {
        let transport = Transport::new(&tls::config(&options.authorities)?);
        Ok(Self {
            shared: Arc::new(Shared {
                transport,
                options,
                challenges: Mutex::default(),
            }),
        })
    }

    /// The repository of an image, asked with a credential or with none.
    #[must_use]
    pub fn repository(&self, image: &ImageReference, credential: Option<&Credential>) -> Repository {
        let is_plain = self.shared.options.plain_http.contains(image.registry());
        let origin = Origin::new(image.registry(), is_plain);
        Repository::new(self.clone(), origin, image.repository(), credential)
    }

    /// What an image weighs on a platform. The credentials are tried in their order, then none, as with a pull.
    ///
    /// # Caveats
    ///
    /// It costs one or two requests for manifests, which registries with a limit on pulls count as pulls.
    pub async fn image_size(
        &self,
        image: &ImageReference,
        credentials: &[&Credential],
        platform: &Platform,
    ) -> Result<ImageSize> {
        let mut refusal = None;
        for credential in credentials.iter().copied().map(Some).chain([None]) {
            match self.repository(image, credential).image_size(image, platform).await {
                // That access is refused says more than that nothing is there.
                Err(error) if error.may_be_about_credentials() => {
                    if !matches!(refusal, Some(Error::Unauthorized { .. })) {
                        refusal = Some(error);
                    }
                }
                other => return other,
            }
        }
        Err(refusal.unwrap_or_else(|| Error::Unauthorized {
            host: image.registry().to_owned(),
        }))
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.shared.transport
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.shared.options.timeout
    }

    /// How a registry wanted to be asked the last time.
    pub(crate) fn challenge(&self, registry: &str) -> Option<Challenge> {
        let challenges = self.shared.challenges.lock().unwrap_or_else(PoisonError::into_inner);
        challenges.get(registry).cloned()
    }

    /// Remembers how a registry wants to be asked, but not for what: that differs from one repository to the next.
    pub(crate) fn remember(&self, registry: &str, mut challenge: Challenge) {
        if let Challenge::Bearer { scope, .. } = &mut challenge {
            *scope = None;
        }
        let mut challenges = self.shared.challenges.lock().unwrap_or_else(PoisonError::into_inner);
        if challenges.len() >= MAX_CHALLENGES {
            challenges.clear();
        }
        challenges.insert(registry.to_owned(), challenge);
    }
}

#[cfg(test)]
mod tests;
