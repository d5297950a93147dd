//! The client: what all questions to all registries share.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use coral_api::ImageReference;

use tokio::time::Instant;

use crate::{
    challenge::Challenge,
    credential::Credential,
    error::{Error, Result},
    origin::Origin,
    patience::Patience,
    platform::Platform,
    proxy::Proxies,
    repository::Repository,
    size::ImageSize,
    tls::{self, InvalidAuthorities},
    transport::Transport,
};

/// Registries of which the client remembers something.
const MAX_REGISTRIES: usize = 256;

/// How registries are spoken to.
#[derive(Clone, Debug)]
pub struct Options {
    /// Registries that are spoken to in plain HTTP, as references name them, e.g. `registry.lan:5000`. Those on this machine always are.
    pub plain_http: BTreeSet<String>,
    /// Certificates of authorities beside the system's, in PEM form.
    pub authorities: Vec<u8>,
    /// Further ones that vouch for one registry and the places that it points to, and for no other, by the names of registries in references.
    pub authorities_of: BTreeMap<String, Vec<u8>>,
    /// Longest time for one question, with its tokens and redirects, and longest silence while a blob is on its way.
    pub timeout: Duration,
    /// How often something is asked again that fails for the moment.
    pub patience: Patience,
    /// The proxies that registries are reached through.
    pub proxies: Proxies,
}

/// A client of registries. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    transport: Transport,
    /// Those to registries with authorities of their own, by where the registries are.
    own_transports: BTreeMap<String, Transport>,
    options: Options,
    /// How each registry wanted to be asked, so that it need not say so again.
    challenges: Mutex<BTreeMap<String, Challenge>>,
    /// When registries that wanted fewer requests may be asked again.
    pauses: Mutex<BTreeMap<String, Instant>>,
    /// Most bytes of a blob that registries take at once, where that is less than all.
    pieces: Mutex<BTreeMap<String, u64>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            plain_http: BTreeSet::new(),
            authorities: Vec::new(),
            authorities_of: BTreeMap::new(),
            timeout: Duration::from_secs(30),
            patience: Patience::NONE,
            proxies: Proxies::default(),
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
        let transport = |authorities: &[&[u8]]| -> Result<Transport, InvalidAuthorities> {
            Ok(Transport::new(&tls::config(authorities)?, options.proxies.clone()))
        };
        let mut own_transports = BTreeMap::new();
        for (registry, own) in &options.authorities_of {
            let origin = Origin::new(registry, false);
            own_transports.insert(origin.authority, transport(&[&options.authorities, own])?);
        }
        Ok(Self {
            shared: Arc::new(Shared {
                transport: transport(&[&options.authorities])?,
                own_transports,
                options,
                challenges: Mutex::default(),
                pauses: Mutex::default(),
                pieces: Mutex::default(),
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
            said: None,
        }))
    }

    /// The connections to a registry, and to where it points.
    pub(crate) fn transport(&self, origin: &Origin) -> &Transport {
        let own = self.shared.own_transports.get(&origin.authority);
        own.unwrap_or(&self.shared.transport)
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.shared.options.timeout
    }

    pub(crate) fn patience(&self) -> &Patience {
        &self.shared.options.patience
    }

    /// How a registry wanted to be asked the last time.
    pub(crate) fn challenge(&self, registry: &str) -> Option<Challenge> {
        recall(&self.shared.challenges, registry)
    }

    /// Lets nobody who has patience ask a registry before the pause is over.
    pub(crate) fn hold(&self, registry: &str, pause: Duration) {
        let until = Instant::now() + pause;
        let later = recall(&self.shared.pauses, registry).map_or(until, |earlier| earlier.max(until));
        note(&self.shared.pauses, registry, later);
    }

    /// Waits until the registry may be asked.
    pub(crate) async fn held(&self, registry: &str) {
        if let Some(until) = recall(&self.shared.pauses, registry) {
            tokio::time::sleep_until(until).await;
        }
    }

    /// Most bytes of a blob to send to a registry at once. `None`: all of it.
    pub(crate) fn piece(&self, registry: &str) -> Option<u64> {
        recall(&self.shared.pieces, registry)
    }

    /// Remembers that a registry takes no more than that.
    pub(crate) fn limit_piece(&self, registry: &str, bytes: u64) {
        note(&self.shared.pieces, registry, bytes);
    }

    /// Remembers how a registry wants to be asked, but not for what: that differs from one repository to the next.
    pub(crate) fn remember(&self, registry: &str, mut challenge: Challenge) {
        if let Challenge::Bearer { scope, .. } = &mut challenge {
            *scope = None;
        }
        note(&self.shared.challenges, registry, challenge);
    }
}

fn recall<T: Clone>(memory: &Mutex<BTreeMap<String, T>>, registry: &str) -> Option<T> {
    memory
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get(registry)
        .cloned()
}

fn note<T>(memory: &Mutex<BTreeMap<String, T>>, registry: &str, what: T) {
    let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
    if memory.len() >= MAX_REGISTRIES {
        memory.clear();
    }
    memory.insert(registry.to_owned(), what);
}

#[cfg(test)]
mod tests;
