//! Who may read originals and write copies: the Secrets that Mirrors name.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use coral_api::{FailureReason, ImageReference, Mirror, mirror::Destination};
use coral_registry::{Client, Credential, Keyring, Options, Patience, Platform, Proxies, check_authorities};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt as _};
use tokio::sync::Mutex;

use super::verdict::Verdict;
use crate::{Copier, Credentials, budget::Budgets, chain, destination::place, holdings::Holdings};

/// How long what was read of Secrets is used: so long may credentials that somebody has changed go on working here.
const FRESH: Duration = Duration::from_mins(5);
/// How long the API server may take for a Secret.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest silence of a registry. Some take their time to put a large blob where it stays.
const REGISTRY_TIMEOUT: Duration = Duration::from_mins(1);
/// How a registry is asked again at once. What takes longer has its turn again later.
const PATIENCE: Patience = Patience {
    attempts: 3,
    first_pause: Duration::from_millis(500),
    longest_pause: Duration::from_secs(5),
};

/// Which copies: the Mirror, and the place of the destination in its list.
pub(super) type Way = (String, usize);

/// The means to make the copies of one Mirror at one destination.
pub(super) struct Access {
    pub(super) copier: Copier,
    /// A Secret for the originals that could not be read, with what to do about it.
    pub(super) missing: Option<Verdict>,
    /// Registries of originals that cannot be known, because the Secret with their authority could not be read.
    unknown: BTreeMap<String, Verdict>,
}

impl Access {
    /// Why an original is not asked for at all.
    pub(super) fn unknown(&self, image: &ImageReference) -> Option<&Verdict> {
        self.unknown.get(image.registry())
    }

    #[cfg(test)]
    pub(super) fn of(copier: Copier) -> Self {
        Self {
            copier,
            missing: None,
            unknown: BTreeMap::new(),
        }
    }
}

/// All of them, made when they are needed.
#[derive(Clone)]
pub(super) struct Accesses {
    client: kube::Client,
    /// Namespace of the Secrets for destinations.
    namespace: String,
    plain_http: Arc<BTreeSet<String>>,
    budgets: Budgets,
    holdings: Holdings,
    parallel: usize,
    known: Arc<Mutex<BTreeMap<Way, Known>>>,
}

struct Known {
    since: Instant,
    generation: Option<i64>,
    access: Result<Arc<Access>, Verdict>,
}

impl Accesses {
    pub(super) fn new(client: kube::Client, options: &super::Options) -> Self {
        Self {
            client,
            namespace: options.namespace.clone(),
            plain_http: Arc::new(options.plain_http.clone()),
            budgets: Budgets::new(options.parallel),
            holdings: Holdings::default(),
            parallel: options.parallel,
            known: Arc::default(),
        }
    }

    /// The access to a destination of a Mirror.
    pub(super) async fn get(&self, mirror: &Mirror, index: usize) -> Result<Arc<Access>, Verdict> {
        let way = (mirror.name_any(), index);
        let mut known = self.known.lock().await;
        if let Some(known) = known.get(&way)
            && known.since.elapsed() < FRESH
            && known.generation == mirror.metadata.generation
        {
            return known.access.clone();
        }
        let access = self.make(mirror, index).await.map(Arc::new);
        known.insert(
            way,
            Known {
                since: Instant::now(),
                generation: mirror.metadata.generation,
                access: access.clone(),
            },
        );
        access
    }

    /// Lets the Secrets of a Mirror be read anew the next time: what they said was refused, or could not be read.
    pub(super) async fn forget(&self, mirror: &str) {
        self.known.lock().await.retain(|(name, _), _| name != mirror);
    }

    async fn make(&self, mirror: &Mirror, index: usize) -> Result<Access, Verdict> {
        let Some(destination) = mirror.spec.destinations.get(index) else {
            return Err(Verdict::new(
                FailureReason::Unknown,
                "the Mirror has no such destination",
            ));
        };
        let mut credentials = Both {
            registry: destination_registry(destination),
            ..Both::default()
        };
        let mut missing = None;
        for secret in &mirror.spec.source_secrets {
            match self
                .secret(&secret.namespace, &secret.name)
                .await
                .and_then(|it| keyring(&it))
            {
                Ok(keyring) => credentials.sources.push(keyring),
                Err(verdict) => missing = missing.or(Some(verdict)),
            }
        }
        let mut options = Options {
            plain_http: (*self.plain_http).clone(),
            timeout: REGISTRY_TIMEOUT,
            patience: PATIENCE,
            proxies: Proxies::from_environment()
                .map_err(|error| Verdict::new(FailureReason::Unknown, error.to_string()))?,
            ..Options::default()
        };
        if let Some(name) = &destination.secret_name {
            let secret = self.secret(&self.namespace, name).await?;
            credentials.destination = Some(keyring(&secret)?);
        }
        if let Some(name) = &destination.ca_secret_name {
            let authority = self.authority(name).await?;
            options.authorities_of.insert(credentials.registry.clone(), authority);
        }
        if destination.plain_http {
            options.plain_http.insert(credentials.registry.clone());
        }
        let mut unknown = BTreeMap::new();
        for source in &mirror.spec.sources {
            let registry = registry_name(&source.registry);
            if source.plain_http {
                options.plain_http.insert(registry.clone());
            }
            let Some(name) = &source.ca_secret_name else {
                continue;
            };
            match self.authority(name).await {
                // The destination's registry may have originals, too, and more than one authority.
                Ok(authority) => add_authority(options.authorities_of.entry(registry).or_default(), &authority),
                Err(verdict) => {
                    unknown.insert(registry, verdict);
                }
            }
        }
        let client =
            Client::new(options).map_err(|error| Verdict::new(FailureReason::PullSecretUnreadable, chain(&error)))?;
        let platforms = mirror.spec.platforms.iter();
        let options = crate::Options {
            platforms: platforms.filter_map(|text| text.parse::<Platform>().ok()).collect(),
            parallel: self.parallel,
            ..crate::Options::default()
        };
        Ok(Access {
            copier: Copier::within(
                self.budgets.clone(),
                self.holdings.clone(),
                client,
                Arc::new(credentials),
                options,
            ),
            missing,
            unknown,
        })
    }

    /// What vouches for a registry: `ca.crt` of a Secret in Coral's namespace. Nothing else of the Secret is looked at.
    async fn authority(&self, name: &str) -> Result<Vec<u8>, Verdict> {
        let secret = self.secret(&self.namespace, name).await?;
        let what = |why: &str| {
            let message = format!("the Secret {}/{name} {why}", self.namespace);
            Verdict::new(FailureReason::PullSecretUnreadable, message)
        };
        let authority = secret.data.and_then(|mut data| data.remove("ca.crt"));
        let authority = authority.ok_or_else(|| what("has no ca.crt"))?.0;
        check_authorities(&authority).map_err(|_| what("has a ca.crt without certificates in PEM form"))?;
        Ok(authority)
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Secret, Verdict> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let what = |why: String| {
            let message = format!("the Secret {namespace}/{name} {why}");
            Verdict::new(FailureReason::PullSecretUnreadable, message)
        };
        match tokio::time::timeout(TIMEOUT, api.get(name)).await {
            Ok(Ok(secret)) => Ok(secret),
            Ok(Err(kube::Error::Api(status))) if status.is_not_found() => Err(what("does not exist".to_owned())),
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => Err(what(format!(
                "may not be read: `kubectl coral allow-secret {name} --namespace {namespace} --mirror` allows it"
            ))),
            Ok(Err(error)) => Err(what(format!("could not be read: {}", chain(&error)))),
            Err(_) => Err(what("could not be read in time".to_owned())),
        }
    }
}

/// The registry of a destination, as references name it.
fn destination_registry(destination: &Destination) -> String {
    let parsed = crate::Place::new(&place(destination), crate::Naming::Path);
    parsed.map_or_else(|_| destination.registry.clone(), |place| place.registry().to_owned())
}

/// A registry, as references name it.
fn registry_name(host: &str) -> String {
    let image = format!("{host}/x/x").parse::<ImageReference>();
    image.map_or_else(|_| host.to_owned(), |image| image.registry().to_owned())
}

/// Puts further certificates behind those that are there, whatever these end with.
fn add_authority(all: &mut Vec<u8>, more: &[u8]) {
    if !all.is_empty() {
        all.push(b'\n');
    }
    all.extend(more);
}

fn keyring(secret: &Secret) -> Result<Keyring, Verdict> {
    let of = |key: &str| {
        secret
            .data
            .as_ref()
            .and_then(|data| data.get(key))
            .map(|bytes| &bytes.0)
    };
    let what = |why: String| {
        let namespace = secret.namespace().unwrap_or_default();
        let message = format!("the Secret {namespace}/{} is of no use: {why}", secret.name_any());
        Verdict::new(FailureReason::PullSecretUnreadable, message)
    };
    match (of(".dockerconfigjson"), of(".dockercfg")) {
        (Some(data), _) => Keyring::from_config_json(data).map_err(|error| what(error.to_string())),
        (None, Some(data)) => Keyring::from_legacy_config(data).map_err(|error| what(error.to_string())),
        (None, None) => Err(what("it is not of type kubernetes.io/dockerconfigjson".to_owned())),
    }
}

/// Credentials for both ends. Those for originals are shown to the destination's registry last, and its own to nobody else.
#[derive(Default)]
struct Both {
    registry: String,
    destination: Option<Keyring>,
    sources: Vec<Keyring>,
}

impl Credentials for Both {
    fn lookup(&self, repository: &str) -> Vec<Credential> {
        let registry = repository.split('/').next().unwrap_or_default();
        let own = self.destination.iter().filter(|_| registry == self.registry);
        own.chain(&self.sources)
            .flat_map(|keyring| keyring.lookup(repository))
            .cloned()
            .collect()
    }
}
